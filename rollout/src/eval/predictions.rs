//! Every response with its verdict, in a file of JSON lines that an evaluation goes on from. The first line says how it was asked.
//! A later line about the same response replaces an earlier one; when all is done the file is written anew, in order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use shared::config::{FormatRule, VerifierArgs, VerifierMode};

use super::benchmark::Benchmark;
use super::prompts::{ImageRule, Protocol};
use super::question::Question;

/// Of a line: a prompt and a response are far smaller.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// All that the responses and their verdicts depend on.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Settings {
    pub(super) benchmark: Option<Benchmark>,
    pub(super) data: String,
    pub(super) model: String,
    pub(super) protocol: Protocol,
    pub(super) prompt_template: String,
    pub(super) image_rule: ImageRule,
    pub(super) min_pixels: Option<usize>,
    pub(super) max_pixels: Option<usize>,
    pub(super) with_text_rows: bool,
    pub(super) max_prompt_tokens: usize,
    pub(super) max_response_tokens: usize,
    pub(super) precision: String,
    pub(super) temperature: f64,
    pub(super) top_p: f64,
    pub(super) top_k: usize,
    pub(super) seed: u64,
    pub(super) samples_per_problem: usize,
    /// Files of before it could be chosen were judged by the default.
    #[serde(default)]
    pub(super) verifier: VerifierMode,
    #[serde(default)]
    pub(super) verifier_command: Option<String>,
    #[serde(default)]
    pub(super) format_rule: FormatRule,
}

impl Settings {
    /// Judged by this one.
    pub(super) fn set_verifier(&mut self, verifier: &VerifierArgs) {
        self.verifier = verifier.mode;
        self.verifier_command.clone_from(&verifier.command);
        self.format_rule = verifier.format_rule;
    }

    /// The same, judged as others are.
    fn judged_as(&self, other: &Self) -> Self {
        Self {
            verifier: other.verifier,
            verifier_command: other.verifier_command.clone(),
            format_rule: other.format_rule,
            ..self.clone()
        }
    }
}

/// One response to one question.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub(super) struct Prediction {
    /// What was asked.
    #[serde(flatten)]
    pub question: Question,
    /// Its number among the responses to the question.
    pub sample: usize,
    /// The whole text that the model got, one placeholder per image.
    pub prompt: String,
    /// What it answered; nothing where it could not be asked.
    pub response: Option<String>,
    /// `stop` or `length`.
    pub finish: String,
    /// Tokens of the response.
    pub num_tokens: usize,
    /// Why it could not be asked: that counts as wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The answer that was found in the response.
    pub extraction: Option<String>,
    /// The verdict of the rules.
    pub is_right_by_rules: bool,
    /// How right it is by them: only where an external verifier gave it a part, which counts in the accuracy alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit: Option<f64>,
    /// That of a judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeVerdict>,
    /// The verdict that counts: right by the rules or the judge.
    pub is_right: bool,
    /// `<think> ... </think> ... \boxed{}`.
    pub is_well_formed: bool,
}

impl Prediction {
    /// Of a question that got no response.
    pub(super) fn unanswered(question: Question, sample: usize) -> Self {
        Self {
            question,
            sample,
            prompt: String::new(),
            response: None,
            finish: String::new(),
            num_tokens: 0,
            error: None,
            extraction: None,
            is_right_by_rules: false,
            credit: None,
            judge: None,
            is_right: false,
            is_well_formed: false,
        }
    }

    /// How right it is, from 0 to 1.
    pub(super) fn accuracy(&self) -> f64 {
        if self.is_right && !self.is_right_by_rules {
            return 1.0; // the judge's word
        }
        self.rules_accuracy()
    }

    /// The same by the rules alone.
    pub(super) fn rules_accuracy(&self) -> f64 {
        let all = f64::from(u8::from(self.is_right_by_rules));
        self.credit.unwrap_or(all).clamp(0.0, 1.0)
    }
}

/// What a judge said.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(super) struct JudgeVerdict {
    /// Which judge.
    pub model: String,
    /// Its verdict; none when it gave none.
    pub is_right: Option<bool>,
    /// Its words, or why there are none.
    pub reply: String,
}

/// The file, and what is in it.
pub(super) struct Predictions {
    pub(super) settings: Settings,
    /// By question and sample.
    pub(super) lines: BTreeMap<(u64, usize), Prediction>,
    /// Open at its end, locked; none when nothing is kept.
    file: Option<(PathBuf, File)>,
}

impl Predictions {
    /// In memory alone.
    pub(super) fn nowhere(settings: Settings) -> Self {
        Self {
            settings,
            lines: BTreeMap::new(),
            file: None,
        }
    }

    /// Goes on with the file, or begins it.
    pub(super) fn resume(path: &Path, settings: Settings) -> Result<Self> {
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("cannot write the predictions to {}", path.display()))?;
        lock(path, &file)?;
        if file.metadata()?.len() == 0 {
            write_line(path, &mut file, &settings)?;
            return Ok(Self {
                file: Some((path.to_owned(), file)),
                ..Self::nowhere(settings)
            });
        }
        let found = read(path, &mut file)?;
        if let Some(difference) = difference(&found.settings.judged_as(&settings), &settings)? {
            bail!(
                "{} holds predictions that were made otherwise ({difference}): name another file with --predictions, or remove it",
                path.display()
            );
        }
        if let Some(difference) = difference(&found.settings, &settings)? {
            bail!(
                "{0} holds predictions that were judged otherwise ({difference}): first --rescore {0} with the verifier that is \
                 meant, or name another file with --predictions",
                path.display()
            );
        }
        // A line that was cut short is written again.
        file.set_len(found.whole_bytes)?;
        Ok(Self {
            settings,
            lines: found.lines,
            file: Some((path.to_owned(), file)),
        })
    }

    /// Reads a finished or unfinished file, to score it again.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut file = File::options()
            .read(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open the predictions {}", path.display()))?;
        lock(path, &file)?;
        let found = read(path, &mut file)?;
        file.set_len(found.whole_bytes)?;
        Ok(Self {
            settings: found.settings,
            lines: found.lines,
            file: Some((path.to_owned(), file)),
        })
    }

    /// From here on in another file.
    pub(super) fn move_to(&mut self, path: &Path) -> Result<()> {
        let file = File::create(path)
            .with_context(|| format!("cannot write the predictions to {}", path.display()))?;
        lock(path, &file)?;
        self.file = Some((path.to_owned(), file));
        Ok(())
    }

    /// Writes the file anew and goes on behind its end.
    pub(super) fn rewrite(&mut self) -> Result<()> {
        let Some((path, _locked)) = self.file.take() else {
            return Ok(());
        };
        self.write(&path)?;
        let file = File::options()
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open the predictions {}", path.display()))?;
        lock(&path, &file)?;
        self.file = Some((path, file));
        Ok(())
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }

    /// Whether all responses to a question are there.
    pub(super) fn has(&self, index: usize) -> bool {
        (0..self.settings.samples_per_problem).all(|sample| {
            let line = self.lines.get(&(index as u64, sample));
            line.is_some_and(|line| line.error.is_none())
        })
    }

    /// Keeps a prediction, in the file as well.
    pub(super) fn add(&mut self, prediction: Prediction) -> Result<()> {
        if let Some((path, file)) = &mut self.file {
            write_line(path, file, &prediction)?;
        }
        let key = (prediction.question.index, prediction.sample);
        self.lines.insert(key, prediction);
        Ok(())
    }

    /// Writes the file anew: each response once, in order.
    pub(super) fn finish(&mut self) -> Result<()> {
        let Some((path, _)) = &self.file else {
            return Ok(());
        };
        self.write(path)
    }

    /// Writes all of it to a file, whole or not at all.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let failed = || format!("cannot write {}", path.display());
        let mut copy = tempfile::Builder::new()
            .prefix(".predictions")
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .with_context(failed)?;
        let mut writer = std::io::BufWriter::new(copy.as_file_mut());
        let lines = std::iter::once(serde_json::to_string(&self.settings))
            .chain(self.lines.values().map(serde_json::to_string));
        for line in lines {
            writeln!(writer, "{}", line?).with_context(failed)?;
        }
        writer.flush().with_context(failed)?;
        drop(writer);
        copy.as_file().sync_all().with_context(failed)?;
        if let Ok(metadata) = std::fs::metadata(path) {
            copy.as_file().set_permissions(metadata.permissions())?;
        }
        copy.persist(path).with_context(failed)?;
        Ok(())
    }
}

struct Found {
    settings: Settings,
    lines: BTreeMap<(u64, usize), Prediction>,
    /// Up to the end of the last whole line.
    whole_bytes: u64,
}

fn read(path: &Path, file: &mut File) -> Result<Found> {
    let place = |number: usize| format!("{}, line {number}", path.display());
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(&mut *file);
    let mut settings: Option<Settings> = None;
    let (mut lines, mut whole_bytes) = (BTreeMap::new(), 0);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut reader)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
            .with_context(|| place(number))?;
        if read as u64 == MAX_LINE_BYTES {
            bail!("{}: more than {MAX_LINE_BYTES} bytes", place(number));
        }
        if line.last() != Some(&b'\n') {
            break; // the end, or a line that was cut short
        }
        match settings {
            None => {
                let header = serde_json::from_slice(&line)
                    .with_context(|| format!("{}: no head of a predictions file", place(number)))?;
                settings = Some(header);
            }
            Some(_) => {
                let prediction: Prediction = serde_json::from_slice(&line)
                    .with_context(|| format!("{}: no prediction", place(number)))?;
                lines.insert((prediction.question.index, prediction.sample), prediction);
            }
        }
        whole_bytes += read as u64;
    }
    let settings =
        settings.with_context(|| format!("{} is no predictions file", path.display()))?;
    Ok(Found {
        settings,
        lines,
        whole_bytes,
    })
}

/// The first settings that differ, in words.
fn difference(found: &Settings, wanted: &Settings) -> Result<Option<String>> {
    let (found, wanted) = (serde_json::to_value(found)?, serde_json::to_value(wanted)?);
    let keys = wanted.as_object().into_iter().flatten();
    let differing = keys.filter_map(|(key, wanted)| {
        let found = found.get(key)?;
        (found != wanted).then(|| format!("{key} {found}, now {wanted}"))
    });
    let said: Vec<String> = differing.take(3).collect();
    Ok((!said.is_empty()).then(|| said.join("; ")))
}

fn lock(path: &Path, file: &File) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => bail!(
            "{} is in use by another rollout eval: wait for it, or name another file with --predictions",
            path.display()
        ),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn write_line(path: &Path, file: &mut File, value: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(value)? + "\n";
    file.write_all(line.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}
