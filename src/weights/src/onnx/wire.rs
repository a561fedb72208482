//! The wire format of protocol buffers: fields of messages.

use crate::Parsed;
use crate::source::Source;

/// The value of a field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wire {
    /// An integer.
    Number(u64),
    /// Four bytes.
    Word([u8; 4]),
    /// Eight bytes.
    LongWord([u8; 8]),
    /// Text, bytes, a message or packed numbers, up to this byte of the file.
    Bytes { end: u64 },
}

/// Calls `visit` with every field of the message that ends at `end`. Bytes of a field that a visit does not read are skipped.
pub(super) fn fields<'a>(
    source: &mut Source<'a>,
    end: u64,
    mut visit: impl FnMut(&mut Source<'a>, u64, Wire) -> Parsed<()>,
) -> Parsed<()> {
    while source.position() < end {
        let tag = varint(source)?;
        let wire = match tag & 7 {
            0 => Wire::Number(varint(source)?),
            1 => Wire::LongWord(source.array()?),
            2 => Wire::Bytes { end: bytes_end(source, end)? },
            5 => Wire::Word(source.array()?),
            other => {
                return Err(format!(
                    "a field of kind {other} at byte {}; the file is truncated or modified",
                    source.position()
                )
                .into());
            }
        };
        visit(source, tag >> 3, wire)?;
        if let Wire::Bytes { end } = wire {
            source.seek(end)?;
        }
    }
    match source.position() == end {
        true => Ok(()),
        false => Err(format!(
            "a field reaches beyond its message, which ends at byte {end}; the file is truncated or modified"
        )
        .into()),
    }
}

fn bytes_end(source: &mut Source<'_>, limit: u64) -> Parsed<u64> {
    let length = varint(source)?;
    let end = source.position().checked_add(length).filter(|end| *end <= limit);
    end.ok_or_else(|| {
        format!(
            "{length} bytes are announced at byte {}, but the end is {limit}; the file is truncated or modified",
            source.position()
        )
        .into()
    })
}

fn varint(source: &mut Source<'_>) -> Parsed<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = source.byte()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(format!("an integer without an end at byte {}", source.position()).into())
}

/// Reads the bytes of a field, accounted for as an item of a list.
pub(super) fn bytes(source: &mut Source<'_>, wire: Wire) -> Parsed<Vec<u8>> {
    match wire {
        Wire::Bytes { end } => {
            let bytes = source.bytes(end - source.position())?;
            hold_item::<Vec<u8>>(source)?;
            source.hold(bytes.len())?;
            Ok(bytes)
        }
        _ => Err(format!("a number where bytes are expected at byte {}", source.position()).into()),
    }
}

/// Accounts for an item of a list, which grows by doubling.
pub(super) fn hold_item<T>(source: &mut Source<'_>) -> Parsed<()> {
    source.hold(2 * size_of::<T>())
}

/// Reads the text of a field.
pub(super) fn text(source: &mut Source<'_>, wire: Wire) -> Parsed<String> {
    let position = source.position();
    String::from_utf8(bytes(source, wire)?).map_err(|_| format!("text that is not UTF-8 at byte {position}").into())
}

/// Returns the end of a field's message; the source is at its beginning.
pub(super) fn message_end(source: &Source<'_>, wire: Wire) -> Parsed<u64> {
    match wire {
        Wire::Bytes { end } => Ok(end),
        _ => Err(format!("a number where a message is expected at byte {}", source.position()).into()),
    }
}

/// Adds the integers of a repeated field, packed or not, to `list`.
pub(super) fn integers(source: &mut Source<'_>, wire: Wire, list: &mut Vec<i64>) -> Parsed<()> {
    let before = list.len();
    match wire {
        Wire::Number(value) => list.push(value as i64),
        Wire::Bytes { end } => {
            while source.position() < end {
                list.push(varint(source)? as i64);
            }
        }
        _ => return Err(format!("bytes where integers are expected at byte {}", source.position()).into()),
    }
    source.hold((list.len() - before) * size_of::<i64>())
}

/// Adds the little-endian bytes of a repeated field of fixed-size numbers, packed or not, to `list`.
pub(super) fn words(source: &mut Source<'_>, wire: Wire, list: &mut Vec<u8>) -> Parsed<()> {
    match wire {
        Wire::Word(word) => list.extend(word),
        Wire::LongWord(word) => list.extend(word),
        Wire::Bytes { .. } => list.extend(bytes(source, wire)?),
        Wire::Number(_) => {
            return Err(format!("an integer where numbers are expected at byte {}", source.position()).into());
        }
    }
    Ok(())
}
