//! The decoder's matrix products and nothing else: the least that a pass can take.

use std::time::{Duration, Instant};

use models::checkpoint::F32Layout;
use models::config::ModelConfig;
use ort::memory::MemoryInfo;
use ort::session::Session;
use ort::value::Tensor;

use super::runtime::{Opening, runtime};
use crate::error::Result;

const CONTEXT: &str = "running the matrix products";

/// The products with one version of the weights.
#[derive(Debug)]
pub struct Products {
    session: Session,
    outputs: Vec<String>,
    /// Width of each input.
    widths: [(&'static str, usize); 4],
}

impl Products {
    pub(super) fn load(
        config: &ModelConfig,
        layout: &F32Layout,
        opening: &Opening<'_>,
    ) -> Result<Self> {
        let (graph, outputs) = models::graph::products::build(config, layout)?;
        let text = &config.text;
        Ok(Self {
            session: opening.open(&graph, Vec::new())?,
            outputs,
            widths: [
                ("hidden", text.hidden_size),
                ("attended", text.num_heads * text.head_dim),
                ("gated", text.intermediate_size),
                ("wanted", text.hidden_size),
            ],
        })
    }

    /// Time of the products of a pass over `tokens` tokens with `logit_rows` rows of logits.
    ///
    /// # Errors
    /// ONNX Runtime's.
    pub fn run(&mut self, tokens: usize, logit_rows: usize) -> Result<Duration> {
        let mut binding = self.session.create_binding().map_err(runtime(CONTEXT))?;
        for (name, width) in self.widths {
            let rows = if name == "wanted" { logit_rows } else { tokens };
            // Numbers that look like activations: multiplying zeros might be quicker.
            let values: Vec<f32> = (0..rows * width)
                .map(|index| ((index * 7919) % 1013) as f32 / 1013.0 - 0.5)
                .collect();
            let tensor = Tensor::from_array(([rows, width], values)).map_err(runtime(CONTEXT))?;
            binding
                .bind_input(name, &tensor)
                .map_err(runtime(CONTEXT))?;
        }
        for output in &self.outputs {
            binding
                .bind_output_to_device(output, &MemoryInfo::default())
                .map_err(runtime(CONTEXT))?;
        }
        let start = Instant::now();
        let outputs = self
            .session
            .run_binding(&binding)
            .map_err(runtime(CONTEXT))?;
        let time = start.elapsed();
        drop(outputs);
        Ok(time)
    }
}
