//! `--after-sync CMD`: a command of the user's after each publication.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use shared::ids::PolicyVersion;

/// Runs the command beside the training, at most one at a time. A failing command is reported and counted, no more.
#[derive(Debug)]
pub struct AfterSync {
    command: Option<String>,
    running: Option<(PolicyVersion, Child)>,
    num_failed: u64,
}

impl AfterSync {
    /// A runner of `command`, if there is one.
    #[must_use]
    pub fn new(command: Option<String>) -> Self {
        Self {
            command,
            running: None,
            num_failed: 0,
        }
    }

    /// Commands that failed so far.
    #[must_use]
    pub fn num_failed(&self) -> u64 {
        self.num_failed
    }

    /// Waits for the command of the publication before, then starts that of this one: a shell command with
    /// `TOR_VERSION` (a number), `TOR_WEIGHTS` (the safetensors file) and `TOR_RUN_DIR` in its environment.
    pub fn start(&mut self, run_dir: &Path, version: PolicyVersion, weights: &Path) {
        self.finish();
        let Some(command) = &self.command else { return };
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).stdin(Stdio::null());
        shell
            .env("TOR_VERSION", version.0.to_string())
            .env("TOR_WEIGHTS", weights)
            .env("TOR_RUN_DIR", run_dir);
        match shell.spawn() {
            Ok(child) => self.running = Some((version, child)),
            Err(error) => self.report(version, &error.to_string()),
        }
    }

    /// Waits for the running command.
    pub fn finish(&mut self) {
        let Some((version, mut child)) = self.running.take() else {
            return;
        };
        match child.wait() {
            Ok(status) if status.success() => tracing::debug!("--after-sync of {version}: done"),
            Ok(status) => self.report(version, &describe(status)),
            Err(error) => self.report(version, &error.to_string()),
        }
    }

    fn report(&mut self, version: PolicyVersion, reason: &str) {
        self.num_failed += 1;
        tracing::error!("--after-sync failed for {version} ({reason}); the run goes on");
    }
}

fn describe(status: ExitStatus) -> String {
    status.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_version_and_weights_and_counts_failures() {
        let folder = tempfile::tempdir().unwrap();
        let command = "echo $TOR_VERSION $TOR_WEIGHTS >> $TOR_RUN_DIR/seen; test $TOR_VERSION != 2";
        let mut after_sync = AfterSync::new(Some(command.to_owned()));
        for version in 1..=3 {
            after_sync.start(folder.path(), PolicyVersion(version), Path::new("w"));
        }
        after_sync.finish();
        assert_eq!(after_sync.num_failed(), 1);
        assert_eq!(
            std::fs::read_to_string(folder.path().join("seen")).unwrap(),
            "1 w\n2 w\n3 w\n"
        );
    }
}
