//! Containers that are live, cut off or damaged: what is there is decoded, and what is missing is told.

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

/// A WebM file as a program writes it that cannot know its length.
fn live() -> Vec<u8> {
    let mut bytes = good("original_48k_opus.webm");
    let size = find(&bytes, &[0x18, 0x53, 0x80, 0x67]) + 4;
    let length = bytes[size].leading_zeros() as usize + 1;
    bytes[size] = (0x1ff >> length) as u8;
    bytes[size + 1..size + length].fill(0xff);
    bytes
}

#[test]
fn a_live_stream_is_whole() {
    let audio = decoded(&live());
    assert_eq!(audio.samples, decoded(&good("original_48k_opus.webm")).samples);
    assert!(audio.warnings.is_empty(), "{:?}", audio.warnings);
}

#[test]
fn a_cut_webm_is_read_to_the_cut() {
    for whole in [live(), good("original_48k_opus.webm")] {
        let audio = decoded(&whole[..whole.len() * 2 / 3]);
        assert!(is_truncated(&audio), "{:?}", audio.warnings);
        let all = decoded(&whole).frames();
        assert!((all / 3..all).contains(&audio.frames()), "{} of {all}", audio.frames());
    }
}

#[test]
fn cut_containers_are_not_called_unknown_codecs() {
    for name in ["mono_44k1_aac.m4a", "mono_44k1_s16.aiff", "mono_44k1_s16.caf", "original_48k_opus.webm"] {
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
    let tail = 10_000;
    assert_eq!(audio.samples[0][audio.frames() - tail..], whole.samples[0][whole.frames() - tail..]);
}

#[test]
fn damage_between_the_clusters_of_a_webm_is_told() {
    let mut bytes = live();
    let block = bytes.iter().rposition(|byte| *byte == 0xa3).expect("it has blocks");
    let cluster = find(&bytes, &[0x1f, 0x43, 0xb6, 0x75]);
    let middle = (cluster + block) / 2;
    let start = middle + bytes[middle..].iter().position(|byte| *byte == 0xa3).expect("blocks follow");
    bytes[start - 200..start + 200].fill(0xff);
    let audio = decoded(&bytes);
    assert!(!audio.warnings.is_empty());
}
