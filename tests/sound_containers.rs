//! Sound in containers that are chained, holed, cut or odd: all of it is read, and what is missing is counted.

use std::collections::BTreeMap;
use std::fs;

use flowmill_audio::{Audio, AudioError, DecodeWarning, Fault, decode_bytes, probe_bytes};

use crate::support::mini::repository;
use crate::support::muxers::*;
use crate::support::{flowmill, parquet};

fn good(name: &str) -> Vec<u8> {
    fs::read(repository().join("tests/data/formats/good").join(name)).unwrap()
}

/// The decoded file, which probing agrees with.
#[track_caller]
fn decoded(bytes: &[u8]) -> Audio {
    let audio = decode_bytes(bytes, "made").unwrap_or_else(|error| panic!("{error}"));
    let info = probe_bytes(bytes, "made").unwrap();
    assert_eq!(
        (info.frames, info.sample_rate, &info.warnings),
        (audio.frames() as u64, audio.sample_rate, &audio.warnings)
    );
    audio
}

#[track_caller]
fn fault(bytes: &[u8]) -> Fault {
    match decode_bytes(bytes, "made").map(|audio| audio.frames()) {
        Err(AudioError::File { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_gap(audio: &Audio, missing: u64) {
    let gaps: Vec<_> = audio.warnings.iter().filter(|warning| matches!(warning, DecodeWarning::Gaps { .. })).collect();
    assert_eq!(gaps, [&DecodeWarning::Gaps { places: 1, frames: missing }], "{:?}", audio.warnings);
}

#[test]
fn links_of_different_codecs_follow_each_other() {
    let (opus, samples) = (good("mono_48k.opus"), wave(12_500));
    let flac = flac_in_ogg(7, &samples, 48_000).concat();
    let alone = decoded(&opus).samples.remove(0);
    let expected = [&alone[..], &floats(&samples), &alone].concat();
    let audio = decoded(&[&opus[..], &flac, &opus].concat());
    assert_eq!((&audio.samples[0], audio.sample_rate, audio.samples.len()), (&expected, 48_000, 1));
    assert!(audio.warnings.is_empty(), "{:?}", audio.warnings);

    let vorbis = good("mono_44k1.ogg");
    let flac = flac_in_ogg(7, &samples, 44_100).concat();
    let expected = [&decoded(&vorbis).samples[0][..], &floats(&samples)].concat();
    assert_eq!(decoded(&[&vorbis[..], &flac].concat()).samples, [expected]);

    // Links of different rates, and of a codec that is not decoded here, are no shorter rows.
    assert!(matches!(fault(&[vorbis, opus.clone()].concat()), Fault::Malformed { .. }));
    let speex = ogg_stream(3, &[[b"Speex   ".to_vec(), vec![0; 72]].concat()], &[vec![1; 20]], 320).concat();
    let chain = [opus, speex].concat();
    assert!(matches!(fault(&chain), Fault::UnsupportedCodec { .. }));
    assert!(flowmill_audio::Decoder::with_ffmpeg().decode(&chain, "made").is_err());
}

#[test]
fn sound_behind_a_video_stream_in_ogg_is_found() {
    let opus = good("mono_48k.opus");
    let video = |flags: u8, number: u32| ogg_page(flags, 0, 99, number, &[b"\x80theora\x03\x02\x01".to_vec()]);
    let packets = ogg_packets(&opus);
    let pages = ogg_stream(5, &packets[..2], &packets[2..], 960);
    let (first, rest) = pages.split_first().unwrap();
    let rest: Vec<u8> =
        rest.iter().enumerate().flat_map(|(at, page)| [page.clone(), video(0, at as u32 + 1)].concat()).collect();
    let audio = decoded(&[video(2, 0), first.clone(), rest].concat());
    assert_eq!(audio.samples, decoded(&pages.concat()).samples);
    // A file of video only says so.
    assert!(matches!(fault(&video(2, 0)), Fault::Malformed { problem, .. } if problem.contains("Theora")));
}

#[test]
fn a_lost_page_is_counted_and_the_rest_is_read() {
    let samples = wave(60_000);
    let mut pages = flac_in_ogg(7, &samples, 48_000);
    let lost = pages.remove(4);
    assert!(lost.len() > 10 * 2 * FLAC_BLOCK);
    let audio = decoded(&pages.concat());
    assert_gap(&audio, 10 * FLAC_BLOCK as u64);
    let expected = [&samples[..20_000], &samples[30_000..]].concat();
    assert_eq!(audio.samples, [floats(&expected)]);

    let packets = ogg_packets(&good("mono_48k.opus"));
    let mut pages = ogg_stream(5, &packets[..2], &packets[2..], 960);
    let whole = decoded(&pages.concat());
    pages.remove(5);
    let audio = decoded(&pages.concat());
    assert_gap(&audio, 9600);
    assert_eq!(audio.frames() + 9600, whole.frames());
}

#[test]
fn an_opus_stream_that_was_cut_from_another_keeps_its_end() {
    let packets = ogg_packets(&good("mono_48k.opus"));
    let whole = ogg_stream(5, &packets[..2], &packets[2..], 960);
    // The same with positions that begin below 0, as cutting without decoding leaves them.
    let moved = |page: &Vec<u8>| {
        let granule = i64::from_le_bytes(page[6..14].try_into().unwrap());
        let (number, packets) = (u32::from_le_bytes(page[18..22].try_into().unwrap()), ogg_packets(page));
        ogg_page(page[5], if granule > 0 { granule - 5000 } else { 0 }, 5, number, &packets)
    };
    let cut: Vec<u8> = whole.iter().flat_map(moved).collect();
    assert_eq!(decoded(&cut).samples, decoded(&whole.concat()).samples);
}

#[test]
fn frames_of_flac_that_were_cut_out_are_counted() {
    let samples = wave(30_000);
    let (info, mut frames) = flac_frames(&samples, 16_000);
    frames.drain(10..14);
    let audio = decoded(&flac_file(&info, &frames));
    assert_gap(&audio, 4 * FLAC_BLOCK as u64);
    assert_eq!(audio.samples, [floats(&[&samples[..10_000], &samples[14_000..]].concat())]);
}

/// A track of big-endian or little-endian PCM, a hundred frames per sample of the container.
fn pcm_track(codec: &[u8; 4], bits: u16) -> Mp4Track {
    Mp4Track { brand: *b"qt  ", codec: *codec, sample_rate: 16_000, bits, extra: Vec::new(), duration: 1 }
}

#[test]
fn pcm_of_quicktime_is_read_in_its_byte_order() {
    let samples = wave(3000);
    for (codec, big_endian) in [(b"twos", true), (b"sowt", false)] {
        let frames: Vec<Vec<u8>> = samples.iter().map(|sample| pcm(&[*sample], big_endian)).collect();
        let audio = decoded(&pcm_track(codec, 16).file(&frames));
        assert_eq!((&audio.samples[0], audio.sample_rate), (&floats(&samples), 16_000));
    }
    let frames: Vec<Vec<u8>> = samples.iter().map(|sample| [&sample.to_be_bytes()[..], &[0]].concat()).collect();
    assert_eq!(decoded(&pcm_track(b"in24", 24).file(&frames)).samples, [floats(&samples)]);
}

fn opus_track(duration: u32) -> (Mp4Track, Vec<Vec<u8>>) {
    let packets = ogg_packets(&good("mono_48k.opus"));
    // No pre-skip, so that every frame counts.
    let header = mp4_box(b"dOps", &[0, 1, 0, 0, 0, 0, 0xbb, 0x80, 0, 0, 0]);
    let track = Mp4Track { brand: *b"isom", codec: *b"Opus", sample_rate: 48_000, bits: 16, extra: header, duration };
    (track, packets[2..].to_vec())
}

#[test]
fn opus_in_mp4_is_that_of_ogg() {
    let (track, packets) = opus_track(960);
    let mut head = ogg_packets(&good("mono_48k.opus"))[0].clone();
    head[10..12].fill(0);
    let ogg = ogg_stream(5, &[head, b"OpusTags\0\0\0\0\0\0\0\0".to_vec()], &packets, 960).concat();
    let audio = decoded(&track.file(&packets));
    assert_eq!(audio.samples, decoded(&ogg).samples);
    assert_eq!(audio.frames(), 960 * packets.len());
    assert!(audio.warnings.is_empty(), "{:?}", audio.warnings);
}

#[test]
fn packets_shorter_than_the_tables_of_mp4_say_are_counted() {
    let (track, packets) = opus_track(960);
    let mut holed = packets.clone();
    // Zeros are packets of 10 ms.
    holed[20..50].iter_mut().for_each(|packet| packet.fill(0));
    let audio = decoded(&track.file(&holed));
    let missing: u64 = audio
        .warnings
        .iter()
        .map(|warning| if let DecodeWarning::Gaps { frames, .. } = warning { *frames } else { 0 })
        .sum();
    assert!((30 * 480 - 2880..=30 * 480).contains(&missing), "{missing}: {:?}", audio.warnings);
}

#[test]
fn a_lost_fragment_of_mp4_is_counted() {
    let (track, packets) = opus_track(960);
    let (head, fragments) = track.fragments(&packets);
    let whole = decoded(&[head.clone(), fragments.concat()].concat());
    assert_eq!((whole.frames(), whole.warnings.len()), (960 * packets.len(), 0), "{:?}", whole.warnings);
    let mut lost = fragments.clone();
    lost.drain(6..8);
    let audio = decoded(&[head.clone(), lost.concat()].concat());
    assert_gap(&audio, 10 * 960);
    // Zeros in place of a fragment end what can be read.
    let mut zeroed = fragments;
    zeroed[6].fill(0);
    let audio = decoded(&[head, zeroed.concat()].concat());
    assert!(matches!(audio.warnings[..], [DecodeWarning::Truncated { .. }]), "{:?}", audio.warnings);
}

#[test]
fn mp2_in_mp4_is_decoded_by_its_layer() {
    // Layer 2 at 48 kbit/s and 48 kHz in mono; no band has bits, which is silence.
    let frame = [vec![0xff, 0xfd, 0x24, 0xc0], vec![0; 140]].concat();
    let esds = [vec![0, 0, 0, 0, 3, 21, 0, 1, 0, 4, 13, 0x6b, 0x15], vec![0; 11], vec![6, 1, 2]].concat();
    let track = Mp4Track {
        brand: *b"isom",
        codec: *b"mp4a",
        sample_rate: 48_000,
        bits: 16,
        extra: mp4_box(b"esds", &esds),
        duration: 1152,
    };
    let file = track.file(&vec![frame; 20]);
    assert_eq!(probe_bytes(&file, "made").unwrap().codec, "mp2");
    assert_eq!(decoded(&file).samples, [vec![0.0; 20 * 1152]]);
}

#[test]
fn plain_containers_are_read_and_cut_ones_to_the_cut() {
    let samples = wave(5000);
    for file in [au(&samples, 16_000), caf(&samples, 16_000)] {
        assert_eq!(decoded(&file).samples, [floats(&samples)]);
        // The cut is inside a sample.
        let audio = decode_bytes(&file[..file.len() - 2001], "made").unwrap();
        assert_eq!(audio.samples, [floats(&samples[..3999])]);
        let truncated =
            audio.warnings.iter().any(|warning| matches!(warning, DecodeWarning::Truncated { frames: 3999, .. }));
        assert!(truncated, "{:?}", audio.warnings);
    }
    // A size that was never filled in.
    let mut live = caf(&samples, 16_000);
    let at = live.windows(4).position(|name| name == b"data").unwrap() + 4;
    live[at..at + 8].fill(0xff);
    assert_eq!(decoded(&live).samples, [floats(&samples)]);
    let common =
        [1u16.to_be_bytes().to_vec(), vec![0; 4], 16u16.to_be_bytes().to_vec(), b"\x40\x0c\xfa\0\0\0\0\0\0\0".to_vec()]
            .concat();
    let pipe = [b"FORM\0\0\0\0AIFFCOMM\0\0\0\x12".to_vec(), common, b"SSND".to_vec(), vec![0; 12], pcm(&samples, true)]
        .concat();
    let audio = decoded(&pipe);
    assert_eq!((audio.samples, audio.sample_rate), (vec![floats(&samples)], 16_000));
    assert_eq!(audio.warnings, [DecodeWarning::StreamedSize]);
}

#[test]
fn g711_has_one_byte_per_sample_whatever_the_header_says() {
    let bytes: Vec<u8> = (0..4000u32).map(|at| 0x80 | (at % 100) as u8).collect();
    let right = decoded(&wav(7, 1, 8000, 1, 8, &[(b"data", bytes.clone())]));
    assert_eq!(right.frames(), 4000);
    for bits in [0, 13, 14, 16] {
        assert_eq!(decoded(&wav(7, 1, 8000, 1, bits, &[(b"data", bytes.clone())])).samples, right.samples, "{bits}");
    }
    let a_law = |bits| decoded(&wav(6, 1, 8000, 1, bits, &[(b"data", bytes.clone())])).samples;
    assert_eq!(a_law(16), a_law(8));
}

#[test]
fn all_data_chunks_of_a_wav_file_are_read() {
    let samples = wave(3000);
    let chunk = |part: &[i16]| (b"data", pcm(part, false));
    let file =
        wav(1, 1, 16_000, 2, 16, &[chunk(&samples[..1000]), (b"LIST", b"INFO".to_vec()), chunk(&samples[1000..])]);
    let audio = decoded(&file);
    assert_eq!(audio.samples, [floats(&samples)]);
    assert_eq!(audio.warnings, [DecodeWarning::SeveralDataChunks { count: 2 }]);
}

/// An MPEG transport stream of one program with a track of the given type.
fn transport_stream(kind: u8) -> Vec<u8> {
    let packet = |pid: u8, section: &[u8]| {
        let mut packet = vec![0x47, 0x40, pid, 0x10, 0];
        packet.extend(section);
        packet.resize(188, 0xff);
        packet
    };
    let programs = [0, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xe0, 0x20, 0, 0, 0, 0];
    let map = [2, 0xb0, 18, 0, 1, 0xc1, 0, 0, 0xe1, 0, 0xf0, 0, kind, 0xe1, 0, 0xf0, 0, 0, 0, 0, 0];
    [packet(0, &programs), packet(0x20, &map), packet(0x1f, &[]), packet(0x1f, &[])].concat()
}

#[test]
fn codec_and_container_of_what_is_not_decoded_are_named() {
    let named = |bytes: &[u8]| match fault(bytes) {
        Fault::UnsupportedCodec { codec, container } => (codec, container),
        other => panic!("{other:?}"),
    };
    assert_eq!(named(&transport_stream(0x0f)), ("AAC".to_owned(), "MPEG transport stream".to_owned()));
    assert_eq!(named(&transport_stream(0x81)).0, "AC-3");
    let blu_ray: Vec<u8> = transport_stream(0x86).chunks(188).flat_map(|packet| [&[0; 4], packet].concat()).collect();
    assert_eq!(named(&blu_ray).0, "DTS");
    let pack = b"\0\0\x01\xba\x44\0\x04\0\x04\x01\x01\x89\xc3\xf8".to_vec();
    let program = |packet: &[u8]| [&pack[..], packet, &[0; 400]].concat();
    assert_eq!(
        named(&program(b"\0\0\x01\xc0\0\x08\x80\0\0\xff\xfd")),
        ("MPEG audio".to_owned(), "MPEG program stream".to_owned())
    );
    assert_eq!(named(&program(b"\0\0\x01\xbd\0\x08\x80\0\0\x80\0\0")).0, "AC-3");
    let nut =
        [b"nut/multimedia container\0NS\x11\x40\x5b\xf2\xf9\xdb\x10\0\x01\x04mp4a".to_vec(), vec![0; 100]].concat();
    assert_eq!(named(&nut), ("MPEG-4 audio".to_owned(), "NUT".to_owned()));
}

#[test]
fn free_format_mp3_is_not_sent_to_ffmpeg() {
    let frame = [vec![0xff, 0xfb, 0x00, 0xc4], vec![0; 600]].concat();
    let file = [frame.clone(), frame.clone(), frame].concat();
    let text = fault(&file).to_string();
    assert!(text.contains("nor by ffmpeg") && !text.contains("prep.fallback"), "{text}");
}

#[test]
fn preparation_reports_what_is_missing_inside() {
    let samples = wave(48_000);
    let mut pages = flac_in_ogg(7, &samples, 48_000);
    pages.remove(3);
    let (info, mut frames) = flac_frames(&samples, 48_000);
    frames.drain(20..30);
    let chain = [good("mono_48k.opus"), flac_in_ogg(7, &samples, 48_000).concat()].concat();
    let files = [
        ("chain.ogg", chain, 2.95),
        ("frames.flac", flac_file(&info, &frames), 38.0 / 48.0),
        ("page.ogg", pages.concat(), 38.0 / 48.0),
        ("whole.caf", caf(&samples, 48_000), 1.0),
    ];
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    for (name, bytes, _) in &files {
        fs::write(data.join(name), bytes).unwrap();
        fs::write(data.join(name).with_extension("txt"), "Die Burg lag auf einem Berggrat.").unwrap();
    }
    // Names of media that nothing decodes are rows that are rejected.
    let odd = ["mlp", "thd", "paf", "sf", "ircam", "sox", "htk", "vox", "nut"];
    odd.iter()
        .for_each(|ending| fs::write(data.join(format!("odd-{ending}.{ending}")), [1, 2, 3, 4].repeat(300)).unwrap());
    let recipe = "name: holes\nmax_rejected: 1.0\n\
        prep: {data: data, format: folder, min_text: 0, split: {by: fraction, fractions: {}}}\n";
    fs::write(folder.path().join("recipe.yaml"), recipe).unwrap();
    let outcome = flowmill(folder.path(), &["run", ".", "--stop-stage", "prep"]).expect_code(0);
    outcome.expect_words(&["recordings with gaps 2"]);
    let table = folder.path().join("exp/holes/0-prep/train/part-00000.parquet");
    let seconds: BTreeMap<String, f64> =
        parquet::texts(&table, "wav").into_iter().zip(parquet::numbers(&table, "duration")).collect();
    for (name, _, expected) in files {
        let own =
            seconds.iter().find(|(wav, _)| wav.ends_with(name)).unwrap_or_else(|| panic!("{name}: {seconds:?}")).1;
        assert!((own - expected).abs() < 0.01, "{name}: {own}");
    }
    let rejected = parquet::texts(&folder.path().join("exp/holes/0-prep/rejected.parquet"), "id");
    assert_eq!(rejected.len(), odd.len(), "{rejected:?}");
}
