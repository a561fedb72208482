//! The `statistics` embeddings of real voices tell the speakers apart.

use crate::speech::{NoRejection, Recording, chosen, split};
use candle_core::Device;
use flowmill_extract::{
    Fit, ValueType, apply,
    extractors::registry,
    extractors::statistics::{StatisticsConfig, StatisticsFit},
    fit_parts, fit_rows,
};
use serde_json::json;

fn fitted(config: &StatisticsConfig, parts: &[&[Recording]]) -> flowmill_extract::Fitted {
    let fit = StatisticsFit::new(config.clone()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let (state, used) = fit_rows(&fit, part, &NoRejection, Recording::id, Recording::media).unwrap();
        assert_eq!(used, part.len() as u64);
        files.push(folder.path().join(number.to_string()));
        state.save(&files[number]).unwrap();
    }
    fit_parts(&fit, &files).unwrap()
}

fn embeddings(fitted: &flowmill_extract::Fitted, rows: &[Recording]) -> Vec<Vec<f32>> {
    let extractor = registry().open(&fitted.state, &Device::Cpu).unwrap();
    let values = apply(&*extractor, rows, &NoRejection, Recording::id, Recording::media).unwrap();
    values.into_iter().map(|(_, value)| value.as_embedding().unwrap().to_vec()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
}

/// The error rate where misses and false alarms are equally frequent, over (score, same speaker).
fn equal_error_rate(scores: &[(f64, bool)]) -> f64 {
    let share = |same: bool, wrong: &dyn Fn(f64) -> bool| {
        let all = scores.iter().filter(|score| score.1 == same).count();
        scores.iter().filter(|score| score.1 == same && wrong(score.0)).count() as f64 / all as f64
    };
    let at = |threshold: f64| share(true, &|score| score < threshold).max(share(false, &|score| score >= threshold));
    scores.iter().map(|score| at(score.0)).fold(1.0, f64::min)
}

#[test]
fn unseen_recordings_of_one_speaker_are_closer_than_those_of_two() {
    let train = split("train");
    let held_out: Vec<Recording> = split("dev").into_iter().chain(split("test")).collect();
    let fitted = fitted(&StatisticsConfig::default(), &[&train]);
    let (known, unseen) = (embeddings(&fitted, &train), embeddings(&fitted, &held_out));
    let mut scores = Vec::new();
    for (recording, embedding) in held_out.iter().zip(&unseen) {
        assert_eq!(embedding.len(), 192);
        assert!((cosine(embedding, embedding) - 1.0).abs() < 1e-5);
        for (other, known) in train.iter().zip(&known) {
            scores.push((cosine(embedding, known), recording.spk == other.spk));
        }
    }
    let mean = |same| {
        let chosen: Vec<f64> = scores.iter().filter(|score| score.1 == same).map(|score| score.0).collect();
        chosen.iter().sum::<f64>() / chosen.len() as f64
    };
    let rate = equal_error_rate(&scores);
    println!("same speaker {:.3}, different {:.3}, equal error rate {:.1} %", mean(true), mean(false), 100.0 * rate);
    assert!(mean(true) > mean(false) + 0.4);
    assert!(rate < 0.12, "equal error rate {rate}");
}

#[test]
fn the_nearest_mean_voice_is_the_speaker() {
    let train = split("train");
    let fitted = fitted(&StatisticsConfig::default(), &[&train]);
    let known = embeddings(&fitted, &train);
    let test = split("test");
    for (recording, embedding) in test.iter().zip(embeddings(&fitted, &test)) {
        let score = |spk: &str| {
            let own = train.iter().zip(&known).filter(|(other, _)| other.spk == spk);
            own.map(|(_, known)| cosine(known, &embedding)).sum::<f64>()
        };
        let best = train.iter().max_by(|a, b| score(&a.spk).total_cmp(&score(&b.spk))).unwrap();
        assert_eq!(best.spk, recording.spk, "{}", recording.utt);
    }
}

#[test]
fn neither_threads_nor_repetition_change_the_fit_and_parts_only_its_last_digits() {
    let rows = split("dev");
    let config = StatisticsConfig { n_mels: 16, ..StatisticsConfig::default() };
    let whole = fitted(&config, &[&rows]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(pool.install(|| fitted(&config, &[&rows])).state, whole.state);
    let (first, second) = rows.split_at(2);
    let in_parts = fitted(&config, &[first, second]);
    for (a, b) in embeddings(&whole, &rows).iter().zip(embeddings(&in_parts, &rows)) {
        assert!(cosine(a, &b) > 1.0 - 1e-6);
    }
}

#[test]
fn too_few_rows_are_an_error_that_says_so() {
    let fit = StatisticsFit::new(StatisticsConfig::default()).unwrap();
    let (state, _) = fit_rows(&fit, &split("dev")[..1], &NoRejection, Recording::id, Recording::media).unwrap();
    let error = fit.finish(&state).unwrap_err().to_string();
    assert!(error.contains("1 usable rows"), "{error}");
}

#[test]
fn a_recipe_describes_the_extractor() {
    let config = chosen(&json!({"kind": "statistics", "n_mels": 32})).unwrap();
    let columns = config.columns();
    assert_eq!((config.kind(), columns[0].name()), ("statistics", "utt_embedding"));
    assert_eq!((columns.len(), columns[0].values), (1, ValueType::Embedding { dimensions: 128 }));
    assert_eq!(json!(config), json!({"kind": "statistics", "n_mels": 32, "gate_db": 30.0, "shrinkage": 0.97}));
    let wrong = chosen(&json!({"kind": "statistics", "shrinkage": 0})).unwrap();
    assert_eq!(wrong.check().unwrap_err().field, "shrinkage");
    for (settings, key) in [
        (json!({"kind": "statistics", "mels": 32}), "tokens.extractor.mels"),
        (json!({"kind": "statistic"}), "tokens.extractor.kind"),
        (json!({"n_mels": 32}), "tokens.extractor"),
        (json!("statistics"), "tokens.extractor"),
    ] {
        assert_eq!(chosen(&settings).unwrap_err().key(), key);
    }
}
