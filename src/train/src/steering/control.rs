//! The receiving end of the control socket: a Unix socket, accessible to its owner only, in a folder accessible to its owner only.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::Answer;

/// The socket's folder in an experiment, which exists while a run listens.
pub const CONTROL_FOLDER: &str = ".control";
/// Name of the socket in it.
const SOCKET: &str = "socket";
/// The name before it listens.
const NEW_SOCKET: &str = "socket.new";
/// Longest path that fits into a socket's address on every system.
const LONGEST_PATH: usize = 100;
/// Largest number of bytes of a command.
const LONGEST_LINE: usize = 1024;
/// Largest number of simultaneous connections; others wait.
const MOST_CLIENTS: usize = 32;

/// A connected client.
#[derive(Debug)]
struct Client {
    number: u64,
    stream: UnixStream,
    received: Vec<u8>,
    /// Commands without an answer so far.
    unanswered: usize,
    /// True if the client has closed its end.
    ended: bool,
}

/// The socket, open until dropped. Nothing here blocks: [`Control::lines`] returns what has arrived.
#[derive(Debug)]
pub struct Control {
    folder: PathBuf,
    listener: UnixListener,
    clients: Vec<Client>,
    connected: u64,
}

impl Control {
    /// Listens in an experiment's folder. A socket left by a dead run is replaced: the caller holds the experiment's lock. A new
    /// one gets its final name when it listens, so whoever sees it can connect.
    ///
    /// # Errors
    /// When the folder belongs to another user, or its file system does not support sockets.
    pub fn open(experiment: &Path) -> io::Result<Self> {
        let folder = experiment.join(CONTROL_FOLDER);
        own_folder(&folder)?;
        let new = folder.join(NEW_SOCKET);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = at_short_path(&folder, NEW_SOCKET, |path| UnixListener::bind(path))?;
        fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        fs::rename(&new, folder.join(SOCKET))?;
        Ok(Self { folder, listener, clients: Vec::new(), connected: 0 })
    }

    /// Returns the lines that have arrived since the last call, each with the number of the client to answer.
    pub fn lines(&mut self) -> Vec<(u64, String)> {
        self.accept();
        let mut lines = Vec::new();
        for client in &mut self.clients {
            client.receive();
            while let Some(line) = client.next_line() {
                lines.push((client.number, line));
            }
        }
        self.clients.retain(|client| !client.ended || client.unanswered > 0);
        lines
    }

    /// Answers one line of a client. A client that has disconnected, or does not read, is dropped.
    pub fn answer(&mut self, number: u64, answer: &Answer) {
        let Some(at) = self.clients.iter().position(|client| client.number == number) else { return };
        let (done, text) = match answer {
            Ok(text) => (true, text),
            Err(text) => (false, text),
        };
        let line = format!("{}\n", serde_json::json!({ "done": done, "text": text }));
        let client = &mut self.clients[at];
        client.unanswered = client.unanswered.saturating_sub(1);
        if client.stream.write_all(line.as_bytes()).is_err() {
            self.clients.remove(at);
        }
    }

    fn accept(&mut self) {
        while self.clients.len() < MOST_CLIENTS {
            let Ok((stream, _)) = self.listener.accept() else { return };
            if stream.set_nonblocking(true).is_ok() {
                let number = self.connected;
                self.connected += 1;
                self.clients.push(Client { number, stream, received: Vec::new(), unanswered: 0, ended: false });
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // If it cannot be removed, the next run replaces it.
        let _unimportant = fs::remove_file(self.folder.join(SOCKET)).and_then(|()| fs::remove_dir(&self.folder));
    }
}

impl Client {
    /// Reads what has arrived, up to the longest possible command per line.
    fn receive(&mut self) {
        let mut chunk = [0; LONGEST_LINE];
        while !self.ended && self.received.len() <= LONGEST_LINE {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.ended = error.kind() != ErrorKind::WouldBlock;
                    return;
                }
            }
        }
    }

    /// Returns the next whole line, at the end also one without a line break. A line that is too long is returned as far as it was read,
    /// and the client gets no further ones.
    fn next_line(&mut self) -> Option<String> {
        let end = match self.received.iter().position(|byte| *byte == b'\n') {
            Some(end) => end,
            None if self.ended && !self.received.is_empty() => self.received.len(),
            None if self.received.len() > LONGEST_LINE => {
                self.ended = true;
                self.received.len()
            }
            None => return None,
        };
        let line = String::from_utf8_lossy(&self.received[..end]).chars().take(LONGEST_LINE).collect();
        self.received.drain(..(end + 1).min(self.received.len()));
        self.unanswered += 1;
        Some(line)
    }
}

/// Connects to the run that listens in an experiment's folder.
pub(super) fn connect(experiment: &Path) -> io::Result<UnixStream> {
    at_short_path(&experiment.join(CONTROL_FOLDER), SOCKET, |path| UnixStream::connect(path))
}

/// Creates the folder, or checks that the existing one is a real folder of this user; other users get no access.
fn own_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(ErrorKind::PermissionDenied, "it is not a folder of this user's"));
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

/// Calls `with` with a path to a socket in `folder` that is short enough for a socket's address. If the real one is not, the path goes
/// through the system's list of this process's open folders.
fn at_short_path<T>(folder: &Path, name: &str, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = folder.join(name);
    if path.as_os_str().len() <= LONGEST_PATH {
        return with(&path);
    }
    let opened = File::open(folder)?;
    with(&Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::send;
    use std::thread;
    use std::time::Duration;

    /// Polls as a loop would, and answers every line with itself.
    fn serve(control: &mut Control, lines: usize) -> Vec<String> {
        let mut served = Vec::new();
        while served.len() < lines {
            for (number, line) in control.lines() {
                control.answer(number, &Ok(line.clone()));
                served.push(line);
            }
            thread::sleep(Duration::from_millis(1));
        }
        served
    }

    #[test]
    fn commands_arrive_and_are_answered_also_through_a_long_path() {
        for depth in [0, 6] {
            let root = tempfile::tempdir().unwrap();
            let experiment = (0..depth).fold(root.path().to_owned(), |path, _| path.join("a-rather-long-folder-name"));
            fs::create_dir_all(&experiment).unwrap();
            let mut control = Control::open(&experiment).unwrap();
            let socket = experiment.join(CONTROL_FOLDER).join(SOCKET);
            assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::metadata(socket.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
            let folder = experiment.clone();
            let sent = thread::spawn(move || send(&folder, "save").unwrap());
            assert_eq!(serve(&mut control, 1), ["save"]);
            assert_eq!(sent.join().unwrap(), Ok("save".to_owned()));
            drop(control);
            assert!(!experiment.join(CONTROL_FOLDER).exists());
        }
    }

    #[test]
    fn what_a_dead_run_left_is_replaced() {
        let experiment = tempfile::tempdir().unwrap();
        std::mem::forget(Control::open(experiment.path()).unwrap());
        let mut control = Control::open(experiment.path()).unwrap();
        let folder = experiment.path().to_owned();
        let sent = thread::spawn(move || send(&folder, "status").unwrap());
        serve(&mut control, 1);
        assert!(sent.join().unwrap().is_ok());
    }

    #[test]
    fn a_link_in_the_place_of_the_folder_is_refused() {
        let experiment = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), experiment.path().join(CONTROL_FOLDER)).unwrap();
        assert_eq!(Control::open(experiment.path()).unwrap_err().kind(), ErrorKind::PermissionDenied);
    }

    /// Fragments, several lines at the same time, bytes that are not text, a missing line break, too long a line, a client that never
    /// reads.
    #[test]
    fn whatever_is_sent_becomes_lines_of_bounded_length() {
        let experiment = tempfile::tempdir().unwrap();
        let mut control = Control::open(experiment.path()).unwrap();
        let mut stream = connect(experiment.path()).unwrap();
        stream.write_all(b"sa").unwrap();
        assert_eq!(control.lines(), []);
        stream.write_all(b"ve\nlr 1\n\xff\xfe").unwrap();
        assert_eq!(control.lines(), [(0, "save".to_owned()), (0, "lr 1".to_owned())]);
        drop(stream);
        assert_eq!(control.lines(), [(0, "\u{fffd}\u{fffd}".to_owned())]);
        (0..3).for_each(|_| control.answer(0, &Ok("gone".to_owned())));
        assert!(control.clients.is_empty());

        let mut long = connect(experiment.path()).unwrap();
        long.write_all(&vec![b'x'; 100_000]).unwrap();
        let lines = control.lines();
        assert_eq!((lines.len(), lines[0].1.len()), (1, LONGEST_LINE));
        control.answer(lines[0].0, &Err("too long".to_owned()));
        assert!(control.lines().is_empty() && control.clients.is_empty());

        let _silent: Vec<UnixStream> = (0..40).map(|_| connect(experiment.path()).unwrap()).collect();
        assert!(control.lines().is_empty());
        assert_eq!(control.clients.len(), MOST_CLIENTS);
    }
}
