//! Times training steps (forward and backward) and one inference of the flow on random batches: `cargo run --release -p
//! flowmill-networks --example flow_step`.
//!
//! Arguments: steps per configuration (default 5), frames per batch (default 1600), part of a configuration's name
//! (default all), `checkpointed` to recompute blocks in the backward pass, `bf16` or `fp16` to round (default
//! neither).

use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{
    CosyVoice3Config, EncoderConfig, Flow, FlowBatch, FlowConfig, FlowDraws, FlowItem, GenerationRequest,
    StepAudioConfig, UNetConfig,
};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Precision, Tape};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: flowmill_nn::HugePages = flowmill_nn::HugePages;

struct Case {
    name: &'static str,
    width: usize,
    blocks: [usize; 2],
    channels: usize,
    heads: usize,
    head_dim: usize,
    transformers: usize,
    middle: usize,
    dropout: f32,
}

impl Case {
    fn config(&self) -> FlowConfig {
        FlowConfig {
            vocab_size: 500,
            input_size: self.width,
            encoder: EncoderConfig {
                attention_heads: self.heads,
                linear_units: 4 * self.width,
                num_blocks: self.blocks[0],
                num_up_blocks: self.blocks[1],
                dropout_rate: self.dropout,
                positional_dropout_rate: self.dropout,
                attention_dropout_rate: self.dropout,
                ..EncoderConfig::default()
            },
            estimator: UNetConfig {
                channels: vec![self.channels],
                attention_head_dim: self.head_dim,
                num_heads: self.heads,
                n_blocks: self.transformers,
                num_mid_blocks: self.middle,
                ..UNetConfig::default()
            }
            .into(),
            ..FlowConfig::default()
        }
    }
}

const CASES: [Case; 6] = [
    Case {
        name: "demo",
        width: 128,
        blocks: [2, 1],
        channels: 128,
        heads: 4,
        head_dim: 32,
        transformers: 1,
        middle: 2,
        dropout: 0.0,
    },
    Case {
        name: "dropped",
        width: 128,
        blocks: [2, 1],
        channels: 128,
        heads: 4,
        head_dim: 32,
        transformers: 1,
        middle: 2,
        dropout: 0.1,
    },
    Case {
        name: "small",
        width: 96,
        blocks: [1, 1],
        channels: 96,
        heads: 2,
        head_dim: 48,
        transformers: 1,
        middle: 2,
        dropout: 0.0,
    },
    Case {
        name: "medium",
        width: 128,
        blocks: [2, 1],
        channels: 128,
        heads: 2,
        head_dim: 64,
        transformers: 1,
        middle: 2,
        dropout: 0.0,
    },
    Case {
        name: "large",
        width: 128,
        blocks: [2, 1],
        channels: 160,
        heads: 2,
        head_dim: 64,
        transformers: 1,
        middle: 4,
        dropout: 0.0,
    },
    Case {
        name: "published",
        width: 512,
        blocks: [6, 4],
        channels: 256,
        heads: 8,
        head_dim: 64,
        transformers: 4,
        middle: 12,
        dropout: 0.0,
    },
];

/// Returns utterances of 2 to 6 s with the given total number of frames.
fn batch(frames: usize, config: &FlowConfig) -> FlowBatch {
    let rng_key = RngKey::new(5);
    let mut items = Vec::new();
    let mut total = 0;
    while total < frames {
        let sample = items.len() as u64;
        let tokens = (50 + rng_key.below_at(sample, 100) as usize).min((frames - total).div_ceil(2).max(10));
        total += 2 * tokens;
        let of = |purpose| rng_key.purpose(purpose).sample(sample);
        items.push(FlowItem {
            tokens: ids(&of("token"), tokens, config),
            mel: of("mel").normals(2 * tokens * config.output_size),
            speaker_embedding: of("speaker").normals(config.spk_embed_dim),
            sample,
        });
    }
    FlowBatch::collate(&items, config).expect("the sizes fit")
}

fn ids(rng_key: &RngKey, tokens: usize, config: &FlowConfig) -> Vec<u32> {
    (0..(tokens * config.ids_per_token()) as u64).map(|i| rng_key.below_at(i, config.vocab_size as u32)).collect()
}

/// Returns the flows to measure, by name.
fn configurations() -> Vec<(&'static str, FlowConfig)> {
    let mut all: Vec<_> = CASES.iter().map(|case| (case.name, case.config())).collect();
    let mut step_audio = StepAudioConfig::default();
    step_audio.encoder.dropout_rate = 0.0;
    step_audio.encoder.positional_dropout_rate = 0.0;
    step_audio.encoder.attention_dropout_rate = 0.0;
    all.push(("step-audio", FlowConfig::from(&step_audio)));
    let mut cosyvoice3 = CosyVoice3Config::default();
    cosyvoice3.estimator.dropout = 0.0;
    all.push(("cosyvoice3", FlowConfig::from(&cosyvoice3)));
    all
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or("?".to_owned(), |line| line.trim().to_owned())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let steps: usize = arguments.first().map_or(Ok(5), |argument| argument.parse())?;
    let frames: usize = arguments.get(1).map_or(Ok(1600), |argument| argument.parse())?;
    let wanted = arguments.get(2).cloned().unwrap_or_default();
    let asked = |word: &str| arguments.iter().skip(3).any(|argument| argument == word);
    let checkpoints = asked("checkpointed");
    let precision = match (asked("bf16"), asked("fp16")) {
        (true, _) => Precision::Bf16,
        (_, true) => Precision::Fp16,
        _ => Precision::Fp32,
    };
    for (name, config) in configurations().into_iter().filter(|(name, _)| name.contains(&wanted)) {
        let (flow, parameters) = Flow::new(&config, 1)?;
        let batch = batch(frames, &config);
        let valid: usize = batch.mel_lengths.iter().sum();
        let mut times = Vec::new();
        for step in 0..=steps as u64 {
            let rng_key = RngKey::new(9).step(step);
            let mut draws = FlowDraws::from_rng_key(&rng_key, &batch, &config)?;
            draws.streaming = false;
            let start = Instant::now();
            let tape = Tape::with_precision(precision);
            let context = Context::training(&parameters, &tape, rng_key).with_checkpoints(checkpoints);
            let loss = flow.loss(&context, &batch, &draws)?;
            let forward = start.elapsed().as_secs_f64();
            let gradients = tape.backward(&loss.total)?;
            assert_eq!(gradients.len(), parameters.trainable_ids().count());
            times.push((start.elapsed().as_secs_f64(), forward));
        }
        let mut times = times.split_off(1);
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (step, forward) = times[times.len() / 2];
        println!(
            "{:>10}: {:6.2} M parameters, {} items, {valid} frames: {:7.1} ms per step ({:.1} forward), {:.0} frames/s, peak {}",
            name,
            parameters.element_count(false) as f64 / 1e6,
            batch.len(),
            1e3 * step,
            1e3 * forward,
            valid as f64 / step,
            peak_memory(),
        );
        let request = GenerationRequest {
            tokens: ids(&RngKey::new(6), 100, &config),
            speaker_embedding: RngKey::new(7).normals(config.spk_embed_dim),
            prompt: None,
        };
        let start = Instant::now();
        let context = Context::inference(&parameters);
        flow.generate(&context, &[request], &flow.default_options(), &RngKey::new(8), &[0])?;
        let took = start.elapsed().as_secs_f64();
        println!("{name:>10}: {took:.2} s for 4 s of mel, 10 guided steps, peak {}", peak_memory());
    }
    Ok(())
}
