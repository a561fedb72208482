//! LevelDB's log format in W&B's variant: blocks of 32 KiB, records split at block ends, each piece with a checksum.
//!
//! A piece is the CRC-32 of its type and data (u32), the length of the data (u16), the type (u8) and the data, little endian.
//! The first block begins with [`HEADER`]; if the rest of a block is too short for a piece's header, it is zeros.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

const BLOCK: u64 = 32_768;
const PIECE_HEAD: u64 = 7;

/// `:W&B`, a magic number, the version.
pub(super) const HEADER: [u8; 7] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Encodes `record` for appending to a file of `length` bytes.
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

/// Returns the end of the last whole record within the first `length` bytes, and the number of records up to there.
pub(super) fn whole_records(file: &mut File, length: u64) -> io::Result<(u64, u64)> {
    file.seek(SeekFrom::Start(0))?;
    let Some(mut records) = Records::new(BufReader::new(file), length)? else { return Ok((0, 0)) };
    while records.next()?.is_some() {}
    Ok((records.end, records.count))
}

/// The records of a log, one after the other. Every checksum is verified.
pub(super) struct Records<R> {
    reader: R,
    /// Length of the log.
    length: u64,
    /// Position in the log.
    at: u64,
    /// The end of the last whole record.
    pub end: u64,
    /// Number of whole records that were read.
    pub count: u64,
}

impl<R: Read> Records<R> {
    /// Reads the records in the first `length` bytes of a log; `None` if it does not begin like one.
    pub fn new(mut reader: R, length: u64) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER.len()];
        if length < HEADER.len() as u64 {
            return Ok(None);
        }
        reader.read_exact(&mut header)?;
        let start = HEADER.len() as u64;
        Ok((header == HEADER).then_some(Self { reader, length, at: start, end: start, count: 0 }))
    }

    /// Returns the next record; `None` at the end, or where no whole and undamaged record follows.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut record = Vec::new();
        let mut is_open = false;
        loop {
            let Some(kind) = self.piece(&mut record)? else { return Ok(None) };
            let begins = kind == FULL || kind == FIRST;
            if begins == is_open {
                return Ok(None);
            }
            is_open = true;
            if kind == FULL || kind == LAST {
                (self.end, self.count) = (self.at, self.count + 1);
                return Ok(Some(record));
            }
        }
    }

    /// Appends the next piece to a record and returns its type; `None` if there is none, or it is damaged.
    fn piece(&mut self, record: &mut Vec<u8>) -> io::Result<Option<u8>> {
        let room = BLOCK - self.at % BLOCK;
        if room < PIECE_HEAD {
            io::copy(&mut self.reader.by_ref().take(room), &mut io::sink())?;
            self.at += room;
            return self.piece(record);
        }
        if self.length.saturating_sub(self.at) < PIECE_HEAD {
            return Ok(None);
        }
        let mut head = [0; PIECE_HEAD as usize];
        self.reader.read_exact(&mut head)?;
        let [a, b, c, d, low, high, kind] = head;
        let size = u16::from_le_bytes([low, high]);
        let next = self.at + PIECE_HEAD + u64::from(size);
        if u64::from(size) > room - PIECE_HEAD || next > self.length || !(FULL..=LAST).contains(&kind) {
            return Ok(None);
        }
        let begun = record.len();
        record.resize(begun + usize::from(size), 0);
        self.reader.read_exact(&mut record[begun..])?;
        if checksum(kind, &record[begun..]) != u32::from_le_bytes([a, b, c, d]) {
            return Ok(None);
        }
        self.at = next;
        Ok(Some(kind))
    }
}

fn checksum(kind: u8, data: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&[kind]);
    checksum.update(data);
    checksum.finalize()
}

fn piece(bytes: &mut Vec<u8>, kind: u8, data: &[u8]) {
    bytes.extend_from_slice(&checksum(kind, data).to_le_bytes());
    // A piece is within a block, so its length fits.
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
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.wandb");
        std::fs::write(&path, &bytes).unwrap();
        let whole = |length: usize| whole_records(&mut File::open(&path).unwrap(), length as u64).unwrap();
        assert_eq!(whole(bytes.len()), (bytes.len() as u64, sizes.len() as u64));
        let last = PIECE_HEAD as usize + sizes[sizes.len() - 1];
        let (end, count) = whole(bytes.len() - 1);
        assert!(end <= (bytes.len() - last) as u64 && count == sizes.len() as u64 - 1, "{end} {count}");
        assert_eq!((whole(6), whole(7)), ((0, 0), (7, 0)));
        std::fs::write(&path, vec![1; bytes.len()]).unwrap();
        assert_eq!(whole_records(&mut File::open(&path).unwrap(), bytes.len() as u64).unwrap(), (0, 0));
    }
}
