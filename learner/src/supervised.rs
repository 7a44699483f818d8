//! What `learner sft` and `learner read` have in common: their options, the order of samples, where weights come from.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use models::checkpoint::Checkpoint;
use models::processor::Processor;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use shared::config::Schedule;
use shared::dataset::{Dataset, DatasetLimits};

use crate::device;
use crate::model::{Model, folder, init};
use crate::optimizer::OptimizerSettings;

/// Unpacked rows kept in memory: a small model's whole data set.
const CACHE_BYTES: usize = 2 << 30;

/// Options of supervised training.
#[derive(Debug, Clone, Args)]
pub struct SupervisedArgs {
    /// Model folder to start from
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,

    /// Start from random weights of this seed; the model folder then needs no weights
    #[arg(long, value_name = "SEED")]
    pub init: Option<u64>,

    /// Data set: a parquet file, or a folder of them
    #[arg(long, value_name = "PATH")]
    pub data: String,

    /// Model folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// Use the first N samples only
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,

    /// Optimizer steps
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub steps: u64,

    /// Samples per step
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub batch: usize,

    /// Peak learning rate
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    pub lr: f64,

    /// Shape of the learning rate
    #[arg(long, value_enum, default_value_t = Schedule::Cosine)]
    pub schedule: Schedule,

    /// Steps over which the learning rate rises from 0
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub warmup_steps: u64,

    /// Decoupled weight decay
    #[arg(long, value_name = "RATE", default_value_t = 0.01)]
    pub weight_decay: f64,

    /// Largest norm of the gradient
    #[arg(long, value_name = "NORM", default_value_t = 1.0)]
    pub grad_clip: f64,

    /// Seed of the order of samples
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,

    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: shared::config::Device,

    /// Threads of the tensor library; equal results need equal numbers
    #[arg(long, value_name = "N")]
    pub threads: Option<i32>,

    /// Save bf16 weights: half the size
    #[arg(long)]
    pub bf16: bool,
}

impl SupervisedArgs {
    /// The processor of the model folder and the model, from its weights or from random ones.
    pub fn open(&self) -> Result<(Processor, Model)> {
        ensure!(self.batch > 0, "--batch must be at least 1");
        if let Some(threads) = self.threads {
            tch::set_num_threads(threads);
        }
        let device = device::open(self.device)?;
        let processor = Processor::from_dir(&self.model)?;
        let model = match self.init {
            Some(seed) => Model::new(
                &processor.config,
                init::random(&processor.config, seed, device)?,
                device,
            )?,
            None => Model::load(&processor.config, &Checkpoint::open(&self.model)?, device)?,
        };
        Ok((processor, model))
    }

    /// The data set, kept in memory as far as it fits: training comes back to every row.
    pub fn dataset(&self) -> Result<Dataset> {
        Ok(Dataset::open(
            &self.data,
            &DatasetLimits {
                cache_bytes: CACHE_BYTES,
                ..DatasetLimits::default()
            },
        )?)
    }

    /// What the optimizer is told.
    pub fn optimizer(&self) -> OptimizerSettings {
        OptimizerSettings {
            lr: self.lr,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: self.weight_decay,
            grad_clip: self.grad_clip,
            schedule: self.schedule,
            warmup_steps: self.warmup_steps,
            total_updates: self.steps,
        }
    }

    /// The order of samples over the whole run.
    pub fn visits(&self, len: usize) -> Result<Visits> {
        let len = self.limit.map_or(len, |limit| limit.min(len));
        ensure!(len > 0, "{}: no sample to train on", self.data);
        Ok(Visits {
            rng: ChaCha8Rng::seed_from_u64(self.seed),
            order: (0..len).collect(),
            next: len,
        })
    }

    /// Writes the model folder.
    pub fn save(&self, model: &Model) -> Result<()> {
        folder::save(model.parameters(), &self.model, &self.out, self.bf16)
            .with_context(|| format!("cannot save the model to {}", self.out.display()))
    }
}

/// Sample after sample, every epoch in another order.
#[derive(Debug)]
pub struct Visits {
    rng: ChaCha8Rng,
    order: Vec<usize>,
    next: usize,
}

impl Visits {
    /// Samples of an epoch.
    pub fn num_samples(&self) -> usize {
        self.order.len()
    }
}

impl Iterator for Visits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.next == self.order.len() {
            self.order.shuffle(&mut self.rng);
            self.next = 0;
        }
        let index = self.order[self.next];
        self.next += 1;
        Some(index)
    }
}
