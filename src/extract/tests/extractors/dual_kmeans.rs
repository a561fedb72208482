//! The `dual-kmeans` units in the form of Step-Audio's tokenizer.

use crate::speech::{NoRejection, Recording, split};
use flowmill_extract::dual_codebook::{DualCodebook, GROUP};
use flowmill_extract::extractors::dual_kmeans::{DualKmeans, DualKmeansConfig, DualKmeansFit};
use flowmill_extract::{Accumulator, ConfigError, Extractor, Fit, Kind, Media, Scope, State, fit_rows};

fn config() -> DualKmeansConfig {
    DualKmeansConfig { vq02_size: 8, vq06_size: 20, iterations: 4, ..DualKmeansConfig::default() }
}

fn states(fit: &DualKmeansFit, rows: &[Recording]) -> State {
    fit_rows(fit, rows, &NoRejection, Recording::id, Recording::media).unwrap().0
}

#[test]
fn a_recording_becomes_a_mixed_sequence_of_both_codebooks() {
    let rows = split("dev");
    let fit = DualKmeansFit::new(config(), 7).unwrap();
    let fitted = fit.finish(&states(&fit, &rows)).unwrap();
    // As it comes back from its file.
    let file = tempfile::NamedTempFile::new().unwrap();
    fitted.state.save(file.path()).unwrap();
    let units = DualKmeans::from_state(&State::load(file.path()).unwrap()).unwrap();
    assert_eq!(units.centres().map(|centres| centres.rows()), [8, 20]);
    let codebook = DualCodebook { linguistic: 8, semantic: 20 };
    for row in &rows {
        let mixed = units.extract(&row.media()).unwrap().as_tokens().unwrap().to_vec();
        let audio = row.media().as_audio("test").unwrap().mono_at(24_000).unwrap();
        // Linguistic units of three mel frames of 480 samples, semantic ones of two; whole groups of both.
        let groups = (audio.len().div_ceil(3 * 480) / 2).min(audio.len().div_ceil(2 * 480) / 3);
        assert_eq!(mixed.len(), groups * GROUP);
        let (linguistic, semantic) = codebook.split(&mixed).unwrap();
        assert!(
            linguistic.iter().any(|unit| *unit != linguistic[0]) && semantic.iter().any(|unit| *unit != semantic[0])
        );
    }
}

#[test]
fn a_last_group_counts_when_each_stream_has_begun_its_last_unit() {
    let rows = split("dev");
    let fit = DualKmeansFit::new(config(), 7).unwrap();
    let units = DualKmeans::from_state(&fit.finish(&states(&fit, &rows)).unwrap().state).unwrap();
    let speech = rows[0].media().as_audio("test").unwrap().mono_at(24_000).unwrap();
    let tokens = |samples: usize| {
        let samples = vec![speech[..samples].to_vec()];
        let audio = flowmill_audio::Audio { samples, sample_rate: 24_000, warnings: Vec::new() };
        units
            .extract(&Media::audio(move || Ok::<_, String>(audio.clone())))
            .map(|value| value.as_tokens().unwrap().to_vec())
    };
    // 80 ms after two groups (5,760 samples) are two units of 40 ms; a sample more begins the third.
    assert_eq!([5_760, 7_680, 7_681, 8_640].map(|samples| tokens(samples).unwrap().len()), [10, 10, 15, 15]);
    assert_eq!(tokens(1_921).unwrap().len(), 5);
    let short = tokens(1_920).unwrap_err().to_string();
    assert!(short.contains("0.08"), "{short}");
}

#[test]
fn fitting_in_parts_is_fitting_at_once() {
    let rows = split("dev");
    let fit = DualKmeansFit::new(config(), 7).unwrap();
    let (first, second) = rows.split_at(2);
    let mut merged = fit.accumulator(Scope::Whole);
    merged.absorb(&states(&fit, second)).unwrap();
    merged.absorb(&states(&fit, first)).unwrap();
    let mut whole = fit.accumulator(Scope::Whole);
    whole.absorb(&states(&fit, &rows)).unwrap();
    let finish = |sums: Box<dyn Accumulator>| fit.finish(&sums.into_state()).unwrap().state;
    assert_eq!(finish(merged), finish(whole));
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |config: DualKmeansConfig| -> ConfigError { config.check().unwrap_err() };
    assert_eq!(refused(DualKmeansConfig { vq06_size: 1, ..config() }).field, "vq06_size");
    assert_eq!(refused(DualKmeansConfig { iterations: 0, ..config() }).field, "iterations");
    let fit = DualKmeansFit::new(config(), 7).unwrap();
    let short = Media::audio(|| {
        let samples = vec![vec![0.1; 2_000]];
        Ok::<_, String>(flowmill_audio::Audio { samples, sample_rate: 24_000, warnings: Vec::new() })
    });
    assert!(fit.measure(&short).unwrap_err().to_string().contains("0.12"));
    let foreign = State::new("kmeans", serde_json::Value::Null);
    assert!(DualKmeans::from_state(&foreign).is_err());
}
