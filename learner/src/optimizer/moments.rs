//! What AdamW remembers of a parameter, and the step that it takes.

use anyhow::Result;
use tch::Tensor;

use super::settings::OptimizerSettings;

/// Added to the square root of the second moment.
const ADAM_EPSILON: f64 = 1e-8;

/// The state of one parameter, f32 on its device.
#[derive(Debug)]
pub(super) struct Moments {
    /// Updates of this parameter.
    pub(super) num_updates: u64,
    /// First moment.
    pub(super) exp_avg: Tensor,
    /// Second moment.
    pub(super) exp_avg_sq: Tensor,
}

impl Moments {
    /// Of a parameter that has had no update.
    pub(super) fn zeros(parameter: &Tensor) -> Self {
        Self {
            num_updates: 0,
            exp_avg: parameter.zeros_like(),
            exp_avg_sq: parameter.zeros_like(),
        }
    }

    /// One AdamW step of the parameter. All of it in place: the gradient's memory is used up.
    ///
    /// With m, v the moments and c1, c2 their corrections, the parameter moves by
    /// -lr / c1 m / (sqrt(v / c2) + eps) = m / (-(sqrt(v) + eps sqrt(c2)) c1 / (lr sqrt(c2))).
    pub(super) fn apply(
        &mut self,
        settings: &OptimizerSettings,
        lr: f64,
        parameter: &Tensor,
        gradient: &mut Tensor,
    ) -> Result<()> {
        let OptimizerSettings {
            beta1,
            beta2,
            weight_decay,
            ..
        } = *settings;
        self.num_updates += 1;
        let correction1 = 1.0 - beta1.powf(self.num_updates as f64);
        let correction2 = 1.0 - beta2.powf(self.num_updates as f64);
        let mut parameter = parameter.shallow_clone();
        let _ = parameter.f_mul_scalar_(1.0 - lr * weight_decay)?;
        let _ = self.exp_avg.f_lerp_(gradient, 1.0 - beta1)?;
        let _ = gradient.f_mul_scalar_((1.0 - beta2).sqrt())?;
        let _ = self
            .exp_avg_sq
            .f_mul_scalar_(beta2)?
            .f_addcmul_(gradient, gradient)?;
        let root = correction2.sqrt();
        // A rate of 0 divides by -infinity: the parameter stays.
        let divisor = self
            .exp_avg_sq
            .f_sqrt_out(gradient)?
            .f_add_scalar_(ADAM_EPSILON * root)?
            .f_mul_scalar_(-correction1 / (lr * root))?;
        let _ = parameter.f_addcdiv_(&self.exp_avg, &divisor)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use shared::config::Schedule;

    use super::*;

    const SETTINGS: OptimizerSettings = OptimizerSettings {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        weight_decay: 0.01,
        grad_clip: 1.0,
        schedule: Schedule::Constant,
        warmup_steps: 0,
        total_updates: 10,
    };

    #[test]
    fn three_steps_match_the_formula() {
        // AdamW(lr=0.1, weight_decay=0.01) on p = [1, -2, 0.5], its formula in f64, for the gradients below.
        let parameter = Tensor::from_slice(&[1.0_f32, -2.0, 0.5]);
        let mut moments = Moments::zeros(&parameter);
        for gradient in [[0.1_f32, -0.2, 0.3], [0.0, 0.5, -1.0], [2.0, 0.0, 1e-9]] {
            let mut gradient = Tensor::from_slice(&gradient);
            moments
                .apply(&SETTINGS, 0.1, &parameter, &mut gradient)
                .unwrap();
        }
        let values: Vec<f32> = parameter.try_into().unwrap();
        let expected = [0.7638783, -1.9725666, 0.4909043];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{values:?}");
        }
    }

    #[test]
    fn a_rate_of_zero_changes_nothing() {
        let parameter = Tensor::from_slice(&[1.0_f32, -2.0]);
        let mut moments = Moments::zeros(&parameter);
        let mut gradient = Tensor::from_slice(&[0.0_f32, 3.0]);
        moments
            .apply(&SETTINGS, 0.0, &parameter, &mut gradient)
            .unwrap();
        let values: Vec<f32> = parameter.try_into().unwrap();
        assert_eq!(values, [1.0, -2.0]);
    }
}
