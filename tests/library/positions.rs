//! Learned positions: where the table begins, what lies beyond it, and what is not the OPT that is computed.

use crate::support::compare::same_bits;
use crate::support::real::repository;
use crate::support::{ModelFile, Tensor, Value};
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Batch, Entry, Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::{Model, Positions};
use powerinfer::placement::Placement;
use powerinfer::progress::Silent;
use powerinfer::quant::GgmlType;
use powerinfer::variant::{self, Choices, Conversion};

const TABLE: &str = "position_embd.weight";
const TOKENS: [u32; 6] = [3, 17, 5, 5, 0, 39];

fn golden(name: &str) -> Result<ModelFile> {
    ModelFile::opened(&repository(&format!("tests/golden/arch/{name}.gguf")))
}

fn open(file: &ModelFile) -> Result<Model> {
    let folder = tempfile::tempdir()?;
    Model::new(Gguf::open(&file.written(folder.path(), "model.gguf"))?, None)
}

fn executor(model: &Model, n_ctx: usize) -> Result<Executor<'_>> {
    let (kv_type, n_ubatch, isa) = (KvType::F32, 4, Isa::detect());
    let params = ExecutorParams { n_threads: 1, n_ctx, kv_type, mode: Mode::Exact, n_ubatch, isa };
    Executor::new(model, Placement::all_cold(model), params)
}

fn logits(model: &Model) -> Result<Vec<Vec<f32>>> {
    let mut executor = executor(model, TOKENS.len())?;
    TOKENS.iter().map(|token| Ok(executor.decode(*token)?.to_vec())).collect()
}

/// Takes out rows of a table of F32, or repeats its last ones.
fn with_rows(file: &mut ModelFile, skipped: usize, n: usize) {
    let table = file.tensor(TABLE);
    let row = 4 * table.dims[0];
    let mut rows: Vec<u8> = table.bytes[skipped * row..].to_vec();
    let last = rows[rows.len() - row..].to_vec();
    while rows.len() < n * row {
        rows.extend(&last);
    }
    rows.truncate(n * row);
    (table.bytes, table.dims[1]) = (rows, n);
}

/// The same model, written in the three ways that are met, and with a table for fewer positions.
#[test]
fn tables_with_and_without_the_rows_before_position_0_are_the_same_model() -> Result<()> {
    let file = golden("opt-offset")?;
    let own = open(&file)?;
    assert_eq!(own.config.positions, Some(Positions { n: 32, offset: 2 }));
    assert_eq!(own.config.n_ctx_train, 32);
    let expected = logits(&own)?;
    for (skipped, n, n_ctx, positions) in [
        (2, 32, 32, Positions { n: 32, offset: 0 }),
        (0, 34, 34, Positions { n: 32, offset: 2 }),
        (0, 34, 64, Positions { n: 32, offset: 2 }),
        (0, 14, 12, Positions { n: 12, offset: 2 }),
        (2, 12, 12, Positions { n: 12, offset: 0 }),
        (2, 9, 64, Positions { n: 9, offset: 0 }),
    ] {
        let mut other = file.clone();
        with_rows(&mut other, skipped, n);
        other.set("opt.context_length", Value::U32(n_ctx));
        let model = open(&other)?;
        assert_eq!(model.config.positions, Some(positions));
        assert_eq!(model.config.n_ctx_train, positions.n.min(n_ctx as usize));
        same_bits(&expected, &logits(&model)?).with_context(|| format!("{positions:?}"))?;
    }
    Ok(())
}

/// Positions count in each sequence of a batch, whatever is computed beside it.
#[test]
fn each_sequence_of_a_batch_has_its_own_positions() -> Result<()> {
    let model = open(&golden("opt-offset")?)?;
    let alone = logits(&model)?;
    let mut executor = executor(&model, 8)?;
    let mut sequences = vec![executor.new_sequence()?, executor.new_sequence()?];
    let mut batch = Batch::default();
    let entry = |sequence, position, token| Entry { sequence, position, token, wants_logits: true };
    batch.push(entry(0, 0, TOKENS[0]));
    batch.push(entry(0, 1, TOKENS[1]));
    executor.decode_batch(&batch, &mut sequences)?;
    batch.clear();
    batch.push(entry(1, 0, TOKENS[0]));
    batch.push(entry(0, 2, TOKENS[2]));
    batch.push(entry(1, 1, TOKENS[1]));
    let together = executor.decode_batch(&batch, &mut sequences)?;
    let got: Vec<Vec<f32>> = together.chunks_exact(model.config.n_vocab).map(<[f32]>::to_vec).collect();
    same_bits(&[alone[0].clone(), alone[2].clone(), alone[1].clone()], &got)
}

#[test]
fn a_context_beyond_the_table_is_refused_and_one_as_long_is_not() -> Result<()> {
    let model = open(&golden("opt-offset")?)?;
    let mut full = executor(&model, 32)?;
    let all: Vec<u32> = (0..32).collect();
    assert!(full.prefill(&all)?.iter().all(|logit| logit.is_finite()));
    let line = full.decode(1).err().context("position 32 has no row")?.to_string();
    assert!(line.contains("32"), "{line}");
    let line = executor(&model, 33).err().context("a context of 33")?.to_string();
    assert!(line.contains(TABLE) && line.contains("33") && line.contains("32 positions"), "{line}");
    Ok(())
}

#[test]
fn tables_stay_as_they_are_when_matrices_are_quantized() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = golden("opt-offset")?.written(folder.path(), "source.gguf");
    let source = Gguf::open(&source)?;
    let out = folder.path().join("out.gguf");
    let conversion = Conversion::new(&source, "q8_0".parse()?, &Choices::default())?;
    variant::quantize(&source, &conversion, &out, &Silent)?;
    let out = Gguf::open(&out)?;
    let of = |gguf: &Gguf, name: &str| gguf.tensor(name).map(|t| (t.dtype, gguf.data(t).to_vec()));
    assert_eq!(of(&out, TABLE), of(&source, TABLE));
    assert_eq!(of(&out, "token_embd.weight").map(|(dtype, _)| dtype), Some(GgmlType::Q8_0));
    Ok(())
}

/// The line that refuses a golden model after a change.
fn refusal(name: &str, change: impl FnOnce(&mut ModelFile)) -> Result<String> {
    let mut file = golden(name)?;
    change(&mut file);
    let line = format!("{:#}", open(&file).err().context("the changed file is not refused")?);
    assert!(!line.contains('\n'), "{line}");
    Ok(line)
}

#[test]
fn other_models_of_the_same_name_are_refused_by_their_own() -> Result<()> {
    let without = |name: &'static str| move |file: &mut ModelFile| file.tensors.retain(|t| t.name != name);
    let zeros = |name: &'static str, dims: &'static [usize]| {
        move |file: &mut ModelFile| *file.tensor(name) = Tensor::zeros(name, GgmlType::F32, dims)
    };
    let narrow = refusal("opt-offset", zeros("token_embd.weight", &[16, 40]))?;
    assert!(narrow.contains("token_embd.weight") && narrow.contains("OPT-350M"), "{narrow}");
    let behind = refusal("opt-offset", without("output_norm.weight"))?;
    assert!(behind.contains("output_norm.weight") && behind.contains("OPT-350M"), "{behind}");
    for (key, value) in [("opt.word_embed_proj_dim", Value::U32(16)), ("opt.do_layer_norm_before", Value::Bool(false))]
    {
        let line = refusal("opt-offset", |file| {
            file.set(key, value);
        })?;
        assert!(line.contains(key) && line.contains("OPT-350M"), "{line}");
    }
    let bare = refusal("opt", |file| file.tensors.retain(|t| !t.name.ends_with(".bias") || t.name.contains("norm")))?;
    assert!(bare.contains("blk.0.ffn_up.bias") && bare.contains("Galactica"), "{bare}");
    let bare = refusal("opt", |file| file.tensors.retain(|t| !t.name.ends_with(".bias")))?;
    assert!(bare.contains("Galactica"), "{bare}");
    Ok(())
}

#[test]
fn opt_refuses_what_it_does_not_compute() -> Result<()> {
    for (tensor, dims) in [(TABLE, &[32, 34, 2][..]), (TABLE, &[31, 34]), ("blk.1.attn_q.bias", &[31])] {
        let line = refusal("opt-offset", |file| *file.tensor(tensor) = Tensor::zeros(tensor, GgmlType::F32, dims))?;
        assert!(line.contains(tensor) && line.contains("follows from the metadata"), "{line}");
    }
    for tensor in [TABLE, "output_norm.bias", "blk.2.ffn_norm.bias", "blk.1.attn_k.bias", "blk.2.ffn_down.bias"] {
        let line = refusal("opt-offset", |file| file.tensors.retain(|t| t.name != tensor))?;
        assert!(line.contains(tensor) && line.contains("the tensor is missing"), "{line}");
    }
    for (tensor, dims) in
        [("rope_freqs.weight", &[4][..]), ("blk.0.ffn_gate.weight", &[32, 36]), ("output.bias", &[40])]
    {
        let line = refusal("opt-offset", |file| {
            file.push(Tensor::zeros(tensor, GgmlType::F32, dims));
        })?;
        assert!(line.contains(tensor) && line.contains("is not known for architecture opt"), "{line}");
    }
    let line = refusal("opt-offset", |file| {
        file.remove("opt.attention.layer_norm_epsilon");
    })?;
    assert!(line.contains("opt.attention.layer_norm_epsilon: the key is missing"), "{line}");
    Ok(())
}
