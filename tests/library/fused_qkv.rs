//! Files that hold queries, keys and values in one tensor compute what those with three tensors do, bit for bit, in every
//! architecture; and what is no such tensor is refused.

use crate::support::compare::same_bits;
use crate::support::kind::split;
use crate::support::real::repository;
use crate::support::{ModelFile, Tensor, Value};
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::arch::KNOWN;
use powerinfer::model::{Activation, Model, Role};
use powerinfer::placement::Placement;
use powerinfer::profile::{Fingerprint, Kinship};
use powerinfer::progress::Silent;
use powerinfer::quant::GgmlType;
use powerinfer::variant::{self, Choices, Conversion, Recipe};
use std::path::Path;

const PARTS: [&str; 3] = ["attn_q", "attn_k", "attn_v"];
const TOKENS: [u32; 8] = [3, 17, 5, 5, 0, 39, 21, 8];

/// The golden model of that name, without a vocabulary, which says nothing of what is computed.
fn golden(name: &str) -> Result<ModelFile> {
    let mut file = ModelFile::opened(&repository(&format!("tests/golden/arch/{name}.gguf")))?;
    file.remove("tokenizer.");
    Ok(file)
}

fn joined(file: &ModelFile, block: &str, end: &str) -> Option<Tensor> {
    let name = |part: &str| format!("{block}.{part}.{end}");
    let parts: Vec<&Tensor> =
        PARTS.iter().filter_map(|part| file.tensors.iter().find(|t| t.name == name(part))).collect();
    let [q, _, _] = parts[..] else { return None };
    let outer = parts.iter().map(|part| part.dims.last().expect("a dimension")).sum();
    let mut dims = q.dims.clone();
    *dims.last_mut().expect("a dimension") = outer;
    let bytes = parts.iter().flat_map(|part| part.bytes.iter().copied()).collect();
    Some(Tensor { name: name("attn_qkv"), dtype: q.dtype, dims, bytes })
}

/// The same model with one tensor for the three, in the layers that `fuses` says. Where not all three have a bias, those
/// without one get zeros before.
fn fused(mut file: ModelFile, fuses: impl Fn(usize) -> bool) -> ModelFile {
    for layer in
        (0..).take_while(|i| file.tensors.iter().any(|t| t.name.starts_with(&format!("blk.{i}.")))).collect::<Vec<_>>()
    {
        if !fuses(layer) {
            continue;
        }
        let block = format!("blk.{layer}");
        for end in ["weight", "bias"] {
            let Some(tensor) = joined(&file, &block, end) else { continue };
            let gone: Vec<String> = PARTS.iter().map(|part| format!("{block}.{part}.{end}")).collect();
            let at = file.tensors.iter().position(|t| t.name == gone[0]).expect("it is there");
            file.tensors[at] = tensor;
            file.tensors.retain(|t| !gone.contains(&t.name));
        }
    }
    file
}

/// Gives all three a bias where one of them has one.
fn with_all_biases(mut file: ModelFile) -> ModelFile {
    let weights: Vec<(String, usize)> = file
        .tensors
        .iter()
        .filter(|t| PARTS.iter().any(|part| t.name.ends_with(&format!(".{part}.weight"))))
        .map(|t| (t.name.replace(".weight", ".bias"), t.dims[1]))
        .collect();
    if file.tensors.iter().any(|t| weights.iter().any(|(bias, _)| *bias == t.name)) {
        for (bias, n) in weights {
            if file.tensors.iter().all(|t| t.name != bias) {
                file.push(Tensor { bytes: vec![0; 4 * n], ..Tensor::zeros(&bias, GgmlType::F32, &[n]) });
            }
        }
    }
    file
}

fn open(file: &ModelFile, folder: &Path, name: &str) -> Result<Model> {
    let path = file.written(folder, name);
    let own = Model::new(Gguf::open(&path)?, None)?;
    if own.config.activation.activation.is_sparse() {
        return Ok(own);
    }
    Model::new(Gguf::open(&path)?, Some(Activation::Relu))
}

fn logits(model: &Model, mode: Mode, n: usize) -> Result<Vec<Vec<f32>>> {
    let (n_ctx, kv_type, n_ubatch, isa) = (TOKENS.len(), KvType::F32, 4, Isa::detect());
    let params = ExecutorParams { n_threads: 2, n_ctx, kv_type, mode, n_ubatch, isa };
    let mut executor = Executor::new(model, Placement::all_cold(model), params)?;
    let mut all = Vec::new();
    for tokens in TOKENS.chunks(n) {
        let logits = executor.decode_several(tokens)?;
        all.extend(logits.chunks_exact(model.config.n_vocab).map(<[f32]>::to_vec));
    }
    Ok(all)
}

fn same(expected: &Model, got: &Model) -> Result<()> {
    for (mode, n) in [(Mode::Dense, 1), (Mode::Exact, 1), (Mode::Exact, 3)] {
        same_bits(&logits(expected, mode, n)?, &logits(got, mode, n)?).with_context(|| mode.name())?;
    }
    Ok(())
}

/// Whether a file has the tensor.
fn has(model: &Model, name: &str) -> bool {
    model.gguf.tensor(name).is_some()
}

#[test]
fn every_architecture_takes_one_tensor_for_three_and_splits_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    for arch in KNOWN {
        let name = arch.name();
        let apart = with_all_biases(golden(name)?);
        if joined(&apart, "blk.0", "weight").is_none() {
            // Or keys and values come from a narrow vector, or the layer recurs.
            let others = ["blk.0.attn_qkv.weight", "blk.0.attn_kv_a_mqa.weight", "blk.0.ssm_in.weight"];
            assert!(apart.tensors.iter().any(|t| others.contains(&&*t.name)), "{name}: has neither");
            continue;
        }
        let every_other = open(&fused(apart.clone(), |layer| layer % 2 == 1), folder, "every-other.gguf")?;
        let fused = open(&fused(apart.clone(), |_| true), folder, "fused.gguf")?;
        let apart = open(&apart, folder, "apart.gguf")?;
        assert!(has(&fused, "blk.1.attn_qkv.weight") && !has(&fused, "blk.1.attn_q.weight"), "{name}");
        same(&apart, &fused).with_context(|| name)?;
        same(&apart, &every_other).with_context(|| name)?;
        // A profile of the one is a profile of the other.
        let kinship = Fingerprint::of(&apart)?.kinship(&Fingerprint::of(&fused)?);
        assert_eq!(kinship, Kinship::Same, "{name}");
        let mut variants = Vec::new();
        for (model, file) in [(&apart, "apart-variant.gguf"), (&fused, "fused-variant.gguf")] {
            let path = folder.join(file);
            split(model, &path)?;
            variants.push(Model::new(Gguf::open(&path)?, None)?);
        }
        assert!(variants[1].is_variant() && has(&variants[1], "blk.0.attn_qkv.weight"), "{name}");
        same(&variants[0], &variants[1]).with_context(|| format!("{name}, variants"))?;
    }
    Ok(())
}

/// The rows of quantized tensors are views, too, with widths of whole blocks.
fn quantize(from: &Path, recipe: Recipe, to: &Path) -> Result<()> {
    let source = Gguf::open(from)?;
    variant::quantize(&source, &Conversion::new(&source, recipe, &Choices::default())?, to, &Silent)
}

#[test]
fn one_tensor_for_three_may_be_quantized() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    for name in ["llama-biases", "qwen2-tied", "nemotron-biases"] {
        let apart = golden(name)?;
        let plain = apart.written(folder, "plain.gguf");
        for recipe in ["f16", "bf16", "q8_0", "q4_0"] {
            let recipe: Recipe = recipe.parse()?;
            let (three, one) = (folder.join("three.gguf"), folder.join("one.gguf"));
            quantize(&plain, recipe, &three)?;
            let source = fused(apart.clone(), |_| true).written(folder, "source.gguf");
            quantize(&source, recipe, &one)?;
            let afterwards = fused(ModelFile::opened(&three)?, |_| true);
            let three = open(&ModelFile::opened(&three)?, folder, "a.gguf")?;
            let at = format!("{name}, {recipe}");
            same(&three, &open(&afterwards, folder, "b.gguf")?).with_context(|| at.clone())?;
            same(&three, &open(&ModelFile::opened(&one)?, folder, "c.gguf")?).with_context(|| at)?;
        }
    }
    Ok(())
}

#[test]
fn the_three_are_views_on_the_rows_of_the_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = open(&golden("qwen2-fused")?, folder.path(), "model.gguf")?;
    let tensor = model.gguf.tensor("blk.1.attn_qkv.weight").context("the tensor")?;
    let data = model.gguf.data(tensor).as_ptr_range();
    let layer = &model.weights.layers[1];
    let mut end = data.start;
    for (role, n_rows) in [(Role::AttnQ, 32), (Role::AttnK, 16), (Role::AttnV, 16)] {
        let part = layer.part(role);
        let rows = part.matrix().bytes().as_ptr_range();
        assert_eq!((part.matrix().n_rows, rows.start), (n_rows, end), "{role:?}");
        assert_eq!(part.bias.as_deref().map(<[f32]>::len), Some(n_rows), "{role:?}");
        end = rows.end;
    }
    assert_eq!(end, data.end);
    Ok(())
}

/// The line that refuses the golden model after a change.
fn refusal(change: impl FnOnce(&mut ModelFile)) -> Result<String> {
    let mut file = golden("qwen2-fused")?;
    change(&mut file);
    let folder = tempfile::tempdir()?;
    let model = Model::new(Gguf::open(&file.written(folder.path(), "model.gguf"))?, None);
    let line = format!("{:#}", model.err().context("the changed file is not refused")?);
    assert!(!line.contains('\n'), "{line}");
    Ok(line)
}

#[test]
fn what_is_not_three_in_one_is_refused() -> Result<()> {
    let (weight, bias) = ("blk.1.attn_qkv.weight", "blk.1.attn_qkv.bias");
    for dims in [&[32, 63][..], &[32, 65], &[32, 96], &[31, 64], &[64, 32], &[32, 32, 2], &[2048]] {
        let line = refusal(|file| *file.tensor(weight) = Tensor::zeros(weight, GgmlType::F32, dims))?;
        assert!(line.contains(weight) && line.contains("[32, 64] follows from the metadata"), "{line}");
    }
    for dims in [&[32][..], &[63], &[96], &[1, 64], &[64, 2]] {
        let line = refusal(|file| *file.tensor(bias) = Tensor::zeros(bias, GgmlType::F32, dims))?;
        assert!(line.contains(bias) && line.contains("[64] follows from the metadata"), "{line}");
    }
    let line = refusal(|file| *file.tensor(bias) = Tensor::zeros(bias, GgmlType::Q8_0, &[64]))?;
    assert!(line.contains(bias) && line.contains("floats are wanted"), "{line}");
    let line = refusal(|file| *file.tensor(weight) = Tensor::zeros(weight, GgmlType::I32, &[32, 64]))?;
    assert!(line.contains(weight) && line.contains("I32"), "{line}");
    for (name, dims) in [("attn_q.weight", &[32, 32][..]), ("attn_k.bias", &[16]), ("attn_v.weight", &[32, 16])] {
        let name = format!("blk.0.{name}");
        let line = refusal(|file| {
            file.push(Tensor::zeros(&name, GgmlType::F32, dims));
        })?;
        assert!(line.contains(&name) && line.contains("stands beside blk.0.attn_qkv.weight"), "{line}");
    }
    let line = refusal(|file| file.tensors.retain(|t| t.name != weight))?;
    assert!(line.contains("blk.1.attn_q.weight: the tensor is missing"), "{line}");
    // Other sizes of heads make other shares of the rows.
    let line = refusal(|file| {
        file.set("qwen2.attention.head_count_kv", Value::U32(4));
    })?;
    assert!(line.contains("blk.0.attn_qkv.weight") && line.contains("[32, 96] follows"), "{line}");
    Ok(())
}
