//! Activations as data: what a file, models.toml or the command line says of them, and what is written of that.

use crate::support::real::repository;
use crate::support::{ModelFile, Outcome, Value, refused, tool};
use std::path::{Path, PathBuf};
use std::process::Command;

const FATRELU: &str = "tests/golden/arch/llama-fatrelu.gguf";

/// A golden model without its tokenizer, changed.
fn changed(golden: &str, folder: &Path, change: impl FnOnce(&mut ModelFile)) -> PathBuf {
    let mut file = ModelFile::opened(&repository(golden)).unwrap();
    file.keys.retain(|(key, _)| !key.starts_with("tokenizer."));
    change(&mut file);
    file.written(folder, "model.gguf")
}

/// `bench` over a few tokens of a model.
fn bench(model: &Path, args: &[&str]) -> Command {
    let mut command = tool("bench");
    command.arg("-m").arg(model).args(["-p", "0", "-n", "12", "-r", "1", "-o", "json", "--text", "random"]).args(args);
    command
}

/// What `bench` says that the model is run with.
fn says(model: &Path, args: &[&str], wanted: &str) {
    let outcome = Outcome::from(bench(model, args).output().unwrap()).ok();
    assert!(outcome.stderr.contains(wanted), "{}", outcome.stderr);
}

fn without_activation(file: &mut ModelFile) {
    file.keys.retain(|(key, _)| !key.contains("activation"));
}

#[test]
fn a_threshold_comes_from_the_file_or_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let golden = repository(FATRELU);
    says(&golden, &[], "activation fatrelu:0.3 (from llama.hidden_activation)");
    says(&golden, &["--activation", "relu"], "activation relu (from --activation)");
    let bare = changed(FATRELU, folder.path(), without_activation);
    says(&bare, &[], "activation silu (from default of architecture llama)");
    says(&bare, &["--activation", "fatrelu:0.01"], "activation fatrelu:0.01 (from --activation)");
    let ours = changed(FATRELU, folder.path(), |file| {
        file.set("powerinfer.activation_threshold", Value::F32(0.5));
    });
    says(&ours, &[], "activation fatrelu:0.5 (from llama.hidden_activation)");
    let in_the_name = changed(FATRELU, folder.path(), |file| {
        without_activation(file);
        file.set("llama.hidden_activation", Value::Str("fatrelu:0.125".to_owned()));
    });
    says(&in_the_name, &[], "activation fatrelu:0.125 (from llama.hidden_activation)");
}

#[test]
fn what_a_threshold_cannot_be_is_refused_with_what_helps() {
    let folder = tempfile::tempdir().unwrap();
    let key = "llama.activation_threshold";
    let with = |value: Value| {
        changed(FATRELU, folder.path(), |file| {
            file.set(key, value);
        })
    };
    for (value, wanted) in [
        (Value::F32(f32::NAN), "finite number"),
        (Value::F32(f32::INFINITY), "finite number"),
        (Value::F32(-0.01), "from 0 up"),
        (Value::F64(1e300), "finite number"),
        (Value::Str("0.3".to_owned()), key),
    ] {
        refused(&mut bench(&with(value), &[]), &["model.gguf", key, wanted]);
    }
    let without = changed(FATRELU, folder.path(), |file| file.keys.retain(|(k, _)| k != key));
    refused(&mut bench(&without, &[]), &["llama.hidden_activation", "needs its threshold", "fatrelu:0.01"]);
    let not_its = changed(FATRELU, folder.path(), |file| {
        file.set("llama.hidden_activation", Value::Str("relu".to_owned()));
    });
    refused(&mut bench(&not_its, &[]), &[key, "relu (from llama.hidden_activation)", "--activation fatrelu:0.3"]);
    let unnamed = changed(FATRELU, folder.path(), |file| file.keys.retain(|(k, _)| k != "llama.hidden_activation"));
    refused(&mut bench(&unnamed, &[]), &[key, "silu (from default", "--activation fatrelu:0.3"]);
    says(&unnamed, &["--activation", "fatrelu:0.3"], "activation fatrelu:0.3");
    for wrong in ["fatrelu", "fatrelu:", "fatrelu:nan", "fatrelu:-1", "fatrelu:inf", "relu:0.1", "elu"] {
        let outcome = Outcome::from(bench(&unnamed, &["--activation", wrong]).output().unwrap());
        assert_eq!(outcome.code, Some(2), "{wrong}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("fatrelu"), "{wrong}: {}", outcome.stderr);
    }
}

/// Profile, variant and all that comes of them are of the function with its threshold.
#[test]
fn a_variant_keeps_the_threshold_and_a_profile_is_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let own = tempfile::tempdir().unwrap();
    let bare = changed(FATRELU, folder.path(), without_activation);
    let other = changed(FATRELU, own.path(), |_| ());
    let profile = |model: &Path, activation: &str, to: &str| {
        let mut command = tool("profile");
        command.arg("-m").arg(model).args(["--random-tokens", "256", "-c", "64", "-o"]).arg(at(to));
        Outcome::from(command.args(["--activation", activation]).output().unwrap()).ok();
    };
    profile(&bare, "fatrelu:0.3", "a.profile");
    profile(&other, "fatrelu:0.3", "same.profile");
    assert_eq!(std::fs::read(at("a.profile")).unwrap(), std::fs::read(at("same.profile")).unwrap());
    profile(&bare, "fatrelu:0.2", "b.profile");
    let split = |args: &[&str], to: &str| {
        let mut command = tool("split");
        command
            .arg("-m")
            .arg(&bare)
            .arg("--profile")
            .arg(at("a.profile"))
            .args(args)
            .args(["--no-kl", "-o"])
            .arg(at(to));
        command
    };
    refused(&mut split(&[], "x.gguf"), &["fatrelu:0.3", "silu", "--activation"]);
    refused(&mut split(&["--activation", "fatrelu:0.2"], "x.gguf"), &["fatrelu:0.3", "fatrelu:0.2"]);
    Outcome::from(split(&["--activation", "fatrelu:0.3"], "a.gguf").output().unwrap()).ok();
    says(&at("a.gguf"), &["--mode", "exact"], "activation fatrelu:0.3 (from powerinfer.activation)");
    let mut merge = tool("profile");
    merge.arg("--merge").arg(at("a.profile")).arg(at("b.profile")).arg("-o").arg(at("c.profile"));
    refused(&mut merge, &["fatrelu:0.2", "fatrelu:0.3"]);
    // Of a file whose own keys say otherwise.
    profile(&other, "relu", "d.profile");
    let mut command = tool("split");
    command.arg("-m").arg(&other).arg("--profile").arg(at("d.profile")).args(["--activation", "relu", "--no-kl", "-o"]);
    Outcome::from(command.arg(at("d.gguf")).output().unwrap()).ok();
    says(&at("d.gguf"), &["--mode", "exact"], "activation relu (from powerinfer.activation)");
}

#[test]
fn a_list_of_models_may_have_thresholds() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.toml");
    let with = |activation: &str, threshold: &str| {
        let text = format!(
            "[[model]]\nname = \"M\"\nid = \"m\"\nmatches = []\nweights = \"a/b\"\narchitecture = \"llama\"\n\
             activation = \"{activation}\"\n{threshold}\ntemplate = \"none\"\nlicence = \"MIT\"\nverified = false\n\
             source = \"a test\"\n"
        );
        std::fs::write(&list, text).unwrap();
        let mut command = tool("run");
        command.env("HOME", folder.path()).env("XDG_CONFIG_HOME", folder.path()).arg("--models").arg(&list);
        command
    };
    let line = |activation: &str, threshold: &str| {
        let shown = Outcome::from(with(activation, threshold).arg("--list-models").output().unwrap()).ok().stdout;
        shown.lines().find(|line| line.starts_with("m ")).unwrap().to_owned()
    };
    let fits = line("fatrelu", "threshold = 0.01");
    assert!(fits.contains("fatrelu:0.01") && fits.contains("convert"), "{fits}");
    let two_masks = line("drelu", "");
    assert!(two_masks.contains("drelu") && two_masks.contains("convert"), "{two_masks}");
    let experts = line("drelu", "experts = 8");
    assert!(experts.contains("drelu") && experts.contains("convert"), "{experts}");
    for (activation, threshold, wanted) in [
        ("fatrelu", "", "needs its threshold"),
        ("fatrelu", "threshold = nan", "finite number"),
        ("fatrelu", "threshold = -1.0", "from 0 up"),
        ("elu", "", "is not known"),
    ] {
        assert!(line(activation, threshold).contains("not computed"), "{activation} {threshold}");
        refused(with(activation, threshold).args(["-m", "m", "-p", "x"]), &["m", wanted]);
    }
}
