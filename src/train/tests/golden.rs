//! Optimiser, clipping and schedules against PyTorch and the public schedulers (`golden/README.md`).

use std::path::Path;

use candle_core::{Device, Tensor, safetensors};
use flowmill_nn::{Context, Parameters, Tape, random::Draw};
use flowmill_train::optimizer::{GroupConfig, Update, gradient_norms};
use flowmill_train::schedule::{Schedule, ScheduleName};
use flowmill_train::{OptimConfig, ScheduleConfig};

type Golden = std::collections::HashMap<String, Tensor>;

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/optimisers_schedules.safetensors");
    safetensors::load(path, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference relative to the largest expected value.
fn deviation(actual: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(actual.len(), expected.len());
    let largest = |numbers: &mut dyn Iterator<Item = f32>| numbers.fold(0f32, |a, b| a.max(b.abs()));
    let error = largest(&mut actual.iter().zip(expected).map(|(a, b)| a - b));
    error / (largest(&mut expected.iter().copied()) + 1e-6)
}

/// Gradients of the given values, made by a loss that is linear in the parameters.
fn gradients(parameters: &Parameters, wanted: &[(&str, Tensor)]) -> flowmill_nn::Gradients {
    let tape = Tape::new();
    let context = Context::training(parameters, &tape, Draw::new(0));
    let term = |(name, gradient): &(&str, Tensor)| {
        let parameter = context.parameter(parameters.find(name).unwrap());
        parameter.multiply(&flowmill_nn::Value::plain(gradient.clone()).unwrap()).unwrap().sum().unwrap()
    };
    let loss = wanted.iter().map(term).reduce(|sum, next| sum.add(&next).unwrap()).unwrap();
    tape.backward(&loss).unwrap()
}

fn parameters(golden: &Golden) -> Parameters {
    let mut parameters = Parameters::new();
    for name in ["matrix", "vector"] {
        parameters.add(name, golden[&format!("in.{name}")].copy().unwrap()).unwrap();
    }
    parameters
}

#[test]
fn adamw_is_pytorchs_over_50_steps() {
    let golden = golden();
    let config = OptimConfig { lr: 0.01, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, ..OptimConfig::default() };
    let mut parameters = parameters(&golden);
    let mut optimizer = config.build(&parameters).unwrap();
    let kept = [1, 2, 5, 10, 50];
    for step in 0..50 {
        let given = ["matrix", "vector"].map(|name| (name, golden[&format!("in.grad_{name}")].get(step).unwrap()));
        let gradients = gradients(&parameters, &given);
        optimizer.step(&mut parameters, &gradients, Update { rate: config.lr, scale: 1.0 }).unwrap();
        let Some(row) = kept.iter().position(|&kept| kept == step + 1) else {
            continue;
        };
        for name in ["matrix", "vector"] {
            let expected = golden[&format!("out.adamw.{name}")].get(row).unwrap();
            let actual = parameters.tensor(parameters.find(name).unwrap());
            let deviation = deviation(&values(actual), &values(&expected));
            assert!(deviation <= 1e-6, "{name} after {} steps: {deviation}", step + 1);
        }
    }
}

#[test]
fn decay_can_leave_vectors_alone() {
    let golden = golden();
    let config = OptimConfig { weight_decay: 0.5, decay_matrices_only: true, ..OptimConfig::default() };
    let mut parameters = parameters(&golden);
    let zero = ["matrix", "vector"].map(|name| (name, golden[&format!("in.{name}")].zeros_like().unwrap()));
    let gradients = gradients(&parameters, &zero);
    config.build(&parameters).unwrap().step(&mut parameters, &gradients, Update { rate: 0.1, scale: 1.0 }).unwrap();
    let now = |name: &str| values(parameters.tensor(parameters.find(name).unwrap()));
    assert_eq!(now("vector"), values(&golden["in.vector"]));
    assert_ne!(now("matrix"), values(&golden["in.matrix"]));
}

/// A group is what a whole optimiser with that learning rate and decay would be.
#[test]
fn a_group_has_its_own_rate_and_decay() {
    let golden = golden();
    let group = GroupConfig { pattern: "mat*".to_owned(), lr_multiple: 2.0, weight_decay: Some(0.3), frozen: false };
    let grouped = OptimConfig { lr: 0.01, weight_decay: 0.1, groups: vec![group], ..OptimConfig::default() };
    let whole = |rate: f64, config: OptimConfig| {
        let mut parameters = parameters(&golden);
        let mut optimizer = config.build(&parameters).unwrap();
        for step in 0..20 {
            let given = ["matrix", "vector"].map(|name| (name, golden[&format!("in.grad_{name}")].get(step).unwrap()));
            let gradients = gradients(&parameters, &given);
            optimizer.step(&mut parameters, &gradients, Update { rate, scale: 1.0 }).unwrap();
        }
        ["matrix", "vector"].map(|name| values(parameters.tensor(parameters.find(name).unwrap())))
    };
    let [matrix, vector] = whole(0.01, grouped.clone());
    let others = OptimConfig { groups: Vec::new(), ..grouped };
    assert_eq!(vector, whole(0.01, others.clone())[1]);
    assert_eq!(matrix, whole(0.02, OptimConfig { weight_decay: 0.3, ..others.clone() })[0]);
    assert_ne!(matrix, whole(0.01, others)[0]);
}

#[test]
fn clipping_by_norm_is_pytorchs() {
    let golden = golden();
    let parameters = parameters(&golden);
    let given = ["matrix", "vector"].map(|name| (name, golden[&format!("in.grad_{name}")].get(0).unwrap()));
    let norms = gradient_norms(&parameters, &gradients(&parameters, &given), 1.0).unwrap();
    let expected = values(&golden["out.clip_norm_1.norm"])[0];
    assert!((norms.total as f32 / expected - 1.0).abs() < 1e-6, "{} against {expected}", norms.total);
    let clipped = (&given[0].1 * norms.clip_factor(Some(1.0))).unwrap();
    let deviation = deviation(&values(&clipped), &values(&golden["out.clip_norm_1.matrix"]));
    assert!(deviation < 1e-6, "{deviation}");
    assert_eq!(norms.clip_factor(None), 1.0);
    assert_eq!(norms.clip_factor(Some(1e9)), 1.0, "a short gradient is left alone");
}

#[test]
fn schedules_are_those_of_the_public_trainers() {
    let golden = golden();
    let config = |name, warmup_steps| ScheduleConfig { name, warmup_steps, final_ratio: 0.01 };
    let schedules = [
        ("constant", config(ScheduleName::Constant, 0)),
        ("warmup_lr_25", config(ScheduleName::WarmupLr, 25)),
        ("cosine_warmup_floor", config(ScheduleName::WarmupCosine, 20)),
    ];
    for (name, config) in schedules {
        let expected = golden[&format!("out.schedule.{name}")].to_vec1::<f64>().unwrap();
        let schedule = Schedule::new(&config, 1e-3, 200);
        for (step, expected) in expected.into_iter().enumerate() {
            let rate = schedule.rate(step as u64);
            assert!((rate / expected - 1.0).abs() < 1e-12, "{name}, step {step}: {rate} against {expected}");
        }
    }
}
