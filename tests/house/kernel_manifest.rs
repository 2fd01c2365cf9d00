//! The PTX in kernels/ptx is that of the sources in kernels/, loads with the oldest driver, and has what the host launches.
//!
//! No compiler is needed here: hashes are compared with kernels/ptx/MANIFEST.toml, which `scripts/kernels.py build`
//! writes. `scripts/kernels.py check` compiles again and compares bytes.

use powerinfer::gpu::entries::entries;
use powerinfer::gpu::ptx::FILES;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The PTX ISA that R525 drivers read: CUDA 12.0.
const MAX_ISA: (u32, u32) = (8, 0);
const HELP: &str = "run scripts/kernels.py build and commit kernels/ptx";

#[derive(Deserialize)]
struct Manifest {
    nvrtc: String,
    options: Vec<String>,
    sources: BTreeMap<String, String>,
    #[serde(default)]
    ptx: Vec<Ptx>,
}

#[derive(Deserialize)]
struct Ptx {
    file: String,
    source: String,
    target: u32,
    sha256: String,
    kernels: Vec<String>,
}

impl Ptx {
    fn text(&self) -> String {
        fs::read_to_string(folder().join("ptx").join(&self.file))
            .unwrap_or_else(|e| panic!("{}: {e}: {HELP}", self.file))
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

fn manifest() -> Manifest {
    toml::from_str(&fs::read_to_string(folder().join("ptx/MANIFEST.toml")).unwrap()).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Names of the files in `folder` with one of these endings.
fn names(folder: &Path, endings: &[&str]) -> BTreeSet<String> {
    let all = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    all.filter(|name| endings.iter().any(|ending| name.ends_with(ending))).collect()
}

#[test]
fn the_sources_are_those_that_were_compiled() {
    let manifest = manifest();
    assert_eq!(manifest.nvrtc, "12.0.140", "another NVRTC may write PTX that older drivers do not read");
    assert_eq!(manifest.options, ["--std=c++17", "-default-device"]);
    let listed: BTreeSet<String> = manifest.sources.keys().cloned().collect();
    assert_eq!(names(&folder(), &[".cu", ".cuh"]), listed, "{HELP}");
    for (name, hash) in &manifest.sources {
        assert_eq!(sha256(&fs::read(folder().join(name)).unwrap()), *hash, "kernels/{name} has changed: {HELP}");
    }
}

#[test]
fn the_ptx_is_what_was_compiled() {
    let manifest = manifest();
    let listed: BTreeSet<String> = manifest.ptx.iter().map(|p| p.file.clone()).collect();
    assert_eq!(names(&folder().join("ptx"), &[".ptx"]), listed, "{HELP}");
    for ptx in &manifest.ptx {
        assert_eq!(sha256(ptx.text().as_bytes()), ptx.sha256, "{}: {HELP}", ptx.file);
        let stem = ptx.source.trim_end_matches(".cu");
        assert_eq!(ptx.file, format!("{stem}.sm{}.ptx", ptx.target));
        assert!(manifest.sources.contains_key(&ptx.source), "{}: no source", ptx.file);
    }
    let compiled: BTreeSet<&String> = manifest.ptx.iter().map(|p| &p.source).collect();
    let sources: BTreeSet<&String> = manifest.sources.keys().filter(|name| name.ends_with(".cu")).collect();
    assert_eq!(compiled, sources, "{HELP}");
}

#[test]
fn the_oldest_driver_can_load_it() {
    for ptx in manifest().ptx {
        let (file, text) = (&ptx.file, ptx.text());
        let word = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("{file}: no {key}")).trim().to_owned()
        };
        let version = word(".version ");
        let (major, minor) = version.split_once('.').expect("two numbers");
        assert!((major.parse().unwrap(), minor.parse().unwrap()) <= MAX_ISA, "{file}: PTX ISA {version}");
        assert_eq!(word(".target "), format!("sm_{}", ptx.target), "{file}");
        assert_eq!(word(".address_size "), "64", "{file}");
        assert!(!text.contains(".extern"), "{file}: something is not resolved");
    }
}

#[test]
fn the_host_has_all_of_it() {
    let manifest = manifest();
    let targets = FILES.iter().flat_map(|f| f.targets.iter().map(|(target, packed)| (f.name, target, packed)));
    let carried: BTreeMap<String, String> = targets
        .map(|(name, target, packed)| (format!("{name}.sm{target}.ptx"), sha256(packed.text().unwrap().as_bytes())))
        .collect();
    let listed: BTreeMap<String, String> = manifest.ptx.iter().map(|p| (p.file.clone(), p.sha256.clone())).collect();
    assert_eq!(carried, listed, "FILES of src/gpu/ptx.rs names the files of kernels/ptx, and has their text");
    let mut all = BTreeMap::new();
    for ptx in &manifest.ptx {
        let text = ptx.text();
        let found: Vec<&str> = entries(&text).iter().map(|e| e.name).collect();
        assert_eq!(found, ptx.kernels, "{}: {HELP}", ptx.file);
        for name in &ptx.kernels {
            let source = all.entry(name.clone()).or_insert(&ptx.source);
            assert_eq!(*source, &ptx.source, "kernel {name} is in two sources");
        }
    }
}

/// A kernel's name, cut where something is filled in: `format!("up_{}", ...)` is `up_` and an empty end.
type Pattern = Vec<String>;

/// The names of kernels that a file of src/gpu/ops launches.
fn launched(file: &str, text: &str) -> Vec<Pattern> {
    let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
    let calls = shipped.split("kernels.launch(").skip(1);
    calls
        .map(|call| pattern(literal(shipped, call).unwrap_or_else(|| panic!("{file}: cannot read: {call:.80}"))))
        .collect()
}

/// The second argument of a call, where it is a string, a `format!`, or a local variable made by one of them.
fn literal<'a>(text: &'a str, call: &'a str) -> Option<&'a str> {
    let argument = call.split_once(',')?.1.trim_start().trim_start_matches('&');
    let quoted = |text: &'a str| text.split('"').nth(1);
    if argument.starts_with('"') || argument.starts_with("format!(") {
        return quoted(argument);
    }
    let variable = argument.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    quoted(text.split_once(&format!("let {variable} = "))?.1)
}

/// What stands between the braces is left out.
fn pattern(literal: &str) -> Pattern {
    literal
        .split('{')
        .enumerate()
        .map(|(i, part)| if i == 0 { part } else { part.split_once('}').unwrap().1 }.to_owned())
        .collect()
}

fn matches(pattern: &Pattern, name: &str) -> bool {
    let [first, middle @ .., last] = &pattern[..] else { return pattern.first().is_some_and(|p| p == name) };
    let inner = name.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()));
    inner.is_some_and(|rest| {
        middle.iter().try_fold(rest, |rest, part| Some(rest.split_once(part.as_str())?.1)).is_some()
    })
}

#[test]
fn every_kernel_is_launched_and_every_launch_has_a_kernel() {
    let kernels: BTreeSet<String> = manifest().ptx.into_iter().flat_map(|p| p.kernels).collect();
    let ops = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gpu/ops");
    let mut patterns = Vec::new();
    for file in names(&ops, &[".rs"]) {
        for pattern in launched(&file, &fs::read_to_string(ops.join(&file)).unwrap()) {
            assert!(kernels.iter().any(|k| matches(&pattern, k)), "{file}: no kernel is called {}", pattern.join("*"));
            patterns.push(pattern);
        }
    }
    let idle: Vec<&String> = kernels.iter().filter(|k| !patterns.iter().any(|p| matches(p, k))).collect();
    assert!(idle.is_empty(), "nothing launches {idle:?}");
}

#[test]
fn names_are_read_from_launches() {
    let text = r#"
        kernels.launch(stream, "norm", [1, 1, 1], b, args)
        kernels.launch(stream, &format!("up_{}", up.kernel()), g, b, args)
        let name = format!("attention_{dtype}_g{}", n);
        kernels.launch(stream, &name, g, b, args)"#;
    let found = launched("here", text);
    assert_eq!(found.iter().map(|p| p.join("*")).collect::<Vec<_>>(), ["norm", "up_*", "attention_*_g*"]);
    assert!(matches(&found[0], "norm") && !matches(&found[0], "norms"));
    assert!(matches(&found[1], "up_q4_0") && !matches(&found[1], "gate_up_q4_0"));
    assert!(matches(&found[2], "attention_f16_g4") && !matches(&found[2], "attention_f16"));
}
