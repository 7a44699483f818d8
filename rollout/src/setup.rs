//! Configuration -> the parts that the stages are made of.

use std::sync::Arc;

use anyhow::{Result, bail};
use models::config::TextConfig;
use models::processor::{Blank, Processor};
use shared::config::{Blank as BlankName, Entropy, RolloutArgs, RunConfig};
use shared::dataset::{Dataset, DatasetLimits};

use crate::available::Available;
use crate::dataset::Samples;
use crate::device::DeviceLoad;
use crate::engine::{EngineSettings, KvCache, Threads, blocks_of};
use crate::eval::validation::Validator;
use crate::group::RecordMaker;
use crate::load::ModelLoader;
use crate::memory::{Load, MemoryPlan};
use crate::prompt::{PromptBuilder, bounded};
use crate::reward::{RewardConfig, Verifier};
use crate::sampler::{EntropyKind, Sampling};

/// Everything that is read before the first ticket.
pub struct Setup {
    /// The model's graphs on the chosen engine.
    pub loader: ModelLoader,
    /// How to generate.
    pub engine: EngineSettings,
    /// How to verify.
    pub records: RecordMaker,
    /// The data set in the run's order.
    pub samples: Samples,
    /// How to ask.
    pub prompts: PromptBuilder,
    /// How to validate, where there is a data set for it.
    pub validator: Option<Validator>,
}

impl Setup {
    /// Reads the model's files and the data set's, and finds the engine's libraries.
    ///
    /// # Errors
    /// The first of them that is missing or wrong.
    pub fn new(config: &RunConfig) -> Result<Self> {
        let args = &config.rollout;
        let mut processor = Processor::from_dir(&config.run.model)?;
        processor.images = bounded(&processor.images, &args.source)?;
        let processor = Arc::new(processor);
        let threads = Threads::new(args.threads, args.pin_threads);
        let sampling = sampling(args, &processor);
        let loader = ModelLoader::new(
            &processor.config,
            args.engine,
            threads,
            args.precision,
            &DeviceLoad::of_run(args, &config.run.run_dir, sampling.clone()),
        )?;
        if loader.is_on_cpu() {
            MemoryPlan::new(&processor.config, Load::from(args)).check_now()?;
        }
        let dataset =
            Dataset::open_with(&args.data, &args.source.keys(), &DatasetLimits::default())?;
        let validator = Validator::new(config, &processor)?;
        let template = args.prompt_template.as_deref();
        Ok(Self {
            engine: EngineSettings {
                rows: args.rows,
                max_response_tokens: args.max_response_tokens,
                cache_blocks: cache_blocks(
                    &processor.config.text,
                    args.rows,
                    [args.max_prompt_tokens, args.max_response_tokens],
                    args.kv_cache_mib,
                )?,
                eos: processor.config.tokens.eos.clone(),
                run_seed: config.run.seed,
                sampling,
            },
            records: RecordMaker {
                tokenizer: processor.tokenizer.clone(),
                temperature: to_f32(args.temperature),
                precision: args.precision,
                verifier: Verifier::from_args(&args.verifier, config.run.seed)?,
                reward: RewardConfig::from(args),
            },
            samples: Samples::new(dataset, config.run.seed),
            prompts: PromptBuilder::new(
                Arc::clone(&processor),
                template,
                Some(blank(args.blank)),
                args.max_prompt_tokens,
            )?,
            validator,
            loader,
        })
    }
}

/// Blocks of the key/value cache: what `rows` sequences of the longest prompt and the longest response need, as far as the
/// limit allows; without one, half of the free memory, but one sequence at least.
///
/// # Errors
/// A limit that is too small for one sequence.
pub fn cache_blocks(
    text: &TextConfig,
    rows: usize,
    longest: [usize; 2],
    limit_mib: Option<usize>,
) -> Result<usize> {
    let per_row: usize = longest.map(blocks_of).iter().sum();
    let block_bytes = KvCache::block_bytes(text).max(1);
    let limit = match limit_mib {
        Some(mib) => {
            let limit = mib.saturating_mul(1 << 20) / block_bytes;
            if limit < per_row {
                bail!(
                    "--kv-cache-mib {mib} has no room for one prompt and response of the longest: raise it to {} or lower \
                     --max-prompt-tokens or --max-response-tokens",
                    (per_row * block_bytes).div_ceil(1 << 20)
                );
            }
            limit
        }
        None => {
            let free = Available::now().map_or(usize::MAX, |free| {
                usize::try_from(free.bytes).unwrap_or(usize::MAX)
            });
            (free / 2 / block_bytes).max(per_row)
        }
    };
    Ok((rows * per_row).min(limit))
}

/// The sampler's settings.
#[must_use]
pub fn sampling(args: &RolloutArgs, processor: &Processor) -> Sampling {
    Sampling {
        temperature: to_f32(args.temperature),
        top_p: to_f32(args.top_p),
        top_k: args.top_k,
        entropy: match args.entropy {
            Entropy::Renormalised => EntropyKind::Renormalised,
            Entropy::Raw => EntropyKind::Raw,
            Entropy::Full => EntropyKind::Full,
        },
        nucleus_p: to_f32(args.nucleus_p),
        banned: processor.config.tokens.banned(),
        num_tokens: processor.tokenizer.num_ids(),
    }
}

fn blank(name: BlankName) -> Blank {
    match name {
        BlankName::Empty => Blank::Empty,
        BlankName::Drop => Blank::Drop,
        BlankName::Black => Blank::Black,
        BlankName::Grey => Blank::Grey,
    }
}

/// The sampler works on f32 settings: records carry the temperature as f32, and the learner must divide by the same number.
#[expect(clippy::cast_possible_truncation, reason = "rounding is the point")]
#[must_use]
pub fn to_f32(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_has_room_for_the_rows_as_far_as_its_limit_goes() {
        let model = ::tests::Fixtures::open().unwrap().model();
        let text = models::config::ModelConfig::from_dir(&model).unwrap().text;
        let block = KvCache::block_bytes(&text);
        let blocks = |limit_mib| cache_blocks(&text, 4, [33, 64], limit_mib);
        assert_eq!(blocks(None).unwrap(), 4 * 4); // 2 blocks each for prompt and response
        assert_eq!(blocks(Some(1 << 20)).unwrap(), 16);
        // Rows that want twice what a MiB holds get what it holds.
        let of_a_mib = (1 << 20) / block;
        assert_eq!(
            cache_blocks(&text, of_a_mib, [32, 32], Some(1)).unwrap(),
            of_a_mib
        );
        let long = cache_blocks(&text, 4, [1 << 20, 64], Some(1)).unwrap_err();
        assert!(long.to_string().contains("raise it to"), "{long}");
    }
}
