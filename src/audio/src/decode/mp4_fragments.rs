//! Gaps between fragments of MP4 files, where a fragment of the first sound track does not begin at the end of the previous one.

use super::mp4_edits::{boxes, child, first_sound_track, in_frames, ticks_per_second, top_boxes};
use crate::audio::DecodeWarning;

/// Shortest gap between two fragments, in parts of a second.
const PARTS_OF_A_SECOND: u64 = 20;

/// A warning if fragments are missing according to the start times of the others.
pub(super) fn gaps(bytes: &[u8], sample_rate: u32) -> Option<DecodeWarning> {
    let track = first_sound_track(bytes)?;
    let ticks = ticks_per_second(track)?;
    let header = child(track, &[b"tkhd"])?;
    let id = number(header, if header.first()? == &1 { 20 } else { 12 })?;
    let default_duration = default_duration(bytes, id).unwrap_or(0);
    let (mut end, mut places, mut missing) = (None, 0, 0u64);
    for (_, fragment) in top_boxes(bytes).filter(|(kind, _)| kind == b"moof") {
        let runs = boxes(fragment).filter(|(kind, _)| kind == b"traf");
        for (_, run) in runs {
            let Some(Run { track, start: Some(start), duration }) = Run::parse(run, default_duration) else { continue };
            if track != id {
                continue;
            }
            let hole = end.map_or(0, |end| start.saturating_sub(end));
            if hole > u64::from(ticks) / PARTS_OF_A_SECOND {
                (places, missing) = (places + 1, missing.saturating_add(hole));
            }
            end = Some(start.saturating_add(duration));
        }
    }
    let frames = in_frames(missing, ticks, sample_rate)?;
    (places > 0).then_some(DecodeWarning::Gaps { places, frames })
}

/// The part of a fragment that belongs to one track.
struct Run {
    track: u32,
    /// The start in ticks, if it is stated.
    start: Option<u64>,
    /// The length, in ticks.
    duration: u64,
}

impl Run {
    fn parse(fragment: &[u8], default_duration: u32) -> Option<Self> {
        let header = child(fragment, &[b"tfhd"])?;
        let flags = number(header, 0)?;
        // An offset, a description and a duration: each is present if its flag is set.
        let at = 8 + if flags & 1 != 0 { 8 } else { 0 } + if flags & 2 != 0 { 4 } else { 0 };
        let default_duration = if flags & 8 != 0 { number(header, at)? } else { default_duration };
        let start = child(fragment, &[b"tfdt"]).and_then(|time| match time.first()? {
            1 => Some(u64::from_be_bytes(*time.get(4..)?.first_chunk()?)),
            _ => number(time, 4).map(u64::from),
        });
        let mut duration = 0u64;
        for (_, table) in boxes(fragment).filter(|(kind, _)| kind == b"trun") {
            let (flags, count) = (number(table, 0)?, number(table, 4)?);
            if flags & 0x100 == 0 {
                duration = duration.saturating_add(u64::from(count) * u64::from(default_duration));
                continue;
            }
            let at = 8 + if flags & 1 != 0 { 4 } else { 0 } + if flags & 4 != 0 { 4 } else { 0 };
            // Duration, size, flags and offset of every sample: each is present if its flag is set.
            let entry = 4 * (flags >> 8 & 0xf).count_ones() as usize;
            let entries = table.get(at..)?.chunks_exact(entry).take(count as usize);
            duration = entries.filter_map(|entry| number(entry, 0)).fold(duration, |sum, own| sum + u64::from(own));
        }
        Some(Self { track: number(header, 4)?, start, duration })
    }
}

/// The duration of a track's samples in fragments that do not state one.
fn default_duration(bytes: &[u8], track: u32) -> Option<u32> {
    let extends = child(bytes, &[b"moov", b"mvex"])?;
    let own = boxes(extends).find(|(kind, content)| kind == b"trex" && number(content, 4) == Some(track))?;
    number(own.1, 12)
}

/// The big-endian number at a place.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
