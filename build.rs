//! Compresses the PTX of kernels/ptx for the programs (4.3 MB of text become 0.8 MB), and tells them what they are built from.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// The best of the ordinary levels; 10 gains less than a thousandth.
const LEVEL: u8 = 9;
/// Hexadecimal digits of a commit.
const DIGITS: usize = 8;

fn main() -> io::Result<()> {
    let variable = |name| env::var_os(name).ok_or_else(|| io::Error::other(format!("{name} is not set")));
    let (root, out) = (variable("CARGO_MANIFEST_DIR")?, variable("OUT_DIR")?);
    let folder = Path::new(&root).join("kernels/ptx");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels/ptx");
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "ptx") {
            let name = path.with_extension("ptx.z");
            let packed = miniz_oxide::deflate::compress_to_vec_zlib(&fs::read(&path)?, LEVEL);
            fs::write(Path::new(&out).join(name.file_name().unwrap_or_default()), packed)?;
        }
    }
    // Whoever builds for tests builds often: a commit is no reason to do it again.
    let (commit, number) = match env::var("PROFILE").as_deref() {
        Ok("debug") => ("debug".to_owned(), 0),
        _ => commit(Path::new(&root)).unwrap_or_else(|| ("unknown".to_owned(), 0)),
    };
    println!("cargo::rustc-env=POWERINFER_COMMIT={commit}");
    println!("cargo::rustc-env=POWERINFER_BUILD_NUMBER={number}");
    println!("cargo::rustc-env=POWERINFER_TARGET={}", variable("TARGET")?.to_string_lossy());
    let compiler = Command::new(variable("RUSTC")?).arg("--version").output()?;
    println!("cargo::rustc-env=POWERINFER_COMPILER={}", String::from_utf8_lossy(&compiler.stdout).trim());
    Ok(())
}

/// The commit of the sources at `root`, and how many led to it (0 where nobody knows).
fn commit(root: &Path) -> Option<(String, u64)> {
    let cut =
        |hash: &str| hash.get(..DIGITS).filter(|hash| hash.bytes().all(|b| b.is_ascii_hexdigit())).map(str::to_owned);
    // What cargo packed says where it came from, whatever repository it was unpacked into.
    if let Ok(packed) = fs::read_to_string(root.join(".cargo_vcs_info.json")) {
        let (_, rest) = packed.split_once("\"sha1\"")?;
        return Some((cut(rest.split('"').nth(1)?)?, 0));
    }
    let git = |args: &[&str]| {
        let done =
            Command::new("git").arg("-C").arg(root).args(args).output().ok().filter(|done| done.status.success())?;
        String::from_utf8(done.stdout).ok().map(|text| text.trim().to_owned())
    };
    let top = fs::canonicalize(git(&["rev-parse", "--show-toplevel"])?).ok()?;
    if fs::canonicalize(root).ok()? != top {
        return None;
    }
    // HEAD changes with the branch, and its log with each commit.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name]).map(PathBuf::from).map(|path| root.join(path));
        if let Some(path) = path.filter(|path| path.exists()) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    let number = git(&["rev-list", "--count", "HEAD"]).and_then(|n| n.parse().ok()).unwrap_or(0);
    Some((cut(&git(&["rev-parse", "HEAD"])?)?, number))
}
