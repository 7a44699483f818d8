//! The command line of `learner bench`.

use clap::{Args, Command, FromArgMatches};
use models::made_up::{Shape, count};
use shared::config::{
    Device, Dtype, LearnerArgs, ObjectiveArgs, RolloutArgs, RunArgs, RunConfig, TokenArgs,
};

/// What an update of the policy takes on this machine: time, memory, and the share of each stage, on groups made up for it.
///
/// Half of each group's responses are right. Tokens and images are random, logprobs are the policy's own, as at the first
/// update of a step. `models random` makes a checkpoint of any size to measure with.
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "Advantages are made up, so --advantage changes nothing here, nor does --importance-correction.\n\nExamples:\n  learner bench --model models/geo-mini/model\n  learner bench --model FOLDER --no-tor --one-by-one\n  learner bench --model FOLDER --image 644x644 --group-size 12 --new-tokens 150 --json bench.json"
)]
pub struct BenchArgs {
    /// What is measured.
    #[command(flatten)]
    pub shape: Shape,

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

    /// What to compute in [default: f32 on the CPU, bf16 elsewhere]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub dtype: Option<Dtype>,

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
        learner.device = self.device;
        learner.dtype = self.dtype;
        learner.checkpoint_layers = self.checkpoint_layers;
        learner.freeze_vision = self.freeze_vision;
        let mut rollout: RolloutArgs = defaults();
        rollout.group_size = self.shape.group_size;
        rollout.max_response_tokens = self.shape.new_tokens;
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
