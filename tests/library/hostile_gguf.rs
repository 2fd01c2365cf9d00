//! The reader of GGUF files neither panics nor gives in, whatever the bytes.

use crate::support::{ModelFile, Random};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::tokenizer::{Special, Tokenizer, read_vocab};
use std::path::Path;

/// Everything that `run` does with a file up to the first logits.
fn use_file(path: &Path) -> anyhow::Result<()> {
    let model = Model::new(Gguf::open(path)?, None)?;
    let tokenizer = Tokenizer::new(read_vocab(&model.gguf)?)?;
    let tokens = tokenizer.encode_prompt("a b", Special::AsText, true)?;
    let params = ExecutorParams {
        n_threads: 1,
        n_ctx: tokens.len() + 1,
        kv_type: KvType::F32,
        mode: Mode::Exact,
        n_ubatch: 8,
        isa: Isa::detect(),
    };
    let mut executor = Executor::new(&model, Placement::all_cold(&model), params)?;
    executor.prefill(&tokens)?;
    executor.decode(tokens[0])?;
    Ok(())
}

/// A model so small that its header is the larger part of it.
fn smallest() -> Vec<u8> {
    ModelFile::sized(4, 8).bytes()
}

#[test]
fn the_valid_file_that_the_others_are_made_of_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, smallest()).unwrap();
    use_file(&path).unwrap();
}

#[test]
fn a_file_cut_anywhere_is_refused_in_one_line_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    let bytes = ModelFile::tiny().bytes();
    let first_tensor = b"token_embd.weight";
    let header = bytes.windows(first_tensor.len()).position(|w| w == first_tensor).unwrap();
    // Every thousandth byte of the file, and all of the last keys and the tensor infos.
    for n in (0..bytes.len()).step_by(1000).chain(header - 200..header + 1200).chain(bytes.len() - 5..bytes.len()) {
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, &bytes[..n]).unwrap();
        let line = format!("{:#}", use_file(&path).expect_err("a cut file"));
        assert!(line.starts_with(&path.display().to_string()), "cut at {n}: {line}");
        assert!(!line.contains('\n') && line.len() < 400, "cut at {n}: {line}");
    }
}

#[test]
fn twenty_thousand_mutations_do_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mutated.gguf");
    let original = smallest();
    let first_tensor = original.windows(16).position(|w| w == b"token_embd.weigh").unwrap();
    let mut random = Random::new(20_260_729);
    let mut accepted = 0;
    for i in 0..20_000 {
        let mut bytes = original.clone();
        for _ in 0..1 + random.below(3) {
            mutate(&mut bytes, first_tensor, &mut random);
        }
        // A new file: overwriting one waits for the disk.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, &bytes).unwrap();
        let result = std::panic::catch_unwind(|| use_file(&path));
        let Ok(result) = result else {
            panic!("mutation {i} panics; its bytes are in {}", folder.keep().display());
        };
        accepted += usize::from(result.is_ok());
        if let Err(error) = result {
            assert!(!format!("{error:#}").contains('\n'), "mutation {i}: {error:#}");
        }
    }
    println!("{accepted} of 20000 mutated files were still usable");
    assert!((100..19_900).contains(&accepted), "{accepted}: the mutations are too wild, or too tame");
}

fn mutate(bytes: &mut Vec<u8>, first_tensor: usize, random: &mut Random) {
    const INTERESTING: [u64; 12] = [0, 1, 2, 7, 9, 32, 255, 1 << 16, (1 << 31) - 1, 1 << 32, 1 << 62, u64::MAX];
    let len = bytes.len();
    // Tensor infos and scalar keys are few bytes among many tokens: aim at them.
    let at = match random.below(4) {
        0 => random.below(200),
        1 => first_tensor - 400 + random.below(400),
        2 => first_tensor + random.below(1400),
        _ => random.below(len),
    };
    let at = at.min(len - 9);
    match random.below(7) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes[at..at + 4].copy_from_slice(&(INTERESTING[random.below(12)] as u32).to_le_bytes()),
        3 => bytes[at..at + 8].copy_from_slice(&INTERESTING[random.below(12)].to_le_bytes()),
        4 => bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes()),
        5 => {
            let piece = bytes[at..len.min(at + 1 + random.below(64))].to_vec();
            let to = random.below(len);
            bytes.splice(to..to, piece);
        }
        _ => {
            bytes.drain(at..len.min(at + 1 + random.below(16)));
        }
    }
    if bytes.len() < 2000 {
        bytes.resize(2000, 0);
    }
}
