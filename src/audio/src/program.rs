//! Execution of a program for its output, with limits on its time and on its output.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

/// Limits beyond which a program is killed with all its children.
#[derive(Clone, Copy, Debug)]
pub struct ProgramLimits {
    /// Longest running time.
    pub time: Duration,
    /// Largest number of bytes of output.
    pub bytes: u64,
}

impl Default for ProgramLimits {
    /// Five minutes and one GiB.
    fn default() -> Self {
        Self { time: Duration::from_secs(300), bytes: 1 << 30 }
    }
}

/// Largest number of bytes kept of a program's standard error.
const MAX_COMPLAINT_BYTES: u64 = 4096;

/// Output of a program that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The standard output.
    pub bytes: Vec<u8>,
    /// The beginning of its standard error.
    pub complaint: String,
}

/// Reason why a program gave no usable output.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// There is no such program.
    #[error("is not installed")]
    Missing,
    /// The operating system could not start it or wait for it.
    #[error("cannot be run: {0}")]
    Io(#[source] std::io::Error),
    /// It took too long.
    #[error("ran longer than {} s and was killed{}", limit.as_secs_f32(), said(complaint))]
    TimedOut {
        /// Time that it was allowed.
        limit: Duration,
        /// The standard error.
        complaint: String,
    },
    /// It wrote too much.
    #[error("wrote more than {limit} bytes and was killed{}", said(complaint))]
    WroteTooMuch {
        /// The limit in bytes.
        limit: u64,
        /// The standard error.
        complaint: String,
    },
    /// It reported a failure.
    #[error("failed ({status}){}", said(complaint))]
    Failed {
        /// The exit status.
        status: std::process::ExitStatus,
        /// The standard error.
        complaint: String,
    },
    /// It succeeded without any output.
    #[error("wrote nothing{}", said(complaint))]
    Silent {
        /// The standard error.
        complaint: String,
    },
}

/// Formats a complaint as the end of a message.
fn said(complaint: &str) -> String {
    match complaint.trim() {
        "" => String::new(),
        complaint => format!(": {}", complaint.chars().take(400).collect::<String>()),
    }
}

/// Runs a program in its own process group and collects its output; its standard input is the caller's choice.
///
/// # Errors
/// [`ProgramError`] when it cannot be started, fails, writes nothing, or exceeds `limits`.
pub fn run(command: &mut Command, limits: &ProgramLimits) -> Result<Output, ProgramError> {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound { ProgramError::Missing } else { ProgramError::Io(error) }
        })?;
    let output = collect(child.stdout.take(), limits.bytes);
    let complaint = collect(child.stderr.take(), MAX_COMPLAINT_BYTES);
    let ended = attend(&mut child, &output, limits);
    if ended.is_err() {
        kill_group(&child);
        // The group was killed, so this returns immediately; its status contains nothing new.
        let _ = child.wait();
    }
    let complaint = complaint.recv_timeout(Duration::from_millis(200)).unwrap_or_default();
    let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
    match ended {
        Ok((status, _)) if !status.success() => Err(ProgramError::Failed { status, complaint }),
        Ok((_, bytes)) if bytes.is_empty() => Err(ProgramError::Silent { complaint }),
        Ok((_, bytes)) => Ok(Output { bytes, complaint }),
        Err(Stopped::TimedOut) => Err(ProgramError::TimedOut { limit: limits.time, complaint }),
        Err(Stopped::WroteTooMuch) => Err(ProgramError::WroteTooMuch { limit: limits.bytes, complaint }),
        Err(Stopped::Io(error)) => Err(ProgramError::Io(error)),
    }
}

/// Reason why a program was not waited for any longer.
enum Stopped {
    TimedOut,
    WroteTooMuch,
    Io(std::io::Error),
}

/// Waits for the output and the end of a program.
fn attend(
    child: &mut Child,
    output: &Receiver<Vec<u8>>,
    limits: &ProgramLimits,
) -> Result<(std::process::ExitStatus, Vec<u8>), Stopped> {
    let deadline = Instant::now() + limits.time;
    let bytes = output.recv_timeout(limits.time).map_err(|_| Stopped::TimedOut)?;
    if bytes.len() as u64 > limits.bytes {
        return Err(Stopped::WroteTooMuch);
    }
    loop {
        if let Some(status) = child.try_wait().map_err(Stopped::Io)? {
            return Ok((status, bytes));
        }
        if Instant::now() > deadline {
            return Err(Stopped::TimedOut);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Reads a stream to its end, or one byte past `limit`, on a separate thread.
fn collect(stream: Option<impl Read + Send + 'static>, limit: u64) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // A broken stream ends early; the program's exit status reports the error.
            let _ = stream.by_ref().take(limit.saturating_add(1)).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// Kills a program and all its children. The child has not been reaped, so its number still names its group.
fn kill_group(child: &Child) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}
