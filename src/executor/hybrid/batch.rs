//! Many tokens at once: everything that has a place on the card is computed there, with weights that are not there
//! streaming by; attention of layers whose cache the CPU has is computed on the CPU.

mod experts;

use super::record::{Card, Heads, from_slot};
use super::recurrent::Taken;
use super::resident::{CardAttention, CardGroup, CardLinear};
use crate::executor::cpu::{Choice, Cpu, Given, How, Input, Request};
use crate::executor::device::Tokens;
use crate::executor::program::{Added, Block, Instruction, NormOf};
use crate::gpu::Ptr;
use crate::gpu::matrix::DeviceMatrix;
use crate::gpu::ops::attention_prefill::{AttendMany, attention_prefill};
use crate::gpu::ops::gemm::{Combine, Packed, Product, Tokens as Vectors, Which, gemm, gemm_t_of, pack, pack_of};
use crate::gpu::ops::matvec::{Rows, matvec};
use crate::gpu::ops::norm::{Acts, Merge, merge_norm, norm as normalize};
use crate::gpu::tiles::{FileRows, Tiles};
use crate::model::{Activation, Down, Matrix, NeuronGroup, Role, Vector};
use crate::placement::batch::BatchCost;
use crate::placement::budget::ScratchPart as S;
use crate::placement::workload::Workload;
use anyhow::{Context, Result, bail, ensure};

/// Tokens on their way through the card's layers.
pub(super) struct Many<'a, 'm, 't> {
    pub card: Card<'a>,
    pub cpu: &'a Cpu<'m>,
    pub tokens: &'a mut Tokens<'t>,
    pub tiles: &'a mut Tiles,
    pub work: &'a Workload,
    /// What decides where groups that a router chooses are computed.
    pub costs: Option<&'a BatchCost>,
    /// What the last router chose: what each of its rows counts for each token.
    pub chosen: Vec<f32>,
    /// The same by group.
    pub choice: Choice,
    /// The residual streams in host memory, while they are there.
    pub x: Vec<f32>,
    /// Position of the first token.
    pub first: usize,
    /// Number of the sequence on the card.
    pub sequence: usize,
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

    /// The same for a block, whose input are the residual streams, or `input`.
    fn block_on_cpu(&mut self, request: &Request, block: &Block, input: Option<&[f32]>) -> Result<()> {
        if block.joins.is_none() {
            let mut y = Vec::new();
            let input = input.context("a block whose results are kept has an input of its own")?;
            self.cpu.ask(request, Given::Nothing, How::Tiles, input, self.tokens, |answer| {
                y.extend_from_slice(answer);
                Ok(())
            })?;
            return self.card.stream.write(self.written(block)?.ptr, &y);
        }
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

    fn attention_on_card(&self, layer: &CardAttention, block: &Block) -> Result<()> {
        let config = &self.card.model.config;
        let (n_q, n_kv) = (config.n_head * config.head_dim, config.n_head_kv * config.head_dim);
        let (q, k, v) = (self.tokens(S::Q, n_q), self.tokens(S::K, n_kv), self.tokens(S::V, n_kv));
        let x = self.pack(self.tokens(read(block)?, self.n_embd()), self.n_embd())?;
        for (linear, y) in [(&layer.q, q), (&layer.k, k), (&layer.v, v)] {
            self.gemm(&Product { bias: linear.bias, ..Product::all(&linear.matrix, y) }, &x)?;
        }
        let (kernels, stream, n_head) = (self.card.kernels, self.card.stream, config.n_head);
        let (first, n_tokens) = (self.first, self.n);
        let (token, sequence) = (Ptr::NULL, self.sequence);
        let heads = Heads { q: q.ptr, k: k.ptr, v: v.ptr, n_tokens, token, first, sequence };
        self.card.store(block.layer, layer, heads)?;
        let out = self.tokens(S::Attn, n_q);
        attention_prefill(
            kernels,
            stream,
            &AttendMany { q, n_head, first, n_tokens, window: config.windows[block.layer], out },
            &layer.cache.of_sequence(sequence)?,
        )?;
        let attn = self.pack(out, n_q)?;
        self.joined(&layer.output, block, &attn)
    }

    fn recurrent(&self, block: &Block) -> Result<()> {
        let layer = self.card.resident.layers[block.layer].recurrent.as_ref();
        let layer = layer.context("a recurrent mixer that is not on the card")?;
        let (places, sizes) = (self.card.recurrent_places(layer), layer.mixer.sizes);
        let x = self.pack(self.tokens(read(block)?, self.n_embd()), self.n_embd())?;
        let projected = Vectors { ptr: places.projected, stride: sizes.n_projected() };
        self.gemm(&Product { bias: layer.input.bias, ..Product::all(&layer.input.matrix, projected) }, &x)?;
        let (first, sequence) = (self.first, self.sequence);
        self.card.recur(layer, Taken { n_tokens: self.n, token: Ptr::NULL, first, sequence }, Ptr::NULL)?;
        let mixed = self.pack(Vectors { ptr: places.mixed, stride: sizes.n_inner() }, sizes.n_inner())?;
        self.joined(&layer.output, block, &mixed)
    }

    /// The last product of a mixer, which joins the residual streams or is kept.
    fn joined(&self, output: &CardLinear, block: &Block, x: &Packed) -> Result<()> {
        let to = self.written(block)?;
        let combine = if block.joins.is_some() { Combine::Add(to) } else { Combine::Store };
        self.gemm(&Product { bias: output.bias, combine, ..Product::all(&output.matrix, to) }, x)
    }

    /// Activations of all neurons, times `up` where there is a gate: `act` becomes what `down` is multiplied with. The
    /// gate comes last, so that a neuron at rest gives 0 whatever `up` is.
    fn activations(
        &mut self,
        from: Vectors,
        on_card: &CardGroup,
        group: &NeuronGroup,
        act: Vectors,
        which: &Which,
    ) -> Result<()> {
        let activation: Activation = self.card.model.config.activation.activation;
        let (n_ff, n_hot, biases) = (group.n_ff(), on_card.choice.n_hot, on_card.biases);
        let Card { kernels, stream, .. } = self.card;
        let which = Which { weights: Ptr::NULL, ..*which };
        let x = pack_of(kernels, stream, from, group.width(), &which, self.at(S::Packed))?;
        let gated = group.gate.is_some();
        let up = |matrix: &DeviceMatrix, slot: usize| {
            let bias = from_slot(biases.up, slot);
            gemm(kernels, stream, &Product { bias, ..Product::all(matrix, act.columns(slot)) }, &x)
        };
        // Rows of the mask matrix from `first` on, which are the neurons from `slot` on.
        let mask = |matrix: &DeviceMatrix, first: usize, slot: usize, n_rows: usize| {
            let y = act.columns(slot);
            let combine = if gated { Combine::Multiply(y) } else { Combine::Store };
            let (bias, activation) = (from_slot(biases.mask, slot), Some(activation));
            let product = Product { first, n_rows, bias, activation, combine, ..Product::all(matrix, y) };
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

    /// Adds what a group gives for some tokens, which reads `from`, to `to`.
    fn group_on_card(
        &mut self,
        (from, to): (Vectors, Vectors),
        on_card: &CardGroup,
        group: &NeuronGroup,
        down: &Matrix,
        which: &Which,
    ) -> Result<()> {
        let (n_ff, n_hot) = (group.n_ff(), on_card.choice.n_hot);
        let act = self.tokens(S::Act, n_ff);
        self.activations(from, on_card, group, act, which)?;
        let Card { kernels, stream, .. } = self.card;
        // By number of `which` now, times what the group counts.
        let (weighed, room) = (Which { tokens: Ptr::NULL, ..*which }, self.at(S::Packed));
        if let Some(matrix) = &on_card.down {
            let h = pack_of(kernels, stream, act, n_hot, &weighed, room)?;
            gemm_t_of(kernels, stream, matrix, 0, &h, to, which.tokens)?;
        }
        if !on_card.biases.down.is_null() {
            ensure!(which.tokens.is_null(), "a bias of groups that are chosen");
            let (shift, n_tokens) = (on_card.biases.down, which.n);
            let merge = Merge { shift, n_tokens, ..Merge::nothing(to.ptr, group.width()) };
            merge_norm(kernels, stream, &merge, None, Acts::default())?;
        }
        if n_hot == n_ff {
            return Ok(());
        }
        self.tiles.for_tiles(kernels, stream, &[of_file(down)], n_hot..n_ff, |tile| {
            let h = pack_of(kernels, stream, act.columns(tile.first), tile.n_rows, &weighed, room)?;
            gemm_t_of(kernels, stream, &tile.matrices[0], 0, &h, to, which.tokens)
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
            normalize(kernels, stream, x, n_embd, 1, &head.norm, out)?;
            matvec(kernels, stream, &[Rows { bias: head.bias, ..Rows::all(&head.matrix, on_card) }], out, None)?;
            stream.read(on_card, logits)?;
        }
        Ok(())
    }

    /// Follows a program in which what blocks give joins the residual streams at once, or is added later.
    pub fn run(&mut self, program: &[Instruction]) -> Result<()> {
        // The norm of the residual streams whose result the blocks behind it read.
        let mut last_norm = None;
        for instruction in program {
            match instruction {
                Instruction::Elsewhere(layers) => {
                    self.download()?;
                    self.on_cpu(&Request::Layers(layers.clone()))?;
                    self.upload()?;
                }
                Instruction::Merge { adds, norm } => {
                    if let Some(norm) = norm.filter(|norm| norm.from == Vector::Residual) {
                        last_norm = Some(norm.of);
                    }
                    self.merge(adds, norm.as_ref())?;
                }
                Instruction::Attention(block) => self.attention(block, last_norm)?,
                Instruction::Ffn(block) => self.ffn(block)?,
                Instruction::Router { layer, from } => self.router(*layer, *from)?,
                Instruction::Project { layer, from, to, .. } => self.project(*layer, *from, *to)?,
                Instruction::Recurrent(block) => self.recurrent(block)?,
            }
        }
        Ok(())
    }

    /// Adds to the residual streams, and normalises what `norm` says.
    fn merge(&self, adds: &[Added], norm: Option<&NormOf>) -> Result<()> {
        let Card { kernels, stream, resident, .. } = self.card;
        let (n, n_tokens) = (self.n_embd(), self.n);
        let weights = norm.and_then(|norm| Some((norm, resident.layers[norm.layer?].norm(norm.of)?)));
        let from = |add: Option<&Added>| match add {
            Some(add) => Ok((self.at(kept(add.from)?), add.scale)),
            None => anyhow::Ok((Ptr::NULL, 1.0)),
        };
        let ((a, a_scale), (b, b_scale)) = (from(adds.first())?, from(adds.get(1))?);
        ensure!(adds.len() <= 2, "{} vectors are added at once", adds.len());
        let merge = Merge { n_tokens, a, a_scale, b, b_scale, ..Merge::nothing(self.at(S::X), n) };
        let Some((of, weights)) = weights else {
            return if adds.is_empty() { Ok(()) } else { merge_norm(kernels, stream, &merge, None, Acts::default()) };
        };
        let to = if of.to == Vector::Normed { S::Normed } else { kept(of.to)? };
        let out = Acts { f32: self.at(to), x8: Ptr::NULL };
        match of.from {
            Vector::Residual if !adds.is_empty() => merge_norm(kernels, stream, &merge, Some(weights), out),
            Vector::Residual => normalize(kernels, stream, self.at(S::X), n, n_tokens, weights, out),
            from => normalize(kernels, stream, self.at(kept(from)?), n, n_tokens, weights, out),
        }
    }

    /// Where a block's results go: into the residual streams, or where they are kept.
    fn written(&self, block: &Block) -> Result<Vectors> {
        match block.joins {
            Some(1.0) => Ok(self.stream()),
            Some(scale) => bail!("what joins the residual stream times {scale}"),
            None => Ok(self.tokens(kept(block.to)?, self.n_embd())),
        }
    }

    fn attention(&mut self, block: &Block, norm: Option<Role>) -> Result<()> {
        let layer = block.layer;
        match &self.card.resident.layers[layer].attention {
            Some(attention) => self.attention_on_card(attention, block),
            None if block.joins.is_some() && block.from == Vector::Normed => {
                let input = norm.map_or(Input::Ready, Input::Residual);
                self.block_on_cpu(&Request::Attention { layer, input }, block, None)
            }
            None => {
                let input = self.downloaded(read(block)?)?;
                self.block_on_cpu(&Request::Attention { layer, input: Input::Ready }, block, Some(&input))
            }
        }
    }

    /// The vectors there, in host memory.
    fn downloaded(&self, part: S) -> Result<Vec<f32>> {
        let mut vectors = vec![0.0; self.n * self.n_embd()];
        self.card.stream.read(self.at(part), &mut vectors)?;
        Ok(vectors)
    }

    fn ffn(&mut self, block: &Block) -> Result<()> {
        let layer = &self.card.model.weights.layers[block.layer];
        if layer.router.is_some() {
            return self.experts(block);
        }
        if !layer.groups.iter().all(divisible) {
            // What goes in is what was normalised: with a parallel residual the stream has gone on since.
            let input = self.downloaded(read(block)?)?;
            let request = Request::Ffn { layer: block.layer, input: Input::Ready };
            return self.block_on_cpu(&request, block, Some(&input));
        }
        let (from, to) = (self.tokens(read(block)?, self.n_embd()), self.written(block)?);
        if block.joins.is_none() {
            self.card.stream.fill(to.ptr, 0, (size_of::<f32>() * self.n * self.n_embd()) as u64)?;
        }
        for (group, on_card) in layer.groups.iter().zip(&self.card.resident.layers[block.layer].groups) {
            if let Down::Rows(down) = group.ffn_down() {
                self.group_on_card((from, to), on_card, group, down, &Which::first(self.n))?;
            }
        }
        Ok(())
    }
}

/// Whether a group's neurons can be on a card.
fn divisible(group: &NeuronGroup) -> bool {
    matches!(group.ffn_down(), Down::Rows(_))
}

/// Where what a block reads is.
fn read(block: &Block) -> Result<S> {
    read_of(block.from)
}

/// Where a vector is that a block reads.
fn read_of(vector: Vector) -> Result<S> {
    match vector {
        Vector::Residual => Ok(S::X),
        Vector::Normed => Ok(S::Normed),
        Vector::Mixed | Vector::Fed | Vector::Latent | Vector::LatentFed => {
            bail!("{vector:?} is read by no block on the card")
        }
    }
}

/// Where what a block gave is kept.
fn kept(vector: Vector) -> Result<S> {
    match vector {
        Vector::Mixed => Ok(S::AttnOut),
        Vector::Fed => Ok(S::FfnOut),
        Vector::Residual | Vector::Normed | Vector::Latent | Vector::LatentFed => {
            bail!("{vector:?} is no block's on the card")
        }
    }
}
