//! The built programs as a user runs them: processes with arguments, exit codes and files left behind.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The shipped tiny model.
pub fn geo_mini() -> PathBuf {
    root().join("models/geo-mini/model")
}

/// A split (`train` or `test`) of the shipped data set.
pub fn geo_mini_data(split: &str) -> PathBuf {
    root().join(format!("models/geo-mini/data/{split}.parquet"))
}

/// The program `name`, built beside the running test.
pub fn program(name: &str) -> Result<Command> {
    let test = std::env::current_exe().context("where the test program lies")?;
    let path = test
        .ancestors()
        .nth(2)
        .map(|profile| profile.join(name))
        .context("a test program lies in target/PROFILE/deps")?;
    ensure!(
        path.is_file(),
        "{} is not built: run `cargo build --workspace` first, or `cargo test --workspace`",
        path.display()
    );
    let mut command = Command::new(path);
    command
        .current_dir(root())
        .stdin(Stdio::null())
        .env_remove("RUST_LOG")
        .env_remove("COLUMNS")
        .env("NO_COLOR", "1");
    Ok(command)
}

/// Runs a program to its end.
pub fn output(name: &str, arguments: &[&str]) -> Result<Output> {
    program(name)?
        .args(arguments)
        .output()
        .with_context(|| format!("could not start {name}"))
}

/// A program that runs in the background, its standard error in a file; killed when dropped.
pub struct Background {
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts `name`; what it prints is appended to `log`.
    pub fn start(name: &str, arguments: &[&str], log: &Path) -> Result<Self> {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)?;
        let child = program(name)?
            .args(arguments)
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Waits for the end and wants exit code 0. `at_most` only turns a hang into a failure.
    pub fn succeed(mut self, at_most: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "{status}; its log:\n{}", self.log_text());
                return Ok(());
            }
            if started.elapsed() > at_most {
                bail!(
                    "still running after {at_most:?}; its log:\n{}",
                    self.log_text()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Has it ended by itself?
    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
