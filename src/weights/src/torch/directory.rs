//! The directory of a zip archive: names and places of its stored entries.
//!
//! The reader is part of this crate because the `zip` crate (9.4) rejects small archives that PyTorch writes (a golden file is one), and
//! because only positions are needed: tensors are then read from the file itself. PyTorch does not check checksums either; it may write
//! none.

use crate::Parsed;
use crate::fault::Fault;
use crate::source::Source;
use std::collections::HashMap;

/// Bytes of an entry: start and length.
pub(super) type Place = (u64, u64);

/// Size of the record at the end of an archive, without its comment.
const END: usize = 22;
/// Size of the record before it, for large archives.
const LOCATOR: usize = 20;
/// Size of a directory entry without name, extra fields and comment.
const ENTRY: u64 = 46;
/// Size of an entry's own header without name and extra fields.
const LOCAL: u64 = 30;
/// Value of 32-bit fields when the real value is among the extra fields.
const ELSEWHERE: u64 = 0xffff_ffff;

/// An entry as the directory describes it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    header: u64,
    packed: u64,
    size: u64,
    /// True if it is compressed or encrypted.
    changed: bool,
}

/// The entries of an archive by name.
#[derive(Debug)]
pub(super) struct Directory(HashMap<String, Entry>);

impl Directory {
    /// Reads the directory at the end of the archive.
    pub fn read(source: &mut Source<'_>) -> Parsed<Self> {
        Self::parse(source).map_err(|fault| fault.within(format_args!("a damaged zip archive")))
    }

    fn parse(source: &mut Source<'_>) -> Parsed<Self> {
        let (start, size) = find(source)?;
        let end = start.checked_add(size).filter(|end| *end <= source.length()).ok_or("its directory is cut")?;
        source.seek(start)?;
        let mut entries = HashMap::new();
        while source.position() < end {
            let (name, entry) = entry(source)?;
            if entries.insert(name, entry).is_some() {
                return Err("two of its entries have one name".into());
            }
        }
        Ok(Self(entries))
    }

    /// Returns the names of its entries, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the position of an entry's bytes. They must be stored uncompressed: `torch.save` writes them like that, and it excludes
    /// archives that unpack to more than their size.
    pub fn place(&self, source: &mut Source<'_>, name: &str) -> Parsed<Place> {
        let shown = name.escape_debug().take(200).collect::<String>();
        let entry = self.0.get(name).ok_or_else(|| format!("it has no entry `{shown}`"))?;
        if entry.changed || entry.packed != entry.size {
            return Err(Fault::unsupported(format!(
                "entry `{shown}` is compressed or encrypted; torch.save stores: pack it again with `zip -0`"
            )));
        }
        source.seek(entry.header)?;
        let header = source.array::<{ LOCAL as usize }>()?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(
                format!("entry `{shown}` is not where the directory says; the file is truncated or modified").into()
            );
        }
        let start = entry.header + LOCAL + word(&header, 26) + word(&header, 28);
        let size = entry.size;
        match start.checked_add(size) {
            Some(end) if end <= source.length() => Ok((start, size)),
            _ => Err(format!(
                "entry `{shown}` claims {size} bytes at byte {start} of {}; the file is truncated or modified",
                source.length()
            )
            .into()),
        }
    }
}

/// Returns the start and length of the directory.
fn find(source: &mut Source<'_>) -> Parsed<(u64, u64)> {
    let tail = (END + LOCATOR + usize::from(u16::MAX)) as u64;
    let tail = source.length().min(tail);
    let tail_start = source.length() - tail;
    let bytes = source.bytes_at(tail_start, tail)?;
    let ends = |at: &usize| {
        bytes[*at..].starts_with(b"PK\x05\x06") && word(&bytes, at + 20) as usize == bytes.len() - at - END
    };
    let last = bytes.len().checked_sub(END).and_then(|last| (0..=last).rev().find(ends));
    let at = last.ok_or("its end is missing, so the file is truncated or modified")?;
    let locator = at.checked_sub(LOCATOR).filter(|locator| bytes[*locator..].starts_with(b"PK\x06\x07"));
    let Some(locator) = locator else {
        return Ok((double_word(&bytes, at + 16), double_word(&bytes, at + 12)));
    };
    source.seek(quad_word(&bytes, locator + 8))?;
    let record = source.array::<56>()?;
    if !record.starts_with(b"PK\x06\x06") {
        return Err("its end does not say where its directory is".into());
    }
    Ok((quad_word(&record, 48), quad_word(&record, 40)))
}

/// Reads one entry of the directory.
fn entry(source: &mut Source<'_>) -> Parsed<(String, Entry)> {
    let fixed = source.array::<{ ENTRY as usize }>()?;
    if !fixed.starts_with(b"PK\x01\x02") {
        return Err("its directory is damaged".into());
    }
    let name = source.bytes(word(&fixed, 28))?;
    let extra = source.bytes(word(&fixed, 30))?;
    source.skip(word(&fixed, 32))?;
    let (encrypted, method) = (word(&fixed, 8) & 1 != 0, word(&fixed, 10));
    let mut sizes = [double_word(&fixed, 24), double_word(&fixed, 20), double_word(&fixed, 42)];
    widen(&mut sizes, &extra)?;
    let [size, packed, header] = sizes;
    let entry = Entry { header, packed, size, changed: encrypted || method != 0 };
    Ok((String::from_utf8_lossy(&name).into_owned(), entry))
}

/// Reads the values that do not fit into 32 bits from their extra field, in the order of the standard.
fn widen(values: &mut [u64; 3], extra: &[u8]) -> Parsed<()> {
    let mut rest = extra;
    while rest.len() >= 4 {
        let (kind, length) = (word(rest, 0), word(rest, 2) as usize);
        let field = rest.get(4..4 + length).ok_or("an extra field is cut")?;
        if kind == 1 {
            let mut wide = field.chunks_exact(8).map(|chunk| quad_word(chunk, 0));
            for value in values.iter_mut().filter(|value| **value == ELSEWHERE) {
                *value = wide.next().ok_or("a large entry without its size")?;
            }
        }
        rest = &rest[4 + length..];
    }
    Ok(())
}

/// Returns the little-endian number of two bytes at `at`; callers ensure that they exist.
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from(bytes[at]) | u64::from(bytes[at + 1]) << 8
}

fn double_word(bytes: &[u8], at: usize) -> u64 {
    word(bytes, at) | word(bytes, at + 2) << 16
}

fn quad_word(bytes: &[u8], at: usize) -> u64 {
    double_word(bytes, at) | double_word(bytes, at + 4) << 32
}
