//! Many tokens at once: everything that has a place on the card is computed there, with weights that are not there
//! streaming by; attention of layers whose cache the CPU has is computed on the CPU.

use super::record::Card;
use super::resident::{CardAttention, CardGroup};
use crate::executor::cpu::{Cpu, Given, How, Input, Request};
use crate::executor::device::Tokens;
use crate::executor::program::{Block, Instruction};
use crate::gpu::Ptr;
use crate::gpu::matrix::DeviceMatrix;
use crate::gpu::ops::attention_prefill::{AttendMany, attention_prefill};
use crate::gpu::ops::gemm::{Combine, Packed, Product, Tokens as Vectors, gemm, gemm_t, pack};
use crate::gpu::ops::matvec::{Rows, matvec};
use crate::gpu::ops::norm::{Acts, norm};
use crate::gpu::ops::rope::{RopeStore, rope_store};
use crate::gpu::tiles::{FileRows, Tiles};
use crate::model::{Activation, Down, Matrix, NeuronGroup, Role};
use crate::placement::budget::ScratchPart as S;
use anyhow::{Context, Result, bail};

/// Tokens on their way through the card's layers.
pub(super) struct Many<'a, 'm, 't> {
    pub card: Card<'a>,
    pub cpu: &'a Cpu<'m>,
    pub tokens: &'a mut Tokens<'t>,
    pub tiles: &'a mut Tiles,
    /// The residual streams in host memory, while they are there.
    pub x: Vec<f32>,
    /// Position of the first token.
    pub first: usize,
    /// Number of tokens.
    pub n: usize,
}

fn of_file(matrix: &Matrix) -> FileRows<'_> {
    FileRows { bytes: matrix.bytes(), dtype: matrix.dtype(), n_cols: matrix.n_cols }
}

impl Many<'_, '_, '_> {
    fn at(&self, part: S) -> Ptr {
        self.card.scratch.at(part)
    }

    fn n_embd(&self) -> usize {
        self.card.model.config.n_embd
    }

    fn tokens(&self, part: S, stride: usize) -> Vectors {
        Vectors { ptr: self.at(part), stride }
    }

    fn stream(&self) -> Vectors {
        self.tokens(S::X, self.n_embd())
    }

    /// The residual streams go to the card.
    pub fn upload(&mut self) -> Result<()> {
        self.card.stream.write(self.at(S::X), &self.x)
    }

    /// The residual streams come back.
    pub fn download(&mut self) -> Result<()> {
        self.x.resize(self.n * self.n_embd(), 0.0);
        self.card.stream.read(self.at(S::X), &mut self.x)
    }

    /// Has the CPU do `request`, of the residual streams: `x` becomes its answer.
    pub fn on_cpu(&mut self, request: &Request) -> Result<()> {
        let input = std::mem::take(&mut self.x);
        let x = &mut self.x;
        self.cpu.ask(request, Given::Nothing, How::Tiles, &input, self.tokens, |answer| {
            x.extend_from_slice(answer);
            Ok(())
        })
    }

    /// The same for a block, whose answer joins the residual streams; its input is these, or `input`.
    fn block_on_cpu(&mut self, request: &Request, input: Option<&[f32]>) -> Result<()> {
        self.download()?;
        let mut x = self.x.clone();
        self.cpu.ask(request, Given::Nothing, How::Tiles, input.unwrap_or(&self.x), self.tokens, |answer| {
            x.iter_mut().zip(answer).for_each(|(x, y)| *x += y);
            Ok(())
        })?;
        self.x = x;
        self.upload()
    }

    fn pack(&self, from: Vectors, n: usize) -> Result<Packed> {
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
            combine: Combine::Add(self.stream()),
            ..Product::all(&layer.output.matrix, self.stream())
        };
        self.gemm(&output, &attn)
    }

    /// Activations of all neurons, times `up` where there is a gate: `act` becomes what `down` is multiplied with. The
    /// gate comes last, so that a neuron at rest gives 0 whatever `up` is.
    fn activations(&mut self, on_card: &CardGroup, group: &NeuronGroup, act: Vectors) -> Result<()> {
        let activation: Activation = self.card.model.config.activation.activation;
        let (n_ff, n_hot) = (group.n_ff(), on_card.choice.n_hot);
        let x = self.pack(self.tokens(S::Normed, self.n_embd()), self.n_embd())?;
        let Card { kernels, stream, .. } = self.card;
        let gated = group.gate.is_some();
        let up =
            |matrix: &DeviceMatrix, slot: usize| gemm(kernels, stream, &Product::all(matrix, act.columns(slot)), &x);
        // Rows of the mask matrix from `first` on, which are the neurons from `slot` on.
        let mask = |matrix: &DeviceMatrix, first: usize, slot: usize, n_rows: usize| {
            let y = act.columns(slot);
            let combine = if gated { Combine::Multiply(y) } else { Combine::Store };
            let product = Product { first, n_rows, activation: Some(activation), combine, ..Product::all(matrix, y) };
            gemm(kernels, stream, &product, &x)
        };
        if let Some(matrix) = &on_card.up {
            up(matrix, 0)?;
        }
        if let Some(matrix) = on_card.mask.as_ref().filter(|_| n_hot > 0) {
            mask(matrix, 0, 0, n_hot)?;
        }
        if n_hot == n_ff {
            return Ok(());
        }
        let whole = on_card.mask.as_ref().filter(|_| on_card.choice.mask);
        let streamed = [group.gate.as_ref().map(|_| group.ffn_up()), whole.is_none().then_some(group.mask_matrix())];
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

    fn ffn_on_card(&mut self, on_card: &CardGroup, group: &NeuronGroup, down: &Matrix) -> Result<()> {
        let (n_ff, n_hot) = (group.n_ff(), on_card.choice.n_hot);
        let act = self.tokens(S::Act, n_ff);
        self.activations(on_card, group, act)?;
        let (kernels, stream, x) = (self.card.kernels, self.card.stream, self.stream());
        if let Some(matrix) = &on_card.down {
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

    /// Logits of the tokens that want them: `logits` becomes `[wanted][n_vocab]`.
    pub fn output(&mut self, logits: &mut Vec<f32>) -> Result<()> {
        let Some(head) = &self.card.resident.head else {
            self.download()?;
            self.cpu.head(How::Tiles, &self.x, self.tokens, logits);
            return Ok(());
        };
        let (kernels, stream, n_embd) = (self.card.kernels, self.card.stream, self.n_embd());
        let out = Acts { f32: self.at(S::Normed), x8: self.at(S::Normed8) };
        let on_card = self.at(S::Logits);
        let n_vocab = head.matrix.n_stored();
        logits.resize(self.tokens.batch.n_wanted() * n_vocab, 0.0);
        let wanting = self.tokens.batch.entries().iter().enumerate().filter(|(_, entry)| entry.wants_logits);
        for ((i, _), logits) in wanting.zip(logits.chunks_exact_mut(n_vocab)) {
            let x = self.at(S::X).offset((4 * i * n_embd) as u64);
            norm(kernels, stream, x, n_embd, 1, &head.norm, out)?;
            matvec(kernels, stream, &[Rows::all(&head.matrix, on_card)], out, None)?;
            stream.read(on_card, logits)?;
        }
        Ok(())
    }

    /// Follows a program in which whatever blocks give joins the residual streams at once.
    pub fn run(&mut self, program: &[Instruction]) -> Result<()> {
        // The norm whose result the blocks behind it read.
        let mut last_norm = None;
        for instruction in program {
            match instruction {
                Instruction::Elsewhere(layers) => {
                    self.download()?;
                    self.on_cpu(&Request::Layers(layers.clone()))?;
                    self.upload()?;
                }
                Instruction::Merge { adds, norm: Some(of) } if adds.is_empty() => {
                    last_norm = Some(of.of);
                    let weights = of.layer.and_then(|layer| self.card.resident.layers[layer].norm(of.of));
                    if let Some(weights) = weights {
                        let out = Acts { f32: self.at(S::Normed), x8: Ptr::NULL };
                        let x = self.at(S::X);
                        norm(self.card.kernels, self.card.stream, x, self.n_embd(), self.n, weights, out)?;
                    }
                }
                Instruction::Attention(block) if block.joins == Some(1.0) => self.attention(block, last_norm)?,
                Instruction::Ffn(block) if block.joins == Some(1.0) => self.ffn(block)?,
                Instruction::Merge { .. }
                | Instruction::Attention(_)
                | Instruction::Router { .. }
                | Instruction::Ffn(_) => bail!("{instruction:?} is not computed on a card"),
            }
        }
        Ok(())
    }

    fn attention(&mut self, block: &Block, norm: Option<Role>) -> Result<()> {
        let layer = block.layer;
        match &self.card.resident.layers[layer].attention {
            Some(attention) => self.attention_on_card(attention),
            None => {
                let input = norm.map_or(Input::Ready, Input::Residual);
                self.block_on_cpu(&Request::Attention { layer, input }, None)
            }
        }
    }

    fn ffn(&mut self, block: &Block) -> Result<()> {
        let layer = &self.card.model.weights.layers[block.layer];
        let divisible = |group: &NeuronGroup| matches!(group.ffn_down(), Down::Rows(_));
        if !layer.groups.iter().all(divisible) {
            // What goes in is what was normalised: with a parallel residual the stream has gone on since.
            let mut normed = vec![0.0; self.n * self.n_embd()];
            self.card.stream.read(self.at(S::Normed), &mut normed)?;
            return self.block_on_cpu(&Request::Ffn { layer: block.layer, input: Input::Ready }, Some(&normed));
        }
        for (group, on_card) in layer.groups.iter().zip(&self.card.resident.layers[block.layer].groups) {
            if let Down::Rows(down) = group.ffn_down() {
                self.ffn_on_card(on_card, group, down)?;
            }
        }
        Ok(())
    }
}
