//! Checkpoints: a plain Hugging Face folder, with what the trainer needs to go on exactly beside it.
//!
//! `runs/X/checkpoints/step-00000010/`: configuration, tokenizer and templates of the model, `model.safetensors` under
//! the hub's names (f32), and `optimizer.safetensors`, `trainer.json`, `records.bin`. Of a run with LoRA the weights are
//! merged, and `adapter/` is what the run goes on from, over its base model. A folder has its name only once everything in
//! it is durable.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::codec;
use shared::config::RunConfig;
use shared::ids::Ticket;
use shared::record::GroupRecord;
use shared::run_dir;
use tch::{Device, Kind};

use crate::adapter;
use crate::best;
use crate::model::Model;
use crate::model::folder::copy_companions;
use crate::model::lora::Lora;
use crate::model::selection::Selection;
use crate::optimizer::AdamW;
use crate::source::SourceState;
use crate::tally::Tally;

const FORMAT: u32 = 1;
const WEIGHTS: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const TRAINER: &str = "trainer.json";
const RECORDS: &str = "records.bin";
const ADAPTER: &str = "adapter";
const PREFIX: &str = "step-";
const TEMPORARY_PREFIX: &str = ".step-";

/// What a checkpoint is made of.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// Rollout batches trained on.
    pub step: u64,
    /// The publication of that step.
    pub weights: &'a Path,
    /// What was trained in place of the weights, if anything.
    pub lora: Option<&'a Lora>,
    /// Moments and counters.
    pub optimizer: &'a AdamW,
    /// Where the data stands.
    pub source: &'a SourceState,
    /// What the run was told; names the folder whose tokenizer and templates are copied.
    pub config: &'a RunConfig,
}

/// A checkpoint on disk.
#[derive(Debug)]
pub struct Saved {
    /// Its folder.
    pub dir: PathBuf,
    /// Rollout batches trained on.
    pub step: u64,
    /// Where the data stands.
    pub source: SourceState,
    /// The configuration that it was saved under.
    pub config: Value,
}

/// `trainer.json`. There is no random state beside the seed: every draw is keyed by the seed and by its place in the run.
#[derive(Debug, Serialize, Deserialize)]
struct TrainerState {
    format: u32,
    step: u64,
    policy_version: u64,
    seed: u64,
    num_updates: u64,
    /// Lower tickets are consumed, unless they are listed below.
    next_ticket: Ticket,
    /// Opened, without a record yet.
    awaited_tickets: Vec<Ticket>,
    /// Groups that came and belong to no batch yet; they are in `records.bin`.
    surplus_tickets: Vec<Ticket>,
    /// What was counted for the batch begun.
    tally: Tally,
    config: Value,
}

impl Saved {
    /// The optimizer's state.
    #[must_use]
    pub fn optimizer(&self) -> PathBuf {
        self.dir.join(OPTIMIZER)
    }

    /// The folder of the adapters, if the run has any.
    #[must_use]
    pub fn adapter(&self) -> Option<PathBuf> {
        let folder = self.dir.join(ADAPTER);
        folder.is_dir().then_some(folder)
    }

    /// The model: its weights or, with LoRA, its adapters over the base, since merged weights are rounded.
    pub fn model(
        &self,
        selection: &Selection,
        config: &ModelConfig,
        (base, base_folder): (&Checkpoint, &Path),
        (device, kind): (Device, Kind),
    ) -> Result<Model> {
        let weights = Checkpoint::open(&self.dir)?;
        let Some(folder) = self.adapter() else {
            return selection.load(config, &weights, device, kind);
        };
        let mut model = selection.load(config, base, device, kind)?;
        if let Some(lora) = model.parameters_mut().lora_mut() {
            adapter::load(&folder, lora)?;
        }
        model.parameters_mut().refresh();
        adapter::check_base(model.parameters(), &weights, base_folder)?;
        Ok(model)
    }
}

/// Writes a checkpoint, keeps the newest `keep` ones and the best one, and returns its folder.
pub fn save(run_dir: &Path, snapshot: &Snapshot<'_>, keep: usize) -> Result<PathBuf> {
    let root = root(run_dir);
    run_dir::create_folder(&root)?;
    let target = path(run_dir, snapshot.step);
    let temporary = root.join(format!("{TEMPORARY_PREFIX}{:08}", snapshot.step));
    let written = write(&temporary, snapshot).and_then(|()| rename(&temporary, &target));
    if let Err(error) = written {
        // The error above says more than a failing clean-up would.
        let _ = fs::remove_dir_all(&temporary);
        return Err(error.context(format!("cannot save the checkpoint {}", target.display())));
    }
    run_dir::sync_folder(&root)?;
    prune(run_dir, keep)?;
    Ok(target)
}

/// The newest checkpoint of a run.
pub fn newest(run_dir: &Path) -> Result<Option<Saved>> {
    let Some((step, dir)) = list(&root(run_dir), PREFIX)?.pop() else {
        return Ok(None);
    };
    let saved = load(&dir).with_context(|| format!("cannot resume from {}", dir.display()))?;
    ensure!(
        saved.step == step,
        "{}: is of step {}",
        dir.display(),
        saved.step
    );
    Ok(Some(saved))
}

fn write(folder: &Path, snapshot: &Snapshot<'_>) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => run_dir::create_folder(folder)?,
    }
    copy_companions(&snapshot.config.run.model, folder)?;
    write_model_config(&folder.join("config.json"))?;
    link(snapshot.weights, &folder.join(WEIGHTS))?;
    if let Some(lora) = snapshot.lora {
        let folder = folder.join(ADAPTER);
        run_dir::create_folder(&folder)?;
        adapter::save(&folder, lora, &snapshot.config.run.model)?;
        sync_files(&folder)?;
    }
    snapshot.optimizer.save(&folder.join(OPTIMIZER))?;
    let kept = &snapshot.source.kept;
    let state = TrainerState {
        format: FORMAT,
        step: snapshot.step,
        policy_version: snapshot.step,
        seed: snapshot.config.run.seed,
        num_updates: snapshot.optimizer.num_updates(),
        next_ticket: snapshot.source.next_ticket,
        awaited_tickets: snapshot.source.awaited.clone(),
        surplus_tickets: kept.iter().map(|record| record.ticket).collect(),
        tally: snapshot.source.tally,
        config: serde_json::to_value(snapshot.config)?,
    };
    fs::write(folder.join(TRAINER), serde_json::to_vec_pretty(&state)?)?;
    fs::write(folder.join(RECORDS), encode_records(kept))?;
    sync_files(folder)
}

fn sync_files(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        run_dir::sync(&fs::File::open(&path)?, &path)?;
    }
    Ok(run_dir::sync_folder(folder)?)
}

/// The weights beside it are f32, whatever the model that the run started from was stored as.
fn write_model_config(path: &Path) -> Result<()> {
    let read = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut config: Value =
        serde_json::from_slice(&read).with_context(|| path.display().to_string())?;
    let mut tables = vec![&mut config];
    while let Some(table) = tables.pop() {
        for (key, value) in table.as_object_mut().into_iter().flatten() {
            match key.as_str() {
                "torch_dtype" | "dtype" => *value = "float32".into(),
                _ => tables.push(value),
            }
        }
    }
    Ok(fs::write(path, serde_json::to_vec_pretty(&config)?)?)
}

/// A publication never changes, so the checkpoint can be another name of the same file.
fn link(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// Puts the finished folder in its place at once, also over one of the same step.
fn rename(temporary: &Path, target: &Path) -> Result<()> {
    if !target.exists() {
        return Ok(run_dir::rename(temporary, target)?);
    }
    renameat_with(CWD, temporary, CWD, target, RenameFlags::EXCHANGE)?;
    fs::remove_dir_all(temporary)?;
    Ok(())
}

fn load(dir: &Path) -> Result<Saved> {
    let read = fs::read(dir.join(TRAINER)).context(TRAINER)?;
    let state: TrainerState = serde_json::from_slice(&read).context(TRAINER)?;
    ensure!(
        state.format == FORMAT,
        "{TRAINER}: format {}, expected {FORMAT}",
        state.format
    );
    let kept = decode_records(&fs::read(dir.join(RECORDS)).context(RECORDS)?).with_context(|| {
        format!("{RECORDS}, the groups that the run had left over: what another build wrote, that build alone resumes")
    })?;
    let tickets: Vec<Ticket> = kept.iter().map(|record| record.ticket).collect();
    ensure!(
        tickets == state.surplus_tickets,
        "{RECORDS}: not the groups that {TRAINER} names"
    );
    let source = SourceState {
        next_ticket: state.next_ticket,
        awaited: state.awaited_tickets,
        kept,
        tally: state.tally,
    };
    Ok(Saved {
        dir: dir.to_owned(),
        step: state.step,
        source,
        config: state.config,
    })
}

/// Each record as its length (u64, little-endian) and its bytes.
fn encode_records(records: &[GroupRecord]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        let frame = codec::encode(record);
        bytes.extend((frame.len() as u64).to_le_bytes());
        bytes.extend(frame);
    }
    bytes
}

fn decode_records(mut bytes: &[u8]) -> Result<Vec<GroupRecord>> {
    let mut records = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::try_from(u64::from_le_bytes(*length))?;
        let Some((frame, rest)) = rest.split_at_checked(length) else {
            bail!("the last record is cut off")
        };
        records.push(codec::decode(frame)?);
        bytes = rest;
    }
    ensure!(bytes.is_empty(), "{} bytes too many", bytes.len());
    Ok(records)
}

/// Removes all checkpoints but the newest `keep` and the best one, and what an interrupted save left.
pub fn prune(run_dir: &Path, keep: usize) -> Result<()> {
    let root = &root(run_dir);
    for (_, leftover) in list(root, TEMPORARY_PREFIX)? {
        remove(&leftover)?;
    }
    let mut old = list(root, PREFIX)?;
    old.truncate(old.len().saturating_sub(keep.max(1)));
    let best = best::step(run_dir);
    old.retain(|(step, _)| Some(*step) != best);
    for (step, dir) in old {
        // Renamed first: a removal that is interrupted leaves no folder that looks whole.
        let doomed = root.join(format!("{TEMPORARY_PREFIX}{step:08}"));
        fs::rename(&dir, &doomed).with_context(|| format!("cannot remove {}", dir.display()))?;
        remove(&doomed)?;
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Folders of that prefix with their steps, lowest first.
fn list(root: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot list {}", root.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some(step) = name
            .strip_prefix(prefix)
            .and_then(|digits| digits.parse().ok())
        {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The name of the folder of a step.
pub(crate) fn name(step: u64) -> String {
    format!("{PREFIX}{step:08}")
}

/// The step of a folder's name.
pub(crate) fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// The folder of a step.
pub(crate) fn path(run_dir: &Path, step: u64) -> PathBuf {
    root(run_dir).join(name(step))
}

/// The folder of all checkpoints of a run.
pub(crate) fn root(run_dir: &Path) -> PathBuf {
    run_dir.join("checkpoints")
}
