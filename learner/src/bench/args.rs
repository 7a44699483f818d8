//! The command line of `learner bench`.

use std::path::PathBuf;

use clap::{Args, Command, FromArgMatches, ValueHint};
use models::made_up::ImageSize;
use shared::config::{
    Device, LearnerArgs, ObjectiveArgs, RolloutArgs, RunArgs, RunConfig, TokenArgs,
};

/// What an update of the policy takes on this machine: time, memory, and the share of each stage, on groups made up for it.
///
/// Half of each group's responses are right. Tokens and images are random, logprobs are the policy's own, as at the first
/// update of a step. `models random` makes a checkpoint of any size to measure with.
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "Examples:\n  learner bench --model models/geo-mini/model\n  learner bench --model FOLDER --no-tor --one-by-one\n  learner bench --model FOLDER --image 644x644 --group-size 12 --new-tokens 150 --json bench.json"
)]
pub struct BenchArgs {
    /// Hugging Face folder
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, default_value = "models/geo-mini/model")]
    pub model: PathBuf,

    /// Prompts of the update
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count)]
    pub prompts: usize,

    /// Responses per prompt
    #[arg(long, value_name = "G", default_value_t = 8, value_parser = count)]
    pub group_size: usize,

    /// Tokens of each response
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = count)]
    pub new_tokens: usize,

    /// Size of each prompt's image in pixels; none = text only
    #[arg(long, value_name = "WxH", default_value = "224x224")]
    pub image: ImageSize,

    /// Text tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = count)]
    pub prompt_tokens: usize,

    /// Tokens that pass through the network at once [default: 2048 on the CPU, 16384 elsewhere]
    #[arg(long, value_name = "N", value_parser = count)]
    pub micro_batch_tokens: Option<usize>,

    /// Keep only what each layer of the decoder reads and compute the layers again on the way back
    #[arg(long)]
    pub checkpoint_layers: bool,

    /// Also the same update with each prompt computed for each of its responses
    #[arg(long)]
    pub one_by_one: bool,

    /// Leave the vision tower as it is
    #[arg(long)]
    pub freeze_vision: bool,

    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Cpu)]
    pub device: Device,

    /// Compute threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = count)]
    pub threads: Option<usize>,

    /// Rounds; the table shows medians
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count)]
    pub rounds: usize,

    /// Seed of the groups
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Write everything to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,

    /// The objective, as for a run.
    #[command(flatten)]
    pub objective: ObjectiveArgs,

    /// The token weights, as for a run.
    #[command(flatten)]
    pub tokens: TokenArgs,
}

impl BenchArgs {
    /// A run's configuration with this objective and defaults for the rest.
    pub(super) fn config(&self) -> RunConfig {
        let mut learner: LearnerArgs = defaults();
        learner.objective = self.objective.clone();
        learner.tokens = self.tokens.clone();
        let mut rollout: RolloutArgs = defaults();
        rollout.group_size = self.group_size;
        rollout.max_response_tokens = self.new_tokens;
        RunConfig {
            run: defaults::<RunArgs>(),
            rollout,
            learner,
        }
    }
}

/// Options as they are when none is given.
fn defaults<T: Args + FromArgMatches>() -> T {
    let command = T::augment_args(Command::new("defaults"));
    let matches = command.get_matches_from(["defaults"]);
    // Every option of a run has a default: clap has just filled them in.
    T::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn count(text: &str) -> Result<usize, String> {
    text.parse::<usize>()
        .ok()
        .filter(|count| (1..=1 << 20).contains(count))
        .ok_or_else(|| "expected a whole number of at least 1".to_owned())
}
