//! Training in narrower number formats: the loss scale, its overflows, exact resume.

mod support;

use std::path::Path;

use flowmill_nn::Precision;
use flowmill_nn::random::RngKey;
use flowmill_train::checkpoint::read_state;
use flowmill_train::{LossScaleConfig, TrainConfig, TrainError};
use serde_json::Value;
use support::{Recorder, Samples, assert_same_tree, config, run};

fn half(max_steps: u64, scale: LossScaleConfig) -> TrainConfig {
    TrainConfig { precision: Precision::Fp16, loss_scale: Some(scale), ..config(max_steps) }
}

/// A scale that overflows at first, and again whenever it has grown.
fn lively() -> LossScaleConfig {
    LossScaleConfig { initial: 16_777_216.0, window: 4, hysteresis: 2, ..LossScaleConfig::default() }
}

fn metrics(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.into_iter().filter(|line| line.get("lr").is_some()).collect()
}

#[test]
fn it_learns_in_every_format_nearly_as_in_single_precision() {
    let last = |config: &TrainConfig| {
        let folder = tempfile::tempdir().unwrap();
        let mut observer = Recorder::default();
        run(folder.path(), config, &Samples::new(50, &[7, 8, 9]), 0.05, &mut observer).unwrap();
        (observer.validations[0].1, observer.validations.last().unwrap().1)
    };
    let (first, exact) = last(&config(300));
    assert!(exact < 0.3 * first);
    for precision in [Precision::Bf16, Precision::Fp16] {
        let (_, loss) = last(&TrainConfig { precision, ..config(300) });
        assert!((loss - exact).abs() < 0.25 * exact && loss != exact, "{precision:?}: {loss} rather than {exact}");
    }
}

#[test]
fn overflows_lower_the_scale_and_are_not_counted_as_divergence() {
    let folder = tempfile::tempdir().unwrap();
    let mut observer = Recorder::default();
    let mut config = half(60, lively());
    config.log_every = 1;
    let (summary, weights) = run(folder.path(), &config, &Samples::new(50, &[7]), 0.0, &mut observer).unwrap();
    assert_eq!(summary.skipped, 0);
    assert!(weights.values().flatten().all(|weight| weight.is_finite()));
    assert!(!folder.path().join("skipped").exists());

    let lines = metrics(folder.path());
    let scales: Vec<f64> = lines.iter().map(|line| line["loss_scale"].as_f64().unwrap()).collect();
    let overflows: Vec<u64> = lines.iter().map(|line| line["overflows"].as_u64().unwrap()).collect();
    assert_eq!(scales[..2], [16_777_216.0, 8_388_608.0], "the second overflow in a row halves");
    assert!(scales.windows(2).any(|pair| pair[1] == 2.0 * pair[0]), "it grows again: {scales:?}");
    assert!(overflows[0] == 1 && overflows[59] > overflows[10], "grown, it overflows again: {overflows:?}");
    for ((line, before), after) in lines[1..].iter().zip(&overflows).zip(&overflows[1..]) {
        assert_eq!(line.get("loss").is_none(), after > before, "a step without an update has no loss in the means");
    }
    let told = observer.messages.iter().filter(|text| text.contains("fp16")).count();
    assert_eq!(told as u64, overflows[59]);
    let model = |step: u64| {
        let state = read_state(&folder.path().join(format!("checkpoints/step-{step:06}"))).unwrap();
        state.loss_scale.unwrap()
    };
    assert_eq!((model(60).scale(), model(60).overflows()), (scales[59], overflows[59]));
}

/// The scale divides out: if nothing overflows or vanishes, powers of two change nothing.
#[test]
fn a_power_of_two_more_or_less_changes_no_weight() {
    let weights = |initial: f64| {
        let folder = tempfile::tempdir().unwrap();
        let fixed = LossScaleConfig { dynamic: false, initial, ..LossScaleConfig::default() };
        let mut config = half(8, fixed);
        config.grad_clip = Some(0.05);
        run(folder.path(), &config, &Samples::new(50, &[7]), 0.0, &mut Recorder::default()).unwrap().1
    };
    let (a, b) = (weights(256.0), weights(512.0));
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * a.abs().max(1e-2);
    for (name, values) in &a {
        assert!(values.iter().zip(&b[name]).all(close), "{name}: {values:?} {:?}", b[name]);
    }
}

#[test]
fn interrupted_and_resumed_at_random_steps_the_files_are_those_of_an_undisturbed_run() {
    let seed = std::env::var("FLOWMILL_TEST_SEED").map_or(29, |text| text.parse().expect("a whole number"));
    println!("seed {seed}: FLOWMILL_TEST_SEED={seed} replays this");
    let mut config = half(45, lively());
    config.accum_grad = 2;
    config.ema_decay = Some(0.9);
    let data = Samples::new(50, &[7, 8, 9]);
    for (precision, loss_scale) in [(Precision::Fp16, config.loss_scale.clone()), (Precision::Bf16, None)] {
        let config = TrainConfig { precision, loss_scale, ..config.clone() };
        let undisturbed = tempfile::tempdir().unwrap();
        run(undisturbed.path(), &config, &data, 0.05, &mut Recorder::default()).unwrap();
        for attempt in 0..6 {
            let folder = tempfile::tempdir().unwrap();
            let mut legs = 0;
            loop {
                let steps = 1 + RngKey::keyed(seed, "interruptions", attempt, legs, 0).below_at(0, 12) as usize;
                let mut observer = Recorder::interrupting_after(steps);
                // Recomputing blocks does not change the run.
                let config = TrainConfig { gradient_checkpointing: legs % 2 == 1, ..config.clone() };
                let (summary, _) = run(folder.path(), &config, &data, 0.05, &mut observer).unwrap();
                legs += 1;
                if !summary.interrupted {
                    break;
                }
            }
            assert!(legs > 2, "{legs}");
            assert_same_tree(undisturbed.path(), folder.path());
        }
    }
}

#[test]
fn at_the_floor_it_stops_and_says_what_to_do() {
    let stop = |scale: LossScaleConfig| {
        let folder = tempfile::tempdir().unwrap();
        let result = run(folder.path(), &half(60, scale), &Samples::new(50, &[7]), 0.0, &mut Recorder::default());
        result.unwrap_err()
    };
    let error = stop(LossScaleConfig { floor: 8_388_608.0, ..lively() });
    let TrainError::LossScale { step: 3, in_a_row: 3, scale: 8_388_608.0, .. } = &error else { panic!("{error}") };
    let text = error.to_string();
    for words in ["8388608", "precision: bf16", "hidden.weight", "loss_scale.floor"] {
        assert!(text.contains(words), "{text}");
    }
    let error = stop(LossScaleConfig { dynamic: false, ..lively() });
    let TrainError::LossScale { in_a_row: 10, scale: 16_777_216.0, .. } = &error else { panic!("{error}") };
    assert!(error.to_string().contains("loss_scale.dynamic: true"), "{error}");
}

#[test]
fn a_loss_that_is_not_a_number_is_no_overflow() {
    let mut data = Samples::new(40, &[5]);
    data.poison = Some(flowmill_train::DataSource::batches(&data, 0).unwrap()[3][2]);
    let folder = tempfile::tempdir().unwrap();
    let mut config = half(6, LossScaleConfig { initial: 256.0, ..LossScaleConfig::default() });
    config.log_every = 1;
    let (summary, _) = run(folder.path(), &config, &data, 0.0, &mut Recorder::default()).unwrap();
    assert_eq!(summary.skipped, 1);
    let last = metrics(folder.path()).pop().unwrap();
    assert_eq!((last["overflows"].as_u64(), last["loss_scale"].as_f64()), (Some(0), Some(256.0)));
}

#[test]
fn a_scale_without_half_precision_is_refused() {
    let config = TrainConfig { loss_scale: Some(LossScaleConfig::default()), ..config(3) };
    let error = config.check().unwrap_err();
    assert!(matches!(&error, TrainError::Config { key: "loss_scale", .. }), "{error}");
}
