//! Features and resampling compared with the values of the public Python implementations.

mod common;

use common::Golden;
use flowmill_audio::features::{Features, KaldiConfig, KaldiFbank, MelConfig, MelSpectrogram, WhisperLogMel};
use flowmill_audio::{resample, trim_silence};

const TOLERANCE: f32 = 2e-3;

fn compare(what: &str, ours: &[f32], expected: &[f32]) {
    assert_eq!(ours.len(), expected.len(), "{what}: number of values");
    let (worst, difference) = ours
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .enumerate()
        .fold((0, 0.0), |most, (at, difference)| if difference > most.1 { (at, difference) } else { most });
    println!("{what}: largest difference {difference:.2e}");
    assert!(ours.iter().all(|value| value.is_finite()), "{what}: all values are finite");
    assert!(
        difference <= TOLERANCE,
        "{what}: {difference} at value {worst}: {} instead of {}",
        ours[worst],
        expected[worst]
    );
}

fn compare_frames(what: &str, golden: &Golden, ours: &Features) {
    let (expected, shape) = golden.floats(&format!("out.{what}"));
    assert_eq!([ours.frames, ours.bins], shape[..], "{what}: shape");
    compare(what, &ours.data, &expected);
}

fn compare_bins(what: &str, golden: &Golden, ours: &Features) {
    let (expected, shape) = golden.floats(&format!("out.{what}"));
    assert_eq!([ours.bins, ours.frames], shape[..], "{what}: shape");
    compare(what, &ours.transposed(), &expected);
}

fn kaldi(config: KaldiConfig, samples: &[f32]) -> Features {
    KaldiFbank::new(config).and_then(|fbank| fbank.compute(samples)).expect("the golden waveform is long enough")
}

#[test]
fn kaldi_filter_banks() {
    let golden = Golden::read("features");
    let (samples, _) = golden.floats("in.wav_16k");
    compare_frames("kaldi_fbank80", &golden, &kaldi(KaldiConfig::default(), &samples));
    compare_frames("kaldi_fbank80_cmn", &golden, &kaldi(KaldiConfig::campplus(), &samples));
    compare_frames("kaldi_fbank80_hamming_int16", &golden, &kaldi(KaldiConfig::paraformer(), &samples));
}

#[test]
fn whisper_log_mels() {
    let golden = Golden::read("features");
    let (samples, _) = golden.floats("in.wav_16k");
    for bins in [80, 128] {
        let ours = WhisperLogMel::new(bins).and_then(|mel| mel.compute(&samples)).expect("80 and 128 exist");
        compare_bins(&format!("whisper_logmel{bins}"), &golden, &ours);
    }
}

#[test]
fn mels_of_published_models() {
    let golden = Golden::read("features");
    let presets = [
        ("in.wav_22k", "mel22k_matcha", MelConfig::matcha()),
        ("in.wav_24k", "mel24k_cosyvoice2", MelConfig::cosyvoice2()),
        ("in.wav_24k", "mel24k_step", MelConfig::step_audio()),
    ];
    for (waveform, name, config) in presets {
        let (samples, _) = golden.floats(waveform);
        assert_eq!(config.frames(samples.len()), golden.floats(&format!("out.{name}")).1[1], "{name}: frames");
        let ours = MelSpectrogram::new(config).and_then(|mel| mel.compute(&samples)).expect("presets are valid");
        compare_bins(name, &golden, &ours);
    }
}

#[test]
fn librosa_trim() {
    let golden = Golden::read("features");
    let (samples, _) = golden.floats("in.wav_16k");
    let (start, end) = trim_silence(&samples, &Default::default()).expect("the defaults are valid");
    assert_eq!([start as i64, end as i64], golden.integers("out.librosa_trim_index_top20")[..]);
}

#[test]
fn resampling() {
    let golden = Golden::read("features");
    let (source, _) = golden.floats("in.wav_16k");
    for (rate, name) in [(22_050, "in.wav_22k"), (24_000, "in.wav_24k")] {
        let (expected, _) = golden.floats(name);
        let ours = resample(&source, 16_000, rate).expect("both rates are ordinary");
        assert_eq!(ours.len(), expected.len(), "{rate} Hz: number of samples");
        let power = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
        let signal = power(&mut expected.iter().map(|x| f64::from(*x)));
        let noise = power(&mut ours.iter().zip(&expected).map(|(a, b)| f64::from(a - b)));
        let decibels = 10.0 * (signal / noise.max(f64::MIN_POSITIVE)).log10();
        println!("{rate} Hz: {decibels:.1} dB");
        assert!(decibels >= 60.0, "{rate} Hz: signal-to-noise ratio {decibels:.1} dB");
    }
}

#[test]
fn resampling_speech_between_rates_that_hardly_reduce() {
    // Up by rubato, since the filters of the pair would be huge, and back by the exact filters.
    let (source, _) = Golden::read("features").floats("in.wav_16k");
    let up = resample(&source, 16_000, 44_101).expect("both rates are within bounds");
    let back = resample(&up, 44_101, 16_000).expect("both rates are within bounds");
    // Speech up to 4 kHz, which both leave alone.
    let low = |samples: &[f32]| resample(samples, 16_000, 8000).expect("both rates are ordinary");
    let (expected, ours) = (low(&source), low(&back[..source.len()]));
    let power = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let signal = power(&mut expected.iter().map(|x| f64::from(*x)));
    let noise = power(&mut ours.iter().zip(&expected).map(|(a, b)| f64::from(a - b)));
    let decibels = 10.0 * (signal / noise).log10();
    println!("{decibels:.1} dB");
    assert!(decibels >= 30.0, "signal-to-noise ratio {decibels:.1} dB");
}
