//! The source of an utterance's `wav` or of another medium: a file, a member of a tar file, a row of a Parquet file, a
//! group of an HDF5 file, or the output of a command.

use std::borrow::Cow;
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flowmill_audio::program::{self, ProgramError};

use crate::codes::Hdf5Group;
use crate::huggingface::ParquetCell;
use crate::{CorpusError, waveform};

/// The limits of a piped command, beyond which it is killed with all its children.
pub type PipeLimits = program::ProgramLimits;

/// The identity of a file's content: it differs after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl FileStamp {
    /// Creates the stamp of a file from its metadata.
    pub fn of(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), size: metadata.size(), changed: (metadata.ctime(), metadata.ctime_nsec()) }
    }
}

/// The largest member of a tar file that is read.
pub const MAX_MEMBER_BYTES: u64 = 1 << 30;

/// The separators between the path of a tar file, or an Arrow file, and the member's name.
const IN_FILE: [&str; 2] = [".tar#", ".arrow#"];

/// A member of a tar file, or a recording in an Arrow file, located by the position of its bytes: the file is not
/// searched again.
///
/// Written as `shards/000.tar#NAME@OFFSET+LENGTH`. The name is for people; offset and length determine the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TarMember<'a> {
    /// The file's path, relative to the recipe's folder or absolute; ends in `.tar` or `.arrow`.
    pub archive: &'a str,
    /// The member's name.
    pub name: &'a str,
    /// The position of its first byte.
    pub offset: u64,
    /// The number of its bytes.
    pub length: u64,
}

impl<'a> TarMember<'a> {
    /// Parses the member that a `wav` string names, if it names one.
    pub fn parse(wav: &'a str) -> Option<Self> {
        let (place, length) = wav.rsplit_once('+')?;
        let (path, offset) = place.rsplit_once('@')?;
        let at = IN_FILE.iter().filter_map(|separator| Some(path.find(separator)? + separator.len() - 1)).min()?;
        let (archive, name) = (&path[..at], &path[at + 1..]);
        Some(Self { archive, name, offset: digits(offset)?, length: digits(length)? })
    }

    /// Returns whether a tar file's path can be distinguished from the text that follows it.
    pub(crate) fn can_name(archive: &str) -> bool {
        archive.ends_with(".tar") && !IN_FILE.iter().any(|separator| archive.contains(separator))
    }

    /// Reads the member's bytes. An array of samples is converted to WAV.
    fn read(&self, root: &Path) -> Result<Vec<u8>, CorpusError> {
        let path = root.join(self.archive);
        let fail = |problem: io::Error| CorpusError::io("read", &path, problem);
        let file = File::open(&path).map_err(fail)?;
        let there = file.metadata().map_err(fail)?.len();
        // Only existing bytes are allocated, whatever the string says.
        if self.offset.checked_add(self.length).is_none_or(|end| end > there) || self.length > MAX_MEMBER_BYTES {
            let (name, offset, length) = (self.name, self.offset, self.length);
            let problem = format!("has {there} bytes, but {name} should be at {offset}+{length}; run stage 0 again");
            return Err(CorpusError::structure(&path, problem));
        }
        let mut bytes = vec![0; self.length as usize];
        file.read_exact_at(&mut bytes, self.offset).map_err(fail)?;
        match waveform::rate(self.name) {
            Some(rate) => waveform::to_wav(&bytes, self.name, rate).map_err(|e| CorpusError::structure(&path, e)),
            None => Ok(bytes),
        }
    }
}

impl fmt::Display for TarMember<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}@{}+{}", self.archive, self.name, self.offset, self.length)
    }
}

/// Parses a number written in digits only.
fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// The meaning of a `wav` string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// A path, relative to the recipe's folder or absolute.
    File(&'a str),
    /// A member of a tar file.
    Member(TarMember<'a>),
    /// A row of a column of a Parquet file.
    Cell(ParquetCell<'a>),
    /// The codes of an utterance in an HDF5 file.
    Group(Hdf5Group<'a>),
    /// A shell command that writes audio to its standard output. It runs in the recipe's folder.
    Pipe(&'a str),
}

impl<'a> Source<'a> {
    /// Parses a `wav` string as a path, a member of a tar file ([`TarMember`]) or a command (which ends in `|`).
    pub fn of(wav: &'a str) -> Self {
        match wav.strip_suffix('|') {
            Some(command) => Self::Pipe(command.trim_end()),
            None => {
                let member = TarMember::parse(wav).map(Self::Member);
                let cell = || ParquetCell::parse(wav).map(Self::Cell);
                let group = || Hdf5Group::parse(wav).map(Self::Group);
                member.or_else(cell).or_else(group).unwrap_or(Self::File(wav))
            }
        }
    }

    /// Returns the file that contains the recording, if there is one, for a part to declare as its input.
    pub fn file(&self, root: &Path) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(root.join(path)),
            Self::Member(member) => Some(root.join(member.archive)),
            Self::Cell(cell) => Some(root.join(cell.file)),
            Self::Group(group) => Some(root.join(group.file)),
            Self::Pipe(_) => None,
        }
    }

    /// Reads the audio file's bytes unchanged, or the command's output.
    ///
    /// # Errors
    /// [`CorpusError::Io`] for a file that cannot be read; [`CorpusError::Structure`] for a tar file too short for
    /// its member; [`CorpusError::Pipe`] for a command that fails, outputs nothing, runs too long or writes too much.
    pub fn read(&self, root: &Path, limits: &PipeLimits) -> Result<Vec<u8>, CorpusError> {
        match self {
            Self::File(path) => {
                let path = root.join(path);
                std::fs::read(&path).map_err(|e| CorpusError::io("read", &path, e))
            }
            Self::Member(member) => member.read(root),
            Self::Cell(cell) => cell.read(root),
            Self::Group(group) => group.read(root),
            Self::Pipe(command) => run(command, root, limits)
                .map_err(|problem| CorpusError::Pipe { command: (*command).to_owned(), problem }),
        }
    }
}

/// Returns the shell words that make a command of a data directory run in that directory.
pub(crate) fn change_directory(dir: &str) -> String {
    format!("cd {} || exit 1; ", quoted(dir))
}

/// Quotes a word for `sh`.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

/// Runs a command in the recipe's folder and collects its output.
fn run(command: &str, root: &Path, limits: &PipeLimits) -> Result<Vec<u8>, ProgramError> {
    let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(root).stdin(Stdio::null());
    program::run(&mut shell, limits).map(|output| output.bytes)
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;
    use std::time::{Duration, Instant};

    use super::*;

    fn limits(milliseconds: u64, bytes: u64) -> PipeLimits {
        PipeLimits { time: Duration::from_millis(milliseconds), bytes }
    }

    /// Returns the problem of a command that fails.
    fn problem(command: &str, limits: PipeLimits) -> ProgramError {
        match Source::of(command).read(Path::new("/"), &limits).unwrap_err() {
            CorpusError::Pipe { problem, .. } => problem,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn commands_are_told_from_paths() {
        assert_eq!(Source::of("a b.wav"), Source::File("a b.wav"));
        assert_eq!(Source::of("sox a.wav -t wav - |"), Source::Pipe("sox a.wav -t wav -"));
        let group = Hdf5Group { file: "d/data.h5", group: "training/s/u" };
        assert_eq!(Source::of("d/data.h5#training/s/u"), Source::Group(group));
        assert_eq!(Source::of("d/data.h5"), Source::File("d/data.h5"));
    }

    #[test]
    fn members_are_told_from_paths_and_read_by_offset() {
        let wav = "d/a.tar#x/1@2+3.wav@512+7";
        let member = TarMember { archive: "d/a.tar", name: "x/1@2+3.wav", offset: 512, length: 7 };
        assert_eq!(Source::of(wav), Source::Member(member));
        assert_eq!(member.to_string(), wav);
        for path in [
            "a.tar",
            "a.tar#x.wav",
            "a.tar#x.wav@1+",
            "a.tar#x.wav@+1",
            "a.wav@1+2",
            "a.tar#x@1+-2",
            "a.tar#x@1+99999999999999999999",
        ] {
            assert_eq!(Source::of(path), Source::File(path));
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.tar"), b"0123456789").unwrap();
        let read = |wav: &str| Source::of(wav).read(dir.path(), &PipeLimits::default());
        assert_eq!(read("a.tar#x@3+4").unwrap(), b"3456");
        assert_eq!(read("a.tar#x@10+0").unwrap(), b"");
        for wav in ["a.tar#x@3+8", "a.tar#x@11+0", "a.tar#x@18446744073709551615+1"] {
            let error = read(wav).unwrap_err();
            assert!(matches!(&error, CorpusError::Structure { path, .. } if path.ends_with("a.tar")), "{wav}: {error}");
        }
    }

    #[test]
    fn a_command_gives_its_output() {
        let bytes = Source::of("printf abc |").read(Path::new("/"), &limits(5000, 10)).unwrap();
        assert_eq!(bytes, b"abc");
    }

    #[test]
    fn failures_say_what_happened() {
        let failed = problem("echo no >&2; exit 3 |", limits(5000, 10));
        let is_it = |status: &ExitStatus, complaint: &str| status.code() == Some(3) && complaint == "no";
        assert!(matches!(&failed, ProgramError::Failed { status, complaint } if is_it(status, complaint)), "{failed}");
        let silent = problem("true |", limits(5000, 10));
        assert!(matches!(silent, ProgramError::Silent { .. }), "{silent}");
        let endless = problem("yes |", limits(5000, 100));
        assert!(matches!(endless, ProgramError::WroteTooMuch { limit: 100, .. }), "{endless}");
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let start = Instant::now();
        let error = problem("sleep 60 | cat |", limits(200, 10));
        assert!(matches!(error, ProgramError::TimedOut { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn directories_are_quoted_for_the_shell() {
        assert_eq!(change_directory("../data/x/"), "cd ../data/x/ || exit 1; ");
        assert_eq!(change_directory("it's here/"), r"cd 'it'\''s here/' || exit 1; ");
    }
}
