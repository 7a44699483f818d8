//! Log lines: above the progress line in a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;

use tracing_indicatif::IndicatifLayer;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use super::progress::{PROGRESS_TARGET, Progress};

/// Why logging could not start.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// RUST_LOG does not parse.
    #[error("RUST_LOG is not understood: {0}; an example: RUST_LOG=debug,ort=warn")]
    Filter(#[from] tracing_subscriber::filter::FromEnvError),
    /// A second call.
    #[error("logging was started twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// The program's way to stderr.
#[derive(Debug, Clone, Copy)]
pub struct Telemetry {
    program: &'static str,
    is_terminal: bool,
}

/// Starts logging to stderr. `program` names it on the progress line.
///
/// Level `info` unless RUST_LOG says otherwise; RUST_LOG does not hide the progress line of a terminal.
///
/// # Errors
/// When RUST_LOG is malformed, or logging was started before.
pub fn init(program: &'static str) -> Result<Telemetry, Error> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()?;
    let is_terminal = std::io::stderr().is_terminal();
    if is_terminal {
        let progress = IndicatifLayer::new();
        let lines = fmt::layer()
            .without_time()
            .with_target(false)
            .with_writer(progress.get_stderr_writer());
        tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .with(progress.with_filter(filter_fn(|metadata| metadata.target() == PROGRESS_TARGET)))
            .try_init()?;
    } else {
        let lines = fmt::layer()
            .with_ansi(false)
            .with_target(false)
            .with_writer(std::io::stderr);
        tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .try_init()?;
    }
    Ok(Telemetry {
        program,
        is_terminal,
    })
}

impl Telemetry {
    /// A progress line that counts to `total` steps, or just counts.
    #[must_use]
    pub fn progress(&self, total: Option<u64>) -> Progress {
        Progress::new(self.program, self.is_terminal, total)
    }
}
