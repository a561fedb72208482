//! A file that only one process can create, used in place of the system's lock.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use rustix::process::{Pid, test_kill_process};

use super::Holder;
use crate::{Experiment, clock};

/// A file that this process has created; removed when dropped.
#[derive(Debug)]
pub(super) struct ExclusiveFile {
    path: PathBuf,
}

/// The state of the file.
pub(super) enum Claim {
    Free,
    /// A running process, or an unknown one.
    Held(Option<Holder>),
    /// A process of this machine that no longer exists.
    Dead(Holder),
}

/// Returns the path of the file of an experiment.
pub(super) fn path(experiment: &Experiment) -> PathBuf {
    experiment.dir().join(".lock-holder")
}

/// Reads the state of the file of an experiment.
pub(super) fn look(experiment: &Experiment) -> Claim {
    let text = match fs::read_to_string(path(experiment)) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Claim::Free,
        Err(_) => return Claim::Held(None),
    };
    match serde_json::from_str::<Holder>(&text) {
        Ok(holder) if is_dead(&holder) => Claim::Dead(holder),
        Ok(holder) => Claim::Held(Some(holder)),
        Err(_) => Claim::Held(None),
    }
}

/// The lock and its dead former owner, or the present holder.
pub(super) type Taken<T> = Result<(T, Option<Holder>), Option<Holder>>;

impl ExclusiveFile {
    /// Creates the file, replacing one of a dead owner, which is returned. Otherwise returns the present holder.
    pub fn create(experiment: &Experiment, me: &Holder) -> io::Result<Taken<Self>> {
        let dead = match look(experiment) {
            Claim::Held(holder) => return Ok(Err(holder)),
            Claim::Dead(holder) => {
                remove_dead(experiment, &holder)?;
                Some(holder)
            }
            Claim::Free => None,
        };
        let path = path(experiment);
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(Err(None)),
            Err(e) => return Err(e),
        };
        let created = Self { path };
        // Without a name the file could never be told from that of a dead process.
        file.write_all(serde_json::to_string(me)?.as_bytes())?;
        Ok(Ok((created, dead)))
    }
}

impl Drop for ExclusiveFile {
    fn drop(&mut self) {
        // A file that remains belongs to a dead process, and the next run takes it over.
        let _unimportant = fs::remove_file(&self.path);
    }
}

/// Removes the file of a dead process. If several processes try this at the same time, one moves it away, and a
/// process that moved another's new file puts it back.
pub(super) fn remove_dead(experiment: &Experiment, dead: &Holder) -> io::Result<()> {
    let path = path(experiment);
    let moved = path.with_file_name(format!(".lock-holder-{}", std::process::id()));
    match fs::rename(&path, &moved) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    let text = fs::read_to_string(&moved)?;
    if serde_json::from_str::<Holder>(&text).is_ok_and(|holder| holder == *dead) {
        return fs::remove_file(&moved);
    }
    fs::rename(&moved, &path)
}

/// Returns whether a holder is a process of this machine that no longer exists.
fn is_dead(holder: &Holder) -> bool {
    if holder.host != clock::host() {
        return false;
    }
    let pid = i32::try_from(holder.pid).ok().and_then(Pid::from_raw);
    let exists = pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
    let another = holder.born.is_some() && born(holder.pid).is_some_and(|born| Some(born) != holder.born);
    !exists || another
}

/// Returns the start time of a process, in ticks since the system booted, if the system provides it.
pub(super) fn born(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the 22nd field is the 20th after it.
    status.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Experiment) {
        let dir = tempfile::tempdir().unwrap();
        let experiment = Experiment::at(dir.path()).unwrap();
        (dir, experiment)
    }

    #[test]
    fn one_holds_it_and_it_goes_with_its_owner() {
        let (_dir, experiment) = place();
        let me = Holder::this("run");
        let (held, dead) = ExclusiveFile::create(&experiment, &me).unwrap().unwrap();
        assert_eq!(dead, None);
        assert_eq!(ExclusiveFile::create(&experiment, &me).unwrap().unwrap_err(), Some(me));
        drop(held);
        assert!(matches!(look(&experiment), Claim::Free));
    }

    #[test]
    fn a_dead_process_of_this_machine_loses_it_and_one_of_another_machine_does_not() {
        let (_dir, experiment) = place();
        let me = Holder::this("run");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = Holder { pid: child.id(), ..me.clone() };
        child.wait().unwrap();
        // A later process with the number of a dead one.
        let reused = Holder { born: me.born.map(|born| born + 1), ..me.clone() };
        for dead in [gone, reused] {
            fs::write(path(&experiment), serde_json::to_string(&dead).unwrap()).unwrap();
            let (held, taken_from) = ExclusiveFile::create(&experiment, &me).unwrap().unwrap();
            assert_eq!(taken_from, Some(dead));
            drop(held);
        }
        let elsewhere = Holder { host: "another".to_owned(), ..me.clone() };
        fs::write(path(&experiment), serde_json::to_string(&elsewhere).unwrap()).unwrap();
        assert_eq!(ExclusiveFile::create(&experiment, &me).unwrap().unwrap_err(), Some(elsewhere));
        fs::write(path(&experiment), "{").unwrap();
        assert_eq!(ExclusiveFile::create(&experiment, &me).unwrap().unwrap_err(), None);
    }
}
