//! Flags that say how tokens are drawn.

use crate::support::{ModelFile, Outcome, refused_by, tool, usage_error};
use std::path::Path;

/// What the model says after "a", and the seed's line.
fn text(model: &Path, flags: &[&str]) -> String {
    let mut command = tool("run");
    command.arg("-m").arg(model).args(["-p", "a", "-n", "12", "--ignore-eos", "-t", "1", "--no-display-prompt"]);
    Outcome::from(command.args(flags).output().unwrap()).ok().stdout
}

#[test]
fn help_lists_the_samplers_under_a_heading_of_their_own() {
    let help = Outcome::from(tool("run").arg("--help").output().unwrap()).ok().stdout;
    let (before, after) = help.split_once("\nSampling:\n").unwrap();
    for flag in [
        "--temp ",
        "--seed ",
        "--top-nsigma",
        "--xtc-threshold",
        "--dry-base",
        "--mirostat-ent",
        "--logit-bias",
        "--samplers",
    ] {
        assert!(!before.contains(flag) && after.contains(flag), "{flag}");
    }
}

#[test]
fn values_that_mean_nothing_are_refused_and_name_the_flag() {
    usage_error("run", &["-p", "x", "--samplers", "top_k;best"], "\"best\"; there are penalties (e)");
    usage_error("run", &["-p", "x", "--samplers", "infill"], "not available");
    usage_error("run", &["-p", "x", "--sampling-seq", "kz"], "\"z\"");
    usage_error("run", &["-p", "x", "-l", "15043"], "15043-inf");
    usage_error("run", &["-p", "x", "--logit-bias", "7+nan"], "--logit-bias");
    usage_error("run", &["-p", "x", "--mirostat", "3"], "--mirostat");
    usage_error("run", &["-p", "x", "--top-nsigma", "many"], "--top-nsigma");
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    for (flag, value) in [
        ("--dynatemp-range", "-1"),
        ("--dynatemp-exp", "nan"),
        ("--top-nsigma", "inf"),
        ("--typical", "1.5"),
        ("--xtc-probability", "-0.5"),
        ("--xtc-threshold", "nan"),
        ("--frequency-penalty", "inf"),
        ("--presence-penalty", "nan"),
        ("--repeat-last-n", "-2"),
        ("--dry-multiplier", "nan"),
        ("--dry-base", "0.5"),
        ("--dry-allowed-length", "-1"),
        ("--dry-penalty-last-n", "-2"),
        ("--mirostat-ent", "-1"),
        ("--mirostat-lr", "inf"),
    ] {
        refused_by("run", &[&"-m", &model, &"-p", &"x", &"-n", &"1", &flag, &value], &[flag, "must be"]);
    }
    refused_by("run", &[&"-m", &model, &"-p", &"x", &"-l", &"4000000+1"], &["--logit-bias 4000000+1", "tokens"]);
}

#[test]
fn a_bias_makes_a_token_certain_or_impossible() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let ids = |text: &str| {
        let mut command = tool("run");
        command.arg("-m").arg(&model).args(["--tokenize", "--no-bos", "-p", text]);
        Outcome::from(command.output().unwrap()).ok().stdout.split_whitespace().last().unwrap().to_owned()
    };
    let b = ids("b");
    assert_eq!(text(&model, &["-l", &format!("{b}+10000"), "--temp", "2"]).trim_end(), "b".repeat(12));
    let without =
        text(&model, &["-l", &format!("{b}+10000"), "-l", &format!("{b}-inf"), "--temp", "5", "--top-k", "0"]);
    assert!(!without.contains('b'), "{without}");
}

#[test]
fn of_two_lists_of_samplers_the_last_counts() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let greedy = text(&model, &["--temp", "0"]);
    // Without the temperature, one token of the many that are left is drawn.
    assert_ne!(text(&model, &["--temp", "0", "--samplers", "", "-s", "1"]), greedy);
    assert_eq!(text(&model, &["--temp", "0", "--samplers", "", "--sampling-seq", "t"]), greedy);
    assert_ne!(text(&model, &["--temp", "0", "--sampling-seq", "t", "--samplers", "", "-s", "1"]), greedy);
    assert_eq!(text(&model, &["--temp", "5", "--top-k", "1", "--samplers", "top_k;temp"]), greedy);
}

#[test]
fn every_sampler_at_once_gives_a_seed_its_text() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let all = "-s 7 --temp 1.5 --dynatemp-range 0.5 --dynatemp-exp 2 --top-k 30 --top-p 0.99 --min-p 0.01 --top-nsigma 3 --typical 0.99 \
               --xtc-probability 0.5 --xtc-threshold 0.05 --repeat-penalty 1.1 --frequency-penalty 0.1 --presence-penalty 0.1 \
               --dry-multiplier 0.5 --dry-sequence-breaker a --dry-sequence-breaker none --dry-sequence-breaker -";
    let all: Vec<&str> = all.split_whitespace().collect();
    assert_eq!(text(&model, &all), text(&model, &all));
    for version in ["1", "2"] {
        let mirostat = ["-s", "7", "--mirostat", version, "--mirostat-ent", "2", "--mirostat-lr", "0.2"];
        assert_eq!(text(&model, &mirostat), text(&model, &mirostat));
    }
}
