//! Tags around and between recordings: ID3, APE and Lyrics3, which players skip.

/// Length of the ID3v1 tag at the end of a file.
const ID3V1_BYTES: usize = 128;
/// Length of the header and of the footer of an APE tag.
const APE_BLOCK_BYTES: usize = 32;
/// The flag that marks an APE block as a header; a footer lacks it.
const APE_IS_HEADER: u32 = 1 << 29;
/// The flag in an APE footer for a tag that has a header too.
const APE_HAS_HEADER: u32 = 1 << 31;

/// Returns the length of the tag at the beginning of `bytes`; `None` if there is none. The tag may be longer than `bytes`.
pub(super) fn length(bytes: &[u8]) -> Option<u64> {
    match bytes {
        [b'I', b'D', b'3', major, minor, flags, size @ ..] if *major < 0xff && *minor < 0xff => {
            let size: &[u8; 4] = size.first_chunk().filter(|size| size.iter().all(|byte| *byte < 0x80))?;
            let content = size.iter().fold(0u64, |sum, byte| sum << 7 | u64::from(*byte));
            let footer = if flags & 0x10 != 0 { 10 } else { 0 };
            Some(10 + content + footer)
        }
        [b'A', b'P', b'E', b'T', b'A', b'G', b'E', b'X', ..] => {
            let (size, flags) = ape_size_and_flags(bytes.first_chunk()?);
            Some(APE_BLOCK_BYTES as u64 + if flags & APE_IS_HEADER != 0 { u64::from(size) } else { 0 })
        }
        [b'T', b'A', b'G', b'+', ..] => Some(227),
        [b'T', b'A', b'G', ..] => Some(ID3V1_BYTES as u64),
        _ => None,
    }
}

/// Returns the size of an APE tag without its header, and its flags.
fn ape_size_and_flags(block: &[u8; APE_BLOCK_BYTES]) -> (u32, u32) {
    let [_, _, _, _, _, _, _, _, _, _, _, _, s0, s1, s2, s3, _, _, _, _, f0, f1, f2, f3, ..] = *block;
    (u32::from_le_bytes([s0, s1, s2, s3]), u32::from_le_bytes([f0, f1, f2, f3]))
}

/// Removes the tags at the end of a file: ID3v1, Lyrics3 version 2 and APE, in any order.
pub(super) fn without_trailing(mut bytes: &[u8]) -> &[u8] {
    while let Some(length) = trailing_length(bytes) {
        bytes = &bytes[..bytes.len().saturating_sub(length)];
    }
    bytes
}

/// Returns the length of the tag at the end of `bytes`.
fn trailing_length(bytes: &[u8]) -> Option<usize> {
    if bytes.last_chunk::<ID3V1_BYTES>().is_some_and(|tag| tag.starts_with(b"TAG")) {
        return Some(ID3V1_BYTES);
    }
    if let Some(footer) = bytes.last_chunk::<APE_BLOCK_BYTES>().filter(|footer| footer.starts_with(b"APETAGEX")) {
        let (size, flags) = ape_size_and_flags(footer);
        let header = if flags & APE_HAS_HEADER != 0 { APE_BLOCK_BYTES } else { 0 };
        return Some((size as usize).max(APE_BLOCK_BYTES) + header);
    }
    // Six digits of length, then the marker.
    let [digits @ .., b'L', b'Y', b'R', b'I', b'C', b'S', b'2', b'0', b'0'] = bytes.last_chunk::<15>()? else {
        return None;
    };
    let size: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(size + 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_leading_tags() {
        assert_eq!(length(b"ID3\x04\0\0\0\0\x02\x01rest"), Some(10 + 257));
        assert_eq!(length(b"ID3\x04\0\x10\0\0\0\x05rest"), Some(25), "with a footer");
        assert_eq!(length(b"ID3\x04\0\0\0\0\xff\x01"), None, "sizes have seven bits a byte");
        assert_eq!(length(b"RIFF"), None);
        let mut ape = *b"APETAGEX\xd0\x07\0\0\x40\0\0\0\x01\0\0\0\0\0\0\xa0........";
        assert_eq!(length(&ape), Some(32 + 64));
        ape[23] = 0x80;
        assert_eq!(length(&ape), Some(32), "a footer ends its tag");
    }

    #[test]
    fn trailing_tags_are_cut_off_in_any_order() {
        let ape_footer = b"APETAGEX\xd0\x07\0\0\x28\0\0\0\x01\0\0\0\0\0\0\x80........";
        let ape = [b"APETAGEX........................", b"12345678".as_slice(), ape_footer].concat();
        let id3v1 = [b"TAG".as_slice(), &[0; 125]].concat();
        let lyrics = b"LYRICSBEGINabcdef000017LYRICS200";
        for file in [[b"sound", &ape[..], &id3v1].concat(), [b"sound", &lyrics[..], &id3v1, &ape].concat()] {
            assert_eq!(without_trailing(&file), b"sound");
        }
        assert_eq!(without_trailing(b"sound"), b"sound");
        assert!(without_trailing(&ape[8..]).len() <= 40, "a size larger than the file ends at its beginning");
    }
}
