//! What a run trains of its model: chosen by name, and checked before anything is loaded.

use anyhow::{Result, ensure};
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use models::names::{self, TensorSpec};
use shared::config::LearnerArgs;
use tch::{Device, Kind};

use super::lora::LoraSettings;
use super::{Model, Parameters, patterns};

/// The vision tower, as a pattern.
const VISION: &str = "visual";
/// The decoder's layers, as a pattern.
const LANGUAGE: &str = "model.layers";

/// What is frozen, and which layers have adapters.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    patterns: Vec<String>,
    lora: Option<(LoraSettings, Vec<String>)>,
}

impl Selection {
    /// Resolves `--freeze`, `--freeze-vision` and `--lora-*`; what they name must exist, and something must be left.
    pub fn new(config: &ModelConfig, args: &LearnerArgs, seed: u64) -> Result<Self> {
        let specs = names::tensors(config);
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let mut patterns = args.freeze.as_deref().unwrap_or_default().to_vec();
        if args.freeze_vision {
            patterns.push(VISION.to_owned());
        }
        for pattern in &patterns {
            patterns::matching(pattern, &names)?;
        }
        let is_frozen = |name: &str| {
            let mut patterns = patterns.iter();
            patterns.any(|pattern| patterns::is_match(pattern, name))
        };
        let lora = match args.lora_rank {
            0 => None,
            rank => Some(adapted(args, rank, seed, &specs, is_frozen)?),
        };
        ensure!(
            lora.is_some() || !names.iter().all(|name| is_frozen(name)),
            "--freeze leaves nothing to train: all {} tensors are frozen",
            names.len()
        );
        Ok(Self { patterns, lora })
    }

    /// The adapters' settings and their layers, in publication order.
    #[must_use]
    pub fn lora(&self) -> Option<(&LoraSettings, &[String])> {
        let (settings, layers) = self.lora.as_ref()?;
        Some((settings, layers))
    }

    /// Whether a tensor of the model is trained itself.
    #[must_use]
    pub fn is_trained(&self, name: &str) -> bool {
        let mut patterns = self.patterns.iter();
        self.lora.is_none() && !patterns.any(|pattern| patterns::is_match(pattern, name))
    }

    /// Reads the weights, ready to train in `kind`: with LoRA those of the base, its adapters as before the first update.
    pub fn load(
        &self,
        config: &ModelConfig,
        weights: &Checkpoint,
        device: Device,
        kind: Kind,
    ) -> Result<Model> {
        let mut parameters = match &self.lora {
            // All of it will be frozen: never in f32 on the device.
            Some(_) => Parameters::load_frozen(config, weights, device, kind)?,
            None => Parameters::load(config, weights, device)?,
        };
        for pattern in &self.patterns {
            parameters.freeze(pattern)?;
        }
        if let Some((settings, layers)) = &self.lora {
            parameters.add_lora(*settings, layers)?;
        }
        parameters.compute_in(kind);
        Model::new(config, parameters, device)
    }
}

/// The layers that get adapters of this rank.
fn adapted(
    args: &LearnerArgs,
    rank: usize,
    seed: u64,
    specs: &[TensorSpec],
    is_frozen: impl Fn(&str) -> bool,
) -> Result<(LoraSettings, Vec<String>)> {
    // Tables that are looked up in are matrices, too; so is the head.
    let is_linear = |spec: &&TensorSpec| {
        let is_table = [names::EMBED_TOKENS, names::LM_HEAD].contains(&spec.name.as_str());
        spec.shape.len() == 2 && !is_table
    };
    let linear: Vec<&TensorSpec> = specs.iter().filter(is_linear).collect();
    let layers: Vec<&str> = linear
        .iter()
        .filter_map(|spec| spec.name.strip_suffix(".weight"))
        .collect();
    let targets = args.lora_targets.as_deref().unwrap_or_default();
    let mut chosen = Vec::new();
    for target in targets {
        chosen.extend(patterns::ending(target, &layers)?);
    }
    let is_chosen = |layer: &str| match targets.is_empty() {
        true => patterns::is_match(LANGUAGE, layer),
        false => chosen.contains(&layer),
    };
    let mut widest = 0;
    let mut adapted = Vec::new();
    for (spec, layer) in linear.iter().zip(&layers) {
        if is_chosen(layer) && !is_frozen(&spec.name) {
            widest = widest.max(spec.shape.iter().copied().min().unwrap_or(0));
            adapted.push((*layer).to_owned());
        }
    }
    ensure!(
        !adapted.is_empty(),
        "--freeze leaves nothing to train: every layer that LoRA would adapt is frozen"
    );
    ensure!(
        rank <= widest,
        "--lora-rank {rank} is above the rank of every layer that it would adapt: give at most {widest}"
    );
    let alpha = args.lora_alpha.unwrap_or(2.0 * rank as f64);
    Ok((LoraSettings { rank, alpha, seed }, adapted))
}
