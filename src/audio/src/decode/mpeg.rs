//! MPEG audio (MP1, MP2, MP3): frames are counted and cut here, and decoded by Symphonia.
//!
//! Lengths are computed from the existing frames. Bit rates and the tag of the first frame are only claims: the tag states how
//! much the encoder added at both ends, and whether frames are missing.

use symphonia::core::codecs::audio::well_known::{CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};
use symphonia::default::codecs::MpaDecoder;

use super::mpeg_frames::{self, FORBIDDEN_BIT_RATE, Frames, Header, InfoTag, info_tag};
use super::sniff::Content;
use super::{Decoded, MAX_SAMPLES, channels, check_format, within};
use crate::audio::{Audio, AudioInfo, DecodeWarning};
use crate::error::{FREE_FORMAT, Fault};

/// Decodes a stream that starts with a frame.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Fault> {
    let survey = survey(bytes)?;
    let mut samples = vec![Vec::with_capacity(survey.decoded as usize); survey.channels];
    let mut decoder = FrameDecoder::default();
    for (header, frame) in audio_frames(bytes) {
        channels::append(&mut samples, decoder.decode(&header, frame)?);
    }
    for channel in &mut samples {
        channel.truncate((survey.start + survey.frames) as usize);
        channel.drain(..survey.start as usize);
    }
    let corrupt = decoder.first_error.map(|first| DecodeWarning::CorruptPackets { count: decoder.corrupt, first });
    let warnings = corrupt.into_iter().chain(survey.warnings).collect();
    Ok(Decoded {
        audio: Audio { samples, sample_rate: survey.sample_rate, warnings },
        codec: survey.codec.into(),
        container: Content::Mpeg.name().into(),
    })
}

/// Facts about a stream, by counting its frames. Frames with damaged content count: they are silent.
pub(super) fn count(bytes: &[u8]) -> Result<AudioInfo, Fault> {
    let survey = survey(bytes)?;
    Ok(AudioInfo {
        sample_rate: survey.sample_rate,
        channels: survey.channels as u32,
        frames: survey.frames,
        codec: survey.codec.into(),
        container: Content::Mpeg.name().into(),
        by_fallback: false,
        warnings: survey.warnings,
    })
}

/// Result of a walk over all frames; lengths in frames of audio.
struct Survey {
    codec: &'static str,
    sample_rate: u32,
    channels: usize,
    /// Length of the decoded audio.
    decoded: u64,
    /// Start of the recording in it.
    start: u64,
    /// Length of the recording.
    frames: u64,
    warnings: Vec<DecodeWarning>,
}

/// Iterates over the frames with audio. Only the first frame's tag is left out: in joined files, players treat the tags
/// in the middle as frames of silence.
fn audio_frames(bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    let is_audio =
        |(index, (header, frame)): &(usize, (Header, &[u8]))| *index > 0 || info_tag(header, frame).is_none();
    Frames::new(bytes).enumerate().filter(is_audio).map(|(_, frame)| frame)
}

fn survey(bytes: &[u8]) -> Result<Survey, Fault> {
    let mut frames = Frames::new(bytes);
    let unsupported =
        |codec: &str| Fault::UnsupportedCodec { container: Content::Mpeg.title().into(), codec: codec.into() };
    let (first, frame) = frames.next().ok_or_else(|| match mpeg_frames::is_free_format(bytes) {
        true => unsupported(FREE_FORMAT),
        false => Fault::NoSamples,
    })?;
    if first.forbidden_bit_rate() {
        return Err(unsupported(FORBIDDEN_BIT_RATE));
    }
    check_format(u64::from(first.sample_rate), first.channels as u64)?;
    let tag = info_tag(&first, frame);
    let (mut count, mut decoded) = if tag.is_some() { (0, 0) } else { (1, first.samples() as u64) };
    for (header, _) in frames.by_ref() {
        if header.sample_rate != first.sample_rate {
            return Err(rate_change(&first, &header, decoded));
        }
        count += 1;
        decoded += header.samples() as u64;
        within("the number of samples", decoded * first.channels as u64, MAX_SAMPLES)?;
    }
    let tag = tag.unwrap_or_default();
    let whole = tag.frames == Some(count) && frames.cut == 0;
    let end = if whole { decoded.saturating_sub(tag.padding as u64) } else { decoded };
    let start = (tag.delay as u64).min(end);
    if start == end {
        return Err(Fault::NoSamples);
    }
    let codec = match first.layer {
        1 => "mp1",
        2 => "mp2",
        _ => "mp3",
    };
    Ok(Survey {
        codec,
        sample_rate: first.sample_rate,
        channels: first.channels,
        decoded,
        start,
        frames: end - start,
        warnings: warnings(&frames, &first, &tag, count, end - start),
    })
}

fn rate_change(first: &Header, next: &Header, decoded: u64) -> Fault {
    let problem = format!(
        "its sampling rate changes from {} to {} Hz after {:.2} s (files of different rates joined); convert the parts \
         to one rate before joining them",
        first.sample_rate,
        next.sample_rate,
        decoded as f64 / f64::from(first.sample_rate)
    );
    Fault::Malformed { container: Content::Mpeg.name().into(), problem }
}

/// Warnings about a stream with `count` frames after the tag, of which `kept` frames of audio are kept.
fn warnings(frames: &Frames<'_>, first: &Header, tag: &InfoTag, count: u32, kept: u64) -> Vec<DecodeWarning> {
    let mut warnings = Vec::new();
    // Some encoders count the tag's own frame.
    let missing = tag.frames.is_some_and(|claimed| claimed > count + u32::from(frames.cut == 0));
    if missing || frames.cut > 0 {
        let claimed = tag.frames.filter(|_| missing).map(|claimed| u64::from(claimed) * first.samples() as u64);
        let claimed = claimed.map(|claimed| claimed.saturating_sub((tag.delay + tag.padding) as u64));
        warnings.push(DecodeWarning::Truncated { claimed_frames: claimed, frames: kept });
    }
    warnings.extend((frames.skipped > 0).then_some(DecodeWarning::LostSync { bytes: frames.skipped }));
    warnings.extend((frames.cut > 0).then_some(DecodeWarning::PartialFrame { bytes: frames.cut }));
    warnings
}

/// A decoder of frames; it is replaced when the kind of frames changes.
#[derive(Default)]
struct FrameDecoder {
    /// The decoder, with its layer and number of channels.
    current: Option<((u8, usize), MpaDecoder)>,
    /// The last frame as `[channel][frame]`.
    block: Vec<Vec<f32>>,
    corrupt: u64,
    first_error: Option<String>,
}

impl FrameDecoder {
    /// Returns the frame's audio; silence if it is damaged.
    fn decode(&mut self, header: &Header, frame: &[u8]) -> Result<&[Vec<f32>], Fault> {
        self.block.resize(header.channels, Vec::new());
        self.block.iter_mut().for_each(Vec::clear);
        let length = header.samples();
        let kind = (header.layer, header.channels);
        let decoder = match &mut self.current {
            Some((current, decoder)) if *current == kind => decoder,
            other => &mut other.insert((kind, new_decoder(header)?)).1,
        };
        let packet = PacketRef::new(0, Timestamp::new(0), Duration::new(length as u64), frame);
        match decoder.decode_ref(&packet) {
            Ok(decoded) if decoded.spec().channels().count() == header.channels => {
                super::stream::append(&decoded, &mut self.block);
            }
            Ok(_) => {}
            Err(error) => {
                self.corrupt += 1;
                self.first_error.get_or_insert_with(|| error.to_string());
            }
        }
        self.block.iter_mut().for_each(|channel| channel.resize(length, 0.0));
        Ok(&self.block)
    }
}

fn new_decoder(header: &Header) -> Result<MpaDecoder, Fault> {
    let codec = match header.layer {
        1 => CODEC_ID_MP1,
        2 => CODEC_ID_MP2,
        _ => CODEC_ID_MP3,
    };
    let mut parameters = AudioCodecParameters::new();
    parameters.for_codec(codec).with_sample_rate(header.sample_rate);
    MpaDecoder::try_new(&parameters, &AudioDecoderOptions::default())
        .map_err(|error| Fault::Malformed { container: Content::Mpeg.name().into(), problem: error.to_string() })
}
