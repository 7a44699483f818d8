//! What the optimizer is told, and the learning rate of each update.

use shared::config::{LearnerArgs, Schedule};

/// What the optimizer is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerSettings {
    /// Peak learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay, on every parameter.
    pub weight_decay: f64,
    /// Largest global norm of the gradient.
    pub grad_clip: f64,
    /// Shape of the learning rate over the run.
    pub schedule: Schedule,
    /// Updates over which the learning rate rises from 0.
    pub warmup_steps: u64,
    /// Updates of the whole run: where linear and cosine reach 0.
    pub total_updates: u64,
}

impl OptimizerSettings {
    /// The configuration's optimizer; `updates_per_step` are the optimizer steps of one full rollout batch.
    #[must_use]
    pub fn new(args: &LearnerArgs, updates_per_step: usize) -> Self {
        Self {
            lr: args.lr,
            beta1: args.adam_beta1,
            beta2: args.adam_beta2,
            weight_decay: args.weight_decay,
            grad_clip: args.grad_clip,
            schedule: args.schedule,
            warmup_steps: args.warmup_steps,
            total_updates: args.steps.saturating_mul(updates_per_step as u64),
        }
    }

    /// The learning rate of the update that comes after `num_updates` ones: a straight rise over the warm-up that
    /// reaches the peak with its last update, then constant, or down to 0 at the end along a line or half a cosine.
    #[must_use]
    pub fn lr_at(&self, num_updates: u64) -> f64 {
        if num_updates < self.warmup_steps {
            return self.lr * (num_updates + 1) as f64 / self.warmup_steps as f64;
        }
        let after_warmup = self.total_updates.saturating_sub(self.warmup_steps).max(1);
        let progress = ((num_updates - self.warmup_steps) as f64 / after_warmup as f64).min(1.0);
        match self.schedule {
            Schedule::Constant => self.lr,
            Schedule::Linear => self.lr * (1.0 - progress),
            Schedule::Cosine => self.lr * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(schedule: Schedule, warmup_steps: u64) -> OptimizerSettings {
        OptimizerSettings {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.01,
            grad_clip: 1.0,
            schedule,
            warmup_steps,
            total_updates: 10,
        }
    }

    #[test]
    fn schedules_rise_and_fall() {
        let linear = settings(Schedule::Linear, 2);
        let rates: Vec<f64> = (0..12).map(|update| linear.lr_at(update)).collect();
        assert_eq!(rates[..3], [0.05, 0.1, 0.1]);
        assert!((rates[6] - 0.05).abs() < 1e-12 && rates[10] == 0.0 && rates[11] == 0.0);
        let cosine = settings(Schedule::Cosine, 0);
        assert!((cosine.lr_at(5) - 0.05).abs() < 1e-12 && cosine.lr_at(10) < 1e-12);
        assert_eq!(settings(Schedule::Constant, 0).lr_at(99), 0.1);
    }
}
