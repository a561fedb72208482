//! Lengths are counted: wrong lengths in tags, joins and headers have no effect, and missing audio is reported.

mod common;

use common::test_file;
use flowmill_audio::{Audio, AudioError, DecodeWarning, Fault, decode_bytes, decode_file, probe_bytes};

fn good(name: &str) -> Vec<u8> {
    std::fs::read(test_file(&format!("data/formats/good/{name}"))).expect("the corpus is there")
}

/// Decodes, and checks that probing agrees.
fn decoded(bytes: &[u8]) -> Audio {
    let audio = decode_bytes(bytes, "made").unwrap_or_else(|error| panic!("{error}"));
    let info = probe_bytes(bytes, "made").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((info.frames as usize, info.channels as usize), (audio.frames(), audio.samples.len()));
    assert_eq!((info.sample_rate, &info.warnings), (audio.sample_rate, &audio.warnings));
    audio
}

fn is_truncated(audio: &Audio) -> bool {
    audio.warnings.iter().any(|warning| matches!(warning, DecodeWarning::Truncated { .. }))
}

/// An ID3v2 tag with a picture of this number of bytes.
fn id3(picture: usize) -> Vec<u8> {
    let size = [21, 14, 7, 0].map(|shift| (picture >> shift & 0x7f) as u8);
    [b"ID3\x04\0\0".as_slice(), &size, &vec![0xd8; picture]].concat()
}

/// An APE tag with this number of bytes between its header and its footer.
fn ape(content: usize) -> Vec<u8> {
    let block = |flags: u32| {
        let numbers = [2000, content as u32 + 32, 1, flags].map(u32::to_le_bytes).concat();
        [b"APETAGEX".as_slice(), &numbers, &[0; 8]].concat()
    };
    [block(0xa000_0000), vec![0x55; content], block(0x8000_0000)].concat()
}

/// An MP3 without the frame that states its length.
fn untagged(name: &str) -> Vec<u8> {
    let bytes = good(name);
    let tag = ["Xing", "Info"].iter().find_map(|tag| bytes.windows(4).position(|four| four == tag.as_bytes()));
    let tag = tag.expect("the file has a tag");
    // The next frame of the same stream.
    let start = bytes.windows(2).position(|two| two[0] == 0xff && two[1] & 0xf6 == 0xf2).expect("it has frames");
    let head = [bytes[start], bytes[start + 1]];
    let next = bytes[tag..].windows(2).position(|two| two == head).expect("frames follow");
    bytes[tag + next..].to_vec()
}

const MP3: &str = "mono_22k05_32k.mp3";
const VBR: &str = "stereo_44k1_vbr.mp3";

#[test]
fn mp3_without_a_tag_has_all_its_frames() {
    // The recording, plus the encoder's and decoder's frames according to its tag, rounded up to whole frames.
    for (name, frames, frame) in [(MP3, 42_998, 576), (VBR, 85_995, 1152)] {
        let audio = decoded(&untagged(name));
        assert!(audio.warnings.is_empty(), "{name}: {:?}", audio.warnings);
        assert_eq!(audio.frames() % frame, 0, "{name}");
        let added = audio.frames() - frames;
        assert!((1105..1105 + 2 * frame).contains(&added), "{name}: {added} frames more");
    }
}

#[test]
fn tags_around_an_mp3_change_nothing() {
    let plain = decoded(&good(MP3));
    let id3v1 = [b"TAG".as_slice(), &[0; 125]].concat();
    for (what, before, after) in [
        ("a picture", id3(70_000), vec![]),
        ("two tags", [id3(5000), id3(6000)].concat(), vec![]),
        ("a tag and zeros", [id3(100), vec![0; 9000]].concat(), vec![]),
        ("an APE tag in front", ape(5000), vec![]),
        ("APE and ID3v1 behind", vec![], [ape(200_000), id3v1].concat()),
    ] {
        let audio = decoded(&[before, good(MP3), after].concat());
        assert_eq!(audio.samples, plain.samples, "{what}");
        assert!(audio.warnings.is_empty(), "{what}: {:?}", audio.warnings);
    }
}

#[test]
fn a_leading_tag_changes_nothing_in_any_format() {
    for name in ["mono_16k_s16.wav", "mono_16k_f32.wav", "mono_16k_s16.flac", "mono_44k1.ogg", "mono_48k.opus"] {
        let plain = decoded(&good(name));
        let tagged = decoded(&[id3(5000), good(name)].concat());
        assert_eq!(tagged.samples, plain.samples, "{name}");
        assert!(tagged.warnings.is_empty(), "{name}: {:?}", tagged.warnings);
    }
}

#[test]
fn an_mp3_cut_out_of_a_stream_is_found_by_its_frames() {
    let stream = untagged(MP3);
    let whole = decoded(&stream);
    let audio = decoded(&stream[1001..]);
    assert!(matches!(audio.warnings[..], [DecodeWarning::LostSync { bytes }] if bytes < 400), "{:?}", audio.warnings);
    assert!(audio.frames() < whole.frames() && audio.frames() > whole.frames() - 20 * 576);
    // The same frames at the end, after the decoder has seen enough of them.
    let tail = 20_000;
    let (a, b) = (&audio.samples[0], &whole.samples[0]);
    assert_eq!(a[a.len() - tail..], b[b.len() - tail..]);
}

#[test]
fn joined_mp3s_have_all_their_frames() {
    let one = decoded(&good(MP3)).frames();
    let stream = decoded(&untagged(MP3)).frames();
    for between in [vec![], id3(7000)] {
        let audio = decoded(&[good(MP3), between, good(MP3)].concat());
        // The first file's padding stays, and the second file's tag is a frame of silence.
        assert_eq!(audio.frames(), stream - (1105) + 576 + stream, "one file has {one}");
        assert!(audio.warnings.is_empty(), "{:?}", audio.warnings);
    }
    let rates = decode_bytes(&[good(VBR), good(MP3)].concat(), "joined").expect_err("the rates differ");
    assert!(matches!(rates, AudioError::File { fault: Fault::Malformed { .. }, .. }), "{rates}");
}

#[test]
fn cut_files_tell_what_is_missing() {
    let whole = good(MP3);
    let audio = decoded(&whole[..whole.len() / 2]);
    let missing = audio.warnings.iter().find_map(|warning| match warning {
        DecodeWarning::Truncated { claimed_frames, frames } => Some((*claimed_frames, *frames)),
        _ => None,
    });
    assert_eq!(missing, Some((Some(42_998), audio.frames() as u64)));
    assert!((15_000..25_000).contains(&audio.frames()), "{}", audio.frames());
    for name in ["mono_44k1.ogg", "mono_48k.opus", "mono_16k_s16.flac", "mono_16k_s16.wav"] {
        let whole = good(name);
        let (cut, all) = (decoded(&whole[..whole.len() * 2 / 3 + 1]), decoded(&whole));
        assert!(is_truncated(&cut) && cut.frames() < all.frames(), "{name}: {:?}", cut.warnings);
    }
    let stream = untagged(VBR);
    assert!(is_truncated(&decoded(&stream[..stream.len() - 100])), "a frame is cut");
}

#[test]
fn chained_opus_has_all_links() {
    let (one, other) = (decoded(&good("mono_48k.opus")), decoded(&good("original_48k_opus.webm")));
    let audio = decoded(&[good("mono_48k.opus"), good("original_48k_opus.webm"), good("mono_48k.opus")].concat());
    assert_eq!(audio.samples[0], [&one.samples[0][..], &other.samples[0], &one.samples[0]].concat());
    assert!(audio.warnings.is_empty(), "{:?}", audio.warnings);
}

/// A WAV file with the given header over 16-bit samples.
fn wav(channels: u16, byte_rate: u32, block_align: u16, bits: u16, samples: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    [
        b"RIFF".as_slice(),
        &(36 + data.len() as u32).to_le_bytes(),
        b"WAVEfmt \x10\0\0\0\x01\0",
        &channels.to_le_bytes(),
        &16_000u32.to_le_bytes(),
        &byte_rate.to_le_bytes(),
        &block_align.to_le_bytes(),
        &bits.to_le_bytes(),
        b"data",
        &(data.len() as u32).to_le_bytes(),
        &data,
    ]
    .concat()
}

/// The start of the samples of a WAV file.
fn data_start(bytes: &[u8]) -> usize {
    bytes.windows(4).position(|four| four == b"data").expect("it has a data chunk") + 8
}

#[test]
fn the_samples_settle_a_header_that_contradicts_itself() {
    let bytes = good("mono_16k_s16.wav");
    let mono: Vec<i16> =
        bytes[data_start(&bytes)..].as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
    let later = mono.iter().cycle().skip(9000);
    let stereo: Vec<i16> = mono.iter().zip(later).flat_map(|(left, right)| [*left, *right]).collect();
    let twice: Vec<i16> = mono.iter().flat_map(|sample| [*sample, *sample]).collect();
    let frames = mono.len();
    // Channels, byte rate, block_align and bits of the header; samples, and their real channels.
    for (header, samples, channels) in [
        ((1, 32_000, 1, 16), &mono, 1),
        ((1, 32_000, 6, 16), &mono, 1),
        ((1, 256_000, 16, 16), &mono, 1),
        ((1, 32_000, 0, 16), &mono, 1),
        ((1, 32_000, 2, 8), &mono, 1),
        ((1, 32_000, 2, 24), &mono, 1),
        ((1, 32_000, 2, 32), &mono, 1),
        ((2, 32_000, 2, 16), &mono, 1),
        ((2, 64_000, 2, 16), &stereo, 2),
        ((2, 32_000, 2, 16), &stereo, 2),
        ((2, 64_000, 16, 16), &stereo, 2),
        ((1, 64_000, 4, 16), &stereo, 2),
        ((4, 64_000, 4, 16), &stereo, 2),
        ((2, 32_000, 2, 16), &twice, 2),
    ] {
        let audio = decoded(&wav(header.0, header.1, header.2, header.3, samples));
        assert_eq!((audio.samples.len(), audio.frames()), (channels, frames), "{header:?}");
        assert_eq!(audio.samples[0][1000], f32::from(samples[1000 * channels]) / 32_768.0, "{header:?}");
        assert!(matches!(audio.warnings[..], [DecodeWarning::MendedHeader { .. }]), "{header:?}: {:?}", audio.warnings);
    }
    // A wrong byte rate alone has no effect.
    for (header, samples) in [((1, 12_345, 2, 16), &mono), ((2, 32_000, 4, 16), &stereo), ((2, 32_000, 4, 16), &twice)]
    {
        let audio = decoded(&wav(header.0, header.1, header.2, header.3, samples));
        assert_eq!((audio.frames(), audio.warnings.len()), (frames, 0), "{header:?}");
    }
    let mut noise = 1u32;
    let mut random = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 16) as i16
    };
    let noise: Vec<i16> = (0..30_000).map(|_| random()).collect();
    let refused = decode_bytes(&wav(1, 64_000, 4, 16, &noise), "noise").expect_err("noise in every reading");
    assert!(matches!(refused, AudioError::File { fault: Fault::Malformed { .. }, .. }), "{refused}");
}

#[test]
fn sizes_of_pipes_are_no_claims() {
    let mut bytes = good("mono_16k_s16.wav");
    let (frames, start) = (decoded(&bytes).frames(), data_start(&bytes));
    for size in [0x7fff_ffff_u32 - 36, 0x7fff_f000, 0x8000_0000, 0xffff_ffd8, u32::MAX] {
        bytes[start - 4..start].copy_from_slice(&size.to_le_bytes());
        let audio = decoded(&bytes);
        assert_eq!((audio.frames(), &audio.warnings[..]), (frames, &[DecodeWarning::StreamedSize][..]), "{size:#x}");
    }
    bytes[start - 4..start].copy_from_slice(&0x7000_0000u32.to_le_bytes());
    assert!(is_truncated(&decoded(&bytes)), "a size like any other");
}

/// The frames of a FLAC file with 16-bit numbers, by their sync codes and consecutive numbers; metadata first.
fn flac_frames(bytes: &[u8]) -> Vec<&[u8]> {
    let mut starts = vec![0];
    for at in 0..bytes.len() - 6 {
        if bytes[at..].starts_with(&[0xff, 0xf8]) && usize::from(bytes[at + 4]) == starts.len() - 1 {
            starts.push(at);
        }
    }
    starts.push(bytes.len());
    starts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

#[test]
fn flac_frames_count_whatever_the_header_says() {
    let bytes = good("mono_16k_s16.flac");
    let whole = decoded(&bytes);
    let parts = flac_frames(&bytes);
    let block = 1152;
    assert_eq!(parts.len() - 1, whole.frames().div_ceil(block));
    let (metadata, frames) = (parts[0], &parts[1..]);
    for range in [0..10, 5..20, 9..frames.len()] {
        let audio = decoded(&[metadata, &frames[range.clone()].concat()].concat());
        let span = range.start * block..(range.end * block).min(whole.frames());
        assert_eq!(audio.samples[0], whole.samples[0][span], "{range:?}");
        assert!(matches!(audio.warnings[..], [DecodeWarning::OtherLength { claimed_frames: 31_200, .. }]));
    }
    let joined = decoded(&[&bytes[..], &frames.concat()].concat());
    assert_eq!(joined.frames(), 2 * whole.frames());
    assert_eq!(decoded(&[&bytes[..], &bytes].concat()).frames(), 2 * whole.frames(), "joined by cat");
}

#[test]
fn many_channels_sound_as_ffmpeg_decodes_them() {
    for (name, reference) in [("vorbis_3.ogg", "vorbis_3"), ("vorbis_6.ogg", "vorbis_6"), ("opus_6.opus", "opus_6")] {
        let path = |name: &str| test_file(&format!("data/formats/multichannel/{name}"));
        let audio = decode_file(path(name)).unwrap_or_else(|error| panic!("{error}"));
        let reference = decode_file(path(&format!("{reference}.flac"))).expect("plain FLAC");
        assert_eq!((audio.samples.len(), audio.frames()), (reference.samples.len(), reference.frames()), "{name}");
        for (channel, (own, other)) in audio.samples.iter().zip(&reference.samples).enumerate() {
            let pairs = own.iter().zip(other).map(|(a, b)| (f64::from(*a), f64::from(*b)));
            let (signal, error) = pairs.fold((0.0, 0.0), |(s, e), (a, b)| (s + b * b, e + (a - b) * (a - b)));
            let decibels = 10.0 * (signal / f64::max(error, 1e-30)).log10();
            assert!(decibels > 45.0, "{name}, channel {channel}: {decibels:.1} dB");
        }
    }
}

#[test]
fn a_damaged_flac_frame_is_silence_and_keeps_its_place() {
    let bytes = good("mono_16k_s16.flac");
    let whole = decoded(&bytes);
    let parts = flac_frames(&bytes);
    let (block, damaged) = (1152, 5);
    let start: usize = parts[..=damaged].iter().map(|part| part.len()).sum();
    let length = parts[damaged + 1].len();
    let mut inside = bytes.clone();
    inside[start + length / 2..start + length / 2 + 20].fill(0x5a);
    let gone = [&bytes[..start + 3], &bytes[start + length..]].concat();
    for damaged_bytes in [inside, gone] {
        let audio = decoded(&damaged_bytes);
        assert!(matches!(audio.warnings[..], [DecodeWarning::CorruptPackets { count: 1, .. }]), "{:?}", audio.warnings);
        let mut expected = whole.samples[0].clone();
        expected[damaged * block..(damaged + 1) * block].fill(0.0);
        assert_eq!(audio.samples[0], expected);
    }
}

#[test]
fn flac_frames_are_believed_over_the_header() {
    let whole = decoded(&good("mono_16k_s16.flac"));
    // Rate, channels and bits are in this many bits from the 18th byte on.
    for (rate, channels, bits) in [(48_000u32, 1u32, 16u32), (16_000, 2, 16), (16_000, 1, 24)] {
        let mut bytes = good("mono_16k_s16.flac");
        let packed = rate << 12 | (channels - 1) << 9 | (bits - 1) << 4;
        bytes[18..22].copy_from_slice(&packed.to_be_bytes());
        let audio = decoded(&bytes);
        assert_eq!((audio.sample_rate, &audio.samples), (16_000, &whole.samples));
        assert!(matches!(audio.warnings[..], [DecodeWarning::MendedHeader { .. }]), "{:?}", audio.warnings);
    }
}
