//! One header block.

use super::fault::TarFault;

/// The bytes of a header block.
pub(super) type Block = [u8; 512];

/// The positions of the fields that are used here.
pub(super) const NAME: std::ops::Range<usize> = 0..100;
pub(super) const MODE: std::ops::Range<usize> = 100..108;
pub(super) const UID: std::ops::Range<usize> = 108..116;
pub(super) const GID: std::ops::Range<usize> = 116..124;
pub(super) const SIZE: std::ops::Range<usize> = 124..136;
pub(super) const MTIME: std::ops::Range<usize> = 136..148;
pub(super) const CHECKSUM: std::ops::Range<usize> = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const MAGIC: std::ops::Range<usize> = 257..265;
const PREFIX: std::ops::Range<usize> = 345..500;

/// The content of a header without extended headers.
#[derive(Debug)]
pub(super) struct Header {
    /// The name with its prefix.
    pub(super) name: Vec<u8>,
    /// The size of the content.
    pub(super) size: u64,
    /// The type flag.
    pub(super) flag: u8,
}

impl Header {
    /// Reads a block.
    pub(super) fn parse(block: &Block) -> Result<Self, TarFault> {
        check(block)?;
        let size = number(&block[SIZE]).ok_or(TarFault::Size)?;
        let mut name = text(&block[NAME]).to_vec();
        // GNU's own format stores other data in place of the POSIX prefix.
        if block[MAGIC].starts_with(b"ustar\0") && block[PREFIX.start] != 0 {
            name = [text(&block[PREFIX]), b"/", &name].concat();
        }
        Ok(Self { name, size, flag: block[TYPE] })
    }
}

/// Compares a block with its checksum; some old writers added signed bytes.
fn check(block: &Block) -> Result<(), TarFault> {
    let stated = number(&block[CHECKSUM]).ok_or(TarFault::NoHeader)?;
    let signed: i64 = masked(block).map(|byte| i64::from(byte as i8)).sum();
    if stated == checksum(block) || i64::try_from(stated) == Ok(signed) { Ok(()) } else { Err(TarFault::Checksum) }
}

/// Returns the sum of a block's bytes, with the checksum's own bytes counted as blanks.
pub(super) fn checksum(block: &Block) -> u64 {
    masked(block).map(u64::from).sum()
}

fn masked(block: &Block) -> impl Iterator<Item = u8> {
    block.iter().enumerate().map(|(at, byte)| if CHECKSUM.contains(&at) { b' ' } else { *byte })
}

/// Returns a field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Parses a number: octal digits, or GNU's base 256 for large ones.
fn number(field: &[u8]) -> Option<u64> {
    match field.first()? {
        0x80 => field[1..].iter().try_fold(0u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte))),
        // Negative, or larger than any real size.
        0x81.. => None,
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = text(field).trim_ascii();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000755\0"), Some(0o755));
        assert_eq!(number(b"   755 \0"), Some(0o755));
        assert_eq!(number(b"00000009\0"), None);
        assert_eq!(number(b"\0\0\0\0"), None);
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Some(2 << 32));
        assert_eq!(number(&[0xff; 12]), None);
        assert_eq!(number(&[[0x80].as_slice(), &[0xff; 11]].concat()), None, "does not fit");
    }
}
