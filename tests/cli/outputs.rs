//! What the commands write: FIFOs, links, limits of the system, names in errors, and what is refused before long work.
#![cfg(unix)]

use crate::support::{ModelFile, Outcome, make_fifo, model_and_text, names_in, refused, sh, tool};
use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

struct Place {
    folder: TempDir,
    model: PathBuf,
    text: PathBuf,
}

impl Place {
    fn new() -> Self {
        let (folder, model, text) = model_and_text(&"once upon a time a dog ran to the house\n".repeat(40));
        Self { folder, model, text }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn fifo(&self, name: &str) -> PathBuf {
        make_fifo(&self.at(name));
        self.at(name)
    }

    fn profile(&self, out: &Path) -> Command {
        let mut command = tool("profile");
        command.arg("-m").arg(&self.model).arg("-f").arg(&self.text).arg("-o").arg(out).args(["-t", "1"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn profiled(&self) -> PathBuf {
        let out = self.at("tiny.profile");
        Outcome::from(self.profile(&out).args(["--samples", "300"]).output().unwrap()).ok();
        out
    }

    fn split(&self, profile: &Path, out: &Path) -> Command {
        let mut command = tool("split");
        command.arg("-m").arg(&self.model).arg("--profile").arg(profile).arg("-o").arg(out).args(["-t", "1"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A command for each kind of output, with the name of the file that it writes to `out`.
    fn writers(&self, out: &Path) -> Vec<(&'static str, Command)> {
        let profile = self.profiled();
        let mut merged = tool("profile");
        merged.arg("--merge").arg(&profile).arg("-o").arg(out);
        let mut plot = tool("profile");
        plot.arg("--show").arg(&profile).arg("--plot").arg(out);
        let mut quantized = tool("split");
        quantized.arg("-m").arg(&self.model).args(["--type", "q8_0", "--quantize-only", "-t", "1", "-o"]).arg(out);
        let mut predictor = tool("profile");
        predictor.arg("-m").arg(&self.model).arg("--samples-from").arg(&profile).arg("-o").arg(out);
        predictor.args(["--predictor", "sign", "-t", "1"]);
        let list = [
            ("profile", self.profile(out)),
            ("merged", merged),
            ("plot", plot),
            ("variant", self.split(&profile, out)),
            ("quantized", quantized),
            ("predictor", predictor),
        ];
        list.into_iter().collect()
    }
}

/// Waits for the command, which must end soon.
#[track_caller]
fn ended(mut child: Child) -> Outcome {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap().into()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_fifo_gets_what_a_file_would() {
    let place = Place::new();
    let (file, fifo) = (place.at("file"), place.fifo("fifo"));
    for ((name, mut to_file), (_, mut to_fifo)) in place.writers(&file).into_iter().zip(place.writers(&fifo)) {
        Outcome::from(to_file.output().unwrap()).ok();
        let wanted = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let child = to_fifo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let read = std::thread::spawn({
            let fifo = fifo.clone();
            move || std::fs::read(fifo).unwrap()
        });
        ended(child).ok();
        assert!(read.join().unwrap() == wanted, "{name}");
    }
    assert_eq!(names_in(place.folder.path()), ["fifo", "story.txt", "tiny.gguf", "tiny.profile"]);
}

#[test]
fn a_reader_that_is_there_already_sees_the_fifo_end_once() {
    let place = Place::new();
    let (file, fifo) = (place.at("file"), place.fifo("fifo"));
    Outcome::from(place.profile(&file).output().unwrap()).ok();
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || std::fs::read(fifo).unwrap()
    });
    std::thread::sleep(Duration::from_millis(100));
    ended(place.profile(&fifo).spawn().unwrap()).ok();
    assert!(reader.join().unwrap() == std::fs::read(&file).unwrap());
}

#[test]
fn waiting_for_a_reader_ends_with_a_signal() {
    let place = Place::new();
    let fifo = place.fifo("fifo");
    for (name, mut command) in place.writers(&fifo) {
        for sent in ["-INT", "-TERM"] {
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            // Long enough to be waiting, though it is no matter.
            std::thread::sleep(Duration::from_millis(400));
            signal(&child, sent);
            let outcome = ended(child);
            // On a machine that is too busy SIGTERM ends the program before it says so.
            let late = sent == "-TERM" && outcome.code == Some(143);
            assert!(late || outcome.code == Some(130), "{name} {sent}: {:?} {}", outcome.code, outcome.stderr);
            assert!(late || outcome.stderr.ends_with("interrupted\n"), "{name}: {}", outcome.stderr);
        }
    }
}

#[test]
fn a_reader_that_stops_reading_is_not_waited_for_beyond_a_signal() {
    let place = Place::new();
    let (profile, fifo) = (place.profiled(), place.fifo("fifo"));
    // More than a pipe holds.
    let model = ModelFile::sized(32, 8192).written(place.folder.path(), "wide.gguf");
    let mut command = tool("split");
    command.arg("-m").arg(&model).args(["--type", "q8_0", "--quantize-only", "-t", "1", "-o"]).arg(&fifo);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let reader = File::open(&fifo).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    signal(&child, "-INT");
    assert_eq!(ended(child).code, Some(130));
    drop(reader);
    // One that leaves is an error, unlike one that leaves standard output.
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(File::open(&fifo).unwrap());
    let outcome = ended(child);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let wanted = format!("error: {}: cannot be written: Broken pipe", fifo.display());
    assert!(outcome.stderr.contains(&wanted), "{}", outcome.stderr);
    drop(profile);
}

#[test]
fn a_limit_on_the_size_of_files_is_one_line_and_leaves_none() {
    let place = Place::new();
    let profile = place.profiled();
    let out = place.at("out");
    std::fs::write(&out, "old").unwrap();
    let cache = place.at("cache");
    let arguments = [Path::new("sh"), &place.model, &profile, &place.text, &out, &cache];
    for work in [
        "\"$PROFILE\" -m \"$1\" -f \"$3\" -o \"$4\" -t 1",
        "\"$PROFILE\" --merge \"$2\" -o \"$4\"",
        "\"$PROFILE\" --show \"$2\" --plot \"$4\"",
        "\"$PROFILE\" -m \"$1\" --samples-from \"$2\" --predictor sign -o \"$4\" -t 1",
        "\"$SPLIT\" -m \"$1\" --profile \"$2\" -o \"$4\" -t 1",
        "\"$SPLIT\" -m \"$1\" --type q8_0 --quantize-only -o \"$4\" -t 1",
        "\"$BENCH\" --synthetic test-2 --cache-dir \"$5\" -p 4 -n 0 -r 1 -t 1 --device cpu",
    ] {
        let outcome = Outcome::from(sh(&format!("ulimit -f 1; exec {work}"), &arguments).output().unwrap());
        assert_eq!(outcome.code, Some(1), "{work}: {}", outcome.stderr);
        let line = outcome.stderr.lines().last().unwrap();
        let file = if work.contains("$5") { cache.join("synthetic-test-") } else { out.clone() };
        assert!(line.starts_with(&format!("error: {}", file.display())), "{work}: {line}");
        assert!(line.contains("cannot be written: File too large"), "{work}: {line}");
    }
    assert_eq!(names_in(&cache), Vec::<String>::new());
    assert_eq!(std::fs::read(&out).unwrap(), b"old");
    assert_eq!(names_in(place.folder.path()), ["cache", "out", "story.txt", "tiny.gguf", "tiny.profile"]);
}

#[test]
fn links_are_followed_also_to_what_does_not_exist_yet() {
    let place = Place::new();
    std::fs::create_dir(place.at("there")).unwrap();
    symlink("there/new", place.at("link")).unwrap();
    symlink("link", place.at("link2")).unwrap();
    for (name, mut command) in place.writers(&place.at("link2")) {
        Outcome::from(command.output().unwrap()).ok();
        assert!(place.at("there/new").is_file(), "{name}");
        assert!(place.at("link").is_symlink() && place.at("link2").is_symlink(), "{name}");
        std::fs::remove_file(place.at("there/new")).unwrap();
    }
    assert_eq!(names_in(&place.at("there")), Vec::<String>::new());
    symlink("loop", place.at("loop")).unwrap();
    symlink("no/such/folder/x", place.at("lost")).unwrap();
    for (given, wanted) in [
        ("loop", "Too many levels of symbolic links"),
        ("lost", "no/such/folder/x): cannot be written"),
        ("there", "is a folder"),
        ("there/", "is a folder"),
        ("none/", "names a folder"),
        ("none/..", "names a folder"),
        ("story.txt/x", "Not a directory"),
        ("none/x", "No such file"),
    ] {
        // Before long work: neither the model nor the text is looked at.
        let out = format!("{}/{given}", place.folder.path().display());
        let wanted = [&*out, wanted];
        refused(tool("profile").args(["-m", "none.gguf", "-f", "none.txt", "-o", &out]), &wanted);
        refused(tool("profile").args(["--show", "none.profile", "--plot", &out]), &wanted);
        refused(tool("profile").args(["--merge", "none.profile", "-o", &out]), &wanted);
        refused(tool("split").args(["-m", "none.gguf", "--profile", "none.profile", "-o", &out]), &wanted);
        refused(tool("bench").args(["--measure-hardware", &out]), &wanted);
    }
}

#[test]
fn an_output_that_is_an_input_is_refused_by_whatever_link() {
    let place = Place::new();
    let profile = place.profiled();
    for (n, input) in [&place.model, &place.text, &profile].into_iter().enumerate() {
        let (hard, soft) = (place.at(&format!("hard{n}")), place.at(&format!("soft{n}")));
        std::fs::hard_link(input, &hard).unwrap();
        symlink(input, &soft).unwrap();
        let before = std::fs::read(input).unwrap();
        for out in [input, &hard, &soft] {
            let wanted = [&*out.display().to_string(), "is an input and would be overwritten"];
            if n < 2 {
                refused(&mut place.profile(out), &wanted);
                refused(place.profile(&place.at("out")).arg("--plot").arg(out), &wanted);
            } else {
                refused(tool("profile").arg("--merge").arg(&profile).arg("-o").arg(out), &wanted);
                refused(tool("profile").arg("--show").arg(&profile).arg("--plot").arg(out), &wanted);
            }
            if n != 1 {
                refused(&mut place.split(&profile, out), &wanted);
            }
        }
        assert!(std::fs::read(input).unwrap() == before);
    }
    // One file for two outputs.
    let (one, two) = (place.at("new"), place.folder.path().join("./new"));
    refused(place.profile(&one).arg("--plot").arg(&two), &["name the same file"]);
    symlink("new", place.at("link")).unwrap();
    refused(place.profile(&one).arg("--plot").arg(place.at("link")), &["name the same file"]);
}

#[test]
fn a_text_in_a_folder_is_not_overwritten_and_a_former_output_is() {
    let place = Place::new();
    let corpus = place.at("corpus");
    std::fs::create_dir(&corpus).unwrap();
    std::fs::write(corpus.join("a.txt"), "once upon a time").unwrap();
    std::fs::write(corpus.join("b.txt"), "there was a dog").unwrap();
    let command = |out: &str, plot: &str| {
        let mut command = tool("profile");
        command.arg("-m").arg(&place.model).arg("-f").arg(&corpus).arg("-o").arg(corpus.join(out));
        command.arg("--plot").arg(corpus.join(plot)).args(["-t", "1"]);
        command
    };
    refused(&mut command("b.txt", "p.png"), &["corpus/b.txt: is one of the texts in", "overwritten"]);
    refused(&mut command("out", "a.txt"), &["corpus/a.txt: is one of the texts in", "overwritten"]);
    Outcome::from(command("out", "p.png").output().unwrap()).ok();
    let first = std::fs::read(corpus.join("out")).unwrap();
    Outcome::from(command("out", "p.png").output().unwrap()).ok();
    assert!(first == std::fs::read(corpus.join("out")).unwrap());
    assert_eq!(names_in(&corpus), ["a.txt", "b.txt", "out", "p.png"]);
}

#[test]
fn devices_are_written_to_as_they_are() {
    let place = Place::new();
    let profile = place.profiled();
    for (name, mut command) in place.writers(Path::new("/dev/null")) {
        let outcome = Outcome::from(command.output().unwrap()).ok();
        assert!(!outcome.stderr.contains("error"), "{name}: {}", outcome.stderr);
    }
    assert!(!Path::new("/dev/null").is_file());
    #[cfg(target_os = "linux")]
    for (name, mut command) in place.writers(Path::new("/dev/full")) {
        let line = refused(&mut command, &["/dev/full: cannot be written: No space left"]);
        assert!(line.starts_with("error: /dev/full"), "{name}: {line}");
    }
    let socket = place.at("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    refused(&mut place.split(&profile, &socket), &["socket: cannot be written: is a socket"]);
    assert_eq!(names_in(place.folder.path()), ["socket", "story.txt", "tiny.gguf", "tiny.profile"]);
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_killed_leaves_no_temporary_file_behind_the_next_writer() {
    let place = Place::new();
    let out = place.at("out");
    let large = ModelFile::sized(32, 8192).written(place.folder.path(), "large.gguf");
    let mut command = tool("split");
    command.arg("-m").arg(&large).args(["--type", "q8_0", "--quantize-only", "-t", "1", "-o"]).arg(&out);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let begun = Instant::now();
    Outcome::from(command.output().unwrap()).ok();
    let once = begun.elapsed();
    let whole = std::fs::read(&out).unwrap();
    // Two at a time, so that they might take each other's files away.
    for i in 0..8u32 {
        let (mut killed, other) = (command.spawn().unwrap(), command.spawn().unwrap());
        std::thread::sleep(once.mul_f64(0.25 * f64::from(i)));
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert!(std::fs::read(&out).unwrap() == whole, "a part of a file");
        ended(other).ok();
        assert!(std::fs::read(&out).unwrap() == whole, "a part of a file");
    }
    // As another system leaves them, which has no files without names.
    std::fs::write(place.at(".outAbc123.partial"), "part").unwrap();
    Outcome::from(command.output().unwrap()).ok();
    assert_eq!(names_in(place.folder.path()), ["large.gguf", "out", "story.txt", "tiny.gguf"]);
}
