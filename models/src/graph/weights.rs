//! Weights as ranges of the weights file.

use crate::checkpoint::{F32Layout, GROUP, PANEL, QuantizedMatrix};
use crate::error::{Error, Result};
use crate::onnx::{DataType, Graph, Quantized, Value};

/// The file that 8-bit matrices claim to lie in. There is none: whoever opens the graph hands them over by name.
const QUANTIZED_FILE: &str = "int8";

/// The weights file's layout, as initializers of a graph.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    layout: &'a F32Layout,
    quantized: &'a [QuantizedMatrix],
}

impl<'a> Weights<'a> {
    /// Weights that lie as `layout` says.
    #[must_use]
    pub fn new(layout: &'a F32Layout) -> Self {
        Self {
            layout,
            quantized: &[],
        }
    }

    /// The same, with these matrices in 8 bits.
    #[must_use]
    pub fn with_quantized(self, quantized: &'a [QuantizedMatrix]) -> Self {
        Self { quantized, ..self }
    }

    /// Matrices one above the other in 8 bits; none where they are not quantised.
    pub fn quantized(&self, graph: &mut Graph, names: &[String]) -> Option<Quantized> {
        let matrix = self.quantized.iter().find(|matrix| matrix.names == names)?;
        let mut external = |name: &str, data_type, shape: &[usize]| {
            graph.external(QUANTIZED_FILE, name, data_type, shape, 0)
        };
        let panels = matrix.num_panels();
        let integers = [panels, matrix.num_groups(), PANEL, GROUP];
        Some(Quantized {
            integers: external(&matrix.integers_name(), DataType::Int8, &integers),
            scales: external(&matrix.scales_name(), DataType::Float, &[panels, PANEL]),
            sums: external(&matrix.sums_name(), DataType::Int32, &[panels, PANEL]),
            width: matrix.width(),
            is_gated: matrix.is_gated,
        })
    }

    /// The tensor `name` in its published shape.
    pub fn tensor(&self, graph: &mut Graph, name: &str) -> Result<Value> {
        let (shape, offset) = self.find(name)?;
        Ok(graph.weight(name, &shape, offset))
    }

    /// The tensor `name` as a matrix `[first dimension, the others]`.
    pub fn matrix(&self, graph: &mut Graph, name: &str) -> Result<Value> {
        let (shape, offset) = self.find(name)?;
        let rows = shape.first().copied().unwrap_or(1);
        let columns = shape.iter().skip(1).product();
        Ok(graph.weight(name, &[rows, columns], offset))
    }

    /// Neighbours in the file, one above the other, as one tensor: so that one matrix product serves them all.
    pub fn stacked(&self, graph: &mut Graph, names: &[String]) -> Result<Value> {
        let mut rows = 0;
        let mut start = None;
        let mut end = None;
        let mut rest = Vec::new();
        for name in names {
            let (shape, offset) = self.find(name)?;
            if end.is_some_and(|end| end != offset) {
                return Err(Error::Graph(format!(
                    "`{name}` does not follow its neighbour in the weights file"
                )));
            }
            start = start.or(Some(offset));
            end = Some(offset + shape.iter().product::<usize>() * size_of::<f32>());
            rows += shape.first().copied().unwrap_or(1);
            rest = shape.get(1..).unwrap_or_default().to_vec();
        }
        let mut shape = vec![rows];
        shape.append(&mut rest);
        Ok(graph.weight(&names.join("+"), &shape, start.unwrap_or(0)))
    }

    fn find(&self, name: &str) -> Result<(Vec<usize>, usize)> {
        let found = self
            .layout
            .tensors
            .iter()
            .find(|(spec, _)| spec.name == name);
        let (spec, offset) =
            found.ok_or_else(|| Error::Graph(format!("the weights file has no `{name}`")))?;
        Ok((spec.shape.clone(), *offset))
    }
}
