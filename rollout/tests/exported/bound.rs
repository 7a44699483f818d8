//! A graph open on a plain ONNX Runtime, with the weights that are inputs of it.

use std::fmt::Debug;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use models::onnx::{DataType, weight_inputs};
use ort::environment::Environment;
use ort::memory::MemoryInfo;
use ort::operator::OperatorDomain;
use ort::session::builder::SessionBuilder;
use ort::session::{IoBinding, Session};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor};

/// A session and its weights.
pub(crate) struct Bound {
    pub(crate) session: Session,
    weights: Vec<(String, Tensor<f32>)>,
}

impl Bound {
    /// A graph that lies beside its weights.
    pub(crate) fn open(graph: &Path) -> Self {
        Self {
            session: builder().commit_from_file(graph).unwrap(),
            weights: read_weights(graph),
        }
    }

    /// The same with the domain of ONNX Runtime's operators renamed to that of `operators`, so that these stand in.
    pub(crate) fn open_with(graph: &Path, operators: OperatorDomain, domain: &str) -> Self {
        let mut bytes = std::fs::read(graph).unwrap();
        let theirs = b"com.microsoft";
        assert_eq!(
            domain.len(),
            theirs.len(),
            "lengths of names are in the file"
        );
        let ends = bytes.len() - theirs.len();
        for at in 0..=ends {
            if bytes[at..].starts_with(theirs) {
                bytes[at..at + theirs.len()].copy_from_slice(domain.as_bytes());
            }
        }
        let mut builder = builder().with_operators(operators).unwrap();
        Self {
            session: builder.commit_from_memory(&bytes).unwrap(),
            weights: read_weights(graph),
        }
    }

    /// A graph of `bytes` that has no weights.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self {
            session: builder().commit_from_memory(bytes).unwrap(),
            weights: Vec::new(),
        }
    }

    /// Inputs and outputs of a run, the weights among them.
    pub(crate) fn binding(&self) -> IoBinding {
        let mut io = self.session.create_binding().unwrap();
        for (name, tensor) in &self.weights {
            io.bind_input(name.as_str(), tensor).unwrap();
        }
        io
    }
}

/// What the graph's own metadata says of its weights.
fn read_weights(graph: &Path) -> Vec<(String, Tensor<f32>)> {
    let bytes = std::fs::read(graph).unwrap();
    let weights = weight_inputs(&bytes).unwrap();
    let read = |weight: models::onnx::WeightInput| {
        assert_eq!(weight.data_type, DataType::Float, "{}", weight.name);
        let file = File::open(graph.with_file_name(&weight.location)).unwrap();
        let mut bytes = vec![0; weight.length];
        file.read_exact_at(&mut bytes, weight.offset as u64)
            .unwrap();
        let numbers: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        let tensor = Tensor::from_array((weight.shape, numbers)).unwrap();
        (weight.name, tensor)
    };
    weights.into_iter().map(read).collect()
}

fn builder() -> SessionBuilder {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    let make = || {
        let library = ort::init_from(rollout::engine::library::path()).unwrap();
        library.with_telemetry(false).build().unwrap()
    };
    Session::builder(ENVIRONMENT.get_or_init(make)).unwrap()
}

pub(crate) fn bind<T, const RANK: usize>(
    io: &mut IoBinding,
    name: &str,
    shape: [usize; RANK],
    values: Vec<T>,
) where
    T: PrimitiveTensorElementType + Debug + Clone + 'static,
{
    let tensor = Tensor::from_array((shape, values)).unwrap();
    io.bind_input(name, &tensor).unwrap();
}

pub(crate) fn want(io: &mut IoBinding, output: &str) {
    let memory = MemoryInfo::default();
    io.bind_output_to_device(output, &memory).unwrap();
}

pub(crate) fn values(output: &DynValue) -> Vec<f32> {
    output.try_extract_tensor().unwrap().1.to_vec()
}
