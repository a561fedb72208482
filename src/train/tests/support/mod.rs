//! A small real task for the tests: regression by a two-layer network with squared units, on numbers that are drawn once.

#![allow(dead_code, reason = "each test file uses its part")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::{Device, Tensor};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, ParameterId, Parameters, Value};
use flowmill_train::optimizer::OptimizerName;
use flowmill_train::{
    BoxError, CheckpointStore, DataSource, Interval, KeepConfig, Loss, Observer, Progress, ScheduleConfig, Summary,
    Task, TrainConfig, TrainError, schedule::ScheduleName,
};

pub const INPUTS: usize = 3;
pub const HIDDEN: usize = 8;

/// Every optimizer.
pub const OPTIMIZERS: [OptimizerName; 6] = [
    OptimizerName::Adam,
    OptimizerName::AdamW,
    OptimizerName::Sgd,
    OptimizerName::Adafactor,
    OptimizerName::Prodigy,
    OptimizerName::Muon,
];

/// A network `x ↦ (x A + a)² B + b`, optionally with a parameter that the loss does not use.
pub struct Regression {
    hidden: (ParameterId, ParameterId),
    output: (ParameterId, ParameterId),
    /// Deviation of the noise added to inputs, from the step's draw.
    pub noise: f32,
}

pub fn network(noise: f32) -> (Regression, Parameters) {
    let mut parameters = Parameters::new();
    let mut add = |name: &str, shape: &[usize]| {
        let tensor = RngKey::new(1).purpose(name).normal_tensor(shape, &Device::Cpu).unwrap();
        parameters.add(name, (tensor * 0.4).unwrap()).unwrap()
    };
    let hidden = (add("hidden.weight", &[HIDDEN, INPUTS]), add("hidden.bias", &[HIDDEN]));
    let output = (add("output.weight", &[1, HIDDEN]), add("output.bias", &[1]));
    (Regression { hidden, output, noise }, parameters)
}

/// Rows of inputs and targets.
pub struct Rows {
    inputs: Vec<f32>,
    targets: Vec<f32>,
}

impl Task for Regression {
    type Batch = Rows;

    fn loss(&self, context: &Context<'_>, batch: &Rows, rng_key: RngKey) -> Result<Loss, BoxError> {
        let count = batch.targets.len();
        let noise = rng_key.purpose("noise").normals(batch.inputs.len());
        let inputs = batch.inputs.iter().zip(noise).map(|(input, noise)| input + self.noise * noise).collect();
        let inputs = Value::from_vec(inputs, &[count, INPUTS])?;
        let linear =
            |input: &Value, (weight, bias)| input.linear(&context.parameter(weight), Some(&context.parameter(bias)));
        let hidden = linear(&inputs, self.hidden)?;
        let error = linear(&hidden.multiply(&hidden)?, self.output)?;
        let error = error.subtract(&Value::from_vec(batch.targets.clone(), &[count, 1])?)?;
        let total = error.multiply(&error)?.mean()?;
        let parts = vec![("squared_error", f64::from(total.scalar()?))];
        Ok(Loss { total, parts, weight: count as f64 })
    }
}

/// Samples in batches of unequal sizes, in an order that depends on the epoch.
pub struct Samples {
    pub count: u32,
    pub sizes: Vec<usize>,
    pub seed: u64,
    /// An item whose target is not a number.
    pub poison: Option<u32>,
    pub delay: Duration,
    ids: Vec<String>,
}

impl Samples {
    pub fn new(count: u32, sizes: &[usize]) -> Self {
        let ids = (0..count + 16).map(|item| format!("sample-{item}")).collect();
        Self { count, sizes: sizes.to_vec(), seed: 9, poison: None, delay: Duration::ZERO, ids }
    }
}

impl DataSource for Samples {
    type Batch = Rows;

    fn batches(&self, epoch: u64) -> Result<Vec<Vec<u32>>, BoxError> {
        let rng_key = RngKey::keyed(self.seed, "order", epoch, 0, 0);
        let mut items: Vec<u32> = (0..self.count).collect();
        items.sort_by_key(|&item| (rng_key.below_at(u64::from(item), u32::MAX), item));
        let (mut batches, mut rest) = (Vec::new(), items.as_slice());
        for size in self.sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (batch, tail) = rest.split_at((*size).min(rest.len()));
            batches.push(batch.to_vec());
            rest = tail;
        }
        Ok(batches)
    }

    fn load(&self, items: &[u32], _: RngKey) -> Result<Rows, BoxError> {
        std::thread::sleep(self.delay);
        let draw = |item: u32| RngKey::keyed(3, "sample", 0, 0, u64::from(item)).normals(INPUTS);
        let inputs: Vec<f32> = items.iter().flat_map(|&item| draw(item)).collect();
        let target = |(row, &item): (&[f32], &u32)| {
            if self.poison == Some(item) { f32::NAN } else { row[0] * row[1] - 0.5 * row[2] }
        };
        let targets = inputs.chunks(INPUTS).zip(items).map(target).collect();
        Ok(Rows { inputs, targets })
    }

    fn validation(&self) -> Vec<Vec<u32>> {
        vec![(self.count..self.count + 10).collect(), (self.count + 10..self.count + 16).collect()]
    }

    fn id(&self, item: u32) -> &str {
        &self.ids[item as usize]
    }
}

/// A store that keeps checkpoints as subfolders of a folder.
pub struct FolderStore(pub PathBuf);

impl FolderStore {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrainError {
        TrainError::io(action, path)
    }
}

impl CheckpointStore for FolderStore {
    fn save(&self, name: &str, write: &mut dyn FnMut(&Path) -> Result<(), TrainError>) -> Result<(), TrainError> {
        let partial = self.0.join(".partial");
        if partial.exists() {
            std::fs::remove_dir_all(&partial).map_err(Self::io("remove", &partial))?;
        }
        std::fs::create_dir_all(&partial).map_err(Self::io("create", &partial))?;
        write(&partial)?;
        // Like in the store of a stage, a checkpoint of the same step is replaced.
        if self.path(name).exists() {
            std::fs::remove_dir_all(self.path(name)).map_err(Self::io("remove", &self.path(name)))?;
        }
        std::fs::rename(&partial, self.path(name)).map_err(Self::io("rename", &partial))
    }

    fn list(&self) -> Result<Vec<String>, TrainError> {
        let Ok(entries) = std::fs::read_dir(&self.0) else {
            return Ok(Vec::new());
        };
        Ok(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn remove(&self, name: &str) -> Result<(), TrainError> {
        let path = self.path(name);
        std::fs::remove_dir_all(&path).map_err(Self::io("remove", &path))
    }

    fn set_aside(&self, name: &str) -> Result<PathBuf, TrainError> {
        let (path, aside) = (self.path(name), self.path(&format!("damaged-{name}")));
        std::fs::rename(&path, &aside).map_err(Self::io("rename", &path))?;
        Ok(aside)
    }
}

/// Records what is reported, and interrupts after a number of steps of this process.
#[derive(Default)]
pub struct Recorder {
    pub steps: Vec<Progress>,
    pub validations: Vec<(u64, f64)>,
    pub messages: Vec<String>,
    interrupt_after: Option<usize>,
    asked: Cell<usize>,
}

impl Recorder {
    pub fn interrupting_after(steps: usize) -> Self {
        Self { interrupt_after: Some(steps), ..Self::default() }
    }
}

impl Observer for Recorder {
    fn step(&mut self, progress: &Progress) {
        self.steps.push(progress.clone());
    }

    fn validated(&mut self, step: u64, loss: f64) {
        self.validations.push((step, loss));
    }

    fn message(&mut self, text: &str) {
        self.messages.push(text.to_owned());
    }

    fn interrupted(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.interrupt_after.is_some_and(|steps| self.asked.get() >= steps)
    }
}

pub fn config(max_steps: u64) -> TrainConfig {
    let mut config = TrainConfig {
        seed: 5,
        schedule: ScheduleConfig {
            name: ScheduleName::WarmupCosine,
            warmup_steps: 5,
            final_ratio: 0.1,
            ..ScheduleConfig::default()
        },
        max_steps: Some(max_steps),
        max_epochs: None,
        validate_every: Interval::Steps(4),
        save_every: Interval::Steps(10),
        log_every: 3,
        keep: KeepConfig { last: 2, best: 1, every: 0 },
        ..TrainConfig::default()
    };
    config.optim.lr = 0.02;
    config
}

/// Trains the network in a folder and returns the weights by name.
pub fn run(
    folder: &Path,
    config: &TrainConfig,
    data: &Samples,
    noise: f32,
    observer: &mut Recorder,
) -> Result<(Summary, BTreeMap<String, Vec<f32>>), TrainError> {
    let (task, mut parameters) = network(noise);
    let store = FolderStore(folder.join("checkpoints"));
    let summary = flowmill_train::train(&task, &mut parameters, data, config, folder, &store, observer)?;
    Ok((summary, weights(&parameters)))
}

pub fn weights(parameters: &Parameters) -> BTreeMap<String, Vec<f32>> {
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    parameters.ids().map(|id| (parameters.name(id).to_owned(), values(parameters.tensor(id)))).collect()
}

/// Every file below a folder with its bytes.
pub fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Fails with the names of the files that differ; those of damaged checkpoints, which are moved aside, do not count.
pub fn assert_same_tree(left: &Path, right: &Path) {
    let results = |folder| {
        let mut files = tree(folder);
        files.retain(|path, _| !path.to_string_lossy().contains("damaged-step-"));
        files
    };
    let (left, right) = (results(left), results(right));
    let names: std::collections::BTreeSet<&PathBuf> = left.keys().chain(right.keys()).collect();
    let different: Vec<_> = names.into_iter().filter(|name| left.get(*name) != right.get(*name)).collect();
    assert!(different.is_empty(), "these files differ: {different:?}");
}
