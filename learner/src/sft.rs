//! `learner sft`: teaches a model to write worked solutions, the start that reinforcement learning needs.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use models::chat::{Content, Message};
use models::image::Patches;
use models::processor::Processor;
use rayon::prelude::{IntoParallelIterator, ParallelIterator};
use shared::dataset::{Dataset, Part, Sample, content_parts};
use shared::telemetry::Telemetry;
use tch::{Kind, Tensor};

use crate::device;
use crate::logprobs::PolicyLogprobs;
use crate::model::{Group, MicroBatch, Model};
use crate::optimizer::AdamW;
use crate::supervised::{SupervisedArgs, Visits};

/// Samples left out are named up to so many.
const MAX_NAMED: usize = 20;

/// Supervised fine-tuning on the `solution` column of a data set
#[derive(Debug, Clone, Args)]
pub struct SftArgs {
    /// What all supervised training takes.
    #[command(flatten)]
    pub common: SupervisedArgs,

    /// Leave the vision tower as it is
    #[arg(long)]
    pub freeze_vision: bool,

    /// Tokens that go through the model at once; the result does not depend on it [default: 2048 on the CPU, 16384 elsewhere]
    #[arg(long, value_name = "N")]
    pub micro_batch_tokens: Option<usize>,
}

/// One sample as the model takes it.
#[derive(Debug)]
struct Example {
    prompt_ids: Vec<u32>,
    images: Vec<Patches>,
    /// The solution's tokens and the end of sequence.
    solution_ids: Vec<u32>,
}

impl Example {
    fn group(&self) -> Group<'_> {
        Group {
            prompt_ids: &self.prompt_ids,
            images: &self.images,
            responses: vec![&self.solution_ids],
        }
    }
}

/// Trains and saves; prints a line now and then.
pub fn run(args: &SftArgs, telemetry: &Telemetry) -> Result<()> {
    let common = &args.common;
    let (processor, mut model) = common.open()?;
    if args.freeze_vision {
        model.parameters_mut().freeze("visual.")?;
    }
    let micro_batch_tokens = device::micro_batch_tokens(args.micro_batch_tokens, common.device);
    let dataset = common.dataset()?;
    let mut examples = Examples {
        processor: &processor,
        visits: common.visits(dataset.len())?,
        dataset,
        left_out: BTreeSet::new(),
    };
    let mut optimizer = AdamW::new(common.optimizer());
    let progress = telemetry.progress(Some(common.steps));
    let start = Instant::now();
    for step in 1..=common.steps {
        let batch = examples.next(common.batch)?;
        let loss = backward(&model, &batch, micro_batch_tokens)?;
        let update = optimizer.step(model.parameters_mut())?;
        progress.step(
            step,
            &format!(
                "loss {loss:.4}, gradient {:.2}, {:.1} steps/s",
                update.grad_norm,
                step as f64 / start.elapsed().as_secs_f64()
            ),
        );
    }
    if !examples.left_out.is_empty() {
        let (num, of) = (examples.left_out.len(), examples.visits.num_samples());
        tracing::warn!("{num} of {of} samples were left out");
    }
    common.save(&model)
}

/// The samples in a run's order. Where one cannot be used, the next takes its place; it is counted and named.
struct Examples<'a> {
    processor: &'a Processor,
    dataset: Dataset,
    visits: Visits,
    left_out: BTreeSet<usize>,
}

impl Examples<'_> {
    fn next(&mut self, len: usize) -> Result<Vec<Example>> {
        let mut batch = Vec::with_capacity(len);
        while batch.len() < len {
            let left_out = &self.left_out;
            let visits = self.visits.by_ref();
            let indices: Vec<usize> = visits
                .filter(|index| !left_out.contains(index))
                .take(len - batch.len())
                .collect();
            let read = |index| -> Result<_> { Ok((index, self.read(index)?)) };
            let examples: Vec<_> = indices.into_par_iter().map(read).collect::<Result<_>>()?;
            for (index, example) in examples {
                match example {
                    Ok(example) => batch.push(example),
                    Err(reason) => self.leave_out(index, &reason)?,
                }
            }
        }
        Ok(batch)
    }

    /// A sample, or why it alone cannot be used.
    fn read(&self, index: usize) -> Result<std::result::Result<Example, String>> {
        let sample = match self.dataset.get(index) {
            Ok(sample) => sample,
            Err(error) if error.is_sample() => return Ok(Err(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let label = || self.dataset.label(index, &sample.id);
        Ok(example(self.processor, &sample).map_err(|error| format!("{}: {error:#}", label())))
    }

    fn leave_out(&mut self, index: usize, reason: &str) -> Result<()> {
        if self.left_out.insert(index) && self.left_out.len() <= MAX_NAMED {
            tracing::warn!("left out: {reason}");
        }
        let is_some_left = self.left_out.len() < self.visits.num_samples();
        ensure!(
            is_some_left,
            "no sample can be used, the last one: {reason}"
        );
        Ok(())
    }
}

/// Tokens and patches of a sample.
fn example(processor: &Processor, sample: &Sample) -> Result<Example> {
    let solution = sample.solution.as_deref().context("it has no solution")?;
    let mut solution_ids = solution_ids(processor, solution)?;
    let decoded = sample
        .images
        .iter()
        .map(|bytes| processor.images.decode(bytes))
        .collect::<Result<Vec<_>, _>>()?;
    let message = user_message(&sample.problem, decoded.len())?;
    let prompt = processor.prompt(&[message], &decoded)?;
    let images = prompt
        .images
        .iter()
        .map(|image| processor.images.patches(image))
        .collect::<Result<_, _>>()?;
    let end = processor
        .config
        .tokens
        .eos
        .first()
        .context("the model has no end of sequence")?;
    solution_ids.push(*end);
    Ok(Example {
        prompt_ids: prompt.token_ids,
        images,
        solution_ids,
    })
}

/// Text is text: a control token spelled in it would be learnt as one, a turn that ends or an image that is not there.
fn solution_ids(processor: &Processor, solution: &str) -> Result<Vec<u32>> {
    let (tokenizer, tokens) = (&processor.tokenizer, &processor.config.tokens);
    let banned = tokens.banned();
    let ids = tokenizer.encode(solution)?;
    let steers =
        |id: &&u32| tokenizer.is_special(**id) || tokens.eos.contains(id) || banned.contains(id);
    match ids.iter().find(steers) {
        None => Ok(ids),
        Some(id) => bail!(
            "its solution holds the control token {}, which the model would learn as such: take it out of the data",
            tokenizer.token(*id).unwrap_or_default()
        ),
    }
}

/// The user's turn, as the rollout writes it: the problem, with its images where it places them.
fn user_message(problem: &str, num_images: usize) -> Result<Message> {
    let content = content_parts(problem, num_images)?
        .into_iter()
        .map(|part| match part {
            Part::Text(text) => Content::Text(text),
            Part::Image => Content::Image,
        });
    Ok(Message {
        role: "user".to_owned(),
        content: content.collect(),
    })
}

/// Mean negative logprob over the solution tokens of the batch; its gradient is added to the parameters.
fn backward(model: &Model, examples: &[Example], micro_batch_tokens: usize) -> Result<f64> {
    let num_tokens: usize = examples
        .iter()
        .map(|example| example.solution_ids.len())
        .sum();
    ensure!(num_tokens > 0, "an empty batch");
    let mut loss = 0.0;
    let mut rest = examples;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(fitting(rest, micro_batch_tokens));
        let batch = MicroBatch {
            groups: now.iter().map(Example::group).collect(),
        };
        let pass = PolicyLogprobs::forward(model, &batch, 1.0)?;
        loss -= pass.logprobs.sum(Kind::Double).double_value(&[]) / num_tokens as f64;
        let gradient = Tensor::full_like(&pass.logprobs, -1.0 / num_tokens as f64);
        pass.backward(model, &gradient)?;
        rest = later;
    }
    Ok(loss)
}

/// How many of the examples, at least one, stay within the budget.
fn fitting(examples: &[Example], micro_batch_tokens: usize) -> usize {
    let mut tokens = 0;
    let within = examples.iter().take_while(|example| {
        tokens += example.group().num_tokens();
        tokens <= micro_batch_tokens
    });
    within.count().max(1)
}
