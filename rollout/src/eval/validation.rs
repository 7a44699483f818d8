//! A run's validation: the weights in use answer a data set as `rollout eval` would have them do, between two batches.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use models::processor::Processor;
use shared::config::{RolloutArgs, RunConfig};
use shared::ids::PolicyVersion;
use shared::validation::{self, Validation};
use shared::weights;
use xxhash_rust::xxh3::Xxh3;

use super::asker::{Asker, Skipped};
use super::greedy;
use super::interval::{interval, mean, to_f64};
use super::predictions::{Prediction, Predictions, Settings};
use super::prompts::{ImageRule, Prompts, Protocol};
use super::questions::Questions;
use crate::engine::Engine;
use crate::reward::Verifier;
use crate::sampler::Sampling;

/// Of why a sample was skipped: a data set may hold names of any length.
const MAX_REASON_CHARS: usize = 300;

/// What a rollout without the data set says when it would have to validate.
pub const NO_DATA: &str = "the learner of this run validates (--validate-every), and this rollout has no data set for it: \
    give --validation-data, or start the learner with --validate-every 0";

/// What a rollout with the data set says when nobody will ask for it.
const UNASKED: &str = "--validation-data has no effect: the learner of this run does not validate (start it with --validate-every N, \
    or leave the data set out)";

/// A line where the data set is not needed, by what the run folder says of the learner.
#[must_use]
pub fn unasked(config: &RunConfig) -> Option<&'static str> {
    let is_given = config.rollout.validation_data.is_some();
    (is_given && config.learner.validate_every == 0).then_some(UNASKED)
}

/// All that a validation takes beside the engine.
pub struct Validator {
    questions: Questions,
    num_questions: usize,
    prompts: Prompts,
    sampling: Sampling,
    data: String,
    limit: Option<usize>,
    settings: Settings,
}

/// The responses of a version, without verdicts.
#[derive(Debug)]
pub struct Answers {
    version: PolicyVersion,
    /// The announcement that its weights came with.
    pub publication: u64,
    data: String,
    limit: Option<usize>,
    settings: Settings,
    predictions: Vec<Prediction>,
    skipped: Skipped,
    started: Instant,
}

impl Validator {
    /// Reads the data set, if one was given. `processor` is that of the run.
    ///
    /// # Errors
    /// A data set that cannot be read; or none, where the learner will ask.
    pub fn new(config: &RunConfig, processor: &Arc<Processor>) -> Result<Option<Self>> {
        let args = &config.rollout;
        let Some(data) = args.validation_data.clone() else {
            if config.learner.validate_every > 0 {
                bail!("{NO_DATA}");
            }
            return Ok(None);
        };
        let questions =
            Questions::of_data(&data, &args.source.keys()).context("--validation-data")?;
        let limit = args.validation_limit;
        let prompts = Prompts::new(
            Arc::clone(processor),
            args.prompt_template.as_deref(),
            args.max_prompt_tokens,
            Protocol::Model,
            ImageRule::Model,
        )?;
        Ok(Some(Self {
            num_questions: limit.map_or(questions.len(), |limit| limit.min(questions.len())),
            questions,
            sampling: greedy(processor),
            settings: settings(args, config.run.seed, &data, prompts.template()),
            prompts,
            data,
            limit,
        }))
    }

    /// Answers on `engine`, which is idle and is left so, unless it is told to stop. `None` then, and when the answers are no
    /// longer wanted. The engine goes on greedily: what it drew by before is for the caller to bring back.
    ///
    /// # Errors
    /// The engine's, a data set that has become unreadable, or not one question that could be asked.
    pub fn answer(
        &self,
        engine: &mut Engine,
        publication: u64,
        is_wanted: &dyn Fn() -> bool,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<Option<Answers>> {
        let started = Instant::now();
        engine.set_sampling(self.sampling.clone())?;
        let mut asker = Asker::new(&self.questions, &self.prompts, 1, 0..self.num_questions);
        let mut predictions = Vec::with_capacity(self.num_questions);
        let mut is_whole = true;
        while let Some(made) = asker.advance(engine)? {
            predictions.extend(made);
            if is_stopping() {
                return Ok(None);
            }
            if is_whole && !is_wanted() {
                is_whole = false;
                asker.abandon();
            }
        }
        if !is_whole {
            return Ok(None);
        }
        let skipped = asker.into_skipped();
        if predictions.is_empty() {
            bail!(
                "no sample of --validation-data {} could be asked; {} were skipped, the first because of this: {}",
                self.data,
                skipped.count,
                skipped.named.first().map_or("?", String::as_str)
            );
        }
        Ok(Some(Answers {
            version: engine.version(),
            publication,
            data: self.data.clone(),
            limit: self.limit,
            settings: self.settings.clone(),
            predictions,
            skipped,
            started,
        }))
    }
}

impl Answers {
    /// Judges the responses as those of the training are judged, and writes them and what they come to into the run folder.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn finish(mut self, verifier: &Verifier, run_dir: &Path) -> Result<Validation> {
        // They came as their responses ended, each version's in another order.
        self.predictions
            .sort_by_key(|prediction| (prediction.question.index, prediction.sample));
        let mut accuracies = Vec::with_capacity(self.predictions.len());
        for prediction in &mut self.predictions {
            prediction.score(None, verifier);
            accuracies.push((prediction.question.cluster.clone(), prediction.accuracy()));
        }
        let lines = &self.predictions;
        let finished = |how: &str| lines.iter().filter(|line| line.finish == how).count();
        let flag = |flag: bool| f64::from(u8::from(flag));
        let of_clusters = accuracies
            .iter()
            .map(|(cluster, accuracy)| (cluster.as_str(), *accuracy));
        let short = |reason: &String| reason.chars().take(MAX_REASON_CHARS).collect();
        let validation = Validation {
            version: self.version,
            publication: self.publication,
            data: self.data.clone(),
            limit: self.limit,
            problems: fingerprint(lines),
            num_problems: lines.len(),
            num_right: lines.iter().filter(|line| line.is_right).count(),
            accuracy: mean(accuracies.iter().map(|(_, accuracy)| *accuracy)),
            interval: interval(of_clusters),
            well_formed: mean(lines.iter().map(|line| flag(line.is_well_formed))),
            mean_response_tokens: mean(lines.iter().map(|line| to_f64(line.num_tokens))),
            finished_stop: finished("stop"),
            finished_length: finished("length"),
            num_skipped: self.skipped.count,
            skipped: self.skipped.named.iter().map(short).collect(),
            seconds: self.started.elapsed().as_secs_f64(),
        };
        let path = validation::responses_path(run_dir, self.version);
        if let Some(folder) = path.parent() {
            shared::run_dir::create_folder(folder)?;
        }
        self.settings.model = weights::path(run_dir, self.version).display().to_string();
        let mut predictions = Predictions::nowhere(self.settings);
        for prediction in self.predictions {
            predictions.add(prediction)?;
        }
        predictions.write(&path)?;
        validation.write(run_dir)?;
        Ok(validation)
    }
}

/// Of what was asked, and its answers: the same for the same problems, whatever their file is called.
fn fingerprint(predictions: &[Prediction]) -> String {
    let mut hash = Xxh3::new();
    for Prediction {
        question, prompt, ..
    } in predictions
    {
        for text in [&question.id, prompt, &question.answer] {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
    }
    format!("{:032x}", hash.digest128())
}

/// As the file of an evaluation says how it was made.
fn settings(args: &RolloutArgs, seed: u64, data: &str, prompt_template: &str) -> Settings {
    Settings {
        benchmark: None,
        data: data.to_owned(),
        model: String::new(), // known when there are answers
        protocol: Protocol::Model,
        prompt_template: prompt_template.to_owned(),
        image_rule: ImageRule::Model,
        min_pixels: args.source.min_pixels,
        max_pixels: args.source.max_pixels,
        with_text_rows: false,
        max_prompt_tokens: args.max_prompt_tokens,
        max_response_tokens: args.max_response_tokens,
        precision: args.precision.to_string(),
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        seed,
        samples_per_problem: 1,
        verifier: args.verifier.mode,
        verifier_command: args.verifier.command.clone(),
        format_rule: args.verifier.format_rule,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command};
    use shared::config::{self, Program, RolloutArgs, RunArgs};

    use super::*;

    fn config(folder: &Path, every: u64, flags: &[&str]) -> RunConfig {
        let saved = format!("[learner]\nvalidate_every = {every}\n");
        std::fs::write(folder.join(config::FILE_NAME), saved).unwrap();
        let command = RolloutArgs::augment_args(RunArgs::augment_args(Command::new("rollout")));
        let run_dir = format!("--run-dir={}", folder.display());
        let flags = ["rollout", &run_dir]
            .into_iter()
            .chain(flags.iter().copied());
        config::load(&command.get_matches_from(flags), Program::Rollout).unwrap()
    }

    /// What the learner wrote into the run folder decides.
    #[test]
    fn a_data_set_that_nobody_asks_for_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let said = |every, flags: &[&str]| unasked(&config(folder.path(), every, flags));
        let data = ["--validation-data", "test.jsonl"];
        let line = said(0, &data).unwrap();
        assert!(
            line.contains("--validate-every N") && !line.contains("  "),
            "{line}"
        );
        assert_eq!(said(20, &data), None);
        assert_eq!(said(0, &[]), None);
    }
}
