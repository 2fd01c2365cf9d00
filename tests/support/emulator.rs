//! The emulated device: a stand-in for `libcuda.so.1` that runs the kernels' own source on the processor. What is
//! started with `command` finds it in the place of the driver. See tests/emulator/.

use super::command::program as path_of;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Folder of a library that is already built: what scripts/emulate.sh sets, to have it under sanitizers.
const PREBUILT: &str = "EMULATOR";

/// Where commands remember self-tests, in the cache folder.
const REMEMBERED: &str = "powerinfer/self-tests.json";

/// Where the emulator's library lies, built when needed; or why there is none here.
pub fn library() -> Result<&'static Path, &'static str> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match env::var_os(PREBUILT) {
        Some(folder) => Ok(folder.into()),
        None => build("driver"),
    });
    built.as_deref().map_err(String::as_str)
}

/// Builds `driver` or `selftest` into a folder, which is returned; what has not changed is not compiled again.
///
/// # Panics
/// With the compiler's words, where there is a compiler and it refuses the source.
pub fn build(what: &str) -> Result<PathBuf, String> {
    if !cfg!(all(target_os = "linux", target_pointer_width = "64")) {
        return Err("the emulator is for 64-bit Linux".to_owned());
    }
    let cxx = env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let mut probe = Command::new(&cxx);
    probe.args(["-std=c++20", "-x", "c++", "-E", "-include", "source_location", "/dev/null"]);
    if !succeeds(&mut probe) {
        return Err(format!("no C++20 compiler ({} does not run; CXX names another)", Path::new(&cxx).display()));
    }
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulator/build.sh");
    if !script.is_file() {
        return Err(format!("the emulator's sources are not here ({})", script.display()));
    }
    let done = Command::new("sh").arg(script).arg(&out).arg(what).output().map_err(|e| format!("no sh: {e}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "the emulator does not build:\n{said}");
    Ok(out)
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|s| s.success())
}

/// A command that finds the emulator in the place of the driver. Settings of the device (`EMU_FAIL` and others, see
/// tests/emulator/driver.cpp) are variables of its environment.
pub fn command(program: impl AsRef<OsStr>) -> Result<Command, &'static str> {
    let mut folders = vec![library()?.to_path_buf()];
    folders.extend(env::var_os("LD_LIBRARY_PATH").iter().flat_map(env::split_paths));
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", env::join_paths(folders).expect("a path with a colon"));
    // Only for what is emulated: the compiler and cargo are not to be run under it.
    if let Some(runtime) = env::var_os("EMULATOR_PRELOAD") {
        command.env("LD_PRELOAD", runtime);
    }
    Ok(command)
}

/// Describes a machine whose card is so much faster that everything for which there is room goes there.
pub const FAST_CARD: &str = r#"
name = "a machine"
[cpu]
threads = 2
region_us = 0.1
value_ns = 0.4
[cpu.bandwidth]
stream_gb_s = 0.5
gather_gb_s = 0.4
[gpu]
vram = "1GiB"
context = "64MiB"
kernel_us = 0.1
[gpu.bandwidth]
stream_gb_s = 500
gather_gb_s = 400
[bus]
gb_s = 12
rendezvous_us = 0.5
"#;

/// Makes it known to `run` and `bench`, with this cache folder, that the emulated card has passed its self-test: for what
/// goes wrong later. Nothing where there is no emulator.
pub fn has_passed(cache: &Path) {
    static PASSED: OnceLock<Option<String>> = OnceLock::new();
    let passed = PASSED.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["run", "bench"] {
            // The card comes before the model.
            let mut command = command(path_of(name)).ok()?;
            command.env("XDG_CACHE_HOME", folder.path()).env_remove("EMU_FAIL").stdin(Stdio::null());
            let output = command.args(["-m", "none.gguf", "-p", "1", "--device", "cuda"]).output().expect("it starts");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("none.gguf") && !said.contains("self-test"), "{said}");
        }
        Some(std::fs::read_to_string(folder.path().join(REMEMBERED)).expect("what came of the test"))
    });
    if let Some(text) = passed {
        let path = cache.join(REMEMBERED);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        std::fs::write(path, text).expect("it can be written");
    }
}
