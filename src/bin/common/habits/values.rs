//! Flags of llama.cpp whose meaning here depends on their values.

use super::Reading;
use crate::common::default_threads;

/// What flags that are on or off take.
pub const SWITCH: &[&str] = &["on", "off", "auto", "1", "0", "true", "false", "enabled", "disabled", "-1"];

/// What `-lm` takes.
const LOAD_MODES: [&str; 6] = ["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"];

/// Whether a value of [`SWITCH`] says no.
fn is_off(value: &str) -> bool {
    ["off", "0", "false", "disabled"].contains(&value.to_ascii_lowercase().as_str())
}

/// Whether a value of [`SWITCH`] leaves it open.
fn is_auto(value: &str) -> bool {
    value.eq_ignore_ascii_case("auto") || value == "-1"
}

/// `-t`: -1 means all cores.
pub fn threads(value: &str) -> Reading {
    let n = if value.trim() == "-1" { default_threads().to_string() } else { value.to_owned() };
    Reading::Flag("threads", n)
}

/// `-fa`.
pub fn flash_attention(value: &str) -> Reading {
    // A list of bench measures both.
    if value.split(',').any(is_off) {
        return Reading::Note("attention runs block by block in any case, as with -fa on".to_owned());
    }
    Reading::Already
}

/// `-dev`.
pub fn device(value: &str) -> Reading {
    if value.contains([',', '/']) {
        return Reading::Refused("one card is used at most; name one, as in --device cuda:1".to_owned());
    }
    Reading::Flag("device", value.to_owned())
}

/// `-ngl` of llama-bench, which takes lists and ranges.
pub fn layers(value: &str) -> Reading {
    if value.contains([',', '+', '*']) || value.trim_start_matches('-').contains('-') {
        return Reading::Refused(format!("\"{value}\" are several; one is measured at a time"));
    }
    Reading::Flag("n-gpu-layers", value.to_owned())
}

/// `-mg`.
pub fn main_gpu(value: &str) -> Reading {
    // The first card is used anyway where there is one; named, a machine without one would refuse it.
    if value == "0" { Reading::Already } else { Reading::Flag("device", format!("cuda:{value}")) }
}

/// `--spec-type`.
pub fn speculation(value: &str) -> Reading {
    match value {
        "none" => Reading::Flag("draft-max", "0".to_owned()),
        ngram if ngram.starts_with("ngram-") => Reading::Already,
        "draft" | "draft-simple" => Reading::Already,
        other => Reading::Refused(format!("{other:?} is not drafted with; there are n-grams of the text, and -md")),
    }
}

/// `-sm`.
pub fn split_mode(value: &str) -> Reading {
    if value == "none" { Reading::Already } else { Reading::Note("one card is used at most".to_owned()) }
}

/// `-fit`.
pub fn fit(value: &str) -> Reading {
    if is_off(value) {
        return Reading::Note("what goes on the card always fits into --vram-budget".to_owned());
    }
    Reading::Already
}

/// `-lm`.
pub fn load_mode(value: &str) -> Reading {
    match value {
        "auto" | "mmap" => Reading::Already,
        "mlock" | "mmap+mlock" => Reading::Flag("mlock", String::new()),
        "none" => Reading::Flag("no-mmap", String::new()),
        "dio" => Reading::Note("files are mapped, and read as they are needed".to_owned()),
        // A list of bench measures each.
        list if list.split(',').all(|mode| LOAD_MODES.contains(&mode)) => {
            Reading::Note("files are loaded in one way, and measured once; --no-mmap and --mlock are others".to_owned())
        }
        _ => Reading::Refused(format!("\"{value}\" is not known; auto, none, mmap and mlock are")),
    }
}

/// `-np`.
pub fn parallel(value: &str) -> Reading {
    if value == "-1" { Reading::Already } else { Reading::Flag("parallel", value.to_owned()) }
}

/// `--color`.
pub fn colour(value: &str) -> Reading {
    if is_off(value) || is_auto(value) { Reading::Already } else { Reading::Note("text has no colours".to_owned()) }
}

/// `-rea`.
pub fn reasoning(value: &str) -> Reading {
    if is_off(value) { Reading::Flag("reasoning-budget", "0".to_owned()) } else { Reading::Already }
}

/// `--reasoning-budget`.
pub fn reasoning_budget(value: &str) -> Reading {
    match value.parse::<i64>() {
        Ok(1..) => Reading::Refused("thinking can be switched off by 0, and not bounded".to_owned()),
        _ => Reading::Flag("reasoning-budget", value.to_owned()),
    }
}

/// `--reasoning-effort`.
pub fn reasoning_effort(value: &str) -> Reading {
    if value == "default" {
        return Reading::Already;
    }
    Reading::Flag("chat-template-kwargs", serde_json::json!({ "reasoning_effort": value }).to_string())
}

/// `--reasoning-format`.
pub fn reasoning_format(value: &str) -> Reading {
    if ["none", "auto"].contains(&value) {
        return Reading::Already;
    }
    Reading::Note("thoughts are printed as the model writes them".to_owned())
}

/// `--grp-attn-n`.
pub fn group_attention(value: &str) -> Reading {
    if value == "1" {
        return Reading::Already;
    }
    Reading::Refused("positions are those of the text; a file's own scaling of RoPE reaches further".to_owned())
}

/// Flags of llama-bench that are off by default, and change what is computed where they are on.
pub fn embeddings(value: &str) -> Reading {
    if value.split(',').all(is_off) {
        return Reading::Already;
    }
    Reading::Refused("embeddings are not computed; leave it out".to_owned())
}

/// `--mmap` of llama-bench.
pub fn mapped(value: &str) -> Reading {
    if value.split(',').all(is_off) {
        return Reading::Flag("no-mmap", String::new());
    }
    if value.split(',').any(is_off) {
        return Reading::Refused(
            "files are mapped in a whole run or not at all; give 0 in a run of its own".to_owned(),
        );
    }
    Reading::Already
}

/// `--repack` and `--direct-io`, which take a value in llama-bench only: what is off, is so here.
pub fn off_here(value: &str) -> Reading {
    if value.split(',').all(|one| is_off(one) || is_auto(one)) {
        return Reading::Already;
    }
    Reading::Note("files are mapped, and computed as they are".to_owned())
}

/// Flags of llama-bench that say where the card gets what; 0 leaves that open.
pub fn placed(value: &str) -> Reading {
    if value.split(',').all(is_off) {
        return Reading::Already;
    }
    Reading::Note("the planner decides what the card does; --vram-budget bounds it".to_owned())
}

/// `--process-output`.
pub fn process_output(value: &str) -> Reading {
    if is_off(value) {
        return Reading::Already;
    }
    Reading::Refused("profiles are of FFN neurons; output.weight has none".to_owned())
}
