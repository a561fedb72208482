//! Containers that are live, cut off or damaged: existing sound is decoded, and missing sound is reported.

mod common;

use common::test_file;
use flowmill_audio::{Audio, AudioError, DecodeWarning, Fault, decode_bytes};

fn good(name: &str) -> Vec<u8> {
    std::fs::read(test_file(&format!("data/formats/good/{name}"))).expect("the corpus is there")
}

fn decoded(bytes: &[u8]) -> Audio {
    decode_bytes(bytes, "made").unwrap_or_else(|error| panic!("{error}"))
}

fn is_truncated(audio: &Audio) -> bool {
    audio.warnings.iter().any(|warning| matches!(warning, DecodeWarning::Truncated { .. }))
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).expect("it is there")
}

/// An element with a size of eight bytes; all ones mean an unknown size.
fn element(id: &[u8], size: Option<usize>, content: &[u8]) -> Vec<u8> {
    let size = size.map_or(u64::MAX, |size| size as u64) & ((1 << 56) - 1) | 1 << 56;
    [id, &size.to_be_bytes(), content].concat()
}

fn whole(id: &[u8], content: &[u8]) -> Vec<u8> {
    element(id, Some(content.len()), content)
}

const BLOCKS: usize = 60;
const BLOCK: usize = 160;

/// The start of the clusters of a Matroska file with 16-bit samples at 8 kHz, and the file; a live one has a segment of unknown size.
fn matroska(live: bool) -> (Vec<usize>, Vec<u8>) {
    let header = whole(&[0x1a, 0x45, 0xdf, 0xa3], &whole(&[0x42, 0x82], b"matroska"));
    let info = [
        whole(&[0x2a, 0xd7, 0xb1], &1_000_000u32.to_be_bytes()),
        whole(&[0x4d, 0x80], b"test"),
        whole(&[0x57, 0x41], b"test"),
    ]
    .concat();
    let info = whole(&[0x15, 0x49, 0xa9, 0x66], &info);
    let audio = [whole(&[0xb5], &8000f64.to_be_bytes()), whole(&[0x9f], &[1]), whole(&[0x62, 0x64], &[16])].concat();
    let entry = [
        whole(&[0xd7], &[1]),
        whole(&[0x73, 0xc5], &[1]),
        whole(&[0x83], &[2]),
        whole(&[0x86], b"A_PCM/INT/LIT"),
        whole(&[0xe1], &audio),
    ]
    .concat();
    let mut segment = [info, whole(&[0x16, 0x54, 0xae, 0x6b], &whole(&[0xae], &entry))].concat();
    let mut clusters = Vec::new();
    for cluster in 0..BLOCKS / 10 {
        clusters.push(header.len() + 12 + segment.len());
        let mut content = whole(&[0xe7], &(200 * cluster as u16).to_be_bytes());
        for block in 0..10usize {
            let first = (10 * cluster + block) * BLOCK;
            let samples: Vec<u8> = (first..first + BLOCK).flat_map(|at| (at as i16 + 1).to_le_bytes()).collect();
            let time = (20 * block as u16).to_be_bytes();
            content.extend(whole(&[0xa3], &[&[0x81, time[0], time[1], 0x80], &samples[..]].concat()));
        }
        segment.extend(whole(&[0x1f, 0x43, 0xb6, 0x75], &content));
    }
    let size = (!live).then_some(segment.len());
    (clusters, [header, element(&[0x18, 0x53, 0x80, 0x67], size, &segment)].concat())
}

#[test]
fn a_live_stream_is_whole() {
    for live in [false, true] {
        let audio = decoded(&matroska(live).1);
        let expected: Vec<f32> = (1..=BLOCKS * BLOCK).map(|value| value as f32 / 32_768.0).collect();
        assert_eq!(audio.samples, [expected], "{live}");
        assert!(audio.warnings.is_empty(), "{:?}", audio.warnings);
    }
}

#[test]
fn a_cut_matroska_file_is_read_to_the_cut() {
    for live in [false, true] {
        let bytes = matroska(live).1;
        let audio = decoded(&bytes[..bytes.len() * 2 / 3]);
        assert!(is_truncated(&audio), "{:?}", audio.warnings);
        assert!((BLOCKS / 2 * BLOCK..BLOCKS * BLOCK).contains(&audio.frames()), "{}", audio.frames());
    }
}

#[test]
fn damage_between_the_clusters_is_told() {
    let (clusters, mut bytes) = matroska(true);
    bytes[clusters[3]..clusters[3] + 4].fill(0xff);
    let audio = decoded(&bytes);
    let lost =
        audio.warnings.iter().any(|warning| matches!(warning, DecodeWarning::LostSync { bytes } if *bytes > 3000));
    assert!(lost, "{:?}", audio.warnings);
}

#[test]
fn cut_containers_are_not_called_unknown_codecs() {
    for name in ["mono_44k1_aac.m4a", "mono_44k1_s16.aiff", "mono_44k1_s16.caf"] {
        let whole = good(name);
        for eighths in 1..8 {
            match decode_bytes(&whole[..whole.len() * eighths / 8], "cut") {
                Ok(audio) => assert!(is_truncated(&audio), "{name}, {eighths}/8: {:?}", audio.warnings),
                Err(AudioError::File { fault: Fault::Malformed { .. }, .. }) => {}
                Err(error) => panic!("{name}, {eighths}/8: {error}"),
            }
        }
    }
}

#[test]
fn the_rate_of_aac_is_that_of_its_configuration() {
    let mut bytes = good("mono_44k1_aac.m4a");
    let rate = find(&bytes, b"mp4a") + 4 + 24;
    bytes[rate..rate + 4].fill(0);
    let audio = decoded(&bytes);
    assert_eq!(audio.sample_rate, 44_100);
    assert_eq!(audio.samples, decoded(&good("mono_44k1_aac.m4a")).samples);
}

#[test]
fn a_corrupt_aac_packet_is_silence_and_keeps_its_place() {
    let mut bytes = good("mono_44k1_aac.m4a");
    let whole = decoded(&bytes);
    let middle = find(&bytes, b"mdat") + 4000;
    bytes[middle..middle + 700].fill(0x55);
    let audio = decoded(&bytes);
    assert!(matches!(audio.warnings[..], [DecodeWarning::CorruptPackets { .. }]), "{:?}", audio.warnings);
    assert_eq!(audio.frames(), whole.frames());
    // Noise that the decoder itself adds may differ.
    let pairs = audio.samples[0].iter().zip(&whole.samples[0]).skip(audio.frames() - 10_000);
    let (error, power) = pairs.fold((0.0, 0.0), |(e, p), (a, b)| (e + (a - b) * (a - b), p + b * b));
    assert!(error < 0.1 * power, "{error} of {power}");
}

#[test]
fn the_padding_of_a_w64_chunk_is_no_audio() {
    let name = |letters: &[u8; 4]| [letters.as_slice(), b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"].concat();
    let format = [1u16, 2, 16_000, 0, 30_464, 1, 6, 24].map(u16::to_le_bytes).concat();
    let data: Vec<u8> = (0..6 * 1002u32).map(|at| (at / 60) as u8).collect();
    let padded = [data, vec![0; 4]].concat();
    let bytes = [
        b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00".to_vec(),
        (40 + 40 + 24 + padded.len() as u64).to_le_bytes().to_vec(),
        name(b"wave"),
        name(b"fmt "),
        40u64.to_le_bytes().to_vec(),
        format,
        name(b"data"),
        (24 + padded.len() as u64).to_le_bytes().to_vec(),
        padded,
    ]
    .concat();
    let audio = decoded(&bytes);
    assert_eq!((audio.frames(), audio.samples.len()), (1002, 2));
    assert!(audio.warnings.is_empty(), "{:?}", audio.warnings);
}
