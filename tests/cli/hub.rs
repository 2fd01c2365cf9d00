//! Models of a hub: fetched, resumed, checked, found again. The hub is on this machine (`support::server`).

#[cfg(unix)]
use crate::support::file;
use crate::support::server::{COMMIT, FakeHub, Reply, Server, files_below, sha256};
use crate::support::{ModelFile, Outcome, refused, tool, usage_error};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const FILE: &str = "tiny-Q8_0.gguf";

/// A user's home folder, and a hub.
struct Setup {
    home: tempfile::TempDir,
    hub: FakeHub,
    model: Vec<u8>,
}

/// A tiny model as bytes.
fn model() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    fs::read(ModelFile::tiny().written(folder.path(), "tiny.gguf")).unwrap()
}

/// A command that knows nothing of the hub but its address.
fn command(name: &str, home: &Path, endpoint: &str) -> Command {
    let mut command = tool(name);
    let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    let known = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE"];
    let more = ["HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "SSL_CERT_FILE"];
    proxies.iter().chain(&known).chain(&more).for_each(|name| {
        command.env_remove(name);
    });
    command.env("HF_ENDPOINT", endpoint).env("XDG_CACHE_HOME", home.join("cache")).env("HOME", home);
    command.env("HF_HUB_DOWNLOAD_TIMEOUT", "20");
    command
}

impl Setup {
    fn new() -> Self {
        let model = model();
        Self::with(&[(FILE, model.clone()), ("README.md", b"#".to_vec())], model)
    }

    fn with(files: &[(&str, Vec<u8>)], model: Vec<u8>) -> Self {
        Self { home: tempfile::tempdir().unwrap(), hub: FakeHub::with(files), model }
    }

    /// The hub's cache.
    fn cache(&self) -> PathBuf {
        self.home.path().join("cache/huggingface/hub")
    }

    fn folder(&self) -> PathBuf {
        self.cache().join("models--owner--model")
    }

    fn blob(&self) -> PathBuf {
        self.folder().join("blobs").join(sha256(&self.model))
    }

    /// `run --tokenize` of a model, which needs no more of it than its vocabulary.
    fn run(&self, args: &[&str]) -> Command {
        let mut run = command("run", self.home.path(), &self.hub.hub.url);
        run.args(args).args(["-p", "once", "--tokenize"]);
        run
    }

    fn fetched(&self, args: &[&str]) -> Outcome {
        Outcome::from(self.run(args).output().unwrap()).ok()
    }

    /// Holds that the cache has the model and nothing that is not whole.
    fn check_whole(&self) {
        let (blob, file) = (format!("blobs/{}", sha256(&self.model)), format!("snapshots/{COMMIT}/{FILE}"));
        assert_eq!(fs::read(self.folder().join(&file)).unwrap(), self.model);
        // Where there are no links, the blob itself has the file's place.
        let blob = Some(blob).filter(|_| cfg!(unix) || self.blob().exists());
        let wanted: Vec<String> = blob.into_iter().chain(["refs/main".to_owned(), file]).collect();
        assert_eq!(files_below(&self.folder()), wanted);
    }

    /// Holds that nothing in the cache could be taken for a model.
    fn check_nothing(&self) {
        let found = files_below(&self.cache());
        let harmless = |f: &&String| f.ends_with(".lock") || f.ends_with(".incomplete");
        assert!(found.iter().all(|f| harmless(&f)), "{found:?}");
    }
}

#[test]
fn a_model_is_fetched_once_and_then_found_without_a_network() {
    let setup = Setup::new();
    let first = setup.fetched(&["-hf", "owner/model:q8_0"]);
    assert!(first.stderr.contains(&format!("{FILE}: fetching")), "{}", first.stderr);
    setup.check_whole();
    assert_eq!(fs::read_to_string(setup.folder().join("refs/main")).unwrap(), COMMIT);
    #[cfg(unix)]
    {
        let link = fs::read_link(setup.folder().join("snapshots").join(COMMIT).join(FILE)).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(sha256(&setup.model)));
    }
    let n_asked = setup.hub.hub.asked().len();
    let whole = format!("hf:owner/model/{FILE}");
    for args in [
        &["-hf", "owner/model:Q8_0"][..],
        &["-hf", "owner/model", "-hff", FILE],
        &["-m", &whole],
        &["-m", "hf:owner/model:q8_0"],
        &["-hf", "owner/model", "--offline"],
    ] {
        let again = setup.fetched(args);
        assert_eq!((again.stdout, again.stderr.contains("fetching")), (first.stdout.clone(), false), "{args:?}");
    }
    assert_eq!(setup.hub.hub.asked().len(), n_asked, "what is here is not asked for");
    // The usual quantization might be there by now: the hub is asked, and where it does not answer, what is here is taken.
    let mut run = command("run", setup.home.path(), "http://127.0.0.1:9");
    let found = Outcome::from(run.args(["-hf", "owner/model", "-p", "once", "--tokenize"]).output().unwrap()).ok();
    assert!(found.stdout == first.stdout && found.stderr.contains("is taken from the cache"), "{}", found.stderr);
}

#[cfg(unix)]
#[test]
fn what_huggingface_cli_has_fetched_is_found_by_every_command() {
    let setup = Setup::new();
    let snapshot = setup.folder().join("snapshots/abc/sub");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(setup.folder().join("refs")).unwrap();
    fs::create_dir_all(setup.folder().join("blobs")).unwrap();
    fs::write(setup.folder().join("refs/main"), "abc").unwrap();
    fs::write(setup.folder().join("blobs/f00"), &setup.model).unwrap();
    std::os::unix::fs::symlink("../../../blobs/f00", snapshot.join("m.gguf")).unwrap();
    let out = setup.home.path().join("out");
    let out = out.to_str().unwrap();
    for (name, args) in [
        ("run", &["-p", "x", "-n", "1", "--ignore-eos"][..]),
        ("bench", &["-p", "4", "-n", "0", "-r", "1"]),
        ("profile", &["--random-tokens", "8", "-o", out]),
        ("split", &["--profile", out, "-o", &format!("{out}.gguf"), "--no-kl"]),
    ] {
        for model in [["-m", "hf:owner/model/sub/m.gguf"], ["-hf", "owner/model"]] {
            let mut command = command(name, setup.home.path(), "http://127.0.0.1:9");
            Outcome::from(command.args(model).args(args).arg("--offline").output().unwrap()).ok();
        }
    }
    assert!(setup.hub.hub.asked().is_empty());
}

#[test]
fn a_path_that_exists_is_no_name() {
    let setup = Setup::new();
    let here = setup.home.path().join("hf:owner");
    if fs::create_dir_all(here.join("model")).is_ok() {
        fs::write(here.join("model/x.gguf"), &setup.model).unwrap();
        let mut run = setup.run(&["-m", "hf:owner/model/x.gguf"]);
        Outcome::from(run.current_dir(setup.home.path()).output().unwrap()).ok();
        assert!(setup.hub.hub.asked().is_empty());
    }
}

/// Cuts an answer after a third of what it has.
fn cut(reply: Reply) -> Reply {
    Reply { cut: Some(reply.body.len() / 3), ..reply }
}

#[test]
fn what_passes_is_tried_again_and_goes_on_where_it_was() {
    type Faults = Vec<fn(&FakeHub)>;
    let half: fn(&FakeHub) = |hub| hub.fault(|_, reply| cut(reply));
    let cases: Vec<(&str, Faults, usize)> = vec![
        ("dropped three times", vec![half, half, half], 4),
        ("busy", vec![|hub| hub.fault(|_, _| Reply::new(503).with("Retry-After", 0).body(b"")), half], 3),
        ("too many requests", vec![|hub| hub.fault(|_, _| Reply::new(429).with("Retry-After", 0).body(b""))], 2),
        ("416", vec![half, |hub| hub.fault(|_, _| Reply::new(416).body(b""))], 3),
        ("ignores ranges", vec![half, |hub| hub.fault(|_, good| Reply::new(200).body(&whole_of(&good)))], 2),
        ("another ETag", vec![half, |hub| hub.fault(|_, good| good.with("ETag", "\"other\""))], 3),
        ("another range", vec![half, |hub| hub.fault(|_, good| good.with("Content-Range", "bytes 1-2/3"))], 3),
        ("no range", vec![half, |hub| hub.fault(|_, good| good.without("Content-Range"))], 3),
        (
            "fewer bytes than announced",
            vec![|hub| hub.fault(|_, good| Reply { body: good.body[..good.body.len() - 1].to_vec(), ..good })],
            2,
        ),
        (
            "more bytes without a length",
            vec![|hub| {
                hub.fault(|_, good| {
                    Reply { body: [&good.body[..], b"more"].concat(), ..good }.without("Content-Length")
                });
            }],
            2,
        ),
        ("another length", vec![|hub| hub.fault(|_, good| good.clone().body(&good.body[1..]))], 2),
        ("the rest is wrong", vec![half, |hub| hub.fault(|_, good| good.clone().body(&vec![0; good.body.len()]))], 3),
        ("no answer", vec![|hub| hub.fault(|_, _| Reply { cut: Some(0), ..Reply::new(0) })], 2),
    ];
    for (what, faults, n_wanted) in cases {
        let setup = Setup::new();
        *WHOLE.lock().unwrap() = setup.model.clone();
        faults.iter().for_each(|fault| fault(&setup.hub));
        setup.fetched(&["-hf", "owner/model"]);
        setup.check_whole();
        assert_eq!(setup.hub.store.asked().len(), n_wanted, "{what}: {:?}", setup.hub.store.asked());
    }
}

/// The model of the test above, whose faults capture nothing.
static WHOLE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn whole_of(_: &Reply) -> Vec<u8> {
    WHOLE.lock().unwrap().clone()
}

#[test]
fn what_does_not_pass_is_one_line_and_leaves_nothing_that_looks_like_a_model() {
    let wrong = |good: Reply| if good.status == 200 { good.clone().body(&vec![7; good.body.len()]) } else { good };
    type Make = Box<dyn Fn(&FakeHub)>;
    let always = |fault: fn(Reply) -> Reply| -> Make { Box::new(move |hub| hub.always(move |_, good| fault(good))) };
    let store = |fault: fn(Reply) -> Reply| -> Make {
        Box::new(move |hub| (0..8).for_each(|_| hub.fault(move |_, good| fault(good))))
    };
    let cases: Vec<(Make, &[&str])> = vec![
        (store(wrong), &["wrong checksum", "deleted", FILE]),
        (store(|_| Reply::new(503).with("Retry-After", 0).body(b"")), &["503", "given up after 5 tries"]),
        (store(|_| Reply::new(404).body(b"")), &["404", "no such file"]),
        (store(|_| Reply::new(403).body(b"")), &["403", "HF_TOKEN"]),
        (store(|good| Reply { cut: Some(0), ..good }.with("Retry-After", 0)), &["given up after 5 tries"]),
        (always(|_| Reply::new(401).body(b"")), &["401", "HF_TOKEN", "/owner/model/resolve/main/tiny-Q8_0.gguf"]),
        (always(|_| Reply::new(403).with("X-Error-Code", "GatedRepo").body(b"")), &["403", "gated", "HF_TOKEN"]),
        (always(|_| Reply::new(404).with("X-Error-Code", "RepoNotFound").body(b"")), &["404", "no such repository"]),
        (always(|_| Reply::new(429).with("Retry-After", 3600).body(b"")), &["429", "3600 s", "HF_TOKEN"]),
        (always(|_| Reply::new(503).with("Retry-After", 0).body(b"")), &["503", "given up after 5 tries"]),
        (always(|_| Reply::new(418).body(b"")), &["418"]),
        (always(|_| Reply::new(302).with("Location", "/again").body(b"")), &["redirects"]),
        (always(|good| good.with("Location", "ftp://h/x")), &["ftp://h/x", "no web address"]),
        (always(|good| good.without("X-Repo-Commit")), &["X-Repo-Commit", "is http://127.0.0.1"]),
        (always(|good| good.with("X-Repo-Commit", "../../..")), &["commit", "\"../../..\""]),
        (always(|good| good.with("X-Linked-ETag", "\"../x\"")), &["ETag", "\"../x\""]),
        (always(|good| good.with("X-Linked-Size", "many")), &["size"]),
        (always(|good| good.with("X-Linked-Size", 1u64 << 55)), &["32.00 PiB", "HF_HUB_CACHE"]),
        (always(|good| good.with("X-Linked-Size", 1u64 << 20)), &["1048576", "given up"]),
    ];
    for (make, wanted) in cases {
        let setup = Setup::new();
        make(&setup.hub);
        let line = told(&mut setup.run(&["-hf", "owner/model", "-hff", FILE]));
        for text in wanted {
            assert!(line.contains(text), "{text:?} is missing in: {line}");
        }
        setup.check_nothing();
    }
}

#[cfg(unix)]
#[test]
fn a_disk_without_room_for_all_of_it_is_one_line() {
    let setup = Setup::new();
    let mut run = Command::new("sh");
    run.arg("-c").arg("ulimit -f 32 && exec \"$0\" -hf owner/model -p once --tokenize").arg(file("run"));
    run.env("HF_ENDPOINT", &setup.hub.hub.url).env("HF_HUB_CACHE", setup.cache());
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        run.env_remove(name);
    }
    let line = told(&mut run);
    assert!(line.contains(".incomplete: cannot be written: File too large"), "{line}");
    setup.check_nothing();
    setup.fetched(&["-hf", "owner/model"]);
    setup.check_whole();
}

/// The last line of a command that fails; before it, it may have said what it fetches.
#[track_caller]
fn told(command: &mut Command) -> String {
    let outcome = Outcome::from(command.output().unwrap());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let lines: Vec<_> = outcome.stderr.lines().collect();
    let (last, before) = lines.split_last().unwrap();
    assert!(
        last.starts_with("error: ") && before.iter().all(|line| line.contains(": fetching ")),
        "{}",
        outcome.stderr
    );
    (*last).to_owned()
}

#[test]
fn without_a_network_it_fails_at_once_and_says_what_helps() {
    let setup = Setup::new();
    let start = Instant::now();
    for args in [&["-hf", "owner/model"][..], &["-m", "hf:owner/model/x.gguf"]] {
        let mut run = command("run", setup.home.path(), "http://127.0.0.1:9");
        refused(run.args(args).args(["-p", "x", "--tokenize"]), &["http://127.0.0.1:9/", "network", "--offline"]);
        refused(setup.run(args).arg("--offline"), &["owner/model", "--offline", "huggingface"]);
        refused(setup.run(args).env("HF_HUB_OFFLINE", "1"), &["owner/model", "--offline"]);
    }
    // A server that does not speak TLS.
    let tls = setup.hub.hub.url.replace("http:", "https:");
    let mut run = command("run", setup.home.path(), &tls);
    refused(run.args(["-hf", "owner/model", "-p", "x", "--tokenize"]), &["encrypted", "SSL_CERT_FILE"]);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(setup.hub.hub.asked().iter().all(|asked| !asked.path.contains("owner")), "{:?}", setup.hub.hub.asked());
    for (variable, value) in [
        ("HF_ENDPOINT", "ftp://x"),
        ("HF_ENDPOINT", "hub"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
        ("SSL_CERT_FILE", "/no/such/file"),
    ] {
        refused(setup.run(&["-hf", "owner/model"]).env(variable, value), &[value]);
    }
}

#[test]
fn a_server_that_falls_silent_is_left() {
    let setup = Setup::new();
    (0..8).for_each(|_| setup.hub.fault(|_, good| Reply { stall: Some(0), ..good }));
    let line = told(setup.run(&["-hf", "owner/model"]).env("HF_HUB_DOWNLOAD_TIMEOUT", "1"));
    assert!(line.contains("given up after 5 tries"), "{line}");
    setup.check_nothing();
}

#[test]
fn the_token_is_for_the_hub_alone() {
    let setup = Setup::new();
    let tokens = |server: &Server| -> Vec<Option<String>> {
        server.asked().iter().map(|asked| asked.headers.get("authorization").cloned()).collect()
    };
    Outcome::from(setup.run(&["-hf", "owner/model"]).env("HF_TOKEN", "hf_secret").output().unwrap()).ok();
    assert!(tokens(&setup.hub.hub).iter().all(|token| token.as_deref() == Some("Bearer hf_secret")));
    assert!(tokens(&setup.hub.store).iter().all(Option::is_none) && !setup.hub.store.asked().is_empty());
    // The file that `hf auth login` writes.
    let setup = Setup::new();
    fs::create_dir_all(setup.cache().parent().unwrap()).unwrap();
    fs::write(setup.cache().parent().unwrap().join("token"), "hf_file\n").unwrap();
    setup.fetched(&["-hf", "owner/model"]);
    assert!(tokens(&setup.hub.hub).iter().all(|token| token.as_deref() == Some("Bearer hf_file")));
    let line = refused(setup.run(&["-hf", "owner/model:x"]).env("HF_TOKEN", "a b"), &["HF_TOKEN"]);
    assert!(!line.contains("a b"), "{line}");
}

#[test]
fn a_quantization_is_chosen_and_what_there_is_is_listed() {
    let model = model();
    let other = [&model[..], &[0; 32]].concat();
    let files = [
        ("a-Q2_K.gguf", other.clone()),
        ("b-Q4_K_M.gguf", model.clone()),
        ("c-Q5_K_M.gguf", other.clone()),
        ("d-Q5_K_M.gguf", other.clone()),
        ("../evil-Q6_K.gguf", other),
    ];
    let setup = Setup::with(&files, model);
    let fetched = setup.fetched(&["-hf", "owner/model"]);
    assert!(fetched.stderr.contains("b-Q4_K_M.gguf: fetching"), "{}", fetched.stderr);
    refused(&mut setup.run(&["-hf", "owner/model:Q5_K_M"]), &["ambiguous", "-hff", "c-Q5_K_M.gguf, d-Q5_K_M.gguf"]);
    let line = refused(&mut setup.run(&["-hf", "owner/model:Q6_K"]), &["Q6_K", "a-Q2_K.gguf, b-Q4_K_M.gguf"]);
    assert!(!line.contains("evil"), "{line}");
    refused(&mut setup.run(&["-hf", "owner/other"]), &["404", "no such repository"]);
    refused(&mut setup.run(&["-hf", "owner/model:Q2_K", "-hff", "a-Q2_K.gguf"]), &["-hff"]);
    refused(&mut setup.run(&["-hf", "owner/model", "-hff", "../x.gguf"]), &["../x.gguf"]);
    refused(&mut setup.run(&["-m", "hf:owner"]), &["hf:owner", "owner/model"]);
    usage_error("run", &["-hf", "model", "-p", "x"], "owner/model");
    usage_error("run", &["-hff", "x.gguf", "-p", "x"], "--hf-repo");
    usage_error("run", &["-hf", "a/b", "-m", "c", "-p", "x"], "--model");
}

#[test]
fn lists_of_several_pages_are_read_and_other_answers_are_none() {
    let setup = Setup::new();
    setup.hub.always(|asked, good| match asked.path.split('?').nth(1) {
        Some("recursive=true") => {
            Reply::new(200).with("Link", "</api/models/owner/model/tree/main?page=2>; rel=\"next\"").body(b"[]")
        }
        _ => good,
    });
    setup.fetched(&["-hf", "owner/model"]);
    for (body, wanted) in [("<html>", "no list of files"), ("{}", "no list of files"), ("[]", "has no GGUF model")] {
        let setup = Setup::new();
        setup.hub.always(move |_, _| Reply::new(200).body(body.as_bytes()));
        refused(&mut setup.run(&["-hf", "owner/model"]), &[wanted]);
    }
    let setup = Setup::new();
    setup.hub.always(|_, _| Reply::new(200).with("Link", "<http://127.0.0.1:9/x>; rel=\"next\"").body(b"[]"));
    refused(&mut setup.run(&["-hf", "owner/model"]), &["another server"]);
}

#[test]
fn the_parts_of_a_model_are_fetched_together() {
    let part = |no: u8| [b"part".to_vec(), vec![no; 64]].concat();
    let name = |no: usize| format!("Q8_0/m-{no:05}-of-00003.gguf");
    let names: Vec<_> = (1..=3).map(name).collect();
    let files: Vec<_> = names.iter().zip(1..).map(|(name, no)| (name.as_str(), part(no))).collect();
    let setup = Setup::with(&files, part(1));
    // They are no models, and are refused only when all are there.
    let line = told(&mut setup.run(&["-hf", "owner/model:Q8_0"]));
    assert!(line.contains("m-00001-of-00003.gguf"), "{line}");
    let folder = setup.folder().join("snapshots").join(COMMIT);
    assert_eq!(files_below(&folder), names);
    for (name, bytes) in files {
        assert_eq!(fs::read(folder.join(name)).unwrap(), bytes);
    }
    let setup = Setup::with(&[(&names[0], part(1)), (&names[2], part(3))], part(1));
    let line = told(&mut setup.run(&["-hf", "owner/model:Q8_0"]));
    assert!(line.contains("m-00002-of-00003.gguf") && line.contains("404"), "{line}");
    setup.check_nothing();
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn spawned(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn of_two_processes_one_fetches_and_the_other_waits() {
    let setup = Setup::new();
    let gate = setup.hub.gate();
    let first = spawned(setup.run(&["-hf", "owner/model"]));
    until("the first asks", || !setup.hub.store.asked().is_empty());
    let second = spawned(setup.run(&["-hf", "owner/model"]));
    until("the second has looked", || setup.hub.hub.asked().iter().filter(|asked| asked.method == "HEAD").count() == 2);
    gate.send(()).unwrap();
    let outcomes = [first, second].map(|child| Outcome::from(child.wait_with_output().unwrap()).ok());
    assert_eq!(outcomes[0].stdout, outcomes[1].stdout);
    assert_eq!(setup.hub.store.asked().len(), 1);
    setup.check_whole();
}

#[test]
fn a_process_that_is_killed_leaves_a_beginning_that_the_next_goes_on_with() {
    let setup = Setup::new();
    let half = setup.model.len() / 2;
    setup.hub.fault(move |_, good| Reply { stall: Some(half), ..good });
    let mut first = spawned(setup.run(&["-hf", "owner/model"]));
    let partial = PathBuf::from(format!("{}.incomplete", setup.blob().display()));
    until("half is there", || fs::metadata(&partial).is_ok_and(|m| m.len() == half as u64));
    let second = spawned(setup.run(&["-hf", "owner/model"]));
    until("the second has looked", || setup.hub.hub.asked().iter().filter(|asked| asked.method == "HEAD").count() == 2);
    assert!(!setup.blob().exists());
    first.kill().unwrap();
    first.wait().unwrap();
    Outcome::from(second.wait_with_output().unwrap()).ok();
    setup.check_whole();
    let asked = setup.hub.store.asked();
    assert_eq!(asked[1].headers["range"], format!("bytes={half}-"));
}

#[test]
fn a_file_that_changes_while_it_is_fetched_is_asked_for_anew() {
    let changes = |n_times: usize| {
        let setup = Setup::new();
        let left = Mutex::new(n_times);
        setup.hub.always(move |asked, good| {
            let mut left = left.lock().unwrap();
            if *left == 0 || asked.method != "GET" || !asked.path.contains("/resolve/") {
                return good;
            }
            *left -= 1;
            good.with("X-Linked-ETag", format!("\"{}\"", "e".repeat(64)))
        });
        setup
    };
    let setup = changes(1);
    setup.fetched(&["-hf", "owner/model"]);
    setup.check_whole();
    let setup = changes(9);
    let line = told(&mut setup.run(&["-hf", "owner/model"]));
    assert!(line.contains("changes the file") && line.contains(&"e".repeat(64)), "{line}");
    setup.check_nothing();
}

#[test]
fn a_beginning_that_is_not_that_of_the_file_is_thrown_away() {
    let setup = Setup::new();
    for bytes in [vec![1; 100], vec![1; setup.model.len()], vec![1; setup.model.len() + 1]] {
        let _ = fs::remove_dir_all(setup.cache());
        fs::create_dir_all(setup.folder().join("blobs")).unwrap();
        fs::write(format!("{}.incomplete", setup.blob().display()), bytes).unwrap();
        setup.fetched(&["-hf", "owner/model"]);
        setup.check_whole();
    }
}

#[test]
fn ctrl_c_ends_a_download_and_keeps_what_has_arrived() {
    let setup = Setup::new();
    setup.hub.fault(|_, good| Reply { stall: Some(1000), ..good });
    let mut run = command("run", setup.home.path(), &setup.hub.hub.url);
    run.args(["-hf", "owner/model", "-p", "once", "-n", "1"]);
    let mut child = spawned(run);
    let partial = PathBuf::from(format!("{}.incomplete", setup.blob().display()));
    until("it has begun", || fs::metadata(&partial).is_ok_and(|m| m.len() == 1000));
    if !crate::support::ctrl_c::press(&mut child) {
        return;
    }
    let outcome = Outcome::from(child.wait_with_output().unwrap());
    assert_eq!((outcome.code, outcome.stderr.lines().last()), (Some(130), Some("interrupted")), "{}", outcome.stderr);
    setup.fetched(&["-hf", "owner/model"]);
    setup.check_whole();
    assert_eq!(setup.hub.store.asked()[1].headers["range"], "bytes=1000-");
}
