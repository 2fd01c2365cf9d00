//! Requests: where redirects lead, who sees the token, and what bad answers mean. Each runs in a thread of its own, so that
//! waiting for it ends with Ctrl-C.

use super::fault::Fault;
use super::url::{origin, redirected};
use crate::progress::{self, Progress};
use anyhow::{Context, Result, anyhow, bail};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Method, Request};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Timeout};

pub use ureq::Proxy;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;
/// Chunks that may lie between the thread that reads and the one that writes.
const CHUNKS_AHEAD: usize = 4;
/// How often to look whether the user wants to stop.
const GLANCE: Duration = Duration::from_millis(50);

/// Where the hub is, where its cache lies, and how to talk to it.
#[derive(Clone)]
pub struct Config {
    /// Address of the hub, such as `https://huggingface.co`.
    pub endpoint: String,
    /// Folder of the hub's cache.
    pub cache: PathBuf,
    /// What shows who asks; it is sent to the hub alone.
    pub token: Option<String>,
    /// Whether nothing may be fetched.
    pub offline: bool,
    /// How long a server may say nothing.
    pub timeout: Duration,
    /// What stands between here and there.
    pub proxy: Option<Proxy>,
    /// Certificates (PEM) to trust instead of Mozilla's.
    pub roots: Option<PathBuf>,
    /// Name and version of the program, for the server's log.
    pub user_agent: String,
}

/// Asks servers.
pub(super) struct Client {
    agent: Agent,
    /// Who may see the token.
    home: String,
    pub endpoint: String,
    token: Option<String>,
    timeout: Duration,
}

/// What one server of a chain of redirects said before the body.
pub(super) struct Head {
    pub url: String,
    pub status: u16,
    headers: HeaderMap,
}

impl Head {
    /// A header's value; `None` where it is missing or no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }
}

/// The end of a chain of redirects.
pub(super) struct Answer {
    /// What each server said, the last one at the end.
    pub heads: Vec<Head>,
    pub last: Head,
    body: Receiver<Event>,
    patience: Duration,
}

enum Event {
    Head(u16, HeaderMap),
    Bytes(Vec<u8>),
    End,
    /// No connection came about.
    Unreachable(String),
    Failed(String),
}

impl Client {
    /// Prepares to ask; nothing is sent yet.
    ///
    /// # Errors
    /// When the address is none, the token cannot be sent, or the certificates cannot be read.
    pub fn new(config: &Config) -> Result<Self> {
        let endpoint = config.endpoint.trim_end_matches('/').to_owned();
        let home = origin(&endpoint);
        let is_web = ["http://", "https://"].iter().any(|s| home.strip_prefix(s).is_some_and(|host| !host.is_empty()));
        if !is_web || endpoint.contains(|c: char| c.is_control() || c == ' ') {
            bail!("{endpoint:?} is no address of a hub; write one such as https://huggingface.co (HF_ENDPOINT)");
        }
        let token = config.token.clone();
        if token.as_ref().is_some_and(|token| token.contains(|c: char| !c.is_ascii_graphic())) {
            bail!("the token of the hub (HF_TOKEN) holds characters that no token has");
        }
        let mut tls = TlsConfig::builder();
        if let Some(path) = &config.roots {
            tls = tls.root_certs(roots(path).with_context(|| path.display().to_string())?);
        }
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .proxy(config.proxy.clone())
            .http_status_as_error(false)
            // They are followed here, because some of their headers count, and not every server may see the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(&config.user_agent)
            .timeout_resolve(Some(config.timeout))
            .timeout_connect(Some(config.timeout))
            .timeout_recv_response(Some(config.timeout))
            .timeout_per_read(Some(config.timeout))
            .build()
            .new_agent();
        Ok(Self { agent, home, endpoint, token, timeout: config.timeout })
    }

    /// Whether a token is sent.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// What a server says of `url` without its body. Redirects are followed only on the same host, and only until one
    /// names the ETag of what is meant.
    pub fn head(&self, url: &str, progress: &dyn Progress) -> Result<Vec<Head>, Fault> {
        let is_told = |head: &Head| head.header("x-linked-etag").is_some();
        let enough = |head: &Head, to: &str| is_told(head) || origin(to) != origin(&head.url);
        let Answer { mut heads, last, .. } = self.chain(Method::HEAD, url, &[], progress, enough)?;
        heads.push(last);
        Ok(heads)
    }

    /// The body of `url`.
    pub fn get(&self, url: &str, headers: &[(&str, String)], progress: &dyn Progress) -> Result<Answer, Fault> {
        self.chain(Method::GET, url, headers, progress, |_, _| false)
    }

    /// Follows redirects until `enough` of an answer and where it leads.
    fn chain(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, String)],
        progress: &dyn Progress,
        enough: impl Fn(&Head, &str) -> bool,
    ) -> Result<Answer, Fault> {
        let (mut heads, mut at) = (Vec::new(), url.to_owned());
        while heads.len() <= MAX_REDIRECTS {
            let (head, body) = self.one(&method, &at, headers, progress)?;
            let location =
                matches!(head.status, 301 | 302 | 303 | 307 | 308).then(|| head.header("location")).flatten();
            let Some(location) = location else {
                return Ok(Answer { heads, last: head, body, patience: self.timeout });
            };
            let to = redirected(&at, location)?;
            if enough(&head, &to) {
                return Ok(Answer { heads, last: head, body, patience: self.timeout });
            }
            heads.push(head);
            at = to;
        }
        Err(Fault::Final(anyhow!("{url}: more than {MAX_REDIRECTS} redirects, one behind the other")))
    }

    /// Sends one request and waits for the head of its answer.
    fn one(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, String)],
        progress: &dyn Progress,
    ) -> Result<(Head, Receiver<Event>), Fault> {
        let mut request = Request::builder().method(method).uri(url).header("accept-encoding", "identity");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(token) = self.token.as_ref().filter(|_| origin(url) == self.home) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(()).map_err(|e| anyhow!("{url}: {e}"))?;
        let (send, events) = sync_channel(CHUNKS_AHEAD);
        let agent = self.agent.clone();
        thread::Builder::new()
            .name("hub".to_owned())
            .spawn(move || exchange(&agent, request, &send))
            .context("a thread cannot be started")?;
        // Looking up the host, connecting and answering may each take that long.
        match next(&events, self.timeout * 4, progress)? {
            Event::Head(status, headers) => Ok((Head { url: url.to_owned(), status, headers }, events)),
            Event::Unreachable(why) => Err(Fault::Unreachable(format!("{url}: {why}"))),
            Event::Failed(why) => Err(Fault::passing(format!("{url}: {why}"))),
            Event::Bytes(_) | Event::End => Err(Fault::passing(format!("{url}: no answer"))),
        }
    }
}

impl Answer {
    /// The next bytes of the body; `None` at its end.
    pub fn read(&mut self, progress: &dyn Progress) -> Result<Option<Vec<u8>>, Fault> {
        match next(&self.body, self.patience * 2, progress)? {
            Event::Bytes(bytes) => Ok(Some(bytes)),
            Event::Failed(why) | Event::Unreachable(why) => Err(Fault::passing(format!("{}: {why}", self.last.url))),
            Event::End | Event::Head(..) => Ok(None),
        }
    }

    /// All of the body, of at most `most` bytes.
    pub fn text(mut self, most: usize, progress: &dyn Progress) -> Result<(Head, String), Fault> {
        let mut all = Vec::new();
        while let Some(bytes) = self.read(progress)? {
            all.extend_from_slice(&bytes);
            if all.len() > most {
                return Err(anyhow!("{}: the answer is longer than {most} bytes", self.last.url).into());
            }
        }
        let text = String::from_utf8(all).map_err(|_| anyhow!("{}: the answer is no text", self.last.url))?;
        Ok((self.last, text))
    }
}

/// Waits for what the thread says.
fn next(events: &Receiver<Event>, limit: Duration, progress: &dyn Progress) -> Result<Event, Fault> {
    let start = Instant::now();
    loop {
        match events.recv_timeout(GLANCE) {
            Ok(event) => return Ok(event),
            Err(RecvTimeoutError::Disconnected) => return Ok(Event::Failed("the connection is lost".to_owned())),
            Err(RecvTimeoutError::Timeout) => progress::check(progress)?,
        }
        if start.elapsed() > limit {
            return Ok(Event::Failed(format!("nothing arrived for {} s", limit.as_secs())));
        }
    }
}

/// What the thread of a request does. It ends when nobody listens any more.
fn exchange(agent: &Agent, request: Request<()>, send: &SyncSender<Event>) {
    let mut response = match agent.run(request) {
        Ok(response) => response,
        Err(error) => return drop(send.send(failure(&error))),
    };
    if send.send(Event::Head(response.status().as_u16(), response.headers().clone())).is_err() {
        return;
    }
    let (mut body, mut buffer) = (response.body_mut().as_reader(), vec![0; CHUNK]);
    loop {
        let event = match body.read(&mut buffer) {
            Ok(0) => Event::End,
            Ok(n) => Event::Bytes(buffer[..n].to_vec()),
            Err(error) => Event::Failed(format!("the connection broke off: {error}")),
        };
        let last = !matches!(event, Event::Bytes(_));
        if send.send(event).is_err() || last {
            return;
        }
    }
}

/// What kept a request from being answered, and what helps.
fn failure(error: &ureq::Error) -> Event {
    const NETWORK: &str = "is there a network? (--offline uses only what is in the cache)";
    match error {
        ureq::Error::HostNotFound => Event::Unreachable(format!("the host is not found; {NETWORK}")),
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            Event::Unreachable(format!("no connection in time; {NETWORK}"))
        }
        ureq::Error::Io(error) if broke_off(error) => Event::Failed(error.to_string()),
        // So rustls comes through.
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            Event::Unreachable(format!("no encrypted connection: {error}; SSL_CERT_FILE names certificates to trust"))
        }
        ureq::Error::Io(error) => Event::Unreachable(format!("{error}; {NETWORK}")),
        ureq::Error::Timeout(_) => {
            Event::Failed("no answer in time; HF_HUB_DOWNLOAD_TIMEOUT sets the seconds to wait".to_owned())
        }
        other => Event::Failed(other.to_string()),
    }
}

/// Whether there was somebody to talk to, for a while.
fn broke_off(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof | WouldBlock)
}

/// What an answer that is none of the wanted ones means.
pub(super) fn refused(head: &Head, has_token: bool) -> Fault {
    let Head { url, status, .. } = head;
    let code = head.header("x-error-code").unwrap_or_default();
    let gated = "the model is gated: ask for access on its page, then set HF_TOKEN to your token";
    let why = match status {
        401 if code == "GatedRepo" => gated,
        401 if has_token => "the hub does not accept the token (HF_TOKEN), or there is no such repository",
        401 => "there is no such repository, or it is private or gated: then set HF_TOKEN to a token that may read it",
        403 if code == "GatedRepo" || !has_token => gated,
        403 => "the token (HF_TOKEN) may not read it; if the model is gated, ask for access on its page",
        404 if code == "RepoNotFound" => "there is no such repository",
        404 => "there is no such file",
        408 | 429 | 500 | 502 | 503 | 504 => {
            let why = if *status == 429 { "too many requests" } else { "the server cannot answer now" };
            let after = head.header("retry-after").and_then(|s| s.parse().ok()).map(Duration::from_secs);
            let hint = if *status == 429 && !has_token { "; with HF_TOKEN more are allowed" } else { "" };
            return Fault::Passing { why: format!("{url}: {status}: {why}{hint}"), after, moved: false };
        }
        _ => "an answer that was not expected",
    };
    Fault::Final(anyhow!("{url}: {status}: {why}"))
}

/// The certificates in a file.
fn roots(path: &Path) -> Result<RootCerts> {
    let text = fs::read(path)?;
    let mut found = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| anyhow!("{e}"))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        bail!("holds no certificate (PEM)");
    }
    Ok(RootCerts::from(found))
}
