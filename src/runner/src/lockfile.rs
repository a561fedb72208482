//! The lock that allows one run per experiment. It names its holder and is released when the holder dies.
//!
//! It is the system's advisory lock (`flock`) on `.lock`, which the system releases when the process ends. On file
//! systems without locks, the file `.lock-holder`, which only one process can create, replaces it. That file survives
//! a killed process: one of a dead process of this machine is taken over, one of another machine is refused.

mod exclusive;

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::{Experiment, Interrupt, Reporter, RunError, StageError, clock, files, weaknesses};
use exclusive::{Claim, ExclusiveFile, Taken};

const POLL: Duration = Duration::from_millis(200);
/// The number of attempts before a lock counts as held.
const FIRST_LOOKS: usize = 4;
/// The number of attempts before a lock without a name counts as held.
const LOOKS: usize = 20;

/// The process that works on an experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process number.
    pub pid: u32,
    /// The machine it runs on.
    pub host: String,
    /// Its command line.
    pub command: String,
    /// Its start time, UTC.
    pub start: String,
    /// Its start time by the system's own clock, which distinguishes it from a later process with the same number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born: Option<u64>,
}

impl Holder {
    /// Returns the holder for this process, running `command`.
    pub(crate) fn this(command: &str) -> Self {
        let (pid, start) = (std::process::id(), clock::utc(SystemTime::now()));
        Self { pid, host: clock::host(), command: command.to_owned(), start, born: exclusive::born(pid) }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}, since {}: {}", self.pid, self.host, self.start, self.command)
    }
}

/// The state of the system's lock on a file.
enum SystemLock {
    Taken,
    Held,
    /// The file system has no locks.
    Unsupported,
}

/// The lock, held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    /// The file that replaces the system's lock where there is none.
    exclusive: Option<ExclusiveFile>,
    /// A run that died while it held the lock.
    pub dead_owner: Option<Holder>,
}

impl Lock {
    /// Takes the lock immediately or, with `wait`, as soon as its holder is done.
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
        loop {
            let holder = match Self::try_take(&file, experiment, me).map_err(fail)? {
                Ok((exclusive, dead)) => {
                    let dead_owner = dead.or_else(|| read_holder(&file));
                    let lock = Self { file, exclusive, dead_owner };
                    // The lock works without its note. A full disk is reported where it matters.
                    let _unimportant = lock.write(&serde_json::to_string(me).unwrap_or_default());
                    return Ok(lock);
                }
                Err(holder) => holder,
            };
            looks += 1;
            if looks < FIRST_LOOKS || (holder.is_none() && looks < LOOKS) {
                // Another process may be only asking for the holder, or may not have written its name yet.
                std::thread::sleep(POLL / 10);
                continue;
            }
            if !wait {
                let file = Some(exclusive::path(experiment)).filter(|file| file.exists());
                let holder = holder.map(Box::new);
                return Err(RunError::Locked { dir: experiment.dir().to_owned(), holder, file });
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
    }

    /// Makes one attempt. Returns the lock and its dead former owner, or the present holder.
    fn try_take(file: &File, experiment: &Experiment, me: &Holder) -> std::io::Result<Taken<Option<ExclusiveFile>>> {
        match system_lock(file, FlockOperation::NonBlockingLockExclusive)? {
            SystemLock::Held => Ok(Err(read_holder(file))),
            // Another machine may lack locks where this one has them.
            SystemLock::Taken => Ok(match exclusive::look(experiment) {
                Claim::Held(holder) => {
                    flock(file, FlockOperation::Unlock)?;
                    Err(holder)
                }
                Claim::Dead(holder) => {
                    exclusive::remove_dead(experiment, &holder)?;
                    Ok((None, Some(holder)))
                }
                Claim::Free => Ok((None, None)),
            }),
            SystemLock::Unsupported => {
                weaknesses::NO_LOCKS.met();
                Ok(ExclusiveFile::create(experiment, me)?.map(|(file, dead)| (Some(file), dead)))
            }
        }
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
        // An empty file means that the owner ended in good order. The lock is released with the descriptor.
        let _unimportant = self.write("");
        drop(self.exclusive.take());
    }
}

/// Returns the present holder of the lock, if any.
pub fn holder(experiment: &Experiment) -> Option<Holder> {
    let file = File::open(experiment.lock_file()).ok()?;
    let named = |holder: Option<Holder>| Some(holder.unwrap_or_else(unknown_holder));
    match system_lock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(SystemLock::Held) | Err(_) => named(read_holder(&file)),
        Ok(SystemLock::Taken | SystemLock::Unsupported) => match exclusive::look(experiment) {
            Claim::Held(holder) => named(holder),
            Claim::Dead(_) | Claim::Free => None,
        },
    }
}

/// Returns the last holder if it died without releasing the lock and nobody holds it now.
pub fn dead_owner(experiment: &Experiment) -> Option<Holder> {
    let file = File::open(experiment.lock_file()).ok()?;
    let system = system_lock(&file, FlockOperation::NonBlockingLockShared).ok()?;
    match (system, exclusive::look(experiment)) {
        (SystemLock::Held, _) | (_, Claim::Held(_)) => None,
        (_, Claim::Dead(holder)) => Some(holder),
        (_, Claim::Free) => read_holder(&file),
    }
}

fn unknown_holder() -> Holder {
    let unknown = || "unknown".to_owned();
    Holder { pid: 0, host: unknown(), command: unknown(), start: unknown(), born: None }
}

fn system_lock(file: &File, operation: FlockOperation) -> std::io::Result<SystemLock> {
    match flock(file, operation) {
        Ok(()) => Ok(SystemLock::Taken),
        Err(Errno::WOULDBLOCK) => Ok(SystemLock::Held),
        // Lustre without `-o flock`, NFS without a lock daemon, many FUSE file systems.
        Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => Ok(SystemLock::Unsupported),
        Err(e) => Err(e.into()),
    }
}

fn read_holder(mut file: &File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(1 << 16).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Returns the free space, in bytes, of the file system that contains `path`.
pub(crate) fn free_space(path: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(path).ok()?;
    space.f_bavail.checked_mul(space.f_frsize)
}
