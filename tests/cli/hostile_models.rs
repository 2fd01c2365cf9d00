//! Bad models: each is refused in one line that says which file, what in it, and why, within 300 MB of memory.

use crate::support::{ModelFile, Outcome, Raw, Value, patch_key, patch_tensor, refused_by, tool};
use powerinfer::quant::GgmlType;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// All four commands take a model; `run` must refuse this one, with a line that holds the path and `wanted`.
#[track_caller]
fn run_refuses(path: &Path, wanted: &[&str]) {
    let line = refused_by("run", &[&"-m", &path, &"-p", &"x", &"-n", &"1"], wanted);
    assert!(line.starts_with(&format!("error: {}: ", path.display())), "{line}");
}

#[track_caller]
fn bytes_are_refused(bytes: &[u8], wanted: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.gguf");
    std::fs::write(&path, bytes).unwrap();
    run_refuses(&path, wanted);
}

/// A tiny model with changes is refused.
#[track_caller]
fn changed(change: impl FnOnce(&mut ModelFile), wanted: &[&str]) {
    let mut tiny = ModelFile::tiny();
    change(&mut tiny);
    bytes_are_refused(&tiny.bytes(), wanted);
}

/// A tiny model whose bytes are patched is refused.
#[track_caller]
fn patched(patch: impl FnOnce(&mut [u8]), wanted: &[&str]) {
    let mut bytes = ModelFile::tiny().bytes();
    patch(&mut bytes);
    bytes_are_refused(&bytes, wanted);
}

fn u32_is(key: &'static str, value: u32) -> impl FnOnce(&mut ModelFile) {
    move |tiny| {
        tiny.set(key, Value::U32(value));
    }
}

fn f32_is(key: &'static str, value: f32) -> impl FnOnce(&mut ModelFile) {
    move |tiny| {
        tiny.set(key, Value::F32(value));
    }
}

#[test]
fn every_command_refuses_what_is_no_model_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("empty.gguf"), b"").unwrap();
    std::fs::write(at("text.gguf"), b"This is not a model at all.").unwrap();
    std::fs::write(at("short.gguf"), b"GG").unwrap();
    std::fs::write(at("story.txt"), b"once upon a time").unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    for (name, problem) in [
        ("empty.gguf", "is empty"),
        ("text.gguf", "is not a GGUF file"),
        ("short.gguf", "is not a GGUF file"),
        ("missing.gguf", crate::support::NO_SUCH_FILE),
        ("folder", "is a folder"),
    ] {
        let (model, text, out) = (at(name), at("story.txt"), at("out"));
        let wanted = [name, problem];
        refused_by("run", &[&"-m", &model, &"-p", &"x", &"-n", &"1"], &wanted);
        refused_by("run", &[&"-m", &model, &"-p", &"x", &"--tokenize"], &wanted);
        refused_by("bench", &[&"-m", &model, &"-p", &"8", &"-n", &"0"], &wanted);
        refused_by("profile", &[&"-m", &model, &"-f", &text, &"-o", &out], &wanted);
        assert!(!out.exists());
    }
}

#[test]
fn a_file_cut_short_is_refused() {
    let bytes = ModelFile::tiny().bytes();
    for n in [4, 8, 20, 24, 100, 3000, 9000, bytes.len() / 2, bytes.len() - 1] {
        bytes_are_refused(&bytes[..n], &[]);
    }
}

#[test]
fn other_versions_and_byte_orders_are_refused() {
    patched(|b| b[4..8].copy_from_slice(&4u32.to_le_bytes()), &["version 4"]);
    patched(|b| b[4..8].copy_from_slice(&0u32.to_le_bytes()), &["version 0"]);
    patched(|b| b[4..8].copy_from_slice(&3u32.to_be_bytes()), &["big-endian"]);
    patched(|b| b[0..4].copy_from_slice(b"GGML"), &["GGML"]);
}

#[test]
fn counts_and_lengths_beyond_the_file_are_refused() {
    let huge = (1u64 << 60).to_le_bytes();
    patched(|b| b[8..16].copy_from_slice(&huge), &["1152921504606846976 tensors"]);
    patched(|b| b[16..24].copy_from_slice(&huge), &["1152921504606846976 metadata keys"]);
    patched(|b| b[24..32].copy_from_slice(&(1u64 << 62).to_le_bytes()), &["metadata key 0", "4611686018427387904"]);
    let array_len = |n: u64| [5u32.to_le_bytes().as_slice(), &n.to_le_bytes()].concat();
    for n in [1 << 60, 1 << 62, u64::MAX, 4 << 20] {
        let patch = |b: &mut [u8]| patch_key(b, "tokenizer.ggml.token_type", 9, &array_len(n));
        patched(patch, &["tokenizer.ggml.token_type"]);
    }
    let string = (1u64 << 62).to_le_bytes();
    patched(|b| patch_key(b, "general.name", 8, &string), &["general.name", "4611686018427387904"]);
    patched(|b| patch_key(b, "general.name", 8, &(15u64 << 20).to_le_bytes()), &["general.name"]);
    patched(|b| patch_key(b, "general.name", 99, &[]), &["general.name", "unknown value type 99"]);
}

/// A header followed by zeros that take no room on the disk.
#[track_caller]
fn with_zeros(raw: &Raw, n: u64, wanted: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.gguf");
    std::fs::write(&path, &raw.bytes).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(raw.bytes.len() as u64 + n).unwrap();
    run_refuses(&path, wanted);
}

#[test]
fn large_arrays_are_refused_within_the_memory_in_every_version() {
    const MIB_64: u64 = 64 << 20;
    const GIB: u64 = 1 << 30;
    const STRING: u32 = 8;
    for version in [1, 2, 3] {
        for key in ["tokenizer.ggml.bytes", "general.bytes"] {
            let mut raw = Raw::new(version, 0, 2);
            raw.text("general.architecture", "llama").array(key, 0, MIB_64);
            with_zeros(&raw, MIB_64, &[key, "67108864"]);
            let mut raw = Raw::new(version, 0, 2);
            let width = if version == 1 { 4 } else { 8 };
            raw.text("general.architecture", "llama").array(key, STRING, MIB_64 / width);
            with_zeros(&raw, MIB_64, &[key]);
            let mut raw = Raw::new(version, 0, 1);
            with_zeros(raw.array(key, 0, GIB), GIB, &[key, "1073741824"]);
        }
    }
}

#[test]
fn long_strings_are_refused_within_the_memory() {
    for version in [1, 2, 3] {
        let mut raw = Raw::new(version, 0, 1);
        raw.string("general.name").u32(8).len(64 << 20);
        with_zeros(&raw, 64 << 20, &["general.name", "67108864"]);
        // Strings of accepted length, but many of them; as many as are accepted, but no architecture.
        for (n, wanted) in [(12, "metadata"), (4, if version == 1 { "metadata" } else { "general.architecture" })] {
            let mut raw = Raw::new(version, 0, n);
            for i in 0..n {
                raw.string(&format!("general.name{i}")).u32(8).len(15 << 20);
                raw.bytes.resize(raw.bytes.len() + (15 << 20), b'x');
            }
            with_zeros(&raw, 0, &[wanted]);
        }
    }
}

#[test]
fn vocabularies_of_a_million_empty_tokens_and_merges_are_refused_within_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.gguf");
    for (n, key) in [(1 << 20, "tokenizer.ggml.merges"), (4 << 20, "tokenizer.ggml.tokens")] {
        let mut raw = Raw::new(3, 0, 5);
        raw.text("general.architecture", "llama").text("tokenizer.ggml.model", "gpt2");
        raw.text("tokenizer.ggml.pre", "gpt-2").array("tokenizer.ggml.tokens", 8, n);
        let mut file = File::create(&path).unwrap();
        file.write_all(&raw.bytes).unwrap();
        let rest = raw.bytes.len() as u64 + 8 * n;
        raw.bytes.clear();
        raw.array("tokenizer.ggml.merges", 8, n);
        file.seek(SeekFrom::Start(rest)).unwrap();
        file.write_all(&raw.bytes).unwrap();
        file.set_len(rest + raw.bytes.len() as u64 + 8 * n).unwrap();
        refused_by("run", &[&"-m", &path, &"--tokenize", &"-p", &"x"], &["sparse.gguf", key]);
    }
}

#[test]
fn arrays_within_arrays_are_refused_however_deep() {
    for version in [1, 2, 3] {
        let mut raw = Raw::new(version, 0, 1);
        raw.array("general.deep", 9, 1);
        for _ in 0..100_000 {
            raw.u32(9).len(1);
        }
        bytes_are_refused(&raw.bytes, &["arrays within arrays"]);
    }
}

#[test]
fn tensors_that_do_not_lie_in_the_file_are_refused() {
    let offset = |n| move |b: &mut [u8]| patch_tensor(b, "blk.1.ffn_up.weight", None, None, Some(n));
    patched(offset(0), &["blk.1.ffn_up.weight", "offset 0", "blk.1.ffn_gate.weight"]);
    patched(offset(1 << 20), &["blk.1.ffn_up.weight", "offset 1048576", "blk.1.ffn_gate.weight"]);
    patched(offset(1 << 30), &["blk.1.ffn_up.weight", "offset 1073741824"]);
    patched(offset(u64::MAX - 31), &["blk.1.ffn_up.weight", "offset 18446744073709551584"]);
    patched(offset(7), &["blk.1.ffn_up.weight", "offset 7 is not a multiple of 32"]);
    let dims =
        |dims: &'static [u64]| move |b: &mut [u8]| patch_tensor(b, "blk.1.ffn_up.weight", Some(dims), None, None);
    patched(dims(&[0, 64]), &["blk.1.ffn_up.weight", "dimension of 0"]);
    patched(dims(&[1 << 40, 1 << 40]), &["blk.1.ffn_up.weight"]);
    patched(dims(&[1 << 60, 1]), &["blk.1.ffn_up.weight"]);
    patched(dims(&[64, 32]), &["blk.1.ffn_up.weight", "[64, 32]", "[32, 64]"]);
    patched(|b| patch_tensor(b, "output_norm.weight", Some(&[16]), None, None), &["output_norm.weight", "[16]"]);
}

#[test]
fn tensor_types_that_cannot_be_computed_with_are_refused_by_name() {
    let kind = |id| move |b: &mut [u8]| patch_tensor(b, "blk.0.ffn_up.weight", None, Some(id), None);
    patched(kind(99), &["blk.0.ffn_up.weight", "unknown tensor type 99"]);
    patched(kind(4), &["blk.0.ffn_up.weight", "unknown tensor type 4"]);
    patched(kind(24), &["blk.0.ffn_up.weight", "I8"]);
    patched(kind(17), &["blk.0.ffn_up.weight", "IQ2_XS"]);
    let iq2_xs =
        |tiny: &mut ModelFile| tiny.tensor("blk.0.ffn_down.weight").dtype = GgmlType::from_name("IQ2_XS").unwrap();
    let mut tiny = ModelFile::sized(32, 256);
    iq2_xs(&mut tiny);
    tiny.tensor("blk.0.ffn_down.weight").bytes.truncate(32 * 74);
    bytes_are_refused(&tiny.bytes(), &["blk.0.ffn_down.weight", "IQ2_XS, which is not supported yet"]);
    let norm = |b: &mut [u8]| patch_tensor(b, "output_norm.weight", None, Some(26), None);
    patched(norm, &["output_norm.weight", "I32"]);
}

#[test]
fn what_is_there_twice_is_refused() {
    let again = |tiny: &mut ModelFile| {
        tiny.set_again("llama.block_count", Value::U32(3));
    };
    changed(again, &["llama.block_count", "twice"]);
    let again = |tiny: &mut ModelFile| {
        let copy = tiny.tensor("output_norm.weight").clone();
        tiny.push(copy);
    };
    changed(again, &["output_norm.weight", "twice"]);
}

#[test]
fn missing_and_unknown_tensors_are_refused_by_name() {
    changed(|t| t.tensor("blk.1.attn_k.weight").name = "blk.1.attn_z.weight".into(), &["blk.1.attn_k.weight"]);
    let extra = |tiny: &mut ModelFile| {
        let mut copy = tiny.tensor("output_norm.weight").clone();
        copy.name = "surprise.weight".into();
        tiny.push(copy);
    };
    changed(extra, &["surprise.weight"]);
}

#[test]
fn alignments_that_are_no_power_of_two_are_refused() {
    for n in [0, 24, 1, 1 << 30] {
        changed(u32_is("general.alignment", n), &["general.alignment", &format!(" {n} ")]);
    }
    let text = |tiny: &mut ModelFile| {
        tiny.set("general.alignment", Value::Str("32".into()));
    };
    changed(text, &["general.alignment"]);
}

#[test]
fn architectures_and_tokenizers_that_are_not_known_are_refused_by_name() {
    let text = |key: &'static str, value: &'static str| {
        move |tiny: &mut ModelFile| {
            tiny.set(key, Value::Str(value.to_owned()));
        }
    };
    changed(text("general.architecture", "mamba"), &["general.architecture", "mamba", "llama"]);
    changed(text("tokenizer.ggml.model", "bert"), &["tokenizer.ggml.model", "bert"]);
    let pre = |tiny: &mut ModelFile| {
        text("tokenizer.ggml.model", "gpt2")(tiny);
        text("tokenizer.ggml.pre", "klingon")(tiny);
    };
    changed(pre, &["tokenizer.ggml.pre", "klingon"]);
    changed(text("powerinfer.activation", "softplus"), &["powerinfer.activation", "softplus"]);
}

#[test]
fn missing_keys_are_named() {
    for key in [
        "general.architecture",
        "llama.block_count",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
        "llama.context_length",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.model",
    ] {
        let remove = |tiny: &mut ModelFile| {
            tiny.remove(key);
        };
        changed(remove, &[key, "the key is missing"]);
    }
    let none = |tiny: &mut ModelFile| {
        tiny.remove("tokenizer.");
    };
    changed(none, &["tokenizer.ggml.model", "the file has no tokenizer"]);
}

#[test]
fn sizes_that_make_no_sense_are_refused_by_key() {
    changed(u32_is("powerinfer.version", 4), &["powerinfer.version: 4 is not known"]);
    changed(u32_is("llama.attention.head_count", 0), &["llama.attention.head_count"]);
    changed(u32_is("llama.attention.head_count", 3), &["llama.embedding_length"]);
    changed(u32_is("llama.attention.head_count_kv", 0), &["llama.attention.head_count_kv"]);
    changed(u32_is("llama.attention.head_count_kv", 4), &["llama.attention.head_count_kv"]);
    changed(u32_is("llama.attention.key_length", u32::MAX), &["llama."]);
    changed(u32_is("llama.rope.dimension_count", 15), &["llama.rope.dimension_count"]);
    changed(u32_is("llama.rope.dimension_count", 64), &["llama.rope.dimension_count"]);
    changed(f32_is("llama.rope.scaling.attn_factor", 0.0), &["llama.rope.scaling.attn_factor: 0 is not positive"]);
    let folded = |tiny: &mut ModelFile| {
        let dims = &mut tiny.tensor("blk.1.ffn_down.weight").dims;
        dims[1] /= 2;
        dims.push(2);
    };
    changed(folded, &["blk.1.ffn_down.weight: shape", "follows from the metadata"]);
    changed(u32_is("llama.block_count", 1 << 31), &["llama.block_count"]);
    changed(u32_is("llama.block_count", 0), &["llama.block_count"]);
    changed(u32_is("llama.block_count", 3), &["blk.2."]);
    changed(u32_is("llama.block_count", 1), &["blk.1."]);
    changed(u32_is("llama.feed_forward_length", u32::MAX), &["llama.feed_forward_length"]);
    changed(u32_is("llama.feed_forward_length", 0), &["llama.feed_forward_length"]);
    changed(u32_is("llama.context_length", 0), &["llama.context_length"]);
    changed(u32_is("llama.embedding_length", 1 << 31), &["llama.embedding_length"]);
    changed(u32_is("llama.expert_count", 8), &["llama.expert_count"]);
    changed(u32_is("tokenizer.ggml.bos_token_id", 100_000), &["tokenizer.ggml.bos_token_id", "100000"]);
}

#[test]
fn floats_that_are_no_numbers_are_refused_by_key() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for key in ["llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base", "llama.rope.scale_linear"] {
            changed(f32_is(key, bad), &[key]);
        }
    }
    changed(f32_is("llama.rope.freq_base", -1.0), &["llama.rope.freq_base"]);
    changed(f32_is("llama.rope.scale_linear", -2.0), &["llama.rope"]);
    changed(f32_is("llama.attention.layer_norm_rms_epsilon", -1.0), &["llama.attention.layer_norm_rms_epsilon"]);
    changed(f32_is("llama.block_count", 2.0), &["llama.block_count"]);
    let text = |tiny: &mut ModelFile| {
        tiny.set("llama.context_length", Value::Str("many".into()));
    };
    changed(text, &["llama.context_length"]);
}

#[test]
fn weights_that_are_no_numbers_are_found_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("story.txt");
    std::fs::write(&text, "once upon a time").unwrap();
    let (out, garbage) = (folder.path().join("out"), folder.path().join("a.profile"));
    let good = ModelFile::tiny().written(folder.path(), "good.gguf");
    refused_by(
        "split",
        &[&"-m", &good, &"--profile", &garbage, &"-o", &out],
        &["a.profile", crate::support::NO_SUCH_FILE],
    );
    let made = tool("profile").arg("-m").arg(&good).arg("-f").arg(&text).arg("-o").arg(&garbage).output();
    Outcome::from(made.unwrap()).ok();
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let mut tiny = ModelFile::tiny();
        // Row 3, column 5 of 32 columns.
        tiny.poke("blk.1.ffn_up.weight", 3 * 32 + 5, value);
        let model = tiny.written(folder.path(), "nan.gguf");
        let wanted = ["nan.gguf", "blk.1.ffn_up.weight", "row 3, column 5", shown];
        refused_by("run", &[&"-m", &model, &"-p", &"x", &"-n", &"1", &"--check-tensors"], &wanted);
        refused_by("bench", &[&"-m", &model, &"-p", &"8", &"-n", &"0", &"--check-tensors"], &wanted);
        refused_by("profile", &[&"-m", &model, &"-f", &text, &"-o", &out], &wanted);
        refused_by("split", &[&"-m", &model, &"--profile", &garbage, &"-o", &out], &wanted);
        assert!(!out.exists());
    }
    // Where nobody looks, nothing crashes either: the sampler refuses logits that are no numbers.
    let mut tiny = ModelFile::tiny();
    let model = tiny.poke("output_norm.weight", 0, f32::NAN).written(folder.path(), "nan.gguf");
    for mode in ["dense", "exact"] {
        refused_by("run", &[&"-m", &model, &"-p", &"x", &"-n", &"1", &"--mode", &mode], &["NaN"]);
    }
}
