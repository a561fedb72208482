//! The records of an extended (pax) header: `LENGTH key=value\n`, one after the other.

use super::fault::TarFault;

/// The fields of extended headers for the member that follows.
#[derive(Debug, Default)]
pub(super) struct Extension {
    /// The name.
    pub(super) path: Option<Vec<u8>>,
    /// The size.
    pub(super) size: Option<u64>,
    /// True if it is stored with its holes left out.
    pub(super) sparse: bool,
}

impl Extension {
    /// Reads the records; those that concern neither name nor content are passed over.
    pub(super) fn parse(mut records: &[u8]) -> Result<Self, TarFault> {
        let mut extension = Self::default();
        while !records.is_empty() {
            let (key, value, rest) = record(records).ok_or(TarFault::Record)?;
            match key {
                b"path" => extension.path = Some(value.to_vec()),
                b"size" => extension.size = Some(decimal(value).ok_or(TarFault::ExtendedSize)?),
                key if key.starts_with(b"GNU.sparse.") => extension.sparse = true,
                _ => {}
            }
            records = rest;
        }
        Ok(extension)
    }
}

/// Returns the first record's key and value, and the remaining bytes. Its length determines its end, because values
/// may contain line ends.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&records[..blank])?).ok()?;
    let body = records.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &records[length..]))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Encodes a record, preceded by its length, which includes itself.
pub(super) fn encode(key: &str, value: &str) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    format!("{length} {key}={value}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read() {
        for length in [1, 2, 85, 86, 87, 88, 989, 990, 991, 5000] {
            let value = format!("{}\n=", "x".repeat(length));
            let bytes = [encode("mtime", "1.5"), encode("path", &value), encode("size", "77")].concat();
            let extension = Extension::parse(&bytes).unwrap();
            assert_eq!(extension.path.unwrap(), value.as_bytes());
            assert_eq!(extension.size, Some(77));
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        let bad: [&[u8]; 7] =
            [b"x", b"5 a=b", b"99 path=x\n", b"0 a=b\n", b"6 path\n", b"12 size=-12\n", b"18446744073709551616 a=b\n"];
        for bytes in bad {
            assert!(Extension::parse(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
