//! The run folder's config.toml: what the next start of either program goes on from.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::RunConfig;
use super::error::{Error, Result};

/// Name of the file in the run folder.
pub const FILE_NAME: &str = "config.toml";

/// Writes the configuration into its run folder (which exists), readable by its owner alone, whole or not at all.
///
/// Keys whose default depends on `--algo` are written only when they were given, so that a later `--algo` brings its own
/// defaults; their values stand below as comments.
///
/// # Errors
/// When the folder is missing or full, or a path is not UTF-8.
pub fn save(config: &RunConfig) -> Result<PathBuf> {
    let path = config.run.run_dir.join(FILE_NAME);
    let text = render(config)?;
    let temporary = config.run.run_dir.join(".config.toml.new");
    let write_error = |source| Error::Write {
        path: path.clone(),
        source,
    };
    if let Err(source) = write(&temporary, &text).and_then(|()| fs::rename(&temporary, &path)) {
        // What is left of the temporary file is of no use; that it cannot be removed says nothing new.
        let _ = fs::remove_file(&temporary);
        return Err(write_error(source));
    }
    Ok(path)
}

fn render(config: &RunConfig) -> Result<String> {
    let mut text = String::from(
        "# The configuration of this run, as it was last started. Both programs read it; --config FILE and the command line win.\n\n",
    );
    text.push_str(&toml::to_string(config)?);
    text.push_str("\n# In effect, from the keys above and the defaults of algo:\n");
    for line in toml::to_string(&config.resolved())?.lines() {
        text.push_str(&format!("# {line}\n"));
    }
    Ok(text)
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
