//! One run per experiment: an advisory lock that says who holds it and that a dead owner loses by itself.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::{Experiment, Interrupt, Reporter, RunError, StageError, clock, files};

const POLL: Duration = Duration::from_millis(200);
/// So often a lock is tried before it counts as held.
const FIRST_LOOKS: usize = 4;
/// So often a lock without a name is tried again before it counts as held.
const LOOKS: usize = 20;

/// Who works on an experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// The machine it runs on.
    pub host: String,
    /// Its command line.
    pub command: String,
    /// When it began, UTC.
    pub start: String,
}

impl Holder {
    /// This process, running `command`.
    pub(crate) fn this(command: &str) -> Self {
        let start = clock::utc(SystemTime::now());
        Self { pid: std::process::id(), host: clock::host(), command: command.to_owned(), start }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}, since {}: {}", self.pid, self.host, self.start, self.command)
    }
}

/// The lock, held until dropped. The system gives it up when the process dies, however it dies.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    /// A run that died while it held the lock.
    pub dead_owner: Option<Holder>,
}

impl Lock {
    /// Takes the lock, at once or, with `wait`, as soon as its holder is done.
    pub fn take(
        experiment: &Experiment,
        me: &Holder,
        wait: bool,
        interrupt: &Interrupt,
        reporter: &Reporter,
    ) -> Result<Self, RunError> {
        files::make_dir(experiment.dir()).map_err(RunError::experiment)?;
        let path = experiment.lock_file();
        let fail = |e: std::io::Error| RunError::experiment(StageError::file(&path, e));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
        let mut said = false;
        let mut looks = 0;
        while !try_lock(&file).map_err(fail)? {
            let holder = read_holder(&file);
            looks += 1;
            if looks < FIRST_LOOKS || (holder.is_none() && looks < LOOKS) {
                // Perhaps somebody only asks who holds it, or has not written a name yet.
                std::thread::sleep(POLL / 10);
                continue;
            }
            if !wait {
                return Err(RunError::Locked { dir: experiment.dir().to_owned(), holder });
            }
            if !std::mem::replace(&mut said, true) {
                let who = holder.map_or_else(String::new, |holder| format!(" ({holder})"));
                reporter.note(format!("waiting for another run of this experiment{who}"));
            }
            if interrupt.is_set() {
                return Err(RunError::Interrupted);
            }
            std::thread::sleep(POLL);
        }
        let dead_owner = read_holder(&file);
        let lock = Self { file, dead_owner };
        // The lock itself holds without its note, so a full disk is not met here but where it matters.
        let _unimportant = lock.write(&serde_json::to_string(me).unwrap_or_default());
        Ok(lock)
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        let mut file = &self.file;
        file.rewind()?;
        file.set_len(0)?;
        file.write_all(text.as_bytes())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // An empty file says that the owner left in good order; the lock goes with the descriptor.
        let _unimportant = self.write("");
    }
}

/// Who holds the lock now, if anybody does.
pub fn holder(experiment: &Experiment) -> Option<Holder> {
    let file = File::open(experiment.lock_file()).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => None,
        Err(_) => read_holder(&file).or_else(|| Some(unknown_holder())),
    }
}

/// Who held the lock last and died without giving it up, when nobody holds it now.
pub fn dead_owner(experiment: &Experiment) -> Option<Holder> {
    let file = File::open(experiment.lock_file()).ok()?;
    flock(&file, FlockOperation::NonBlockingLockShared).ok()?;
    read_holder(&file)
}

fn unknown_holder() -> Holder {
    let unknown = || "unknown".to_owned();
    Holder { pid: 0, host: unknown(), command: unknown(), start: unknown() }
}

fn try_lock(file: &File) -> std::io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn read_holder(mut file: &File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(1 << 16).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The free space, in bytes, where `path` is.
pub(crate) fn free_space(path: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(path).ok()?;
    space.f_bavail.checked_mul(space.f_frsize)
}
