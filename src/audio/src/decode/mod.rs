//! Decoding by content: the first bytes of a file decide how it is read, whatever its name.
//!
//! RIFF (WAV) headers are parsed here, because many of them are wrong; plain PCM is converted here, FLAC is decoded here. MP3 frames are
//! counted here and decoded by Symphonia; AAC, Vorbis and their containers are read by Symphonia entirely; Opus has its own decoder.
//! Lengths are counted, never estimated: the length in a header is compared with the existing audio. Malicious input ends in an error:
//! memory is bounded by [`MAX_SAMPLES`] and the size of the file.

mod aac;
mod aac_packet;
mod aac_tables;
mod adpcm;
mod adts;
mod aiff;
mod au;
mod caf;
mod channels;
mod codec_names;
mod flac;
mod foreign;
mod gaps;
mod identify;
mod leading;
mod matroska;
mod matroska_structure;
mod mp4_codec;
mod mp4_edits;
mod mp4_fragments;
mod mpeg;
mod mpeg_frames;
mod multichannel_vorbis;
mod ogg;
mod ogg_pages;
mod opus;
mod opus_track;
mod pcm;
mod probe;
mod program_streams;
mod readable;
mod riff;
mod sniff;
mod sphere;
mod stream;
mod tags;
mod vorbis_setup;
mod w64;
mod wav;
mod wav_layout;

use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

pub(crate) use probe::{probe_bytes_named, probe_file};
pub use sniff::{begins_recording, extension, holds_recording};

use crate::audio::{Audio, AudioInfo, DecodeWarning};
use crate::decoder::Decoder;
use crate::error::{AudioError, Fault};
use sniff::Content;

/// Lowest accepted sampling rate, in hertz.
pub const MIN_SAMPLE_RATE: u32 = 1000;
/// Highest accepted sampling rate, in hertz.
pub const MAX_SAMPLE_RATE: u32 = 768_000;
/// Most channels a recording may have.
pub const MAX_CHANNELS: u32 = 64;
/// Most samples, over all channels, that are decoded into memory (2 GiB; three hours of mono at 48 kHz).
pub const MAX_SAMPLES: u64 = 1 << 29;
/// Largest file that is read into memory, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 32;

/// Decodes a file by its content, whatever its name.
///
/// # Errors
/// [`AudioError::File`] with the path and what is wrong; all samples of a success are finite.
pub fn decode_file(path: impl AsRef<Path>) -> Result<Audio, AudioError> {
    Decoder::builtin().decode_file(path)
}

/// Decodes the bytes of a file; `hint_name` is its name, used in messages (and to notice a misleading extension).
///
/// # Errors
/// [`AudioError::File`] with `hint_name` and what is wrong; all samples of a success are finite.
pub fn decode_bytes(bytes: &[u8], hint_name: &str) -> Result<Audio, AudioError> {
    Decoder::builtin().decode(bytes, hint_name)
}

/// A recording and its origin.
pub(crate) struct Decoded {
    pub(crate) audio: Audio,
    pub(crate) codec: String,
    pub(crate) container: String,
}

impl Decoded {
    /// Facts about the recording, without its samples.
    pub(crate) fn into_info(self) -> AudioInfo {
        AudioInfo {
            sample_rate: self.audio.sample_rate,
            channels: self.audio.samples.len() as u32,
            frames: self.audio.frames() as u64,
            codec: self.codec,
            container: self.container,
            by_fallback: false,
            warnings: self.audio.warnings,
        }
    }
}

/// Returns facts about a file: rate, channels, frames, codec, container.
///
/// For integer WAV files the header is compared with the size of the file, which is exact. The frames of MPEG audio
/// and FLAC and the packets of Opus are counted. Everything else is decoded, because the lengths in compressed files are
/// too often wrong. Damage inside a packet of MPEG audio or Opus is therefore detected by [`decode_file`] only; it changes no length.
///
/// # Errors
/// [`AudioError::File`] with the path and what is wrong.
pub fn probe(path: impl AsRef<Path>) -> Result<AudioInfo, AudioError> {
    Decoder::builtin().probe(path)
}

/// Like [`probe`], for the bytes of a file; `hint_name` is its name, used in messages.
///
/// # Errors
/// [`AudioError::File`] with `hint_name` and what is wrong.
pub fn probe_bytes(bytes: &[u8], hint_name: &str) -> Result<AudioInfo, AudioError> {
    Decoder::builtin().probe_bytes(bytes, hint_name)
}

pub(crate) fn decode_named(bytes: &[u8], name: &str) -> Result<Decoded, Fault> {
    let start = leading::start(&mut Cursor::new(bytes), bytes.len() as u64)?;
    let bytes = bytes.get(start.at as usize..).unwrap_or_default();
    let content = sniff::content(bytes)?;
    let mut decoded = guarded(content, || match content {
        Content::Riff => wav::decode(bytes),
        Content::Flac if flac_bits(bytes) <= flac::MAX_BITS => flac::decode(bytes),
        Content::Ogg | Content::OggOpus => ogg::decode(bytes),
        Content::Mpeg => mpeg::decode(bytes),
        Content::Sphere => sphere::decode(bytes),
        Content::Au => au::decode(bytes),
        Content::Wave64 => w64::decode(bytes),
        _ => stream::decode(bytes, content),
    })?;
    check_samples(&decoded.audio.samples)?;
    decoded.audio.warnings.extend(start.warning());
    if let Some(warning) = sniff::misleading_name(name, content) {
        decoded.audio.warnings.push(warning);
    }
    Ok(decoded)
}

/// Runs a decoder. None is known to panic, but some are third-party code: if one panics on damaged input, that file is
/// rejected and the program continues.
fn guarded(content: Content, decode: impl FnOnce() -> Result<Decoded, Fault>) -> Result<Decoded, Fault> {
    // The decoder's state is local and is discarded.
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        let problem = "its decoder failed on the damaged data".into();
        Err(Fault::Malformed { container: content.name().into(), problem })
    })
}

/// Returns the bits per sample of a FLAC file; 0 if its metadata cannot be read, which the decoder reports in more detail.
fn flac_bits(bytes: &[u8]) -> u32 {
    flac::parse_metadata(bytes).map_or(0, |(info, _)| info.bits)
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    within("the file's size in bytes", length, MAX_FILE_BYTES)?;
    let mut bytes = Vec::with_capacity(length as usize);
    // A pipe or a growing file may hold more than its metadata says.
    file.by_ref().take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn within(what: &'static str, value: u64, limit: u64) -> Result<(), Fault> {
    if value <= limit { Ok(()) } else { Err(Fault::Limit { what, value, limit }) }
}

/// Rejects sampling rates and channel counts that no recording has.
fn check_format(sample_rate: u64, channels: u64) -> Result<(), Fault> {
    let rates = u64::from(MIN_SAMPLE_RATE)..=u64::from(MAX_SAMPLE_RATE);
    if !rates.contains(&sample_rate) {
        let expected = format!("{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz");
        return Err(Fault::Header { field: "sample rate", value: sample_rate, expected });
    }
    if !(1..=u64::from(MAX_CHANNELS)).contains(&channels) {
        let expected = format!("1 to {MAX_CHANNELS}");
        return Err(Fault::Header { field: "channels", value: channels, expected });
    }
    Ok(())
}

/// Rejects empty recordings and samples that are not finite.
fn check_samples(samples: &[Vec<f32>]) -> Result<(), Fault> {
    if samples.first().is_none_or(Vec::is_empty) {
        return Err(Fault::NoSamples);
    }
    if samples.iter().all(|channel| all_finite(channel)) {
        return Ok(());
    }
    let odd = |channel: &Vec<f32>| channel.iter().filter(|sample| !sample.is_finite()).count() as u64;
    let firsts = samples.iter().enumerate().filter_map(|(channel, values)| {
        values.iter().position(|sample| !sample.is_finite()).map(|frame| (frame as u64, channel))
    });
    let (first, channel) = firsts.min().unwrap_or_default();
    let total = samples.iter().map(|values| values.len() as u64).sum();
    Err(Fault::NonFinite { count: samples.iter().map(odd).sum(), total, channel, first })
}

crate::simd::vectorized! {
    fn all_finite(values: &[f32]) -> bool {
        // 0 * x is 0 for every finite x and NaN otherwise.
        let mut sums = [0.0f32; 16];
        let (chunks, rest) = values.as_chunks::<16>();
        for chunk in chunks {
            for lane in 0..16 {
                sums[lane] += 0.0 * chunk[lane];
            }
        }
        sums[0] += rest.iter().map(|value| 0.0 * value).sum::<f32>();
        sums.iter().all(|sum| *sum == 0.0)
    }
}

/// The largest magnitude of all samples, if it is above full scale.
fn over_range(samples: &[Vec<f32>]) -> Option<DecodeWarning> {
    let peak = samples.iter().flatten().fold(0.0f32, |peak, sample| peak.max(sample.abs()));
    (peak > 1.0).then_some(DecodeWarning::OverRange { peak })
}
