//! Many tokens at once: everything that has a place on the card is computed there, with weights that are not there
//! streaming by; attention of layers whose cache the CPU has is computed on the CPU.

use super::record::Card;
use super::resident::{CardAttention, CardLayer};
use crate::executor::engine::{Engine, Phase};
use crate::executor::forward::{Observer, Unobserved};
use crate::executor::pass::{Blocks, NormOf, Part};
use crate::gpu::Ptr;
use crate::gpu::matrix::DeviceMatrix;
use crate::gpu::ops::attention_prefill::{AttendMany, attention_prefill};
use crate::gpu::ops::gemm::{Combine, Packed, Product, Tokens, gemm, gemm_t, pack};
use crate::gpu::ops::matvec::{Rows, matvec};
use crate::gpu::ops::norm::{Acts, norm};
use crate::gpu::ops::rope::{RopeStore, rope_store};
use crate::gpu::tiles::{FileRows, Tiles};
use crate::model::{Activation, Down, Matrix, NeuronGroup};
use crate::placement::budget::ScratchPart as S;
use anyhow::{Context, Result};

/// Tokens on their way through the card's layers.
pub(super) struct Batch<'a, 'm> {
    pub card: Card<'a>,
    pub engine: &'a mut Engine<'m>,
    pub tiles: &'a mut Tiles,
    /// Position of the first token.
    pub first: usize,
    /// Number of tokens.
    pub n: usize,
}

fn of_file(matrix: &Matrix) -> FileRows<'_> {
    FileRows { bytes: matrix.bytes(), dtype: matrix.dtype(), n_cols: matrix.n_cols }
}

impl Batch<'_, '_> {
    fn at(&self, part: S) -> Ptr {
        self.card.scratch.at(part)
    }

    fn n_embd(&self) -> usize {
        self.card.model.config.n_embd
    }

    fn tokens(&self, part: S, stride: usize) -> Tokens {
        Tokens { ptr: self.at(part), stride }
    }

    fn x(&self) -> Tokens {
        self.tokens(S::X, self.n_embd())
    }

    /// The residual streams go to the card.
    pub fn upload(&mut self) -> Result<()> {
        self.card.stream.write(self.at(S::X), &self.engine.state.x)
    }

    /// The residual streams come back.
    pub fn download(&mut self) -> Result<()> {
        self.engine.state.x.resize(self.n * self.n_embd(), 0.0);
        self.card.stream.read(self.at(S::X), &mut self.engine.state.x)
    }

    fn pack(&self, from: Tokens, n: usize) -> Result<Packed> {
        pack(self.card.kernels, self.card.stream, from, n, self.n, self.at(S::Packed))
    }

    fn gemm(&self, product: &Product, x: &Packed) -> Result<()> {
        gemm(self.card.kernels, self.card.stream, product, x)
    }

    fn attention_on_card(&self, layer: &CardAttention) -> Result<()> {
        let config = &self.card.model.config;
        let (n_q, n_kv) = (config.n_head * config.head_dim, config.n_head_kv * config.head_dim);
        let (q, k, v) = (self.tokens(S::Q, n_q), self.tokens(S::K, n_kv), self.tokens(S::V, n_kv));
        let x = self.pack(self.tokens(S::Normed, self.n_embd()), self.n_embd())?;
        for (linear, y) in [(&layer.q, q), (&layer.k, k), (&layer.v, v)] {
            self.gemm(&Product { bias: linear.bias, ..Product::all(&linear.matrix, y) }, &x)?;
        }
        let (kernels, stream, n_head) = (self.card.kernels, self.card.stream, config.n_head);
        let (first, n_tokens) = (self.first, self.n);
        let stored = RopeStore { q: q.ptr, k: k.ptr, v: v.ptr, n_head, n_tokens, token: Ptr::NULL, first };
        rope_store(kernels, stream, &stored, &self.card.rope(), &layer.cache)?;
        let out = self.tokens(S::Attn, n_q);
        attention_prefill(kernels, stream, &AttendMany { q, n_head, first, n_tokens, out }, &layer.cache)?;
        let attn = self.pack(out, n_q)?;
        let output = Product {
            bias: layer.output.bias,
            combine: Combine::Add(self.x()),
            ..Product::all(&layer.output.matrix, self.x())
        };
        self.gemm(&output, &attn)
    }

    /// Activations of all neurons, times `up` where there is a gate: `act` becomes what `down` is multiplied with. The
    /// gate comes last, so that a neuron at rest gives 0 whatever `up` is.
    fn activations(&mut self, layer: &CardLayer, group: &NeuronGroup, act: Tokens) -> Result<()> {
        let activation: Activation = self.card.model.config.activation.activation;
        let (n_ff, n_hot) = (group.n_ff(), layer.choice.n_hot);
        let x = self.pack(self.tokens(S::Normed, self.n_embd()), self.n_embd())?;
        let Card { kernels, stream, .. } = self.card;
        let gated = group.ffn_gate.is_some();
        let up =
            |matrix: &DeviceMatrix, slot: usize| gemm(kernels, stream, &Product::all(matrix, act.columns(slot)), &x);
        // Rows of the mask matrix from `first` on, which are the neurons from `slot` on.
        let mask = |matrix: &DeviceMatrix, first: usize, slot: usize, n_rows: usize| {
            let y = act.columns(slot);
            let combine = if gated { Combine::Multiply(y) } else { Combine::Store };
            let product = Product { first, n_rows, activation: Some(activation), combine, ..Product::all(matrix, y) };
            gemm(kernels, stream, &product, &x)
        };
        if let Some(matrix) = &layer.up {
            up(matrix, 0)?;
        }
        if let Some(matrix) = layer.mask.as_ref().filter(|_| n_hot > 0) {
            mask(matrix, 0, 0, n_hot)?;
        }
        if n_hot == n_ff {
            return Ok(());
        }
        let whole = layer.mask.as_ref().filter(|_| layer.choice.mask);
        let streamed = [group.ffn_gate.as_ref().map(|_| &group.ffn_up), whole.is_none().then_some(group.mask_matrix())];
        let streamed: Vec<FileRows> = streamed.into_iter().flatten().map(of_file).collect();
        if streamed.is_empty() {
            return whole.map_or(Ok(()), |matrix| mask(matrix, n_hot, n_hot, n_ff - n_hot));
        }
        self.tiles.for_tiles(kernels, stream, &streamed, n_hot..n_ff, |tile| {
            let mut matrices = tile.matrices.iter();
            if gated {
                up(matrices.next().context("no up")?, tile.first)?;
            }
            match whole {
                Some(matrix) => mask(matrix, tile.first, tile.first, tile.n_rows),
                None => mask(matrices.next().context("no mask")?, 0, tile.first, tile.n_rows),
            }
        })
    }

    fn ffn_on_card(&mut self, layer: &CardLayer, group: &NeuronGroup, down: &Matrix) -> Result<()> {
        let (n_ff, n_hot) = (group.n_ff(), layer.choice.n_hot);
        let act = self.tokens(S::Act, n_ff);
        self.activations(layer, group, act)?;
        let (kernels, stream, x) = (self.card.kernels, self.card.stream, self.x());
        if let Some(matrix) = &layer.down {
            gemm_t(kernels, stream, matrix, 0, &self.pack(act, n_hot)?, x)?;
        }
        if n_hot == n_ff {
            return Ok(());
        }
        let (n, room) = (self.n, self.at(S::Packed));
        self.tiles.for_tiles(kernels, stream, &[of_file(down)], n_hot..n_ff, |tile| {
            let h = pack(kernels, stream, act.columns(tile.first), tile.n_rows, n, room)?;
            gemm_t(kernels, stream, &tile.matrices[0], 0, &h, x)
        })
    }

    /// Logits of the last token, or of all that the observer wants.
    pub fn output(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let Some(head) = &self.card.resident.head else {
            self.download()?;
            self.engine.normalize(NormOf::Output);
            self.engine.output(self.n, self.first, Phase::Prefill, observer);
            return Ok(());
        };
        let (kernels, stream, n_embd) = (self.card.kernels, self.card.stream, self.n_embd());
        let out = Acts { f32: self.at(S::Normed), x8: self.at(S::Normed8) };
        let logits = self.at(S::Logits);
        self.engine.state.logits.resize(head.matrix.n_stored(), 0.0);
        let begin = if observer.wants_logits() { 0 } else { self.n - 1 };
        for i in begin..self.n {
            let x = self.at(S::X).offset((4 * i * n_embd) as u64);
            norm(kernels, stream, x, n_embd, 1, &head.norm, out)?;
            matvec(kernels, stream, &[Rows::all(&head.matrix, logits)], out, None)?;
            stream.read(logits, &mut self.engine.state.logits)?;
            if observer.wants_logits() {
                observer.logits(self.first + i, &self.engine.state.logits);
            }
        }
        Ok(())
    }
}

impl Blocks for Batch<'_, '_> {
    fn normalize(&mut self, of: NormOf) -> Result<()> {
        let layers = &self.card.resident.layers;
        let norm_of = match of {
            NormOf::Attention(i) => &layers[i].attn_norm,
            NormOf::Ffn(i) => &layers[i].ffn_norm,
            NormOf::Output => &None,
        };
        let Some(weights) = norm_of else { return Ok(()) };
        let out = Acts { f32: self.at(S::Normed), x8: Ptr::NULL };
        norm(self.card.kernels, self.card.stream, self.at(S::X), self.n_embd(), self.n, weights, out)
    }

    fn attention(&mut self, i: usize) -> Result<()> {
        let layer: &CardLayer = &self.card.resident.layers[i];
        match &layer.attention {
            Some(attention) => self.attention_on_card(attention),
            None => {
                self.download()?;
                self.engine.normalize(NormOf::Attention(i));
                self.engine.attention(i, Phase::Prefill);
                self.engine.add(Part::Attention);
                self.upload()
            }
        }
    }

    fn ffn(&mut self, i: usize) -> Result<()> {
        let group = &self.card.model.weights.layers[i].ffn[0];
        match &group.ffn_down {
            Down::Rows(down) => self.ffn_on_card(&self.card.resident.layers[i], group, down),
            Down::Columns(_) | Down::Lossless(_) => {
                // What goes in is what was normalised: with a parallel residual the stream has gone on since.
                let normed = &mut self.engine.state.normed;
                normed.resize(self.n * self.card.model.config.n_embd, 0.0);
                self.card.stream.read(self.card.scratch.at(S::Normed), normed)?;
                self.engine.ffn(i, Phase::Prefill, &mut Unobserved);
                self.download()?;
                self.engine.add(Part::Ffn);
                self.upload()
            }
        }
    }

    /// Each part is added where it is computed.
    fn add(&mut self, _: Part) -> Result<()> {
        Ok(())
    }
}
