//! `powerinfer-split --quantize-only`: its arguments, as llama-quantize has them, and what it says.

use super::common::models;
use super::common::terminal::{Bar, print_table, tell};
use super::written::Written;
use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use powerinfer::files::check_writable;
use powerinfer::gguf::Gguf;
use powerinfer::quant::GgmlType;
use powerinfer::units::Bytes;
use powerinfer::variant::{self, Choices, Conversion, Importance, Recipe, TensorType, writable};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Heading of its flags in the help. Each says so, since what follows a heading of all would be under it, too.
const HEADING: &str = "Quantizing only";

/// What decides about a plain file.
#[derive(Args)]
pub struct QuantizeArgs {
    /// Only convert the matrices to a type: writes an ordinary file and leaves the order of neurons and tensors alone. What is
    /// read and written and the type may follow as with llama-quantize; without OUT it is ggml-model-TYPE.gguf beside IN
    #[arg(help_heading = HEADING, long, requires = "kind",
        conflicts_with_all = ["profile", "gpu_index", "keep_order", "predictor", "down", "activation", "no_kl"])]
    pub quantize_only: bool,
    /// With --quantize-only: model, output, type and number of threads, in place of -m, -o, --type and -t
    #[arg(help_heading = HEADING, value_name = "IN OUT TYPE", num_args = 1..=4, requires = "quantize_only",
        conflicts_with_all = ["model", "hf_repo", "output", "recipe", "shape", "threads"])]
    words: Vec<String>,
    /// Type of all matrices whose names have a match of a regular expression, as in ffn_down=q6_k; may be repeated, the first match
    /// decides
    #[arg(help_heading = HEADING, long, value_name = "REGEX=TYPE", requires = "quantize_only")]
    tensor_type: Vec<TensorType>,
    /// Type of the head, output.weight, or of token_embd.weight where that is the head
    #[arg(help_heading = HEADING, long, value_name = "TYPE", requires = "quantize_only", value_parser = writable)]
    output_tensor_type: Option<GgmlType>,
    /// Type of the embeddings
    #[arg(help_heading = HEADING, long, value_name = "TYPE", requires = "quantize_only", value_parser = writable)]
    token_embedding_type: Option<GgmlType>,
    /// Leave the head as it is
    #[arg(help_heading = HEADING, long, requires = "quantize_only", conflicts_with = "output_tensor_type")]
    leave_output_tensor: bool,
    /// No mixture: all matrices have the one type that the mixture is named for
    #[arg(help_heading = HEADING, long, requires = "quantize_only")]
    pure: bool,
    /// How much the columns of matrices count: a profile of powerinfer-profile's, or an importance matrix that llama-imatrix wrote
    /// as GGUF
    #[arg(help_heading = HEADING, long, value_name = "FILE", requires = "quantize_only")]
    imatrix: Option<PathBuf>,
    /// Quantize matrices that are quantized already, too, which loses more than quantizing what they were made from
    #[arg(help_heading = HEADING, long, requires = "quantize_only")]
    allow_requantize: bool,
}

/// The words that follow `--quantize-only`.
pub struct Words {
    pub model: PathBuf,
    pub output: PathBuf,
    pub recipe: Recipe,
    pub threads: Option<usize>,
}

impl QuantizeArgs {
    /// What the words mean, if there are any; ends the program where they mean nothing.
    pub fn words<A: CommandFactory>(&self) -> Option<Words> {
        let fail = |kind, message: String| -> ! { A::command().error(kind, message).exit() };
        let (model, rest) = self.words.split_first()?;
        let model = PathBuf::from(model);
        let (output, name, rest) = match rest {
            [name, rest @ ..] if name.parse::<Recipe>().is_ok() => (None, name, rest),
            [output, name, rest @ ..] => (Some(PathBuf::from(output)), name, rest),
            _ => fail(ErrorKind::WrongNumberOfValues, "--quantize-only IN OUT TYPE: TYPE is missing".to_owned()),
        };
        let recipe: Recipe =
            name.parse().unwrap_or_else(|error| fail(ErrorKind::ValueValidation, format!("\"{name}\" {error}")));
        let threads = match rest {
            [] => None,
            [n] => match n.parse() {
                Ok(n) => Some(n),
                Err(_) => fail(ErrorKind::ValueValidation, format!("\"{n}\" is no number of threads")),
            },
            [.., n] => fail(ErrorKind::TooManyValues, format!("\"{n}\": --quantize-only takes IN OUT TYPE NTHREADS")),
        };
        let beside = || model.with_file_name(format!("ggml-model-{}.gguf", name.to_uppercase()));
        Some(Words { output: output.unwrap_or_else(beside), model, recipe, threads })
    }

    fn choices(&self) -> Result<Choices> {
        Ok(Choices {
            types: self.tensor_type.clone(),
            head: self.output_tensor_type,
            embedding: self.token_embedding_type,
            keep_head: self.leave_output_tensor,
            pure: self.pure,
            requantize: self.allow_requantize,
            importance: self.imatrix.as_deref().map(Importance::read).transpose()?,
        })
    }

    /// Writes `output`.
    pub fn run(&self, path: &Path, output: &Path, recipe: Recipe, as_json: bool, bar: &Bar) -> Result<()> {
        models::keep_inputs(output, [path].into_iter().chain(self.imatrix.as_deref()))?;
        check_writable(output)?;
        let source = Gguf::open(path)?;
        let conversion = self.decide(&source, recipe)?;
        variant::quantize(&source, &conversion, output, bar)?;
        if as_json {
            return Written { kind: "quantized", notes: &conversion.notes, ..Written::of(&source, output) }.print();
        }
        print_table(format_args!("{}: {}\n", output.display(), summary(&source, &conversion)))
    }

    /// Shows what would be written.
    pub fn show(&self, path: &Path, recipe: Recipe, as_json: bool) -> Result<()> {
        let source = Gguf::open(path)?;
        let conversion = self.decide(&source, recipe)?;
        let sizes = conversion.tensors.iter().map(|t| Ok(t.n_bytes()? as u64)).collect::<Result<Vec<_>>>()?;
        let rows = source.tensors().iter().zip(&conversion.tensors).zip(&sizes);
        if as_json {
            let tensors: Vec<_> = rows
                .map(|((from, to), n_bytes)| {
                    json!({
                        "name": to.name, "dims": to.dims, "from": from.dtype.name(), "type": to.dtype.name(),
                        "source_bytes": from.data.len(), "bytes": n_bytes,
                    })
                })
                .collect();
            let all = json!({
                "recipe": recipe.to_string(), "file_type": conversion.file_type, "tensors": tensors,
                "source_bytes": n_bytes(&source), "bytes": conversion.n_bytes,
            });
            return print_table(format_args!("{}\n", serde_json::to_string_pretty(&all).context("JSON")?));
        }
        let mut table = String::new();
        let width = conversion.tensors.iter().map(|t| t.name.len()).max().unwrap_or(0);
        for ((from, to), n_bytes) in rows {
            let before = Bytes(from.data.len() as u64);
            let kept = if from.dtype == to.dtype { "stays" } else { to.dtype.name() };
            let line = format!(
                "{:width$}  {:>6}  {kept:>6}  {:>11}  {:>11}\n",
                to.name,
                from.dtype.name(),
                before.to_string(),
                Bytes(*n_bytes).to_string()
            );
            table.push_str(&line);
        }
        print_table(format_args!("{table}{}\n", summary(&source, &conversion)))
    }

    fn decide(&self, source: &Gguf, recipe: Recipe) -> Result<Conversion> {
        let conversion = Conversion::new(source, recipe, &self.choices()?)?;
        for note in &conversion.notes {
            tell!("note: {note}");
        }
        Ok(conversion)
    }
}

fn summary(source: &Gguf, conversion: &Conversion) -> String {
    let types: Vec<_> = conversion.types.iter().map(|(dtype, n)| format!("{n} {dtype}")).collect();
    let (after, before) = (Bytes(conversion.n_bytes), Bytes(n_bytes(source)));
    format!("{after} of weights (source: {before}); matrices: {}", types.join(", "))
}

fn n_bytes(source: &Gguf) -> u64 {
    source.tensors().iter().map(|t| t.data.len() as u64).sum()
}
