//! A lease: a file that only one process can create and that its holder renews, used in place of the system's lock.
//!
//! A process of this machine is dead when it no longer exists. A process of another machine is dead when it has not renewed its file for
//! [`EXPIRY`]; times are those that the file system gives, so clocks of machines are not compared.
//!
//! The file of the first holder is `NAME`. The process that takes over from a dead holder creates `NAME~1`, the next one `NAME~2`, and then removes
//! the files of the dead. So no file has to be removed before the next one is created, and a slow process never removes the file of a living one.
//! Every process creates its file first and then looks for others: of two that do so at the same time, the later one sees the file of the earlier one.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use rustix::process::{Pid, test_kill_process};

use super::{Holder, unknown_holder};
use crate::clock;

/// The interval at which a holder renews its file.
const BEAT: Duration = Duration::from_secs(10);
/// The time without a renewal after which a process of another machine counts as dead. File systems of networks may show times that are a
/// minute old.
pub(super) const EXPIRY: Duration = Duration::from_secs(90);

/// A file that this process has created; renewed by a thread, and removed when dropped.
#[derive(Debug)]
pub(super) struct ExclusiveFile {
    path: PathBuf,
    /// Ends the thread when dropped.
    beat: Option<(Sender<()>, JoinHandle<()>)>,
}

/// The state of a lease.
pub(super) enum Claim {
    Free,
    /// A running process, or an unknown one.
    Held(Option<Holder>),
    /// A process that no longer exists, or has not renewed its file in time.
    Dead(Holder),
}

/// Returns the state of a lease. Writes nothing, so the time is that of this machine.
pub(super) fn look(path: &Path) -> Claim {
    match files(path).ok().and_then(|mut files| files.pop()) {
        Some((_, file)) => judge(&file, &|_| Ok(SystemTime::now())).unwrap_or(Claim::Held(None)),
        None => Claim::Free,
    }
}

/// Returns the file of the present holder.
pub(super) fn file(path: &Path) -> Option<PathBuf> {
    files(path).ok()?.pop().map(|(_, file)| file)
}

/// The files of a lease by their numbers, the present holder's last.
fn files(path: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut found = Vec::new();
    for entry in fs::read_dir(path.parent().unwrap_or(Path::new("")))? {
        let entry = entry?;
        let number = match entry.file_name().to_str().and_then(|entry| entry.strip_prefix(&*name)) {
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix('~').and_then(|number| number.parse().ok()),
            None => None,
        };
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort_unstable();
    Ok(found)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if number == 0 { path.to_owned() } else { path.with_file_name(format!("{name}~{number}")) }
}

/// Returns whether the holder of a file lives; `now` is the time by the clock that gave the file its own.
fn judge(file: &Path, now: &dyn Fn(&Path) -> io::Result<SystemTime>) -> io::Result<Claim> {
    let read = fs::read_to_string(file).and_then(|text| Ok((text, fs::metadata(file)?.modified()?)));
    let (text, renewed) = match read {
        Ok(read) => read,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Claim::Free),
        Err(e) => return Err(e),
    };
    let holder = serde_json::from_str::<Holder>(&text).ok();
    let dead = match &holder {
        Some(holder) if holder.host == clock::host() => !exists(holder),
        _ => now(file)?.duration_since(renewed).is_ok_and(|age| age > EXPIRY),
    };
    Ok(match (dead, holder) {
        (true, holder) => Claim::Dead(holder.unwrap_or_else(unknown_holder)),
        (false, holder) => Claim::Held(holder),
    })
}

/// Returns the time that the file system gives to a file that is written now.
fn file_system_time(beside: &Path) -> io::Result<SystemTime> {
    let probe = beside.with_file_name(format!(".lock-time-{}-{}", clock::host(), std::process::id()));
    let mut file = fs::File::create(&probe)?;
    let written = file.write_all(b"now").and_then(|()| file.metadata()?.modified());
    let _unimportant = fs::remove_file(&probe);
    written
}

/// The lock and its dead former owner, or the present holder.
pub(super) type Taken<T> = Result<(T, Option<Holder>), Option<Holder>>;

impl ExclusiveFile {
    /// Creates the file, also after a dead owner, who is named; or says who holds it.
    pub fn create(path: &Path, me: &Holder) -> io::Result<Taken<Self>> {
        let last = files(path)?.pop();
        let mut dead = None;
        if let Some((_, file)) = &last {
            match judge(file, &file_system_time)? {
                Claim::Held(holder) => return Ok(Err(holder)),
                Claim::Dead(holder) => dead = Some(holder),
                Claim::Free => return Ok(Err(None)),
            }
        }
        let number = last.map_or(0, |(number, _)| number.saturating_add(1));
        let own = numbered(path, number);
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&own) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(Err(None)),
            Err(e) => return Err(e),
        };
        let mut created = Self { path: own, beat: None };
        file.write_all(serde_json::to_string(me)?.as_bytes())?;
        drop(file);
        let others = || Ok::<_, io::Error>(files(path)?.into_iter().filter(|(other, _)| *other != number));
        for (other, file) in others()? {
            match judge(&file, &file_system_time)? {
                Claim::Held(holder) => return Ok(Err(holder)),
                Claim::Dead(_) if other > number => return Ok(Err(None)),
                Claim::Dead(_) | Claim::Free => {}
            }
        }
        for (_, file) in others()?.filter(|(other, _)| *other < number) {
            // Another process that has just judged the same may have removed it.
            let _gone = fs::remove_file(file);
        }
        created.beat = Some(heartbeat(created.path.clone(), me.clone()));
        Ok(Ok((created, dead)))
    }
}

impl Drop for ExclusiveFile {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.beat.take() {
            drop(stop);
            let _it_has_ended = thread.join();
        }
        // A file that remains belongs to a dead process, and the next run takes it over.
        let _unimportant = fs::remove_file(&self.path);
    }
}

/// Starts the thread that renews a file.
fn heartbeat(path: PathBuf, me: Holder) -> (Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = channel();
    let thread = std::thread::spawn(move || {
        let mut last = Instant::now();
        while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
            match renew(&path, &me) {
                Ok(true) => last = Instant::now(),
                Ok(false) => give_up(&path, "another process has taken its place, as this one gave no sign of life"),
                Err(error) if last.elapsed() > EXPIRY => give_up(&path, &format!("it could not be renewed: {error}")),
                Err(error) => tracing::warn!(path = %path.display(), %error, "the lease could not be renewed"),
            }
        }
    });
    (stop, thread)
}

/// Renews a file. Returns false if it is no longer the holder's.
fn renew(path: &Path, me: &Holder) -> io::Result<bool> {
    match fs::read_to_string(path) {
        Ok(text) if serde_json::from_str::<Holder>(&text).is_ok_and(|holder| holder == *me) => {}
        Ok(_) => return Ok(false),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    }
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    utimensat(CWD, path, &times, AtFlags::empty())?;
    Ok(true)
}

/// Ends this process, which no longer holds the lease: another one may do its work already.
fn give_up(path: &Path, why: &str) -> ! {
    eprintln!(
        "error[locked]: the lease {} is lost: {why}. This process ends without putting results in place; run the same command again",
        path.display()
    );
    std::process::exit(1)
}

/// Returns whether a holder on this machine still exists.
fn exists(holder: &Holder) -> bool {
    let pid = i32::try_from(holder.pid).ok().and_then(Pid::from_raw);
    let exists = pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
    let another = holder.born.is_some() && born(holder.pid).is_some_and(|born| Some(born) != holder.born);
    exists && !another
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

    fn write(path: &Path, holder: &Holder, age: Duration) {
        fs::write(path, serde_json::to_string(holder).unwrap()).unwrap();
        set_age(path, age);
    }

    fn set_age(path: &Path, age: Duration) {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn one_holds_it_and_it_goes_with_its_owner() {
        let (dir, path) = place();
        let me = Holder::this("run");
        let (held, dead) = ExclusiveFile::create(&path, &me).unwrap().unwrap();
        assert_eq!(dead, None);
        assert_eq!(ExclusiveFile::create(&path, &me).unwrap().unwrap_err(), Some(me));
        drop(held);
        assert!(matches!(look(&path), Claim::Free));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_dead_process_of_this_machine_loses_it() {
        let (dir, path) = place();
        let me = Holder::this("run");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = Holder { pid: child.id(), ..me.clone() };
        child.wait().unwrap();
        // A later process with the number of a dead one.
        let reused = Holder { born: me.born.map(|born| born + 1), ..me.clone() };
        for dead in [gone, reused] {
            write(&path, &dead, Duration::ZERO);
            let (held, taken_from) = ExclusiveFile::create(&path, &me).unwrap().unwrap();
            assert_eq!(taken_from, Some(dead));
            assert_eq!(file(&path).unwrap(), numbered(&path, 1));
            assert!(!path.exists());
            drop(held);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        // It is old, and alive.
        write(&path, &me, 2 * EXPIRY);
        assert_eq!(ExclusiveFile::create(&path, &me).unwrap().unwrap_err(), Some(me));
    }

    #[test]
    fn a_process_of_another_machine_loses_it_when_it_gives_no_sign_of_life() {
        let (_dir, path) = place();
        let me = Holder::this("run");
        let elsewhere = Holder { host: "another".to_owned(), ..me.clone() };
        write(&path, &elsewhere, EXPIRY / 2);
        assert_eq!(ExclusiveFile::create(&path, &me).unwrap().unwrap_err(), Some(elsewhere.clone()));
        set_age(&path, 2 * EXPIRY);
        let (held, dead) = ExclusiveFile::create(&path, &me).unwrap().unwrap();
        assert_eq!(dead, Some(elsewhere.clone()));
        drop(held);
        // A name that was not written before its process died, or is not written yet.
        fs::write(&path, "{").unwrap();
        assert_eq!(ExclusiveFile::create(&path, &me).unwrap().unwrap_err(), None);
        set_age(&path, 2 * EXPIRY);
        drop(ExclusiveFile::create(&path, &me).unwrap().unwrap());
        // The next one in a row of dead processes.
        write(&path, &elsewhere, 2 * EXPIRY);
        write(&numbered(&path, 3), &elsewhere, 2 * EXPIRY);
        let (held, _) = ExclusiveFile::create(&path, &me).unwrap().unwrap();
        assert_eq!(files(&path).unwrap(), [(4, numbered(&path, 4))]);
        drop(held);
    }

    #[test]
    fn a_renewal_moves_the_time_and_a_file_of_another_is_seen() {
        let (_dir, path) = place();
        let me = Holder::this("run");
        write(&path, &me, EXPIRY);
        assert!(renew(&path, &me).unwrap());
        let age = SystemTime::now().duration_since(fs::metadata(&path).unwrap().modified().unwrap());
        assert!(age.unwrap_or_default() < EXPIRY / 2);
        let other = Holder { pid: me.pid + 1, ..me.clone() };
        assert!(!renew(&path, &other).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!renew(&path, &me).unwrap());
    }

    /// Many threads take the lease of a dead process again and again; at every moment at most one has it.
    #[test]
    fn of_many_that_take_over_one_gets_it() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let (dir, path) = place();
        let me = Holder::this("run");
        let elsewhere = Holder { host: "another".to_owned(), ..me.clone() };
        let (holding, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        write(&path, &elsewhere, 2 * EXPIRY);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (path, holding, taken) = (&path, &holding, &taken);
                let me = Holder { pid: std::process::id(), command: format!("thread {thread}"), ..me.clone() };
                scope.spawn(move || {
                    for _ in 0..200 {
                        // A file may vanish between listing and reading, which is an error of that attempt only.
                        let Ok(Ok((held, _))) = ExclusiveFile::create(path, &me) else { continue };
                        assert_eq!(holding.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                        taken.fetch_add(1, Ordering::SeqCst);
                        holding.fetch_sub(1, Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
        assert!(taken.load(Ordering::SeqCst) > 0);
        assert!(files(&path).unwrap().is_empty(), "{:?}", fs::read_dir(dir.path()).unwrap().collect::<Vec<_>>());
    }
}
