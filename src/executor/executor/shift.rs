//! Going on where the context is full: a context shift.

use super::Executor;
use crate::executor::cpu::Rotation;
use crate::executor::kv_cache::Turn;
use crate::model::{Rope, RopeKind};
use anyhow::{Result, ensure};

impl Executor<'_> {
    /// Whether [`Executor::shift`] is possible with such a model.
    ///
    /// # Errors
    /// Says why not, in one line.
    pub fn check_shift(&self) -> Result<()> {
        let config = &self.model.config;
        ensure!(
            config.positions.is_none(),
            "{} has learned embeddings of positions: what is cached is of its position and cannot move",
            config.arch
        );
        ensure!(
            config.ssm.is_none(),
            "{} has recurrent layers: their state is of all tokens, of which none can be dropped",
            config.arch
        );
        Ok(())
    }

    /// Tokens at the beginning of its own sequence that are as their prompt has left them: those that no context shift has
    /// moved.
    pub fn n_unmoved(&self) -> usize {
        self.n_past().min(self.n_unmoved)
    }

    /// Drops up to `wanted` tokens behind the first `n_keep` of its own sequence, and moves the others up: their keys are
    /// rotated by the difference of positions. Returns how many were dropped: fewer where a layer with a window could not go on
    /// otherwise.
    ///
    /// # Errors
    /// As [`Executor::check_shift`]; when nothing can be dropped. Then all is as it was.
    pub fn shift(&mut self, n_keep: usize, wanted: usize) -> Result<usize> {
        self.check_shift()?;
        // A device that fails here is no reason to stop: what comes next says so.
        let is_there = self.device.save_cache(&mut self.sequence).is_ok();
        let n_drop = self.sequence.memory.kv().droppable(n_keep, wanted)?;
        let (model, n_past, n_ctx) = (self.model, self.n_past(), self.params.n_ctx);
        let config = &model.config;
        let turn = |rope: &Rope| {
            let rotation = Rotation::new(rope, model.weights.rope_divisors(rope, n_ctx));
            Turn::new(&rotation, n_keep + n_drop..n_past, n_drop)
        };
        let turns = (turn(&config.rope), config.window_rope.as_ref().map(turn));
        let of_layer = |layer: usize| {
            let rotated = config.rotated[layer] && config.rope_of(layer).kind != RopeKind::None;
            let windowed = turns.1.as_ref().filter(|_| config.windows[layer].is_some());
            rotated.then(|| windowed.unwrap_or(&turns.0))
        };
        self.sequence.memory.shift(n_keep, n_drop, of_layer)?;
        if is_there {
            drop(self.device.restore_cache(&self.sequence));
        }
        self.sequence.tokens.drain(n_keep..n_keep + n_drop);
        self.n_dropped += n_drop;
        self.n_unmoved = self.n_unmoved.min(n_keep);
        Ok(n_drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Isa;
    use crate::embedded;
    use crate::executor::kv_cache::Plane;
    use crate::executor::{ExecutorParams, KvType, Mode};
    use crate::gguf::Gguf;
    use crate::model::Model;
    use crate::placement::Placement;
    use crate::quant::GgmlType;
    use crate::quant::convert::dequantizer;
    use std::fs;
    use std::path::{Path, PathBuf};

    const TOKENS: [u32; 12] = [3, 17, 5, 5, 0, 39, 21, 8, 13, 2, 30, 11];
    const N_KEEP: usize = 2;

    fn golden_models() -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/arch");
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let models: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "gguf")).collect();
        assert!(models.len() > 50);
        models
    }

    fn executor(model: &Model, kv_type: KvType, n_ctx: usize) -> Result<Executor<'_>> {
        let (mode, isa) = (Mode::Exact, Isa::Plain);
        let params = ExecutorParams { n_threads: 1, n_ctx, kv_type, mode, n_ubatch: 4, isa };
        Executor::new(model, Placement::all_cold(model), params)
    }

    /// Rows of a position of all heads of a layer.
    fn rows(executor: &Executor, layer: usize, plane: Plane, position: usize) -> Vec<u8> {
        let kv = executor.sequence.memory.kv();
        let mut out = Vec::new();
        (0..kv.n_head_kv()).for_each(|head| kv.copy_rows(layer, head, plane, position..position + 1, &mut out));
        out
    }

    fn floats(kv_type: KvType, rows: &[u8]) -> Vec<f32> {
        let dtype = kv_type.k;
        let mut out = vec![0.0; rows.len() / dtype.row_bytes(dtype.block_len()).unwrap() * dtype.block_len()];
        dequantizer(dtype).unwrap()(rows, &mut out);
        out
    }

    /// A head's keys at `to` that were computed at `from`, in 64 bits and from the definition: back to no position, and
    /// rotated anew.
    fn afresh(rope: &Rope, frequencies: &[f32], head: &mut [f64], from: usize, to: usize) {
        for (i, frequency) in frequencies.iter().enumerate() {
            let (a, b) = match rope.kind {
                RopeKind::Interleaved => (2 * i, 2 * i + 1),
                RopeKind::Halves => (i, i + rope.n_dims / 2),
                RopeKind::None => continue,
            };
            let (a, b) = (rope.first + a, rope.first + b);
            for angle in [-(from as f64) * f64::from(*frequency), to as f64 * f64::from(*frequency)] {
                let (x, y) = (head[a], head[b]);
                (head[a], head[b]) = (x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos());
            }
        }
    }

    /// Of all tiny models: how each key and value moves. Returns how many layers had their keys rotated, and how many not.
    fn moved(model: &Model, kv_type: KvType, tolerance: f32) -> Result<(usize, usize)> {
        let config = &model.config;
        let mut executor = executor(model, kv_type, TOKENS.len())?;
        executor.prefill(&TOKENS)?;
        let kv = executor.sequence.memory.kv();
        let layers: Vec<usize> = (0..config.n_layer).filter(|i| !kv.held(*i, TOKENS.len()).is_empty()).collect();
        let held: Vec<_> = layers.iter().map(|layer| kv.held(*layer, TOKENS.len())).collect();
        let all = |executor: &Executor, layer: usize, positions: std::ops::Range<usize>| -> Vec<_> {
            positions.map(|p| Plane::BOTH.map(|plane| rows(executor, layer, plane, p))).collect()
        };
        let before: Vec<_> =
            layers.iter().zip(&held).map(|(layer, held)| all(&executor, *layer, held.clone())).collect();
        let n = executor.shift(N_KEEP, 5)?;
        assert!((1..=5).contains(&n) && executor.n_past() == TOKENS.len() - n);
        let (mut rotated, mut not) = (0, 0);
        for ((layer, held), before) in layers.iter().zip(held).zip(before) {
            let rope = config.rope_of(*layer);
            let frequencies = rope.frequencies(model.weights.rope_divisors(rope, TOKENS.len()));
            let turns = config.rotated[*layer] && rope.kind != RopeKind::None;
            *(if turns { &mut rotated } else { &mut not }) += 1;
            for (from, [old_keys, old_values]) in held.zip(before) {
                let to = if from < N_KEEP { from } else { from.max(N_KEEP + n) - n };
                let still = executor.sequence.memory.kv().held(*layer, executor.n_past()).contains(&to);
                if !still || (N_KEEP..N_KEEP + n).contains(&from) {
                    continue;
                }
                assert_eq!(old_values, rows(&executor, *layer, Plane::Values, to));
                let keys = rows(&executor, *layer, Plane::Keys, to);
                if !turns || from == to {
                    assert_eq!(old_keys, keys);
                    continue;
                }
                let mut wanted: Vec<f64> = floats(kv_type, &old_keys).into_iter().map(f64::from).collect();
                wanted.chunks_exact_mut(config.head_dim).for_each(|head| afresh(rope, &frequencies, head, from, to));
                let most = wanted.iter().fold(0.0f64, |most, v| most.max(v.abs())) as f32;
                for (wanted, got) in wanted.iter().zip(floats(kv_type, &keys)) {
                    let apart = (*wanted as f32 - got).abs();
                    assert!(apart <= tolerance * most, "layer {layer}, {from} to {to}: {apart} apart of {most}");
                }
            }
        }
        Ok((rotated, not))
    }

    #[test]
    fn keys_turn_by_the_difference_and_all_else_moves_as_it_is() {
        let (mut rotated, mut not, mut refused) = (0, 0, Vec::new());
        let keys_of_bytes = KvType { v: GgmlType::F16, ..KvType::Q8_0 };
        let files = golden_models().into_iter().map(|path| Gguf::open(&path).unwrap());
        // Its heads are whole blocks of bytes with a scale.
        for file in files.chain([Gguf::from_source(embedded::source()).unwrap()]) {
            let model = Model::new(file, None).unwrap();
            // Angles in 32 bits; one more rounding; of bytes with a scale half a step of the largest.
            for (kv_type, tolerance) in
                [(KvType::F32, 3e-6), (KvType::F16, 6e-4), (KvType::Q8_0, 6e-3), (keys_of_bytes, 6e-3)]
            {
                let KvType { k, v } = kv_type;
                let whole = |n: usize, of: GgmlType| n.is_multiple_of(of.block_len());
                if !whole(model.config.head_dim, k) || !whole(model.config.value_dim, v) {
                    continue;
                }
                match moved(&model, kv_type, tolerance) {
                    Ok((some, others)) => (rotated, not) = (rotated + some, not + others),
                    Err(why) => refused.push((model.config.arch.clone(), format!("{why:#}"))),
                }
            }
        }
        assert!(rotated > 200 && not > 10, "{rotated} layers with rotation, {not} without");
        for (arch, why) in refused {
            let known = arch == "opt" && why.contains("learned embeddings of positions")
                || arch.starts_with("nemotron_h") && why.contains("recurrent layers")
                || why.contains("layers with a window have given up the first 2 tokens");
            assert!(known, "{arch}: {why}");
        }
    }

    #[test]
    fn an_angle_does_not_lose_digits_far_from_the_beginning() {
        let rope = Rope::plain(RopeKind::Halves, 10_000.0, 64);
        let rotation = Rotation::new(&rope, None);
        let before: Vec<f32> = (0..64).map(|i| (i as f32).sin()).collect();
        for (position, back) in [(4095, 1), (4095, 2048), (131_071, 65_536), (131_071, 131_071)] {
            let (mut old, mut new) = (before.clone(), before.clone());
            rotation.apply(&mut old, 64, position);
            rotation.apply(&mut new, 64, position - back);
            Turn::new(&rotation, position..position + 1, back).apply(0, &mut old);
            let apart = old.iter().zip(&new).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(apart < 1e-6, "{position} - {back}: {apart:e}");
        }
    }
}
