//! The `rvq-kmeans` codec on real speech: codes that can be heard.

use candle_core::Device;
use flowmill_audio::features::{Features, MelConfig, MelSpectrogram};
use flowmill_audio::measure::{correlation, energy_contour, log_spectral_distance};
use flowmill_corpus::Array;
use flowmill_extract::extractors::rvq_kmeans::{RvqKmeans, RvqKmeansConfig, RvqKmeansFit};
use flowmill_extract::extractors::{registry, s3};
use flowmill_extract::{Codec, CodecError, Extractor, Fit, Fitted, Matrix, Scope, State, StateError, fit_rows};

use crate::speech::{NoRejection, Recording, split};

fn fitted(config: &RvqKmeansConfig, rows: &[Recording]) -> Fitted {
    let fit = RvqKmeansFit::new(config.clone(), 7).unwrap();
    let (state, _) = fit_rows(&fit, rows, &NoRejection, Recording::id, Recording::media).unwrap();
    fit.finish(&state).unwrap()
}

fn small() -> RvqKmeansConfig {
    RvqKmeansConfig {
        k: 128,
        levels: 4,
        iterations: 10,
        max_frames: 8000,
        max_frames_per_part: 8000,
        ..Default::default()
    }
}

fn features(frames: &Matrix) -> Features {
    Features::new(frames.as_slice().to_vec(), frames.rows(), frames.columns()).unwrap()
}

/// The first levels of codes.
fn first(codes: &Array, levels: usize) -> Array {
    let frames = codes.shape()[1];
    Array::new(vec![levels, frames], codes.values::<i32>().unwrap()[..levels * frames].to_vec()).unwrap()
}

#[test]
fn more_levels_are_closer_to_unseen_speech_and_what_is_decoded_sounds_like_it() {
    let codec = RvqKmeans::from_state(&fitted(&small(), &split("train")).state).unwrap();
    let mel =
        MelSpectrogram::new(MelConfig { hop_length: 320, n_fft: 1280, win_length: 1280, ..MelConfig::cosyvoice2() });
    let mel = mel.unwrap();
    for recording in &split("dev")[..2] {
        let measured = codec.measure(&recording.media()).unwrap();
        let codes = codec.extract(&recording.media()).unwrap().into_arrays().remove(0);
        let audio = flowmill_audio::decode_file(&recording.wav).unwrap();
        let samples = flowmill_audio::resample(&audio.mono(), audio.sample_rate, 24_000).unwrap();
        assert_eq!(codes.shape(), [4, samples.len().div_ceil(320)]);
        let distance = |levels: usize| {
            let frames = codec.log_mel(&first(&codes, levels)).unwrap();
            log_spectral_distance(&features(&frames), &features(&measured)).unwrap()
        };
        let distances: Vec<f64> = (1..=4).map(distance).collect();
        let decoded = codec.decode(&codes).unwrap();
        assert_eq!(decoded.len(), codes.shape()[1] * 320);
        let heard = log_spectral_distance(&mel.compute(&decoded).unwrap(), &features(&measured)).unwrap();
        let contours = [&decoded[..samples.len()], &samples].map(|samples| energy_contour(samples, 480));
        let energy = correlation(&contours[0], &contours[1]).unwrap();
        println!("{}: levels {distances:.2?} dB, heard {heard:.2} dB, energy {energy:.3}", recording.utt);
        assert!(distances.is_sorted_by(|a, b| a > b), "{distances:?}");
        assert!(distances[3] < 6.5, "{distances:?}");
        assert!(heard < 7.0, "{heard} dB");
        assert!(energy > 0.8, "{energy}");
    }
}

#[test]
fn the_centers_depend_neither_on_threads_nor_on_parts() {
    let rows = split("dev");
    let config = RvqKmeansConfig { k: 16, levels: 2, max_frames: 500, max_frames_per_part: 500, ..small() };
    let whole = fitted(&config, &rows);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(pool.install(|| fitted(&config, &rows)).state, whole.state);
    let fit = RvqKmeansFit::new(config, 7).unwrap();
    let mut merged = fit.accumulator(Scope::Whole);
    for part in [&rows[3..], &rows[..3]] {
        let (state, _) = fit_rows(&fit, part, &NoRejection, Recording::id, Recording::media).unwrap();
        merged.absorb(&state).unwrap();
    }
    assert_eq!(fit.finish(&merged.into_state()).unwrap().state, whole.state);
}

#[test]
fn a_state_is_enough_to_decode_and_other_states_have_no_decoder() {
    let config = RvqKmeansConfig { k: 16, levels: 2, iterations: 3, griffin_lim_iterations: 2, ..small() };
    let fitted = fitted(&config, &split("dev")[..2]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("codebook.safetensors");
    fitted.state.save(&file).unwrap();
    let codec = registry().codec(&State::load(&file).unwrap(), &Device::Cpu).unwrap().unwrap();
    assert_eq!((codec.levels(), codec.vocabulary(), codec.sample_rate()), (2, 16, 24_000));
    assert_eq!(codec.frame_rate(), 75.0);
    let codes = |level: i32| Array::new(vec![1, 3], vec![0, level, 1]).unwrap();
    assert_eq!(codec.decode(&codes(15)).unwrap().len(), 3 * 320);
    assert!(matches!(codec.decode(&codes(16)), Err(CodecError::Code { level: 0, frame: 1, code: 16, .. })));
    let other = State::new(s3::KIND, serde_json::json!({}));
    assert!(registry().codec(&other, &Device::Cpu).unwrap().is_none());
    let incomplete = State::new("rvq-kmeans", serde_json::json!(config));
    assert!(matches!(registry().codec(&incomplete, &Device::Cpu), Err(StateError::Missing { .. })));
}

#[test]
fn fewer_frames_than_codes_are_an_error() {
    let fit = RvqKmeansFit::new(RvqKmeansConfig { k: 60_000, max_frames: 60_000, ..Default::default() }, 7).unwrap();
    let (state, _) = fit_rows(&fit, &split("dev")[..1], &NoRejection, Recording::id, Recording::media).unwrap();
    assert!(matches!(fit.finish(&state), Err(StateError::NotEnough { .. })));
}
