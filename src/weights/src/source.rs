//! Source of bytes: a file or memory, read in pieces, with a known length before anything is allocated.

use super::{Parsed, locate};
use crate::fault::{Fault, FaultKind};
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes of memory that the values of a file may take per byte read. Ordinary values stay well below: a small integer in a list takes 8
/// bytes for its 2 or 3, an entry of a dict about 200 for its 20 or more.
const MEMORY_PER_BYTE: u64 = 16;
/// Bytes of memory that the values of any file may take.
const FREE_MEMORY: u64 = 64 << 20;

/// A reader with random access.
trait ReadSeek: Read + Seek + Send {}

impl<T: Read + Seek + Send> ReadSeek for T {}

/// A file, or its content in memory.
pub(crate) struct Source<'a> {
    reader: BufReader<Box<dyn ReadSeek + 'a>>,
    length: u64,
    position: u64,
    /// Number of bytes that were read, not skipped.
    read: u64,
    /// Bytes of memory of the values that were created from them.
    held: u64,
    path: PathBuf,
    /// True if it is the file at `path`, so that other files of its folder can be read with it.
    on_disk: bool,
    /// The files that it refers to, with their names in it and their lengths.
    named: Vec<NamedFile>,
}

/// A file that another one refers to.
struct NamedFile {
    name: String,
    path: PathBuf,
    length: u64,
}

impl Source<'static> {
    /// Opens the file at `path`.
    pub fn open(path: &Path) -> Parsed<Self> {
        let file = File::open(path)?;
        let about = file.metadata()?;
        if about.is_dir() {
            return Err(Fault::new(FaultKind::Unreadable, "it is a folder; name a file in it"));
        }
        Ok(Self { on_disk: true, ..Self::new(Box::new(file), about.len(), path) })
    }
}

impl<'a> Source<'a> {
    /// Creates a source from content in memory; `path` is used in messages.
    pub fn of_bytes(bytes: &'a [u8], path: &Path) -> Self {
        Self::new(Box::new(Cursor::new(bytes)), bytes.len() as u64, path)
    }

    fn new(reader: Box<dyn ReadSeek + 'a>, length: u64, path: &Path) -> Self {
        Self {
            reader: BufReader::with_capacity(1 << 16, reader),
            length,
            position: 0,
            read: 0,
            held: 0,
            path: path.to_owned(),
            on_disk: false,
            named: Vec::new(),
        }
    }

    /// Returns the number, starting at 1, and the length of a file of the same folder that this one refers to.
    ///
    /// # Errors
    /// When it does not exist, its name leads outside of the folder, or this is content in memory.
    pub fn name_file(&mut self, name: &str) -> Parsed<(u32, u64)> {
        let known = self.named.iter().position(|file| file.name == name);
        let index = match known {
            Some(index) => index,
            None if !self.on_disk => return Err("its data is in another file".into()),
            None => {
                let path = locate::neighbor(&self.path, name)?;
                let length = path.metadata().map_err(|error| Fault::from(error).within(path.display()))?.len();
                self.hold(2 * (size_of::<NamedFile>() + name.len() + path.as_os_str().len()))?;
                self.named.push(NamedFile { name: name.to_owned(), path, length });
                self.named.len() - 1
            }
        };
        Ok((index as u32 + 1, self.named[index].length))
    }

    /// Opens the referenced files, in the order of their numbers, and returns them after this one.
    pub fn with_named_files(self) -> Parsed<Vec<Self>> {
        let named: Vec<PathBuf> = self.named_files();
        let mut sources = vec![self];
        for file in named {
            sources.push(Source::open(&file).map_err(|fault| fault.within(file.display()))?);
        }
        Ok(sources)
    }

    /// Returns the files referenced so far, in the order of their numbers.
    pub fn named_files(&self) -> Vec<PathBuf> {
        self.named.iter().map(|file| file.path.clone()).collect()
    }

    /// Returns the file's path, for messages and for naming a nameless array.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether it is a file on disk.
    pub fn is_on_disk(&self) -> bool {
        self.on_disk
    }

    /// Returns the total number of bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the position that is read next.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns the number of remaining bytes.
    pub fn remaining(&self) -> u64 {
        self.length - self.position
    }

    /// Continues at `position`.
    pub fn seek(&mut self, position: u64) -> Parsed<()> {
        if position > self.length {
            return Err(
                format!("it names byte {position} and has {}; the file is truncated or modified", self.length).into()
            );
        }
        let moved = i64::try_from(i128::from(position) - i128::from(self.position));
        match moved {
            Ok(offset) => self.reader.seek_relative(offset)?,
            Err(_) => self.reader.seek(SeekFrom::Start(position)).map(drop)?,
        }
        self.position = position;
        Ok(())
    }

    /// Skips `count` bytes.
    pub fn skip(&mut self, count: u64) -> Parsed<()> {
        self.require(count)?;
        self.seek(self.position + count)
    }

    /// Reads the next byte.
    pub fn byte(&mut self) -> Parsed<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Reads the next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads the next `count` bytes; nothing is allocated if there are fewer.
    pub fn bytes(&mut self, count: u64) -> Parsed<Vec<u8>> {
        self.require(count)?;
        let count =
            usize::try_from(count).map_err(|_| Fault::too_large(format!("{count} bytes do not fit into memory")))?;
        let mut bytes = vec![0; count];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads `count` bytes starting at `start`.
    pub fn bytes_at(&mut self, start: u64, count: u64) -> Parsed<Vec<u8>> {
        self.seek(start)?;
        self.bytes(count)
    }

    /// Reads the next line without its end, at most `limit` bytes long.
    pub fn line(&mut self, limit: u64) -> Parsed<String> {
        let mut line = Vec::new();
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut line)?;
        self.position += read as u64;
        self.read += read as u64;
        if line.pop() != Some(b'\n') {
            return Err("a line without an end".into());
        }
        String::from_utf8(line).map_err(|_| "a line that is not UTF-8".into())
    }

    fn require(&self, count: u64) -> Parsed<()> {
        if count <= self.remaining() {
            return Ok(());
        }
        let (position, remaining) = (self.position, self.remaining());
        Err(format!(
            "{count} bytes are announced at byte {position} and {remaining} follow; the file is truncated or modified"
        )
        .into())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Parsed<()> {
        self.require(bytes.len() as u64)?;
        self.reader.read_exact(bytes)?;
        self.position += bytes.len() as u64;
        self.read += bytes.len() as u64;
        Ok(())
    }

    /// Accounts for memory of values that were created from this source, which is bounded by the number of bytes read.
    pub fn hold(&mut self, bytes: usize) -> Parsed<()> {
        self.require_memory(bytes)?;
        self.held += bytes as u64;
        Ok(())
    }

    /// Accounts for memory that was freed.
    pub fn release(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes as u64);
    }

    /// Fails if values would take this much more memory than allowed.
    pub fn require_memory(&self, bytes: usize) -> Parsed<()> {
        let limit = FREE_MEMORY.saturating_add(MEMORY_PER_BYTE.saturating_mul(self.read));
        if self.held.saturating_add(bytes as u64) <= limit {
            return Ok(());
        }
        Err(Fault::too_large(format!(
            "its values take more than {limit} bytes of memory, the limit for the {} bytes they are read from \
             ({MEMORY_PER_BYTE} times as many and {} MiB); save the state dict alone, or in several files",
            self.read,
            FREE_MEMORY >> 20
        )))
    }
}
