//! Compressed streams and their containers, decoded by Symphonia.

use std::borrow::Cow;
use std::io::Cursor;

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_FLAC, CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3, CODEC_ID_OPUS, CODEC_ID_PCM_ALAW,
    CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F64BE, CODEC_ID_PCM_F64LE, CODEC_ID_PCM_MULAW,
    CODEC_ID_PCM_S24BE, CODEC_ID_PCM_S24LE, CODEC_ID_PCM_S32BE, CODEC_ID_PCM_S32LE, CODEC_ID_VORBIS,
};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, ReadOnlySource};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::TimeBase;

use super::aac::{Config, SbrSearch};
use super::gaps::Clock;
use super::identify::{Identity, identify};
use super::mpeg_frames::{FORBIDDEN_BIT_RATE, Header};
use super::multichannel_vorbis::MultichannelVorbis;
use super::readable::Readable;
use super::sniff::Content;
use super::{
    Decoded, MAX_SAMPLES, check_format, flac, matroska, mp4_edits, mp4_fragments, opus_track, over_range, within,
};
use crate::audio::{Audio, DecodeWarning};
use crate::error::Fault;

/// Decodes the first audio track of a file of the given kind.
pub(super) fn decode(bytes: &[u8], content: Content) -> Result<Decoded, Fault> {
    let file = Readable::of(bytes, content);
    let bytes = &*file.bytes;
    let identity = identify(bytes, content).checked()?;
    let mut reader = open(&file, &identity)?;
    let (track, parameters) = first_audio_track(reader.as_ref(), &identity)?;
    if parameters.codec == CODEC_ID_OPUS && content != Content::Ogg {
        let (track, parameters) = (track.clone(), parameters.clone());
        return opus_track::decode(&file, content, reader.as_mut(), &track, &parameters);
    }
    let mut decoder = first_decoder(reader.as_ref(), &identity)?;
    let mut collected = Collected::new(decoder.time_base);
    // A packet takes at least one byte; a damaged table may claim billions of empty ones.
    let most_packets = bytes.len() as u64;
    collected.run(reader.as_mut(), &mut decoder, &identity, most_packets)?;
    match content {
        // Files whose last size is unknown end without a mark.
        Content::Matroska | Content::Mp4 => collected.broke_off = file.is_cut,
        _ => collected.broke_off |= file.is_cut,
    }
    let whole = collected.frames();
    if content == Content::Matroska {
        collected.cut_end(matroska::padding_in_frames(bytes, decoder.sample_rate));
    }
    if content == Content::Mp4 {
        collected.skip(mp4_edits::leading_frames(bytes, decoder.sample_rate));
    }
    let mut warnings = collected.warnings();
    warnings.extend(file.warnings());
    if content == Content::Mp4 {
        warnings.extend(mp4_fragments::gaps(bytes, decoder.sample_rate));
    }
    warnings.extend(end_warning(&file, content, &collected, &decoder, whole));
    // The checksum covers the whole recording, of which a cut stream is only a part.
    let is_whole = decoder.checked_frames.is_none_or(|frames| frames == whole);
    if decoder.inner.finalize().verify_ok == Some(false) && collected.corrupt == 0 && is_whole {
        warnings.push(DecodeWarning::ChecksumMismatch);
    }
    if decoder.inner.codec_info().short_name.starts_with("pcm_f") {
        warnings.extend(over_range(&collected.samples));
    }
    Ok(Decoded {
        audio: Audio { samples: collected.samples, sample_rate: decoder.sample_rate, warnings },
        codec: decoder.inner.codec_info().short_name.to_owned(),
        container: content.name().to_owned(),
    })
}

/// Converts an error of Symphonia: names the codec if it is not supported, otherwise reports damage.
fn malformed(identity: &Identity, error: &Error) -> Fault {
    match error {
        Error::Unsupported(_) => identity.refusal(),
        error => Fault::Malformed { container: identity.content.name().into(), problem: error.to_string() },
    }
}

/// A warning if a file ends before its sound does; `whole` is the number of decoded frames before those of the encoder at both ends
/// were left out.
fn end_warning(
    file: &Readable<'_>,
    content: Content,
    collected: &Collected,
    decoder: &TrackDecoder,
    whole: u64,
) -> Option<DecodeWarning> {
    let frames = collected.frames();
    let there = whole.saturating_add(collected.clock.missing());
    let rate = decoder.sample_rate;
    let claimed = match content {
        // The pages determine the end more precisely.
        Content::Ogg => return None,
        // There is no header of the whole; the length from the reader is an estimate.
        Content::Adts => None,
        // Corrupt packets have no length.
        Content::Matroska | Content::Mp4 if collected.corrupt > 0 && !collected.gave_up => None,
        Content::Matroska => matroska::claimed_frames(&file.bytes, rate),
        Content::Mp4 => mp4_edits::media_frames(&file.bytes, rate),
        _ => decoder.claimed_frames,
    };
    let in_tables = matches!(content, Content::Matroska | Content::Mp4);
    let short = match decoder.is_pcm() && !in_tables {
        true => claimed.filter(|claimed| *claimed > there),
        // Stated lengths may include an encoder's frames at both ends.
        false => claimed.filter(|claimed| *claimed > there + u64::from(rate) / CLEARLY_SHORTER),
    };
    let cut = collected.broke_off || collected.gave_up || (short.is_some() && (in_tables || decoder.is_pcm()));
    // Missing frames inside the recording have a warning of their own.
    let claimed_frames = short.map(|claimed| (claimed - there).saturating_add(frames));
    cut.then_some(DecodeWarning::Truncated { claimed_frames, frames })
}

/// Time by which sound must be too short to count as truncated, in parts of a second.
const CLEARLY_SHORTER: u64 = 7;

fn open<'b>(file: &'b Readable<'_>, identity: &Identity) -> Result<Box<dyn FormatReader + 'b>, Fault> {
    let (content, bytes, is_cut) = (identity.content, &*file.bytes, file.is_cut);
    if content == Content::Mp4 && !mp4_edits::has_index(bytes) {
        let problem =
            "its index (the moov box) is missing: the file is cut off or was never finished; fetch or record it again";
        return Err(Fault::Malformed { container: content.name().into(), problem: problem.into() });
    }
    // In a cut file, the data after the sound is missing and cannot be read first; if bytes were left out, it is not at the position that
    // the file's tables state.
    let forward_only = match content {
        Content::Matroska => is_cut || file.junk > 0,
        Content::Caf => is_cut && matches!(file.bytes, Cow::Borrowed(_)),
        _ => is_cut,
    };
    let source: Box<dyn MediaSource + 'b> = match forward_only {
        true => Box::new(ReadOnlySource::new(Cursor::new(bytes))),
        false => Box::new(Cursor::new(bytes)),
    };
    let source = MediaSourceStream::new(source, Default::default());
    symphonia::default::get_probe()
        .probe(&Hint::new(), source, FormatOptions::default(), MetadataOptions::default())
        .map_err(|error| match error {
            _ if is_cut => {
                let problem = "the file is cut off before what is needed to read it".into();
                Fault::Malformed { container: content.name().into(), problem }
            }
            error => malformed(identity, &error),
        })
}

/// A decoder and the facts of its track.
struct TrackDecoder {
    inner: Box<dyn AudioDecoder>,
    track: u32,
    time_base: Option<TimeBase>,
    sample_rate: u32,
    claimed_frames: Option<u64>,
    /// Number of frames that FLAC's checksum covers, if known.
    checked_frames: Option<u64>,
    /// The search for SBR data, if the codec is AAC.
    sbr: Option<SbrSearch>,
}

impl TrackDecoder {
    fn is_pcm(&self) -> bool {
        self.inner.codec_info().short_name.starts_with("pcm_")
    }
}

fn first_audio_track<'r>(
    reader: &'r dyn FormatReader,
    identity: &Identity,
) -> Result<(&'r Track, &'r AudioCodecParameters), Fault> {
    let track = reader.first_track(TrackType::Audio);
    let found = track.and_then(|track| match &track.codec_params {
        Some(CodecParameters::Audio(parameters)) => Some((track, parameters)),
        _ => None,
    });
    found.ok_or_else(|| match &identity.codec {
        Some(_) => identity.refusal(),
        None => {
            let container = identity.content.name().into();
            Fault::Malformed { container, problem: "it holds no audio track".into() }
        }
    })
}

fn first_decoder(reader: &dyn FormatReader, identity: &Identity) -> Result<TrackDecoder, Fault> {
    let (track, parameters) = first_audio_track(reader, identity)?;
    let rate = core_rate(parameters);
    if let Some(rate) = rate {
        check_format(u64::from(rate), parameters.channels.as_ref().map_or(1, |channels| channels.count() as u64))?;
    }
    Ok(TrackDecoder {
        inner: make_decoder(parameters, identity)?,
        track: track.id,
        time_base: track.time_base,
        sample_rate: rate.unwrap_or_default(),
        claimed_frames: track.num_frames,
        checked_frames: parameters
            .extra_data
            .as_deref()
            .filter(|_| parameters.codec == CODEC_ID_FLAC)
            .and_then(flac::frames_of),
        sbr: sbr_search(parameters),
    })
}

/// Returns the sampling rate; for AAC from its configuration, because MP4's field ends at 65,535 Hz.
fn core_rate(parameters: &AudioCodecParameters) -> Option<u32> {
    let private = parameters.extra_data.as_deref().filter(|_| parameters.codec == CODEC_ID_AAC);
    private.and_then(Config::parse).map(|config| config.sample_rate).or(parameters.sample_rate)
}

fn sbr_search(parameters: &AudioCodecParameters) -> Option<SbrSearch> {
    let rate = core_rate(parameters).filter(|_| parameters.codec == CODEC_ID_AAC)?;
    Some(SbrSearch::new(rate))
}

fn make_decoder(parameters: &AudioCodecParameters, identity: &Identity) -> Result<Box<dyn AudioDecoder>, Fault> {
    // Decoders allocate this number of frames.
    let frames = parameters.max_frames_per_packet.max(parameters.frames_per_block).unwrap_or(0);
    within("the number of frames of a packet", frames, MAX_PACKET_FRAMES)?;
    if parameters.codec == CODEC_ID_VORBIS
        && let Some(decoder) = MultichannelVorbis::new(parameters).map_err(|error| malformed(identity, &error))?
    {
        return Ok(Box::new(decoder));
    }
    let parameters = corrected(parameters, identity);
    let options = AudioDecoderOptions::default().verify(true);
    symphonia::default::get_codecs()
        .make_audio_decoder(&parameters, &options)
        .map_err(|error| malformed(identity, &error))
}

/// Corrects parameters that Symphonia's readers get wrong.
fn corrected(parameters: &AudioCodecParameters, identity: &Identity) -> AudioCodecParameters {
    let mut corrected = parameters.clone();
    // The reader states the size of a compressed sample instead of a decoded one.
    if matches!(parameters.codec, CODEC_ID_PCM_ALAW | CODEC_ID_PCM_MULAW) {
        (corrected.bits_per_sample, corrected.bits_per_coded_sample) = (None, None);
    }
    if identity.big_endian {
        corrected.codec = match parameters.codec {
            CODEC_ID_PCM_S24LE => CODEC_ID_PCM_S24BE,
            CODEC_ID_PCM_S32LE => CODEC_ID_PCM_S32BE,
            CODEC_ID_PCM_F32LE => CODEC_ID_PCM_F32BE,
            CODEC_ID_PCM_F64LE => CODEC_ID_PCM_F64BE,
            other => other,
        };
    }
    corrected
}

/// Creates a decoder for the layer of the first packet of MPEG audio, because MP4 has one id for all layers; rejects bit rates that
/// the decoder would reject packet by packet.
fn check_mpeg(decoder: &mut TrackDecoder, packet: &[u8], identity: &Identity) -> Result<(), Fault> {
    let parameters = decoder.inner.codec_params();
    if !matches!(parameters.codec, CODEC_ID_MP1 | CODEC_ID_MP2 | CODEC_ID_MP3) {
        return Ok(());
    }
    let Some(header) = Header::parse(packet) else { return Ok(()) };
    if header.forbidden_bit_rate() {
        return Err(identity.refusal_of(FORBIDDEN_BIT_RATE));
    }
    let codec = match header.layer {
        1 => CODEC_ID_MP1,
        2 => CODEC_ID_MP2,
        _ => CODEC_ID_MP3,
    };
    if identity.content == Content::Mp4 && parameters.codec != codec {
        let mut parameters = parameters.clone();
        parameters.for_codec(codec);
        decoder.inner = make_decoder(&parameters, identity)?;
    }
    Ok(())
}

/// Largest number of frames of one packet of any codec; real ones have a few thousand.
const MAX_PACKET_FRAMES: u64 = 1 << 16;

/// Frames of a packet of AAC-LC.
const AAC_FRAMES: usize = 1024;

/// Sound that has been decoded so far.
struct Collected {
    samples: Vec<Vec<f32>>,
    clock: Clock,
    corrupt: u64,
    first_error: Option<String>,
    broke_off: bool,
    /// True if the reader gave up before the end.
    gave_up: bool,
}

impl Collected {
    fn new(time_base: Option<TimeBase>) -> Self {
        Self {
            samples: Vec::new(),
            clock: Clock::new(time_base),
            corrupt: 0,
            first_error: None,
            broke_off: false,
            gave_up: false,
        }
    }

    fn frames(&self) -> u64 {
        self.samples.first().map_or(0, |channel| channel.len() as u64)
    }

    /// Reads packets until the end of the stream, or until no usable packet follows.
    fn run(
        &mut self,
        reader: &mut dyn FormatReader,
        decoder: &mut TrackDecoder,
        identity: &Identity,
        most_packets: u64,
    ) -> Result<(), Fault> {
        for _ in 0..most_packets {
            let packet = match reader.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return self.ended(decoder, identity),
                Err(Error::IoError(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    self.broke_off = true;
                    return self.ended(decoder, identity);
                }
                Err(error) if self.samples.is_empty() => return Err(malformed(identity, &error)),
                Err(error) => {
                    self.note(&error);
                    self.gave_up = true;
                    return self.ended(decoder, identity);
                }
            };
            if packet.track_id != decoder.track {
                continue;
            }
            if self.samples.is_empty() && self.corrupt == 0 {
                check_mpeg(decoder, &packet.data, identity)?;
            }
            if let Some(codec) = decoder.sbr.as_mut().and_then(|search| search.look(&packet.data)) {
                return Err(identity.refusal_of(codec));
            }
            self.clock.packet(packet.pts, self.frames(), decoder.sample_rate);
            match decoder.inner.decode(&packet) {
                Ok(decoded) => self.add(&decoded, &mut decoder.sample_rate)?,
                // After these two errors the decoder may continue with the next packet.
                Err(error @ (Error::DecodeError(_) | Error::IoError(_))) => self.lost(&error, decoder)?,
                // A valid stream does not become another one midway either.
                Err(error @ Error::Unsupported(_)) if !self.samples.is_empty() => self.lost(&error, decoder)?,
                Err(error) => return Err(malformed(identity, &error)),
            }
        }
        let problem = "it claims more packets than it has bytes".into();
        Err(Fault::Malformed { container: identity.content.name().into(), problem })
    }

    /// Makes the checks that need the end of the stream.
    fn ended(&self, decoder: &TrackDecoder, identity: &Identity) -> Result<(), Fault> {
        match (decoder.sbr.as_ref().and_then(SbrSearch::at_end), &self.first_error) {
            (Some(codec), _) => Err(identity.refusal_of(codec)),
            (None, Some(error)) if self.frames() == 0 => {
                let problem = format!("none of its {} packets can be decoded (first: {error})", self.corrupt);
                Err(Fault::Malformed { container: identity.content.name().into(), problem })
            }
            _ => Ok(()),
        }
    }

    fn note(&mut self, error: &Error) {
        self.corrupt += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    /// Records a packet that cannot be decoded, and fills its place with silence if all packets have the same length.
    fn lost(&mut self, error: &Error, decoder: &TrackDecoder) -> Result<(), Fault> {
        self.note(error);
        if decoder.sbr.is_some() && !self.samples.is_empty() {
            let length = self.samples[0].len() + AAC_FRAMES;
            within("the number of samples", (length * self.samples.len()) as u64, MAX_SAMPLES)?;
            self.samples.iter_mut().for_each(|channel| channel.resize(length, 0.0));
        } else {
            self.clock.lost();
        }
        Ok(())
    }

    fn add(&mut self, decoded: &GenericAudioBufferRef<'_>, rate: &mut u32) -> Result<(), Fault> {
        let spec = decoded.spec();
        if self.samples.is_empty() {
            check_format(u64::from(spec.rate()), spec.channels().count() as u64)?;
            *rate = spec.rate();
            self.samples = vec![Vec::new(); spec.channels().count()];
        }
        if spec.channels().count() != self.samples.len() || spec.rate() != *rate {
            let problem = "the rate or the number of channels changes midway".into();
            return Err(Fault::Malformed { container: "audio".into(), problem });
        }
        let total = (self.frames() + decoded.frames() as u64) * self.samples.len() as u64;
        within("the number of samples", total, MAX_SAMPLES)?;
        append(decoded, &mut self.samples);
        Ok(())
    }

    /// Drops frames at the beginning.
    fn skip(&mut self, frames: u64) {
        let frames = frames.min(self.frames()) as usize;
        for channel in &mut self.samples {
            channel.drain(..frames);
        }
    }

    /// Drops frames at the end.
    fn cut_end(&mut self, frames: usize) {
        let left = self.samples.first().map_or(0, Vec::len).saturating_sub(frames);
        self.samples.iter_mut().for_each(|channel| channel.truncate(left));
    }

    fn warnings(&self) -> Vec<DecodeWarning> {
        let corrupt = self
            .first_error
            .iter()
            .map(|first| DecodeWarning::CorruptPackets { count: self.corrupt, first: first.clone() });
        corrupt.chain(self.clock.warning()).collect()
    }
}

/// Passes every packet of a reader to `each`; returns whether the stream ends abruptly.
pub(super) fn packets(
    reader: &mut dyn FormatReader,
    most_packets: usize,
    mut each: impl FnMut(&Packet) -> Result<(), Fault>,
) -> Result<bool, Fault> {
    for _ in 0..most_packets {
        match reader.next_packet() {
            Ok(Some(packet)) => each(&packet)?,
            Ok(None) => return Ok(false),
            // After any error nothing more can be read.
            Err(_) => return Ok(true),
        }
    }
    Ok(true)
}

/// Appends decoded frames to `samples`, which has the same number of channels.
pub(super) fn append(decoded: &GenericAudioBufferRef<'_>, samples: &mut [Vec<f32>]) {
    let frames = decoded.frames();
    let mut tails: Vec<&mut [f32]> = Vec::with_capacity(samples.len());
    for channel in samples.iter_mut() {
        let old = channel.len();
        channel.resize(old + frames, 0.0);
        tails.push(&mut channel[old..]);
    }
    decoded.copy_to_slice_planar(&mut tails);
}
