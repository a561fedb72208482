//! Fragmented MP4 files, as live recordings and streams are stored: each fragment has its own table of samples.

use mp4_atom::{FourCC, Moof, Traf, Trex};

use super::mp4::{Box, TimedSample, boxes, decode};
use super::{MAX_SAMPLES, mp4};
use crate::error::{Fault, within};

/// Flag of a sample at which decoding cannot start.
const IS_NOT_SYNC: u32 = 0x1_0000;

/// Appends the samples of all fragments of a track.
pub(super) fn append(bytes: &[u8], movie: &[u8], track: u32, samples: &mut Vec<TimedSample>) -> Result<(), Fault> {
    let defaults = defaults(movie, track)?;
    let mut time = samples.last().map_or(0, |last| last.time.saturating_add(i64::from(last.duration)));
    for Box { content, start, .. } in boxes(bytes, 0).filter(|inner| inner.kind == FourCC::new(b"moof")) {
        let fragment: Moof = decode(content)?;
        for part in fragment.traf.iter().filter(|part| part.tfhd.track_id == track) {
            time = append_part(part, start, &defaults, time, bytes.len() as u64, samples)?;
        }
    }
    Ok(())
}

fn defaults(movie: &[u8], track: u32) -> Result<Trex, Fault> {
    let extends = boxes(movie, 0).find(|inner| inner.kind == FourCC::new(b"mvex"));
    let extends = extends.map(|inner| inner.content).unwrap_or_default();
    for inner in boxes(extends, 0).filter(|inner| inner.kind == FourCC::new(b"trex")) {
        let found: Trex = decode(inner.content)?;
        if found.track_id == track {
            return Ok(found);
        }
    }
    Ok(Trex::default())
}

/// Appends the samples of a track's part of a fragment that starts at `moof` in the file; returns the time after it.
fn append_part(
    part: &Traf,
    moof: u64,
    defaults: &Trex,
    time: i64,
    file_bytes: u64,
    samples: &mut Vec<TimedSample>,
) -> Result<i64, Fault> {
    let head = &part.tfhd;
    let base = head.base_data_offset.unwrap_or(moof);
    let mut time = match &part.tfdt {
        Some(start) => i64::try_from(start.base_media_decode_time).unwrap_or(i64::MAX),
        None => time,
    };
    let mut offset = base;
    for run in &part.trun {
        // An inherited run has no bytes of its own that would bound it.
        within("the number of frames", (samples.len() + run.samples.len()) as u64, MAX_SAMPLES.min(file_bytes))?;
        if let Some(from) = run.data_offset {
            offset = base.checked_add_signed(i64::from(from)).ok_or_else(|| mp4::malformed("a fragment's offset"))?;
        }
        for entry in run.samples.iter() {
            let size = entry.size.or(head.default_sample_size).unwrap_or(defaults.default_sample_size);
            let duration = entry.duration.or(head.default_sample_duration).unwrap_or(defaults.default_sample_duration);
            let flags = entry.flags.or(head.default_sample_flags).unwrap_or(defaults.default_sample_flags);
            let shown = time.saturating_add(entry.cts.unwrap_or(0));
            samples.push(TimedSample { offset, size, time: shown, duration, is_key: flags & IS_NOT_SYNC == 0 });
            offset = offset.saturating_add(u64::from(size));
            time = time.saturating_add(i64::from(duration));
        }
    }
    Ok(time)
}
