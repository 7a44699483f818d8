//! How a model with a cache in rows is laid out.
//!
//! `// B rows, S new tokens of each, M slots, R rows of logits`

use models::config::ModelConfig;
use models::graph::{Cuda, CudaCache, Elements, Form, Operators, Trt};
use models::image::Grid;

use super::provider::{Profile, Provider};
use super::row_heads::HeadSettings;
use crate::error::{Error, Result};

/// The graph of a [`super::RowModel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowForm {
    /// Standard operators alone, for TensorRT.
    Trt(Operators),
    /// ONNX Runtime's GroupQueryAttention, for its CUDA provider.
    Cuda,
}

/// How a [`super::RowModel`] is laid out.
#[derive(Debug, Clone)]
pub struct RowSettings {
    /// What runs it.
    pub provider: Provider,
    /// Of weights, activations and the cache.
    pub elements: Elements,
    /// How attention sees the cache.
    pub form: RowForm,
    /// Rows of the cache: those for responses, one at least for prompts, and one for what is scored.
    pub rows: usize,
    /// Rows for responses, which are the most of a pass that brings each one token; one of more tokens has one row.
    pub decoded_rows: usize,
    /// Slots of a row: prompt and response together.
    pub slots: usize,
    /// Candidates per row.
    pub candidates: usize,
    /// Most rows of logits of a pass with one row.
    pub max_wanted: usize,
    /// Most patches of an image.
    pub max_patches: usize,
}

impl RowSettings {
    /// The form of the graphs.
    pub(super) fn form(&self) -> Form {
        let (elements, candidates) = (self.elements, Some(self.candidates));
        match self.form {
            RowForm::Trt(operators) => Form::Trt(Trt {
                elements,
                operators,
                slots: self.slots,
                candidates,
            }),
            RowForm::Cuda => Form::Cuda(Cuda {
                elements,
                cache: CudaCache::Rows,
                candidates,
            }),
        }
    }

    /// Refuses an image for which the vision tower is not built.
    pub(crate) fn check_images(&self, grids: &[Grid]) -> Result<()> {
        let most = self.max_patches;
        let patches = grids.iter().map(Grid::num_patches).find(|n| *n > most);
        patches.map_or(Ok(()), |patches| {
            Err(Error::Cache {
                reason: format!(
                    "an image of {patches} patches, and the engine takes {most}: lower --max-pixels or raise --max-prompt-tokens"
                ),
            })
        })
    }

    /// Refuses a layout in which nothing could run.
    pub(super) fn check(&self) -> Result<()> {
        let least = self.decoded_rows + 2;
        let counts = [
            self.decoded_rows,
            self.slots,
            self.max_wanted,
            self.max_patches,
        ];
        if counts.contains(&0) || self.rows < least {
            return Err(Error::Cache {
                reason: format!(
                    "{} rows of {} slots: {} responses need {least} rows",
                    self.rows, self.slots, self.decoded_rows
                ),
            });
        }
        if self.elements == Elements::Bf16 && matches!(self.provider, Provider::Cpu(_)) {
            return Err(Error::Cache {
                reason: "the CPU computes nothing in bf16: use f32".to_owned(),
            });
        }
        Ok(())
    }
}

/// Shapes of passes with up to so many rows, tokens of each and rows of logits.
pub(super) fn profile(
    config: &ModelConfig,
    settings: &RowSettings,
    head: &HeadSettings,
    [rows, width, wanted]: [usize; 3],
) -> Profile {
    let fixed = |size: usize| [size; 3];
    let up_to = |most: usize| [1, most, most];
    let (rows, width, wanted) = (up_to(rows), up_to(width), up_to(wanted));
    let images = [1, 1.max(width[1] / 2), width[2]];
    let text = &config.text;
    let mut profile: Profile = vec![
        ("input_ids".to_owned(), vec![rows, width]),
        ("position_ids".to_owned(), vec![fixed(3), rows, width]),
        (
            "image_embeds".to_owned(),
            vec![images, fixed(text.hidden_size)],
        ),
        ("image_rows".to_owned(), vec![rows, width]),
        ("token_slots".to_owned(), vec![rows, width]),
        ("logit_positions".to_owned(), vec![wanted]),
        ("chosen".to_owned(), vec![wanted]),
        ("banned".to_owned(), vec![fixed(head.banned_input().len())]),
    ];
    let heads = text.num_kv_heads;
    for layer in 0..text.num_layers {
        for kind in ["key", "value"] {
            let [heads, slots, dim] = [heads, settings.slots, text.head_dim].map(fixed);
            profile.push((
                format!("past_{kind}.{layer}"),
                vec![rows, heads, slots, dim],
            ));
        }
    }
    profile
}
