//! A verifier of the user's own: a process that reads a JSON line per response and writes one back.
//!
//! It is asked `{"id": 7, "response": "...", "answer": "...", "extracted": "..."}` and says `{"id": 7, "accuracy": 0.5}`.
//! What takes too long, dies or writes anything else is killed and started anew for the next response; the response that it
//! failed on counts as wrong, so that nothing is gained by writing what breaks it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Of a reply.
const MAX_LINE: u64 = 1 << 20;

/// Why the command gave no answer.
#[derive(Debug, Error)]
pub enum CommandError {
    /// No shell, no process.
    #[error("--verifier-command cannot be started: {0}")]
    Start(std::io::Error),
    /// Nothing within the time limit.
    #[error(
        "--verifier-command said nothing for {0:?} and was restarted: raise --verifier-timeout-s if it needs longer"
    )]
    Timeout(Duration),
    /// It ended.
    #[error("--verifier-command ended instead of answering")]
    Ended,
    /// Something that is no reply to the question.
    #[error(
        "--verifier-command must answer {{\"id\": {id}, \"accuracy\": number from 0 to 1}}, got {got}"
    )]
    Reply {
        /// The question's number.
        id: u64,
        /// The beginning of what came.
        got: String,
    },
}

#[derive(Serialize)]
struct Question<'a> {
    id: u64,
    response: &'a str,
    answer: &'a str,
    extracted: Option<&'a str>,
}

#[derive(Deserialize)]
struct Reply {
    id: u64,
    accuracy: f32,
}

/// The command and, unless it failed the last time, its process.
#[derive(Debug)]
pub(super) struct CommandVerifier {
    line: String,
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    process: Option<Process>,
    last_id: u64,
}

impl CommandVerifier {
    /// Starts it and asks whether 1 is 1; any valid reply will do.
    pub(super) fn start(line: &str, limit: Duration) -> Result<Self, CommandError> {
        let verifier = Self {
            line: line.to_owned(),
            limit,
            state: Mutex::default(),
        };
        verifier.ask("\\boxed{1}", "1", Some("1"))?;
        Ok(verifier)
    }

    /// The accuracy that the command gives a response.
    pub(super) fn ask(
        &self,
        response: &str,
        answer: &str,
        extracted: Option<&str>,
    ) -> Result<f32, CommandError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last_id += 1;
        let id = state.last_id;
        // Kept only when the question went well.
        let mut process = match state.process.take() {
            Some(process) => process,
            None => Process::start(&self.line)?,
        };
        let question = Question {
            id,
            response,
            answer,
            extracted,
        };
        let line =
            serde_json::to_string(&question).map_err(|error| CommandError::Start(error.into()))?;
        let reply = process.exchange(line, self.limit)?;
        let accuracy = serde_json::from_str::<Reply>(&reply)
            .ok()
            .filter(|reply| reply.id == id && (0.0..=1.0).contains(&reply.accuracy))
            .map(|reply| reply.accuracy)
            .ok_or_else(|| CommandError::Reply {
                id,
                got: format!("{:?}", reply.chars().take(200).collect::<String>()),
            })?;
        state.process = Some(process);
        Ok(accuracy)
    }
}

/// A running command with the threads that write to it and read from it, so that neither can block the run.
#[derive(Debug)]
struct Process {
    child: Child,
    questions: SyncSender<String>,
    replies: Receiver<String>,
}

impl Process {
    fn start(line: &str) -> Result<Self, CommandError> {
        let mut child = Command::new("sh")
            .args(["-c", line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Its own group: what it starts ends with it.
            .process_group(0)
            .spawn()
            .map_err(CommandError::Start)?;
        let (questions, to_write) = sync_channel::<String>(1);
        let (read, replies) = sync_channel(1);
        if let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) {
            thread::spawn(move || {
                for mut line in to_write {
                    line.push('\n');
                    if stdin
                        .write_all(line.as_bytes())
                        .and_then(|()| stdin.flush())
                        .is_err()
                    {
                        break;
                    }
                }
            });
            thread::spawn(move || {
                let mut stdout = BufReader::new(stdout);
                let mut line = String::new();
                while let Ok(1..) = stdout.by_ref().take(MAX_LINE).read_line(&mut line) {
                    if read.send(std::mem::take(&mut line)).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self {
            child,
            questions,
            replies,
        })
    }

    fn exchange(&mut self, line: String, limit: Duration) -> Result<String, CommandError> {
        // The writer is idle: the question before was answered.
        self.questions.send(line).map_err(|_| CommandError::Ended)?;
        self.replies
            .recv_timeout(limit)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => CommandError::Timeout(limit),
                RecvTimeoutError::Disconnected => CommandError::Ended,
            })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);
    /// Says 0.5, but hangs on "hang", dies on "die" and babbles on "babble".
    const SCRIPT: &str = r#"while IFS= read -r line; do
        case "$line" in *hang*) sleep 1000;; *die*) exit 3;; *babble*) echo hello; continue;; esac
        id=${line#*:}; id=${id%%,*}
        echo "{\"id\": $id, \"accuracy\": 0.5}"
    done"#;

    #[test]
    fn it_answers_again_after_each_way_to_fail() {
        let verifier = CommandVerifier::start(SCRIPT, LIMIT).unwrap();
        let ask = |response| verifier.ask(response, "1", None);
        assert_eq!(ask("a\nb").unwrap(), 0.5);
        assert!(matches!(ask("die"), Err(CommandError::Ended)));
        assert_eq!(ask("a").unwrap(), 0.5);
        assert!(matches!(ask("babble"), Err(CommandError::Reply { .. })));
        assert_eq!(ask("a").unwrap(), 0.5);
        let hasty = CommandVerifier {
            limit: Duration::from_millis(300),
            ..verifier
        };
        assert!(matches!(
            hasty.ask("hang", "1", None),
            Err(CommandError::Timeout(_))
        ));
    }

    #[test]
    fn a_command_that_cannot_answer_is_refused() {
        assert!(matches!(
            CommandVerifier::start("exit 1", LIMIT),
            Err(CommandError::Ended)
        ));
        assert!(matches!(
            CommandVerifier::start("echo 1", LIMIT),
            Err(CommandError::Reply { .. })
        ));
    }
}
