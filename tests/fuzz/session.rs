//! Session files: what a model remembers of a prompt.

use super::models;
use super::target::{Form, Target};
use crate::support::Random;
use anyhow::Result;
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::progress::Silent;
use powerinfer::session::{Key, Session, Use, read};
use sha2::{Digest, Sha256};

const N_VOCAB: u32 = 6;
const N_TOKENS: u32 = 9;
/// Of the checksum.
const SUM_BYTES: usize = 32;

/// A file whose checksum is right, however it is changed.
#[derive(Clone)]
pub struct Summed(Vec<u8>);

impl Form for Summed {
    fn change(&mut self, other: &Self, words: &[&str], random: &mut Random) {
        self.0.change(&other.0, words, random);
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.0[..], &Sha256::digest(&self.0)].concat()
    }
}

pub struct Sessions {
    model: Model,
    recurrent: Model,
    seeds: Vec<Summed>,
}

fn executor(model: &Model, n_ctx: usize) -> Executor<'_> {
    let (kv_type, mode, isa) = (KvType::F32, Mode::Exact, Isa::Plain);
    let params = ExecutorParams { n_threads: 1, n_ctx, kv_type, mode, n_ubatch: 2, isa };
    Executor::new(model, Placement::all_cold(model), params).expect("an executor")
}

/// Files of the first tokens of a text, as a prompt leaves them and with places to go back to.
fn seeds(model: &Model) -> Vec<Summed> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("session");
    let tokens: Vec<u32> = (0..N_TOKENS).map(|i| i * i % N_VOCAB).collect();
    let of = |n: usize| {
        let mut executor = executor(model, 16);
        executor.prefill(&tokens[..n / 2]).expect("a prompt");
        executor.remember();
        executor.prefill(&tokens[n / 2..n]).expect("a prompt");
        let session = Session::new(&path, Use::All, &executor);
        session.and_then(|mut session| session.end(&mut executor, &tokens[..n], &Silent)).expect("a file");
        let mut bytes = std::fs::read(&path).expect("a file");
        bytes.truncate(bytes.len() - SUM_BYTES);
        Summed(bytes)
    };
    vec![of(2), of(tokens.len())]
}

impl Sessions {
    pub fn new() -> Self {
        let model = Model::new(models::open(&models::file(&models::kind()).bytes()).expect("a file"), None);
        let model = model.expect("a model");
        let path = crate::support::real::repository("tests/golden/arch/nemotron_h.gguf");
        let recurrent = Gguf::open(&path).and_then(|file| Model::new(file, None)).expect("a model");
        let seeds = [seeds(&model), seeds(&recurrent)].concat();
        Self { model, recurrent, seeds }
    }
}

impl Target for Sessions {
    type Form = Summed;

    fn name(&self) -> &'static str {
        "session"
    }

    fn seeds(&self) -> Vec<Summed> {
        self.seeds.clone()
    }

    fn words(&self) -> &[&str] {
        &["PWRISESS", "--cache-type", "--mode", "exact", "f32", "cpu"]
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        // Of each model no file is one of the other.
        let mut result = Ok(false);
        for (model, n_ctx) in [(&self.model, 16), (&self.model, 4), (&self.recurrent, 16)] {
            let mut executor = executor(model, n_ctx);
            let key = Key::of(&executor)?;
            match read(input, input.len() as u64, &key, &mut executor, <[u32]>::len) {
                Ok(tokens) => {
                    assert_eq!(tokens.len(), executor.n_past());
                    assert!(tokens.len() <= n_ctx && 4 * tokens.len() <= input.len());
                    if executor.n_past() < n_ctx {
                        assert_eq!(executor.decode(0)?.len(), model.config.n_vocab);
                    }
                    result = Ok(true);
                }
                Err(why) => {
                    assert_eq!(executor.n_past(), 0, "something was left behind");
                    if !matches!(result, Ok(true)) {
                        result = Err(why);
                    }
                }
            }
        }
        result.map(drop)
    }
}
