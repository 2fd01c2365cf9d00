//! The hub as this machine is set up for it: by the variables that huggingface_hub reads.

use super::terminal::tell;
use anyhow::{Context, Result};
use powerinfer::hub::{Config, Hub, Proxy};
use powerinfer::progress::Progress;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Where models are if nothing else is said.
const ENDPOINT: &str = "https://huggingface.co";
/// How long a server may say nothing, if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The hub, ready to be asked; with `offline` it never is. `token` takes the place of the user's own.
pub fn hub<'a>(offline: bool, token: Option<&str>, progress: &'a dyn Progress) -> Result<Hub<'a>> {
    let mut config = config(offline)?;
    config.token = token.map(str::to_owned).or(config.token);
    Hub::new(&config, progress, &|line| tell!("{line}"))
}

/// What the environment says of the hub.
pub fn config(offline: bool) -> Result<Config> {
    Ok(Config {
        endpoint: variable(&["HF_ENDPOINT"]).unwrap_or_else(|| ENDPOINT.to_owned()),
        cache: cache().context("there is no home folder for the hub's cache; HF_HUB_CACHE names one")?,
        token: token(),
        offline: offline || is_set(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]),
        timeout: timeout()?,
        proxy: Proxy::try_from_env(),
        roots: variable(&["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"]).map(PathBuf::from),
        user_agent: concat!("powerinfer/", env!("CARGO_PKG_VERSION")).to_owned(),
    })
}

/// The first of these variables that is set to something.
fn variable(names: &[&str]) -> Option<String> {
    names.iter().filter_map(|name| env::var(name).ok()).map(|value| value.trim().to_owned()).find(|v| !v.is_empty())
}

fn folder(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty())
}

/// Whether one of these variables says yes.
fn is_set(names: &[&str]) -> bool {
    let yes = |value: &str| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str());
    names.iter().any(|name| env::var(name).is_ok_and(|value| yes(value.trim())))
}

/// Where everything of the hub is.
fn home() -> Option<PathBuf> {
    let home = || folder(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
    let cache = || folder("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")));
    folder("HF_HOME").or_else(|| Some(cache()?.join("huggingface")))
}

fn cache() -> Option<PathBuf> {
    folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE")).or_else(|| Some(home()?.join("hub")))
}

/// The user's token: of a variable, or of the file that `hf auth login` writes.
fn token() -> Option<String> {
    if is_set(&["HF_HUB_DISABLE_IMPLICIT_TOKEN"]) {
        return None;
    }
    let written = || {
        let path = folder("HF_TOKEN_PATH").or_else(|| Some(home()?.join("token")))?;
        let text = fs::read_to_string(path).ok()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    variable(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(written)
}

fn timeout() -> Result<Duration> {
    let Some(text) = variable(&["HF_HUB_DOWNLOAD_TIMEOUT"]) else { return Ok(TIMEOUT) };
    let seconds = text.parse::<u64>().ok().filter(|s| (1..=3600).contains(s));
    seconds
        .map(Duration::from_secs)
        .with_context(|| format!("HF_HUB_DOWNLOAD_TIMEOUT: {text:?} is no number of seconds"))
}
