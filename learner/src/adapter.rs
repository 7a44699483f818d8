//! LoRA adapters on disk, as PEFT has them: `adapter_model.safetensors` and `adapter_config.json`.
//!
//! `PeftModel.from_pretrained(base, folder)` takes the folder. It lies in a checkpoint, and not directly: transformers would
//! then take the checkpoint, whose weights are merged already, for an adapter.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use models::checkpoint::Checkpoint;
use models::names::TensorSpec;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::model::lora::{Lora, LoraSettings};
use crate::model::parameters::{Parameter, Parameters, write_safetensors};

const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";
/// PEFT's wrapper and the model in it.
const KEY_PREFIX: &str = "base_model.model.";
/// A merged matrix may be this far from the same merged elsewhere, relative to its values and to what was merged.
const ROUNDING: f64 = 2e-6;
/// The same of a base that is stored in bf16 now and was not then.
const BF16_ROUNDING: f64 = 1.0 / 256.0;

/// The keys of `adapter_config.json` that are read again.
#[derive(Debug, Serialize, Deserialize)]
struct AdapterConfig {
    r: usize,
    lora_alpha: f64,
    target_modules: Vec<String>,
}

/// Writes the folder; `base` is where the frozen weights are.
pub fn save(folder: &Path, lora: &Lora, base: &Path) -> Result<()> {
    let keyed = |factor: &Parameter| TensorSpec {
        name: format!("{KEY_PREFIX}{}", factor.spec.name),
        shape: factor.spec.shape.clone(),
    };
    let specs: Vec<TensorSpec> = lora.factors().iter().map(keyed).collect();
    let factors = specs
        .iter()
        .zip(lora.factors())
        .map(|(spec, factor)| (spec, || factor.tensor.shallow_clone()));
    write_safetensors(factors, Kind::Float, &folder.join(WEIGHTS))?;
    let config = serde_json::json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.settings().rank,
        "lora_alpha": lora.settings().alpha,
        "target_modules": lora.layers().iter().map(|layer| target(layer)).collect::<Vec<_>>(),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "use_rslora": false,
        "use_dora": false,
        "modules_to_save": null,
        "inference_mode": true,
    });
    let path = folder.join(CONFIG);
    fs::write(&path, serde_json::to_vec_pretty(&config)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A layer as PEFT's target: the end of its name, which no other layer has, from the list of layers on. What stands before
/// that differs between versions of transformers.
fn target(layer: &str) -> &str {
    layer.split_once('.').map_or(layer, |(_, end)| end)
}

/// Refuses a checkpoint of another adapter, of one where there shall be none, and the other way round. `saved` and `folder`
/// are the checkpoint and its adapter.
pub fn check(
    saved: &Path,
    folder: Option<&Path>,
    lora: Option<(&LoraSettings, &[String])>,
) -> Result<()> {
    let Some(folder) = folder else {
        ensure!(
            lora.is_none(),
            "{} was trained without LoRA: leave --lora-rank out, or start another run with --model {0}",
            saved.display()
        );
        return Ok(());
    };
    let path = folder.join(CONFIG);
    let read = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: AdapterConfig =
        serde_json::from_slice(&read).with_context(|| path.display().to_string())?;
    let Some((settings, layers)) = lora else {
        bail!(
            "{} was trained with LoRA: give --lora-rank {}, or start another run with --model {0}",
            saved.display(),
            config.r
        )
    };
    // JSON does not keep the last bit.
    let is_alpha = (config.lora_alpha / settings.alpha - 1.0).abs() < 1e-12;
    ensure!(
        config.r == settings.rank && is_alpha,
        "{} was trained with --lora-rank {} --lora-alpha {}: only these go on from it",
        saved.display(),
        config.r,
        config.lora_alpha
    );
    ensure!(
        layers
            .iter()
            .map(|layer| target(layer))
            .eq(&config.target_modules),
        "{} has adapters of other layers: give the --lora-targets and --freeze that it was trained with",
        saved.display()
    );
    Ok(())
}

/// Overwrites the adapters in place with those of a folder.
pub fn load(folder: &Path, lora: &mut Lora) -> Result<()> {
    let path = folder.join(WEIGHTS);
    let tensors = Tensor::read_safetensors(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let mut values = HashMap::with_capacity(tensors.len());
    for (key, tensor) in tensors {
        let name = key.strip_prefix(KEY_PREFIX).with_context(|| {
            format!("{}: {key}: no name of an adapter's tensor", path.display())
        })?;
        values.insert(name.to_owned(), tensor);
    }
    lora.reload(values)
        .with_context(|| path.display().to_string())
}

/// Refuses a base that is not the one the adapters were trained on: merged they must give the checkpoint's weights.
pub fn check_base(parameters: &Parameters, merged: &Checkpoint, base: &Path) -> Result<()> {
    for parameter in parameters.iter() {
        let name = &parameter.spec.name;
        let saved =
            Tensor::from_slice(&merged.read_f32(name)?).to_device(parameter.tensor.device());
        let own = parameter.tensor.detach().flatten(0, -1);
        let is_same = match parameters.adapted(name) {
            // What is stored in bf16 is the same if it rounds to the same.
            None => own.equal(&saved.to_kind(own.kind())),
            Some(part) => {
                let part = part.flatten(0, -1);
                let rounding = match own.kind() {
                    Kind::Float => ROUNDING,
                    _ => BF16_ROUNDING,
                };
                let tolerance = (saved.abs() + part.abs().max()) * rounding;
                let distance = (own + part - &saved).abs();
                // Written so that a NaN is no match.
                distance
                    .less_equal_tensor(&tolerance)
                    .all()
                    .int64_value(&[])
                    != 0
            }
        };
        ensure!(
            is_same,
            "{} is not the model that the adapter was trained on ({name} differs): give --model the one that the run started from",
            base.display()
        );
    }
    Ok(())
}
