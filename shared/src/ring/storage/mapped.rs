//! Storage in a mapped file: the only place where this crate touches memory that another process may write.
#![allow(
    unsafe_code,
    reason = "words of a mapping as atomics; every access to shared memory is in this file"
)]

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memmap2::{MmapOptions, MmapRaw};
use rustix::io::Errno;
use rustix::thread::futex;

use super::{HEADER_WORDS, SIGNALS, Storage};
use crate::error::{Error, Result};
use crate::ring::sync::{AtomicU32, AtomicU64, Ordering};
use crate::run_dir;

/// Bytes before the body.
const HEADER_BYTES: usize = 4096;
/// Header words that every mapped file has.
const MAGIC: usize = 0;
const VERSION: usize = 1;
const BODY_BYTES: usize = 2;
/// Where the signals are, and how far apart (a cache line).
const SIGNALS_BYTE: usize = 2048;
const SIGNAL_STRIDE: usize = 64;
const WORD_BYTES: usize = size_of::<u64>();

/// What a mapped file says about itself.
#[derive(Debug)]
pub(crate) struct Format {
    /// For messages: `ring` or `control page`.
    pub(crate) kind: &'static str,
    /// The first eight bytes.
    pub(crate) magic: [u8; 8],
    /// Of the words' meaning; a change of any makes a new one.
    pub(crate) version: u64,
}

/// A file of words, mapped shared. Its length was checked against its header and its blocks are all allocated, so no
/// access within bounds can fail while nobody truncates it.
#[derive(Debug)]
pub(crate) struct Mapped {
    map: MmapRaw,
    file: File,
    path: PathBuf,
}

impl Mapped {
    /// Makes the file, allocated in full, and lets `fill` write its words before it gets its name.
    pub(crate) fn create(
        path: &Path,
        format: &Format,
        body_bytes: usize,
        fill: impl FnOnce(&Storage),
    ) -> Result<()> {
        let temporary = run_dir::temporary(path);
        let made = Self::create_unnamed(&temporary, format, body_bytes, fill)
            .and_then(|()| run_dir::rename(&temporary, path));
        if made.is_err() {
            run_dir::discard(&temporary);
        }
        made
    }

    fn create_unnamed(
        path: &Path,
        format: &Format,
        body_bytes: usize,
        fill: impl FnOnce(&Storage),
    ) -> Result<()> {
        let body_bytes = body_bytes.next_multiple_of(WORD_BYTES);
        let file = run_dir::create_file(path)?;
        run_dir::allocate(&file, path, (HEADER_BYTES + body_bytes) as u64)?;
        let mapped = file.try_clone().map_err(Error::io("open", path))?;
        let storage = Storage::Mapped(Self::map(mapped, path)?);
        storage
            .header(MAGIC)
            .store(u64::from_le_bytes(format.magic), Ordering::Relaxed);
        storage
            .header(VERSION)
            .store(format.version, Ordering::Relaxed);
        storage
            .header(BODY_BYTES)
            .store(body_bytes as u64, Ordering::Relaxed);
        fill(&storage);
        // The mapping's pages are the file's, so this writes them too.
        run_dir::sync(&file, path)
    }

    /// Maps a file that exists, if it is of this format and as long as it says.
    pub(crate) fn open(path: &Path, format: &Format) -> Result<Self> {
        let file = File::options().read(true).write(true).open(path);
        let file = file.map_err(Error::io("open", path))?;
        let length = file
            .metadata()
            .map_err(Error::io("read the length of", path))?
            .len();
        let wrong = |field, expected: String, got: String| {
            Error::layout(path, format.kind, field, expected, got)
        };
        if length < HEADER_BYTES as u64 {
            let expected = format!("at least {HEADER_BYTES} bytes");
            return Err(wrong("length", expected, format!("{length} bytes")));
        }
        let mapped = Self::map(file, path)?;
        let magic = mapped.header(MAGIC).load(Ordering::Relaxed).to_le_bytes();
        if magic != format.magic {
            let show = |magic: &[u8]| format!("\"{}\"", magic.escape_ascii());
            return Err(wrong("magic", show(&format.magic), show(&magic)));
        }
        let version = mapped.header(VERSION).load(Ordering::Relaxed);
        if version != format.version {
            return Err(wrong(
                "layout version",
                format.version.to_string(),
                version.to_string(),
            ));
        }
        let body_bytes = mapped.header(BODY_BYTES).load(Ordering::Relaxed);
        if body_bytes % WORD_BYTES as u64 != 0
            || body_bytes.checked_add(HEADER_BYTES as u64) != Some(length)
        {
            let expected = format!("{HEADER_BYTES} + {body_bytes} bytes");
            return Err(wrong("length", expected, format!("{length} bytes")));
        }
        Ok(mapped)
    }

    fn map(file: File, path: &Path) -> Result<Self> {
        // Every page at once: a ring's memory is in use from the start on, not little by little over its first round.
        let map = MmapOptions::new()
            .populate()
            .map_raw(&file)
            .map_err(Error::io("map", path))?;
        Ok(Self {
            map,
            file,
            path: path.to_owned(),
        })
    }

    pub(super) fn header(&self, index: usize) -> &AtomicU64 {
        assert!(index < HEADER_WORDS, "header word {index}");
        let word = self.map.as_mut_ptr().cast::<u64>().wrapping_add(index);
        // SAFETY: within the header, which `open` and `create` found mapped; page-aligned plus whole words; alive as long as
        // `self`; this crate and its other processes access these bytes as this atomic only.
        unsafe { AtomicU64::from_ptr(word) }
    }

    pub(super) fn body(&self) -> &[AtomicU64] {
        let words = (self.map.len() - HEADER_BYTES) / WORD_BYTES;
        let first = self
            .map
            .as_ptr()
            .wrapping_add(HEADER_BYTES)
            .cast::<AtomicU64>();
        // SAFETY: the mapping is at least HEADER_BYTES long and `words` is what is left of it; aligned as above; atomics may
        // be shared with writers anywhere, and all access to these bytes is through them.
        unsafe { std::slice::from_raw_parts(first, words) }
    }

    pub(super) fn signal(&self, signal: usize) -> &AtomicU32 {
        assert!(signal < SIGNALS, "signal {signal}");
        let byte = SIGNALS_BYTE + signal * SIGNAL_STRIDE;
        let word = self.map.as_mut_ptr().wrapping_add(byte).cast::<u32>();
        // SAFETY: within the header and beyond the words that `header` gives out, aligned to a cache line; as above.
        unsafe { AtomicU32::from_ptr(word) }
    }

    pub(super) fn wait(&self, signal: usize, seen: u32, timeout: Duration) -> Result<()> {
        let timeout = futex::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        // Not FUTEX_PRIVATE: the other side is another process.
        match futex::wait(
            self.signal(signal),
            futex::Flags::empty(),
            seen,
            Some(&timeout),
        ) {
            Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => Ok(()),
            Err(errno) => Err(Error::io("wait on", &self.path)(io::Error::from(errno))),
        }
    }

    pub(super) fn notify(&self, signal: usize) {
        self.signal(signal).fetch_add(1, Ordering::SeqCst);
        // Waking can fail for a bad address only, and this one was just written to.
        let _ = futex::wake(
            self.signal(signal),
            futex::Flags::empty(),
            i32::MAX.unsigned_abs(),
        );
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file behind the mapping, to lock it or ask for its links.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// Milliseconds since 1970, for heartbeats.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
