//! Rows of an Arrow file as `save_to_disk` writes it, with the places of their recordings.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use arrow::ipc::reader::StreamDecoder;

use super::{BYTES, TableFile, json};
use crate::fields::is_name_of;
use crate::manifest::Parsed;
use crate::source::TarMember;
use crate::{CorpusError, Rejection};

/// The mark before the length of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// The first bytes of a file that ends with an index. What follows is a stream.
const FILE_MAGIC: &[u8; 8] = b"ARROW1\0\0";
/// The largest description of a message.
const MAX_METADATA: u64 = 1 << 28;

/// A message of the stream with its description and its content, and the position of its first byte.
struct Message {
    at: u64,
    bytes: Vec<u8>,
}

/// Reads the rows of a file, one batch at a time.
pub(super) fn read(table: &TableFile<'_>) -> Result<Parsed, CorpusError> {
    let io = |e| CorpusError::io("read", &table.full, e);
    let broken = |problem: String| CorpusError::structure(&table.full, problem);
    let file = File::open(&table.full).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let mut file = BufReader::new(file);
    let mut magic = [0; 8];
    let mut at = 0;
    if length >= 8 {
        file.read_exact(&mut magic).map_err(io)?;
    }
    if &magic == FILE_MAGIC {
        at = 8;
    }
    file.seek(SeekFrom::Start(at)).map_err(io)?;
    let mut decoder = StreamDecoder::new();
    let mut parsed = Parsed::new();
    loop {
        let message = next(&mut file, at, length).map_err(|problem| broken(format!("at byte {at}: {problem}")))?;
        let Some(message) = message else { return Ok(parsed) };
        at += message.bytes.len() as u64;
        let base = message.bytes.as_ptr() as usize;
        let place = Place { base, length: message.bytes.len(), at: message.at };
        let mut buffer = Buffer::from_vec(message.bytes);
        // The decoder panics on some damaged files. It is thrown away then.
        let read = catch_unwind(AssertUnwindSafe(|| -> Result<(), CorpusError> {
            let batch = decoder.decode(&mut buffer).map_err(|e| broken(format!("at byte {}: {e}", message.at)))?;
            batch.map_or(Ok(()), |batch| rows(table, &batch, &place, &mut parsed))
        }));
        read.unwrap_or_else(|_| Err(broken(format!("at byte {}: its content contradicts itself", message.at))))?;
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

/// The place of a message in memory and in its file.
struct Place {
    base: usize,
    length: usize,
    at: u64,
}

impl Place {
    /// Returns the position in the file of bytes that a batch holds; `None` if they were copied.
    fn of(&self, bytes: &[u8]) -> Option<u64> {
        let offset = (bytes.as_ptr() as usize).checked_sub(self.base)?;
        (offset + bytes.len() <= self.length).then_some(self.at + offset as u64)
    }
}

/// Adds the rows of a batch.
fn rows(table: &TableFile<'_>, batch: &RecordBatch, place: &Place, parsed: &mut Parsed) -> Result<(), CorpusError> {
    let Some((column, outer, bytes)) = audio(batch) else {
        let names = batch.schema_ref().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        if !names.iter().any(|name| is_name_of("audio", name)) {
            return Err(table.without_recordings(&names));
        }
        for at in 0..batch.num_rows() {
            let number = parsed.len();
            parsed.push(table.row(json::row(batch, at), "", number, None));
        }
        return Ok(());
    };
    for at in 0..batch.num_rows() {
        let (number, object) = (parsed.len(), json::row(batch, at));
        let value = Some(bytes).filter(|bytes| outer.is_none_or(|outer| outer.is_valid(at)) && bytes.is_valid(at));
        let value = value.and_then(|bytes| match bytes.data_type() {
            DataType::Binary => Some(bytes.as_binary::<i32>().value(at)),
            _ => bytes.as_binary_opt::<i64>().map(|bytes| bytes.value(at)),
        });
        parsed.push(match (value, value.and_then(|value| Some((place.of(value)?, value.len())))) {
            (None, _) => table.row(object, &column, number, None),
            (Some(_), None) => {
                let id = format!("{}[{number}]", table.name);
                let reason = format!("bad row: {id} is compressed; save the dataset again without compression");
                Err(Rejection { id, reason })
            }
            (Some(_), Some((offset, length))) => {
                let place =
                    |name: &str| TarMember { archive: table.path, name, offset, length: length as u64 }.to_string();
                table.row(object, &column, number, Some(&place))
            }
        });
    }
    Ok(())
}

/// Returns the column with recordings: its name, the outer level if it has two, and the bytes.
fn audio(batch: &RecordBatch) -> Option<(String, Option<&dyn Array>, &dyn Array)> {
    let is_bytes = |array: &dyn Array| matches!(array.data_type(), DataType::Binary | DataType::LargeBinary);
    let schema = batch.schema_ref().fields();
    let found = schema.iter().zip(batch.columns()).filter_map(|(field, array)| {
        let name = field.name();
        let inner = array.as_struct_opt().and_then(|outer| outer.column_by_name("bytes"));
        match inner.filter(|inner| is_bytes(inner)) {
            Some(inner) => Some((u8::from(!is_name_of("audio", name)), name, Some(array.as_ref()), inner.as_ref())),
            None => (is_bytes(array) && BYTES.contains(&name.as_str())).then_some((2, name, None, array.as_ref())),
        }
    });
    let (_, name, outer, bytes) = found.min_by_key(|(rank, ..)| *rank)?;
    Some((name.clone(), outer, bytes))
}
