//! Griffin-Lim on real speech, pitch, and pictures.

mod common;

use common::Golden;
use flowmill_audio::features::{Features, MelConfig, MelSpectrogram};
use flowmill_audio::measure::{correlation, energy_contour, log_spectral_distance};
use flowmill_audio::pitch::{PitchConfig, track_pitch};
use flowmill_audio::spectrogram_image::{Panel, write_png};
use flowmill_audio::vocode::{GriffinLimStream, griffin_lim};

fn speech() -> Vec<f32> {
    Golden::read("features").floats("in.wav_24k").0
}

fn mel(samples: &[f32]) -> Features {
    MelSpectrogram::new(MelConfig::cosyvoice2()).and_then(|mel| mel.compute(samples)).expect("long enough")
}

#[test]
fn griffin_lim_speaks_the_same() {
    let real = speech();
    let real_mel = mel(&real);
    let config = MelConfig::cosyvoice2();
    let start = std::time::Instant::now();
    let made = griffin_lim(&real_mel, &config, 60).expect("the mel fits its own configuration");
    println!("{:.0} ms for {:.2} s", start.elapsed().as_secs_f64() * 1e3, real.len() as f64 / 24_000.0);
    assert_eq!(made.len(), real_mel.frames * config.hop_length);
    assert!(made.iter().all(|sample| sample.is_finite()));
    let distance = log_spectral_distance(&real_mel, &mel(&made)).expect("same bins");
    let energies = (energy_contour(&real, config.hop_length), energy_contour(&made, config.hop_length));
    let energy = correlation(&energies.0, &energies.1).expect("speech is not constant");
    let pitch = PitchConfig::default();
    let (one, other) = (track_pitch(&real, &pitch).expect("valid"), track_pitch(&made, &pitch).expect("valid"));
    let both: Vec<(f64, f64)> = one
        .f0
        .iter()
        .zip(&other.f0)
        .filter(|(a, b)| **a > 0.0 && **b > 0.0)
        .map(|(a, b)| (f64::from(*a), f64::from(*b)))
        .collect();
    let (a, b): (Vec<f64>, Vec<f64>) = both.into_iter().unzip();
    let tune = correlation(&a, &b).expect("the pitch moves");
    println!("log-spectral distance {distance:.2} dB, energy {energy:.3}, pitch {tune:.3} over {} frames", a.len());
    if let Some(folder) = std::env::var_os("FLOWMILL_KEEP") {
        let folder = std::path::Path::new(&folder);
        let create = |name: &str| std::fs::File::create(folder.join(name)).expect("the folder is writable");
        flowmill_audio::write_wav(create("made.wav"), &made, 24_000).expect("written");
        let panels =
            [Panel { title: "real", log_mel: &real_mel }, Panel { title: "resynthesized", log_mel: &mel(&made) }];
        write_png(create("made.png"), "1688-142285-0002", &panels, &config).expect("written");
    }
    assert!(distance < 3.0, "{distance} dB");
    assert!(energy > 0.97, "{energy}");
    assert!(tune > 0.9, "{tune}");
}

#[test]
fn griffin_lim_repeats_itself() {
    let real_mel = mel(&speech()[..24_000]);
    let config = MelConfig::cosyvoice2();
    let one = griffin_lim(&real_mel, &config, 5).expect("fits");
    let other = std::thread::spawn({
        let real_mel = real_mel.clone();
        move || griffin_lim(&real_mel, &MelConfig::cosyvoice2(), 5)
    });
    assert_eq!(one, other.join().expect("no panic").expect("fits"));
}

/// The largest jump of the slope around a sample, relative to the loudness there.
fn jump(samples: &[f32], at: usize) -> f32 {
    let window = &samples[at.saturating_sub(240)..(at + 240).min(samples.len())];
    let loudness = (window.iter().map(|x| x * x).sum::<f32>() / window.len() as f32).sqrt().max(1e-3);
    let near = &samples[at.saturating_sub(4)..(at + 4).min(samples.len())];
    near.windows(3).map(|three| (three[0] - 2.0 * three[1] + three[2]).abs()).fold(0.0, f32::max) / loudness
}

#[test]
fn griffin_lim_in_parts_has_no_breaks() {
    let config = MelConfig::cosyvoice2();
    let real = mel(&speech());
    let rows = |from: usize, to: usize| {
        Features::new(real.data[from * real.bins..to * real.bins].to_vec(), to - from, real.bins)
            .expect("the length fits")
    };
    let whole = griffin_lim(&real, &config, 60).expect("fits");
    let one = GriffinLimStream::new(config.clone(), 60).and_then(|mut stream| stream.push(&real, true)).expect("fits");
    assert_eq!(one, whole);
    let step = 25;
    let (mut stream, mut samples, mut joins) =
        (GriffinLimStream::new(config.clone(), 60).expect("valid"), Vec::new(), Vec::new());
    for from in (0..real.frames).step_by(step) {
        let to = real.frames.min(from + step);
        joins.push(samples.len());
        samples.extend(stream.push(&rows(from, to), to == real.frames).expect("fits"));
    }
    assert_eq!(samples.len(), whole.len());
    let distance = |samples: &[f32]| log_spectral_distance(&real, &mel(samples)).expect("same bins");
    println!("whole {:.2} dB, in parts of {step} frames {:.2} dB", distance(&whole), distance(&samples));
    assert!(distance(&samples) < distance(&whole) + 0.7);
    // The sound around joins is no rougher than elsewhere.
    let elsewhere = (1000..samples.len() - 1000).step_by(97).map(|at| jump(&samples, at));
    let mut elsewhere: Vec<f32> = elsewhere.collect();
    elsewhere.sort_by(f32::total_cmp);
    let usual = elsewhere[elsewhere.len() * 99 / 100];
    for join in joins.into_iter().filter(|join| *join > 0) {
        println!("join at {join}: {:.3}, usual at most {usual:.3}", jump(&samples, join));
        assert!(jump(&samples, join) < 1.5 * usual, "{join}");
    }
}

#[test]
fn griffin_lim_refuses_what_is_no_spectrogram() {
    let config = MelConfig::cosyvoice2();
    let features = |value: f32, bins: usize| Features::new(vec![value; 4 * bins], 4, bins).expect("the length fits");
    assert!(griffin_lim(&features(0.0, 79), &config, 5).is_err());
    assert!(griffin_lim(&features(f32::NAN, 80), &config, 5).is_err());
    assert!(griffin_lim(&features(80.0, 80), &config, 5).is_err());
    assert_eq!(griffin_lim(&features(-11.5, 80), &config, 5).expect("silence is fine").len(), 4 * 480);
}

#[test]
fn pitch_follows_a_sweep() {
    let config = PitchConfig::default();
    // A sawtooth of twelve harmonics sweeping from 100 to 300 Hz in two seconds, then half a second of silence.
    let rate = f64::from(config.sample_rate);
    let f0 = |t: f64| 100.0 * 3f64.powf(t / 2.0);
    let mut phase = 0.0;
    let samples: Vec<f32> = (0..(2.5 * rate) as usize)
        .map(|n| {
            let t = n as f64 / rate;
            phase += std::f64::consts::TAU * f0(t) / rate;
            let wave: f64 = (1..=12).map(|h| (f64::from(h) * phase).sin() / f64::from(h)).sum();
            if t < 2.0 { (0.2 * wave) as f32 } else { 0.0 }
        })
        .collect();
    let track = track_pitch(&samples, &config).expect("valid");
    assert_eq!(track.f0.len(), 125);
    for (frame, (pitch, voiced)) in track.f0.iter().zip(&track.voiced).enumerate().take(98).skip(2) {
        let expected = f0((frame as f64 + 0.5) * 480.0 / rate);
        assert!(voiced, "frame {frame} is voiced");
        assert!((f64::from(*pitch) / expected - 1.0).abs() < 0.01, "frame {frame}: {pitch} instead of {expected}");
    }
    assert!(track.voiced[103..].iter().all(|voiced| !voiced), "silence has no pitch");
}

#[test]
fn noise_and_short_signals_have_no_pitch() {
    let config = PitchConfig::default();
    let mut state = 1u32;
    let noise: Vec<f32> = (0..24_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
        })
        .collect();
    let voiced = track_pitch(&noise, &config).expect("valid").voiced.iter().filter(|voiced| **voiced).count();
    assert!(voiced <= 1, "{voiced} of 50 frames of noise are voiced");
    assert_eq!(track_pitch(&[0.1], &config).expect("valid").voiced, [false]);
    assert_eq!(track_pitch(&[], &config).expect("valid").voiced, [false]);
}

#[test]
fn pictures_have_the_right_shape() {
    let config = MelConfig::cosyvoice2();
    let mel = mel(&speech());
    let mut bytes = Vec::new();
    let panels = [Panel { title: "real", log_mel: &mel }, Panel { title: "generated", log_mel: &mel }];
    write_png(&mut bytes, "title", &panels, &config).expect("a valid picture");
    let mut again = Vec::new();
    write_png(&mut again, "title", &panels, &config).expect("a valid picture");
    assert_eq!(bytes, again, "the same picture has the same bytes");
    let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().expect("it is a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("small")];
    let info = reader.next_frame(&mut pixels).expect("it decodes");
    assert_eq!((info.width, info.height), (76 + 560 + 104, 42 + 2 * (28 + 240) + 16 + 58));
    // The two panels show the same.
    let row = |y: u32| &pixels[(y * info.width * 3) as usize + 76 * 3..][..560 * 3];
    assert_eq!(row(42 + 28 + 100), row(42 + 28 + 100 + 284));
    assert!(row(170).chunks(3).any(|pixel| pixel != &row(170)[..3]), "it is not one color");
    assert!(write_png(&mut bytes, "title", &[], &config).is_err());
}
