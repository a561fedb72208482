//! Training by compositions, as on devices: equal to the CPU's kernels within tolerances, and exactly reproducible. With the environment
//! variable `FLOWMILL_TEST_DEVICE` also on that device.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;
use flowmill_nn::device::{self, DeviceName, by_composition};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Gradients, Parameters, Precision, Tape, Value, host, testing};
use flowmill_train::checkpoint::{self, read_state};
use flowmill_train::optimizer::{AdjustLr, Changes, GroupConfig, OptimizerName, Update, gradient_norms};
use flowmill_train::{BatchCost, BoxError, DataSource, Loss, OptimConfig, Summary, Task, TrainConfig, TrainError};
use support::{FolderStore, OPTIMIZERS, Recorder, Rows, Samples, assert_same_tree, config, network, run, tree};

/// A place that computes differently from the CPU's kernels.
enum Place {
    Composition,
    Device(Device),
}

impl Place {
    /// All places of this test run.
    fn all() -> Vec<Self> {
        let named = std::env::var(testing::DEVICE).ok();
        let device = named.map(|name| Self::Device(device::open(name.parse().unwrap()).unwrap()));
        std::iter::once(Self::Composition).chain(device).collect()
    }

    fn compute<R>(&self, parameters: &mut Parameters, work: impl FnOnce(&mut Parameters) -> R) -> R {
        match self {
            Self::Composition => by_composition(|| work(parameters)),
            Self::Device(device) => {
                parameters.to_device(device).unwrap();
                work(parameters)
            }
        }
    }
}

/// Shapes: matrices of both orientations, a kernel of three axes, vectors, one of them of several blocks of a launch, one number.
const SHAPES: [(&str, &[usize]); 6] = [
    ("wide.weight", &[4, 9]),
    ("tall.weight", &[9, 4]),
    ("kernel.weight", &[3, 2, 5]),
    ("bias", &[7]),
    ("long", &[40_000]),
    ("gain", &[1]),
];

fn parameters() -> Parameters {
    let mut parameters = Parameters::new();
    for (name, shape) in SHAPES {
        parameters.add(name, RngKey::new(2).purpose(name).normal_tensor(shape, &Device::Cpu).unwrap()).unwrap();
    }
    parameters
}

/// Gradients drawn anew for each step.
fn gradients(parameters: &Parameters, step: u64) -> Gradients {
    let tape = Tape::new();
    let context = Context::training(parameters, &tape, RngKey::new(0));
    let mut loss: Option<Value> = None;
    for id in parameters.ids() {
        let (name, tensor) = (parameters.name(id), parameters.tensor(id));
        let factor = RngKey::new(3).purpose(name).step(step).normal_tensor(tensor.dims(), &Device::Cpu).unwrap();
        let term = context.parameter(id).multiply(&Value::plain(factor).unwrap()).unwrap().sum().unwrap();
        loss = Some(match loss {
            Some(loss) => loss.add(&term).unwrap(),
            None => term,
        });
    }
    tape.backward(&loss.unwrap()).unwrap()
}

/// Weights and state after some updates, and their measurements.
struct Trained {
    tensors: BTreeMap<String, Vec<f32>>,
    changes: Vec<Changes>,
    norms: Vec<f64>,
}

fn update(parameters: &mut Parameters, config: &OptimConfig, limit: f64) -> Trained {
    let mut optimizer = config.build(parameters).unwrap();
    let (mut changes, mut norms) = (Vec::new(), Vec::new());
    for step in 0..6 {
        let gradients = gradients(parameters, step);
        let found = gradient_norms(parameters, &gradients, 0.5).unwrap();
        norms.extend(std::iter::once(found.total).chain(found.each.iter().map(|(_, norm)| norm.unwrap())));
        let update = Update { limit, measure: step != 1, ..Update::new(config.lr, 0.5) };
        changes.push(optimizer.step(parameters, &gradients, update).unwrap());
    }
    let all = parameters.named_tensors().into_iter().chain(optimizer.state());
    let tensors = all.map(|(name, tensor)| (name, host::read(&tensor).unwrap())).collect();
    Trained { tensors, changes, norms }
}

/// The largest difference as a share of the largest expected magnitude.
fn apart(found: &[f32], expected: &[f32]) -> f64 {
    let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
    testing::worst(&wide(found), &wide(expected))
}

#[test]
fn the_composition_of_every_optimizer_equals_its_kernel() {
    let named = |name: OptimizerName| OptimConfig { name, lr: 0.02, weight_decay: 0.1, ..OptimConfig::default() };
    let mut cases: Vec<OptimConfig> = OPTIMIZERS.map(named).to_vec();
    cases.extend([
        OptimConfig { momentum: Some(0.0), ..named(OptimizerName::Sgd) },
        OptimConfig { nesterov: Some(true), ..named(OptimizerName::Sgd) },
        OptimConfig { dampening: Some(0.3), ..named(OptimizerName::Sgd) },
        OptimConfig { clip_threshold: Some(0.1), parameter_eps: Some(3.0), ..named(OptimizerName::Adafactor) },
        OptimConfig { lr: 1.0, d0: Some(1e-3), bias_correction: Some(true), ..named(OptimizerName::Prodigy) },
        OptimConfig { lr: 1.0, safeguard_warmup: Some(true), beta3: Some(0.9), ..named(OptimizerName::Prodigy) },
        OptimConfig { nesterov: Some(false), adjust_lr: Some(AdjustLr::Original), ..named(OptimizerName::Muon) },
        OptimConfig {
            groups: vec![GroupConfig { pattern: "tall.*".into(), lr_multiple: 3.0, ..GroupConfig::default() }],
            decay_matrices_only: true,
            ..named(OptimizerName::AdamW)
        },
    ]);
    for case in &cases {
        // Muon rounds to bfloat16 between its products: sums of another order round a number to its neighbor now and then.
        let tolerance = if case.name == OptimizerName::Muon { 2e-3 } else { 5e-6 };
        for limit in [f64::INFINITY, 0.4] {
            let expected = update(&mut parameters(), case, limit);
            assert!(expected.changes[1].0.is_empty() && expected.changes[2].0.len() == SHAPES.len());
            for place in Place::all() {
                let found = place.compute(&mut parameters(), |parameters| update(parameters, case, limit));
                assert!(found.tensors.keys().eq(expected.tensors.keys()));
                for (name, values) in &found.tensors {
                    let apart = apart(values, &expected.tensors[name]);
                    assert!(apart < tolerance, "{case:?}: {name} is {apart:e} apart");
                }
                assert!(testing::worst(&found.norms, &expected.norms) < 1e-6, "{case:?}");
                for (found, expected) in found.changes.iter().zip(&expected.changes) {
                    let figures = |changes: &Changes| -> Vec<f64> {
                        changes.0.iter().flat_map(|(_, change)| [change.weights, change.update]).collect()
                    };
                    assert!(testing::worst(&figures(found), &figures(expected)) < tolerance, "{case:?}");
                }
            }
        }
    }
}

/// A configuration with everything that the loop computes outside of the model.
fn thorough(steps: u64) -> TrainConfig {
    let mut config = config(steps);
    (config.accum_grad, config.ema_decay, config.grad_clip_value) = (2, Some(0.9), Some(0.5));
    (config.log_groups, config.log_gradients) = (true, 4);
    config
}

fn train_at(
    place: &Place,
    folder: &Path,
    config: &TrainConfig,
    observer: &mut Recorder,
) -> (Summary, BTreeMap<String, Vec<f32>>) {
    let (task, mut parameters) = network(0.05);
    let (store, data) = (FolderStore(folder.join("checkpoints")), Samples::new(50, &[7, 8, 9]));
    let summary = place.compute(&mut parameters, |parameters| {
        flowmill_train::train(&task, parameters, &data, config, folder, &store, observer).unwrap()
    });
    let weights = parameters.named_tensors().into_iter().map(|(name, tensor)| (name, host::read(&tensor).unwrap()));
    (summary, weights.collect())
}

#[test]
fn a_training_by_composition_is_that_of_the_kernels_and_resumes_exactly() {
    for optimizer in OPTIMIZERS {
        let mut config = thorough(24);
        config.optim.name = optimizer;
        if optimizer == OptimizerName::Prodigy {
            (config.optim.lr, config.optim.d0) = (1.0, Some(1e-3));
        }
        let folder = tempfile::tempdir().unwrap();
        let mut expected = Recorder::default();
        let data = Samples::new(50, &[7, 8, 9]);
        run(folder.path(), &config, &data, 0.05, &mut expected).unwrap();
        for place in Place::all() {
            let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let mut found = Recorder::default();
            let (_, weights) = train_at(&place, whole.path(), &config, &mut found);
            let losses = |recorder: &Recorder| recorder.steps.iter().map(|step| step.loss).collect::<Vec<_>>();
            let apart = testing::worst(&losses(&found), &losses(&expected));
            assert!(apart < if optimizer == OptimizerName::Muon { 2e-2 } else { 1e-3 }, "{optimizer:?}: {apart:e}");
            // After two interruptions, the files are those of the undisturbed run.
            for after in [5, 8] {
                let (summary, _) = train_at(&place, parts.path(), &config, &mut Recorder::interrupting_after(after));
                assert!(summary.interrupted);
            }
            let (_, resumed) = train_at(&place, parts.path(), &config, &mut Recorder::default());
            assert_eq!(resumed, weights);
            assert_same_tree(whole.path(), parts.path());
        }
    }
}

#[test]
fn half_precision_by_composition_learns_nearly_as_single() {
    let last = |place: &Place, precision| {
        let (folder, mut observer) = (tempfile::tempdir().unwrap(), Recorder::default());
        let config = TrainConfig { precision, ..config(200) };
        let (summary, _) = train_at(place, folder.path(), &config, &mut observer);
        assert_eq!(summary.skipped, 0);
        (observer.validations[0].1, observer.validations.last().unwrap().1)
    };
    for place in Place::all() {
        let (first, exact) = last(&place, Precision::Fp32);
        assert!(exact < 0.4 * first, "{first} {exact}");
        for precision in [Precision::Bf16, Precision::Fp16] {
            let (_, loss) = last(&place, precision);
            assert!((loss - exact).abs() < 0.25 * exact && loss != exact, "{precision:?}: {loss} rather than {exact}");
        }
    }
}

#[test]
fn a_checkpoint_of_another_device_goes_on_and_that_is_said() {
    let data = Samples::new(50, &[7, 8, 9]);
    let (whole, moved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(whole.path(), &config(20), &data, 0.05, &mut Recorder::default()).unwrap();
    run(moved.path(), &config(20), &data, 0.05, &mut Recorder::interrupting_after(12)).unwrap();
    let state = |folder: &Path, step| folder.join("checkpoints").join(checkpoint::name(step)).join("state.json");
    let text = std::fs::read_to_string(state(moved.path(), 12)).unwrap();
    assert!(!text.contains("device"), "on the CPU a checkpoint is what it always was: {text}");
    relabel(&state(moved.path(), 12), &text.replacen("\"step\":", "\"device\": \"cuda:1\",\n  \"step\":", 1));
    let checkpoint = state(moved.path(), 12);
    assert_eq!(read_state(checkpoint.parent().unwrap()).unwrap().device, DeviceName::Cuda(1));

    let mut observer = Recorder::default();
    run(moved.path(), &config(20), &data, 0.05, &mut observer).unwrap();
    let said: Vec<&String> = observer.messages.iter().filter(|text| text.contains("cuda:1")).collect();
    assert!(matches!(said.as_slice(), [text] if text.contains("the CPU")), "{:?}", observer.messages);
    assert_eq!(tree(whole.path())[Path::new("checkpoints/step-000020/model.safetensors")], {
        std::fs::read(moved.path().join("checkpoints/step-000020/model.safetensors")).unwrap()
    });
    let last = read_state(state(moved.path(), 20).parent().unwrap()).unwrap();
    assert_eq!(last.device, DeviceName::Cpu);
}

/// Gives a checkpoint another state, with its checksum.
fn relabel(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    let sums = path.with_file_name("checksums.b3");
    let lines = std::fs::read_to_string(&sums).unwrap();
    let sum = blake3::hash(text.as_bytes()).to_hex();
    let line =
        |line: &str| if line.ends_with("  state.json") { format!("{sum}  state.json\n") } else { format!("{line}\n") };
    std::fs::write(&sums, lines.lines().map(line).collect::<String>()).unwrap();
}

/// A model that the device runs out of memory for at some step, reported in candle's words.
struct TooLarge(support::Regression);

impl Task for TooLarge {
    type Batch = Rows;

    fn loss(&self, context: &Context<'_>, batch: &Rows, rng_key: RngKey) -> Result<Loss, BoxError> {
        if rng_key == RngKey::new(5).purpose("train").epoch(0).step(2) {
            return Err("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".into());
        }
        self.0.loss(context, batch, rng_key)
    }
}

#[test]
fn a_device_without_memory_names_the_batch_and_the_ways_out() {
    let (task, mut parameters) = network(0.0);
    let (folder, data) = (tempfile::tempdir().unwrap(), Samples::new(50, &[7, 8, 9]));
    let store = FolderStore(folder.path().join("checkpoints"));
    let config = TrainConfig { accum_grad: 2, ..config(20) };
    let mut observer = Recorder::default();
    let error =
        flowmill_train::train(&TooLarge(task), &mut parameters, &data, &config, folder.path(), &store, &mut observer);
    let Err(TrainError::DeviceMemory(found)) = error else { panic!("{error:?}") };
    let items = data.batches(0).unwrap()[2].len();
    let cost = BatchCost { valid: items as u64, padded: items as u64, unit: "items" };
    assert_eq!((found.epoch, found.index, found.items, found.cost), (0, 2, items, cost));
    assert!(matches!(&found.source, TrainError::Task { .. }));
    // The plan runs out of memory too.
    let (task, mut parameters) = network(0.0);
    let plan =
        flowmill_train::plan_memory(&TooLarge(task), &mut parameters, &data, &config, Some(1 << 40), &mut observer)
            .unwrap();
    assert_eq!((plan.source, plan.peak, plan.batch.items), (flowmill_train::Source::Full, 1 << 40, 9));
    let text = found.to_string();
    for words in
        ["gradient_checkpointing", "bf16", "max_frames_in_batch", "train.lora", "--plan-memory", "9 utterances"]
    {
        assert!(text.contains(words), "{text}");
    }
}
