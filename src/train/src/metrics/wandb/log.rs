//! LevelDB's log format, as W&B has it: blocks of 32 KiB, records cut at their ends, each piece with a checksum.
//!
//! A piece is the CRC-32 of its type and data (u32), the length of the data (u16), the type (u8) and the data, little endian.
//! The first block begins with [`HEADER`]; at the end of a block, room for less than a piece's head is zeros.

const BLOCK: u64 = 32_768;
const PIECE_HEAD: u64 = 7;

/// `:W&B`, a magic number, the version.
pub(super) const HEADER: [u8; 7] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// The bytes that `record` takes at the end of a file of `length` bytes.
pub(super) fn framed(length: u64, record: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(record.len() + 16);
    let mut room = BLOCK - length % BLOCK;
    if room < PIECE_HEAD {
        bytes.resize(room as usize, 0);
        room = BLOCK;
    }
    let mut rest = record;
    let mut first = true;
    loop {
        let (data, after) = rest.split_at(rest.len().min((room - PIECE_HEAD) as usize));
        let kind = match (first, after.is_empty()) {
            (true, true) => FULL,
            (true, false) => FIRST,
            (false, false) => MIDDLE,
            (false, true) => LAST,
        };
        piece(&mut bytes, kind, data);
        (rest, first, room) = (after, false, BLOCK);
        if rest.is_empty() {
            return bytes;
        }
    }
}

fn piece(bytes: &mut Vec<u8>, kind: u8, data: &[u8]) {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&[kind]);
    checksum.update(data);
    bytes.extend_from_slice(&checksum.finalize().to_le_bytes());
    // A piece lies within a block, so its length fits.
    bytes.extend_from_slice(&(data.len() as u16).to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a log back, checking checksums, types and that no piece crosses the end of a block.
    fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut at, mut records, mut open) = (HEADER.len(), Vec::new(), None::<Vec<u8>>);
        while at < bytes.len() {
            let room = BLOCK as usize - at % BLOCK as usize;
            if room < PIECE_HEAD as usize {
                assert!(bytes[at..at + room].iter().all(|byte| *byte == 0));
                at += room;
                continue;
            }
            let length = usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
            let (kind, data) = (bytes[at + 6], &bytes[at + 7..at + 7 + length]);
            assert!(7 + length <= room);
            assert_eq!(crc32fast::hash(&bytes[at + 6..at + 7 + length]).to_le_bytes(), bytes[at..at + 4]);
            at += 7 + length;
            match (kind, open.take()) {
                (FULL, None) => records.push(data.to_vec()),
                (FIRST, None) => open = Some(data.to_vec()),
                (MIDDLE, Some(begun)) => open = Some([&begun[..], data].concat()),
                (LAST, Some(begun)) => records.push([&begun[..], data].concat()),
                (kind, _) => panic!("a piece of type {kind}"),
            }
        }
        assert!(open.is_none());
        records
    }

    #[test]
    fn records_of_every_size_are_read_back_wherever_they_fall() {
        let mut bytes = HEADER.to_vec();
        let sizes = [0, 1, 32_740, 3, 5, 40_000, 100_000, 7, 32_754, 32_761, 32_760, 32_755, 1, 2, 65_522];
        let expected: Vec<Vec<u8>> = sizes.iter().map(|size| (0..*size).map(|i| (i % 251) as u8).collect()).collect();
        for record in &expected {
            bytes.extend(framed(bytes.len() as u64, record));
        }
        assert_eq!(records(&bytes), expected);
    }
}
