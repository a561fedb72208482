//! Arrow IPC files and streams, read one batch at a time in memory that their size bounds.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamDecoder;

use crate::CorpusError;

/// The mark before the length of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// The first bytes of a file that ends with an index. What follows is a stream.
const FILE_MAGIC: &[u8; 8] = b"ARROW1\0\0";
/// The largest number of bytes before the first message of a file.
const LARGEST_PADDING: u64 = 256;
/// The largest description of a message.
const MAX_METADATA: u64 = 1 << 28;

/// Returns whether content of `length` bytes that begins with `head` is an Arrow IPC file or stream.
pub fn begins_arrow(head: &[u8], length: u64) -> bool {
    if head.starts_with(FILE_MAGIC) {
        return true;
    }
    let size = head.get(4..8).map(|size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
    let is_plausible = |size: u32| size > 0 && size.is_multiple_of(8) && u64::from(size) + 8 <= length;
    head.starts_with(&CONTINUATION) && size.is_some_and(is_plausible)
}

/// The batches of an Arrow IPC file or stream.
pub struct ArrowBatches {
    path: PathBuf,
    file: BufReader<File>,
    length: u64,
    /// Position of the next message.
    at: u64,
    is_file: bool,
    decoder: StreamDecoder,
}

/// A message of the stream with its description and its content, and the position of its first byte.
struct Message {
    at: u64,
    bytes: Vec<u8>,
}

/// The place of a message in memory and in its file.
pub(crate) struct Place {
    base: usize,
    length: usize,
    at: u64,
}

impl Place {
    /// Returns the position in the file of bytes that a batch holds; `None` if they were copied.
    pub(crate) fn of(&self, bytes: &[u8]) -> Option<u64> {
        let offset = (bytes.as_ptr() as usize).checked_sub(self.base)?;
        (offset + bytes.len() <= self.length).then_some(self.at + offset as u64)
    }
}

impl ArrowBatches {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`CorpusError::Io`] if it cannot be read.
    pub fn open(path: &Path) -> Result<Self, CorpusError> {
        let io = |e| CorpusError::io("read", path, e);
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut file = BufReader::new(file);
        let mut head = Vec::new();
        file.by_ref().take(LARGEST_PADDING).read_to_end(&mut head).map_err(io)?;
        let is_file = head.starts_with(FILE_MAGIC);
        // Some writers pad the magic with zeros to the alignment of messages.
        let words = head.chunks_exact(8).skip(1).take_while(|word| **word == [0; 8]).count() as u64;
        let at = if is_file { 8 * (1 + words) } else { 0 };
        file.seek(SeekFrom::Start(at)).map_err(io)?;
        Ok(Self { path: path.to_owned(), file, length, at, is_file, decoder: StreamDecoder::new() })
    }

    /// Returns whether it is a file with an index at its end, which is not used, and not a stream.
    pub fn is_file(&self) -> bool {
        self.is_file
    }

    /// Returns the schema, once the first message was read.
    pub fn schema(&self) -> Option<SchemaRef> {
        self.decoder.schema()
    }

    /// Reads the next batch; `None` at the end.
    ///
    /// # Errors
    /// [`CorpusError::Structure`] with the position of the damage. Nothing can be read after it.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, CorpusError> {
        Ok(self.next_placed()?.map(|(batch, _)| batch))
    }

    /// Reads the next batch with the place of its bytes; `None` at the end.
    pub(crate) fn next_placed(&mut self) -> Result<Option<(RecordBatch, Place)>, CorpusError> {
        loop {
            let at = self.at;
            let broken = |problem: String| CorpusError::structure(&self.path, format!("at byte {at}: {problem}"));
            let message = next(&mut self.file, at, self.length).map_err(broken)?;
            let Some(message) = message else { return Ok(None) };
            self.at += message.bytes.len() as u64;
            let base = message.bytes.as_ptr() as usize;
            let place = Place { base, length: message.bytes.len(), at: message.at };
            let mut buffer = Buffer::from_vec(message.bytes);
            let decoder = &mut self.decoder;
            // The decoder panics on some damaged files. It is not used again then.
            let decoded = catch_unwind(AssertUnwindSafe(|| decoder.decode(&mut buffer)));
            let decoded = decoded.map_err(|_| broken("its content contradicts itself".into()))?;
            if let Some(batch) = decoded.map_err(|e| broken(e.to_string()))? {
                return Ok(Some((batch, place)));
            }
        }
    }
}

/// Reads the next message; `None` at the end.
fn next(file: &mut impl Read, at: u64, length: u64) -> Result<Option<Message>, String> {
    let there = length.saturating_sub(at);
    let mut head = [0; 8];
    if there < 8 {
        return Ok(None);
    }
    let fail = |e: std::io::Error| e.to_string();
    file.read_exact(&mut head).map_err(fail)?;
    if head[..4] != CONTINUATION {
        return Err("is not a stream of Arrow; save the dataset again with a current version of `datasets`".into());
    }
    let size = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
    if size == 0 {
        return Ok(None);
    }
    if size > MAX_METADATA || size > there - 8 {
        return Err("is truncated".into());
    }
    let mut bytes = head.to_vec();
    read_into(file, &mut bytes, size).map_err(fail)?;
    let message = arrow::ipc::root_as_message(&bytes[8..]).map_err(|e| format!("is damaged: {e}"))?;
    let body = u64::try_from(message.bodyLength()).map_err(|_| "has a negative size")?;
    if body > there - 8 - size {
        return Err("is truncated".into());
    }
    read_into(file, &mut bytes, body).map_err(fail)?;
    Ok(Some(Message { at, bytes }))
}

/// Appends bytes, which are known to exist.
fn read_into(file: &mut impl Read, bytes: &mut Vec<u8>, size: u64) -> std::io::Result<()> {
    bytes.reserve_exact(size as usize);
    if file.take(size).read_to_end(bytes)? as u64 == size {
        Ok(())
    } else {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
}
