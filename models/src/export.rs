//! Checkpoint to ONNX folder: `vision.onnx`, `decoder.onnx`, their weights, and the files a user of the model needs.
//!
//! The graphs depend on the configuration alone, so exporting new weights of the same model moves the weights file
//! and nothing else; one that is already in the layout of [`F32Layout`] is linked, not copied.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::{Checkpoint, F32Layout, write_f32};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::graph::{self, Form, WEIGHTS_FILE};
use crate::names;

/// Files of a model folder that go along when they are there.
const COMPANIONS: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// What to export: weights, and the model folder that says what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// A model folder or a `.safetensors` file.
    pub weights: PathBuf,
    /// Folder with config.json, the tokenizer and the rest.
    pub model: PathBuf,
}

/// What became of one file of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was the same already.
    Kept,
    /// Written anew.
    Written,
    /// The checkpoint's own file under a second name.
    Linked,
}

impl Source {
    /// A checkpoint given by the user: a model folder, or a weights file beside its config.json; a lone weights file
    /// takes the rest from the model of the run.
    pub fn of_checkpoint(checkpoint: &Path, run_dir: &Path) -> Result<Self> {
        let folder = if checkpoint.is_dir() {
            checkpoint
        } else {
            checkpoint.parent().unwrap_or(Path::new(""))
        };
        let lacks_config = !folder.join("config.json").exists();
        let model = if !checkpoint.is_dir() && checkpoint.exists() && lacks_config {
            model_of_run(run_dir)?
        } else {
            folder.to_path_buf()
        };
        Ok(Self {
            weights: checkpoint.to_path_buf(),
            model,
        })
    }

    /// The newest weights that the learner of a run published.
    pub fn newest_of_run(run_dir: &Path) -> Result<Self> {
        let folder = run_dir.join("weights");
        let entries = fs::read_dir(&folder).map_err(|_| no_weights(run_dir))?;
        let newest = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|name| Some((name.strip_prefix('v')?.parse::<u64>().ok()?, name)))
            .filter(|(_, name)| folder.join(name).join(WEIGHTS_FILE).exists())
            .max()
            .ok_or_else(|| no_weights(run_dir))?;
        Ok(Self {
            weights: folder.join(newest.1).join(WEIGHTS_FILE),
            model: model_of_run(run_dir)?,
        })
    }
}

/// Writes the ONNX folder `out` with graphs of this form, or brings it up to date: each file appears whole, and is left alone where it is the
/// same already. Gives each file's name and what became of it.
pub fn export(source: &Source, out: &Path, form: Form) -> Result<Vec<(String, Outcome)>> {
    let config = ModelConfig::from_dir(&source.model)?;
    let checkpoint = Checkpoint::open(&source.weights)?;
    checkpoint.check(&config)?;
    let layout = F32Layout::new(&names::tensors(&config));
    let graphs = [
        ("decoder.onnx", graph::decoder(&config, &layout, form)?),
        ("vision.onnx", graph::vision(&config, &layout, form)?),
    ];

    refuse_source(source, out)?;

    // A new folder is filled under another name, so that it is seen whole or not at all.
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let staging = if out.exists() {
        None
    } else {
        let made = tempfile::Builder::new().prefix(".onnx-").tempdir_in(parent);
        Some(made.map_err(Error::io(parent))?)
    };
    let folder = staging.as_ref().map_or(out, tempfile::TempDir::path);

    let mut outcomes = Vec::new();
    for (name, bytes) in graphs {
        outcomes.push((name.to_owned(), put(folder, name, &bytes)?));
    }
    for name in COMPANIONS {
        let file = source.model.join(name);
        match fs::read(&file) {
            Ok(bytes) => outcomes.push((name.to_owned(), put(folder, name, &bytes)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&file)(error)),
        }
    }
    // Last: what is there now belongs to these weights.
    let weights = put_weights(folder, &source.weights, &checkpoint, &config, &layout)?;
    outcomes.push((WEIGHTS_FILE.to_owned(), weights));
    if let Some(staging) = staging {
        fs::rename(staging.path(), out).map_err(Error::io(out))?;
        let _ = staging.keep(); // it is `out` now
    }
    Ok(outcomes)
}

/// Written onto its own source, a bf16 checkpoint would be lost to its f32 copy.
fn refuse_source(source: &Source, out: &Path) -> Result<()> {
    let Ok(out) = out.canonicalize() else {
        return Ok(()); // not there yet
    };
    let weights = if source.weights.is_dir() {
        Some(source.weights.as_path())
    } else {
        source.weights.parent()
    };
    for folder in [Some(source.model.as_path()), weights]
        .into_iter()
        .flatten()
    {
        if folder.canonicalize().is_ok_and(|folder| folder == out) {
            return Err(Error::Checkpoint {
                path: out,
                problem: "the ONNX folder would overwrite the checkpoint it is made from; give another OUT".to_owned(),
            });
        }
    }
    Ok(())
}

/// The weights in the graphs' layout: linked when they have it, else converted.
fn put_weights(
    folder: &Path,
    source: &Path,
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    layout: &F32Layout,
) -> Result<Outcome> {
    let target = folder.join(WEIGHTS_FILE);
    let file = if source.is_dir() {
        source.join(WEIGHTS_FILE)
    } else {
        source.to_path_buf()
    };
    let has_layout = file.is_file() && layout.matches(&file).map_err(Error::io(&file))?;
    if !has_layout {
        write_f32(&target, checkpoint, config)?;
        return Ok(Outcome::Written);
    }
    let file = file.canonicalize().map_err(Error::io(&file))?; // not a link to it: ONNX Runtime refuses those
    if is_same_file(&file, &target) {
        return Ok(Outcome::Kept);
    }
    let staging = tempfile::Builder::new()
        .prefix(".link-")
        .tempdir_in(folder)
        .map_err(Error::io(folder))?;
    let link = staging.path().join(WEIGHTS_FILE);
    match fs::hard_link(&file, &link) {
        Ok(()) => {
            fs::rename(&link, &target).map_err(Error::io(&target))?;
            Ok(Outcome::Linked)
        }
        // Another file system, or one without links.
        Err(_) => {
            write_f32(&target, checkpoint, config)?;
            Ok(Outcome::Written)
        }
    }
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| {
        fs::symlink_metadata(path)
            .ok()
            .map(|file| (file.dev(), file.ino()))
    };
    identity(a).is_some() && identity(a) == identity(b)
}

/// Writes a small file whole, unless it holds these bytes already.
fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<Outcome> {
    let target = folder.join(name);
    if fs::read(&target).is_ok_and(|present| present == bytes) {
        return Ok(Outcome::Kept);
    }
    let io = |error| Error::io(&target)(error);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(&target).map_err(|error| io(error.error))?;
    Ok(Outcome::Written)
}

/// The model that a run trains, from the run folder's config.toml.
fn model_of_run(run_dir: &Path) -> Result<PathBuf> {
    let path = run_dir.join("config.toml");
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    let problem = |problem: String| Error::Config {
        path: path.clone(),
        key: "run.model".to_owned(),
        problem,
    };
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| problem(error.message().to_owned()))?;
    let model = table
        .get("run")
        .and_then(|run| run.get("model"))
        .and_then(toml::Value::as_str);
    let model = model.ok_or_else(|| {
        problem("is missing: name the model folder that the run trains".to_owned())
    })?;
    Ok(PathBuf::from(model))
}

fn no_weights(run_dir: &Path) -> Error {
    Error::Checkpoint {
        path: run_dir.join("weights"),
        problem: "the run has published no weights yet: start its learner, or name a checkpoint"
            .to_owned(),
    }
}
