//! The card's working memory: one allocation, laid out as it was accounted.

use crate::executor::cpu::Rotation;
use crate::gpu::ops::attention::attention_scratch;
use crate::gpu::ops::down;
use crate::gpu::ops::rope::KvLayer;
use crate::gpu::{Arena, Ptr, Stream};
use crate::model::{Config, Down, Model, Rope};
use crate::placement::budget::{ScratchPart, aligned, down_bytes, scratch_parts, tokens_at_once};
use crate::placement::plan::Run;
use crate::placement::workload::Workload;
use anyhow::{Result, ensure};

/// Where everything is.
pub(super) struct Scratch {
    parts: Vec<(ScratchPart, Ptr)>,
    /// From the sums of a token's neurons to the next one's.
    down_bytes: u64,
    arena: Arena,
}

impl Scratch {
    /// Allocates the working memory for `model`, and fills in what does not change.
    pub fn new(model: &Model, work: &Workload, run: &Run, stream: &Stream) -> Result<Self> {
        let planned = scratch_parts(work, run);
        let total: u64 = planned.iter().map(|(_, bytes)| aligned(*bytes)).sum();
        let mut arena = Arena::new(stream.device(), total, "working memory")?;
        let mut parts = Vec::with_capacity(planned.len());
        for (part, bytes) in planned {
            parts.push((part, arena.take(bytes, &format!("{part:?}"))?));
        }
        let bytes = |part: ScratchPart| planned.iter().find(|(p, _)| *p == part).map_or(0, |(_, n)| *n);
        let n_at_once = tokens_at_once(work, run) as u64;
        let scratch = Self { parts, down_bytes: down_bytes(work), arena };
        // Counters and states begin at 0.
        stream.fill(scratch.arena.buffer().ptr(), 0, scratch.arena.buffer().len())?;
        let config = &model.config;
        let frequencies =
            |rope: &Rope| Rotation::new(rope, model.weights.rope_divisors(rope, run.n_ctx)).frequencies().to_vec();
        let mut of_both = frequencies(&config.rope);
        if let Some(rope) = &config.window_rope {
            of_both.resize(config.head_dim / 2, 0.0);
            of_both.extend(frequencies(rope));
        }
        let taken = size_of_val(&*of_both) as u64;
        ensure!(taken <= bytes(ScratchPart::Frequencies), "frequencies take more memory than was planned for");
        stream.write(scratch.at(ScratchPart::Frequencies), &of_both)?;
        let cache = KvLayer {
            ptr: Ptr::NULL,
            dtype: run.kv_type.k,
            n_ctx: run.n_ctx,
            n_head_kv: config.n_head_kv,
            head_dim: config.head_dim,
        };
        let attention = attention_scratch(config.n_head, &cache)?;
        ensure!(
            n_at_once * attention <= bytes(ScratchPart::AttnPartial),
            "attention takes more memory than was planned for"
        );
        for (_, group) in model.weights.groups() {
            if let Down::Rows(down) = group.ffn_down() {
                let sums = down::scratch_bytes(down.dtype(), down.n_cols)?;
                ensure!(sums <= bytes(ScratchPart::DownPartial), "sums take more memory than was planned for");
            }
        }
        Ok(scratch)
    }

    /// Where a part begins.
    pub fn at(&self, part: ScratchPart) -> Ptr {
        self.parts.iter().find(|(p, _)| *p == part).map_or(Ptr::NULL, |(_, ptr)| *ptr)
    }

    /// Bytes from the sums of a token's neurons to those of the next one's.
    pub fn down_bytes(&self) -> u64 {
        self.down_bytes
    }

    /// The frequencies by which a layer rotates: those of layers with a window lie behind the others, where they have some of
    /// their own.
    pub fn frequencies(&self, config: &Config, layer: usize) -> Ptr {
        let of_window = config.window_rope.is_some() && config.windows[layer].is_some();
        let before = if of_window { config.head_dim / 2 } else { 0 };
        self.at(ScratchPart::Frequencies).offset((before * size_of::<f32>()) as u64)
    }

    /// Bytes that were allocated.
    pub fn n_bytes(&self) -> u64 {
        self.arena.buffer().len()
    }
}
