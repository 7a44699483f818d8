//! Weights as ranges of the weights file: constants of the graph, or inputs of it.

use crate::checkpoint::{F32Layout, Numbers, PANEL, PackedMatrix};
use crate::error::{Error, Result};
use crate::onnx::{DataType, Graph, Packed, Value};

/// The file that packed matrices claim to lie in. There is none: whoever opens the graph hands them over by name.
const PACKED_FILE: &str = "packed";

/// The weights file's layout, as tensors of a graph.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    layout: &'a F32Layout,
    packed: &'a [PackedMatrix],
    place: Place,
}

/// Where a graph has its weights.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In initializers that point into the file.
    File,
    /// In inputs of `elements`; `is_wide`: in inputs of f32.
    Inputs { elements: DataType, is_wide: bool },
}

impl<'a> Weights<'a> {
    /// Weights that lie as `layout` says.
    #[must_use]
    pub fn new(layout: &'a F32Layout) -> Self {
        Self {
            layout,
            packed: &[],
            place: Place::File,
        }
    }

    /// The same as inputs of the graph, of this element type.
    #[must_use]
    pub fn as_inputs(self, elements: DataType) -> Self {
        let place = Place::Inputs {
            elements,
            is_wide: false,
        };
        Self { place, ..self }
    }

    /// The same in f32, whatever the element type of the others is.
    #[must_use]
    pub fn wide(self) -> Self {
        let place = match self.place {
            Place::File => Place::File,
            Place::Inputs { elements, .. } => Place::Inputs {
                elements,
                is_wide: true,
            },
        };
        Self { place, ..self }
    }

    /// The same, with these matrices packed.
    #[must_use]
    pub fn with_packed(self, packed: &'a [PackedMatrix]) -> Self {
        Self { packed, ..self }
    }

    /// Matrices one above the other, packed; none where they are not.
    pub fn packed(&self, graph: &mut Graph, names: &[String]) -> Option<Packed> {
        let matrix = self.packed.iter().find(|matrix| matrix.names == names)?;
        let mut external = |name: &str, data_type, shape: &[usize]| {
            graph.external(PACKED_FILE, name, data_type, shape, 0)
        };
        let channels = [matrix.num_panels(), PANEL];
        let (data_type, scales) = match matrix.numbers {
            Numbers::Float => (DataType::Float, None),
            Numbers::Int8 => {
                let scales = external(&matrix.scales_name(), DataType::Float, &channels);
                let sums = external(&matrix.sums_name(), DataType::Int32, &channels);
                (DataType::Int8, Some([scales, sums]))
            }
        };
        Some(Packed {
            panels: external(&matrix.panels_name(), data_type, &matrix.shape()),
            scales,
            width: matrix.width(),
            is_gated: matrix.is_gated,
        })
    }

    /// The tensor `name` in its published shape.
    pub fn tensor(&self, graph: &mut Graph, name: &str) -> Result<Value> {
        let (shape, offset) = self.find(name)?;
        Ok(self.declare(graph, name, &shape, offset))
    }

    /// The tensor `name` as a matrix `[first dimension, the others]`.
    pub fn matrix(&self, graph: &mut Graph, name: &str) -> Result<Value> {
        let (shape, offset) = self.find(name)?;
        let rows = shape.first().copied().unwrap_or(1);
        let columns = shape.iter().skip(1).product();
        Ok(self.declare(graph, name, &[rows, columns], offset))
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
        Ok(self.declare(graph, &names.join("+"), &shape, start.unwrap_or(0)))
    }

    fn declare(&self, graph: &mut Graph, name: &str, shape: &[usize], offset: usize) -> Value {
        match self.place {
            Place::File => graph.weight(name, shape, offset),
            // Beside the same tensor in another type: a tied head is not the embeddings.
            Place::Inputs { elements, is_wide } if is_wide && elements != DataType::Float => {
                let name = format!("{name}.f32");
                graph.weight_input(&name, DataType::Float, shape, offset)
            }
            Place::Inputs { elements, .. } => graph.weight_input(name, elements, shape, offset),
        }
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
