//! LZF, the fast compression that h5py offers: literals and copies of earlier bytes (M. Lehmann's LibLZF).

/// Decompresses a block of at most `limit` bytes.
///
/// # Errors
/// The fault of a damaged block.
pub fn decompress(block: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let damaged = || "a damaged LZF block".to_owned();
    let mut out = Vec::with_capacity(limit.min(block.len().saturating_mul(4)));
    let mut bytes = block.iter();
    while let Some(control) = bytes.next() {
        let control = usize::from(*control);
        if control < 32 {
            // One literal more than the number says.
            let literals = bytes.as_slice().get(..=control).ok_or_else(damaged)?;
            out.extend_from_slice(literals);
            bytes = bytes.as_slice()[control + 1..].iter();
        } else {
            let mut length = control >> 5;
            if length == 7 {
                length += usize::from(*bytes.next().ok_or_else(damaged)?);
            }
            let distance = ((control & 31) << 8) + usize::from(*bytes.next().ok_or_else(damaged)?) + 1;
            let start = out.len().checked_sub(distance).ok_or_else(damaged)?;
            // Two bytes more than the number says; a copy may overlap what it writes.
            for at in start..start + length + 2 {
                let byte = out[at];
                out.push(byte);
            }
        }
        if out.len() > limit {
            return Err(format!("an LZF block of more than {limit} bytes"));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_copies_are_read() {
        // "abc", then 9 bytes from 3 back.
        let block = [2, b'a', b'b', b'c', 7 << 5, 0, 2];
        assert_eq!(decompress(&block, 100).unwrap(), b"abcabcabcabc");
        assert_eq!(decompress(&[], 0).unwrap(), b"");
        for bad in [&[2, b'a'][..], &[1 << 5, 0], &[7 << 5], &[0, b'a', 1 << 5, 1]] {
            assert!(decompress(bad, 100).is_err(), "{bad:?}");
        }
        assert!(decompress(&block, 5).is_err());
    }
}
