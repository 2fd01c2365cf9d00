//! Session files of `powerinfer-run`.

use crate::support::{ModelFile, Outcome, Value, refused, tool, usage_error};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                        {% if add_generation_prompt %}bot:{% endif %}";
const STORY: &str = "Once upon a time there was a little dog who lived in a house by the sea with a girl named Lily";

fn run(args: &[&str], session: &Path) -> Command {
    let mut command = tool("run");
    command.args(["-t", "1", "--seed", "5", "-n", "12", "--prompt-cache"]).arg(session).args(args);
    command
}

fn feed(command: &mut Command, input: &str) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Outcome::from(child.wait_with_output().unwrap())
}

#[test]
fn the_second_run_takes_the_prompt_from_the_file_and_has_the_same_text() {
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("story.session");
    let story = |args: &[&str]| Outcome::from(run(args, &session).output().unwrap()).ok();
    let mut plain = tool("run");
    plain.args(["-t", "1", "--seed", "5", "-n", "12", "--repeat-penalty", "1.3", "-p", STORY]);
    let plain = Outcome::from(plain.output().unwrap()).ok().stdout;
    let flags = ["--repeat-penalty", "1.3", "-p", STORY];
    let (first, second) = (story(&flags), story(&flags));
    assert_eq!(first.stdout, plain);
    assert_eq!(second.stdout, plain);
    assert!(first.stderr.contains("session: 0 of "), "{}", first.stderr);
    let n_of = |told: &str| -> (usize, usize) {
        let line = told.lines().find_map(|line| line.strip_prefix("session: ")).unwrap();
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        (numbers.next().unwrap(), numbers.next().unwrap())
    };
    let (n, of) = n_of(&second.stderr);
    assert!(n + 4 == of && n > 10, "{}", second.stderr);
    // The prefill is counted with what was computed before it.
    assert!(first.stderr.contains(&format!("{of} tokens")), "{}", first.stderr);
    // Another ending, read only.
    let before = std::fs::read(&session).unwrap();
    let other = story(&["-p", &format!("{STORY} and her friends"), "--prompt-cache-ro"]);
    assert!(n_of(&other.stderr).0 >= n && before == std::fs::read(&session).unwrap(), "{}", other.stderr);
    // Another text altogether replaces it.
    let other = story(&["-p", "The big cat sat on the mat and looked at the red ball for a long time"]);
    assert!(n_of(&other.stderr).0 <= 1 && before != std::fs::read(&session).unwrap(), "{}", other.stderr);
}

#[cfg(unix)]
#[test]
fn nobody_else_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("session");
    let mode = || std::fs::metadata(&session).unwrap().permissions().mode() & 0o777;
    Outcome::from(run(&["-p", STORY], &session).output().unwrap()).ok();
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&session, std::fs::Permissions::from_mode(0o644)).unwrap();
    Outcome::from(run(&["-p", STORY, "--prompt-cache-all"], &session).output().unwrap()).ok();
    assert_eq!(mode(), 0o600);
}

#[test]
fn a_conversation_begins_with_what_the_last_one_computed() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = ModelFile::tiny();
    file.set("tokenizer.chat_template", Value::Str(TEMPLATE.to_owned()));
    file.set("llama.context_length", Value::U32(512));
    let model = file.written(folder.path(), "chat.gguf");
    let lines = "hello there my friend, how are you today and what do you want to talk about\nand more\n";
    for more in [&["-cnv"][..], &["-i"], &["-cnv", "--prompt-cache-all"]] {
        let session = folder.path().join("session");
        drop(std::fs::remove_file(&session));
        let flags = [&["-m", model.to_str().unwrap(), "--ignore-eos", "--temp", "0"], more].concat();
        let (first, second) =
            (feed(&mut run(&flags, &session), lines).ok(), feed(&mut run(&flags, &session), lines).ok());
        assert!(!first.stderr.contains("session: "), "{}", first.stderr);
        assert!(second.stderr.contains("tokens from "), "{more:?}: {}", second.stderr);
        assert_eq!(first.stdout, second.stdout, "{more:?}");
    }
    // Plain text goes on where it was.
    let session = folder.path().join("text");
    let flags = ["-m", model.to_str().unwrap(), "-i", "--ignore-eos", "--temp", "0", "--prompt-cache-all"];
    let whole = feed(&mut run(&flags, &folder.path().join("whole")), "hello there\nand more\n").ok().stdout;
    let first = feed(&mut run(&flags, &session), "hello there\n").ok().stdout;
    let second = feed(&mut run(&flags, &session), "and more\n").ok().stdout;
    assert_eq!(first + &second, whole);
}

#[test]
fn what_is_no_session_file_of_this_run_is_refused_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("session");
    Outcome::from(run(&["-p", STORY], &session).output().unwrap()).ok();
    let name = session.to_str().unwrap();
    refused(&mut run(&["-p", STORY, "--cache-type", "q8_0"], &session), &[name, "--cache-type f16, not q8_0"]);
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    refused(&mut run(&["-p", "a dog", "-m", model.to_str().unwrap()], &session), &[name, "another model"]);
    let bytes = std::fs::read(&session).unwrap();
    std::fs::write(&session, &bytes[..bytes.len() - 100]).unwrap();
    refused(&mut run(&["-p", STORY], &session), &[name, "remove it or name another file"]);
    std::fs::write(&session, "what I wrote by hand").unwrap();
    refused(&mut run(&["-p", STORY], &session), &[name, "is no session file"]);
    assert_eq!(std::fs::read(&session).unwrap(), b"what I wrote by hand");
    refused(&mut run(&["-p", STORY], folder.path()), &["is a folder"]);
    let missing = folder.path().join("none");
    refused(&mut run(&["-p", STORY, "--prompt-cache-ro"], &missing), &["none", crate::support::NO_SUCH_FILE]);
    refused(&mut run(&["-p", STORY], &missing.join("deeper")), &["cannot be written"]);
    usage_error("run", &["--prompt-cache", "a", "--prompt-cache-ro", "--prompt-cache-all"], "--prompt-cache-ro");
    usage_error("run", &["-p", "a", "--prompt-cache-all"], "--prompt-cache <FILE>");
}
