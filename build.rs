//! Compresses the PTX of kernels/ptx for the programs: 4.3 MB of text become 0.8 MB.

use std::path::Path;
use std::{env, fs, io};

/// The best of the ordinary levels; 10 gains less than a thousandth.
const LEVEL: u8 = 9;

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
    Ok(())
}
