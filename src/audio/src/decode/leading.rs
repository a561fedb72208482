//! Bytes before a recording: tags, zeros, and the rest of a frame if a stream was cut.

use std::io::{Read, Seek, SeekFrom};

use super::sniff::{self, SIGNATURE_BYTES};
use super::{foreign, mpeg_frames, tags};
use crate::audio::DecodeWarning;
use crate::error::Fault;

/// The start of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Start {
    /// Bytes before it.
    pub(super) at: u64,
    /// Number of them that are neither a tag nor zero.
    pub(super) junk: u64,
}

impl Start {
    /// A warning if bytes of no known kind were skipped.
    pub(super) fn warning(&self) -> Option<DecodeWarning> {
        (self.junk > 0).then_some(DecodeWarning::LostSync { bytes: self.junk })
    }
}

/// Largest number of tags and runs of zeros that are skipped; real files have one or two.
const MOST_SKIPS: usize = 64;
/// Number of bytes after the tags that are searched for MPEG audio frames.
const SEARCHED_BYTES: u64 = 1 << 17;
const BLOCK_BYTES: usize = 1 << 16;

/// Finds the start of the recording in a source of `length` bytes; 0 if nothing is recognized anywhere.
pub(super) fn start(source: &mut (impl Read + Seek), length: u64) -> Result<Start, Fault> {
    let mut at = 0;
    for _ in 0..MOST_SKIPS {
        let head = read_at(source, at, SIGNATURE_BYTES)?;
        if sniff::signature(&head).is_some() || foreign::recognized(&head).is_some() {
            return Ok(Start { at, junk: 0 });
        }
        let next = match (tags::length(&head), head.first()) {
            (Some(tag), _) => at.saturating_add(tag),
            (None, Some(0)) => behind_zeros(source, at)?,
            _ => break,
        };
        if next >= length {
            return Ok(Start::default());
        }
        at = next;
    }
    let searched = read_at(source, at, SEARCHED_BYTES as usize)?;
    let whole = at + searched.len() as u64 >= length;
    let found = mpeg_frames::first_of_many(&searched, whole);
    Ok(found.map_or_else(Start::default, |junk| Start { at: at + junk as u64, junk: junk as u64 }))
}

/// Reads up to `count` bytes starting at `at`.
fn read_at(source: &mut (impl Read + Seek), at: u64, count: usize) -> Result<Vec<u8>, Fault> {
    source.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    source.by_ref().take(count as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the position of the first nonzero byte at or after `at`, or the end of the source.
fn behind_zeros(source: &mut (impl Read + Seek), mut at: u64) -> Result<u64, Fault> {
    loop {
        let block = read_at(source, at, BLOCK_BYTES)?;
        match block.iter().position(|byte| *byte != 0) {
            Some(zeros) => return Ok(at + zeros as u64),
            None if block.is_empty() => return Ok(at),
            None => at += block.len() as u64,
        }
    }
}
