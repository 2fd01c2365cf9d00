//! profile, split, run: the whole way on a tiny model, and what is refused on it.

use crate::support::{ModelFile, Outcome, Value, model_and_text, names_in, refused, tool};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const STORY: &str = "once upon a time there was a little dog who liked to run\n";

struct Place {
    folder: TempDir,
    model: PathBuf,
    text: PathBuf,
}

impl Place {
    fn new() -> Self {
        let (folder, model, text) = model_and_text(&STORY.repeat(6));
        Self { folder, model, text }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn profile(&self, text: &Path, out: &Path) -> Command {
        let mut command = tool("profile");
        command.arg("-m").arg(&self.model).arg("-f").arg(text).arg("-o").arg(out);
        command
    }

    /// A profile of that name over the story.
    fn profiled(&self, name: &str) -> PathBuf {
        let out = self.at(name);
        Outcome::from(self.profile(&self.text, &out).output().unwrap()).ok();
        out
    }

    fn split(&self, profile: &Path, out: &Path) -> Command {
        let mut command = tool("split");
        command.arg("-m").arg(&self.model).arg("--profile").arg(profile).arg("-o").arg(out).args(["-t", "2"]);
        command
    }

    fn story(&self, model: &Path, mode: &str) -> String {
        let mut command = tool("run");
        let args = ["-p", "once", "-n", "20", "--temp", "0", "--ignore-eos", "-t", "1", "--mode", mode];
        Outcome::from(command.arg("-m").arg(model).args(args).output().unwrap()).ok().stdout
    }
}

#[test]
fn a_model_is_profiled_split_and_run() {
    let place = Place::new();
    let profile = place.profiled("tiny.profile");
    let variant = place.at("variant.gguf");
    let outcome = Outcome::from(place.split(&profile, &variant).output().unwrap()).ok();
    assert!(outcome.stdout.contains("variant.gguf"), "{}", outcome.stdout);
    let expected = place.story(&place.model, "dense");
    for (model, mode) in [(&place.model, "exact"), (&variant, "dense"), (&variant, "exact")] {
        assert_eq!(place.story(model, mode), expected, "{} {mode}", model.display());
    }
    let quantized = place.at("q8.gguf");
    let outcome = Outcome::from(place.split(&profile, &quantized).args(["--type", "q8_0"]).output().unwrap()).ok();
    assert!(outcome.stdout.contains("KL to the source"), "{}", outcome.stdout);
    assert_eq!(place.story(&quantized, "exact"), place.story(&quantized, "dense"));
    refused(
        place.split(&profile, &place.at("x")).args(["--down", "lossless"]),
        &["tiny.gguf", "--down is for quantized sources"],
    );
    // A variant can be profiled, and its counts are added to those of the model.
    let again = place.at("again.profile");
    let mut command = tool("profile");
    command.arg("-m").arg(&variant).arg("-f").arg(&place.text).arg("-o").arg(&again);
    Outcome::from(command.output().unwrap()).ok();
    let mut command = tool("profile");
    command.arg("--merge").arg(&profile).arg(&again).arg("-o").arg(place.at("both.profile"));
    Outcome::from(command.output().unwrap()).ok();
    refused(
        tool("split").arg("-m").arg(&variant).arg("--profile").arg(&profile).arg("-o").arg(place.at("x")),
        &["variant.gguf", "is a variant already"],
    );
    let left = names_in(place.folder.path());
    let expected =
        ["again.profile", "both.profile", "q8.gguf", "story.txt", "tiny.gguf", "tiny.profile", "variant.gguf"];
    assert_eq!(left, expected, "nothing temporary is left");
}

#[test]
fn a_profile_has_the_same_bytes_whatever_the_threads() {
    let place = Place::new();
    let made = |threads: &str| {
        let out = place.at(&format!("{threads}.profile"));
        Outcome::from(place.profile(&place.text, &out).args(["-t", threads]).output().unwrap()).ok();
        std::fs::read(out).unwrap()
    };
    let one = made("1");
    assert_eq!(one, made("2"));
    assert_eq!(one, made("5"));
}

#[test]
fn merging_gives_the_same_bytes_in_any_order_and_grouping() {
    let place = Place::new();
    let texts = ["a dog ran", "the cat sat on a mat", "once there was one who was here"];
    let profiles: Vec<_> = (0..3)
        .map(|i| {
            let (text, out) = (place.at(&format!("{i}.txt")), place.at(&format!("{i}.profile")));
            std::fs::write(&text, texts[i]).unwrap();
            Outcome::from(place.profile(&text, &out).output().unwrap()).ok();
            out
        })
        .collect();
    let merged = |name: &str, parts: &[&PathBuf]| {
        let out = place.at(name);
        Outcome::from(tool("profile").arg("--merge").args(parts).arg("-o").arg(&out).output().unwrap()).ok();
        out
    };
    let bytes = |path: &PathBuf| std::fs::read(path).unwrap();
    let [a, b, c] = [&profiles[0], &profiles[1], &profiles[2]];
    let (ab, ba) = (merged("ab", &[a, b]), merged("ba", &[b, a]));
    assert_eq!(bytes(&ab), bytes(&ba));
    let (bc, abc) = (merged("bc", &[b, c]), merged("abc", &[a, b, c]));
    assert_eq!(bytes(&merged("ab-c", &[&ab, c])), bytes(&abc));
    assert_eq!(bytes(&merged("a-bc", &[a, &bc])), bytes(&abc));
    // Texts together in one go are the same as merged one by one.
    let all = place.at("all.profile");
    let mut command = tool("profile");
    command.arg("-m").arg(&place.model).arg("-f").args(["0.txt", "1.txt", "2.txt"].map(|t| place.at(t)));
    Outcome::from(command.arg("-o").arg(&all).output().unwrap()).ok();
    assert_eq!(bytes(&all), bytes(&abc));
}

#[test]
fn a_profile_is_shown_and_drawn() {
    let place = Place::new();
    let (profile, plot) = (place.profiled("tiny.profile"), place.at("plot.png"));
    let mut command = tool("profile");
    let outcome = Outcome::from(command.arg("--show").arg(&profile).arg("--plot").arg(&plot).output().unwrap()).ok();
    assert!(outcome.stdout.contains("tiny") && outcome.stdout.contains("relu"), "{}", outcome.stdout);
    assert!(std::fs::read(&plot).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn texts_that_cannot_be_profiled_are_refused_and_leave_no_file() {
    let place = Place::new();
    let out = place.at("out.profile");
    let text = |name: &str, bytes: &[u8]| {
        std::fs::write(place.at(name), bytes).unwrap();
        place.at(name)
    };
    refused(&mut place.profile(&text("empty.txt", b""), &out), &["empty.txt", "the text is empty"]);
    refused(&mut place.profile(&text("blank.txt", b" \n\n "), &out), &["blank.txt", "the text is empty"]);
    refused(&mut place.profile(&text("latin.txt", b"caf\xe9 au lait"), &out), &["latin.txt", "not UTF-8 (byte 3)"]);
    refused(&mut place.profile(&place.at("none.txt"), &out), &["none.txt", crate::support::NO_SUCH_FILE]);
    refused(place.profile(&place.text, &out).args(["--tokens", "0"]), &["--tokens 0"]);
    for n_ctx in ["0", "1"] {
        refused(place.profile(&place.text, &out).args(["-c", n_ctx]), &[&format!("-c {n_ctx}")]);
    }
    refused(place.profile(&place.text, &out).args(["-t", "0"]), &["-t 0"]);
    refused(place.profile(&place.text, &out).args(["-t", "100000"]), &["-t 100000"]);
    assert!(!out.exists());
}

#[test]
fn a_profile_of_another_model_is_refused() {
    let place = Place::new();
    let profile = place.profiled("tiny.profile");
    let mut other = ModelFile::sized(32, 96);
    other.set("general.name", Value::Str("other".into()));
    let mut reweighted = ModelFile::tiny();
    (0..64 * 32).for_each(|i| {
        reweighted.poke("blk.1.ffn_gate.weight", i, (i % 7) as f32 - 3.0);
    });
    let out = place.at("out.gguf");
    for model in [other.written(place.folder.path(), "other.gguf"), reweighted.written(place.folder.path(), "re.gguf")]
    {
        let mut command = tool("split");
        command.arg("-m").arg(&model).arg("--profile").arg(&profile).arg("-o").arg(&out);
        refused(&mut command, &[&model.display().to_string(), "the profile is of"]);
        let theirs = place.at("theirs.profile");
        let mut command = tool("profile");
        command.arg("-m").arg(&model).arg("-f").arg(&place.text).arg("-o").arg(&theirs);
        Outcome::from(command.output().unwrap()).ok();
        let mut command = tool("profile");
        command.arg("--merge").arg(&profile).arg(&theirs).arg("-o").arg(place.at("both"));
        refused(&mut command, &["theirs.profile", "was made with"]);
    }
    refused(place.split(&profile, &out).args(["--activation", "silu"]), &["activation"]);
    assert!(!out.exists() && !place.at("both").exists());
}

#[test]
fn damaged_profiles_are_refused() {
    let place = Place::new();
    let bytes = std::fs::read(place.profiled("good.profile")).unwrap();
    let (bad, out) = (place.at("bad.profile"), place.at("out"));
    let mut flipped = bytes.clone();
    flipped[100] ^= 1;
    let mut long = bytes.clone();
    long.push(0);
    for damaged in [&[][..], b"garbage, not a profile", &bytes[..8], &bytes[..11], &bytes[..50], &flipped, &long] {
        std::fs::write(&bad, damaged).unwrap();
        refused(&mut place.split(&bad, &out), &["bad.profile"]);
        refused(tool("profile").arg("--show").arg(&bad), &["bad.profile"]);
        refused(tool("profile").arg("--merge").arg(&bad).arg("-o").arg(&out), &["bad.profile"]);
    }
    refused(&mut place.split(place.folder.path(), &out), &["irectory"]);
    assert!(!out.exists());
}

#[test]
fn a_large_file_given_as_a_profile_is_not_read_into_memory() {
    let place = Place::new();
    let large = place.at("model.gguf");
    std::fs::write(&large, b"GGUF").unwrap();
    std::fs::File::options().write(true).open(&large).unwrap().set_len(2 << 30).unwrap();
    refused(&mut place.split(&large, &place.at("out")), &["model.gguf", "is not an activation profile"]);
}

#[test]
fn an_output_that_cannot_be_written_is_refused_and_nothing_is_left() {
    let place = Place::new();
    let profile = place.profiled("tiny.profile");
    let missing = place.at("no/such/folder/out");
    refused(&mut place.profile(&place.text, &missing), &["no/such/folder/out", crate::support::NO_SUCH_FILE]);
    refused(&mut place.split(&profile, &missing), &["no/such/folder/out", crate::support::NO_SUCH_FILE]);
    let target = place.at("folder");
    std::fs::create_dir(&target).unwrap();
    refused(&mut place.profile(&place.text, &target), &["folder", "is a folder"]);
    refused(&mut place.split(&profile, &target), &["folder", "is a folder"]);
    let plot = tool("profile").arg("--show").arg(&profile).arg("--plot").arg(place.at("no/plot.png")).output();
    assert_eq!(Outcome::from(plot.unwrap()).code, Some(1));
    assert_eq!(names_in(&target).len(), 0);
    assert_eq!(names_in(place.folder.path()), ["folder", "story.txt", "tiny.gguf", "tiny.profile"]);
}

/// In a mount namespace of its own, so that nothing stays mounted; 77 is how the script says that it cannot.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_line_and_leaves_no_file() {
    use crate::support::{sh, skipped};
    let place = Place::new();
    let mut wide = ModelFile::sized(32, 4096);
    wide.set("general.name", Value::Str("wide".into()));
    let model = wide.written(place.folder.path(), "wide.gguf");
    let profile = place.at("wide.profile");
    let mut command = tool("profile");
    command.arg("-m").arg(&model).arg("-f").arg(&place.text).arg("-o").arg(&profile).args(["--tokens", "8"]);
    Outcome::from(command.output().unwrap()).ok();
    let disk = place.at("disk");
    std::fs::create_dir(&disk).unwrap();
    for work in [
        "\"$SPLIT\" -m \"$2\" --profile \"$3\" -o \"$1/out\" -t 1",
        "\"$PROFILE\" -m \"$2\" -f \"$4\" -o \"$1/out\" -t 1 --tokens 8",
    ] {
        let script =
            "mount -t tmpfs -o size=64k tmpfs \"$1\" || exit 77; WORK; code=$?; echo left: $(ls -A \"$1\"); exit $code";
        let script = format!("exec unshare -rm sh -c '{}' \"$@\"", script.replace("WORK", work));
        let arguments = [Path::new("sh"), Path::new("sh"), &disk, &model, &profile, &place.text];
        let outcome = Outcome::from(sh(&script, &arguments).output().unwrap());
        if outcome.code == Some(77) || outcome.stderr.contains("unshare") {
            skipped(&format!("no small disk can be mounted here ({})", outcome.stderr.trim()));
            return;
        }
        assert_eq!(outcome.code, Some(1), "{}\n{}", outcome.stdout, outcome.stderr);
        let line = outcome.stderr.lines().last().unwrap();
        assert!(line.starts_with("error: ") && line.contains("disk/out"), "{line}");
        assert!(line.contains("No space left"), "{line}");
        assert!(outcome.stdout.ends_with("left:\n"), "{}", outcome.stdout);
    }
}

#[test]
fn a_profile_whose_layers_are_not_the_models_is_refused() {
    let place = Place::new();
    let path = place.profiled("tiny.profile");
    let mut profile = powerinfer::profile::Profile::read(&path).unwrap();
    let n = profile.groups[0].fired.len() - 1;
    profile.groups[0] = powerinfer::profile::GroupCounts::new(n, false);
    // These would contradict the counts, which is found out sooner.
    (profile.reuse, profile.fired_sets, profile.unions) = (None, None, None);
    let short = place.at("short.profile");
    profile.write(&short).unwrap();
    let out = place.at("out.gguf");
    refused(&mut place.split(&short, &out), &["tiny.gguf", "layers"]);
    assert!(!out.exists());
    let both = place.at("both.profile");
    refused(tool("profile").arg("--merge").arg(&path).arg(&short).arg("-o").arg(&both), &["short.profile", "layers"]);
    assert!(!both.exists());
}

#[test]
fn a_limit_on_tokens_is_shared_between_the_texts() {
    let place = Place::new();
    let second = place.at("second.txt");
    std::fs::write(&second, STORY.repeat(8)).unwrap();
    let out = place.at("two.profile");
    let mut command = place.profile(&place.text, &out);
    Outcome::from(command.arg("-f").arg(&second).args(["--tokens", "41"]).output().unwrap()).ok();
    let texts = powerinfer::profile::Profile::read(&out).unwrap().texts;
    let mut counted: Vec<_> = texts.iter().map(|t| t.n_tokens).collect();
    counted.sort();
    assert_eq!(counted, [20, 21]);
}

#[test]
fn an_input_is_never_overwritten_and_outputs_do_not_collide() {
    let place = Place::new();
    let profile = place.profiled("tiny.profile");
    let model = place.model.clone();
    refused(&mut place.profile(&place.text, &place.text), &["story.txt", "overwritten"]);
    refused(&mut place.split(&profile, &model), &["tiny.gguf", "overwritten"]);
    let both = place.at("both");
    refused(place.profile(&place.text, &both).arg("--plot").arg(&both), &["--plot", "same file"]);
    assert_eq!(std::fs::read_to_string(&place.text).unwrap(), STORY.repeat(6));
}
