//! What can go wrong between the two programs, by cause. Each message says what to do.

#[cfg(not(loom))]
use std::fmt;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that rings, records, control page, weights and run folder refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a path.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// No room for a file that has to be allocated in full.
    #[error("no space left for {}: it needs {needed_bytes} bytes; free some space on that file system or choose another --run-dir", path.display())]
    StorageFull {
        /// The file.
        path: PathBuf,
        /// Its full size.
        needed_bytes: u64,
    },
    /// A mapped file that this build cannot use.
    #[error("{} is no {kind} of this build: {field} is {got}, expected {expected}; {}", path.display(), remedy(kind))]
    Layout {
        /// The file.
        path: PathBuf,
        /// `ring` or `control page`.
        kind: &'static str,
        /// Which header field differs.
        field: &'static str,
        /// What this build wants there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A ring whose positions or frames make no sense.
    #[error("ring {} is damaged at byte {position}: {reason}; stop both programs and delete it, its groups are generated again", path.display())]
    CorruptRing {
        /// The file; empty for a ring on the heap.
        path: PathBuf,
        /// The reader's position.
        position: u64,
        /// What was found.
        reason: String,
    },
    /// A frame that cannot fit however long one waits.
    #[error(
        "a record of {got} bytes does not fit the ring, whose largest is {max} bytes; raise --ring-mib or lower --group-size"
    )]
    FrameTooLarge {
        /// The frame's length in bytes.
        got: usize,
        /// The ring's largest frame in bytes.
        max: usize,
    },
    /// Bytes that are no record.
    #[error("not a group record: {field} {reason}")]
    Record {
        /// Where in the record.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process holds what only one may hold.
    #[error("{what} {} is in use by another {holder}; stop it or choose another --run-dir", path.display())]
    InUse {
        /// `run folder` or `ring`.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Who holds it, with the process id where known.
        holder: String,
    },
    /// A folder that holds something else.
    #[error("{} is not empty and holds no run; choose another --run-dir", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// All seats of the control page are taken by living processes.
    #[error("all {max} seats of {} are taken; stop a rollout process first", path.display())]
    NoSeat {
        /// The control page.
        path: PathBuf,
        /// How many seats a page has.
        max: usize,
    },
    /// The seat no longer belongs to this process, or its page is gone.
    #[error("this process lost its seat in {}: {reason}; start it again", path.display())]
    SeatLost {
        /// The control page.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// A ticket that the board cannot hold now.
    #[error(
        "ticket {ticket} does not fit the board: tickets from {base} on are unfinished and it holds {capacity}"
    )]
    BoardFull {
        /// The ticket.
        ticket: u64,
        /// The lowest unfinished ticket.
        base: u64,
        /// How many tickets fit.
        capacity: u64,
    },
    /// The caller's closure failed while weights were being written.
    #[error("cannot write the weights of version {version}")]
    Fill {
        /// The version that was not published.
        version: u64,
        /// The closure's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// For `map_err`: an `Io` that names action and path.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    #[cfg(not(loom))]
    pub(crate) fn layout(
        path: &Path,
        kind: &'static str,
        field: &'static str,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::Layout {
            path: path.to_owned(),
            kind,
            field,
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }
}

/// What to do about a file of another layout.
fn remedy(kind: &str) -> &'static str {
    match kind {
        "ring" => {
            "stop both programs, delete the file and start them again (unread records are generated again), or use the build that wrote it"
        }
        _ => "stop both programs and delete the file, or use the build that wrote it",
    }
}
