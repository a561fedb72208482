//! One run per experiment: a lock that says who holds it and that a dead owner loses.
//!
//! It is the system's advisory lock (`flock`) on `.lock`, which the system gives up with the process. Where the file system has no
//! such locks, the file `.lock-holder`, which only one process can create, stands for it. It outlives a process that is killed: one of
//! a dead process of this machine is taken over, one of another machine is refused.

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
    /// When the process began by the system's own clock, which tells it from a later process of the same number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born: Option<u64>,
}

impl Holder {
    /// This process, running `command`.
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

/// What the system says about its own lock on a file.
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
    /// What stands for the system's lock where there is none.
    exclusive: Option<ExclusiveFile>,
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
        loop {
            let holder = match Self::try_take(&file, experiment, me).map_err(fail)? {
                Ok((exclusive, dead)) => {
                    let dead_owner = dead.or_else(|| read_holder(&file));
                    let lock = Self { file, exclusive, dead_owner };
                    tracing::info!(path = %path.display(), dead_owner = ?lock.dead_owner, "lock taken");
                    // The lock itself holds without its note, so a full disk is not met here but where it matters.
                    let _unimportant = lock.write(&serde_json::to_string(me).unwrap_or_default());
                    return Ok(lock);
                }
                Err(holder) => holder,
            };
            looks += 1;
            if looks < FIRST_LOOKS || (holder.is_none() && looks < LOOKS) {
                // Perhaps somebody only asks who holds it, or has not written a name yet.
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

    /// One attempt: what was taken, and of whom that is dead; or who holds it.
    fn try_take(file: &File, experiment: &Experiment, me: &Holder) -> std::io::Result<Taken<Option<ExclusiveFile>>> {
        match system_lock(file, FlockOperation::NonBlockingLockExclusive)? {
            SystemLock::Held => Ok(Err(read_holder(file))),
            // Another machine may have no locks where this one has some.
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
        tracing::info!("lock given up");
        // An empty file says that the owner left in good order; the lock goes with the descriptor.
        let _unimportant = self.write("");
        drop(self.exclusive.take());
    }
}

/// Who holds the lock now, if anybody does.
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

/// Who held the lock last and died without giving it up, when nobody holds it now.
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

/// The free space, in bytes, where `path` is.
pub(crate) fn free_space(path: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(path).ok()?;
    space.f_bavail.checked_mul(space.f_frsize)
}
