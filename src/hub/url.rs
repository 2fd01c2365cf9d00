//! Addresses: of files on a hub, where a redirect leads, and which of them may see the token.

use super::repo::Repo;
use anyhow::{Result, bail, ensure};
use std::fmt::Write;

/// The address of a file in a repository, at a branch or a commit.
pub(super) fn of_file(endpoint: &str, repo: &Repo, revision: &str, path: &str) -> String {
    format!("{endpoint}/{repo}/resolve/{}/{}", escaped(revision), escaped(path))
}

/// The address that lists the files of a repository.
pub(super) fn of_list(endpoint: &str, repo: &Repo, revision: &str) -> String {
    format!("{endpoint}/api/models/{repo}/tree/{}?recursive=true", escaped(revision))
}

/// A path with everything escaped that is not plain in an address.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            out.push(byte.into());
        } else {
            // A String never refuses.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Scheme, host and port of an address, in lower case; what the token may be sent to is compared by it.
pub(super) fn origin(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A name and password before the host are none of it.
    let host = host.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    let scheme = scheme.to_ascii_lowercase();
    let host = match &*scheme {
        "https" => host.strip_suffix(":443").unwrap_or(&host),
        "http" => host.strip_suffix(":80").unwrap_or(&host),
        _ => &host,
    };
    format!("{scheme}://{host}")
}

/// Where the answer `location` of `from` leads.
///
/// # Errors
/// When that is no web address, or an open one where the first was encrypted.
pub(super) fn redirected(from: &str, location: &str) -> Result<String> {
    let scheme = from.split("://").next().unwrap_or_default();
    let to = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{}{location}", origin(from))
    } else {
        let path = from.split(['?', '#']).next().unwrap_or_default();
        let folder = path.rfind('/').map_or(path, |at| &path[..=at]);
        format!("{folder}{location}")
    };
    let (was, is) = (origin(from), origin(&to));
    let shown: String = to.chars().take(100).collect();
    ensure!(
        is.starts_with("https://") || is.starts_with("http://"),
        "{from}: leads to {shown}, which is no web address"
    );
    if was.starts_with("https://") && !is.starts_with("https://") {
        bail!("{from}: leads to {shown}, which is not encrypted");
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_escaped() {
        let repo = "a/b".parse().unwrap();
        let url = of_file("http://h", &repo, "main", "x/\u{fc} 1#?.gguf");
        assert_eq!(url, "http://h/a/b/resolve/main/x/%C3%BC%201%23%3F.gguf");
    }

    #[test]
    fn redirects_are_followed_to_where_they_lead() {
        let from = "https://hub.co/a/b?c=/d";
        for (location, to) in [
            ("https://cdn.net/x", "https://cdn.net/x"),
            ("//cdn.net/x", "https://cdn.net/x"),
            ("/x?y", "https://hub.co/x?y"),
            ("x", "https://hub.co/a/x"),
        ] {
            assert_eq!(redirected(from, location).unwrap(), to);
        }
        for location in ["http://cdn.net/x", "file:///etc/passwd", "ftp://x/y"] {
            assert!(redirected(from, location).is_err(), "{location}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(origin("HTTPS://Hub.co:443/x"), origin("https://hub.co?x"));
        assert_ne!(origin("http://hub.co/x"), origin("https://hub.co/x"));
        assert_ne!(origin("https://hub.co:444/x"), origin("https://hub.co/x"));
        assert_eq!(origin("https://hub.co@evil.net/x"), "https://evil.net");
        assert_eq!(origin("https://hub.co.evil.net"), "https://hub.co.evil.net");
    }
}
