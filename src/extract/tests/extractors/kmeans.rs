//! The `kmeans` units of real speech carry what a decoder needs.

use crate::speech::{NoRejection, Recording, split};
use flowmill_extract::{
    Fit, Fitted, Matrix, State, apply,
    extractors::kmeans::{Kmeans, KmeansConfig, KmeansFit, Usage},
    fit_rows,
};

fn fitted(config: &KmeansConfig, rows: &[Recording]) -> Fitted {
    let fit = KmeansFit::new(config.clone(), 7).unwrap();
    let (state, _) = fit_rows(&fit, rows, &NoRejection, Recording::id, Recording::media).unwrap();
    fit.finish(&state).unwrap()
}

/// Pearson's correlation.
fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let mean = |x: &[f32]| x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let product = |x: &[f32], mean_x: f64, y: &[f32], mean_y: f64| -> f64 {
        x.iter().zip(y).map(|(&x, &y)| (f64::from(x) - mean_x) * (f64::from(y) - mean_y)).sum()
    };
    product(a, mean_a, b, mean_b) / (product(a, mean_a, a, mean_a) * product(b, mean_b, b, mean_b)).sqrt()
}

/// The mean over units of the root mean square difference of the 80 bands, in dB.
fn mel_distance(units: &[u32], centres: &Matrix, measured: &Matrix) -> f64 {
    let distance = |(&unit, row): (&u32, &[f32])| {
        let centre = centres.row(unit as usize);
        let squares: f32 = (0..80).map(|band| (centre[band] - row[band]).powi(2)).sum();
        20.0 / std::f64::consts::LN_10 * f64::from(squares / 80.0).sqrt()
    };
    units.iter().zip(measured.iter()).map(distance).sum::<f64>() / units.len() as f64
}

#[test]
fn units_of_unseen_speech_keep_spectrum_level_and_pitch() {
    let config = KmeansConfig::default();
    let fitted = fitted(&config, &split("train"));
    let kmeans = Kmeans::from_state(&fitted.state).unwrap();
    let centres = kmeans.centres();
    let dev = split("dev");
    let (mut levels, mut pitches, mut distances) = (Vec::new(), Vec::new(), Vec::new());
    let mut all_units = Vec::new();
    for recording in &dev {
        let measured = kmeans.measure(&recording.media()).unwrap();
        let units = kmeans.quantize(&measured);
        let column = |column: usize| -> (Vec<f32>, Vec<f32>) {
            let of = |(&unit, row): (&u32, &[f32])| (row[column], centres.row(unit as usize)[column]);
            units.iter().zip(measured.iter()).map(of).unzip()
        };
        let (level, unit_level) = column(160);
        let (pitch, unit_pitch) = column(161);
        levels.push(correlation(&level, &unit_level));
        pitches.push(correlation(&pitch, &unit_pitch));
        distances.push(mel_distance(&units, centres, &measured));
        all_units.extend(units.into_iter().map(|unit| unit as usize));
    }
    let usage = Usage::of(all_units, config.k);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (distance, level, pitch) = (mean(&distances), mean(&levels), mean(&pitches));
    println!("{:?}\nheld out: {distance:.2} dB, level {level:.3}, pitch {pitch:.3}", fitted.facts);
    println!("used {}, perplexity {:.0}", usage.used(), usage.perplexity());
    assert!(distance < 6.5, "{distance} dB");
    assert!(level > 0.95, "{level}");
    assert!(pitch > 0.9, "{pitch}");
    assert!(usage.perplexity() > 150.0, "{}", usage.perplexity());
}

#[test]
fn more_units_are_closer_to_what_they_stand_for() {
    let train = split("train");
    let distortion = |k| {
        let state = fitted(&KmeansConfig { k, iterations: 10, ..KmeansConfig::default() }, &train).facts;
        state.iter().find(|fact| fact.0 == "distortion").unwrap().1.as_f64().unwrap()
    };
    let distortions = [16, 64, 256].map(distortion);
    assert!(distortions.is_sorted_by(|a, b| a > b), "{distortions:?}");
}

#[test]
fn the_codebook_depends_neither_on_threads_nor_on_parts() {
    let rows = split("dev");
    let config = KmeansConfig { k: 32, max_frames: 500, max_frames_per_part: 500, ..KmeansConfig::default() };
    let whole = fitted(&config, &rows);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(pool.install(|| fitted(&config, &rows)).state, whole.state);
    let fit = KmeansFit::new(config.clone(), 7).unwrap();
    let mut merged = fit.accumulator(flowmill_extract::Scope::Whole);
    for part in [&rows[3..], &rows[..3]] {
        let (state, _) = fit_rows(&fit, part, &NoRejection, Recording::id, Recording::media).unwrap();
        merged.absorb(&state).unwrap();
    }
    assert_eq!(fit.finish(&merged.into_state()).unwrap().state, whole.state);
}

#[test]
fn tokens_are_25_a_second_and_in_range() {
    let rows = split("dev");
    let fitted = fitted(&KmeansConfig { k: 40, ..KmeansConfig::default() }, &rows);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("codebook.safetensors");
    fitted.state.save(&file).unwrap();
    let kmeans = Kmeans::from_state(&State::load(&file).unwrap()).unwrap();
    for (recording, value) in apply(&kmeans, &rows, &NoRejection, Recording::id, Recording::media).unwrap() {
        let audio = flowmill_audio::decode_file(&recording.wav).unwrap();
        let at_24k = (audio.frames() * 3).div_ceil(2);
        let tokens = value.as_tokens().unwrap();
        assert_eq!(tokens.len(), at_24k.div_ceil(960), "{}", recording.utt);
        assert!(tokens.iter().all(|token| (0..40).contains(token)));
    }
}

#[test]
fn fewer_frames_than_units_are_an_error_that_says_so() {
    let fit = KmeansFit::new(KmeansConfig::default(), 7).unwrap();
    let (state, _) = fit_rows(&fit, &split("dev")[..1], &NoRejection, Recording::id, Recording::media).unwrap();
    let error = fit.finish(&state).unwrap_err().to_string();
    assert!(error.contains("fewer than k = 512"), "{error}");
}
