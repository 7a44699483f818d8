//! LoRA (Hu et al., 2106.09685): y = W x + (alpha / R) B (A x), with W frozen.
//!
//! R rank. A starts as PEFT draws it, B at zero: before the first update the policy is the base model.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use models::names::TensorSpec;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use super::gradient;
use super::parameters::Parameter;
use super::product::Input;
use super::weight::Weight;

/// Streams of the generator from here on draw factors; those below draw weights.
const FIRST_STREAM: u64 = 1 << 32;

/// What all adapters have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraSettings {
    /// R.
    pub rank: usize,
    /// The factors' product counts alpha / R.
    pub alpha: f64,
    /// Of the draw of A.
    pub seed: u64,
}

impl LoraSettings {
    /// alpha / R.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}

/// The adapters of a model.
#[derive(Debug)]
pub struct Lora {
    settings: LoraSettings,
    /// Adapted layers in publication order.
    layers: Vec<String>,
    index: HashMap<String, usize>,
    /// A and B of the first layer, of the second, ...
    factors: Vec<Parameter>,
}

impl Lora {
    /// Without a layer yet.
    #[must_use]
    pub fn new(settings: LoraSettings) -> Self {
        Self {
            settings,
            layers: Vec::new(),
            index: HashMap::new(),
            factors: Vec::new(),
        }
    }

    /// Gives a layer its factors. `number` is its own in the model: its A is the same whatever other layers are adapted.
    pub fn add(&mut self, layer: &str, number: u64, weight: &Parameter) -> Result<()> {
        let [outputs, inputs] = weight.spec.shape[..] else {
            anyhow::bail!("{}: only a matrix can have factors", weight.spec.name)
        };
        let device = weight.tensor.device();
        let rank = self.settings.rank;
        let mut rng = ChaCha8Rng::seed_from_u64(self.settings.seed);
        rng.set_stream(FIRST_STREAM + number);
        // PEFT's kaiming_uniform_ with a = sqrt(5): uniform within 1 / sqrt(inputs).
        let bound = (inputs as f32).sqrt().recip();
        let a: Vec<f32> = (0..rank * inputs)
            .map(|_| bound * (2.0 * rng.random::<f32>() - 1.0))
            .collect();
        self.index.insert(layer.to_owned(), self.layers.len());
        self.layers.push(layer.to_owned());
        let b = vec![0.0; outputs * rank];
        for (factor, shape, values) in [("A", [rank, inputs], a), ("B", [outputs, rank], b)] {
            let spec = TensorSpec {
                name: format!("{layer}.lora_{factor}.weight"),
                shape: shape.to_vec(),
            };
            let dims = [i64::try_from(shape[0])?, i64::try_from(shape[1])?];
            let tensor = Tensor::from_slice(&values)
                .view(dims)
                .to_device(device)
                .set_requires_grad(true);
            self.factors.push(Parameter::new(spec, tensor));
        }
        Ok(())
    }

    /// What all adapters have in common.
    #[must_use]
    pub fn settings(&self) -> &LoraSettings {
        &self.settings
    }

    /// Adapted layers in publication order.
    #[must_use]
    pub fn layers(&self) -> &[String] {
        &self.layers
    }

    /// A and B of every layer, in its order.
    #[must_use]
    pub fn factors(&self) -> &[Parameter] {
        &self.factors
    }

    /// The same, to clear gradients.
    pub fn factors_mut(&mut self) -> &mut [Parameter] {
        &mut self.factors
    }

    /// Handles to a layer's factors.
    #[must_use]
    pub fn adapter(&self, layer: &str) -> Option<Adapter> {
        let first = 2 * self.index.get(layer)?;
        Some(Adapter {
            a: self.factors[first].weight(),
            b: self.factors[first + 1].weight(),
            scale: self.settings.scale(),
        })
    }

    /// Overwrites the factors in place with those of that name; all of them, and nothing else.
    pub fn reload(&mut self, mut values: HashMap<String, Tensor>) -> Result<()> {
        for factor in &mut self.factors {
            let name = &factor.spec.name;
            let source = values
                .remove(name)
                .with_context(|| format!("{name} is missing"))?;
            let (expected, got) = (factor.tensor.size(), source.size());
            ensure!(
                expected == got && source.kind() == Kind::Float,
                "{name}: expected f32 of shape {expected:?}, got {:?} of {got:?}",
                source.kind()
            );
            tch::no_grad(|| factor.tensor.copy_(&source));
        }
        ensure!(
            values.is_empty(),
            "{} tensors of other layers",
            values.len()
        );
        Ok(())
    }
}

/// The factors of one layer.
#[derive(Debug)]
pub struct Adapter {
    a: Weight, // [R, in]
    b: Weight, // [out, R]
    scale: f64,
}

impl Adapter {
    /// (alpha / R) B (A x), [.., out]; x [.., in].
    pub fn read(&self, x: &Input) -> Tensor {
        let low = x.times(&self.a.in_graph(), None) * self.scale; // [.., R]
        Input::new(&low).times(&self.b.in_graph(), None)
    }

    /// The way back: dL/dx [N, in] of y = read(x), given dL/dy [N, out]. The factors get their gradients added.
    pub fn backward(&self, x: &Input, dy: &Input) -> Result<Tensor> {
        let low = Input::new(&(x.times(self.a.value(), None) * self.scale)); // [N, R]
        low.add_weight_gradient(dy, &mut gradient::of(self.b.master())?)?;
        let by_low = Input::new(&(dy.back(self.b.value()) * self.scale)); // [N, R]
        x.add_weight_gradient(&by_low, &mut gradient::of(self.a.master())?)?;
        Ok(by_low.back(self.a.value()))
    }

    /// (alpha / R) B A, f32 [out, in]: what the layer's matrix lacks.
    pub fn product(&self) -> Tensor {
        tch::no_grad(|| self.b.master().matmul(self.a.master()) * self.scale)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn weight() -> Parameter {
        let spec = TensorSpec {
            name: "q.weight".to_owned(),
            shape: vec![30, 400],
        };
        Parameter::new(spec, Tensor::zeros([30, 400], (Kind::Float, Device::Cpu)))
    }

    fn lora(seed: u64) -> Lora {
        let settings = LoraSettings {
            rank: 5,
            alpha: 10.0,
            seed,
        };
        let mut lora = Lora::new(settings);
        lora.add("q", 3, &weight()).unwrap();
        lora
    }

    #[test]
    fn a_is_uniform_within_the_bound_and_b_is_zero() {
        let (first, again, other) = (lora(1), lora(1), lora(2));
        let values = |lora: &Lora, factor: usize| -> Vec<f32> {
            let tensor = &lora.factors()[factor].tensor;
            tensor.detach().flatten(0, 1).try_into().unwrap()
        };
        let a = values(&first, 0);
        assert_eq!(a.len(), 5 * 400);
        // torch.nn.init.kaiming_uniform_(empty(5, 400), a=5 ** 0.5): within 1 / sqrt(400), deviation 0.05 / sqrt(3).
        assert!(a.iter().all(|value| value.abs() <= 0.05));
        let mean_square = a.iter().map(|value| value * value).sum::<f32>() / 2000.0;
        assert!((mean_square.sqrt() - 0.05 / 3.0_f32.sqrt()).abs() < 1e-3);
        assert_eq!(a, values(&again, 0));
        assert_ne!(a, values(&other, 0));
        assert!(values(&first, 1).iter().all(|&value| value == 0.0));
        assert_eq!(first.factors()[1].spec.shape, [30, 5]);
    }

    #[test]
    fn only_factors_of_the_same_layers_and_rank_come_back() {
        let reload = |tensors: &[(&str, [i64; 2])]| {
            let values = tensors.iter().map(|&(name, shape)| {
                let ones = Tensor::ones(shape, (Kind::Float, Device::Cpu));
                (name.to_owned(), ones)
            });
            let mut lora = lora(1);
            let result = lora.reload(values.collect());
            (result.map_err(|error| error.to_string()), lora)
        };
        let (a, b) = (("q.lora_A.weight", [5, 400]), ("q.lora_B.weight", [30, 5]));
        let (result, lora) = reload(&[a, b]);
        result.unwrap();
        // 2 x the sum over 5 ranks.
        let product = lora.adapter("q").unwrap().product();
        assert_eq!(product.size(), [30, 400]);
        assert_eq!(product.min().double_value(&[]), 10.0);
        assert!(
            reload(&[a])
                .0
                .unwrap_err()
                .contains("lora_B.weight is missing")
        );
        assert!(reload(&[a, b, ("k.lora_A.weight", [5, 4])]).0.is_err());
        assert!(
            reload(&[a, ("q.lora_B.weight", [30, 4])])
                .0
                .unwrap_err()
                .contains("expected f32 of shape [30, 5]")
        );
    }
}
