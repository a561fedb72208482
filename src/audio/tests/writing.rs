//! Written WAV files, trimming and quality figures.

mod common;

use std::io::Cursor;

use common::test_file;
use flowmill_audio::features::{CepstrumConfig, KaldiConfig, KaldiFbank, MelConfig, MelSpectrogram, deltas, mfcc};
use flowmill_audio::measure::quality;
use flowmill_audio::{AudioError, TrimConfig, decode_bytes, decode_file, trim_silence, write_wav};

#[test]
fn what_is_written_is_read_again() {
    let speech = decode_file(test_file("data/formats/good/mono_16k_s16.wav")).expect("plain PCM");
    let mut file = Cursor::new(Vec::new());
    let summary = write_wav(&mut file, &speech.samples[0], 16_000).expect("memory does not fill up");
    assert_eq!((summary.samples, summary.clipped), (31_200, 0));
    let again = decode_bytes(file.get_ref(), "again.wav").expect("it was just written");
    assert_eq!(again.samples, speech.samples);
    assert_eq!((again.sample_rate, again.warnings.len()), (16_000, 0));
}

#[test]
fn clipping_is_counted() {
    let mut file = Cursor::new(Vec::new());
    let samples = [0.5, 1.5, -1.0, -2.0, f32::NAN, 0.999_99, f32::INFINITY];
    let summary = write_wav(&mut file, &samples, 8000).expect("memory does not fill up");
    assert_eq!(summary.clipped, 5, "1.5, -2, NaN, infinity, and 0.99999, which rounds to 32768");
    let read = decode_bytes(file.get_ref(), "clipped.wav").expect("it was just written").mono();
    assert_eq!(read, [0.5, 32_767.0 / 32_768.0, -1.0, -1.0, 0.0, 32_767.0 / 32_768.0, 32_767.0 / 32_768.0]);
    assert!(matches!(write_wav(&mut file, &samples, 0), Err(AudioError::SampleRate { rate: 0 })));
}

#[test]
fn quality_figures_tell_bad_recordings() {
    let measure = |name: &str| quality(&decode_file(test_file(&format!("data/formats/{name}"))).expect("readable"));
    let good = measure("good/mono_16k_s16.wav");
    assert!(good.clipped == 0.0 && good.dc_offset.abs() < 0.01 && good.peak < 1.0, "{good:?}");
    let clipped = measure("broken/clipped.wav");
    assert!(clipped.clipped > 0.05, "{clipped:?}");
    let offset = measure("broken/dc_offset.wav");
    assert!((offset.dc_offset - 8000.0 / 32_768.0).abs() < 0.01, "{offset:?}");
    assert_eq!(measure("broken/digital_silence_1s.wav").rms, 0.0);
}

#[test]
fn silence_and_very_short_recordings_are_survived() {
    let silence = decode_file(test_file("data/formats/broken/digital_silence_1s.wav")).expect("readable").mono();
    assert_eq!(trim_silence(&silence, &TrimConfig::default()).expect("valid"), (0, 0));
    let mel = MelSpectrogram::new(MelConfig::cosyvoice2()).expect("valid");
    assert!(mel.compute(&silence).expect("long enough").data.iter().all(|value| value.is_finite()));
    let fbank = KaldiFbank::new(KaldiConfig::default()).expect("valid");
    assert!(fbank.compute(&silence).expect("long enough").data.iter().all(|value| value.is_finite()));
    let short = decode_file(test_file("data/formats/broken/ten_ms.wav")).expect("readable").mono();
    assert!(matches!(mel.compute(&short), Err(AudioError::TooShort { samples: 160, needed: 721, .. })));
    assert!(matches!(fbank.compute(&short), Err(AudioError::TooShort { samples: 160, needed: 400, .. })));
}

#[test]
fn cepstra_and_deltas() {
    let speech = decode_file(test_file("data/formats/good/mono_16k_s16.wav")).expect("plain PCM").mono();
    let log_mel =
        KaldiFbank::new(KaldiConfig::default()).and_then(|fbank| fbank.compute(&speech)).expect("long enough");
    let plain = CepstrumConfig { coefficients: 80, lifter: 0.0 };
    let all = mfcc(&log_mel, &plain).expect("as many as bands");
    // An orthonormal transform keeps the length of every frame.
    for (cepstrum, bands) in all.rows().zip(log_mel.rows()) {
        let length = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        assert!((length(cepstrum) / length(bands) - 1.0).abs() < 1e-4);
    }
    let few = mfcc(&log_mel, &CepstrumConfig::default()).expect("13 of 80");
    assert_eq!((few.frames, few.bins), (log_mel.frames, 13));
    assert!((few.frame(5)[0] - all.frame(5)[0]).abs() < 1e-4, "the zeroth coefficient is not liftered");
    assert!(mfcc(&log_mel, &CepstrumConfig { coefficients: 81, lifter: 0.0 }).is_err());
    // The slope of a ramp is its slope, away from the ends.
    let ramp = flowmill_audio::features::Features::new((0..20).map(|t| t as f32 * 0.5).collect(), 20, 1).expect("fits");
    let slopes = deltas(&ramp, 2).expect("valid");
    assert!(slopes.data[2..18].iter().all(|slope| (slope - 0.5).abs() < 1e-6), "{:?}", slopes.data);
    assert!(deltas(&ramp, 0).is_err());
}
