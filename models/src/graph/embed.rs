//! Token embeddings, those at image tokens replaced by the images'.
//!
//! `// B rows, S new tokens per row, T = B*S, N image tokens, E hidden`
//!
//! | input | type | form | |
//! |---|---|---|---|
//! | `image_embeds` | `[N, E]` | all | what `vision.onnx` gives |
//! | `image_positions` | i64 `[N]` | for the CPU | flat `b * S + s` of the token that each replaces; N may be 0 |
//! | `image_rows` | i64 `[B, S]` | for a device | row of `image_embeds` in place of each token, -1 for none; N is at least 1 |

use super::form::Form;
use crate::config::TextConfig;
use crate::onnx::{DataType, Graph, Value};

/// Inputs that say which tokens are images.
#[derive(Debug)]
pub struct Images {
    embeds: Value,
    places: Places,
}

#[derive(Debug)]
enum Places {
    /// `image_positions`: few are written.
    Positions(Value),
    /// `image_rows`: no shape depends on how many there are.
    Rows(Value),
}

impl Images {
    /// Declares the inputs.
    pub fn declare(graph: &mut Graph, form: Form, config: &TextConfig) -> Self {
        let shape = ["image_tokens".into(), config.hidden_size.into()];
        let embeds = graph.input("image_embeds", form.elements(), &shape);
        let int64 = DataType::Int64;
        let places = if form.is_for_device() {
            let shape = ["rows".into(), "width".into()];
            Places::Rows(graph.input("image_rows", int64, &shape))
        } else {
            Places::Positions(graph.input("image_positions", int64, &["image_tokens".into()]))
        };
        Self { embeds, places }
    }

    /// `embeddings` `[V, E]` of `input_ids` i64 `[B, S]`, or the images', to `[T, E]`.
    pub fn embed(&self, graph: &mut Graph, embeddings: &Value, input_ids: &Value) -> Value {
        graph.scope("embed");
        let flat_ids = graph.reshape_to(input_ids, &[-1]); // [T]
        let hidden = graph.gather(embeddings, &flat_ids); // [T, E]
        match &self.places {
            Places::Positions(positions) => {
                let rows = graph.unsqueeze(positions, &[-1]); // [N, 1]
                graph.scatter_rows(&hidden, &rows, &self.embeds)
            }
            Places::Rows(rows) => {
                let zero = graph.int64(&[1], &[0]);
                let rows = graph.reshape_to(rows, &[-1]); // [T]
                let is_image = graph.greater_or_equal(&rows, &zero);
                let is_image = graph.unsqueeze(&is_image, &[-1]); // [T, 1]
                let rows = graph.max(&rows, &zero);
                let images = graph.gather(&self.embeds, &rows); // [T, E]
                graph.choose(&is_image, &images, &hidden)
            }
        }
    }
}
