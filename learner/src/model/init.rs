//! Weights to start from nothing, for models small enough to be trained here.

use anyhow::Result;
use models::config::ModelConfig;
use models::names::{self, TensorSpec};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Device;

use super::parameters::Parameters;

/// Standard deviation of the token embeddings: about what the normalised stream of a small decoder works with.
const EMBEDDING_STD: f64 = 0.3;

/// Draws all parameters: matrices normal with variance 1 / fan-in, those that write into a residual stream divided by
/// sqrt(2 * layers) so that the stream does not grow with depth, norms one, biases zero. Equal seeds, equal weights.
pub fn random(config: &ModelConfig, seed: u64, device: Device) -> Result<Parameters> {
    let mut stream = 0;
    Parameters::from_values(config, device, |spec| {
        // A stream per tensor: another vocabulary leaves the vision tower as it is.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        stream += 1;
        Ok(values(spec, config, &mut rng))
    })
}

/// One tensor's values.
fn values(spec: &TensorSpec, config: &ModelConfig, rng: &mut impl Rng) -> Vec<f32> {
    let count: usize = spec.shape.iter().product();
    let name = spec.name.as_str();
    if name.ends_with(".bias") {
        return vec![0.0; count];
    }
    if spec.shape.len() == 1 {
        return vec![1.0; count];
    }
    let std = if name == names::EMBED_TOKENS {
        EMBEDDING_STD
    } else {
        let fan_in: usize = spec.shape[1..].iter().product();
        let layers = if name.starts_with("visual.") {
            config.vision.depth
        } else {
            config.text.num_layers
        };
        let writes_residual = ["o_proj.weight", "attn.proj.weight", "down_proj.weight"]
            .iter()
            .any(|end| name.ends_with(end));
        let shrink = if writes_residual {
            ((2 * layers) as f64).sqrt()
        } else {
            1.0
        };
        1.0 / ((fan_in as f64).sqrt() * shrink)
    };
    (0..count).map(|_| narrow(std * normal(rng))).collect()
}

/// A standard normal number (Box-Muller, one of the pair).
fn normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt(); // 1 - u is never 0
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is what is wanted"
)]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::normal;

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let numbers: Vec<f64> = (0..100_000).map(|_| normal(&mut rng)).collect();
        let mean = numbers.iter().sum::<f64>() / 1e5;
        let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e5;
        let kurtosis = numbers.iter().map(|x| (x - mean).powi(4)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03 && (kurtosis - 3.0).abs() < 0.2);
    }
}
