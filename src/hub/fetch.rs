//! From a name on the hub to a path on this machine.

use super::blob::{Changed, Job, Meta, plain_etag};
use super::cache::{Cache, MAIN};
use super::choice::{choose, is_first_choice};
use super::client::{Client, Config, Head, refused};
use super::fault::{Fault, patiently};
use super::repo::{Reference, Repo, check_path, check_word};
use super::url::{of_file, of_list, origin, redirected};
use crate::files::free_space;
use crate::gguf::PartNames;
use crate::progress::Progress;
use crate::units::Bytes;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The most bytes of one answer that lists files.
const MOST_LIST: usize = 8 << 20;
/// The most answers that list the files of one repository; each has up to a thousand.
const MOST_PAGES: usize = 20;
/// How often a file may be another one by the time it is fetched.
const MOST_CHANGES: u32 = 2;
/// The most files that one model is fetched in.
const MOST_PARTS: usize = 1000;

/// A hub and its cache.
pub struct Hub<'a> {
    client: Client,
    cache: Cache,
    offline: bool,
    progress: &'a dyn Progress,
    /// Hears in one line what is fetched or waited for.
    tell: &'a dyn Fn(&str),
}

/// What the hub says of one file in a list.
#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

impl<'a> Hub<'a> {
    /// Prepares to fetch; nothing is asked yet.
    ///
    /// # Errors
    /// When `config` makes no sense.
    pub fn new(config: &Config, progress: &'a dyn Progress, tell: &'a dyn Fn(&str)) -> Result<Self> {
        let cache = Cache::new(config.cache.clone());
        Ok(Self { client: Client::new(config)?, cache, offline: config.offline, progress, tell })
    }

    /// The path of what `wanted` names, fetched if need be; of a model in several files all are. `sha256`, where it is
    /// known, is what the file must have.
    ///
    /// # Errors
    /// One line that names the repository, address or file, what is wrong with it, and what helps.
    pub fn path(&self, wanted: &Reference, sha256: Option<&str>) -> Result<PathBuf> {
        let repo = &wanted.repo;
        match &wanted.file {
            Some(file) => self.file(repo, file, sha256),
            None => self.file(repo, &self.choose(repo, wanted.quant.as_deref())?, sha256),
        }
    }

    /// Whether the cache has what `wanted` names, so that [`Hub::path`] fetches nothing. Nobody is asked.
    pub fn is_here(&self, wanted: &Reference) -> bool {
        let repo = &wanted.repo;
        match &wanted.file {
            Some(file) => self.cache.find(repo, &parts(file)).is_some(),
            None => {
                let here = self.cache.models(repo);
                let file = choose(repo, &here, wanted.quant.as_deref());
                file.is_ok_and(|file| self.cache.find(repo, &parts(file)).is_some())
            }
        }
    }

    /// Which file of `repo` is meant.
    fn choose(&self, repo: &Repo, quant: Option<&str>) -> Result<String> {
        let here = self.cache.models(repo);
        let best: Vec<_> = here.iter().filter(|file| is_first_choice(file, quant)).collect();
        if let [file] = best[..] {
            return Ok(file.clone());
        }
        let from_cache = |why: String| -> Result<String> {
            ensure!(!here.is_empty(), "{repo}: no file of it is in {}, and {why}", self.cache.root().display());
            let file = choose(repo, &here, quant).context("of what is in the cache")?.to_owned();
            (self.tell)(&format!("note: {repo}: {file} is taken from the cache, because {why}"));
            Ok(file)
        };
        if self.offline {
            return from_cache("--offline forbids asking the hub".to_owned());
        }
        match self.list(repo) {
            Ok(files) => choose(repo, &files, quant).map(str::to_owned),
            Err(error) if error.is::<crate::progress::Interrupted>() || here.is_empty() => Err(error),
            Err(error) => from_cache(format!("the hub does not list what there is: {error:#}")),
        }
    }

    /// The paths of all files in `repo`.
    fn list(&self, repo: &Repo) -> Result<Vec<String>> {
        let mut files = Vec::new();
        let mut next = Some(of_list(&self.client.endpoint, repo, MAIN));
        for _ in 0..MOST_PAGES {
            let Some(url) = next.take() else { break };
            let (head, text) = patiently(self.progress, || {
                let answer = self.client.get(&url, &[], self.progress)?;
                match answer.last.status {
                    200 => answer.text(MOST_LIST, self.progress),
                    _ => Err(refused(&answer.last, self.client.has_token())),
                }
            })?;
            let page: Vec<Listed> = serde_json::from_str(&text).map_err(|e| {
                anyhow!("{url}: the answer is no list of files ({e}); is {} a hub?", self.client.endpoint)
            })?;
            let paths = page.into_iter().filter(|entry| entry.kind == "file").map(|entry| entry.path);
            // What no path should be is not there.
            files.extend(paths.filter(|path| check_path(path).is_ok()));
            next = next_page(&head)?;
        }
        Ok(files)
    }

    /// The path of one file, fetched if it is not in the cache.
    fn file(&self, repo: &Repo, file: &str, sha256: Option<&str>) -> Result<PathBuf> {
        let files = parts(file);
        ensure!(files.len() <= MOST_PARTS, "{repo}/{file}: {} parts; at most {MOST_PARTS} are fetched", files.len());
        let which = files.iter().position(|part| part == file).unwrap_or(0);
        if let Some(mut paths) = self.cache.find(repo, &files) {
            return Ok(paths.swap_remove(which));
        }
        if self.offline {
            bail!("{repo}/{file}: is not in {}, and --offline forbids fetching it", self.cache.root().display());
        }
        let mut changes = 0;
        let mut paths = loop {
            match self.fetch(repo, &files, sha256) {
                Err(error) if error.is::<Changed>() && changes < MOST_CHANGES => changes += 1,
                fetched => break fetched?,
            }
        };
        Ok(paths.swap_remove(which))
    }

    /// Fetches `files`, all of one commit; returns where they are.
    fn fetch(&self, repo: &Repo, files: &[String], sha256: Option<&str>) -> Result<Vec<PathBuf>> {
        let mut metas: Vec<Meta> = Vec::new();
        for file in files {
            let revision = metas.first().map_or(MAIN, |first| &first.commit);
            metas.push(self.meta(repo, revision, file)?);
        }
        let commit = &metas[0].commit;
        if let (Some(wanted), [only]) = (sha256, &metas[..]) {
            let found = only.sha256().unwrap_or_default();
            let differs = !found.eq_ignore_ascii_case(wanted);
            ensure!(
                !differs,
                "{repo}/{}: the hub has another file than models.toml names (SHA-256 {found}, not {wanted})",
                files[0]
            );
        }
        let jobs: Vec<Job> = files.iter().zip(&metas).map(|(file, meta)| self.job(repo, commit, file, meta)).collect();
        self.check_room(repo, &jobs)?;
        let mut paths = Vec::new();
        for (job, file) in jobs.iter().zip(files) {
            job.run(&self.cache.lock(repo, &job.meta.etag))?;
            paths.push(self.cache.link(repo, commit, file, &job.meta.etag)?);
        }
        self.cache.set_main(repo, commit, self.progress)?;
        Ok(paths)
    }

    fn job<'j>(&'j self, repo: &Repo, commit: &str, file: &'j str, meta: &'j Meta) -> Job<'j> {
        Job {
            client: &self.client,
            // By its commit: what a branch points to may change meanwhile.
            url: of_file(&self.client.endpoint, repo, commit, file),
            meta,
            name: file.rsplit('/').next().unwrap_or(file),
            blob: self.cache.blob(repo, &meta.etag),
            place: self.cache.place(repo, commit, file),
            progress: self.progress,
            tell: self.tell,
        }
    }

    /// Holds that there is room for all that is missing, before any of it is fetched.
    fn check_room(&self, repo: &Repo, jobs: &[Job]) -> Result<()> {
        if jobs.len() < 2 {
            return Ok(());
        }
        let missing = jobs.iter().filter(|job| !job.is_there()).map(Job::missing).fold(0, u64::saturating_add);
        let root = self.cache.root();
        // The folder itself may not exist yet.
        let free = root.ancestors().find_map(free_space);
        if let Some(free) = free.filter(|free| *free < missing) {
            let (parts, missing, free) = (jobs.len(), Bytes(missing), Bytes(free));
            bail!(
                "{repo}: its {parts} files need {missing}, but the disk of {} has only {free}; HF_HUB_CACHE names another folder",
                root.display()
            );
        }
        Ok(())
    }

    /// What the hub says of a file.
    fn meta(&self, repo: &Repo, revision: &str, file: &str) -> Result<Meta> {
        let url = of_file(&self.client.endpoint, repo, revision, file);
        let heads = patiently(self.progress, || {
            let heads = self.client.head(&url, self.progress)?;
            match heads.last() {
                Some(last) if (200..400).contains(&last.status) => Ok(heads),
                Some(last) => Err(refused(last, self.client.has_token())),
                None => Err(Fault::Final(anyhow!("{url}: no answer"))),
            }
        })?;
        let first = |name: &str| heads.iter().find_map(|head| head.header(name));
        let last = |name: &str| heads.last().and_then(|head| head.header(name));
        let lacks = |what: &str| format!("{url}: the answer has no {what}; is {} a hub?", self.client.endpoint);
        let commit = first("x-repo-commit").with_context(|| lacks("X-Repo-Commit"))?;
        let etag = first("x-linked-etag").or(last("etag")).map(plain_etag).with_context(|| lacks("ETag"))?;
        let size = first("x-linked-size").or(last("content-length")).and_then(|n| n.parse().ok());
        let size = size.with_context(|| lacks("size"))?;
        check_word("its commit", commit).and_then(|()| check_word("its ETag", etag)).with_context(|| url.clone())?;
        Ok(Meta { commit: commit.to_owned(), etag: etag.to_owned(), size })
    }
}

/// All files of the model that `file` belongs to: itself, or all parts.
fn parts(file: &str) -> Vec<String> {
    let folder = file.rfind('/').map_or("", |at| &file[..=at]);
    match PartNames::of(Path::new(file)) {
        None => vec![file.to_owned()],
        Some(names) => (0..names.paths().count()).map(|no| format!("{folder}{}", names.name(no))).collect(),
    }
}

/// Where a list goes on, by its `Link` header.
fn next_page(head: &Head) -> Result<Option<String>> {
    let links = head.header("link").unwrap_or_default();
    let Some(link) = links.split(',').find(|link| link.contains("rel=\"next\"")) else { return Ok(None) };
    let Some(to) = link.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(to, _)| to) else {
        return Ok(None);
    };
    let to = redirected(&head.url, to)?;
    ensure!(origin(&to) == origin(&head.url), "{}: goes on at another server, {to}", head.url);
    Ok(Some(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_belong_together_in_their_folder() {
        assert_eq!(parts("a/b.gguf"), ["a/b.gguf"]);
        let all = parts("a/b-00002-of-00003.gguf");
        assert_eq!(all, ["a/b-00001-of-00003.gguf", "a/b-00002-of-00003.gguf", "a/b-00003-of-00003.gguf"]);
    }
}
