//! The corpus of formats: every good file decodes to its length, every broken one ends in a reasonable result.

mod common;

use std::collections::BTreeMap;

use common::{table, test_file};
use flowmill_audio::{Audio, AudioError, DecodeWarning, Fault, decode_bytes, decode_file, probe, resample};

fn formats(name: &str) -> std::path::PathBuf {
    test_file(&format!("data/formats/{name}"))
}

fn good() -> Vec<Vec<String>> {
    let rows = table("data/formats/good.tsv");
    assert_eq!(rows.len(), 26);
    rows
}

#[test]
fn good_files_have_their_rate_channels_and_length() {
    for row in good() {
        let [file, _, codec, rate, channels, frames] = &row[..6] else { panic!("{row:?}") };
        let audio = decode_file(formats(file)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(audio.sample_rate.to_string(), *rate, "{file}: rate");
        assert_eq!(audio.samples.len().to_string(), *channels, "{file}: channels");
        assert_eq!(audio.frames().to_string(), *frames, "{file}: frames");
        let oddities: Vec<_> =
            audio.warnings.iter().filter(|warning| !matches!(warning, DecodeWarning::MisleadingName { .. })).collect();
        assert!(oddities.is_empty(), "{file}: {oddities:?}");
        let info = probe(formats(file)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(info.sample_rate, audio.sample_rate, "{file}: probed rate");
        assert_eq!(info.channels as usize, audio.samples.len(), "{file}: probed channels");
        assert_eq!(info.frames as usize, audio.frames(), "{file}: probed frames");
        assert_eq!(info.warnings, audio.warnings, "{file}: probed warnings");
        assert_eq!(info.codec, *codec, "{file}: probed codec");
    }
}

/// The similarity of `other` to the nearest scaled copy of `reference`, as a signal-to-noise ratio in decibels.
fn similarity(reference: &[f32], other: &[f32]) -> f64 {
    let pairs = || reference.iter().zip(other).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let (cross, own, theirs) = pairs().fold((0.0, 0.0, 0.0), |(c, o, t), (a, b)| (c + a * b, o + a * a, t + b * b));
    let explained = cross * cross / own;
    10.0 * (explained / (theirs - explained).max(1e-30)).log10()
}

#[test]
fn good_files_all_sound_the_same() {
    let reference = decode_file(formats("good/mono_48k_s16.wav")).expect("the reference is plain PCM").mono();
    // Decibels that each kind of coding must reach compared with the reference at 8 kHz, where all of them have content.
    let needed = |codec: &str, rate: &str| match codec {
        "aac" | "mp3" | "vorbis" => 12.0,
        "opus" => 10.0,
        "pcm_u8" => 18.0,
        "pcm_alaw" | "pcm_mulaw" => 25.0,
        name if name.starts_with("adpcm") => 20.0,
        // Resamplers differ just below 4 kHz.
        _ if rate == "8000" => 35.0,
        _ => 70.0,
    };
    let reference = resample(&reference, 48_000, 8000).expect("ordinary rates");
    for row in good().iter().filter(|row| !row[0].contains("original")) {
        let audio = decode_file(formats(&row[0])).unwrap_or_else(|error| panic!("{error}"));
        let first = resample(&audio.samples[0], audio.sample_rate, 8000).expect("ordinary rates");
        let decibels = similarity(&reference, &first);
        println!("{}: {decibels:.1} dB", row[0]);
        assert!(decibels >= needed(&row[2], &row[3]), "{}: {decibels:.1} dB", row[0]);
    }
}

#[test]
fn channels_stay_apart_until_asked_to_mix() {
    let audio = decode_file(formats("good/stereo_44k1_s16.wav")).expect("plain PCM");
    let peak = |samples: &[f32]| samples.iter().fold(0.0f32, |peak, sample| peak.max(sample.abs()));
    let ratio = peak(&audio.samples[0]) / peak(&audio.samples[1]);
    assert!((ratio - 2.0).abs() < 0.02, "the right channel is 6 dB quieter: {ratio}");
    let mixed = audio.mono();
    for ((mix, left), right) in mixed.iter().zip(&audio.samples[0]).zip(&audio.samples[1]) {
        assert!((mix - (left + right) / 2.0).abs() < 1e-6);
    }
}

/// A word for the result of reading: that of the fault, or those of the warnings.
fn outcome(result: &Result<Audio, AudioError>) -> String {
    match result {
        Err(AudioError::File { fault, .. }) => fault_name(fault).to_owned(),
        Err(other) => panic!("{other}"),
        Ok(audio) => {
            let names: Vec<_> = audio.warnings.iter().map(warning_name).collect();
            format!("{} {}", audio.frames(), names.join(" ")).trim().to_owned()
        }
    }
}

fn fault_name(fault: &Fault) -> &'static str {
    match fault {
        Fault::Io(_) => "io",
        Fault::Empty => "empty",
        Fault::LfsPointer => "lfs",
        Fault::Text { .. } => "text",
        Fault::Unrecognized { .. } => "unrecognized",
        Fault::UnsupportedCodec { .. } => "codec",
        Fault::Malformed { .. } => "malformed",
        Fault::Header { .. } => "header",
        Fault::NoSamples => "no-samples",
        Fault::NonFinite { .. } => "non-finite",
        Fault::Limit { .. } => "limit",
        Fault::FallbackMissing { .. } | Fault::FallbackFailed { .. } => "fallback",
    }
}

fn warning_name(warning: &DecodeWarning) -> &'static str {
    match warning {
        DecodeWarning::Truncated { .. } => "truncated",
        DecodeWarning::StreamedSize => "streamed",
        DecodeWarning::TrailingBytes { .. } => "trailing",
        DecodeWarning::SeveralDataChunks { .. } => "data-chunks",
        DecodeWarning::PartialFrame { .. } => "partial-frame",
        DecodeWarning::CorruptPackets { .. } => "corrupt",
        DecodeWarning::Gaps { .. } => "gaps",
        DecodeWarning::LostSync { .. } => "lost-sync",
        DecodeWarning::ChecksumMismatch => "checksum",
        DecodeWarning::OverRange { .. } => "over-range",
        DecodeWarning::FallbackComplaint { .. } => "fallback-complaint",
        DecodeWarning::MendedHeader { .. } => "mended-header",
        DecodeWarning::OtherLength { .. } => "other-length",
        DecodeWarning::MisleadingName { .. } => "misleading-name",
    }
}

/// The result of reading each broken file: a fault, or frames and warnings.
const BROKEN: [(&str, &str); 32] = [
    ("channels_zero.wav", "header"),
    ("clipped.wav", "31200"),
    ("dc_offset.wav", "31200"),
    ("digital_silence_1s.wav", "16000"),
    ("flac_bitflip.flac", "31200 corrupt"),
    ("flac_renamed.wav", "31200 misleading-name"),
    ("flac_truncated.flac", "17280 truncated"),
    ("float32_over_range.wav", "31200 over-range"),
    ("git_lfs_pointer.wav", "lfs"),
    ("header_claims_10x.wav", "31200 truncated"),
    ("header_claims_ffffffff.wav", "31200 streamed"),
    ("header_claims_half.wav", "15600 trailing"),
    ("header_claims_zero.wav", "31200 streamed"),
    ("header_only_20_bytes.wav", "malformed"),
    ("mp3_frames_overwritten.mp3", "40943 truncated lost-sync"),
    ("mp3_garbage_middle.mp3", "42998 lost-sync"),
    ("mp3_renamed.wav", "42998 misleading-name"),
    ("mp3_truncated.mp3", "20207 truncated partial-frame"),
    ("nan_inf_float32.wav", "non-finite"),
    ("no_data_chunk.wav", "malformed"),
    ("odd_byte_data.wav", "31199 partial-frame"),
    ("ogg_truncated.ogg", "malformed"),
    ("one_sample.wav", "1"),
    ("rate_4294967295.wav", "header"),
    ("rate_zero.wav", "header"),
    ("rifx_bigendian.wav", "31200"),
    ("ten_ms.wav", "160"),
    ("text_renamed.wav", "text"),
    ("truncated.wav", "15580 truncated partial-frame"),
    ("unknown_codec_tag.wav", "codec"),
    ("zero_byte.wav", "empty"),
    ("zero_samples.wav", "no-samples"),
];

#[test]
fn broken_files_end_reasonably() {
    let rows = table("data/formats/broken.tsv");
    let expected: BTreeMap<_, _> = BROKEN.into_iter().collect();
    assert_eq!(rows.len(), expected.len());
    let mut surprises = Vec::new();
    for row in rows {
        let name = row[0].trim_start_matches("broken/");
        let result = decode_file(formats(&row[0]));
        match &result {
            Ok(audio) => {
                println!("{name}: {} frames", audio.frames());
                audio.warnings.iter().for_each(|warning| println!("    {warning}"));
                assert!(audio.samples.iter().flatten().all(|sample| sample.is_finite()), "{name}");
            }
            Err(error) => {
                println!("{error}");
                assert!(error.to_string().contains(name), "the message names the file: {error}");
            }
        }
        let ended = outcome(&result);
        if expected.get(name) != Some(&ended.as_str()) {
            surprises.push(format!("{name}: {ended} instead of {:?} ({})", expected.get(name), row[4]));
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

#[test]
fn probing_agrees_with_decoding_on_broken_files() {
    // Damage in the middle of a FLAC file is only found by decoding.
    for (name, _) in BROKEN.into_iter().filter(|(name, _)| *name != "flac_bitflip.flac") {
        let path = formats(&format!("broken/{name}"));
        match (probe(&path), decode_file(&path)) {
            (Ok(info), Ok(audio)) => {
                assert_eq!(info.frames as usize, audio.frames(), "{name}");
                assert_eq!(info.warnings, audio.warnings, "{name}");
            }
            (Err(probed), Err(decoded)) => assert_eq!(probed.to_string(), decoded.to_string()),
            (probed, decoded) => panic!("{name}: {probed:?} but {:?}", decoded.map(|audio| audio.frames())),
        }
    }
}

#[test]
fn big_endian_holds_the_same_samples() {
    let big = decode_file(formats("broken/rifx_bigendian.wav")).expect("legal, though rare");
    let little = decode_file(formats("good/mono_16k_s16.wav")).expect("plain PCM");
    assert_eq!(big.samples, little.samples);
}

#[test]
fn flac_and_wav_hold_the_same_samples() {
    let flac = decode_file(formats("good/mono_16k_s16.flac")).expect("plain FLAC");
    let wav = decode_file(formats("good/mono_16k_s16.wav")).expect("plain PCM");
    assert_eq!(flac.samples, wav.samples);
    let flac = decode_file(formats("good/stereo_48k_s24.flac")).expect("plain FLAC");
    let wav = decode_file(formats("good/mono_48k_s24.wav")).expect("plain PCM");
    assert_eq!(flac.samples[0], wav.samples[0]);
}

#[test]
fn segments_are_cut_by_time() {
    let audio = decode_file(formats("good/mono_16k_s16.wav")).expect("plain PCM");
    let part = audio.segment(0.5, 1.25).expect("inside the recording");
    assert_eq!(part.samples[0], audio.samples[0][8000..20_000]);
    assert_eq!(audio.segment(1.0, 1.955).expect("rounding is forgiven").frames(), 15_200);
    for (start, end) in [(-0.1, 1.0), (1.0, 1.0), (1.0, 0.5), (1.0, 2.5), (f64::NAN, 1.0), (0.0, f64::NAN)] {
        assert!(matches!(audio.segment(start, end), Err(AudioError::Segment { .. })), "{start} to {end}");
    }
}

#[test]
fn hostile_lengths_are_refused_by_name() {
    let error = decode_bytes(b"RIFF", "cut.wav").expect_err("four bytes are no audio");
    assert!(
        matches!(&error, AudioError::File { name, fault: Fault::Malformed { .. } } if name == "cut.wav"),
        "{error}"
    );
}
