//! What an engine on a device is built for: its shapes do not change while it lives.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use models::config::ModelConfig;
use models::graph::{Elements, Operators};
use shared::config::{RolloutArgs, TrtAttention};

use crate::engine::{HeadSettings, Provider, RowForm, RowLoader, RowSettings, TensorRt};
use crate::sampler::Sampling;

/// Prompts in the cache at a time: a prompt goes as soon as its last response has begun.
const PROMPT_ROWS: usize = 4;

/// Candidates of a row that come to the host: most nuclei are narrower, and a draw beyond them brings the row.
const CANDIDATES: usize = 256;

/// Rows of logits of a pass over known tokens.
const MAX_WANTED: usize = 256;

/// Slots are a multiple of this, which kernels like.
const SLOT_UNIT: usize = 64;

/// Where engines are kept, in a run's folder or the user's.
const FOLDER: &str = "tensorrt";

/// What is asked of the engine.
#[derive(Debug, Clone)]
pub struct DeviceLoad {
    /// Where TensorRT's engines are kept.
    pub folder: PathBuf,
    /// How attention is written.
    pub attention: TrtAttention,
    /// Most responses decoded side by side.
    pub rows: usize,
    /// Longest prompt and longest response in tokens.
    pub longest: [usize; 2],
    /// Most memory for keys and values.
    pub kv_cache_mib: Option<usize>,
    /// How tokens are drawn and measured.
    pub sampling: Sampling,
}

impl DeviceLoad {
    /// Of a run.
    #[must_use]
    pub fn of_run(args: &RolloutArgs, run_dir: &Path, sampling: Sampling) -> Self {
        Self {
            folder: run_dir.join(FOLDER),
            attention: args.trt_attention,
            rows: args.rows,
            longest: [args.max_prompt_tokens, args.max_response_tokens],
            kv_cache_mib: args.kv_cache_mib,
            sampling,
        }
    }

    /// The user's folder of engines, for what has no run folder.
    #[must_use]
    pub fn users_folder() -> PathBuf {
        let folder = |name| std::env::var_os(name).filter(|folder| !folder.is_empty());
        let home = || folder("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let cache = folder("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        let cache = cache.unwrap_or_else(std::env::temp_dir);
        cache.join("tor").join(FOLDER)
    }

    /// The model's graphs for TensorRT.
    ///
    /// # Errors
    /// A limit of memory without room for one response, or a model that the form does not take.
    pub fn trt(&self, config: &ModelConfig) -> Result<RowLoader> {
        let provider = Provider::TensorRt(TensorRt::new(self.folder.clone()));
        let operators = match self.attention {
            TrtAttention::Native => Operators::Native,
            TrtAttention::Decomposed => Operators::Decomposed,
        };
        self.loader(config, provider, RowForm::Trt(operators))
    }

    /// The model's graphs for ONNX Runtime's CUDA provider.
    ///
    /// # Errors
    /// As for [`Self::trt`].
    pub fn cuda(&self, config: &ModelConfig) -> Result<RowLoader> {
        self.loader(config, Provider::Cuda, RowForm::Cuda)
    }

    fn loader(&self, config: &ModelConfig, provider: Provider, form: RowForm) -> Result<RowLoader> {
        let settings = self.settings(config, provider, form, Elements::Bf16)?;
        let head = HeadSettings::new(&self.sampling, config.text.vocab_size);
        Ok(RowLoader::new(config, settings, head)?)
    }

    /// How the rows are laid out.
    ///
    /// # Errors
    /// A limit of memory without room for one response.
    pub fn settings(
        &self,
        config: &ModelConfig,
        provider: Provider,
        form: RowForm,
        elements: Elements,
    ) -> Result<RowSettings> {
        let text = &config.text;
        let [prompt, response] = self.longest;
        let slots = (prompt.saturating_add(response)).next_multiple_of(SLOT_UNIT);
        let bytes = match elements {
            Elements::F32 => 4,
            Elements::Bf16 => 2,
        };
        let row_bytes =
            slots.saturating_mul(2 * text.num_layers * text.num_kv_heads * text.head_dim * bytes);
        let others = PROMPT_ROWS + 1;
        let decoded_rows = match self.kv_cache_mib {
            None => self.rows,
            Some(mib) => {
                let rows = mib.saturating_mul(1 << 20) / row_bytes.max(1);
                if rows <= others {
                    let least = (row_bytes.saturating_mul(others + 1)).div_ceil(1 << 20);
                    bail!(
                        "--kv-cache-mib {mib} has no room on the device for one response beside {PROMPT_ROWS} prompts and what is \
                         scored: raise it to {least} or lower --max-prompt-tokens or --max-response-tokens"
                    );
                }
                self.rows.min(rows - others)
            }
        };
        let merged = config.vision.spatial_merge_size.pow(2);
        Ok(RowSettings {
            provider,
            elements,
            form,
            rows: decoded_rows + others,
            decoded_rows,
            slots,
            candidates: CANDIDATES,
            max_wanted: MAX_WANTED,
            // A prompt has a token for so many patches, and is skipped where it is too long.
            max_patches: prompt.saturating_mul(merged),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::EntropyKind;

    fn load(rows: usize, kv_cache_mib: Option<usize>) -> DeviceLoad {
        DeviceLoad {
            folder: PathBuf::from("/run/tensorrt"),
            attention: TrtAttention::Decomposed,
            rows,
            longest: [100, 50],
            kv_cache_mib,
            sampling: Sampling {
                temperature: 1.0,
                top_p: 1.0,
                top_k: 0,
                entropy: EntropyKind::Full,
                nucleus_p: 0.95,
                banned: Vec::new(),
                num_tokens: 1000,
            },
        }
    }

    #[test]
    fn rows_are_as_many_as_their_memory_holds() {
        let model = ::tests::Fixtures::open().unwrap().model();
        let config = ModelConfig::from_dir(&model).unwrap();
        let settings = |rows, mib| {
            let load = load(rows, mib);
            load.settings(&config, Provider::Cpu(1), RowForm::Cuda, Elements::Bf16)
        };
        let all = settings(64, None).unwrap();
        assert_eq!((all.decoded_rows, all.rows, all.slots), (64, 69, 192));
        let merged = config.vision.spatial_merge_size.pow(2);
        assert_eq!(all.max_patches, 100 * merged);
        let text = &config.text;
        let row = 192 * 2 * text.num_layers * text.num_kv_heads * text.head_dim * 2;
        let of_a_mib = (1 << 20) / row;
        let limited = settings(of_a_mib, Some(1)).unwrap();
        assert_eq!(limited.rows, of_a_mib);
        let error = settings(4, Some(0)).unwrap_err().to_string();
        assert!(error.contains("raise it to 1 or lower"), "{error}");
    }

    #[test]
    fn both_graphs_are_made_for_the_run() {
        let model = ::tests::Fixtures::open().unwrap().model();
        let config = ModelConfig::from_dir(&model).unwrap();
        load(4, None).trt(&config).unwrap();
        load(4, None).cuda(&config).unwrap();
    }
}
