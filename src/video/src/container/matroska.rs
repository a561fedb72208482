//! Matroska and WebM files, read by Symphonia.

use std::borrow::Cow;
use std::io::Cursor;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::video::VideoCodecParameters;
use symphonia::core::codecs::video::well_known::extra_data::VIDEO_EXTRA_DATA_ID_AVC_DECODER_CONFIG;
use symphonia::core::codecs::video::well_known::{
    CODEC_ID_AV1, CODEC_ID_H264, CODEC_ID_HEVC, CODEC_ID_MPEG4, CODEC_ID_VP8, CODEC_ID_VP9,
};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

use super::{Codec, MAX_SAMPLES, Movie, Sample};
use crate::error::{Fault, within};

const CONTAINER: &str = "Matroska";

fn malformed(error: &Error) -> Fault {
    Fault::Malformed { container: CONTAINER, problem: error.to_string() }
}

pub(super) fn open(bytes: &[u8]) -> Result<Movie<'_>, Fault> {
    let source = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
    let mut reader = symphonia::default::get_probe()
        .probe(&Hint::new(), source, FormatOptions::default(), MetadataOptions::default())
        .map_err(|error| malformed(&error))?;
    let no_video = Fault::NoVideo { container: CONTAINER };
    let Some(track) = reader.first_track(TrackType::Video) else { return Err(no_video) };
    let Some(CodecParameters::Video(parameters)) = &track.codec_params else { return Err(no_video) };
    let codec = codec(parameters)?;
    let size = (u32::from(parameters.width.unwrap_or(0)), u32::from(parameters.height.unwrap_or(0)));
    let (id, base) = (track.id, track.time_base);
    let seconds_per_tick = base.map_or(0.001, |base| f64::from(base.numer.get()) / f64::from(base.denom.get()));
    let sound = reader.first_track(TrackType::Audio).map(|track| (track.id, track.time_base));

    let (mut data, mut samples) = (Vec::new(), Vec::new());
    let mut sound_start = None;
    let mut durations = Vec::new();
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            Err(Error::IoError(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                let problem = "the file is cut off; copy or download it again".to_owned();
                return Err(Fault::Malformed { container: CONTAINER, problem });
            }
            Err(error) => return Err(malformed(&error)),
        };
        if let Some((track, base)) = sound.filter(|(track, _)| *track == packet.track_id && sound_start.is_none()) {
            debug_assert_eq!(track, packet.track_id);
            let tick = base.map_or(0.001, |base| f64::from(base.numer.get()) / f64::from(base.denom.get()));
            sound_start = Some((packet.pts.get() as f64 * tick).max(0.0));
        }
        if packet.track_id == id {
            within("the number of frames", samples.len() as u64, MAX_SAMPLES)?;
            let (offset, time) = (data.len() as u64, packet.pts.get() as f64 * seconds_per_tick);
            let size = u32::try_from(packet.data.len()).unwrap_or(u32::MAX);
            // Blocks do not say here whether decoding can start at them; it always starts at the first one.
            samples.push(Sample { offset, size, time, is_key: samples.is_empty() });
            durations.push(packet.dur.get() as f64 * seconds_per_tick);
            data.extend_from_slice(&packet.data);
        }
    }
    let end = end(&samples, &durations);
    Ok(Movie {
        container: CONTAINER,
        data: Cow::Owned(data),
        codec,
        size,
        rotation: 0,
        samples,
        end,
        tolerance: (0.5 * seconds_per_tick).min(0.0005),
        sound_start,
    })
}

/// Returns the time at which the last frame ends; a frame without a duration lasts as long as the mean one.
fn end(samples: &[Sample], durations: &[f64]) -> f64 {
    let Some((last, duration)) = samples.iter().zip(durations).max_by(|(a, _), (b, _)| a.time.total_cmp(&b.time))
    else {
        return 0.0;
    };
    let first = samples.iter().map(|sample| sample.time).fold(f64::INFINITY, f64::min);
    let mean = if samples.len() > 1 { (last.time - first) / (samples.len() - 1) as f64 } else { 0.04 };
    last.time + if *duration > 0.0 { *duration } else { mean }
}

fn codec(parameters: &VideoCodecParameters) -> Result<Codec, Fault> {
    let named = |name: &str| Ok(Codec::Other(name.to_owned()));
    match parameters.codec {
        CODEC_ID_H264 => {
            let config = parameters.extra_data.iter().find(|data| data.id == VIDEO_EXTRA_DATA_ID_AVC_DECODER_CONFIG);
            match config {
                Some(config) => Ok(Codec::H264(config.data.to_vec())),
                None => {
                    let problem = "the configuration of its H.264 decoder is missing".to_owned();
                    Err(Fault::Malformed { container: CONTAINER, problem })
                }
            }
        }
        CODEC_ID_HEVC => named("H.265"),
        CODEC_ID_AV1 => named("AV1"),
        CODEC_ID_VP8 => named("VP8"),
        CODEC_ID_VP9 => named("VP9"),
        CODEC_ID_MPEG4 => named("MPEG-4 part 2"),
        codec => named(&codec.to_string()),
    }
}
