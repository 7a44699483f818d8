//! Keys and values in rows of fixed size, written in place.
//!
//! `// B rows, M slots, K kv heads, D head dim`

use std::ops::Range;

use models::config::TextConfig;
use ort::session::IoBinding;
use ort::value::DynTensor;

use super::memory::Memory;
use super::row_settings::RowSettings;
use super::runtime::runtime;
use crate::error::Result;

const CONTEXT: &str = "lending the cache";

/// Rows of all layers: key 0, value 0, key 1, ..., each `[B, K, M, D]`.
#[derive(Debug)]
pub(super) struct Slots {
    tensors: Vec<DynTensor>,
}

impl Slots {
    /// Rows of zeros: a share of 0 does not hide what is not finite.
    pub(super) fn new(memory: &Memory, text: &TextConfig, settings: &RowSettings) -> Result<Self> {
        let (elements, num_rows) = (settings.elements, settings.rows);
        let shape = |rows| [rows, text.num_kv_heads, settings.slots, text.head_dim];
        let row = shape(1);
        let mut zeros = memory.tensor(elements, &row)?;
        memory.write(&mut zeros, elements, &vec![0.0; row.iter().product()])?;
        let mut tensors = Vec::with_capacity(2 * text.num_layers);
        for _ in 0..2 * text.num_layers {
            let mut tensor = memory.tensor(elements, &shape(num_rows))?;
            for row in 0..num_rows {
                let mut view = memory.rows(&mut tensor, row..row + 1)?;
                memory.copy(&mut zeros, view.tensor())?;
            }
            tensors.push(tensor);
        }
        Ok(Self { tensors })
    }

    /// Makes rows the past and the present of later runs, which this must outlive.
    pub(super) fn bind(
        &mut self,
        memory: &Memory,
        io: &mut IoBinding,
        rows: &Range<usize>,
    ) -> Result<()> {
        for (index, tensor) in self.tensors.iter_mut().enumerate() {
            let kind = ["key", "value"][index % 2];
            let layer = index / 2;
            let mut view = memory.rows(tensor, rows.clone())?;
            io.bind_input(format!("past_{kind}.{layer}"), view.tensor())
                .map_err(runtime(CONTEXT))?;
            io.bind_output(format!("present_{kind}.{layer}"), view.tensor())
                .map_err(runtime(CONTEXT))?;
        }
        Ok(())
    }

    /// Copies a row, all of it, to another.
    pub(super) fn copy_row(&mut self, memory: &Memory, from: usize, to: usize) -> Result<()> {
        let mut tensors = self.tensors.iter_mut();
        tensors.try_for_each(|tensor| memory.copy_row(tensor, from, to))
    }
}
