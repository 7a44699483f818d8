//! Weights that are inputs of a graph: read back from a written one, by whoever binds them.
//!
//! The graph of a device has its weights as inputs, so that a sync writes them in place and nothing is built anew. An
//! input's `metadata_props` hold the keys of external data (`location`, `offset`, `length`): a range of the weights
//! file, of f32 numbers whatever the input's own type is.

use std::path::{Component, Path};

use prost::Message;

use super::builder::{LENGTH, LOCATION, OFFSET};
use super::proto::{DataType, DimensionValue, ModelProto, ValueInfoProto};
use crate::error::{Error, Result};

/// A weight that is an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightInput {
    /// Name of the input.
    pub name: String,
    /// Element type of the input.
    pub data_type: DataType,
    /// Shape of the input.
    pub shape: Vec<usize>,
    /// Name of the file beside the graph.
    pub location: String,
    /// First byte of its f32 numbers there.
    pub offset: usize,
    /// Their bytes.
    pub length: usize,
}

/// The weights among the inputs of `graph`, the bytes of a file.
///
/// # Errors
/// Bytes that are no graph, or say of a weight what cannot be.
pub fn weight_inputs(graph: &[u8]) -> Result<Vec<WeightInput>> {
    let model = ModelProto::decode(graph).map_err(|error| Error::Graph(error.to_string()))?;
    let inputs = model.graph.map(|graph| graph.input).unwrap_or_default();
    let is_weight = |input: &&ValueInfoProto| !input.metadata_props.is_empty();
    inputs.iter().filter(is_weight).map(weight_input).collect()
}

fn weight_input(input: &ValueInfoProto) -> Result<WeightInput> {
    let problem = |what: &str| Error::Graph(format!("input `{}`: {what}", input.name()));
    let find = |key: &str| {
        let entry = input.metadata_props.iter().find(|entry| entry.key() == key);
        entry.map(|entry| entry.value().to_owned())
    };
    let number = |key: &str| find(key)?.parse::<usize>().ok();
    let location = find(LOCATION).ok_or_else(|| problem("names no file"))?;
    let mut parts = Path::new(&location).components();
    if !matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    ) {
        return Err(problem("its file is not one beside the graph"));
    }
    let tensor = input.r#type.as_ref().and_then(|it| it.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| problem("has no type"))?;
    let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
    let fixed = dims.map(|dim| match dim.value {
        Some(DimensionValue::Size(size)) => usize::try_from(size).ok(),
        _ => None,
    });
    let shape: Option<Vec<usize>> = fixed.collect();
    let shape = shape.ok_or_else(|| problem("a weight's shape is fixed"))?;
    let mut sizes = shape.iter().copied();
    let bytes = sizes.try_fold(size_of::<f32>(), usize::checked_mul);
    let length = number(LENGTH).filter(|&length| Some(length) == bytes);
    Ok(WeightInput {
        name: input.name().to_owned(),
        data_type: tensor.elem_type(),
        shape,
        location,
        offset: number(OFFSET).ok_or_else(|| problem("says not where in its file"))?,
        length: length.ok_or_else(|| problem("its length is not that of its shape"))?,
    })
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::proto::ModelProto;
    use super::super::{DataType, Graph};
    use super::{WeightInput, weight_inputs};

    fn graph() -> Vec<u8> {
        let mut graph = Graph::new("graph", "model.safetensors");
        graph.input("x", DataType::Float, &["rows".into()]);
        graph.weight_input("w", DataType::Bfloat16, &[2, 3], 16);
        graph.weight_input("w", DataType::Bfloat16, &[2, 3], 16);
        graph.into_bytes()
    }

    #[test]
    fn a_weight_is_found_once_and_other_inputs_are_not() {
        let expected = WeightInput {
            name: "w".to_owned(),
            data_type: DataType::Bfloat16,
            shape: vec![2, 3],
            location: "model.safetensors".to_owned(),
            offset: 16,
            length: 24,
        };
        assert_eq!(weight_inputs(&graph()).unwrap(), [expected]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(weight_inputs(&[1, 2, 3]).is_err());
        for (index, value) in [
            (0, "../secret"),
            (0, "/etc/x"),
            (1, "-1"),
            (2, "25"),
            (2, ""),
        ] {
            let mut model = ModelProto::decode(&*graph()).unwrap();
            let input = &mut model.graph.as_mut().unwrap().input[1];
            input.metadata_props[index].value = Some(value.to_owned());
            let error = weight_inputs(&model.encode_to_vec()).unwrap_err();
            assert!(error.to_string().contains("`w`"), "{error}");
        }
    }
}
