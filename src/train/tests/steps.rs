//! The loop step by step: coverage, skipping, accumulation, limits, validation.

mod support;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use flowmill_train::checkpoint::read_state;
use flowmill_train::optimizer::{GroupConfig, OptimizerName};
use flowmill_train::schedule::{Per, ScheduleName};
use flowmill_train::{EarlyStopping, Interval, Task, TrainConfig, TrainError};
use support::{FolderStore, Recorder, Samples, config, network, run};

#[test]
fn it_learns_and_validates_on_the_same_draws_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut observer = Recorder::default();
    let (summary, _) = run(folder.path(), &config(400), &Samples::new(50, &[7, 8, 9]), 0.05, &mut observer).unwrap();
    let (first, last) = (observer.validations[0].1, observer.validations.last().unwrap().1);
    assert!(last < 0.25 * first, "validation loss went from {first} to {last}");
    assert_eq!(summary.steps, 400);
    assert_eq!(summary.validation, Some(flowmill_train::metrics::shorten(last)));
    assert!(summary.best.unwrap().loss <= last);
    assert_eq!(observer.steps.len(), 400);
    assert_eq!(observer.steps.iter().map(|progress| progress.steps).max(), Some(400));

    let frozen = tempfile::tempdir().unwrap();
    let mut observer = Recorder::default();
    let mut still = config(8);
    still.optim.lr = 1e-30;
    run(frozen.path(), &still, &Samples::new(50, &[7]), 0.05, &mut observer).unwrap();
    let losses: Vec<f64> = observer.validations.iter().map(|(_, loss)| *loss).collect();
    assert!(losses.len() == 2 && losses[0] == losses[1], "same weights, same validation: {losses:?}");
}

#[test]
fn a_parameter_that_the_loss_does_not_use_is_named() {
    let (task, mut parameters) = network(0.0);
    parameters.add("forgotten.weight", Tensor::zeros((2, 2), candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore(folder.path().join("checkpoints"));
    let data = Samples::new(20, &[5]);
    let train = |parameters: &mut _| {
        flowmill_train::train(&task, parameters, &data, &config(3), folder.path(), &store, &mut Recorder::default())
    };
    let error = train(&mut parameters).unwrap_err();
    assert!(matches!(&error, TrainError::Coverage { missing, .. } if missing == &["forgotten.weight"]), "{error}");

    parameters.set_trainable(parameters.find("forgotten.weight").unwrap(), false);
    train(&mut parameters).expect("frozen, it needs no gradient");
}

#[test]
fn a_gradient_that_is_not_finite_on_the_first_step_is_named() {
    let mut data = Samples::new(20, &[20]);
    data.poison = Some(4);
    let folder = tempfile::tempdir().unwrap();
    let error = run(folder.path(), &config(3), &data, 0.0, &mut Recorder::default()).unwrap_err();
    assert!(matches!(&error, TrainError::Coverage { non_finite, .. } if non_finite.len() == 4), "{error}");
}

#[test]
fn a_loss_that_is_not_a_number_skips_the_step_and_leaves_a_dump() {
    let mut data = Samples::new(40, &[5]);
    let poison = flowmill_train::DataSource::batches(&data, 0).unwrap()[3][2];
    data.poison = Some(poison);
    let folder = tempfile::tempdir().unwrap();
    let mut observer = Recorder::default();
    let mut config = config(6);
    config.save_every = Interval::Steps(1);
    config.keep.last = 9;
    let (summary, weights) = run(folder.path(), &config, &data, 0.0, &mut observer).unwrap();
    assert_eq!((summary.steps, summary.skipped), (6, 1));
    assert!(weights.values().flatten().all(|weight| weight.is_finite()));
    assert!(observer.messages.iter().any(|text| text.contains("step 4 ")), "{:?}", observer.messages);

    let model =
        |step| std::fs::read(folder.path().join(format!("checkpoints/step-{step:06}/model.safetensors"))).unwrap();
    assert_eq!(model(3), model(4), "a skipped step changes no weight");
    assert_ne!(model(4), model(5));
    assert_eq!(read_state(&folder.path().join("checkpoints/step-000006")).unwrap().skipped_in_a_row, 0);

    let dump = std::fs::read_to_string(folder.path().join("skipped/step-000004.json")).unwrap();
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    assert_eq!(dump["seed"], 5);
    assert_eq!(dump["batches"][0]["loss"], "NaN");
    assert_eq!(dump["batches"][0]["ids"][2], format!("sample-{poison}"));
    assert_eq!(dump["gradient_norms"]["output.bias"], "NaN");
}

#[test]
fn too_many_skipped_steps_in_a_row_stop_with_a_diagnosis() {
    let data = Samples::new(20, &[5]);
    let mut config = config(100);
    config.optim.lr = 1e30;
    config.grad_clip = None;
    config.max_skipped_in_a_row = 3;
    let folder = tempfile::tempdir().unwrap();
    let error = run(folder.path(), &config, &data, 0.0, &mut Recorder::default()).unwrap_err();
    let TrainError::Diverged { in_a_row, step, ref dump, ref parameters, .. } = error else { panic!("{error}") };
    assert_eq!(in_a_row, 3);
    assert!(step < 20 && dump.exists());
    assert!(parameters.contains("hidden.weight"), "{parameters}");
}

/// Batches of 5 and 3 accumulated are one batch of 8: the mean is over samples, not over batches.
#[test]
fn accumulation_over_unequal_batches_is_one_large_batch() {
    let train = |sizes: &[usize], accum_grad| {
        let folder = tempfile::tempdir().unwrap();
        let mut observer = Recorder::default();
        let config = TrainConfig { accum_grad, grad_clip: Some(0.3), ..config(30) };
        let (_, weights) = run(folder.path(), &config, &Samples::new(40, sizes), 0.0, &mut observer).unwrap();
        (weights, observer.steps)
    };
    let (whole, steps) = train(&[8], 1);
    let (parts, part_steps) = train(&[5, 3], 2);
    for (one, two) in steps.iter().zip(&part_steps) {
        assert!((one.loss / two.loss - 1.0).abs() < 1e-5, "{one:?} {two:?}");
        assert!((one.grad_norm / two.grad_norm - 1.0).abs() < 1e-5, "{one:?} {two:?}");
        assert_eq!((one.epoch, one.weight), (two.epoch, two.weight));
    }
    assert!(difference(&whole, &parts) < 1e-4, "{}", difference(&whole, &parts));
    let (other, _) = train(&[4, 4], 2);
    assert!(difference(&whole, &other) < 1e-4, "the same samples in other pieces");
}

fn difference(left: &BTreeMap<String, Vec<f32>>, right: &BTreeMap<String, Vec<f32>>) -> f32 {
    let pairs = left.values().flatten().zip(right.values().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// 40 samples in batches of 7 are 6 batches; two per step are 3 steps, one of them of a full and a short batch.
#[test]
fn epochs_bound_the_run_and_give_the_horizon() {
    let folder = tempfile::tempdir().unwrap();
    let mut observer = Recorder::default();
    let config = TrainConfig { accum_grad: 4, max_steps: None, max_epochs: Some(3), ..config(1) };
    let (summary, _) = run(folder.path(), &config, &Samples::new(40, &[7]), 0.0, &mut observer).unwrap();
    assert_eq!((summary.steps, summary.epochs), (6, 3));
    assert_eq!(
        observer.steps.iter().map(|progress| progress.weight).collect::<Vec<_>>(),
        [28., 12., 28., 12., 28., 12.]
    );
    assert_eq!(observer.steps.iter().map(|progress| progress.epoch).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2]);
    assert!(observer.steps.iter().all(|progress| progress.steps == 6));
}

/// 40 samples in batches of 7 are 6 steps an epoch: 20 steps begin 4 epochs, and half a cosine over them is at its middle in the third.
#[test]
fn a_schedule_by_epoch_counts_the_epochs_of_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let mut observer = Recorder::default();
    let mut config = config(20);
    (config.schedule.name, config.schedule.per) = (ScheduleName::Cosine, Per::Epoch);
    config.schedule.final_ratio = 0.0;
    run(folder.path(), &config, &Samples::new(40, &[7]), 0.0, &mut observer).unwrap();
    let rates: Vec<f64> = observer.steps.iter().map(|progress| progress.rate / config.optim.lr).collect();
    assert!(rates[..6].iter().all(|rate| *rate == 1.0), "{rates:?}");
    assert!(rates[12..18].iter().all(|rate| (rate - 0.5).abs() < 1e-12), "{rates:?}");
    assert!(rates[18] < 0.2 && rates[18] == rates[19], "{rates:?}");
}

/// Plain descent shows it: no weight moves by more than the rate times the limit, and with a tiny limit all move by exactly that.
#[test]
fn gradient_values_are_limited() {
    let mut config = config(1);
    config.optim.name = OptimizerName::Sgd;
    config.optim.momentum = Some(0.0);
    (config.grad_clip, config.grad_clip_value) = (None, Some(1e-4));
    config.optim.lr = 1.0;
    config.schedule.name = ScheduleName::Constant;
    let folder = tempfile::tempdir().unwrap();
    let before = support::weights(&network(0.0).1);
    let (_, after) = run(folder.path(), &config, &Samples::new(20, &[20]), 0.0, &mut Recorder::default()).unwrap();
    let moved = before.values().flatten().zip(after.values().flatten()).map(|(a, b)| (a - b).abs());
    let moved: Vec<f32> = moved.collect();
    assert!(moved.iter().all(|step| (step - 1e-4).abs() < 2e-6 || *step < 1e-4), "{moved:?}");
    assert!(moved.iter().filter(|step| (**step - 1e-4).abs() < 2e-6).count() > moved.len() / 2, "{moved:?}");
}

/// A rate so high that every update replaces the weights is reported once per group, and the groups are in the metrics if configured.
#[test]
fn updates_out_of_proportion_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut observer = Recorder::default();
    let mut config = config(60);
    (config.optim.lr, config.optim.weight_decay) = (2.0, 0.4);
    config.schedule.name = ScheduleName::Constant;
    config.log_groups = true;
    let _ = run(folder.path(), &config, &Samples::new(40, &[7]), 0.0, &mut observer);
    let told = |group: &str| {
        observer.messages.iter().filter(|text| text.contains(&format!("`{group}`")) && text.contains(" % ")).count()
    };
    assert_eq!((told("hidden.*"), told("output.*")), (1, 1), "{:?}", observer.messages);
    let metrics = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let line = metrics.lines().find(|line| line.contains("groups")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert!(line["groups"]["hidden.*"]["update_ratio"].as_f64().unwrap() > 0.1, "{line}");
    assert!(line["groups"]["output.*"]["grad_norm"].as_f64().unwrap() > 0.0, "{line}");
}

#[test]
fn a_batch_without_weight_is_an_error() {
    struct Weightless(support::Regression);
    impl Task for Weightless {
        type Batch = support::Rows;
        fn loss(
            &self,
            context: &flowmill_nn::Context<'_>,
            batch: &support::Rows,
            rng_key: flowmill_nn::random::RngKey,
        ) -> Result<flowmill_train::Loss, flowmill_train::BoxError> {
            Ok(flowmill_train::Loss { weight: 0.0, ..self.0.loss(context, batch, rng_key)? })
        }
    }
    let (task, mut parameters) = network(0.0);
    let folder = tempfile::tempdir().unwrap();
    let (store, data) = (FolderStore(folder.path().join("checkpoints")), Samples::new(20, &[5]));
    let task = Weightless(task);
    let trained = flowmill_train::train(
        &task,
        &mut parameters,
        &data,
        &config(3),
        folder.path(),
        &store,
        &mut Recorder::default(),
    );
    assert!(matches!(trained, Err(TrainError::Weight { .. })));
}

#[test]
fn settings_that_cannot_be_used_are_refused_by_name() {
    let base = config(10);
    let mut bad: Vec<(&str, TrainConfig)> = Vec::new();
    let mut add = |key, change: fn(&mut TrainConfig)| {
        let mut config = base.clone();
        change(&mut config);
        bad.push((key, config));
    };
    add("optim.lr", |config| config.optim.lr = f64::NAN);
    add("optim.betas", |config| config.optim.betas = Some([0.9, 1.0]));
    add("optim.eps", |config| config.optim.eps = Some(0.0));
    add("optim.weight_decay", |config| config.optim.weight_decay = -1.0);
    add("optim.momentum", |config| config.optim.momentum = Some(0.9));
    add("optim.decay_rate", |config| config.optim.decay_rate = Some(-0.8));
    add("optim.nesterov", |config| {
        config.optim.name = OptimizerName::Sgd;
        (config.optim.momentum, config.optim.nesterov) = (Some(0.0), Some(true));
    });
    add("optim.betas", |config| {
        (config.optim.name, config.optim.betas) = (OptimizerName::Adafactor, Some([0.9, 0.99]));
    });
    add("optim.growth_rate", |config| {
        (config.optim.name, config.optim.growth_rate) = (OptimizerName::Prodigy, Some(0.5));
    });
    add("optim.ns_steps", |config| {
        (config.optim.name, config.optim.ns_steps) = (OptimizerName::Muon, Some(0));
    });
    add("optim.groups", |config| {
        config.optim.groups = vec![GroupConfig { pattern: "*".into(), muon: Some(true), ..GroupConfig::default() }];
    });
    add("schedule.warmup_steps", |config| {
        (config.schedule.name, config.schedule.warmup_steps) = (ScheduleName::WarmupLr, 0);
    });
    add("schedule.hold_steps", |config| config.schedule.hold_steps = Some(3));
    add("schedule.final_lr", |config| config.schedule.final_lr = Some(1.0));
    add("schedule.rise", |config| {
        (config.schedule.name, config.schedule.rise) = (ScheduleName::OneCycle, Some(1.0));
    });
    add("grad_clip_value", |config| config.grad_clip_value = Some(-1.0));
    add("schedule.final_ratio", |config| config.schedule.final_ratio = 2.0);
    add("accum_grad", |config| config.accum_grad = 0);
    add("grad_clip", |config| config.grad_clip = Some(0.0));
    add("ema_decay", |config| config.ema_decay = Some(1.0));
    add("max_steps", |config| config.max_steps = None);
    add("max_epochs", |config| config.max_epochs = Some(0));
    add("early_stopping.patience", |config| {
        config.early_stopping = Some(EarlyStopping { patience: 0, min_delta: 0.0 });
    });
    add("early_stopping.min_delta", |config| {
        config.early_stopping = Some(EarlyStopping { patience: 1, min_delta: -1.0 });
    });
    add("max_seconds", |config| config.max_seconds = Some(0));
    add("num_workers", |config| config.num_workers = 0);
    add("prefetch", |config| config.prefetch = 1025);
    add("log_every", |config| config.log_every = 0);
    add("keep.last", |config| config.keep.last = 0);
    for (expected, config) in bad {
        let error = config.check().unwrap_err();
        assert!(matches!(&error, TrainError::Config { key, .. } if *key == expected), "{expected}: {error}");
    }
    base.check().unwrap();
}
