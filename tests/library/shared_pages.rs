//! Sequences that begin alike hold the same pages of keys and values, and each writes into pages of its own.

use crate::support::compare::same_bits;
use crate::support::real::repository;
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Batch, Entry, Executor, ExecutorParams, KvPages, KvType, Mode, Sequence};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::units::Bytes;

/// One whose layers see everything, one with windows in all of them, one with windows in some.
const MODELS: [&str; 3] = ["llama", "llama-window", "qwen3-window"];
/// Tokens in common: a page, and the beginning of another one.
const N_COMMON: usize = 160;
/// Tokens behind them: more than what is left of that page, and than layers with a window have rows.
const N_OWN: usize = 110;

fn token(seed: usize, i: usize) -> u32 {
    ((i * 7 + seed * 13 + i / 11) % 40) as u32
}

fn executor(model: &Model) -> Result<Executor<'_>> {
    let (n_threads, kv_type, mode, isa) = (2, KvType::F16, Mode::Exact, Isa::detect());
    let params = ExecutorParams { n_threads, n_ctx: N_COMMON + N_OWN, kv_type, mode, n_ubatch: 64, isa };
    Executor::new(model, Placement::all_cold(model), params)
}

fn prefill(executor: &mut Executor, sequence: &mut Sequence) -> Result<()> {
    let common: Vec<u32> = (0..N_COMMON).map(|i| token(0, i)).collect();
    common.chunks(64).try_for_each(|chunk| executor.prefill_sequence(sequence, chunk, N_COMMON).map(drop))
}

/// Decodes further tokens of sequences up to `until`, one of each at a time, each with tokens of its own. Adds the logits to `got`.
fn decode(executor: &mut Executor, sequences: &mut [Sequence], until: usize, got: &mut [Vec<Vec<f32>>]) -> Result<()> {
    let n_vocab = executor.model().config.n_vocab;
    let mut batch = Batch::default();
    loop {
        batch.clear();
        for (sequence, of) in sequences.iter().enumerate().filter(|(_, of)| of.n_past() < until) {
            let position = of.n_past();
            batch.push(Entry { sequence, position, token: token(sequence + 1, position), wants_logits: true });
        }
        if batch.is_empty() {
            return Ok(());
        }
        let logits = executor.decode_batch(&batch, sequences)?;
        for (entry, logits) in batch.entries().iter().zip(logits.chunks_exact(n_vocab)) {
            got[entry.sequence].push(logits.to_vec());
        }
    }
}

#[test]
fn whoever_shares_a_beginning_gets_the_bits_that_it_gets_alone() -> Result<()> {
    for name in MODELS {
        let model = Model::new(Gguf::open(&repository(&format!("tests/golden/arch/{name}.gguf")))?, None)?;
        let mut executor = executor(&model)?;
        let new = |executor: &Executor| (0..3).map(|_| executor.new_sequence()).collect::<Result<Vec<_>>>();
        let (mut alone, mut together) = (new(&executor)?, new(&executor)?);
        alone.iter_mut().try_for_each(|sequence| prefill(&mut executor, sequence))?;
        let (mut wanted, mut got) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
        decode(&mut executor, &mut alone, N_COMMON + N_OWN, &mut wanted)?;

        let [first, others @ ..] = &mut together[..] else { unreachable!() };
        prefill(&mut executor, first)?;
        // It has gone on when the others begin, the last of which has it from another one.
        decode(&mut executor, std::slice::from_mut(first), N_COMMON + 5, &mut got[..1])?;
        assert!(executor.copy_sequence(first, &mut others[0], N_COMMON), "{name}");
        let [second, third] = others else { unreachable!() };
        assert!(executor.copy_sequence(second, third, N_COMMON), "{name}");
        let KvPages { taken, shared, held } = Sequence::kv_pages(&together);
        assert!(taken == shared && held == Bytes(3 * taken.0), "{name}: {taken} {shared} {held}");

        decode(&mut executor, &mut together, N_COMMON + N_OWN, &mut got)?;
        for (wanted, got) in wanted.iter().zip(&got) {
            same_bits(wanted, got).with_context(|| name.to_owned())?;
        }
        let (each, all) = (Sequence::kv_pages(&alone[..1]), Sequence::kv_pages(&together));
        assert_eq!(all.held, Bytes(3 * each.held.0), "{name}");
        // The first page of layers that see everything is that of all, and no other one.
        assert_eq!(all.taken, Bytes(all.held.0 - 2 * all.shared.0), "{name}");
        assert_eq!(all.shared.0 > 0, name != "llama-window", "{name}");
        // Whoever begins anew gives up what it shares, and keeps what is its own.
        together[0].clear();
        assert_eq!(Sequence::kv_pages(&together[..1]).taken, Bytes(each.taken.0 - all.shared.0), "{name}");
        together[1].clear();
        assert_eq!(Sequence::kv_pages(&together).shared, Bytes(0), "{name}");
    }
    Ok(())
}
