//! Frames and sound of real files against those of ffmpeg.

use std::path::PathBuf;

use flowmill_audio::Decoder;
use flowmill_video::clip::{self, Clip, ClipOptions, SoundPolicy};
use flowmill_video::{ClipNote, Fault, Frame, VideoError};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn read(name: &str) -> Clip {
    clip::read(data(name), &ClipOptions::default()).unwrap()
}

fn all_frames(sound: SoundPolicy) -> ClipOptions {
    ClipOptions { sound, ..ClipOptions::default() }
}

fn fault(result: Result<Clip, VideoError>) -> Fault {
    match result.unwrap_err() {
        VideoError::File { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

/// The upper left quarter.
fn quarter(frame: &Frame) -> Frame {
    let (width, height) = (frame.width / 2, frame.height / 2);
    let rows = frame.rgb.chunks(frame.width as usize * 3).take(height as usize);
    Frame { width, height, rgb: rows.flat_map(|row| row[..width as usize * 3].to_vec()).collect() }
}

#[test]
fn frames_are_those_of_ffmpeg() {
    let table = std::fs::read_to_string(data("expected.tsv")).unwrap();
    let mut checked = 0;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields[0] == "odd_65x63.mp4" {
            continue;
        }
        let clip = clip::read(data(fields[0]), &all_frames(SoundPolicy::Ignore)).unwrap();
        let frames: usize = fields[3].parse().unwrap();
        // ffmpeg does not know that the times of Matroska are rounded, so it gives the last frame twice.
        let rounded = usize::from(fields[0].ends_with(".mkv"));
        assert_eq!(clip.frames.len(), frames - rounded, "{line}");
        let at: usize = fields[4].parse().unwrap();
        let frame = &clip.frames[at.min(clip.frames.len() - 1)];
        assert_eq!((frame.width.to_string(), frame.height.to_string()), (fields[1].into(), fields[2].into()));
        let means = frame.mean().into_iter().chain(quarter(frame).mean());
        for (mean, expected) in means.zip(&fields[5..]) {
            let expected: f64 = expected.parse().unwrap();
            assert!((mean - expected).abs() < 0.3, "{line}: {mean}");
        }
        checked += 1;
    }
    assert!(checked >= 36, "{checked}");
}

#[test]
fn other_rates_repeat_or_skip_frames() {
    let at = |fps: f64| {
        let options = ClipOptions { fps, ..all_frames(SoundPolicy::Ignore) };
        clip::read(data("fps25.mp4"), &options).unwrap().frames
    };
    let (whole, half, double) = (at(25.0), at(12.5), at(50.0));
    assert_eq!((whole.len(), half.len(), double.len()), (50, 25, 100));
    assert!((0..25).all(|n| half[n] == whole[2 * n]));
    assert!((0..100).all(|n| double[n] == whole[n / 2]));
    let wrong = ClipOptions { fps: 0.0, ..ClipOptions::default() };
    assert!(matches!(clip::read(data("fps25.mp4"), &wrong), Err(VideoError::Config { field: "fps", .. })));
}

#[test]
fn a_part_of_a_video_has_the_frames_and_the_sound_of_that_part() {
    let whole = read("fps25.mp4");
    for start in [0.0, 0.4, 1.0] {
        let options =
            ClipOptions { start_seconds: Some(start), end_seconds: Some(start + 0.8), ..ClipOptions::default() };
        let part = clip::read(data("fps25.mp4"), &options).unwrap();
        let first = (start * 25.0f64).round() as usize;
        assert_eq!(part.frames, whole.frames[first..first + 20]);
        let (part, whole) = (part.audio.unwrap(), whole.audio.as_ref().unwrap());
        let rate = whole.sample_rate as usize;
        let first = (start * rate as f64).round() as usize;
        assert_eq!(part.frames(), (0.8 * rate as f64).round() as usize);
        assert_eq!(part.samples[0], whole.samples[0][first..first + part.frames()]);
    }
    let outside = ClipOptions { start_seconds: Some(1.0), end_seconds: Some(9.0), ..ClipOptions::default() };
    assert!(matches!(fault(clip::read(data("fps25.mp4"), &outside)), Fault::Segment { .. }));
    let late = ClipOptions { start_seconds: Some(5.0), ..ClipOptions::default() };
    assert!(matches!(fault(clip::read(data("fps25.mp4"), &late)), Fault::Segment { .. }));
}

#[test]
fn sound_is_in_step_with_the_picture() {
    let late = read("late_sound.mp4");
    let audio = late.audio.as_ref().unwrap();
    let silence = (0.273 * f64::from(audio.sample_rate)) as usize;
    assert!(audio.samples[0][..silence - 200].iter().all(|sample| *sample == 0.0));
    assert!(audio.samples[0][silence..].iter().any(|sample| sample.abs() > 0.05));
    assert!((audio.seconds() - late.frames.len() as f64 / 25.0).abs() < 1e-4);
    assert!(
        late.notes.iter().any(|note| matches!(note, ClipNote::LateSound { seconds } if (seconds - 0.32).abs() < 0.06))
    );

    let short = read("short_sound.mp4");
    assert!((44..=48).contains(&short.frames.len()), "{}", short.frames.len());
    assert!(short.notes.iter().any(|note| matches!(note, ClipNote::ShortSound { cut: true, .. })));
    let padded = clip::read(data("short_sound.mp4"), &all_frames(SoundPolicy::AddSilence)).unwrap();
    assert_eq!((padded.frames.len(), padded.audio.as_ref().unwrap().seconds()), (100, 4.0));
    assert!(padded.notes.iter().any(|note| matches!(note, ClipNote::ShortSound { cut: false, .. })));

    let silent = read("silent.mp4");
    assert_eq!((silent.frames.len(), silent.audio), (50, None));
    // A difference of a tenth of a second is filled, so no frame is lost.
    let whole = read("fps25.mp4");
    assert_eq!((whole.frames.len(), whole.audio.unwrap().seconds()), (50, 2.0));
}

#[test]
fn sound_alone_is_that_of_the_clip() {
    for name in ["fps25.mp4", "late_sound.mp4", "short_sound.mp4", "remuxed.mkv"] {
        let bytes = std::fs::read(data(name)).unwrap();
        let (sound, _) = clip::read_sound(&bytes, name, &ClipOptions::default()).unwrap().unwrap();
        assert_eq!(Some(sound), read(name).audio, "{name}");
    }
    let bytes = std::fs::read(data("silent.mp4")).unwrap();
    assert_eq!(clip::read_sound(&bytes, "silent", &ClipOptions::default()).unwrap(), None);
}

#[test]
fn rotation_is_applied_and_told() {
    let (turned, upright) = (read("rotated.mp4"), read("silent.mp4"));
    assert_eq!(turned.frames[0], upright.frames[0].clone().rotated(270));
    assert!(turned.notes.contains(&ClipNote::Rotated { degrees: 270 }));
}

#[test]
fn bad_files_are_rejected_by_kind() {
    let options = ClipOptions::default();
    let bytes = |bytes: &[u8]| fault(clip::read_bytes(bytes, "x.mp4", &options));
    assert!(matches!(bytes(b""), Fault::Empty));
    assert!(matches!(bytes(b"Kids are talking by the door.\n"), Fault::Text { .. }));
    assert!(matches!(
        bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
        Fault::StandIn { .. }
    ));
    assert!(matches!(bytes(&[0x93, 7, 200, 1, 0, 255, 3, 9]), Fault::Unrecognized { .. }));
    assert!(matches!(bytes(b"\0\0\x01\xba\x21\0\x01\0"), Fault::UnsupportedCodec { .. }));
    assert!(matches!(fault(clip::read(data("truncated.mp4"), &options)), Fault::Malformed { .. }));
    assert!(matches!(fault(clip::read(data("odd_65x63.mp4"), &options)), Fault::UnsupportedCodec { .. }));
    assert!(matches!(fault(clip::read(data("none.mp4"), &options)), Fault::Io(_)));
    let few = ClipOptions { max_frames: 10, ..ClipOptions::default() };
    assert!(matches!(fault(clip::read(data("fps25.mp4"), &few)), Fault::Limit { value: 50, limit: 10, .. }));
    let small = ClipOptions { max_pixels: 1000, ..ClipOptions::default() };
    assert!(matches!(fault(clip::read(data("fps25.mp4"), &small)), Fault::Limit { value: 4096, .. }));
}

#[test]
fn a_file_whose_end_is_missing_is_truncated() {
    // The index comes first in a written file.
    let frames: Vec<Frame> = (0..20).map(|n| Frame::filled(64, 64, [n * 9, 80, 200 - n * 5])).collect();
    let bytes = flowmill_video::write::mp4(&frames, None, &Default::default()).unwrap();
    let result = clip::read_bytes(&bytes[..bytes.len() - 40], "x.mp4", &ClipOptions::default());
    assert!(matches!(fault(result), Fault::Truncated { frames: 20, missing, .. } if missing >= 1));
}

#[test]
fn damage_gives_errors_and_no_panic() {
    let name = "fps25.mp4";
    let good = std::fs::read(data(name)).unwrap();
    let mut seed = 1u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let mut rejected = 0;
    for round in 0..150 {
        let mut bytes = good.clone();
        for _ in 0..1 + next() % 8 {
            // Half of the damage goes to the index at the end.
            let at = if round % 2 == 0 { next() % bytes.len() } else { bytes.len() - 1 - next() % 3000 };
            bytes[at] = next() as u8;
        }
        if round % 5 == 0 {
            bytes.truncate(next() % good.len());
        }
        rejected += usize::from(clip::read_bytes(&bytes, name, &ClipOptions::default()).is_err());
    }
    assert!(rejected > 20, "{rejected}");
}

#[test]
fn ffmpeg_decodes_what_is_not_decoded_here() {
    let with = ClipOptions { decoder: Decoder::with_ffmpeg(), ..ClipOptions::default() };
    let result = clip::read(data("odd_65x63.mp4"), &with);
    if flowmill_audio::ffmpeg::version().is_none() {
        assert!(matches!(fault(result), Fault::FallbackMissing { .. }));
        return;
    }
    let clip = result.unwrap();
    assert_eq!((clip.frames.len(), clip.frames[0].width, clip.frames[0].height), (50, 65, 63));
    assert_eq!(clip.audio.unwrap().seconds(), 2.0);
    assert!(clip.notes.iter().any(|note| matches!(note, ClipNote::ByFallback { .. })));
    let table = std::fs::read_to_string(data("expected.tsv")).unwrap();
    let line = table.lines().find(|line| line.starts_with("odd_65x63.mp4\t65\t63\t50\t25")).unwrap();
    let red: f64 = line.split('\t').nth(5).unwrap().parse().unwrap();
    assert!((clip.frames[25].mean()[0] - red).abs() < 0.1);
    let part = ClipOptions { start_seconds: Some(0.4), end_seconds: Some(0.8), ..with.clone() };
    let part = clip::read(data("odd_65x63.mp4"), &part).unwrap();
    assert_eq!(part.frames, clip.frames[10..20]);
    assert!(matches!(fault(clip::read(data("truncated.mp4"), &with)), Fault::Malformed { .. }));
}
