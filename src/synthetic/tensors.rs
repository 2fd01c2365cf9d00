//! The tensors of a synthetic model, in llama.cpp's usual order.

use super::kind::Kind;
use super::neurons::{Family, width};
use super::spec::{Layout, Spec};
use super::types::matrix_type;
use crate::gguf::write::PlannedTensor;
use crate::quant::GgmlType;
use crate::shapes::{ExpertShape, LayerKind, MambaShape};
use anyhow::Result;

/// What a tensor holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    Rows(Kind),
    /// Before the layer, or behind its attention; the constant goes through where it leads to neurons.
    Norm {
        after_attention: bool,
        constant: bool,
    },
    OutputNorm,
    Ones,
    Zeros,
    Ids,
    Rates,
    Mass,
    SsmDt,
    SsmA,
    SsmD,
}

/// A tensor.
pub(super) struct Tensor {
    pub planned: PlannedTensor,
    pub content: Content,
    pub layer: usize,
    /// Of a tensor of neurons, which of the layer's families has it.
    pub family: usize,
}

/// All tensors of `spec`'s file, whose neurons are those of `families`.
///
/// # Errors
/// When rows are not whole blocks of their type.
pub(super) fn tensors(spec: &Spec, layout: Layout, families: &[Family]) -> Result<Vec<Tensor>> {
    let shape = spec.sized.shape;
    let mut list = List { spec, out: Vec::new() };
    list.matrix("token_embd.weight", Kind::TokenEmbd, 0, (shape.n_embd, shape.n_vocab))?;
    for layer in 0..spec.sized.n_layer {
        let kind = shape.kind(layer);
        list.norm(layer, "attn_norm", false, !kind.attends() && kind.has_ffn());
        if kind.attends() {
            list.attention(layer)?;
        }
        if kind == LayerKind::Block {
            list.norm(layer, "ffn_norm", true, true);
        }
        if let (LayerKind::Recurrent, Some(mamba)) = (kind, &shape.mamba) {
            list.recurrent(layer, mamba)?;
        }
        if kind.has_ffn() {
            if let Some(experts) = &shape.experts {
                list.router(layer, experts)?;
            }
            for (i, family) in families.iter().enumerate() {
                list.neurons(layer, layout, (i, family))?;
            }
        }
    }
    list.add("output_norm.weight", Content::OutputNorm, 0, GgmlType::F32, vec![shape.n_embd]);
    if !shape.tied {
        list.matrix("output.weight", Kind::Output, 0, (shape.n_embd, shape.n_vocab))?;
    }
    Ok(list.out)
}

struct List<'a> {
    spec: &'a Spec,
    out: Vec<Tensor>,
}

impl List<'_> {
    fn add(&mut self, name: &str, content: Content, layer: usize, dtype: GgmlType, dims: Vec<usize>) {
        let planned = PlannedTensor { name: name.to_owned(), dtype, dims };
        self.out.push(Tensor { planned, content, layer, family: 0 });
    }

    fn vector(&mut self, layer: usize, name: &str, content: Content, dims: &[usize]) {
        self.add(&format!("blk.{layer}.{name}"), content, layer, GgmlType::F32, dims.to_vec());
    }

    fn norm(&mut self, layer: usize, name: &str, after_attention: bool, constant: bool) {
        let n_embd = self.spec.sized.shape.n_embd;
        self.vector(layer, &format!("{name}.weight"), Content::Norm { after_attention, constant }, &[n_embd]);
    }

    fn matrix(&mut self, name: &str, kind: Kind, layer: usize, (n_cols, n_rows): (usize, usize)) -> Result<()> {
        let dtype = matrix_type(&self.spec.sized, name, n_cols)?;
        self.add(name, Content::Rows(kind), layer, dtype, vec![n_cols, n_rows]);
        Ok(())
    }

    fn in_layer(&mut self, layer: usize, name: &str, kind: Kind, sizes: (usize, usize)) -> Result<()> {
        self.matrix(&format!("blk.{layer}.{name}.weight"), kind, layer, sizes)
    }

    fn attention(&mut self, layer: usize) -> Result<()> {
        let shape = self.spec.sized.shape;
        let (n_embd, n_q, n_kv) = (shape.n_embd, shape.n_q(), shape.n_kv());
        self.in_layer(layer, "attn_q", Kind::AttnQ, (n_embd, n_q))?;
        self.in_layer(layer, "attn_k", Kind::AttnK, (n_embd, n_kv))?;
        self.in_layer(layer, "attn_v", Kind::AttnV, (n_embd, n_kv))?;
        self.in_layer(layer, "attn_output", Kind::AttnOutput, (n_q, n_embd))?;
        if self.spec.normalises_heads() {
            self.vector(layer, "attn_q_norm.weight", Content::Ones, &[shape.head_dim]);
            self.vector(layer, "attn_k_norm.weight", Content::Ones, &[shape.head_dim]);
        }
        Ok(())
    }

    fn recurrent(&mut self, layer: usize, mamba: &MambaShape) -> Result<()> {
        let n_embd = self.spec.sized.shape.n_embd;
        self.in_layer(layer, "ssm_in", Kind::SsmIn, (n_embd, mamba.n_in()))?;
        let (n_channels, heads) = (mamba.n_channels(), mamba.heads);
        self.vector(layer, "ssm_conv1d.weight", Content::Rows(Kind::SsmConv), &[mamba.n_conv, n_channels]);
        self.vector(layer, "ssm_conv1d.bias", Content::Zeros, &[n_channels]);
        self.vector(layer, "ssm_dt.bias", Content::SsmDt, &[heads]);
        self.vector(layer, "ssm_a", Content::SsmA, &[1, heads]);
        self.vector(layer, "ssm_d", Content::SsmD, &[1, heads]);
        self.vector(layer, "ssm_norm.weight", Content::Ones, &[mamba.inner / mamba.groups, mamba.groups]);
        self.in_layer(layer, "ssm_out", Kind::SsmOut, (mamba.inner, n_embd))
    }

    /// What routers are quantized to would choose others.
    fn router(&mut self, layer: usize, experts: &ExpertShape) -> Result<()> {
        let shape = self.spec.sized.shape;
        let n_embd = shape.n_embd;
        self.vector(layer, "ffn_gate_inp.weight", Content::Rows(Kind::Router), &[n_embd, experts.n]);
        if experts.biased {
            self.vector(layer, "exp_probs_b.bias", Content::Zeros, &[experts.n]);
        }
        if experts.latent.is_some() {
            self.in_layer(layer, "ffn_latent_down", Kind::LatentDown, (n_embd, width(shape)))?;
            self.in_layer(layer, "ffn_latent_up", Kind::LatentUp, (width(shape), n_embd))?;
        }
        Ok(())
    }

    fn neurons(&mut self, layer: usize, layout: Layout, (i, family): (usize, &Family)) -> Result<()> {
        let (width, n_ff, suffix) = (family.width, family.n_ff, family.suffix);
        let first = self.out.len();
        let mut rows = |name: &str, kind, n_cols, n_rows| {
            let name = format!("blk.{layer}.{name}{suffix}.weight");
            let dtype = matrix_type(&self.spec.sized, &name.replace("_down_t", "_down"), n_cols)?;
            self.add(&name, Content::Rows(kind), layer, dtype, family.dims(n_cols, n_rows));
            anyhow::Ok(())
        };
        if family.gated {
            rows("ffn_gate", Kind::FfnGate, width, n_ff)?;
        }
        rows("ffn_up", Kind::FfnUp, width, n_ff)?;
        if layout == Layout::Plain {
            rows("ffn_down", Kind::FfnDown, n_ff, width)?;
        } else {
            rows("ffn_down_t", Kind::FfnDown, width, n_ff)?;
            let index = [("id", Content::Ids, GgmlType::I32), ("rate", Content::Rates, GgmlType::F32)];
            for (name, content, dtype) in index.into_iter().chain([("mass", Content::Mass, GgmlType::F32)]) {
                let name = format!("blk.{layer}.ffn_neuron_{name}{suffix}");
                self.add(&name, content, layer, dtype, family.index_dims());
            }
        }
        self.out[first..].iter_mut().for_each(|tensor| tensor.family = i);
        Ok(())
    }
}
