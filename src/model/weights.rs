//! The weights of a model: parts beside the layers, and the layers.

use super::arch::Architecture;
use super::config::Config;
use super::group::NeuronGroup;
use super::layer::Layer;
use super::load::Loader;
use super::matrix::Matrix;
use super::part::{Part, Role};
use crate::gguf::Gguf;
use anyhow::{Context, Result};

/// All weights, shared and never changed while a model runs.
pub struct Weights {
    /// Parts beside those of the layers, each role once.
    pub parts: Vec<Part>,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
}

impl Weights {
    /// Views of all weights; of the tensors that are not known, `skips` says which are passed over.
    ///
    /// # Errors
    /// Names the tensor that is missing, misshapen, of an unsupported type, or unknown to the architecture: leaving
    /// one out would give a different model.
    pub fn load(gguf: &Gguf, arch: &dyn Architecture, config: &Config, skips: &dyn Fn(&str) -> bool) -> Result<Self> {
        let layers: Vec<_> = (0..config.n_layer).map(|i| arch.layer(config, i)).collect();
        let n_groups = layers.iter().map(|l| l.groups.len()).sum();
        let mut loader = Loader::new(gguf, arch.name(), config.n_embd, n_groups)?;
        let mut parts = Vec::new();
        for spec in arch.parts(config) {
            parts.extend(loader.part("", &spec)?);
        }
        let layers = layers.iter().enumerate().map(|(i, spec)| loader.layer(i, spec)).collect::<Result<_>>()?;
        loader.finish(skips)?;
        Ok(Self { parts, layers })
    }

    /// The part beside the layers that has this role, where there is one.
    pub fn find(&self, role: Role) -> Option<&Part> {
        self.parts.iter().find(|part| part.role == role)
    }

    /// The part beside the layers that has this role.
    ///
    /// # Panics
    /// Where there is none.
    pub fn part(&self, role: Role) -> &Part {
        self.find(role).unwrap_or_else(|| panic!("the model has no {}", role.tensor()))
    }

    /// `[n_vocab][n_embd]`.
    pub fn token_embd(&self) -> &Matrix {
        self.part(Role::TokenEmbd).matrix()
    }

    /// The part that turns the last state into logits: the head, or the embedding.
    pub fn head_part(&self) -> &Part {
        self.find(Role::Output).unwrap_or_else(|| self.part(Role::TokenEmbd))
    }

    /// Its matrix.
    pub fn head(&self) -> &Matrix {
        self.head_part().matrix()
    }

    /// All groups of neurons, by number: layer by layer, with the number of the layer.
    pub fn groups(&self) -> impl Iterator<Item = (usize, &NeuronGroup)> {
        self.layers.iter().enumerate().flat_map(|(i, layer)| layer.groups.iter().map(move |group| (i, group)))
    }

    /// Number of neurons of each group, by number.
    pub fn group_sizes(&self) -> Vec<usize> {
        self.groups().map(|(_, group)| group.n_ff()).collect()
    }

    /// All parts, each with the number of its layer where it is in one.
    pub fn all_parts(&self) -> impl Iterator<Item = (Option<usize>, &Part)> {
        let layers = self.layers.iter().enumerate();
        let of_layers = layers.flat_map(|(i, layer)| layer.all_parts().map(move |part| (Some(i), part)));
        self.parts.iter().map(|part| (None, part)).chain(of_layers)
    }
}

/// Rows of `token_embd`, which exist before there is a configuration.
///
/// # Errors
/// When the tensor is missing, as in a file that holds only a vocabulary.
pub fn vocabulary_size(gguf: &Gguf) -> Result<usize> {
    let tensor = gguf.tensor("token_embd.weight");
    Ok(tensor.context("token_embd.weight: the tensor is missing; does the file hold only a vocabulary?")?.n_rows())
}
