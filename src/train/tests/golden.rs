//! Optimizers, clipping and schedules against PyTorch and the public schedulers (`tests/golden/README.md`).

mod support;

use std::path::Path;

use candle_core::{Device, Tensor, safetensors};
use flowmill_nn::{Context, Parameters, Tape, random::RngKey};
use flowmill_train::optimizer::{GroupConfig, OptimizerName, Update, gradient_norms};
use flowmill_train::parity::ParityError;
use flowmill_train::schedule::{Horizon, Schedule, ScheduleName};
use flowmill_train::{OptimConfig, ScheduleConfig, parity};
use support::OPTIMIZERS;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/optimisers_schedules.safetensors");

type Golden = std::collections::HashMap<String, Tensor>;

fn golden() -> Golden {
    safetensors::load(FILE, &Device::Cpu).unwrap()
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
    let context = Context::training(parameters, &tape, RngKey::new(0));
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

fn file() -> flowmill_weights::WeightFile {
    flowmill_weights::read(Path::new(FILE)).unwrap()
}

fn config(file: &flowmill_weights::WeightFile) -> serde_json::Value {
    serde_json::from_str(&file.metadata["config"]).unwrap()
}

/// Every optimizer over 50 steps, clipping, every schedule.
#[test]
fn all_of_the_golden_file_is_that_of_the_public_libraries() {
    let file = file();
    let compared = parity::check(&config(&file), &file.tensors, &Device::Cpu).unwrap();
    for comparison in &compared {
        println!("{} {:.1e}", comparison.name, comparison.error);
        assert!(comparison.error <= parity::TOLERANCE, "{comparison:?}");
    }
    let expected = file.tensors.keys().filter(|name| name.starts_with("out.")).count();
    assert_eq!(compared.len(), expected);
}

/// The check detects another setting, another schedule or another gradient.
#[test]
fn a_file_that_differs_does_not_pass() {
    let file = file();
    let worst = |config: &serde_json::Value, tensors: &parity::Tensors| {
        let compared = parity::check(config, tensors, &Device::Cpu).unwrap();
        compared
            .into_iter()
            .filter(|comparison| comparison.error > parity::TOLERANCE)
            .map(|c| c.name)
            .collect::<Vec<_>>()
    };
    let changed = |section: &str, name: &str, key: &str, value: serde_json::Value| {
        let mut config = config(&file);
        config[section][name][key] = value;
        worst(&config, &file.tensors)
    };
    let optimizers = [
        ("sgd_momentum", "dampening", 0.1.into()),
        ("sgd_nesterov", "nesterov", false.into()),
        ("adam", "eps", 1e-4.into()),
        ("adam_l2", "library", "torch.optim.AdamW".into()),
        ("adamw", "weight_decay", 0.11.into()),
        ("adafactor", "beta2_decay", (-0.7).into()),
        ("prodigy", "d_coef", 2.into()),
        ("prodigy", "use_bias_correction", true.into()),
        ("muon", "ns_steps", 4.into()),
        ("muon", "adjust_lr_fn", "match_rms_adamw".into()),
    ];
    for (name, key, value) in optimizers {
        let failed = changed("optimisers", name, key, value);
        assert!(failed.iter().all(|tensor| tensor.starts_with(&format!("out.{name}."))), "{failed:?}");
        assert!(failed.contains(&format!("out.{name}.matrix")), "{name} with another {key} passes");
    }
    for (name, key, value) in [
        ("noam_hold_annealing", "hold_steps", 50.into()),
        ("cosine_floor", "eta_min", 2e-5.into()),
        ("onecycle", "total_steps", serde_json::Value::from(200)),
    ] {
        assert_eq!(changed("schedules", name, key, value), [format!("out.schedule.{name}")]);
    }
    let mut tensors = file.tensors.clone();
    tensors.insert("in.grad_vector".into(), (&tensors["in.grad_vector"] * 1.001).unwrap());
    let failed = worst(&config(&file), &tensors);
    assert!(
        failed.contains(&"out.sgd_momentum.vector".to_owned()) && failed.contains(&"out.clip_norm_1.norm".to_owned())
    );
}

#[test]
fn a_file_that_cannot_be_checked_says_why() {
    let file = file();
    let said = |change: &dyn Fn(&mut serde_json::Value, &mut parity::Tensors)| {
        let (mut config, mut tensors) = (config(&file), file.tensors.clone());
        change(&mut config, &mut tensors);
        parity::check(&config, &tensors, &Device::Cpu).unwrap_err()
    };
    let of_config = |error: &ParityError, expected: &str, value: &str| match error {
        ParityError::Config { key, problem } => key == expected && problem.contains(value),
        _ => false,
    };
    let of_tensor = |error: &ParityError, expected: &str, value: &str| match error {
        ParityError::Tensor { name, problem } => name == expected && problem.contains(value),
        _ => false,
    };
    let error = said(&|config, _| config["optimisers"]["adam"]["amsgrad"] = true.into());
    assert!(of_config(&error, "optimisers.adam.amsgrad", ""), "{error}");
    let error = said(&|config, _| config["optimisers"]["adam"]["library"] = "torch.optim.LBFGS".into());
    assert!(of_config(&error, "optimisers.adam.library", "LBFGS"), "{error}");
    let error = said(&|config, _| config["steps"] = 51.into());
    assert!(of_tensor(&error, "in.grad_matrix", "51"), "{error}");
    let error = said(&|config, _| config["kept_steps"] = serde_json::json!([60]));
    assert!(of_config(&error, "kept_steps", ""), "{error}");
    let error = said(&|_, tensors| drop(tensors.remove("in.grad_matrix")));
    assert!(of_tensor(&error, "in.grad_matrix", ""), "{error}");
    let error = said(&|_, tensors| drop(tensors.insert("in.vector".into(), tensors["in.matrix"].clone())));
    assert!(of_tensor(&error, "in.grad_vector", ""), "{error}");
}

#[test]
fn decay_can_leave_vectors_alone() {
    let golden = golden();
    let config = OptimConfig { weight_decay: 0.5, decay_matrices_only: true, ..OptimConfig::default() };
    let mut parameters = parameters(&golden);
    let zero = ["matrix", "vector"].map(|name| (name, golden[&format!("in.{name}")].zeros_like().unwrap()));
    let gradients = gradients(&parameters, &zero);
    config.build(&parameters).unwrap().step(&mut parameters, &gradients, Update::new(0.1, 1.0)).unwrap();
    let now = |name: &str| values(parameters.tensor(parameters.find(name).unwrap()));
    assert_eq!(now("vector"), values(&golden["in.vector"]));
    assert_ne!(now("matrix"), values(&golden["in.matrix"]));
}

/// A group is trained like a whole optimizer with that learning rate and decay, for every optimizer; Prodigy estimates one rate from
/// all parameters, so only the decay is the group's own.
#[test]
fn a_group_has_its_own_rate_and_decay() {
    let golden = golden();
    for name in OPTIMIZERS {
        let multiple = if name == OptimizerName::Prodigy { 1.0 } else { 2.0 };
        let group = GroupConfig {
            pattern: "mat*".to_owned(),
            lr_multiple: multiple,
            weight_decay: Some(0.3),
            ..GroupConfig::default()
        };
        let d0 = (name == OptimizerName::Prodigy).then_some(0.5);
        let grouped = OptimConfig { name, d0, weight_decay: 0.1, groups: vec![group], ..OptimConfig::default() };
        let whole = |rate: f64, config: &OptimConfig| {
            let mut parameters = parameters(&golden);
            let mut optimizer = config.build(&parameters).unwrap();
            for step in 0..5 {
                let given =
                    ["matrix", "vector"].map(|name| (name, golden[&format!("in.grad_{name}")].get(step).unwrap()));
                let gradients = gradients(&parameters, &given);
                optimizer.step(&mut parameters, &gradients, Update::new(rate, 1.0)).unwrap();
            }
            ["matrix", "vector"].map(|name| values(parameters.tensor(parameters.find(name).unwrap())))
        };
        let [matrix, vector] = whole(0.01, &grouped);
        let others = OptimConfig { groups: Vec::new(), ..grouped };
        let decayed = OptimConfig { weight_decay: 0.3, ..others.clone() };
        if name != OptimizerName::Prodigy {
            assert_eq!(vector, whole(0.01, &others)[1], "{name:?}");
            assert_eq!(matrix, whole(0.01 * multiple, &decayed)[0], "{name:?}");
        }
        assert_ne!(matrix, whole(0.01, &others)[0], "{name:?}");
    }
}

#[test]
fn muon_leaves_vectors_and_whom_a_group_names_to_adamw() {
    let golden = golden();
    let trained = |config: &OptimConfig| {
        let mut parameters = parameters(&golden);
        let mut optimizer = config.build(&parameters).unwrap();
        let given = ["matrix", "vector"].map(|name| (name, golden[&format!("in.grad_{name}")].get(0).unwrap()));
        let gradients = gradients(&parameters, &given);
        optimizer.step(&mut parameters, &gradients, Update::new(0.01, 1.0)).unwrap();
        let kinds: Vec<String> = optimizer.state().into_iter().map(|(name, _)| name).collect();
        (["matrix", "vector"].map(|name| values(parameters.tensor(parameters.find(name).unwrap()))), kinds)
    };
    let muon = OptimConfig { name: OptimizerName::Muon, rest_lr_multiple: Some(0.5), ..OptimConfig::default() };
    let ([matrix, vector], kinds) = trained(&muon);
    assert_eq!(kinds, ["momentum_buffer.matrix", "exp_avg.vector", "exp_avg_sq.vector"]);
    let adamw = |multiple: f64| {
        let pattern = "*".to_owned();
        let group = GroupConfig { pattern, lr_multiple: multiple, ..GroupConfig::default() };
        trained(&OptimConfig { groups: vec![group], ..OptimConfig::default() }).0
    };
    assert_eq!(vector, adamw(0.5)[1]);
    assert_ne!(matrix, adamw(0.5)[0]);
    let group = GroupConfig { pattern: "matrix".to_owned(), muon: Some(false), ..GroupConfig::default() };
    assert_eq!(trained(&OptimConfig { groups: vec![group], ..muon }).0, adamw(0.5));
}

#[test]
fn an_update_is_measured_when_asked_for() {
    let golden = golden();
    let mut parameters = parameters(&golden);
    let config = OptimConfig { name: OptimizerName::Sgd, momentum: Some(0.0), ..OptimConfig::default() };
    let mut optimizer = config.build(&parameters).unwrap();
    let given = ["matrix", "vector"].map(|name| (name, golden[&format!("in.grad_{name}")].get(0).unwrap()));
    let gradients = gradients(&parameters, &given);
    let asked = Update { measure: true, ..Update::new(0.1, 1.0) };
    let changes = optimizer.step(&mut parameters, &gradients, asked).unwrap();
    let norm = |tensor: &Tensor| values(tensor).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    for ((_, change), (name, gradient)) in changes.0.iter().zip(&given) {
        assert!((change.weights / norm(&golden[&format!("in.{name}")]) - 1.0).abs() < 1e-6);
        assert!((change.update / (0.1 * norm(gradient)) - 1.0).abs() < 1e-5);
    }
    assert_eq!(changes.0.len(), 2);
    assert!(optimizer.step(&mut parameters, &gradients, Update::new(0.1, 1.0)).unwrap().0.is_empty());
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

/// Checked in double precision; the check of the whole file has single precision only.
#[test]
fn schedules_are_those_of_the_public_trainers_to_the_last_digits() {
    let golden = golden();
    let named = |name, warmup_steps| ScheduleConfig { name, warmup_steps, ..ScheduleConfig::default() };
    let hold_steps = Some(60);
    let schedules = [
        ("constant", named(ScheduleName::Constant, 0), 200),
        ("warmup_lr_25", named(ScheduleName::WarmupLr, 25), 200),
        ("cosine_warmup_floor", named(ScheduleName::WarmupCosine, 20), 200),
        ("cosine_floor", named(ScheduleName::Cosine, 7), 200),
        ("linear_to_zero_warmup_20", named(ScheduleName::WarmupLinear, 20), 200),
        ("noam_hold_annealing", ScheduleConfig { hold_steps, ..named(ScheduleName::NoamHoldAnnealing, 20) }, 200),
        ("onecycle", named(ScheduleName::OneCycle, 0), 201),
    ];
    for (name, config, steps) in schedules {
        let expected = golden[&format!("out.schedule.{name}")].to_vec1::<f64>().unwrap();
        let schedule = Schedule::new(&config, 1e-3, Horizon { steps, epochs: 1 });
        for (step, expected) in expected.into_iter().enumerate() {
            let rate = schedule.rate(step as u64, 0);
            assert!((rate - expected).abs() <= 1e-12 * expected, "{name}, step {step}: {rate} against {expected}");
        }
    }
}
