//! Boxes of MP4 files: the encoder's frames at the beginning according to the edit list, and the length of the sound according to the
//! tables.

/// Largest number of boxes examined per level; real files have a dozen.
const MAX_BOXES: usize = 1000;
/// Largest number of boxes examined at the top level; fragmented files have two per fragment.
const MAX_TOP_BOXES: usize = 1 << 20;

/// The children of a box's content, as type and content.
pub(super) fn boxes(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    chain(bytes).take(MAX_BOXES)
}

/// The boxes of a file, as type and content.
pub(super) fn top_boxes(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    chain(bytes).take(MAX_TOP_BOXES)
}

fn chain(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let next = move || {
        let [s0, s1, s2, s3, t0, t1, t2, t3, rest @ ..] = bytes else { return None };
        let (header, size) = match (u32::from_be_bytes([*s0, *s1, *s2, *s3]), rest) {
            (0, _) => (8, bytes.len()),
            (1, [l0, l1, l2, l3, l4, l5, l6, l7, ..]) => {
                let long = u64::from_be_bytes([*l0, *l1, *l2, *l3, *l4, *l5, *l6, *l7]);
                (16, usize::try_from(long).ok()?)
            }
            (size, _) => (8, size as usize),
        };
        let content = bytes.get(header..size)?;
        bytes = &bytes[size..];
        Some(([*t0, *t1, *t2, *t3], content))
    };
    std::iter::from_fn(next)
}

/// Returns whether a file is cut: its last box exceeds its end.
pub(super) fn is_cut(bytes: &[u8]) -> bool {
    let mut at = 0usize;
    for _ in 0..MAX_TOP_BOXES {
        let rest = bytes.get(at..).unwrap_or_default();
        match (rest.first_chunk::<4>(), rest.get(8..16).and_then(|size| size.first_chunk::<8>())) {
            (None, _) => return !rest.is_empty(),
            // The box reaches to the end of the file, or zeros replace boxes.
            (Some([0, 0, 0, 0]), _) if rest.get(4..8) == Some(&[0; 4]) => return rest.iter().any(|byte| *byte != 0),
            (Some([0, 0, 0, 0]), _) => return false,
            (Some([0, 0, 0, 1]), None) => return true,
            (Some([0, 0, 0, 1]), Some(long)) => {
                let size = usize::try_from(u64::from_be_bytes(*long)).unwrap_or(usize::MAX);
                at = at.saturating_add(size.max(16));
            }
            (Some(size), _) => at = at.saturating_add((u32::from_be_bytes(*size) as usize).max(8)),
        }
        if at >= bytes.len() {
            return at > bytes.len();
        }
    }
    false
}

pub(super) fn child<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter()
        .try_fold(bytes, |content, name| boxes(content).find(|(kind, _)| kind == *name).map(|(_, inside)| inside))
}

/// True for a file with a complete index of its tracks (`moov`).
pub(super) fn has_index(bytes: &[u8]) -> bool {
    child(bytes, &[b"moov"]).is_some()
}

/// Frames at `sample_rate` that the first sound track's edit list skips; 0 if there is no such list.
pub(super) fn leading_frames(bytes: &[u8], sample_rate: u32) -> u64 {
    skipped(bytes, sample_rate).unwrap_or(0)
}

fn skipped(bytes: &[u8], sample_rate: u32) -> Option<u64> {
    let track = first_sound_track(bytes)?;
    let start = first_media_time(child(track, &[b"edts", b"elst"])?)?;
    in_frames(start, ticks_per_second(track)?, sample_rate)
}

/// The first sound track's content.
pub(super) fn first_sound_track(bytes: &[u8]) -> Option<&[u8]> {
    let movie = child(bytes, &[b"moov"])?;
    let is_sound =
        |track: &[u8]| child(track, &[b"mdia", b"hdlr"]).is_some_and(|handler| handler.get(8..12) == Some(b"soun"));
    boxes(movie).filter(|(kind, _)| kind == b"trak").map(|(_, track)| track).find(|track| is_sound(track))
}

/// Ticks per second of a track's times.
pub(super) fn ticks_per_second(track: &[u8]) -> Option<u32> {
    let media_header = child(track, &[b"mdia", b"mdhd"])?;
    let at = if media_header.first()? == &1 { 20 } else { 12 };
    Some(u32::from_be_bytes(*media_header.get(at..)?.first_chunk()?))
}

/// Converts ticks to frames.
pub(super) fn in_frames(ticks: u64, ticks_per_second: u32, sample_rate: u32) -> Option<u64> {
    let frames = u128::from(ticks) * u128::from(sample_rate) / u128::from(ticks_per_second.max(1));
    u64::try_from(frames).ok()
}

/// Returns the frames at `sample_rate` of all packets of the first sound track, by its table of durations; `None` if that is empty,
/// as in fragmented files.
pub(super) fn media_frames(bytes: &[u8], sample_rate: u32) -> Option<u64> {
    let track = first_sound_track(bytes)?;
    let table = child(track, &[b"mdia", b"minf", b"stbl", b"stts"])?;
    let (runs, _) = table.get(8..)?.as_chunks::<8>();
    let ticks = runs.iter().map(|[a, b, c, d, e, f, g, h]| {
        u64::from(u32::from_be_bytes([*a, *b, *c, *d])) * u64::from(u32::from_be_bytes([*e, *f, *g, *h]))
    });
    let total = ticks.fold(0u64, u64::saturating_add);
    in_frames(total, ticks_per_second(track)?, sample_rate).filter(|frames| *frames > 0)
}

/// Start in the media of the first edit that is not a pause.
fn first_media_time(list: &[u8]) -> Option<u64> {
    let long = list.first()? == &1;
    let entries = list.get(8..)?;
    let times = entries.chunks_exact(if long { 20 } else { 12 }).map(|entry| match (long, entry) {
        (true, [_, _, _, _, _, _, _, _, time @ ..]) => time.first_chunk().map_or(-1, |time| i64::from_be_bytes(*time)),
        (false, [_, _, _, _, time @ ..]) => time.first_chunk().map_or(-1, |time| i64::from(i32::from_be_bytes(*time))),
        _ => -1,
    });
    times.filter_map(|time| u64::try_from(time).ok()).next()
}
