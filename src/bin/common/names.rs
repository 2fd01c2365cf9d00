//! Models by their names: the program's list, the user's, and how they are shown.

use super::config_folder;
use super::hub::hub;
use super::terminal::print_table;
use anyhow::{Context, Result, bail, ensure};
use powerinfer::files::read_regular;
use powerinfer::hub::Reference;
use powerinfer::model::Model;
use powerinfer::model::registry::{KnownModel, all, merged, parse};
use powerinfer::progress::Silent;
use powerinfer::units::Bytes;
use std::fmt::Write;
use std::path::Path;

/// Of a list of models.
const MOST: Bytes = Bytes(4 << 20);

/// All models that have names: those of the program, then those of the user, which may take their places.
pub fn known(given: Option<&Path>) -> Result<Vec<KnownModel>> {
    let own = config_folder().map(|folder| folder.join("models.toml")).filter(|path| path.exists());
    let mut models = all()?;
    for path in own.as_deref().into_iter().chain(given) {
        let text = read_regular(path, MOST).and_then(|text| parse(&text));
        models = merged(models, text.with_context(|| path.display().to_string())?);
    }
    Ok(models)
}

/// Where on the hub a model is, and the SHA-256 that its file must have, where that is known.
///
/// # Errors
/// When there is no file that could be run.
pub fn reference(model: &KnownModel) -> Result<(Reference, Option<&str>)> {
    let arch = &model.architecture;
    ensure!(Model::is_computed(arch), "its architecture, {arch}, is not computed yet");
    model.function().context("its activation function is not computed yet")?;
    if model.repo.is_empty() {
        bail!("no GGUF file of it is known that opens here; scripts/convert_hf_to_gguf.py converts {}", model.weights);
    }
    let file = |path: &str| model.files.iter().find(|file| path.rsplit('/').next() == Some(&file.name));
    let wanted = match &*model.file {
        "" => format!("{}{}{}", model.repo, if model.quant.is_empty() { "" } else { ":" }, model.quant).parse()?,
        path => Reference::to_file(model.repo.parse()?, path)?,
    };
    let sha256 = file(&model.file).map(|file| &*file.sha256).filter(|sha256| !sha256.is_empty());
    Ok((wanted, sha256))
}

/// Whether the program could compute it, if there were a file.
fn is_computed(model: &KnownModel) -> bool {
    Model::is_computed(&model.architecture) && model.function().is_ok()
}

/// `--list-models`.
pub fn list(given: Option<&Path>) -> Result<()> {
    let hub = hub(true, None, &Silent)?;
    let mut rows =
        vec![["name", "parameters", "architecture", "activation", "zeros", "here", "licence"].map(str::to_owned)];
    for model in known(given)?.iter().filter(|model| !model.id.is_empty()) {
        let here = match reference(model) {
            _ if model.embedded => "embedded",
            Ok((wanted, _)) if hub.is_here(&wanted) => "yes",
            Ok(_) => "no",
            Err(_) if is_computed(model) => "convert",
            Err(_) => "not computed",
        };
        let zeros =
            model.sparsity.map_or_else(String::new, |share| format!("{:.0} % {}", share * 100.0, model.sparsity_is));
        let activation = model.function().map_or_else(|_| model.activation.clone(), |function| function.to_string());
        let [id, size, arch, licence] =
            [&model.id, &model.size, &model.architecture, &model.licence].map(String::clone);
        rows.push([id, size, arch, activation, zeros, here.to_owned(), licence]);
    }
    print_table(aligned(&rows) + NOTES)
}

const NOTES: &str = "
zeros: share of the FFN's neurons that a token leaves at zero. here: yes, no (-m NAME fetches it), convert (only weights of other
formats are known), not computed (its architecture or activation function is not).
";

/// Columns side by side.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0));
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // A String never refuses.
            let _ = write!(line, "{cell:width$}  ");
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}
