//! GGUF versions 1, 2 and 3 hold the same model, and metadata of all types are read right in each.

use crate::support::kind::Kind;
use crate::support::{ModelFile, Tensor, Value};
use anyhow::Result;
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::gguf::value::ValueType;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::quant::GgmlType;

const VERSIONS: [u32; 3] = [1, 2, 3];

fn open(version: u32, file: &ModelFile) -> Result<Gguf> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, file.bytes_in(version))?;
    Gguf::open(&path)
}

fn logits(gguf: Gguf) -> Result<Vec<u32>> {
    let model = Model::new(gguf, None)?;
    let params = ExecutorParams {
        n_threads: 1,
        n_ctx: 32,
        kv_type: KvType::F32,
        mode: Mode::Exact,
        n_ubatch: 8,
        isa: Isa::detect(),
    };
    let mut executor = Executor::new(&model, Placement::all_cold(&model), params)?;
    let tokens: Vec<u32> = (0..20).collect();
    Ok(executor.prefill(&tokens)?.iter().map(|l| l.to_bits()).collect())
}

#[test]
fn all_versions_of_a_file_give_the_same_logits() -> Result<()> {
    for dtype in [GgmlType::F32, GgmlType::F16, GgmlType::BF16] {
        let kind = Kind { dtype, n_ff: vec![33, 70], biases: true, rope_freqs: true, ..Kind::default() };
        let file = kind.file(&kind.weights(3));
        let mut found = Vec::new();
        for version in VERSIONS {
            let gguf = open(version, &file)?;
            assert_eq!(gguf.version(), version);
            found.push(logits(gguf)?);
        }
        assert!(found[0].iter().any(|l| *l != found[0][0]));
        assert_eq!(found[0], found[1], "{dtype}: version 1 against 2");
        assert_eq!(found[1], found[2], "{dtype}: version 2 against 3");
    }
    Ok(())
}

/// A file of one tensor with these keys.
fn file(keys: Vec<(&str, Value)>) -> ModelFile {
    let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    ModelFile { keys, tensors: vec![Tensor::zeros("output_norm.weight", GgmlType::F32, &[40])] }
}

#[test]
fn scalars_of_every_type_are_read_right() -> Result<()> {
    let file = file(vec![
        ("u8", Value::U8(u8::MAX)),
        ("i8", Value::I8(-128)),
        ("u16", Value::U16(u16::MAX)),
        ("i16", Value::I16(-32768)),
        ("u32", Value::U32(u32::MAX)),
        ("i32", Value::I32(i32::MIN)),
        ("f32", Value::F32(0.1)),
        ("true", Value::Bool(true)),
        ("false", Value::Bool(false)),
        ("string", Value::Str("Zoë — 你好 🦀".to_owned())),
        ("empty", Value::Str(String::new())),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f64", Value::F64(-1.5e-3)),
        ("positive i8", Value::I8(100)),
        ("positive i16", Value::I16(30000)),
        ("positive i32", Value::I32(i32::MAX)),
        ("positive i64", Value::I64(i64::MAX)),
    ]);
    for version in VERSIONS {
        let gguf = open(version, &file)?;
        let m = gguf.metadata();
        assert_eq!(m.entries().len(), file.keys.len());
        for (key, value) in [
            ("u8", 255),
            ("u16", 65535),
            ("u32", u64::from(u32::MAX)),
            ("u64", u64::MAX),
            ("positive i8", 100),
            ("positive i16", 30000),
            ("positive i32", 0x7FFF_FFFF),
            ("positive i64", i64::MAX as u64),
        ] {
            assert_eq!(m.u64(key)?, Some(value), "version {version}, {key}");
        }
        for (key, value) in [("i8", -128.0), ("i16", -32768.0), ("i32", -2147483648.0), ("i64", i64::MIN as f32)] {
            assert_eq!(m.f32(key)?, Some(value), "version {version}, {key}");
            assert!(m.u64(key).is_err(), "version {version}, {key}");
        }
        assert_eq!(m.f32("f32")?, Some(0.1));
        assert_eq!(m.f32("f64")?, Some(-1.5e-3));
        assert_eq!((m.bool("true")?, m.bool("false")?), (Some(true), Some(false)));
        assert_eq!((m.str("string")?, m.str("empty")?), (Some("Zoë — 你好 🦀"), Some("")));
        assert_eq!((m.u32("absent")?, m.str("absent")?, m.f32("absent")?, m.bool("absent")?), (None, None, None, None));
        assert!(m.u32("u64").is_err() && m.str("u8").is_err() && m.bool("u8").is_err() && m.f32("string").is_err());
    }
    Ok(())
}

#[test]
fn arrays_of_every_type_are_read_in_place() -> Result<()> {
    fn bytes<const N: usize>(values: [[u8; N]; 3]) -> Vec<u8> {
        values.concat()
    }
    let file = file(vec![
        ("u8", Value::Array(0, 3, vec![0, 1, 255])),
        ("i8", Value::Array(1, 3, bytes([-128i8, 0, 127].map(i8::to_le_bytes)))),
        ("u16", Value::Array(2, 3, bytes([0u16, 1, u16::MAX].map(u16::to_le_bytes)))),
        ("i16", Value::Array(3, 3, bytes([i16::MIN, 0, i16::MAX].map(i16::to_le_bytes)))),
        ("u32", Value::Array(4, 3, bytes([0u32, 1, u32::MAX].map(u32::to_le_bytes)))),
        ("i32", Value::Array(5, 3, bytes([i32::MIN, 0, i32::MAX].map(i32::to_le_bytes)))),
        ("f32", Value::Array(6, 3, bytes([-0.5f32, 0.1, f32::MAX].map(f32::to_le_bytes)))),
        ("bool", Value::Array(7, 3, vec![0, 1, 0])),
        ("strings", Value::strings(&["", "a", "你好"])),
        ("u64", Value::Array(10, 3, bytes([0u64, 1, i64::MAX as u64].map(u64::to_le_bytes)))),
        ("i64", Value::Array(11, 3, bytes([i64::MIN, 0, i64::MAX].map(i64::to_le_bytes)))),
        ("none", Value::Array(4, 0, Vec::new())),
        ("no strings", Value::Strings(Vec::new())),
        ("last", Value::U32(7)),
    ]);
    for version in VERSIONS {
        let gguf = open(version, &file)?;
        let array = |key: &str| gguf.metadata().array(key).unwrap().unwrap();
        for (key, values) in [
            ("u8", [0, 1, 255]),
            ("i8", [-128, 0, 127]),
            ("u16", [0, 1, 65535]),
            ("i16", [-32768, 0, 32767]),
            ("u32", [0, 1, 4294967295]),
            ("i32", [i64::from(i32::MIN), 0, i64::from(i32::MAX)]),
            ("u64", [0, 1, i64::MAX]),
            ("i64", [i64::MIN, 0, i64::MAX]),
        ] {
            assert_eq!(array(key).integers()?, values, "version {version}, {key}");
        }
        assert_eq!(array("f32").floats()?, [-0.5, 0.1, f32::MAX]);
        assert_eq!((array("bool").element, array("bool").len), (ValueType::Bool, 3));
        assert_eq!(array("strings").strings()?, [b"".as_slice(), b"a", "你好".as_bytes()]);
        assert!(array("none").integers()?.is_empty() && array("no strings").strings()?.is_empty());
        assert!(
            array("strings").integers().is_err() && array("u8").strings().is_err() && array("u8").floats().is_err()
        );
        assert!(gguf.metadata().array("last").is_err() && gguf.metadata().u32("u8").is_err());
        assert_eq!(gguf.metadata().u32("last")?, Some(7));
    }
    Ok(())
}
