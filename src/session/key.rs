//! What a session file is of: the model, and the settings that what is remembered depends on.

use crate::executor::{Executor, Mode};
use crate::model::Model;
use crate::profile::Fingerprint;
use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

/// Places in each tensor that are looked at, and bytes at each.
const N_PLACES: usize = 8;
const N_BYTES: usize = 64;

/// Lengths of a setting's name and of its value, in a file.
pub(super) const MOST_NAME: usize = 64;

/// What must be the same for what one run remembers to be what another would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Of the model, whatever its file.
    pub(super) model: [u8; 32],
    /// Of the file, and of how it is computed.
    pub(super) file: [u8; 32],
    /// Flags, and what they say; always the same ones.
    pub(super) settings: Vec<(String, String)>,
}

impl Key {
    /// That of what `executor` computes.
    ///
    /// # Errors
    /// When the vocabulary of the model cannot be read.
    pub fn of(executor: &Executor) -> Result<Self> {
        let (model, params) = (executor.model(), executor.params());
        let mode = match params.mode {
            // They give the same bits.
            Mode::Dense | Mode::Exact => "exact",
            Mode::Predicted | Mode::Thresholded => params.mode.name(),
        };
        let rope = &model.config.rope;
        let context = match rope.long_from {
            None => "any".to_owned(),
            Some(original) if params.n_ctx > original => format!("above {original}"),
            Some(original) => format!("up to {original}"),
        };
        let settings = [
            ("--cache-type", params.kv_type.to_string().to_lowercase()),
            ("--mode", mode.to_owned()),
            ("--activation", model.config.activation.activation.to_string()),
            ("--isa", params.isa.name().to_owned()),
            ("--device", if executor.card().is_some() { "cuda" } else { "cpu" }.to_owned()),
            ("-c", context),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).into();
        let mut hash = Sha256::new();
        hash.update(Fingerprint::of(model)?.hex());
        Ok(Self { model: hash.finalize().into(), file: file(model), settings })
    }

    /// Holds that what `other`, read from a file, is of is this.
    ///
    /// # Errors
    /// Says what is not, and what helps.
    pub(super) fn check(&self, other: &Self) -> Result<()> {
        ensure!(self.model == other.model, "was written with another model; give that one, or name another file");
        for ((name, own), (_, theirs)) in self.settings.iter().zip(&other.settings) {
            ensure!(own == theirs, "was written with {name} {theirs}, not {own}; give that, or name another file");
        }
        ensure!(
            self.settings == other.settings && self.file == other.file,
            "was written with another file of this model; give that one, or name another file"
        );
        Ok(())
    }
}

/// Of a file, and what is made of its keys: sizes and kinds, all tensors by name, type and shape, and bytes of each.
fn file(model: &Model) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", model.config));
    for tensor in model.gguf.tensors() {
        let data = model.gguf.data(tensor);
        hash.update(format!("{} {} {:?} {}\n", tensor.name, tensor.dtype, tensor.dims, data.len()));
        for place in 0..N_PLACES {
            let at = (data.len() * place / N_PLACES).min(data.len().saturating_sub(N_BYTES));
            hash.update(&data[at..data.len().min(at + N_BYTES)]);
        }
    }
    hash.finalize().into()
}
