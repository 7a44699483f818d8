//! Processes as the control page remembers them: an id and the time it began, so that an id used again is another process.

use std::fs;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};

/// Linux process ids fit 22 bits; the rest of the word holds the start time.
const PID_BITS: u32 = 22;
const START_MASK: u64 = (1 << (u64::BITS - PID_BITS)) - 1;

/// A process of this machine since it was booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Clock ticks from boot to its start, field 22 of /proc/PID/stat; the low 42 bits.
    start: u64,
}

impl Process {
    /// This process.
    pub(super) fn current() -> Result<Self> {
        let path = Path::new("/proc/self/stat");
        let stat = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let pid = std::process::id();
        let Some((_, start)) = parse(&stat).filter(|_| pid < 1 << PID_BITS) else {
            let odd = std::io::Error::other("its format is unknown");
            return Err(Error::io("understand", path)(odd));
        };
        Ok(Self { pid, start })
    }

    /// One word, never 0.
    pub(super) fn pack(self) -> u64 {
        self.start << PID_BITS | u64::from(self.pid)
    }

    /// The process of a word; `None` for 0.
    pub(super) fn unpack(word: u64) -> Option<Self> {
        let pid = u32::try_from(word & ((1 << PID_BITS) - 1)).ok()?;
        (word != 0).then_some(Self {
            pid,
            start: word >> PID_BITS,
        })
    }

    /// False once it was killed, waited for or not.
    pub(super) fn is_alive(self) -> bool {
        match fs::read_to_string(format!("/proc/{}/stat", self.pid)) {
            // Z: killed, and its parent has not asked for its status. X: about to be gone.
            Ok(stat) => parse(&stat)
                .is_none_or(|(state, start)| start == self.start && !matches!(state, 'Z' | 'X')),
            // ESRCH: it went while being read.
            Err(error) => {
                !(error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(3))
            }
        }
    }
}

/// State and start time of a /proc/PID/stat line. The program's name, in parentheses, may hold spaces and parentheses.
fn parse(stat: &str) -> Option<(char, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Fields count from 1; the state is field 3 and was just taken.
    let start: u64 = fields.nth(22 - 4)?.parse().ok()?;
    Some((state, start & START_MASK))
}

/// A number for this boot of this machine and its process ids: processes of another one are gone, or not to be seen.
pub(super) fn machine() -> Result<u64> {
    let boot = Path::new("/proc/sys/kernel/random/boot_id");
    let boot = fs::read_to_string(boot).map_err(Error::io("read", boot))?;
    let namespace = Path::new("/proc/self/ns/pid");
    let namespace = fs::read_link(namespace).map_err(Error::io("read", namespace))?;
    Ok(xxh3_64(
        format!("{} {}", boot.trim(), namespace.display()).as_bytes(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_an_odd_name() {
        let line = "42 (a) b (c) R 1 42 42 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 1 0 777 1000 200 18446744073709551615";
        assert_eq!(parse(line), Some(('R', 777)));
        assert_eq!(parse("42 (cut"), None);
    }

    #[test]
    fn this_process_lives_and_another_of_its_id_does_not() {
        let me = Process::current().unwrap();
        assert_eq!(Process::unpack(me.pack()), Some(me));
        assert!(me.is_alive());
        assert!(
            !Process {
                start: me.start + 1,
                ..me
            }
            .is_alive()
        );
        assert_eq!(Process::unpack(0), None);
    }

    #[test]
    fn a_killed_process_is_dead_before_it_is_waited_for() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let process = Process {
            pid: child.id(),
            start: parse(&stat).unwrap().1,
        };
        assert!(process.is_alive());
        child.kill().unwrap();
        while process.is_alive() {
            std::thread::yield_now();
        }
        assert!(
            Path::new(&format!("/proc/{}", child.id())).exists(),
            "a zombie still"
        );
        child.wait().unwrap();
        assert!(!process.is_alive());
    }
}
