//! Flowmill's side of `scripts/bench_valle`: training steps and generation of VALL-E with random weights.
//!
//! `vall_e_bench weights SIZE FILE` writes random weights, `train SIZE FILE SAMPLES STEPS` times training steps (forward, backward, clip by norm,
//! AdamW), `speak SIZE FILE FRAMES` generates the most probable codes. Each prints a line of JSON. The data are those of
//! `scripts/peers/bench_valle.py`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use flowmill_family::BoxError;
use flowmill_networks::vall_e::{
    Batch, Codes, FirstLevel, Sample, SamplingOptions, SpeakOptions, SpeakRequest, Speaker, VallE, VallEConfig,
};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters};
use flowmill_train::process_memory;
use flowmill_train::{DataSource, Loss, Observer, OverfitOptions, Progress, Task, TrainConfig};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: flowmill_nn::HugePages = flowmill_nn::HugePages;

/// Codes per second of EnCodec.
const RATE: usize = 75;
/// Symbols of a text.
const PHONEMES: usize = 80;
/// Steps that are not counted.
const WARM_UP: usize = 1;

/// Returns the number at a place of a sequence that is easy to compute anywhere.
fn number(seed: u64, at: u64, below: u64) -> u32 {
    // Knuth's multiplicative hash; the values stay below 2^32.
    ((((seed * 1_000_003 + at) * 2_654_435_761) % (1 << 32)) >> 8) as u32 % below as u32
}

fn codes(seed: u64, frames: usize) -> Result<Codes, BoxError> {
    let values = (0..8 * frames as u64).map(|at| number(seed, at, 1024)).collect();
    Ok(Codes::new(8, frames, values)?)
}

/// 6 s of speech, 4 s of prompt, 80 phonemes.
fn sample(place: u64, level: usize) -> Result<Sample, BoxError> {
    let mut phonemes: Vec<u32> = (0..PHONEMES as u64).map(|at| 3 + number(3 * place, at, 250)).collect();
    (phonemes[0], phonemes[PHONEMES - 1]) = (1, 2);
    let (prompt, response) = (codes(3 * place + 1, 4 * RATE)?, codes(3 * place + 2, 6 * RATE)?);
    Ok(Sample { phonemes, prompt: Some(prompt), response, level, ..Sample::default() })
}

/// The loss of the model on one batch.
struct Steps(VallE);

impl Task for Steps {
    type Batch = Batch;

    fn loss(&self, context: &Context<'_>, batch: &Batch, _: RngKey) -> Result<Loss, BoxError> {
        let loss = self.0.loss(context, batch)?;
        Ok(Loss { total: loss.total, parts: Vec::new(), weight: loss.weight })
    }

    fn is_optional(&self, parameter: &str) -> bool {
        self.0.is_optional(parameter)
    }
}

/// A source of one batch.
struct OneBatch(Batch);

impl DataSource for OneBatch {
    type Batch = Batch;

    fn batches(&self, _: u64) -> Result<Vec<Vec<u32>>, BoxError> {
        Ok(vec![vec![0]])
    }

    fn load(&self, _: &[u32], _: RngKey) -> Result<Batch, BoxError> {
        Ok(self.0.clone())
    }

    fn validation(&self) -> Vec<Vec<u32>> {
        Vec::new()
    }

    fn id(&self, _: u32) -> &str {
        "batch"
    }
}

/// The losses and durations of the steps.
#[derive(Default)]
struct Times {
    seconds: Vec<f64>,
    losses: Vec<f64>,
}

impl Observer for Times {
    fn step(&mut self, progress: &Progress) {
        self.seconds.push(progress.seconds);
        self.losses.push(progress.loss);
    }

    fn message(&mut self, _: &str) {}
}

fn model(size: &str) -> Result<(VallE, Parameters), BoxError> {
    // Dropout would give both sides other losses.
    let config: VallEConfig = serde_json::from_value(json!({ "size": size, "attention_dropout": 0.0 }))?;
    Ok(VallE::new(&config, 0)?)
}

fn loaded(size: &str, weights: &str) -> Result<(VallE, Parameters), BoxError> {
    let (model, mut parameters) = model(size)?;
    let report = parameters.load(&flowmill_weights::read(Path::new(weights))?.tensors)?;
    if report.is_exact() { Ok((model, parameters)) } else { Err(report.to_string().into()) }
}

fn train(size: &str, weights: &str, samples: u64, steps: u64) -> Result<(), BoxError> {
    let (model, mut parameters) = loaded(size, weights)?;
    let samples = (0..samples).map(|place| sample(place, place as usize % 8)).collect::<Result<Vec<_>, _>>()?;
    let batch = Batch::collate(&samples, model.config())?;
    let rows = batch.rows();
    let mut config = TrainConfig { max_steps: Some(steps), grad_clip: Some(1.0), ..TrainConfig::default() };
    // As the other side's optimizer, so that the losses can be compared.
    (config.optim.lr, config.optim.weight_decay) = (1e-4, 1e-2);
    let options = OverfitOptions { batches: 1, steps, enough: None };
    let mut times = Times::default();
    flowmill_train::overfit(&Steps(model), &mut parameters, &OneBatch(batch), &config, options, &mut times)?;
    let seconds = &times.seconds[WARM_UP.min(times.seconds.len())..];
    println!(
        "{}",
        json!({ "side": "flowmill", "work": "train", "size": size, "rows": rows, "seconds": seconds, "losses": times.losses,
                "peak": process_memory::peak() })
    );
    Ok(())
}

fn speak(size: &str, weights: &str, frames: usize) -> Result<(), BoxError> {
    let (model, parameters) = loaded(size, weights)?;
    let speaker = Speaker::new(&model, &parameters)?;
    drop(parameters);
    let Sample { phonemes, prompt, .. } = sample(0, 0)?;
    let request = SpeakRequest { phonemes, prompt, ..SpeakRequest::default() };
    let greedy = SamplingOptions::greedy();
    let first_level = FirstLevel::Autoregressive { sampling: greedy, guidance: None };
    let options = SpeakOptions { first_level, level_sampling: greedy, max_frames: frames, ..SpeakOptions::default() };
    let mut seconds = Vec::new();
    let mut spoken = Vec::new();
    for _ in 0..=WARM_UP {
        let started = Instant::now();
        let requests = [request.clone()];
        spoken = speaker.speak(&requests, &options, &RngKey::new(0), &mut |_| ControlFlow::Continue(()))?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    let codes = spoken.first().map(Codes::values).unwrap_or_default();
    println!(
        "{}",
        json!({ "side": "flowmill", "work": "speak", "size": size, "seconds": &seconds[WARM_UP..], "codes": codes,
                "peak": process_memory::peak() })
    );
    Ok(())
}

fn main() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["weights", size, file] => {
            let tensors: Vec<_> = model(size)?.1.named_tensors();
            Ok(flowmill_weights::write(Path::new(file), &tensors, &BTreeMap::new())?)
        }
        ["train", size, file, samples, steps] => train(size, file, samples.parse()?, steps.parse()?),
        ["speak", size, file, frames] => speak(size, file, frames.parse()?),
        _ => Err("weights SIZE FILE | train SIZE FILE SAMPLES STEPS | speak SIZE FILE FRAMES".into()),
    }
}
