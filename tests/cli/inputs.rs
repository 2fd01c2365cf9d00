//! What the commands read: things that are no regular files, texts from anywhere, limits, and files that change.
#![cfg(unix)]

use crate::support::{Outcome, make_fifo, model_and_text, refused, tool};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const STORY: &str = "once upon a time a dog ran to the house\n";
/// For what must not be read to its end. Generous, since tests share the machine.
const SOON: Duration = Duration::from_secs(10);

struct Place {
    folder: TempDir,
    model: PathBuf,
    text: PathBuf,
}

impl Place {
    fn new() -> Self {
        let (folder, model, text) = model_and_text(&STORY.repeat(20));
        Self { folder, model, text }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn fifo(&self, name: &str) -> PathBuf {
        make_fifo(&self.at(name));
        self.at(name)
    }

    fn tool(&self, name: &str, args: &[&str]) -> Command {
        let mut command = tool(name);
        command.arg("-m").arg(&self.model).args(["-t", "1"]).args(args);
        command
    }

    fn profiled(&self) -> PathBuf {
        let out = self.at("tiny.profile");
        let mut command = self.tool("profile", &["--samples", "20", "-f"]);
        Outcome::from(command.arg(&self.text).arg("-o").arg(&out).output().unwrap()).ok();
        out
    }

    /// Commands that read a text, each with what it is called by.
    fn readers(&self, text: &Path) -> Vec<Command> {
        let with = |name, args: &[&str]| {
            let mut command = self.tool(name, args);
            command.arg(text);
            command
        };
        let mut profile = with("profile", &["-f"]);
        profile.arg("-o").arg(self.at("out"));
        let mut all = vec![
            with("run", &["-n", "1", "-f"]),
            with("run", &["--tokenize", "-f"]),
            with("run", &["-i", "-n", "1", "-f"]),
            with("bench", &["-c", "16", "--chunks", "1", "--perplexity"]),
            with("bench", &["-c", "16", "--chunks", "1", "--kl"]),
            with("bench", &["-p", "4", "-n", "0", "-r", "1", "--text"]),
        ];
        all.push(profile);
        all
    }
}

/// Runs a command with `input` on its standard input, which it need not read.
fn feed(command: &mut Command, input: &[u8]) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let outcome = child.wait_with_output().unwrap().into();
    writer.join().unwrap();
    outcome
}

#[test]
fn what_cannot_be_mapped_says_what_it_is_and_is_not_waited_for() {
    let place = Place::new();
    let (profile, text) = (place.profiled(), place.text.clone());
    // Nobody ever writes to it.
    let (fifo, socket, folder) = (place.fifo("fifo"), place.at("socket"), place.at("folder"));
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let out = place.at("out");
    for (path, kind) in [
        (&*fifo, "is a FIFO"),
        (&socket, "is a socket"),
        (&folder, "is a folder"),
        (Path::new("/dev/zero"), "is a character device"),
    ] {
        let shown = format!("{}: ", path.display());
        let wanted = [&*shown, kind, "give a regular file"];
        refused(tool("run").args(["-p", "x", "-m"]).arg(path), &wanted);
        refused(tool("run").args(["--dry-run", "-m"]).arg(path), &wanted);
        refused(tool("run").args(["-p", "x", "--tokenize", "-m"]).arg(path), &wanted);
        refused(tool("bench").arg("-m").arg(path), &wanted);
        refused(tool("profile").arg("-f").arg(&text).arg("-o").arg(&out).arg("-m").arg(path), &wanted);
        refused(tool("split").arg("--profile").arg(&profile).arg("-o").arg(&out).arg("-m").arg(path), &wanted);
        refused(place.tool("split", &["--profile"]).arg(path).arg("-o").arg(&out), &wanted);
        refused(place.tool("split", &["--predictor"]).arg(path).arg("-o").arg(&out), &wanted);
        refused(place.tool("bench", &["--hardware"]).arg(path), &wanted);
        refused(place.tool("bench", &["-c", "16", "--kl"]).arg(&text).arg("--kl-base").arg(path), &wanted);
        refused(tool("profile").arg("--show").arg(path), &wanted);
        refused(tool("profile").arg("--compare").arg(&profile).arg(path), &wanted);
        refused(tool("profile").arg("--merge").args([&profile, path]).arg("-o").arg(&out), &wanted);
        let mut predictor = place.tool("profile", &["--predictor", "sign", "--samples-from"]);
        refused(predictor.arg(path).arg("-o").arg(&out), &wanted);
    }
    assert!(!out.exists());
}

#[test]
fn a_text_comes_from_a_fifo_or_standard_input_as_from_a_file() {
    let place = Place::new();
    std::fs::write(&place.text, STORY).unwrap();
    let text = std::fs::read(&place.text).unwrap();
    let fifo = place.fifo("fifo");
    // Without what is measured, or says where the text came from.
    let said = |outcome: Outcome, source: &str| {
        let out = outcome.ok().stdout;
        let lines = out.lines().filter(|line| !line.starts_with('|'));
        lines.map(|line| line.replace(source, "SOURCE")).collect::<Vec<_>>()
    };
    let [file, pipe, input] = [&*place.text, &fifo, Path::new("-")].map(|path| place.readers(path));
    for ((mut file, mut pipe), mut input) in file.into_iter().zip(pipe).zip(input) {
        let seeded = |command: &mut Command| {
            if format!("{command:?}").contains("powerinfer-run") {
                command.args(["--seed", "1"]);
            }
        };
        [&mut file, &mut pipe, &mut input].into_iter().for_each(seeded);
        let wanted = said(file.output().unwrap().into(), "story.txt");
        let out = place.at("out");
        let written = std::fs::read(&out).ok();
        let child = pipe.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::fs::write(&fifo, &text).unwrap();
        assert_eq!(said(child.wait_with_output().unwrap().into(), "fifo"), wanted, "{pipe:?}");
        assert_eq!(std::fs::read(&out).ok(), written, "{pipe:?}");
        assert_eq!(said(feed(&mut input, &text), "standard input"), wanted, "{input:?}");
        assert_eq!(std::fs::read(&out).ok(), written, "{input:?}");
    }
    let mut both = place.tool("bench", &["-c", "16", "--perplexity", "-", "--kl", "-"]);
    let outcome = feed(&mut both, &text);
    assert!(outcome.stderr.contains("error: standard input: is given twice"), "{}", outcome.stderr);
    let mut both = place.tool("profile", &["-f", "-", "-", "-o"]);
    let outcome = feed(both.arg(place.at("twice")), &text);
    assert!(outcome.stderr.contains("error: standard input: is given twice"), "{}", outcome.stderr);
    assert!(!place.at("twice").exists());
    let rows = feed(&mut place.tool("bench", &["-c", "16", "--chunks", "1", "--perplexity", "-", "-o", "json"]), &text);
    assert!(rows.ok().stdout.contains("\"standard input\""));
}

#[test]
fn waiting_for_a_text_ends_with_a_signal() {
    let place = Place::new();
    let fifo = place.fifo("fifo");
    for mut command in place.readers(&fifo) {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        let begun = Instant::now();
        // By the signal or by the handler, whichever reads the text.
        assert!(!child.wait_with_output().unwrap().status.success(), "{command:?}");
        assert!(begun.elapsed() < SOON, "{command:?}");
    }
}

#[test]
fn texts_without_end_are_refused_soon_and_without_their_memory() {
    let place = Place::new();
    let large = place.at("large.txt");
    File::create(&large).unwrap().set_len((1 << 30) + 1).unwrap();
    let zero = Path::new("/dev/zero");
    for path in [zero, &large] {
        for mut command in place.readers(path) {
            let begun = Instant::now();
            refused(&mut command, &[&path.display().to_string(), "iB"]);
            assert!(begun.elapsed() < SOON, "{command:?}");
        }
        refused(place.tool("bench", &["--hardware"]).arg(path), &[&path.display().to_string()]);
        refused(
            tool("split").args(["--shape", "7b", "--dry-run", "--hardware"]).arg(path),
            &[&path.display().to_string()],
        );
    }
    let from = |path: &Path, command: &mut Command| {
        let begun = Instant::now();
        refused(command.stdin(File::open(path).unwrap()), &["standard input", "iB"]);
        assert!(begun.elapsed() < SOON, "{command:?}");
    };
    for path in [zero, &large] {
        from(path, &mut place.tool("run", &["-n", "1"]));
        from(path, &mut place.tool("run", &["--tokenize"]));
        place.readers(Path::new("-")).iter_mut().for_each(|command| from(path, command));
    }
    let mut talk = place.tool("run", &["-i", "-n", "1"]);
    let outcome = Outcome::from(talk.stdin(File::open(zero).unwrap()).output().unwrap());
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.ends_with("error: standard input: a line is longer than 64.00 MiB\n"), "{}", outcome.stderr);
    // A pipe does not end either.
    let mut endless = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
    let mut command = place.tool("run", &["-n", "1"]);
    refused(command.stdin(endless.stdout.take().unwrap()), &["standard input: is longer than 64.00 MiB", "FIFO"]);
    drop(command);
    endless.wait().unwrap();
}

#[test]
fn a_byte_order_mark_is_no_text_and_other_encodings_are_named() {
    let place = Place::new();
    let (plain, marked, wide) = (place.at("plain.txt"), place.at("marked.txt"), place.at("wide.txt"));
    std::fs::write(&plain, STORY).unwrap();
    std::fs::write(&marked, format!("\u{feff}{STORY}")).unwrap();
    let ids =
        |path: &Path| Outcome::from(place.tool("run", &["--tokenize", "-f"]).arg(path).output().unwrap()).ok().stdout;
    assert_eq!(ids(&plain), ids(&marked));
    let piped = feed(&mut place.tool("run", &["--tokenize"]), &std::fs::read(&marked).unwrap()).ok();
    assert_eq!(piped.stdout, ids(&plain));
    let profile = |path: &Path| {
        let out = place.at("out");
        Outcome::from(place.tool("profile", &["-f"]).arg(path).arg("-o").arg(&out).output().unwrap()).ok();
        std::fs::read(out).unwrap()
    };
    assert!(profile(&plain) == profile(&marked));
    let perplexity = |path: &Path| {
        let mut command = place.tool("bench", &["-c", "16", "-o", "json", "--perplexity"]);
        let json: serde_json::Value =
            serde_json::from_str(&Outcome::from(command.arg(path).output().unwrap()).ok().stdout).unwrap();
        json[0]["perplexity"].clone()
    };
    assert_eq!(perplexity(&plain), perplexity(&marked));
    for (bytes, name) in
        [(&b"\xff\xfeo\0n\0"[..], "UTF-16"), (b"\xfe\xff\0o\0n", "UTF-16"), (b"\xff\xfe\0\0o\0\0\0", "UTF-32")]
    {
        std::fs::write(&wide, bytes).unwrap();
        for mut command in place.readers(&wide) {
            refused(&mut command, &["wide.txt: is ", name, "iconv"]);
        }
        refused(place.tool("bench", &["--hardware"]).arg(&wide), &["wide.txt: is ", name]);
    }
    // A description of a machine as an editor saved it.
    let toml = Path::new(env!("CARGO_MANIFEST_DIR")).join("hardware/rtx-4090-ddr5.toml");
    let saved = place.at("saved.toml");
    std::fs::write(&saved, format!("\u{feff}{}", std::fs::read_to_string(toml).unwrap())).unwrap();
    let mut plan = tool("split");
    plan.args(["--shape", "7b", "--dry-run", "--vram-budget", "8GiB", "--hardware"]).arg(&saved);
    Outcome::from(plan.output().unwrap()).ok();
}

#[test]
fn folders_of_texts_are_read_as_far_as_there_is_text() {
    let place = Place::new();
    let corpus = place.at("corpus");
    std::fs::create_dir_all(corpus.join("more/empty")).unwrap();
    let command = || {
        let mut command = place.tool("profile", &["-f"]);
        command.arg(&corpus).arg("-o").arg(place.at("out"));
        command
    };
    refused(&mut command(), &["corpus: has no files"]);
    for name in ["a.txt", "more/b.txt", "more/c.txt"] {
        std::fs::write(corpus.join(name), if name.contains('b') { "\u{feff}\n" } else { "" }).unwrap();
    }
    refused(&mut command(), &["corpus/a.txt", "is empty, as are all"]);
    assert!(!place.at("out").exists());
    std::fs::write(corpus.join("more/c.txt"), STORY).unwrap();
    // Nobody waits for these.
    place.fifo("corpus/fifo");
    std::os::unix::fs::symlink("nowhere", corpus.join("lost")).unwrap();
    let outcome = Outcome::from(command().output().unwrap()).ok();
    let note = format!("note: {}/a.txt and 1 more: left out", corpus.display());
    assert_eq!(outcome.stderr.matches("left out").count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&note), "{}", outcome.stderr);
    let with_empty = std::fs::read(place.at("out")).unwrap();
    std::fs::remove_file(corpus.join("a.txt")).unwrap();
    std::fs::remove_file(corpus.join("more/b.txt")).unwrap();
    let outcome = Outcome::from(command().output().unwrap()).ok();
    assert!(!outcome.stderr.contains("left out"), "{}", outcome.stderr);
    assert!(std::fs::read(place.at("out")).unwrap() == with_empty);
    // One that was named is not left out.
    let empty = place.at("empty.txt");
    std::fs::write(&empty, "").unwrap();
    refused(command().arg("-f").arg(&empty).arg(&place.text), &["empty.txt: the text is empty"]);
    std::fs::write(corpus.join("more/picture.png"), b"\x89PNG\r\n").unwrap();
    refused(&mut command(), &["corpus/more/picture.png: is not UTF-8 (byte 0)"]);
}

/// Starts the command, cuts `file` short once it is at work, and returns what became of it.
fn cut_short(command: &mut Command, file: &Path, at_work: Duration) -> Outcome {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        stdout.read_to_end(&mut all).map(|_| all).unwrap()
    });
    std::thread::sleep(at_work);
    assert!(child.try_wait().unwrap().is_none(), "it was done before: {command:?}");
    File::options().write(true).open(file).unwrap().set_len(0).unwrap();
    let outcome = Outcome::from(child.wait_with_output().unwrap());
    reader.join().unwrap();
    outcome
}

#[test]
fn a_model_that_is_cut_short_while_it_is_read_is_an_error() {
    let place = Place::new();
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-stories-f16.gguf");
    let model = place.at("model\n.gguf");
    std::fs::write(&place.text, STORY.repeat(20_000)).unwrap();
    let out = place.at("out");
    for threads in ["1", "3"] {
        let mut run = tool("run");
        run.args(["-p", "Once", "-n", "15000", "-c", "16000", "--ignore-eos", "-t", threads, "-m"]).arg(&model);
        let mut bench = tool("bench");
        bench.args(["-p", "64", "-n", "0", "-r", "100000", "-t", threads, "-m"]).arg(&model);
        let mut profile = tool("profile");
        profile.args(["-t", threads, "-m"]).arg(&model).arg("-f").arg(&place.text).arg("-o").arg(&out);
        for command in [&mut run, &mut bench, &mut profile] {
            std::fs::copy(&original, &model).unwrap();
            let outcome = cut_short(command, &model, Duration::from_millis(1500));
            assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
            let shown = model.display().to_string().replace('\n', " ");
            let wanted = format!("error: {shown}: was changed or cut short while it was being read");
            let line = outcome.stderr.lines().last().unwrap();
            assert!(line.starts_with(&wanted), "{}", outcome.stderr);
        }
    }
    assert!(!out.exists());
}

#[test]
fn a_bus_error_that_no_file_caused_still_ends_the_program() {
    use std::os::unix::process::ExitStatusExt;
    let place = Place::new();
    let mut command = place.tool("run", &["-p", "x", "-n", "-1", "-c", "200000", "--ignore-eos"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(Command::new("kill").args(["-BUS", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(libc_sigbus()));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("error: "));
}

fn libc_sigbus() -> i32 {
    if cfg!(target_os = "linux") { 7 } else { 10 }
}
