//! MP4 and QuickTime files: the tables of samples, edit lists, and files in fragments.

use std::borrow::Cow;

use mp4_atom::{Atom, Co64, Ctts, DecodeMaybe, Elst, FourCC, Hdlr, Header, Mdhd, Mvhd, Stco, Stsc, Stss, Stsz};
use mp4_atom::{StszSamples, Stts, Tkhd};

use super::{Codec, MAX_SAMPLES, Movie, Sample, fragments};
use crate::error::{Fault, within};

pub(super) const CONTAINER: &str = "MP4";
/// Largest number of boxes examined per level; fragmented files have two per fragment.
const MAX_BOXES: usize = 1 << 20;

/// A box: its type, its content, and the position of its first byte in the file.
#[derive(Clone, Copy)]
pub(super) struct Box<'a> {
    pub(super) kind: FourCC,
    pub(super) content: &'a [u8],
    pub(super) start: u64,
}

/// The boxes of a box's content that starts at `at` in the file; a box that exceeds its parent ends the list.
pub(super) fn boxes(bytes: &[u8], at: u64) -> impl Iterator<Item = Box<'_>> {
    let mut rest = bytes;
    let next = move || {
        let before = rest.len();
        let start = at + (bytes.len() - before) as u64;
        let mut cursor = rest;
        let header = Header::decode_maybe(&mut cursor).ok()??;
        let content = cursor.get(..header.size.unwrap_or(cursor.len()))?;
        rest = cursor.get(content.len()..)?;
        Some(Box { kind: header.kind, content, start })
    };
    std::iter::from_fn(next).take(MAX_BOXES)
}

/// The first box of a type below a box's content.
fn child<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |content, kind| {
        boxes(content, 0).find(|inner| inner.kind == FourCC::new(kind)).map(|inner| inner.content)
    })
}

pub(super) fn malformed(problem: impl Into<String>) -> Fault {
    Fault::Malformed { container: CONTAINER, problem: problem.into() }
}

/// Decodes a box's content.
pub(super) fn decode<T: Atom>(content: &[u8]) -> Result<T, Fault> {
    T::decode_body(&mut &*content).map_err(|error| malformed(format!("its {} box: {error}", T::KIND)))
}

/// Decodes a box below a box's content, if it exists.
fn optional<T: Atom>(content: &[u8]) -> Result<Option<T>, Fault> {
    boxes(content, 0).find(|inner| inner.kind == T::KIND).map(|inner| decode(inner.content)).transpose()
}

fn required<T: Atom>(content: &[u8]) -> Result<T, Fault> {
    optional(content)?.ok_or_else(|| malformed(format!("its {} box is missing", T::KIND)))
}

/// A track's place on the movie's clock, by its edit list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edit {
    /// Seconds before the first part of the media.
    delay: f64,
    /// Media time in ticks that is shown first.
    from: i64,
    /// Length in seconds that is shown; `None` if it is all.
    seconds: Option<f64>,
}

impl Edit {
    /// Reads the first part that an edit list shows. Later parts are ignored, as in most players.
    fn of(track: &[u8], movie_ticks: f64) -> Result<Self, Fault> {
        let list = child(track, &[b"edts", b"elst"]).map(decode::<Elst>).transpose()?;
        let mut edit = Self { delay: 0.0, from: 0, seconds: None };
        for entry in list.map(|list| list.entries).unwrap_or_default() {
            let seconds = entry.segment_duration as f64 / movie_ticks;
            match entry.media_time {
                None => edit.delay += seconds,
                Some(from) => {
                    edit.from = i64::try_from(from).unwrap_or(i64::MAX);
                    edit.seconds = (entry.segment_duration > 0).then_some(seconds);
                    break;
                }
            }
        }
        Ok(edit)
    }
}

pub(super) fn open(bytes: &[u8]) -> Result<Movie<'_>, Fault> {
    let movie = child(bytes, &[b"moov"]).ok_or_else(|| {
        malformed(
            "its index (the moov box) is missing: the file is cut off or was never finished; fetch or record it again",
        )
    })?;
    let header: Mvhd = required(movie)?;
    let movie_ticks = f64::from(header.timescale.max(1));
    let tracks = || boxes(movie, 0).filter(|inner| inner.kind == FourCC::new(b"trak")).map(|inner| inner.content);
    let is = |track: &[u8], handler: &[u8; 4]| {
        child(track, &[b"mdia"])
            .and_then(|media| optional::<Hdlr>(media).ok().flatten())
            .is_some_and(|found| found.handler == FourCC::new(handler))
    };
    let sound = tracks().find(|track| is(track, b"soun")).map(|track| Edit::of(track, movie_ticks)).transpose()?;
    let track = tracks().find(|track| is(track, b"vide")).ok_or(Fault::NoVideo { container: CONTAINER })?;

    let media = child(track, &[b"mdia"]).unwrap_or_default();
    let media_header: Mdhd = required(media)?;
    let ticks = f64::from(media_header.timescale.max(1));
    let table = child(media, &[b"minf", b"stbl"]).ok_or_else(|| malformed("its table of samples is missing"))?;
    let (codec, size) = codec(child(table, &[b"stsd"]).unwrap_or_default())?;
    let mut timed = table_samples(table, bytes.len() as u64)?;
    if child(movie, &[b"mvex"]).is_some() {
        let id = required::<Tkhd>(track)?.track_id;
        fragments::append(bytes, movie, id, &mut timed)?;
    }
    let edit = Edit::of(track, movie_ticks)?;
    let on_clock = |time: i64| edit.delay + (time.saturating_sub(edit.from)) as f64 / ticks;
    let media_end = timed.iter().map(|sample| sample.time.saturating_add(i64::from(sample.duration))).max();
    let end = media_end.map_or(0.0, on_clock);
    let end = edit.seconds.map_or(end, |seconds| end.min(edit.delay + seconds));
    let samples = timed.iter().map(|sample| Sample {
        offset: sample.offset,
        size: sample.size,
        time: on_clock(sample.time),
        is_key: sample.is_key,
    });
    Ok(Movie {
        container: CONTAINER,
        data: Cow::Borrowed(bytes),
        codec,
        size,
        rotation: rotation(&required::<Tkhd>(track)?),
        samples: samples.collect(),
        end,
        tolerance: (0.5 / ticks).min(0.0005),
        // The decoder of sound leaves out what the edit list skips, and knows no delay.
        sound_start: sound.map(|edit| edit.delay),
    })
}

/// A sample with its times in ticks of the media.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimedSample {
    pub(super) offset: u64,
    pub(super) size: u32,
    pub(super) time: i64,
    pub(super) duration: u32,
    pub(super) is_key: bool,
}

/// Returns the clockwise angle by which players turn the picture.
fn rotation(header: &Tkhd) -> u32 {
    let matrix = &header.matrix;
    match (matrix.a.signum(), matrix.b.signum(), matrix.c.signum(), matrix.d.signum()) {
        (0, 1, -1, 0) => 90,
        (-1, 0, 0, -1) => 180,
        (0, -1, 1, 0) => 270,
        _ => 0,
    }
}

/// Returns the codec and the size in pixels from a sample description.
fn codec(description: &[u8]) -> Result<(Codec, (u32, u32)), Fault> {
    // Version, flags and the number of entries come before the entries.
    let entry = boxes(description.get(8..).unwrap_or_default(), 0).next();
    let entry = entry.ok_or_else(|| malformed("its sample description is missing"))?;
    let number = |at: usize| entry.content.get(at..at + 2).map_or(0, |b| u32::from(b[0]) << 8 | u32::from(b[1]));
    let size = (number(24), number(26));
    let tag = <[u8; 4]>::from(entry.kind);
    let named = |name: &str| Ok((Codec::Other(name.to_owned()), size));
    match &tag {
        b"avc1" | b"avc3" => {
            let config = child(entry.content.get(78..).unwrap_or_default(), &[b"avcC"]);
            let config = config.ok_or_else(|| malformed("the configuration of its H.264 decoder is missing"))?;
            Ok((Codec::H264(config.to_vec()), size))
        }
        b"encv" => named("encrypted"),
        b"hvc1" | b"hev1" | b"dvh1" | b"dvhe" => named("H.265"),
        b"av01" => named("AV1"),
        b"vp08" => named("VP8"),
        b"vp09" => named("VP9"),
        b"mp4v" => named("MPEG-4 part 2"),
        b"jpeg" | b"mjpa" | b"mjpb" => named("Motion JPEG"),
        b"apcn" | b"apch" | b"apcs" | b"apco" | b"ap4h" | b"ap4x" => named("ProRes"),
        _ => named(&entry.kind.to_string()),
    }
}

/// Reads the samples of a track's tables.
fn table_samples(table: &[u8], file_bytes: u64) -> Result<Vec<TimedSample>, Fault> {
    let Some(sizes) = optional::<Stsz>(table)? else { return Ok(Vec::new()) };
    let count = match &sizes.samples {
        StszSamples::Identical { count, .. } => u64::from(*count),
        StszSamples::Different { sizes } => sizes.len() as u64,
    };
    // Each coded frame takes at least one byte; a damaged table may list billions.
    within("the number of frames", count, MAX_SAMPLES.min(file_bytes))?;
    let size = |at: usize| match &sizes.samples {
        StszSamples::Identical { size, .. } => *size,
        StszSamples::Different { sizes } => sizes.get(at).copied().unwrap_or(0),
    };
    let mut samples: Vec<TimedSample> = Vec::new();
    for (at, offset) in offsets(table, count as usize, size)?.into_iter().enumerate() {
        samples.push(TimedSample { offset, size: size(at), time: 0, duration: 0, is_key: true });
    }
    let mut time = 0i64;
    let mut next = samples.iter_mut();
    for run in optional::<Stts>(table)?.map(|stts| stts.entries).unwrap_or_default() {
        for sample in next.by_ref().take(run.sample_count as usize) {
            (sample.time, sample.duration) = (time, run.sample_delta);
            time = time.saturating_add(i64::from(run.sample_delta));
        }
    }
    if next.next().is_some() {
        return Err(malformed("its table of times is shorter than that of samples"));
    }
    let mut next = samples.iter_mut();
    for run in optional::<Ctts>(table)?.map(|ctts| ctts.entries).unwrap_or_default() {
        for sample in next.by_ref().take(run.sample_count as usize) {
            sample.time = sample.time.saturating_add(run.sample_offset);
        }
    }
    if let Some(keys) = optional::<Stss>(table)? {
        samples.iter_mut().for_each(|sample| sample.is_key = false);
        for number in keys.entries {
            if let Some(sample) = (number as usize).checked_sub(1).and_then(|at| samples.get_mut(at)) {
                sample.is_key = true;
            }
        }
    }
    Ok(samples)
}

/// The position of each sample in the file, from the tables of chunks.
fn offsets(table: &[u8], count: usize, size: impl Fn(usize) -> u32) -> Result<Vec<u64>, Fault> {
    let chunks: Vec<u64> = match (optional::<Co64>(table)?, optional::<Stco>(table)?) {
        (Some(long), _) => long.entries,
        (None, Some(short)) => short.entries.into_iter().map(u64::from).collect(),
        (None, None) => Vec::new(),
    };
    let runs = optional::<Stsc>(table)?.map(|runs| runs.entries).unwrap_or_default();
    let mut offsets = Vec::with_capacity(count);
    let mut run = 0;
    for (at, chunk) in chunks.iter().enumerate() {
        let number = at as u64 + 1;
        while runs.get(run + 1).is_some_and(|next| u64::from(next.first_chunk) <= number) {
            run += 1;
        }
        let samples = runs.get(run).map_or(0, |run| run.samples_per_chunk);
        let mut offset = *chunk;
        for _ in 0..samples {
            if offsets.len() == count {
                return Ok(offsets);
            }
            let bytes = size(offsets.len());
            offsets.push(offset);
            offset = offset.saturating_add(u64::from(bytes));
        }
    }
    if offsets.len() < count {
        return Err(malformed("its table of chunks is shorter than that of samples"));
    }
    Ok(offsets)
}
