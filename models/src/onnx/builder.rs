//! A graph under construction.

use std::collections::HashSet;

use prost::Message;

use super::proto::{
    AttributeProto, AttributeType, DataLocation, DataType, DimensionProto, DimensionValue,
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// The standard operator set, the first with RMSNormalization, RotaryEmbedding and Attention, and the first version of
/// the file format that has it.
const STANDARD_OPSET: (i64, i64) = (23, 11);
/// The same for graphs with TensorScatter.
const SCATTER_OPSET: (i64, i64) = (24, 12);
/// The operator that needs [`SCATTER_OPSET`].
pub(super) const TENSOR_SCATTER: &str = "TensorScatter";
/// Key of a tensor that lies in a file: the file's name.
pub(super) const LOCATION: &str = "location";
/// Its first byte.
pub(super) const OFFSET: &str = "offset";
/// Its bytes.
pub(super) const LENGTH: &str = "length";
/// Domain of ONNX Runtime's own operators.
pub(super) const MICROSOFT: &str = "com.microsoft";
/// Domain of the operators that `rollout` brings along.
pub const TOR: &str = "tor";

/// A tensor of the graph, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(pub(super) String);

/// A dimension of an input or output.
#[derive(Debug, Clone)]
pub enum Dim {
    /// Fixed by the model.
    Size(usize),
    /// Known only when the graph runs; equal names are equal sizes.
    Name(&'static str),
}

impl From<usize> for Dim {
    fn from(size: usize) -> Self {
        Self::Size(size)
    }
}

impl From<&'static str> for Dim {
    fn from(name: &'static str) -> Self {
        Self::Name(name)
    }
}

/// A graph under construction. Weights stay in the file `weights_file`, beside the graph.
#[derive(Debug)]
pub struct Graph {
    name: &'static str,
    weights_file: &'static str,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// Of initializers, and of weights that are inputs.
    constant_names: HashSet<String>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
    scope: String,
}

impl Graph {
    /// An empty graph.
    #[must_use]
    pub fn new(name: &'static str, weights_file: &'static str) -> Self {
        Self {
            name,
            weights_file,
            nodes: Vec::new(),
            initializers: Vec::new(),
            constant_names: HashSet::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            scope: String::new(),
        }
    }

    /// Names the part of the model that the next nodes belong to, e.g. `layers.3.attention`.
    pub fn scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    /// Declares an input.
    pub fn input(&mut self, name: impl Into<String>, data_type: DataType, shape: &[Dim]) -> Value {
        let value = Value(name.into());
        self.inputs.push(value_info(&value, data_type, shape));
        value
    }

    /// Declares an output: a tensor that a node already gives under its final name (see [`Self::rename`]).
    pub fn output(&mut self, value: &Value, data_type: DataType, shape: &[Dim]) {
        self.outputs.push(value_info(value, data_type, shape));
    }

    /// Makes what the last node gave the output `name`.
    pub fn give(&mut self, value: &Value, name: &str, data_type: DataType, shape: &[Dim]) -> Value {
        let value = self.rename(value, name);
        self.output(&value, data_type, shape);
        value
    }

    /// Gives the tensor that the last node made a name of its own, as outputs need.
    pub fn rename(&mut self, value: &Value, name: impl Into<String>) -> Value {
        let renamed = Value(name.into());
        if let Some(node) = self.nodes.last_mut() {
            for output in node.output.iter_mut().filter(|output| **output == value.0) {
                renamed.0.clone_into(output);
            }
        }
        renamed
    }

    /// A small i64 constant; shape `[]` is a scalar.
    pub fn int64(&mut self, shape: &[usize], values: &[i64]) -> Value {
        let name = format!("int64{shape:?}{values:?}").replace(' ', "");
        self.named_int64(&name, shape, values)
    }

    /// An i64 constant under `name`, for those too long to be named by their values.
    pub fn named_int64(&mut self, name: &str, shape: &[usize], values: &[i64]) -> Value {
        let bytes = || {
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        };
        self.constant(name.to_owned(), DataType::Int64, shape, bytes)
    }

    /// A small f32 constant under `name`.
    pub fn float(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Value {
        let bytes = || {
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        };
        self.constant(name.to_owned(), DataType::Float, shape, bytes)
    }

    fn constant(
        &mut self,
        name: String,
        data_type: DataType,
        shape: &[usize],
        bytes: impl FnOnce() -> Vec<u8>,
    ) -> Value {
        if self.constant_names.insert(name.clone()) {
            self.initializers.push(TensorProto {
                dims: dims(shape),
                data_type: Some(data_type.into()),
                name: Some(name.clone()),
                raw_data: Some(bytes()),
                ..TensorProto::default()
            });
        }
        Value(name)
    }

    /// An f32 weight: the elements at `offset` (bytes) of the weights file. Asked for again, it is the same tensor.
    pub fn weight(&mut self, name: &str, shape: &[usize], offset: usize) -> Value {
        self.external(self.weights_file, name, DataType::Float, shape, offset)
    }

    /// A weight that is an input of the graph, of elements of `data_type`; the input's metadata says which f32 numbers of
    /// the weights file it is (see [`super::weight_inputs`]). Asked for again, it is the same tensor.
    pub fn weight_input(
        &mut self,
        name: &str,
        data_type: DataType,
        shape: &[usize],
        offset: usize,
    ) -> Value {
        let value = Value(name.to_owned());
        if self.constant_names.insert(name.to_owned()) {
            let dims: Vec<Dim> = shape.iter().copied().map(Dim::Size).collect();
            let length = shape.iter().product::<usize>() * size_of::<f32>();
            let info = value_info(&value, data_type, &dims);
            self.inputs.push(ValueInfoProto {
                metadata_props: file_range(self.weights_file, offset, length),
                ..info
            });
        }
        value
    }

    /// A tensor of elements of `data_type` at `offset` (bytes) of a file beside the graph.
    pub fn external(
        &mut self,
        file: &str,
        name: &str,
        data_type: DataType,
        shape: &[usize],
        offset: usize,
    ) -> Value {
        if self.constant_names.insert(name.to_owned()) {
            let element = match data_type {
                DataType::Int8 | DataType::Uint8 | DataType::Bool => 1,
                DataType::Bfloat16 => 2,
                DataType::Int64 => 8,
                _ => 4,
            };
            let length = shape.iter().product::<usize>() * element;
            self.initializers.push(TensorProto {
                dims: dims(shape),
                data_type: Some(data_type.into()),
                name: Some(name.to_owned()),
                external_data: file_range(file, offset, length),
                data_location: Some(DataLocation::External.into()),
                ..TensorProto::default()
            });
        }
        Value(name.to_owned())
    }

    /// Adds a node with `num_outputs` outputs. `None` among the inputs leaves an optional one out.
    pub(super) fn node(
        &mut self,
        domain: &str,
        op_type: &str,
        inputs: &[Option<&Value>],
        num_outputs: usize,
        attributes: Vec<AttributeProto>,
    ) -> Vec<Value> {
        let name = format!("{}/{}_{}", self.scope, op_type, self.nodes.len());
        let outputs: Vec<Value> = match num_outputs {
            1 => vec![Value(name.clone())],
            _ => (0..num_outputs)
                .map(|index| Value(format!("{name}.{index}")))
                .collect(),
        };
        self.nodes.push(NodeProto {
            input: inputs
                .iter()
                .map(|input| input.map(|value| value.0.clone()).unwrap_or_default())
                .collect(),
            output: outputs.iter().map(|output| output.0.clone()).collect(),
            name: Some(name),
            op_type: Some(op_type.to_owned()),
            attribute: attributes,
            domain: Some(domain.to_owned()),
        });
        outputs
    }

    /// The file's bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        ModelProto {
            ir_version: Some(self.standard_opset().1),
            producer_name: Some("tor".to_owned()),
            opset_import: self.opsets(),
            graph: Some(GraphProto {
                node: self.nodes,
                name: Some(self.name.to_owned()),
                initializer: self.initializers,
                input: self.inputs,
                output: self.outputs,
            }),
        }
        .encode_to_vec()
    }

    fn standard_opset(&self) -> (i64, i64) {
        let mut operators = self.nodes.iter().map(NodeProto::op_type);
        if operators.any(|operator| operator == TENSOR_SCATTER) {
            SCATTER_OPSET
        } else {
            STANDARD_OPSET
        }
    }

    /// The operator sets in use: a graph of standard operators names no other.
    fn opsets(&self) -> Vec<OperatorSetIdProto> {
        let versions = [("", self.standard_opset().0), (MICROSOFT, 1), (TOR, 1)];
        let is_used = |domain| {
            let mut domains = self.nodes.iter().map(|node| node.domain());
            domains.any(|used| used == domain)
        };
        versions
            .into_iter()
            .filter(|(domain, _)| is_used(*domain))
            .map(|(domain, version)| OperatorSetIdProto {
                domain: Some(domain.to_owned()),
                version: Some(version),
            })
            .collect()
    }
}

/// An integer attribute.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        i: Some(value),
        r#type: Some(AttributeType::Int.into()),
        ..AttributeProto::default()
    }
}

/// A float attribute.
pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        f: Some(value),
        r#type: Some(AttributeType::Float.into()),
        ..AttributeProto::default()
    }
}

/// An attribute that is a list of integers.
pub(super) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ints: values.to_vec(),
        r#type: Some(AttributeType::Ints.into()),
        ..AttributeProto::default()
    }
}

fn value_info(value: &Value, data_type: DataType, shape: &[Dim]) -> ValueInfoProto {
    let dimension = |dim: &Dim| DimensionProto {
        value: Some(match dim {
            Dim::Size(dim) => DimensionValue::Size(size(*dim)),
            Dim::Name(name) => DimensionValue::Name((*name).to_owned()),
        }),
    };
    let tensor = TensorTypeProto {
        elem_type: Some(data_type.into()),
        shape: Some(TensorShapeProto {
            dim: shape.iter().map(dimension).collect(),
        }),
    };
    ValueInfoProto {
        name: Some(value.0.clone()),
        r#type: Some(TypeProto {
            tensor_type: Some(tensor),
        }),
        metadata_props: Vec::new(),
    }
}

/// A range of bytes of a file.
fn file_range(file: &str, offset: usize, length: usize) -> Vec<StringStringEntryProto> {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    vec![
        entry(LOCATION, file.to_owned()),
        entry(OFFSET, offset.to_string()),
        entry(LENGTH, length.to_string()),
    ]
}

fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&dim| size(dim)).collect()
}

/// A size as ONNX writes it; sizes are far below 2^63.
pub fn size(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
