//! Profiles of large corpora: parts, samples, comparisons, and what is refused. Interruptions: resume.rs.

use crate::support::{ModelFile, Outcome, Random, names_in, refused, tool, usage_error};
use powerinfer::profile::Profile;
use powerinfer::profile::samples::Samples;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

struct Place {
    folder: TempDir,
    model: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
        Self { folder, model }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A text of random words.
    fn text(&self, name: &str, n_words: usize) -> PathBuf {
        let mut random = Random::new(n_words as u64);
        let words = ["once", "upon", "a", "time", "dog", "ran", "to", "the", "house\n", "who"];
        let text: Vec<_> = (0..n_words).map(|_| words[random.below(words.len())]).collect();
        std::fs::write(self.at(name), text.join(" ")).unwrap();
        self.at(name)
    }

    /// Profiles `text` into `name`.
    fn profile(&self, text: &Path, name: &str, more: &[&str]) -> Command {
        let mut command = tool("profile");
        command.arg("-m").arg(&self.model).arg("-f").arg(text).arg("-o").arg(self.at(name)).args(more);
        command
    }

    fn profiled(&self, text: &Path, name: &str, more: &[&str]) -> PathBuf {
        Outcome::from(self.profile(text, name, more).output().unwrap()).ok();
        self.at(name)
    }

    fn merged(&self, name: &str, parts: &[&PathBuf]) -> PathBuf {
        Outcome::from(tool("profile").arg("--merge").args(parts).arg("-o").arg(self.at(name)).output().unwrap()).ok();
        self.at(name)
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn merged_shards_are_the_whole_run_byte_for_byte_in_any_order_and_grouping() {
    let place = Place::new();
    let corpus = place.at("corpus");
    std::fs::create_dir_all(corpus.join("more")).unwrap();
    for (name, n) in [("corpus/b.txt", 90), ("corpus/more/c.txt", 150), ("corpus/a.txt", 40), ("corpus/.hidden", 30)] {
        place.text(name, n);
    }
    let flags = ["--samples", "100", "--seed", "5", "-c", "32"];
    let with = |more: &[&'static str]| flags.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
    let whole = place.profiled(&corpus, "whole", &flags);
    let parts: Vec<_> = ["1/3", "2/3", "3/3"]
        .iter()
        .map(|shard| place.profiled(&corpus, &shard.replace('/', "-"), &with(&["--shard", shard])))
        .collect();
    let [a, b, c] = [&parts[0], &parts[1], &parts[2]];
    assert_eq!(bytes(&place.merged("abc", &[a, b, c])), bytes(&whole));
    assert_eq!(bytes(&place.merged("cab", &[c, a, b])), bytes(&whole));
    let ca = place.merged("ca", &[c, a]);
    assert_eq!(bytes(&place.merged("b-ca", &[b, &ca])), bytes(&whole));
    // The counts do not depend on samples, and files in a folder are those given one by one.
    let plain = place.profiled(&corpus, "plain", &["--seed", "5", "-c", "32", "-t", "1"]);
    assert_eq!(Profile::read(&plain).unwrap(), Profile::read(&whole).unwrap());
    let mut command = tool("profile");
    command.arg("-m").arg(&place.model).arg("-f").args(["a.txt", "b.txt", "more/c.txt"].map(|n| corpus.join(n)));
    Outcome::from(command.arg("-o").arg(place.at("listed")).args(flags).output().unwrap()).ok();
    assert_eq!(bytes(&place.at("listed")), bytes(&whole));
    // With a limit on tokens the parts are still parts of the same.
    let whole = place.profiled(&corpus, "limited", &with(&["--tokens", "500"]));
    let parts = ["1/2", "2/2"]
        .map(|shard| place.profiled(&corpus, &shard.replace('/', "+"), &with(&["--tokens", "500", "--shard", shard])));
    assert_eq!(bytes(&place.merged("both", &[&parts[1], &parts[0]])), bytes(&whole));
}

#[test]
fn samples_are_the_inputs_of_chosen_tokens() {
    let place = Place::new();
    let text = place.text("a.txt", 200);
    let path = place.profiled(&text, "p", &["--samples", "40", "-t", "2"]);
    let (samples, profile) = (Samples::read(&path).unwrap(), Profile::read(&path).unwrap());
    assert_eq!((samples.len(), samples.capacity, samples.x.len(), samples.n_embd()), (40, 40, 2, 32));
    assert!(samples.layer(1).iter().all(|x| x.is_finite()) && samples.layer(0).iter().any(|x| *x != 0.0));
    // The sets of neurons that fired are of tokens chosen by the same rule: more of them, so these are among them.
    let sets = profile.fired_sets.as_ref().unwrap();
    assert!(samples.keys.iter().all(|key| sets.keys.contains(key)));
    // What fires by the samples is what was counted as fired.
    let model = powerinfer::model::Model::new(powerinfer::gguf::Gguf::open(&place.model).unwrap(), None).unwrap();
    let gate = &model.weights.layers[1].groups[0];
    let mut row = vec![0.0; 32];
    let (mut same, mut all) = (0, 0);
    for (x, key) in samples.layer(1).chunks_exact(32).zip(&samples.keys) {
        let token = sets.keys.binary_search(key).unwrap();
        let bits = &sets.bits[token * 16 + 8..(token + 1) * 16];
        for id in 0..64 {
            powerinfer::quant::convert::dequantizer(gate.mask_matrix().dtype()).unwrap()(
                gate.mask_matrix().row(id),
                &mut row,
            );
            let fires = row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() > 0.0;
            same += usize::from(fires == (bits[id / 8] >> (id % 8) & 1 == 1));
            all += 1;
        }
    }
    assert!(same as f64 > 0.99 * all as f64, "{same} of {all}");
    // They fit under the cap, or fewer are taken; another seed chooses others, and does not mix.
    let outcome =
        Outcome::from(place.profile(&text, "few", &["--samples", "1000", "--samples-cap", "2KiB"]).output().unwrap());
    assert!(
        outcome.ok().stderr.contains("note: --samples 1000 would take 171.88 KiB; 11 fit in --samples-cap 2.00 KiB")
    );
    assert_eq!(Samples::read(&place.at("few")).unwrap().keys, samples.keys[..11]);
    refused(&mut place.profile(&text, "x", &["--samples", "1", "--samples-cap", "100B"]), &["--samples-cap 100 B"]);
    let other = place.profiled(&text, "other", &["--samples", "40", "--seed", "1"]);
    assert_ne!(Samples::read(&other).unwrap().keys, samples.keys);
    let mut command = tool("profile");
    command.arg("--merge").args([&path, &other]).arg("-o").arg(place.at("x"));
    refused(&mut command, &["other", "--seed 1", "--seed 0"]);
    assert!(!place.at("x").exists());
}

#[test]
fn reuse_and_fired_sets_agree_with_the_counts() {
    let place = Place::new();
    let profile = Profile::read(&place.profiled(&place.text("a.txt", 60), "p", &[])).unwrap();
    let sets = profile.fired_sets.as_ref().unwrap();
    assert_eq!(sets.keys.len() as u64, profile.n_tokens(), "so few tokens are all sampled");
    for layer in 0..2 {
        let fired: u64 = profile.groups[layer].fired.sum();
        let order = profile.order(layer);
        let counts = profile.cold_histogram(layer, &order, 0);
        assert_eq!(counts.iter().map(|n| u64::from(*n)).sum::<u64>(), fired);
        let cold: u64 = order[20..].iter().map(|id| profile.groups[layer].fired.get(id.0 as usize)).sum();
        assert_eq!(profile.cold_histogram(layer, &order, 20).iter().map(|n| u64::from(*n)).sum::<u64>(), cold);
        let reuse = &profile.reuse.as_ref().unwrap()[layer];
        assert_eq!(reuse.total(), fired);
        // About half of these neurons fire for a token: a cache of few never has them long enough.
        assert!(reuse.hit_rate(64, 64) > reuse.hit_rate(64, 40) && reuse.hit_rate(64, 8) == 0.0);
    }
}

#[test]
fn a_model_without_a_tokenizer_is_profiled_with_random_tokens() {
    let place = Place::new();
    let mut tiny = ModelFile::tiny();
    tiny.remove("tokenizer.");
    let model = tiny.written(place.folder.path(), "mute.gguf");
    let command = |name: &str, more: &[&str]| {
        let mut command = tool("profile");
        command.arg("-m").arg(&model).arg("-o").arg(place.at(name)).args(more);
        command
    };
    let made = |name: &str, more: &[&str]| {
        Outcome::from(command(name, more).output().unwrap()).ok();
        place.at(name)
    };
    let whole = made("whole", &["--random-tokens", "1000", "--samples", "20"]);
    let profile = Profile::read(&whole).unwrap();
    assert_eq!((profile.n_tokens(), profile.texts.len()), (1000, 1));
    let parts = ["2/2", "1/2"]
        .map(|shard| made(&shard.replace('/', "-"), &["--random-tokens", "1000", "--samples", "20", "--shard", shard]));
    assert_eq!(bytes(&place.merged("both", &[&parts[0], &parts[1]])), bytes(&whole));
    let other = Profile::read(&made("seed", &["--random-tokens", "1000", "--seed", "1"])).unwrap();
    assert_ne!(other.texts[0].sha256, profile.texts[0].sha256);
    let text = place.text("a.txt", 5);
    refused(command("x", &["-f"]).arg(&text), &["mute.gguf", "no tokenizer", "--random-tokens"]);
    refused(&mut command("x", &["--random-tokens", "0"]), &["--random-tokens 0"]);
    usage_error("profile", &["--random-tokens", "5", "-f", "x", "-o", "y"], "--random-tokens");
}

#[test]
fn profiles_are_compared_and_shown() {
    let place = Place::new();
    let a = place.profiled(&place.text("a.txt", 100), "a", &[]);
    let b = place.profiled(&place.text("b.txt", 170), "b", &[]);
    let run = |args: &[&Path]| Outcome::from(tool("profile").args(args).output().unwrap()).ok().stdout;
    let table = run(&[Path::new("--compare"), &a, &b]);
    assert!(table.contains("Jaccard") && table.contains("80 %"), "{table}");
    let same = run(&[Path::new("--compare"), &a, &a]);
    let line: Vec<_> = same.lines().find(|l| l.trim_start().starts_with("0 ")).unwrap().split_whitespace().collect();
    assert_eq!(&line[3..6], ["100.0%", "1.000", "0.00000"], "{same}");
    assert_eq!(line[6], line[7], "{same}");
    let shown = run(&[Path::new("--show"), &a]);
    assert!(shown.contains("tokens sampled") && shown.contains("99 %"), "{shown}");

    let other = ModelFile::sized(32, 96).written(place.folder.path(), "other.gguf");
    let c = place.at("c");
    let mut command = tool("profile");
    command.arg("-m").arg(other).arg("-f").arg(place.at("a.txt")).arg("-o").arg(&c);
    Outcome::from(command.output().unwrap()).ok();
    refused(tool("profile").arg("--compare").args([&a, &c]), &["c: is of a different model"]);
    refused(tool("profile").arg("--compare").args([&a, &place.at("none")]), &["none", crate::support::NO_SUCH_FILE]);
    usage_error("profile", &["--compare", "a"], "--compare");
    usage_error("profile", &["--compare", "a", "b", "-o", "c"], "--compare");
}

#[test]
fn texts_shorter_than_a_window_are_one_short_window() {
    let place = Place::new();
    let one = place.at("one.txt");
    std::fs::write(&one, "a").unwrap();
    for (text, n) in [(place.text("a.txt", 3), None), (one, Some(1))] {
        let profile = Profile::read(&place.profiled(&text, "p", &["-c", "64"])).unwrap();
        assert!(n.is_none_or(|n| profile.n_tokens() <= n + 1) && profile.n_tokens() < 64);
    }
    refused(&mut place.profile(&place.at("a.txt"), "x", &["-c", "64", "--shard", "2/2"]), &["--shard 2/2", "1 window"]);
    for wrong in ["0/2", "3/2", "x"] {
        usage_error("profile", &["-f", "a", "-o", "b", "--shard", wrong], "such as 3/8");
    }
    assert!(!place.at("x").exists());
}

#[test]
fn weights_that_give_no_numbers_are_refused() {
    let place = Place::new();
    let text = place.text("a.txt", 30);
    let with = |poke: &dyn Fn(&mut ModelFile)| {
        let mut tiny = ModelFile::tiny();
        poke(&mut tiny);
        tiny.written(place.folder.path(), "tiny.gguf");
    };
    with(&|tiny| {
        tiny.poke("blk.1.ffn_up.weight", 3, f32::NAN);
    });
    refused(&mut place.profile(&text, "x", &[]), &["tiny.gguf", "blk.1.ffn_up.weight", "NaN"]);
    // Finite, but their products are not.
    with(&|tiny| {
        for i in 0..2048 {
            tiny.poke("blk.0.ffn_gate.weight", i, 3e38 * (1.0 - 2.0 * (i % 2) as f32));
        }
    });
    let outcome = Outcome::from(place.profile(&text, "x", &["--samples", "5"]).output().unwrap());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("not finite"), "{}", outcome.stderr);
    assert!(!place.at("x").exists() && !place.at("x.part").exists());
}

#[test]
fn other_versions_and_cut_files_are_refused() {
    let place = Place::new();
    let path = place.profiled(&place.text("a.txt", 100), "p", &["--samples", "10"]);
    let whole = bytes(&path);
    let bad = place.at("bad");
    let refuse = |bytes: &[u8], wanted: &[&str]| {
        std::fs::write(&bad, bytes).unwrap();
        refused(tool("profile").arg("--show").arg(&bad), wanted);
        refused(tool("profile").arg("--compare").args([&path, &bad]), wanted);
        refused(tool("profile").arg("--merge").args([&path, &bad]).arg("-o").arg(place.at("x")), wanted);
    };
    let mut newer = whole.clone();
    newer[8] = 9;
    refuse(&newer, &["bad", "version 9", "1, 2 and 3"]);
    // The samples are last: without the end of them nothing is shown, though they are not read.
    refuse(&whole[..whole.len() - 1], &["bad", "cut short"]);
    refuse(&whole[..whole.len() / 2], &["bad", "cut short"]);
    let mut long = whole.clone();
    long.push(0);
    refuse(&long, &["bad", "1 bytes follow"]);
    let mut random = Random::new(3);
    let samples_begin = whole.len() - 10 * (48 + 2 * 32 * 2) - 28;
    for _ in 0..20 {
        let mut flipped = whole.clone();
        flipped[random.below(samples_begin)] ^= 1 << random.below(8);
        refuse(&flipped, &["bad"]);
    }
    let mut flipped = whole.clone();
    flipped[samples_begin + 200] ^= 1;
    std::fs::write(&bad, &flipped).unwrap();
    Outcome::from(tool("profile").arg("--show").arg(&bad).output().unwrap()).ok();
    refused(tool("profile").arg("--merge").arg(&bad).arg("-o").arg(place.at("x")), &["bad", "samp"]);
    assert_eq!(names_in(place.folder.path()), ["a.txt", "bad", "p", "tiny.gguf"]);
}
