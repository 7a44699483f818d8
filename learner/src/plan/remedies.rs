//! Whether a run fits, and what would make it fit.

use anyhow::{Result, bail};
use models::config::ModelConfig;
use shared::config::{Device, Dtype, LearnerArgs, RunConfig};

use super::Plan;
use crate::device;
use crate::memory::{self, gib};

/// What an option changes; the second is the tokens of a micro-batch before.
type Change = fn(&mut LearnerArgs, usize);

/// Says in a line what a run will take, and refuses it where that is more than its device has left.
pub fn check(config: &RunConfig, model: &ModelConfig) -> Result<()> {
    let plan = Plan::of_run(config, model, None)?;
    let device = config.learner.device;
    let Some(room) = memory::room(device) else {
        return Ok(());
    };
    if plan.total() > room.free {
        bail!(
            "the run would take about {} of memory, {device} has {} left: {} (`learner plan` lists the parts)",
            gib(plan.total()),
            gib(room.free),
            remedies(config, model, room.free)?
        );
    }
    tracing::info!("{}", plan.summary(room.free));
    Ok(())
}

/// The first options with which a run fits into `free` bytes.
pub fn remedies(config: &RunConfig, model: &ModelConfig, free: u64) -> Result<String> {
    let learner = &config.learner;
    let tokens = device::micro_batch_tokens(learner.micro_batch_tokens, learner.device);
    let mut changes: Vec<(String, Change)> = Vec::new();
    if learner.device != Device::Cpu && device::dtype(learner.dtype, learner.device) == Dtype::F32 {
        changes.push(("--dtype bf16".to_owned(), |args, _| {
            args.dtype = Some(Dtype::Bf16);
        }));
    }
    if !learner.checkpoint_layers {
        changes.push(("--checkpoint-layers".to_owned(), |args, _| {
            args.checkpoint_layers = true;
        }));
    }
    if tokens / 4 >= 512 {
        changes.push((
            format!("--micro-batch-tokens {}", tokens / 4),
            |args, tokens| {
                args.micro_batch_tokens = Some(tokens / 4);
            },
        ));
    }
    if !learner.freeze_vision {
        changes.push(("--freeze-vision".to_owned(), |args, _| {
            args.freeze_vision = true;
        }));
    }
    if learner.lora_rank == 0 {
        changes.push(("--lora-rank 64".to_owned(), |args, _| args.lora_rank = 64));
    }
    let with = |chosen: &[(String, Change)]| -> Result<(String, u64)> {
        let mut config = config.clone();
        for (_, change) in chosen {
            change(&mut config.learner, tokens);
        }
        let names: Vec<&str> = chosen.iter().map(|(name, _)| name.as_str()).collect();
        let total = Plan::of_run(&config, model, None)?.total();
        Ok((names.join(" "), total))
    };
    // Each alone, then one more of them at a time.
    let alone = changes.chunks(1);
    let together = (2..=changes.len()).map(|count| &changes[..count]);
    let mut least = None;
    for chosen in alone.chain(together) {
        let (names, total) = with(chosen)?;
        if total <= free {
            return Ok(format!("with {names} it takes {}", gib(total)));
        }
        least = Some((names, total));
    }
    Ok(match least {
        Some((names, total)) => format!("even {names} leaves {}; take a larger device", gib(total)),
        None => "take a larger device, or a smaller model".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};
    use models::config::{SpecialTokens, TextConfig, VisionConfig};

    use super::*;

    fn args<T: Args + FromArgMatches>(line: &str) -> T {
        let command = T::augment_args(Command::new("learner").no_binary_name(true));
        T::from_arg_matches(&command.get_matches_from(line.split_whitespace())).unwrap()
    }

    /// Qwen2.5-VL-3B.
    fn of_3b() -> ModelConfig {
        ModelConfig {
            text: TextConfig {
                hidden_size: 2048,
                intermediate_size: 11_008,
                num_layers: 36,
                num_heads: 16,
                num_kv_heads: 2,
                head_dim: 128,
                vocab_size: 151_936,
                max_position_embeddings: 128_000,
                rms_norm_eps: 1e-6,
                rope_theta: 1e6,
                mrope_section: [16, 24, 24],
            },
            vision: VisionConfig {
                depth: 32,
                hidden_size: 1280,
                intermediate_size: 3420,
                num_heads: 16,
                head_dim: 80,
                in_channels: 3,
                patch_size: 14,
                temporal_patch_size: 2,
                spatial_merge_size: 2,
                window_size: 112,
                out_hidden_size: 2048,
                full_attention_blocks: vec![7, 15, 23, 31],
                tokens_per_second: 2.0,
            },
            tokens: SpecialTokens {
                image: 151_655,
                video: 151_656,
                vision_start: 151_652,
                vision_end: 151_653,
                vision: Some(151_654),
                eos: vec![151_645],
                pad: 151_643,
            },
            tie_word_embeddings: true,
        }
    }

    /// What is said of it on a GPU.
    fn said(line: &str, free_gib: u64) -> String {
        let config = RunConfig {
            run: args(""),
            rollout: args(""),
            learner: args(&format!("--device cuda:0 --algo dapo {line}")),
        };
        remedies(&config, &of_3b(), free_gib << 30).unwrap()
    }

    #[test]
    fn the_first_option_that_is_enough_is_named() {
        assert!(
            said("", 78).starts_with("with --checkpoint-layers it takes 7"),
            "{}",
            said("", 78)
        );
        assert!(
            said("--checkpoint-layers", 72).starts_with("with --micro-batch-tokens 4096 it takes")
        );
        assert!(said("--dtype f32", 140).starts_with("with --dtype bf16 it takes"));
        assert!(
            said("", 40).starts_with("with --checkpoint-layers --micro-batch-tokens 4096"),
            "{}",
            said("", 40)
        );
        assert!(
            said("", 4).starts_with("even --checkpoint-layers"),
            "{}",
            said("", 4)
        );
    }
}
