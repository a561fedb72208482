//! A file that only one process can create, used in place of the system's lock.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};

use super::Holder;
use crate::clock;

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

/// The content of the file.
pub(super) fn look(path: &Path) -> Claim {
    let text = match fs::read_to_string(path) {
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
    /// Creates the file, also in place of a dead owner's, who is named; or says who holds it.
    pub fn create(path: &Path, me: &Holder) -> io::Result<Taken<Self>> {
        let dead = match look(path) {
            Claim::Held(holder) => return Ok(Err(holder)),
            Claim::Dead(holder) => {
                remove_dead(path, &holder)?;
                Some(holder)
            }
            Claim::Free => None,
        };
        let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(Err(None)),
            Err(e) => return Err(e),
        };
        let created = Self { path: path.to_owned() };
        // Without its name the file could never be told from a dead process's.
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

/// Removes the file of a dead process. Of several that try this at the same time one moves it away; who moved another's new file
/// puts it back.
pub(super) fn remove_dead(path: &Path, dead: &Holder) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let moved = path.with_file_name(format!("{name}-{}", std::process::id()));
    match fs::rename(path, &moved) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    let text = fs::read_to_string(&moved)?;
    if serde_json::from_str::<Holder>(&text).is_ok_and(|holder| holder == *dead) {
        return fs::remove_file(&moved);
    }
    fs::rename(&moved, path)
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

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock-holder");
        (dir, path)
    }

    #[test]
    fn one_holds_it_and_it_goes_with_its_owner() {
        let (_dir, path) = place();
        let me = Holder::this("run");
        let (held, dead) = ExclusiveFile::create(&path, &me).unwrap().unwrap();
        assert_eq!(dead, None);
        assert_eq!(ExclusiveFile::create(&path, &me).unwrap().unwrap_err(), Some(me));
        drop(held);
        assert!(matches!(look(&path), Claim::Free));
    }

    #[test]
    fn a_dead_process_of_this_machine_loses_it_and_one_of_another_machine_does_not() {
        let (_dir, path) = place();
        let me = Holder::this("run");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = Holder { pid: child.id(), ..me.clone() };
        child.wait().unwrap();
        // A later process with the number of a dead one.
        let reused = Holder { born: me.born.map(|born| born + 1), ..me.clone() };
        for dead in [gone, reused] {
            fs::write(&path, serde_json::to_string(&dead).unwrap()).unwrap();
            let (held, taken_from) = ExclusiveFile::create(&path, &me).unwrap().unwrap();
            assert_eq!(taken_from, Some(dead));
            drop(held);
        }
        let elsewhere = Holder { host: "another".to_owned(), ..me.clone() };
        fs::write(&path, serde_json::to_string(&elsewhere).unwrap()).unwrap();
        assert_eq!(ExclusiveFile::create(&path, &me).unwrap().unwrap_err(), Some(elsewhere));
        fs::write(&path, "{").unwrap();
        assert_eq!(ExclusiveFile::create(&path, &me).unwrap().unwrap_err(), None);
    }
}
