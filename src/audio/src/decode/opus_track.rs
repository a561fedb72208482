//! Opus in MP4, Matroska, WebM and CAF: decodes the containers' packets with the decoder of Ogg Opus, and cuts both ends as each
//! container states.

use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::formats::{FormatReader, Track};

use super::gaps::Clock;
use super::readable::Readable;
use super::sniff::Content;
use super::stream::packets;
use super::{Decoded, caf, matroska, mp4_edits, mp4_fragments, opus};
use crate::audio::{Audio, DecodeWarning};
use crate::error::Fault;

const RATE: u32 = 48_000;
/// Number of frames by which sound must be too short to count as truncated: stated lengths may include an encoder's frames at both ends.
const CLEARLY_SHORTER: u64 = 7200;
const SIGNATURE: &[u8] = b"OpusHead";

/// Decodes a track.
pub(super) fn decode(
    file: &Readable<'_>,
    content: Content,
    reader: &mut dyn FormatReader,
    track: &Track,
    parameters: &AudioCodecParameters,
) -> Result<Decoded, Fault> {
    let bytes = &file.bytes;
    let head = head(bytes, content, parameters).ok_or_else(|| Fault::Malformed {
        container: content.title().into(),
        problem: "its Opus header is missing".into(),
    })?;
    let mut stream = opus::Stream::new();
    stream.packet(&head)?;
    stream.packet(b"OpusTags")?;
    let mut clock = Clock::new(track.time_base);
    let broke_off = packets(reader, bytes.len(), |packet| match packet.track_id == track.id {
        true => {
            clock.packet(packet.pts, stream.frames() as u64, RATE);
            stream.packet(&packet.data)
        }
        false => Ok(()),
    })?;
    let broke_off = match content {
        Content::Matroska | Content::Mp4 => file.is_cut,
        _ => broke_off || file.is_cut,
    };
    let mut decoded = stream.into_decoded()?;
    decoded.warnings.extend(clock.warning());
    if content == Content::Mp4 {
        decoded.warnings.extend(mp4_fragments::gaps(bytes, RATE));
    }
    let sound = sound(bytes, content, decoded.pre_skip, decoded.samples[0].len());
    let all = decoded.samples[0].len();
    let start = sound.start.min(all);
    let end = sound.end.clamp(start, all);
    for channel in &mut decoded.samples {
        channel.truncate(end);
        channel.drain(..start);
    }
    let frames = (end - start) as u64;
    let there = (all as u64).saturating_add(clock.missing());
    let claimed = match content {
        Content::Matroska => matroska::claimed_frames(bytes, RATE),
        Content::Mp4 => mp4_edits::media_frames(bytes, RATE),
        _ => None,
    };
    let short = claimed.filter(|claimed| *claimed > there + CLEARLY_SHORTER);
    if broke_off || short.is_some() {
        // Missing frames inside the recording have a warning of their own.
        let claimed_frames = short.map(|claimed| (claimed - there).saturating_add(frames));
        decoded.warnings.push(DecodeWarning::Truncated { claimed_frames, frames });
    }
    decoded.warnings.extend(file.warnings());
    Ok(Decoded {
        audio: Audio { samples: decoded.samples, sample_rate: RATE, warnings: decoded.warnings },
        codec: "opus".into(),
        container: content.name().into(),
    })
}

/// Returns the identification header in the form of Ogg.
fn head(bytes: &[u8], content: Content, parameters: &AudioCodecParameters) -> Option<Vec<u8>> {
    let private = parameters.extra_data.as_deref().unwrap_or_default();
    match content {
        // The same fields, the highest byte first.
        Content::Mp4 => {
            let mut head = private.to_vec();
            if head.len() < 19 || !head.starts_with(SIGNATURE) {
                return None;
            }
            head[8] = 1;
            [10..12, 12..16, 16..18].into_iter().for_each(|field| head[field].reverse());
            Some(head)
        }
        _ if private.starts_with(SIGNATURE) => Some(private.to_vec()),
        // Apple's CAF files have another kind of header; the needed values are in the description and the packet table.
        Content::Caf => {
            let channels = *caf::chunk(bytes, b"desc")?.get(27)?;
            let simple = matches!(channels, 1 | 2);
            let [high, low] = (caf_frames(bytes)?.0.min(u64::from(u16::MAX)) as u16).to_be_bytes();
            simple.then(|| [SIGNATURE, &[1, channels, low, high, 0x80, 0xbb, 0, 0, 0, 0, 0]].concat())
        }
        _ => None,
    }
}

/// Returns the range of the decoded frames that are sound.
fn sound(bytes: &[u8], content: Content, pre_skip: usize, decoded: usize) -> std::ops::Range<usize> {
    let frames = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    match content {
        Content::Mp4 => {
            let start = match mp4_edits::leading_frames(bytes, RATE) {
                0 => pre_skip,
                edited => frames(edited),
            };
            // The sum of the durations of all packets; the last duration is shorter than its decoded packet.
            let end = mp4_edits::media_frames(bytes, RATE).map_or(decoded, frames);
            start..end
        }
        Content::Matroska => pre_skip..decoded.saturating_sub(matroska::padding_in_frames(bytes, RATE)),
        Content::Caf => match caf_frames(bytes) {
            Some((priming, valid)) if valid > 0 => frames(priming)..frames(priming.saturating_add(valid)),
            _ => pre_skip..decoded,
        },
        _ => pre_skip..decoded,
    }
}

/// Priming and valid frames of a CAF file's packet table.
fn caf_frames(bytes: &[u8]) -> Option<(u64, u64)> {
    let table = caf::chunk(bytes, b"pakt")?;
    let valid = i64::from_be_bytes(*table.get(8..)?.first_chunk()?);
    let priming = i32::from_be_bytes(*table.get(16..)?.first_chunk()?);
    Some((u64::try_from(priming).ok()?, u64::try_from(valid).ok()?))
}
