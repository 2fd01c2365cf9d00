//! What this program was built from, with what, and what it finds here.

use powerinfer::cpu::Isa;
use std::sync::OnceLock;

/// What build.rs knows of the commit: its first digits, `debug` in builds that do not follow commits, or `unknown`.
const COMMIT: &str = env!("POWERINFER_COMMIT");

/// What `--version` prints behind the name.
pub fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let here: Vec<_> = Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(Isa::name).collect();
        let commit = if COMMIT == "debug" { "unknown, as this is a debug build" } else { COMMIT };
        format!(
            "{}\ncommit            {commit}\ntarget            {}\ncompiler          {}\ninstruction sets  {} here, of which {} is used",
            env!("CARGO_PKG_VERSION"),
            env!("POWERINFER_TARGET"),
            env!("POWERINFER_COMPILER"),
            here.join(", "),
            Isa::detect()
        )
    })
}
