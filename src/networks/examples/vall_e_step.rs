//! Times training steps (forward and backward) and generation of VALL-E with random weights: `cargo run --release -p
//! flowmill-networks --example vall_e_step`.
//!
//! Arguments: `full`, `half` or `quarter` (default `quarter`), steps (default 5), samples per batch (default 4).

use flowmill_networks::vall_e::{
    Batch, Codes, FirstLevel, MaskedOptions, Progress, Sample, SamplingOptions, SpeakOptions, SpeakRequest, Speaker,
    VallE, VallEConfig,
};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Tape};
use std::ops::ControlFlow;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: flowmill_nn::HugePages = flowmill_nn::HugePages;

/// Seconds of processor time that this process has used, on all threads: a figure that other work on the machine does not change much.
fn processor_seconds() -> f64 {
    // Fields 14 and 15 of the process's statistics are ticks of 1/100 s; the name before them may contain spaces.
    let statistics = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = statistics.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Frames of a second.
const RATE: usize = 75;

fn codes(rng_key: RngKey, frames: usize) -> Codes {
    let values = (0..8 * frames as u64).map(|position| rng_key.below_at(position, 1024)).collect();
    Codes::new(8, frames, values).expect("8 codes per frame")
}

/// 6 s of speech, 4 s of prompt, 80 phonemes.
fn sample(number: usize, level: usize) -> Sample {
    let rng_key = RngKey::new(number as u64);
    let mut phonemes: Vec<u32> = (0..80).map(|position| 3 + rng_key.below_at(position, 250)).collect();
    (phonemes[0], phonemes[79]) = (1, 2);
    let (prompt, response) = (codes(rng_key.purpose("prompt"), 4 * RATE), codes(rng_key, 6 * RATE));
    Sample { phonemes, prompt: Some(prompt), response, level, ..Sample::default() }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |place: usize, default: usize| arguments.get(place).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (dim, heads) = match arguments.first().map(String::as_str) {
        Some("full") => (1024, 16),
        Some("half") => (512, 8),
        _ => (256, 4),
    };
    let config = VallEConfig { dim, heads, ..VallEConfig::default() };
    let (model, parameters) = VallE::new(&config, 0)?;
    println!("{dim} channels, {} parameters", parameters.element_count(false));
    let samples: Vec<Sample> = (0..number(2, 4)).map(|number| sample(number, number % 8)).collect();
    let batch = Batch::collate(&samples, &config)?;
    for step in 0..number(1, 5) {
        let (start, before) = (Instant::now(), processor_seconds());
        let tape = Tape::new();
        let loss = model.loss(&Context::training(&parameters, &tape, RngKey::new(step as u64)), &batch)?;
        let forward = start.elapsed();
        let gradients = tape.backward(&loss.total)?;
        let total = start.elapsed();
        println!(
            "step {step}: {:.1} ms ({:.1} ms forward), {:.2} s of processor time, {} rows, {} gradients, loss {:.3}",
            1e3 * total.as_secs_f64(),
            1e3 * forward.as_secs_f64(),
            processor_seconds() - before,
            batch.rows(),
            gradients.len(),
            loss.total.scalar()?
        );
    }
    generate(&model, &parameters)
}

fn generate(model: &VallE, parameters: &Parameters) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let speaker = Speaker::new(model, parameters)?;
    println!("packing: {:.2} s", start.elapsed().as_secs_f64());
    for count in [1, 4] {
        let request = |number| {
            let Sample { phonemes, prompt, .. } = sample(number, 0);
            SpeakRequest { phonemes, prompt, frames: Some(3 * RATE), sample: number as u64, ..SpeakRequest::default() }
        };
        let requests: Vec<SpeakRequest> = (0..count).map(request).collect();
        let sampling = SamplingOptions { top_k: 50, ..SamplingOptions::default() };
        let autoregressive = FirstLevel::Autoregressive { sampling, guidance: None };
        for (name, first_level) in [("AR", autoregressive), ("NAR-len", FirstLevel::Masked(MaskedOptions::default()))] {
            let options = SpeakOptions { first_level, max_frames: 3 * RATE, ..SpeakOptions::default() };
            let (start, before) = (Instant::now(), processor_seconds());
            let mut first = [0.0; 2];
            let mut observe = |progress: &Progress| {
                if progress.stage == flowmill_networks::vall_e::Stage::FirstLevel {
                    first = [start.elapsed().as_secs_f64(), processor_seconds() - before];
                }
                ControlFlow::Continue(())
            };
            let spoken = speaker.speak(&requests, &options, &RngKey::new(1), &mut observe)?;
            let frames: usize = spoken.iter().map(Codes::frames).sum();
            let all = start.elapsed().as_secs_f64();
            println!(
                "{count} x {name}: {frames} frames, level 0 {:.2} s ({:.0} frames/s, {:.2} s of processor time), all levels \
                 {all:.2} s ({:.2} s)",
                first[0],
                frames as f64 / first[0],
                first[1],
                processor_seconds() - before
            );
        }
    }
    Ok(())
}
