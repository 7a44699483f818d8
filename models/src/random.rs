//! A checkpoint of random weights for a given config.json, in the layout of the hub: for benchmarks and trials without a
//! download, and for a model trained from nothing.
//!
//! Matrices are normal with the standard deviation `initializer_range`, biases normal with a tenth of it, norms 1. Each
//! piece of a tensor has a ChaCha8 stream of its own, keyed by the seed, the tensor's name and the piece's number, so the
//! bytes depend on nothing else; and a piece is all that is ever held in memory.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use serde_json::{Map, json};

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::json::{Object, SMALL_FILE_BYTES, read_bounded};
use crate::names::{self, TensorSpec};

/// Largest shard, as on the hub.
pub const SHARD_BYTES: u64 = 5_000_000_000;
/// Elements with a random stream of their own. Another number is another checkpoint for the same seed.
const PIECE: usize = 1 << 16;
/// Pieces that are drawn at once.
const BATCH: usize = 32;
/// Standard deviation where the configuration names none.
const INITIALIZER_RANGE: f64 = 0.02;
/// The data begin at a multiple of this.
const ALIGNMENT: usize = 64;
/// Files beside the configuration that go along when they are there.
const COMPANIONS: [&str; 10] = [
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];
/// A vocabulary of 150,000 words takes about 11 MB.
const MAX_COMPANION_BYTES: u64 = 256 << 20;

/// The type that the weights are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// The upper half of a 32-bit float.
    Bf16,
    /// 16-bit float.
    F16,
}

impl Dtype {
    /// Its name in a safetensors header.
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// What to write.
#[derive(Debug, Clone)]
pub struct Plan {
    /// A config.json of Qwen2.5-VL, whatever its name, or the folder it lies in.
    pub config: PathBuf,
    /// Fixes every weight.
    pub seed: u64,
    /// How the weights are stored.
    pub dtype: Dtype,
    /// Bytes of tensors per file; above it the checkpoint is cut into shards. A tensor is never cut.
    pub shard_bytes: u64,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Weights in the checkpoint.
    pub parameters: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Names of the files.
    pub files: Vec<String>,
}

/// Writes the model folder `out`, which must be new or empty and is seen whole or not at all. `progress` is told the bytes
/// of weights that are written, and of how many, again and again.
///
/// # Errors
/// A configuration that is no Qwen2.5-VL's, an `out` with something in it, or a file that cannot be read or written.
pub fn write(plan: &Plan, out: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Written> {
    refuse_filled(out)?;
    let file = if plan.config.is_dir() {
        plan.config.join("config.json")
    } else {
        plan.config.clone()
    };
    let home = parent_of(&file);
    let bytes = read_bounded(&file, SMALL_FILE_BYTES)?.ok_or_else(|| Error::Checkpoint {
        path: file.clone(),
        problem: "no such file: give the config.json of a Qwen2.5-VL".to_owned(),
    })?;

    let parent = parent_of(out);
    fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let staging = tempfile::Builder::new()
        .prefix(".random-")
        .tempdir_in(parent)
        .map_err(Error::io(parent))?;
    let mut files = vec!["config.json".to_owned()];
    put(staging.path(), "config.json", &bytes)?;
    for name in COMPANIONS {
        if let Some(bytes) = read_bounded(&home.join(name), MAX_COMPANION_BYTES)? {
            put(staging.path(), name, &bytes)?;
            files.push(name.to_owned());
        }
    }
    // Read where it will be read from, but for the names that an error shows.
    let config = ModelConfig::from_dir(staging.path()).map_err(|error| named(error, &file))?;
    let range = initializer_range(staging.path()).map_err(|error| named(error, &file))?;

    let specs = names::tensors(&config);
    let shards = shards(&specs, plan);
    let parameters = specs.iter().map(|spec| spec.len() as u64).sum::<u64>();
    let total = parameters * plan.dtype.bytes();
    let mut done = 0;
    for (name, specs) in &shards {
        write_shard(&staging.path().join(name), specs, plan, range, |bytes| {
            done += bytes;
            progress(done, total);
        })?;
        files.push(name.clone());
    }
    if shards.len() > 1 {
        let name = "model.safetensors.index.json";
        put(staging.path(), name, index(&shards, total).as_bytes())?;
        files.push(name.to_owned());
    }
    fs::rename(staging.path(), out).map_err(Error::io(out))?;
    let _ = staging.keep(); // it is `out` now
    Ok(Written {
        parameters,
        bytes: total,
        files,
    })
}

fn refuse_filled(out: &Path) -> Result<()> {
    match fs::read_dir(out).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Checkpoint {
            path: out.to_path_buf(),
            problem: "the folder is not empty: give a new one as OUT".to_owned(),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(out)(error)),
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// An error of a copy as one of the file beside the one that the user gave.
fn named(error: Error, file: &Path) -> Error {
    let original = |copy: PathBuf| match copy.file_name() {
        Some(name) if name != "config.json" => parent_of(file).join(name),
        _ => file.to_path_buf(),
    };
    match error {
        Error::Config { path, key, problem } => Error::Config {
            path: original(path),
            key,
            problem,
        },
        Error::Json { path, source } => Error::Json {
            path: original(path),
            source,
        },
        other => other,
    }
}

/// The standard deviation of a model's initial matrices: `initializer_range`, at the top or of the language model.
fn initializer_range(folder: &Path) -> Result<f64> {
    let Some(top) = Object::open(&folder.join("config.json"), SMALL_FILE_BYTES)? else {
        return Ok(INITIALIZER_RANGE);
    };
    let text = top.object("text_config")?;
    for object in [Some(top), text].into_iter().flatten() {
        match object.number_opt("initializer_range")? {
            None => {}
            Some(range) if (0.0..=1.0).contains(&range) => return Ok(range),
            Some(range) => {
                let problem = format!("must be from 0 to 1, got {range}");
                return Err(object.problem("initializer_range", problem));
            }
        }
    }
    Ok(INITIALIZER_RANGE)
}

/// The files and the tensors of each, in the order of publication.
fn shards<'a>(specs: &'a [TensorSpec], plan: &Plan) -> Vec<(String, &'a [TensorSpec])> {
    let mut ends = Vec::new();
    let mut bytes = 0;
    for (index, spec) in specs.iter().enumerate() {
        let size = spec.len() as u64 * plan.dtype.bytes();
        if bytes > 0 && bytes + size > plan.shard_bytes {
            ends.push(index);
            bytes = 0;
        }
        bytes += size;
    }
    ends.push(specs.len());
    let count = ends.len();
    let mut start = 0;
    let parts = ends.into_iter().enumerate().map(|(index, end)| {
        let name = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        let part = &specs[start..end];
        start = end;
        (name, part)
    });
    parts.collect()
}

/// `model.safetensors.index.json`.
fn index(shards: &[(String, &[TensorSpec])], total: u64) -> String {
    let mut map = Map::new();
    for (name, specs) in shards {
        for spec in *specs {
            map.insert(spec.name.clone(), json!(name));
        }
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    format!("{index:#}\n")
}

/// Writes one safetensors file; `progress` is told the bytes of each batch.
fn write_shard(
    path: &Path,
    specs: &[TensorSpec],
    plan: &Plan,
    range: f64,
    mut progress: impl FnMut(u64),
) -> Result<()> {
    let io = |error| Error::io(path)(error);
    let header = header(specs, plan.dtype);
    let elements: u64 = specs.iter().map(|spec| spec.len() as u64).sum();
    let file = File::create_new(path).map_err(io)?;
    // A disk that is too small says so now and not after an hour.
    let size = header.len() as u64 + elements * plan.dtype.bytes();
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size) {
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(error) => return Err(io(error.into())),
    }
    let mut writer = BufWriter::new(&file);
    writer.write_all(&header).map_err(io)?;
    for spec in specs {
        let kind = Kind::of(&spec.name, range);
        let num_pieces = spec.len().div_ceil(PIECE);
        for first in (0..num_pieces).step_by(BATCH) {
            let batch: Vec<Vec<u8>> = (first..num_pieces.min(first + BATCH))
                .into_par_iter()
                .map(|piece| {
                    let len = PIECE.min(spec.len() - piece * PIECE);
                    stored(&draw(kind, plan.seed, &spec.name, piece, len), plan.dtype)
                })
                .collect();
            for bytes in batch {
                writer.write_all(&bytes).map_err(io)?;
                progress(bytes.len() as u64);
            }
        }
    }
    writer.flush().map_err(io)?;
    drop(writer);
    file.sync_all().map_err(io)
}

/// Safetensors' length word and table; in f32 the layout in use ([`crate::checkpoint::F32Layout`]).
fn header(specs: &[TensorSpec], dtype: Dtype) -> Vec<u8> {
    let mut table = Map::new();
    table.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut end = 0;
    for spec in specs {
        let begin = end;
        end += spec.len() as u64 * dtype.bytes();
        let entry =
            json!({"dtype": dtype.name(), "shape": spec.shape, "data_offsets": [begin, end]});
        table.insert(spec.name.clone(), entry);
    }
    let mut json = serde_json::Value::Object(table).to_string().into_bytes();
    json.resize((8 + json.len()).next_multiple_of(ALIGNMENT) - 8, b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    header
}

/// What a tensor is filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Ones,
    Normal(f64),
}

impl Kind {
    fn of(name: &str, range: f64) -> Self {
        let mut parts = name.rsplit('.');
        match (parts.next(), parts.next()) {
            (Some("bias"), _) => Self::Normal(0.1 * range),
            (_, Some(module)) if module.contains("norm") || module == "ln_q" => Self::Ones,
            _ => Self::Normal(range),
        }
    }
}

/// Piece `piece` of a tensor, `len` numbers.
fn draw(kind: Kind, seed: u64, name: &str, piece: usize, len: usize) -> Vec<f32> {
    let deviation = match kind {
        Kind::Ones => return vec![1.0; len],
        Kind::Normal(deviation) => deviation,
    };
    let mut stream = stream(seed, name, piece as u64);
    let mut numbers = Vec::with_capacity(len + 1);
    while numbers.len() < len {
        // Box and Muller: two uniform numbers to two normal ones. The first is in (0, 1].
        let radius = (-2.0 * ((f64::from(stream.next_u32()) + 1.0) / TWO_32).ln()).sqrt();
        let angle = std::f64::consts::TAU * f64::from(stream.next_u32()) / TWO_32;
        let (sine, cosine) = angle.sin_cos();
        for number in [cosine, sine] {
            #[expect(clippy::cast_possible_truncation, reason = "weights are f32 at most")]
            numbers.push((deviation * radius * number) as f32);
        }
    }
    numbers.truncate(len);
    numbers
}

/// 2^32.
const TWO_32: f64 = 4_294_967_296.0;

/// The random stream of a piece.
fn stream(seed: u64, name: &str, piece: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, fnv1a(name), piece, 0]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The 64-bit FNV-1a hash of a name.
fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Little-endian bytes of numbers in a type.
fn stored(numbers: &[f32], dtype: Dtype) -> Vec<u8> {
    let bytes = numbers.iter();
    match dtype {
        Dtype::F32 => bytes.flat_map(|number| number.to_le_bytes()).collect(),
        Dtype::Bf16 => bytes
            .flat_map(|&number| bf16::from_f32(number).to_le_bytes())
            .collect(),
        Dtype::F16 => bytes
            .flat_map(|&number| f16::from_f32(number).to_le_bytes())
            .collect(),
    }
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, bytes).map_err(Error::io(&path))
}
