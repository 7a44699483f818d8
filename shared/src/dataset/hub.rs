//! Data sets by their names on the hub: found in its cache folder, fetched into it where there is a network. Of the two
//! programs this module alone speaks to a network, and only for a name that is neither a path nor in the cache.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use hf_hub::Cache;
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};

use super::hub_cache::cached;
use super::hub_name::{HubName, is_commit, is_plain};
use super::limits::DatasetLimits;
use super::locate::{candidates_of, pick};

/// How long a download may stand still.
const PATIENCE: Duration = Duration::from_secs(60);
const REPORT_EVERY: Duration = Duration::from_secs(5);
const RETRIES: usize = 3;

/// Where data sets of the hub come from.
#[derive(Debug, Clone)]
pub(super) struct Hub {
    cache: PathBuf,
    /// Instead of the crate's own.
    endpoint: Option<String>,
    token: Option<String>,
    is_offline: bool,
    patience: Duration,
}

impl Hub {
    /// As the hub's own tools read the environment: HF_HUB_CACHE, HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN.
    pub(super) fn from_env() -> Self {
        let text = |key: &str| env::var(key).ok().filter(|value| !value.trim().is_empty());
        let home = text("HF_HOME").map_or_else(
            || {
                let cache = text("XDG_CACHE_HOME").map_or_else(
                    || PathBuf::from(text("HOME").unwrap_or_default()).join(".cache"),
                    PathBuf::from,
                );
                cache.join("huggingface")
            },
            PathBuf::from,
        );
        let cache = text("HF_HUB_CACHE").or_else(|| text("HUGGINGFACE_HUB_CACHE"));
        let token_path = text("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let is_on = |key| {
            text(key).is_some_and(|value| {
                ["1", "on", "yes", "true"].contains(&value.trim().to_lowercase().as_str())
            })
        };
        Self {
            cache: cache.map_or_else(|| home.join("hub"), PathBuf::from),
            endpoint: text("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned()),
            token: text("HF_TOKEN")
                .or_else(|| fs::read_to_string(token_path).ok())
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty()),
            is_offline: is_on("HF_HUB_OFFLINE") || is_on("HF_DATASETS_OFFLINE"),
            patience: PATIENCE,
        }
    }

    #[cfg(test)]
    pub(super) fn offline(cache: &Path) -> Self {
        Self {
            cache: cache.to_owned(),
            endpoint: None,
            token: None,
            is_offline: true,
            patience: PATIENCE,
        }
    }

    /// The files of a split. What is in the cache is taken as it is, so that a run that goes on sees the rows it began with.
    pub(super) fn files(
        &self,
        name: HubName,
        split: Option<&str>,
        limits: &DatasetLimits,
    ) -> Result<Vec<PathBuf>, String> {
        name.check()?;
        let cached = cached(&self.repository(name), name, split, limits);
        let lacking = match cached {
            Ok(files) => return Ok(files),
            Err(lacking) => lacking,
        };
        let place = self.cache.display();
        if self.is_offline {
            return Err(format!(
                "no file or folder of that name; in the cache {place}: {lacking}; HF_HUB_OFFLINE forbids to fetch it"
            ));
        }
        let fetch = self.fetch(name, split);
        fetch.map_err(|reason| {
            format!("no file or folder of that name; in the cache {place}: {lacking}; {reason}")
        })
    }

    fn repository(&self, name: HubName) -> PathBuf {
        self.cache.join(name.repo().folder_name())
    }

    /// Downloads what is not there. On a thread of its own, because the crate's requests wait without end.
    fn fetch(&self, name: HubName, split: Option<&str>) -> Result<Vec<PathBuf>, String> {
        let (hub, text, split) = (self.clone(), name.text.to_owned(), split.map(str::to_owned));
        let (done, result) = mpsc::channel();
        let bytes = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&bytes);
        let title = text.clone();
        std::thread::Builder::new()
            .name("hub".to_owned())
            .spawn(move || {
                let name =
                    HubName::of(&text).ok_or_else(|| format!("{text} is no name on the hub"));
                let files = name.and_then(|name| hub.fetch_here(name, split.as_deref(), &counter));
                // Nobody waits any more when it took too long.
                let _ = done.send(files);
            })
            .map_err(|error| error.to_string())?;
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            match result.recv_timeout(REPORT_EVERY.min(self.patience)) {
                Ok(files) => return files,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("the hub gave an answer that makes no sense".to_owned());
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = bytes.load(Ordering::Relaxed);
                    if now != last {
                        (last, moved) = (now, Instant::now());
                        tracing::info!("fetching {title}: {} MiB so far", now >> 20);
                    } else if moved.elapsed() >= self.patience {
                        return Err(format!(
                            "{} gave no answer for {} s",
                            self.who(),
                            self.patience.as_secs()
                        ));
                    }
                }
            }
        }
    }

    fn fetch_here(
        &self,
        name: HubName,
        split: Option<&str>,
        counter: &Arc<AtomicU64>,
    ) -> Result<Vec<PathBuf>, String> {
        let api = self.api().map_err(|error| self.explain(name, &error))?;
        let repository = api.repo(name.repo());
        let info = repository
            .info()
            .map_err(|error| self.explain(name, &error))?;
        let paths = info.siblings.iter().map(|file| file.rfilename.as_str());
        let files = pick(candidates_of(paths), name.text, split)?;
        tracing::info!(
            "fetching {}: {} files into {}",
            name.text,
            files.len(),
            self.cache.display()
        );
        let mut local = Vec::with_capacity(files.len());
        for file in &files {
            let file = file.to_str().ok_or("a file's name is not UTF-8")?;
            local.push(self.fetch_file(&api, &repository, name, file, counter)?);
        }
        let revisions = local.iter().zip(&files).map(|(path, file)| {
            let depth = file.components().count();
            path.ancestors().nth(depth).map(Path::to_owned)
        });
        let mut revisions: Vec<_> = revisions.collect();
        revisions.dedup();
        if revisions.len() > 1 {
            return Err("it changed on the hub while it was fetched; try again".to_owned());
        }
        Ok(local)
    }

    fn fetch_file(
        &self,
        api: &Api,
        repository: &ApiRepo,
        name: HubName,
        file: &str,
        counter: &Arc<AtomicU64>,
    ) -> Result<PathBuf, String> {
        loop {
            // The crate makes paths of what the server says.
            let metadata = api
                .metadata(&repository.url(file))
                .map_err(|error| self.explain(name, &error))?;
            if !is_plain(metadata.etag()) || !is_plain(metadata.commit_hash()) {
                return Err(format!("{} gave {file} no usable tag", self.who()));
            }
            if is_commit(name.revision) && metadata.commit_hash() != name.revision {
                return Err(format!(
                    "{} gave {file} of the commit {}, not of the one that was asked for",
                    self.who(),
                    metadata.commit_hash()
                ));
            }
            let snapshots = self.repository(name).join("snapshots");
            let there = snapshots.join(metadata.commit_hash()).join(file);
            let is_whole = |path: &Path| {
                fs::metadata(path).is_ok_and(|found| found.len() == metadata.size() as u64)
            };
            if is_whole(&there) {
                return Ok(there);
            }
            match repository.download_with_progress(file, Counted(Arc::clone(counter))) {
                Ok(path) if is_whole(&path) => return Ok(path),
                Ok(path) => {
                    // The next try must not take it for whole.
                    let _ = fs::remove_file(fs::canonicalize(&path).unwrap_or_default());
                    let _ = fs::remove_file(&path);
                    return Err(format!("{file} ended before its {} bytes", metadata.size()));
                }
                Err(ApiError::LockAcquisition(_)) => {
                    tracing::info!("another process fetches {file}; waiting for it");
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => return Err(self.explain(name, &error)),
            }
        }
    }

    fn api(&self) -> Result<Api, ApiError> {
        let mut builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_token(self.token.clone())
            .with_retries(RETRIES)
            .with_progress(false);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        builder.build()
    }

    fn who(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("the hub at {endpoint} (HF_ENDPOINT)"),
            None => "the hub".to_owned(),
        }
    }

    fn explain(&self, name: HubName, error: &ApiError) -> String {
        let text: String = error
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let text: String = text.chars().take(200).collect();
        let status = |codes: &[&str]| {
            codes
                .iter()
                .any(|code| text.contains(&format!("status: {code}")))
        };
        let who = self.who();
        if status(&["404"]) {
            format!("{who} has no data set of that name{}", name.of_revision())
        } else if status(&["401", "403"]) {
            format!(
                "{who} shows no data set of that name, or only to those who may see it: set HF_TOKEN"
            )
        } else {
            format!(
                "{who} cannot be reached ({text}): fetch it where there is a network and bring the cache folder here, or give a file"
            )
        }
    }
}

/// Counts what came in.
struct Counted(Arc<AtomicU64>);

impl Progress for Counted {
    fn init(&mut self, _size: usize, _filename: &str) {}

    fn update(&mut self, size: usize) {
        self.0.fetch_add(size as u64, Ordering::Relaxed);
    }

    fn finish(&mut self) {}
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
