//! `learner read`: teaches the vision tower to read, before there is a decoder worth the name.
//!
//! From nothing, end-to-end training does not find out that answers stand in the image. So a linear head, thrown away
//! afterwards, predicts from each merged image token the number written there, digit by digit. The decoder is left as it
//! is; the tower and its merger are trained.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use models::image::Patches;
use models::names::TensorSpec;
use models::processor::Processor;
use rayon::prelude::{IntoParallelIterator, ParallelIterator};
use shared::dataset::Sample;
use shared::telemetry::Telemetry;
use tch::{Device, Kind, Tensor, no_grad};

use crate::labels::token_labels;
use crate::model::{Model, Parameter, Parameters};
use crate::optimizer::AdamW;
use crate::supervised::SupervisedArgs;

/// Digits of a label, hundreds first.
const DIGITS: i64 = 3;
/// Classes of a digit: 0 to 9, and none.
const CLASSES: i64 = 11;
/// The class of a digit that is not written: before the first one, or where there is no label.
const NO_DIGIT: i64 = 10;

/// Teaching the vision tower to read the numbers in the `token_labels` column of a data set
#[derive(Debug, Clone, Args)]
pub struct ReadArgs {
    /// What all supervised training takes.
    #[command(flatten)]
    pub common: SupervisedArgs,
}

/// Trains and saves; says at the end how many labels of the last steps were read exactly.
pub fn run(args: &ReadArgs, telemetry: &Telemetry) -> Result<()> {
    let common = &args.common;
    let (processor, model) = common.open()?;
    let dataset = common.dataset()?;
    let labels = token_labels(Path::new(&common.data))?;
    ensure!(
        labels.len() == dataset.len(),
        "{}: {} rows, but {} of token labels",
        common.data,
        dataset.len(),
        labels.len()
    );
    let mut visits = common.visits(dataset.len())?;
    let head = head(&model)?;
    let mut trained = trained(&model, &head);
    let mut optimizer = AdamW::new(common.optimizer());
    let progress = telemetry.progress(Some(common.steps));
    let start = Instant::now();
    let mut recent = Recent::default();
    for step in 1..=common.steps {
        let indices: Vec<usize> = visits.by_ref().take(common.batch).collect();
        let samples = indices
            .iter()
            .map(|&index| dataset.get(index))
            .collect::<Result<Vec<_>, _>>()?;
        let pairs: Vec<_> = samples
            .iter()
            .zip(indices.iter().map(|&index| &labels[index]))
            .collect();
        let batch = pairs
            .into_par_iter()
            .map(|(sample, labels)| example(&processor, sample, labels))
            .collect::<Result<Vec<_>>>()?;
        let outcome = backward(&model, &head, &batch)?;
        optimizer.step(&mut trained)?;
        let read = recent.add(&outcome);
        let speed = step as f64 / start.elapsed().as_secs_f64();
        progress.step(
            step,
            &format!(
                "loss {:.4}, {:.1} % of the labels read, {speed:.1} steps/s",
                outcome.loss,
                100.0 * read
            ),
        );
    }
    drop(progress);
    tracing::info!(
        "{:.1} % of the labels read exactly at the end",
        100.0 * recent.share
    );
    common.save(&model)
}

/// One image and the class of each digit at each of its merged tokens, [tokens * DIGITS].
#[derive(Debug)]
struct Example {
    patches: Patches,
    classes: Vec<i64>,
}

/// What one step saw.
#[derive(Debug)]
struct Outcome {
    loss: f64,
    /// Tokens with a label, and those of them whose digits are all right.
    num_labels: f64,
    num_read: f64,
}

/// Share of labels read exactly, over the last steps.
#[derive(Debug, Default)]
struct Recent {
    share: f64,
    steps: u32,
}

impl Recent {
    fn add(&mut self, outcome: &Outcome) -> f64 {
        let share = outcome.num_read / outcome.num_labels.max(1.0);
        self.steps = (self.steps + 1).min(100);
        self.share += (share - self.share) / f64::from(self.steps);
        self.share
    }
}

/// The head's weight and bias, from zero.
fn head(model: &Model) -> Result<Parameters> {
    let width = i64::try_from(model.config().vision.out_hidden_size)?;
    let entry = |name: &str, shape: &[i64]| -> Result<Parameter> {
        let spec = TensorSpec {
            name: name.to_owned(),
            shape: shape
                .iter()
                .map(|&dim| usize::try_from(dim))
                .collect::<Result<_, _>>()?,
        };
        let zeros = Tensor::zeros(shape, (Kind::Float, model.device()));
        Ok(Parameter::new(spec, zeros.set_requires_grad(true)))
    };
    Ok(Parameters::from_entries(vec![
        entry("head.weight", &[DIGITS * CLASSES, width])?,
        entry("head.bias", &[DIGITS * CLASSES])?,
    ]))
}

/// The vision tower and the head under one optimizer; handles to the same tensors.
fn trained(model: &Model, head: &Parameters) -> Parameters {
    let tower = model
        .parameters()
        .iter()
        .filter(|parameter| parameter.spec.name.starts_with("visual."));
    let all = tower.chain(head.iter());
    Parameters::from_entries(all.map(Parameter::handle).collect())
}

/// Patches and classes of a sample's one image.
fn example(processor: &Processor, sample: &Sample, labels: &[Option<u32>]) -> Result<Example> {
    let [bytes] = sample.images.as_slice() else {
        bail!(
            "sample {}: expected one image, got {}",
            sample.id,
            sample.images.len()
        )
    };
    let decoded = processor
        .images
        .decode(bytes)
        .with_context(|| format!("sample {}", sample.id))?;
    let patches = processor
        .images
        .patches(&processor.images.resize(&decoded)?)?;
    let merge = processor.config.vision.spatial_merge_size;
    let num_tokens = patches.grid.t * patches.grid.h * patches.grid.w / (merge * merge);
    ensure!(
        labels.len() == num_tokens,
        "sample {}: {} token labels, but the image has {num_tokens} tokens",
        sample.id,
        labels.len()
    );
    Ok(Example {
        patches,
        classes: labels.iter().flat_map(|label| classes(*label)).collect(),
    })
}

/// Hundreds, tens and units of a label, without leading zeros.
fn classes(label: Option<u32>) -> [i64; 3] {
    let Some(label) = label else {
        return [NO_DIGIT; 3];
    };
    let digit = |power: u32| {
        let is_written = label >= power || power == 1;
        if is_written {
            i64::from(label / power % 10)
        } else {
            NO_DIGIT
        }
    };
    [digit(100), digit(10), digit(1)]
}

/// Mean cross-entropy of the digits at the labelled tokens; its gradient is added to tower and head.
fn backward(model: &Model, head: &Parameters, batch: &[Example]) -> Result<Outcome> {
    let patches: Vec<&Patches> = batch.iter().map(|example| &example.patches).collect();
    let classes: Vec<i64> = batch
        .iter()
        .flat_map(|example| &example.classes)
        .copied()
        .collect();
    let classes = Tensor::from_slice(&classes)
        .to_device(model.device())
        .view([-1, DIGITS]); // [tokens, 3]
    let labelled = classes
        .select(1, DIGITS - 1)
        .not_equal(NO_DIGIT)
        .nonzero()
        .squeeze_dim(1); // [m]
    let num_labels = labelled.size1()?;
    ensure!(num_labels > 0, "no label in {} images", batch.len());
    let classes = classes.index_select(0, &labelled); // [m, 3]
    let embeds = model.image_embeds(&patches)?.index_select(0, &labelled); // [m, E]
    let logits = embeds
        .linear(&head.get("head.weight")?, Some(&head.get("head.bias")?))
        .view([-1, DIGITS, CLASSES]); // [m, 3, 11]
    let logprobs = logits.log_softmax(-1, Kind::Float);
    let loss = -logprobs
        .gather(2, &classes.unsqueeze(2), false)
        .mean(Kind::Float);
    loss.f_backward()?;
    let read = no_grad(|| {
        logits
            .argmax(-1, false)
            .eq_tensor(&classes)
            .all_dim(-1, false)
            .sum(Kind::Double)
    });
    Ok(Outcome {
        loss: loss.double_value(&[]),
        num_labels: num_labels as f64,
        num_read: read.to_device(Device::Cpu).double_value(&[]),
    })
}

#[cfg(test)]
mod tests {
    use super::classes;

    #[test]
    fn digits_without_leading_zeros() {
        assert_eq!(classes(None), [10, 10, 10]);
        assert_eq!(classes(Some(0)), [10, 10, 0]);
        assert_eq!(classes(Some(7)), [10, 10, 7]);
        assert_eq!(classes(Some(30)), [10, 3, 0]);
        assert_eq!(classes(Some(105)), [1, 0, 5]);
    }
}
