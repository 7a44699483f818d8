//! The one layout of weights in use: a plain safetensors file, f32, in publication order. The learner fills it at each
//! publication, the ONNX graphs point into it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, json};

use crate::names::TensorSpec;

/// The data begin at a multiple of this, so that mapped tensors are aligned for any vector unit.
const ALIGNMENT: usize = 64;

/// Where each tensor lies in the file.
#[derive(Debug, Clone)]
pub struct F32Layout {
    /// The first bytes of the file: safetensors' length word and JSON table.
    pub header: Vec<u8>,
    /// Each tensor with the byte offset, in the file, of its first element. They follow each other without gaps.
    pub tensors: Vec<(TensorSpec, usize)>,
    /// Size of the file.
    pub total_bytes: usize,
    index: HashMap<String, usize>,
}

impl F32Layout {
    /// The layout of a file that holds `specs` in that order.
    pub fn new(specs: &[TensorSpec]) -> Self {
        let mut table = Map::new();
        table.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut end = 0;
        for spec in specs {
            let begin = end;
            end += spec.len() * size_of::<f32>();
            let entry = json!({"dtype": "F32", "shape": spec.shape, "data_offsets": [begin, end]});
            table.insert(spec.name.clone(), entry);
        }
        let mut json = serde_json::Value::Object(table).to_string().into_bytes();
        // Readers take trailing spaces as part of the JSON.
        json.resize((8 + json.len()).next_multiple_of(ALIGNMENT) - 8, b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.extend(json);

        let mut offset = header.len();
        let mut tensors = Vec::with_capacity(specs.len());
        let mut index = HashMap::with_capacity(specs.len());
        for spec in specs {
            index.insert(spec.name.clone(), offset);
            tensors.push((spec.clone(), offset));
            offset += spec.len() * size_of::<f32>();
        }
        Self {
            header,
            tensors,
            total_bytes: offset,
            index,
        }
    }

    /// Whether the file at `path` has this layout: the same size and the same table.
    pub fn matches(&self, path: &Path) -> std::io::Result<bool> {
        let mut file = File::open(path)?;
        if file.metadata()?.len() != self.total_bytes as u64 {
            return Ok(false);
        }
        let mut header = vec![0; self.header.len()];
        file.read_exact(&mut header)?;
        Ok(header == self.header)
    }

    /// Byte offset in the file of a tensor's first element.
    pub fn offset(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }
}
