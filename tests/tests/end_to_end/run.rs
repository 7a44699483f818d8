//! A short run on the shipped model: the two programs with small settings in a folder that goes away.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use models::checkpoint::Checkpoint;
use tempfile::TempDir;
use tests::programs::{Background, geo_mini, geo_mini_data};

/// Only turns a hang into a failure; a short run takes seconds.
pub(crate) const HANG: Duration = Duration::from_secs(600);

/// Steps of a run unless a test asks for another number.
pub(crate) const STEPS: u64 = 4;

/// Small settings for both programs; a crash may not change where they lead.
const CONFIG: &str = r#"
[rollout]
rows = 16
threads = 1
group_size = 4
max_prompt_tokens = 128
max_response_tokens = 24

[learner]
threads = 1
algo = "dapo"
group_filter = "off"
batch_prompts = 4
lr = 1e-4
save_every = 1
"#;

/// Waits until something is so; a wait that takes too long is an error that names it.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !is_so() {
        ensure!(started.elapsed() < HANG, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

pub(crate) struct Run {
    folder: TempDir,
    steps: u64,
}

impl Run {
    pub(crate) fn new(steps: u64) -> Result<Self> {
        let folder = TempDir::new()?;
        std::fs::write(folder.path().join("settings.toml"), CONFIG)?;
        Ok(Self { folder, steps })
    }

    /// The weights after a run of so many steps that nothing disturbs.
    pub(crate) fn undisturbed(steps: u64) -> Result<Vec<f32>> {
        let run = Self::new(steps)?;
        let rollout = run.rollout()?;
        run.learner(&[])?.succeed(HANG)?;
        rollout.succeed(HANG)?;
        run.final_weights()
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn arguments(&self) -> Result<Vec<String>> {
        let text = |path: &Path| path.to_str().map(str::to_owned).context("UTF-8 path");
        Ok(vec![
            "--config".into(),
            text(&self.file("settings.toml"))?,
            "--run-dir".into(),
            text(&self.dir())?,
            "--model".into(),
            text(&geo_mini())?,
        ])
    }

    pub(crate) fn rollout(&self) -> Result<Background> {
        self.rollout_with(&[])
    }

    pub(crate) fn rollout_with(&self, more: &[&str]) -> Result<Background> {
        self.start("rollout", &self.rollout_arguments()?, more)
    }

    pub(crate) fn rollout_arguments(&self) -> Result<Vec<String>> {
        let mut arguments = self.arguments()?;
        let data = geo_mini_data("train");
        arguments.extend([
            "--data".into(),
            data.to_str().context("UTF-8 path")?.to_owned(),
        ]);
        Ok(arguments)
    }

    pub(crate) fn learner(&self, more: &[&str]) -> Result<Background> {
        self.start("learner", &self.learner_arguments()?, more)
    }

    pub(crate) fn learner_arguments(&self) -> Result<Vec<String>> {
        let mut arguments = self.arguments()?;
        arguments.extend(["--steps".into(), self.steps.to_string()]);
        Ok(arguments)
    }

    fn start(&self, name: &str, arguments: &[String], more: &[&str]) -> Result<Background> {
        let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
        all.extend(more);
        Background::start(name, &all, &self.file(&format!("{name}.log")))
    }

    /// Where a version's weights are published.
    pub(crate) fn weights(&self, version: u64) -> PathBuf {
        shared::weights::path(&self.dir(), shared::ids::PolicyVersion(version))
    }

    /// Every tensor of the last published version, as one list.
    pub(crate) fn final_weights(&self) -> Result<Vec<f32>> {
        let checkpoint = Checkpoint::open(&self.weights(self.steps))?;
        let mut values = Vec::new();
        let mut names: Vec<&str> = checkpoint.names().collect();
        names.sort_unstable();
        for name in names {
            values.extend(checkpoint.read_f32(name)?);
        }
        Ok(values)
    }
}
