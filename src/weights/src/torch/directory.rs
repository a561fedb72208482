//! The directory of a zip archive: names and places of its stored entries.
//!
//! Reading it is ours because the `zip` crate (9.4) refuses small archives that PyTorch writes (a golden file is one), and because
//! only places are needed: tensors are then read from the file itself. PyTorch checks no checksums either; it may write none.

use crate::Parsed;
use crate::fault::Fault;
use crate::source::Source;
use std::collections::HashMap;

/// Bytes of an entry: where they begin and how many there are.
pub(super) type Place = (u64, u64);

/// The record at the end of an archive, without its comment.
const END: usize = 22;
/// The record before it, when there is a large one.
const LOCATOR: usize = 20;
/// A directory entry without name, extra fields and comment.
const ENTRY: u64 = 46;
/// An entry's own header without name and extra fields.
const LOCAL: u64 = 30;
/// What 32-bit fields hold when the value is among the extra fields.
const ELSEWHERE: u64 = 0xffff_ffff;

/// An entry as the directory describes it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    header: u64,
    packed: u64,
    size: u64,
    /// Whether it is compressed or encrypted.
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

    /// The names of its entries, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Where an entry's bytes are. They must be stored as they are: that is how `torch.save` writes, and it leaves no room for
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
            return Err(format!("entry `{shown}` is not where the directory says; it was cut or changed").into());
        }
        let start = entry.header + LOCAL + word(&header, 26) + word(&header, 28);
        let size = entry.size;
        match start.checked_add(size) {
            Some(end) if end <= source.length() => Ok((start, size)),
            _ => Err(format!(
                "entry `{shown}` claims {size} bytes at byte {start} of {}; it was cut or changed",
                source.length()
            )
            .into()),
        }
    }
}

/// Where the directory begins and how long it is.
fn find(source: &mut Source<'_>) -> Parsed<(u64, u64)> {
    let tail = (END + LOCATOR + usize::from(u16::MAX)) as u64;
    let tail = source.length().min(tail);
    let tail_start = source.length() - tail;
    let bytes = source.bytes_at(tail_start, tail)?;
    let ends = |at: &usize| {
        bytes[*at..].starts_with(b"PK\x05\x06") && word(&bytes, at + 20) as usize == bytes.len() - at - END
    };
    let last = bytes.len().checked_sub(END).and_then(|last| (0..=last).rev().find(ends));
    let at = last.ok_or("its end is missing, so it was cut or changed")?;
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

/// Takes the values that do not fit into 32 bits from the extra field that has them, in the order of the standard.
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

/// The little-endian number of two bytes at `at`; callers know that they are there.
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from(bytes[at]) | u64::from(bytes[at + 1]) << 8
}

fn double_word(bytes: &[u8], at: usize) -> u64 {
    word(bytes, at) | word(bytes, at + 2) << 16
}

fn quad_word(bytes: &[u8], at: usize) -> u64 {
    double_word(bytes, at) | double_word(bytes, at + 4) << 32
}
