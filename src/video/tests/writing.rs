//! Written videos, read back here and by ffprobe where it is installed.

use std::process::Command;

use flowmill_audio::Audio;
use flowmill_video::clip::{self, ClipOptions};
use flowmill_video::write::{WriteOptions, mp4};
use flowmill_video::{Frame, VideoError};

/// A picture with a moving disk on a ramp.
fn frame(at: usize, size: u32) -> Frame {
    let center = size as f64 / 2.0 + 10.0 * (at as f64 / 5.0).sin();
    let mut rgb = Vec::new();
    for y in 0..size {
        for x in 0..size {
            let inside = (f64::from(x) - center).hypot(f64::from(y) - f64::from(size) / 2.0) < f64::from(size) / 5.0;
            let ramp = (x * 200 / size) as u8;
            rgb.extend(if inside { [220, 90, 60] } else { [ramp, 120, 200 - ramp] });
        }
    }
    Frame { width: size, height: size, rgb }
}

fn tone(rate: u32, seconds: f64, channels: usize) -> Audio {
    let samples = (0..(f64::from(rate) * seconds) as usize)
        .map(|at| 0.4 * (at as f32 * 440.0 * std::f32::consts::TAU / rate as f32).sin());
    Audio { samples: vec![samples.collect(); channels], sample_rate: rate, warnings: Vec::new() }
}

fn psnr(a: &Frame, b: &Frame) -> f64 {
    let error: f64 = a.rgb.iter().zip(&b.rgb).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) * a.rgb.len() as f64 / error.max(1e-9)).log10()
}

#[test]
fn a_written_video_is_read_back() {
    let frames: Vec<Frame> = (0..60).map(|at| frame(at, 128)).collect();
    let audio = tone(16_000, 2.4, 1);
    let bytes = mp4(&frames, Some(&audio), &WriteOptions::default()).unwrap();
    assert_eq!(bytes, mp4(&frames, Some(&audio), &WriteOptions::default()).unwrap(), "the same bytes");
    let back = clip::read_bytes(&bytes, "back.mp4", &ClipOptions::default()).unwrap();
    assert_eq!((back.frames.len(), back.notes.len()), (60, 0), "{:?}", back.notes);
    let worst = frames.iter().zip(&back.frames).map(|(a, b)| psnr(a, b)).fold(f64::INFINITY, f64::min);
    assert!(worst > 30.0, "{worst} dB");
    let sound = back.audio.unwrap();
    assert_eq!((sound.sample_rate, sound.frames()), (48_000, 115_200));
    // In step: the phase of the tone is that of the input.
    let at = |second: f64| sound.samples[0][(second * 48_000.0) as usize];
    let expected = |second: f64| 0.4 * (second as f32 * 440.0 * std::f32::consts::TAU).sin();
    for second in [0.5, 1.0003, 2.0001] {
        assert!((at(second) - expected(second)).abs() < 0.08, "{} {}", at(second), expected(second));
    }
}

#[test]
fn rates_and_sizes_are_kept() {
    let frames: Vec<Frame> = (0..30).map(|at| frame(at, 64)).collect();
    let fps = 30_000.0 / 1001.0;
    let bytes = mp4(&frames, Some(&tone(44_100, 1.0, 2)), &WriteOptions { fps }).unwrap();
    let back = clip::read_bytes(&bytes, "a.mp4", &ClipOptions { fps, ..ClipOptions::default() }).unwrap();
    assert_eq!((back.frames.len(), back.audio.unwrap().samples.len()), (30, 2));
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let options = WriteOptions::default();
    let fails = |frames: &[Frame]| matches!(mp4(frames, None, &options), Err(VideoError::Write { .. }));
    assert!(fails(&[]));
    assert!(fails(&[Frame::filled(65, 64, [0; 3])]));
    assert!(fails(&[Frame::filled(64, 64, [0; 3]), Frame::filled(32, 32, [0; 3])]));
    assert!(mp4(&[Frame::filled(64, 64, [0; 3])], None, &WriteOptions { fps: f64::NAN }).is_err());
}

#[test]
fn ffprobe_agrees() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let frames: Vec<Frame> = (0..50).map(|at| frame(at, 64)).collect();
    std::fs::write(file.path(), mp4(&frames, Some(&tone(16_000, 2.0, 1)), &WriteOptions::default()).unwrap()).unwrap();
    let entries = "stream=codec_name,width,r_frame_rate,nb_read_frames,start_time,duration";
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-count_frames", "-show_entries", entries, "-of", "default=noprint_wrappers=1"]);
    let Ok(shown) = command.arg(file.path()).output() else { return };
    let (text, problems) = (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    assert_eq!(problems, "", "{text}");
    for line in [
        "codec_name=h264",
        "width=64",
        "r_frame_rate=25/1",
        "duration=2.000000",
        "nb_read_frames=50",
        "codec_name=opus",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
