//! Locks that say who holds them and that a dead owner loses: one run per experiment, one process per part.
//!
//! A lock is the system's advisory lock (`flock`) on a file: `.lock` for a run, `.lock-part-STAGE%KEY` for a part, `.lock-slurm` for a run that
//! has its parts done in Slurm. The system gives it up with the process. Where the file system has no such locks, or locks that other machines do
//! not see, a file that only one process can create stands for it (`.lock-holder`, `.lock-holder-part-STAGE%KEY`), which its holder renews. It
//! outlives a process that is killed, and is taken over.
//!
//! Processes on different parts of one experiment work at the same time; a run works alone. Each takes its own lock first and then looks for
//! the other's, so that never both go on. A run in Slurm lets processes on parts work, and no other run.

mod exclusive;
mod mount;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::{Experiment, Interrupt, Reporter, RunError, StageError, clock, file_system_limits, files};
use exclusive::{Claim, ExclusiveFile};

const POLL: Duration = Duration::from_millis(200);
/// The pause between attempts after [`PATIENT_AFTER`] of them: each reads and writes on a file server.
const SLOW_POLL: Duration = Duration::from_secs(1);
/// The number of attempts after which pauses are longer.
const PATIENT_AFTER: usize = 50;
/// The number of attempts before a lock counts as held.
const FIRST_LOOKS: usize = 4;
/// The number of attempts before a lock without a name counts as held.
const LOOKS: usize = 20;

/// The prefix of the lock files of parts.
const PART: &str = ".lock-part-";
/// The lock file of a run in Slurm.
const SLURM: &str = ".lock-slurm";
/// The variable that marks a run as part of a run in Slurm, which started it as a job.
pub(crate) const WITHIN_SLURM_RUN: &str = "FLOWMILL_WITHIN_SLURM_RUN";
/// The name of the file that stands for the lock of an experiment, with which those of parts begin.
const STAND_IN: &str = ".lock-holder";

/// A process that works on an experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process number.
    pub pid: u32,
    /// The machine it runs on.
    pub host: String,
    /// The command line.
    pub command: String,
    /// The start time, UTC.
    pub start: String,
    /// The start time by the system's own clock, which distinguishes it from a later process with the same number.
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

/// The files of a lock.
#[derive(Debug, Clone)]
struct Place {
    /// The file that the system locks.
    file: PathBuf,
    /// The file that stands for that lock where the file system has none.
    stand_in: PathBuf,
    /// True if the files are removed with the lock.
    is_temporary: bool,
}

impl Place {
    fn of_experiment(experiment: &Experiment) -> Self {
        Self { file: experiment.lock_file(), stand_in: experiment.dir().join(STAND_IN), is_temporary: false }
    }

    /// The place of a part's lock; `part` is its stage's folder and its key, with `%` between names.
    fn of_part(experiment: &Experiment, part: &str) -> Self {
        let file = experiment.dir().join(format!("{PART}{part}"));
        Self { file, stand_in: experiment.dir().join(format!("{STAND_IN}-part-{part}")), is_temporary: true }
    }

    /// The place of the lock of a run in Slurm.
    fn of_slurm_run(experiment: &Experiment) -> Self {
        let (file, stand_in) = (experiment.dir().join(SLURM), experiment.dir().join(format!("{STAND_IN}-slurm")));
        Self { file, stand_in, is_temporary: true }
    }

    /// The places of all locks of parts that are held, or that a process left which died.
    fn of_parts(experiment: &Experiment) -> Result<Vec<Self>, StageError> {
        let dir = experiment.dir();
        let names = std::fs::read_dir(dir).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let names = match names {
            Ok(names) => names.into_iter().map(|entry| entry.file_name()),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(StageError::file(dir, e)),
        };
        let part = |name: OsString| Some(Self::of_part(experiment, name.to_str()?.strip_prefix(PART)?));
        Ok(names.filter_map(part).collect())
    }

    /// Returns the process that holds the lock now.
    fn holder(&self) -> Option<Holder> {
        let file = File::open(&self.file).ok()?;
        let named = |holder: Option<Holder>| Some(holder.unwrap_or_else(unknown_holder));
        match self.system_lock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(SystemLock::Held) | Err(_) => named(read_holder(&file)),
            Ok(SystemLock::Taken | SystemLock::Unsupported) => match exclusive::look(&self.stand_in) {
                Claim::Held(holder) => named(holder),
                Claim::Dead(_) | Claim::Free => None,
            },
        }
    }

    /// Returns the process that held the lock last and died without releasing it, if no process holds it now.
    fn dead_owner(&self) -> Option<Holder> {
        let file = File::open(&self.file).ok()?;
        let system = self.system_lock(&file, FlockOperation::NonBlockingLockShared).ok()?;
        match (system, exclusive::look(&self.stand_in)) {
            (SystemLock::Held, _) | (_, Claim::Held(_)) => None,
            (_, Claim::Dead(holder)) => Some(holder),
            (_, Claim::Free) => read_holder(&file),
        }
    }

    /// Tries to take the system's lock on the open file.
    fn system_lock(&self, file: &File, operation: FlockOperation) -> std::io::Result<SystemLock> {
        if mount::has_local_locks(&self.file) {
            return Ok(SystemLock::Unsupported);
        }
        system_lock(file, operation)
    }

    /// Returns whether an open file is the one that is there now.
    fn is_of(&self, file: &File) -> std::io::Result<bool> {
        let (ours, theirs) = (file.metadata()?, std::fs::metadata(&self.file));
        Ok(theirs.is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino())))
    }
}

/// The process that keeps another one from its lock.
struct Held {
    /// The lock that is held, which may be another one than the one wanted.
    place: Place,
    holder: Option<Holder>,
}

impl Held {
    /// Returns the error of a run that does not wait.
    fn error(self, experiment: &Experiment) -> RunError {
        let (holder, file) = (self.holder.map(Box::new), exclusive::file(&self.place.stand_in));
        RunError::Locked { dir: experiment.dir().to_owned(), holder, file }
    }
}

/// The limits of waiting for a lock.
#[derive(Clone, Copy)]
pub(crate) struct Patience<'a> {
    /// Waits until the lock is free instead of failing.
    pub wait: bool,
    pub interrupt: &'a Interrupt,
    pub reporter: &'a Reporter,
}

/// A lock, held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    place: Place,
    file: File,
    /// The file that replaces the system's lock where there is none.
    exclusive: Option<ExclusiveFile>,
    /// The owners of this lock, and of locks of parts that a run took over, that died while they held it.
    pub dead_owners: Vec<Holder>,
}

impl Lock {
    /// Takes the lock of an experiment, at once or, when there is patience, as soon as no other run and no process on a part works there.
    pub fn take(experiment: &Experiment, me: &Holder, patience: Patience<'_>) -> Result<Self, RunError> {
        let place = Place::of_experiment(experiment);
        let slurm_run = Place::of_slurm_run(experiment);
        let attempt = |dead_owners: &mut Vec<Holder>| {
            let another = |holder: &Holder| *holder != *me && std::env::var_os(WITHIN_SLURM_RUN).is_none();
            if let Some(holder) = slurm_run.holder().filter(another) {
                return Ok(Err(Held { place: slurm_run.clone(), holder: Some(holder) }));
            }
            for part in Place::of_parts(experiment)? {
                if let Some(holder) = part.holder() {
                    return Ok(Err(Held { place: part, holder: Some(holder) }));
                }
            }
            let lock = match Self::try_take(&place, me, dead_owners)? {
                Ok(lock) => lock,
                Err(held) => return Ok(Err(held)),
            };
            for part in Place::of_parts(experiment)? {
                // Nobody can begin a part now, so what is free was left by a process that died. It goes with this lock.
                if let Err(held) = Self::try_take(&part, me, dead_owners)? {
                    return Ok(Err(held));
                }
            }
            if slurm_run.file.exists() && slurm_run.holder().is_none() {
                // The same of a run in Slurm.
                let _another_has_begun = Self::try_take(&slurm_run, me, dead_owners)?;
            }
            Ok(Ok(lock))
        };
        let locked = |held: Held| held.error(experiment);
        Self::until_taken(experiment, patience, "another run of this experiment", attempt, locked)
    }

    /// Takes the lock of a run in Slurm. Processes on parts may work meanwhile; other runs may not.
    pub fn take_slurm_run(experiment: &Experiment, me: &Holder, patience: Patience<'_>) -> Result<Self, RunError> {
        let (place, run) = (Place::of_slurm_run(experiment), Place::of_experiment(experiment));
        let attempt = |dead_owners: &mut Vec<Holder>| match run.holder() {
            Some(holder) => Ok(Err(Held { place: run.clone(), holder: Some(holder) })),
            None => Self::try_take(&place, me, dead_owners),
        };
        let locked = |held: Held| held.error(experiment);
        Self::until_taken(experiment, patience, "another run of this experiment", attempt, locked)
    }

    /// Takes the lock of a part, at once or, when there is patience, as soon as no other process has it and no run works on the experiment.
    pub fn take_part(
        experiment: &Experiment,
        (stage, key): (&str, &str),
        me: &Holder,
        patience: Patience<'_>,
    ) -> Result<Self, RunError> {
        let run = Place::of_experiment(experiment);
        let place = Place::of_part(experiment, &part_name(stage, key));
        let held_by_run = || run.holder().map(|holder| Held { place: run.clone(), holder: Some(holder) });
        let attempt = |dead_owners: &mut Vec<Holder>| {
            if let Some(held) = held_by_run() {
                return Ok(Err(held));
            }
            let taken = Self::try_take(&place, me, dead_owners)?;
            Ok(match held_by_run() {
                Some(held) if taken.is_ok() => Err(held),
                _ => taken,
            })
        };
        let locked = |held: Held| {
            if !held.place.is_temporary {
                return held.error(experiment);
            }
            let (holder, file) = (held.holder.map(Box::new), exclusive::file(&held.place.stand_in));
            RunError::PartLocked { stage: stage.to_owned(), part: key.to_owned(), holder, file }
        };
        Self::until_taken(experiment, patience, "another process", attempt, locked)
    }

    /// Tries again until the lock is taken or counts as held. Each attempt adds the owners that died while they held a lock.
    fn until_taken(
        experiment: &Experiment,
        patience: Patience<'_>,
        others: &str,
        attempt: impl Fn(&mut Vec<Holder>) -> Result<Result<Self, Held>, StageError>,
        locked: impl Fn(Held) -> RunError,
    ) -> Result<Self, RunError> {
        files::make_dir(experiment.dir()).map_err(RunError::experiment)?;
        let mut said = false;
        let mut looks = 0;
        let mut dead_owners = Vec::new();
        loop {
            let held = match attempt(&mut dead_owners).map_err(RunError::experiment)? {
                Ok(mut lock) => {
                    lock.dead_owners = dead_owners;
                    tracing::info!(path = %lock.place.file.display(), dead_owners = ?lock.dead_owners, "lock taken");
                    return Ok(lock);
                }
                Err(held) => held,
            };
            looks += 1;
            if looks < FIRST_LOOKS || (held.holder.is_none() && looks < LOOKS) {
                // Perhaps somebody only asks who holds it, or has not written a name yet.
                std::thread::sleep(POLL / 10);
                continue;
            }
            if !patience.wait {
                return Err(locked(held));
            }
            if !std::mem::replace(&mut said, true) {
                let who = held.holder.map_or_else(String::new, |holder| format!(" ({holder})"));
                patience.reporter.note(format!("waiting for {others}{who}"));
            }
            if patience.interrupt.is_set() {
                return Err(RunError::Interrupted);
            }
            std::thread::sleep(if looks < PATIENT_AFTER { POLL } else { SLOW_POLL });
        }
    }

    /// One attempt: the lock, or who holds it. An owner that died while it held the lock is added to `dead_owners`.
    fn try_take(place: &Place, me: &Holder, dead_owners: &mut Vec<Holder>) -> Result<Result<Self, Held>, StageError> {
        let taken = Self::try_take_at(place, me, dead_owners).map_err(|error| StageError::file(&place.file, error))?;
        Ok(taken.map_err(|holder| Held { place: place.clone(), holder }))
    }

    fn try_take_at(
        place: &Place,
        me: &Holder,
        dead_owners: &mut Vec<Holder>,
    ) -> std::io::Result<Result<Self, Option<Holder>>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&place.file)?;
        let has_stand_in = || !matches!(exclusive::look(&place.stand_in), Claim::Free);
        let needs_stand_in = match place.system_lock(&file, FlockOperation::NonBlockingLockExclusive)? {
            SystemLock::Held => return Ok(Err(read_holder(&file))),
            // Another machine may have no locks where this one has some.
            SystemLock::Taken => has_stand_in(),
            SystemLock::Unsupported => {
                file_system_limits::NO_LOCKS.met();
                true
            }
        };
        let (exclusive, dead) = match needs_stand_in.then(|| ExclusiveFile::create(&place.stand_in, me)).transpose()? {
            Some(Ok((file, dead))) => (Some(file), dead),
            Some(Err(holder)) => return Ok(Err(holder)),
            None => (None, None),
        };
        if place.is_temporary && !place.is_of(&file)? {
            // Who held it has just removed the file.
            return Ok(Err(None));
        }
        dead_owners.extend(dead.or_else(|| read_holder(&file)));
        let lock = Self { place: place.clone(), file, exclusive, dead_owners: Vec::new() };
        // The lock itself holds without its note, so a full disk is not met here but where it matters.
        let _unimportant = lock.write(&serde_json::to_string(me).unwrap_or_default());
        Ok(Ok(lock))
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
        if self.place.is_temporary {
            // Before what stands for the lock, so that who gets that sees that this file is gone.
            let _unimportant = std::fs::remove_file(&self.place.file);
        }
        drop(self.exclusive.take());
    }
}

/// Returns the process that works on the experiment now: a run, or one that does a part.
pub fn holder(experiment: &Experiment) -> Option<Holder> {
    let parts = || Place::of_parts(experiment).ok()?.iter().find_map(Place::holder);
    let slurm_run = || Place::of_slurm_run(experiment).holder();
    Place::of_experiment(experiment).holder().or_else(slurm_run).or_else(parts)
}

/// Returns the process that works on a part now.
pub(crate) fn part_holder(experiment: &Experiment, stage: &str, key: &str) -> Option<Holder> {
    Place::of_part(experiment, &part_name(stage, key)).holder()
}

/// Returns the process that worked on the experiment last and died, if no process works on it now.
pub fn dead_owner(experiment: &Experiment) -> Option<Holder> {
    let parts = || Place::of_parts(experiment).ok()?.iter().find_map(Place::dead_owner);
    Place::of_experiment(experiment).dead_owner().or_else(parts)
}

/// The name of a part in the names of its lock's files.
fn part_name(stage: &str, key: &str) -> String {
    format!("{stage}/{key}").replace('/', "%")
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
