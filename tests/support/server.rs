//! A hub on this machine, and the other server that holds its files: what they answer, and what goes wrong with it.

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// How long a server that stalls does so: longer than any test.
const STALL: Duration = Duration::from_secs(300);

/// A request without its body; names of headers are in lower case.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

/// An answer.
#[derive(Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Bytes of the body after which the connection is closed.
    pub cut: Option<usize>,
    /// Bytes of the body after which nothing more comes.
    pub stall: Option<usize>,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub fn body(self, body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..self }.with("Content-Length", body.len())
    }
}

/// A server; it ends with the test.
#[derive(Clone)]
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (log, answer) = (asked.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (log.clone(), answer.clone());
                thread::spawn(move || serve(&stream, &log, &*answer));
            }
        });
        Self { url, asked }
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: &TcpStream, log: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked) -> Reply) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let Some(first) = lines.next() else {
        // Something that is no text, as when TLS is spoken.
        let _ = stream.write_all(b"HTTP/1.1 400 X\r\n\r\n");
        let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
        return;
    };
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let header = |line: String| line.split_once(':').map(|(n, v)| (n.to_lowercase(), v.trim().to_owned()));
    let asked = Asked { method, path, headers: lines.filter_map(header).collect() };
    log.lock().unwrap().push(asked.clone());
    let reply = answer(&asked);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    reply.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    let _ = stream.write_all((head + "\r\n").as_bytes());
    if asked.method != "HEAD" {
        let end = reply.cut.or(reply.stall).unwrap_or(reply.body.len()).min(reply.body.len());
        let _ = stream.write_all(&reply.body[..end]);
        if reply.stall.is_some() {
            thread::sleep(STALL);
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// What changes an answer: the request, and what would be said.
pub type Fault = Box<dyn Fn(&Asked, Reply) -> Reply + Send>;

/// A hub with one repository, `owner/model`, whose files lie on another server, as large files do.
pub struct FakeHub {
    pub hub: Server,
    pub store: Server,
    /// Each changes one answer of the store, in order; then all is well.
    faults: Arc<Mutex<VecDeque<Fault>>>,
    /// Changes every answer of the hub.
    always: Arc<Mutex<Option<Fault>>>,
    /// Where the store waits before each answer until the test says to go on.
    gate: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

impl FakeHub {
    pub fn with(files: &[(&str, Vec<u8>)]) -> Self {
        let files: BTreeMap<String, Vec<u8>> = files.iter().map(|(n, b)| ((*n).to_owned(), b.clone())).collect();
        let faults = Arc::<Mutex<VecDeque<Fault>>>::default();
        let always = Arc::<Mutex<Option<Fault>>>::default();
        let gate = Arc::<Mutex<Option<mpsc::Receiver<()>>>>::default();
        let contents: BTreeMap<_, _> = files.values().map(|bytes| (sha256(bytes), bytes.clone())).collect();
        let (pending, waiting) = (faults.clone(), gate.clone());
        let store = Server::start(move |asked| {
            if let Some(gate) = &*waiting.lock().unwrap() {
                let _ = gate.recv();
            }
            let digest = asked.path.trim_start_matches('/');
            let good = contents.get(digest).map_or(Reply::new(404), |bytes| ranged(asked, bytes, digest));
            match pending.lock().unwrap().pop_front() {
                Some(fault) => fault(asked, good),
                None => good,
            }
        });
        let (place, changed) = (store.url.clone(), always.clone());
        let hub = Server::start(move |asked| {
            let good = as_hub(asked, &files, &place);
            match &*changed.lock().unwrap() {
                Some(fault) => fault(asked, good),
                None => good,
            }
        });
        Self { hub, store, faults, always, gate }
    }

    /// The next answer of the store that has no fault yet gets this one.
    pub fn fault(&self, fault: impl Fn(&Asked, Reply) -> Reply + Send + 'static) {
        self.faults.lock().unwrap().push_back(Box::new(fault));
    }

    /// Every answer of the hub gets this fault.
    pub fn always(&self, fault: impl Fn(&Asked, Reply) -> Reply + Send + 'static) {
        *self.always.lock().unwrap() = Some(Box::new(fault));
    }

    /// The store answers once for each message.
    pub fn gate(&self) -> mpsc::Sender<()> {
        let (send, receive) = mpsc::channel();
        *self.gate.lock().unwrap() = Some(receive);
        send
    }
}

/// All of a file, or what a range asks for.
fn ranged(asked: &Asked, bytes: &[u8], digest: &str) -> Reply {
    let etag = format!("\"{}\"", &digest[..8]);
    let begin = asked.headers.get("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let is_same = asked.headers.get("if-range").is_none_or(|known| *known == etag);
    match begin.filter(|_| is_same) {
        Some(begin) if begin >= bytes.len() => Reply::new(416).body(b""),
        Some(begin) => {
            let range = format!("bytes {begin}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206).with("ETag", etag).with("Content-Range", range).body(&bytes[begin..])
        }
        None => Reply::new(200).with("ETag", etag).body(bytes),
    }
}

fn as_hub(asked: &Asked, files: &BTreeMap<String, Vec<u8>>, store: &str) -> Reply {
    if asked.path.starts_with("/api/models/owner/model/tree/main") {
        let entry = |(name, bytes): (&String, &Vec<u8>)| serde_json::json!({ "type": "file", "path": name, "size": bytes.len() });
        let list: Vec<_> = files.iter().map(entry).collect();
        return Reply::new(200).body(serde_json::to_string(&list).unwrap().as_bytes());
    }
    let name = ["main", COMMIT].iter().find_map(|at| asked.path.strip_prefix(&format!("/owner/model/resolve/{at}/")));
    let Some(bytes) = name.and_then(|name| files.get(name)) else {
        let code = if asked.path.contains("/owner/model/") { "EntryNotFound" } else { "RepoNotFound" };
        return Reply::new(404).with("X-Error-Code", code).body(b"");
    };
    let digest = sha256(bytes);
    Reply::new(302)
        .with("X-Repo-Commit", COMMIT)
        .with("X-Linked-ETag", format!("\"{digest}\""))
        .with("X-Linked-Size", bytes.len())
        .with("Location", format!("{store}/{digest}"))
        .body(b"")
}

/// All files below a folder, as paths from there.
pub fn files_below(folder: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}
