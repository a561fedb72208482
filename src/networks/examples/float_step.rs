//! Times training steps (forward and backward) and sampling of FLOAT's transformer with random weights: `cargo run --release --workspace
//! --example float_step`.
//!
//! Arguments: steps (default 5), windows per batch (default 8), `full` or `small` (default `full`), `sample` to sample 2 s instead.

use flowmill_networks::float::{
    Batch, Draws, DropoutConfig, Float, FloatConfig, GuidanceOptions, MotionRequest, Window,
};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Tape};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: flowmill_nn::HugePages = flowmill_nn::HugePages;

fn window(config: &FloatConfig, number: u64) -> Window {
    let rng_key = RngKey::new(number);
    let frames = config.window();
    let mut emotion = vec![0.0; config.dim_e];
    emotion[number as usize % config.dim_e] = 1.0;
    Window {
        motion: rng_key.purpose("motion").normals(frames * config.dim_w),
        audio: rng_key.purpose("audio").normals(frames * config.audio_width()),
        missing: 0,
        reference: rng_key.purpose("reference").normals(config.dim_w),
        emotion,
        sample: number,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |place: usize, default: usize| arguments.get(place).and_then(|text| text.parse().ok()).unwrap_or(default);
    let config = match arguments.get(2).map(String::as_str) {
        Some("small") => FloatConfig { dim_h: 128, fmt_depth: 2, audio_features: 64, ..FloatConfig::default() },
        _ => FloatConfig::default(),
    };
    let (model, parameters) = Float::new(&config, 0)?;
    println!("{} parameters", parameters.element_count(true));
    if arguments.get(3).is_some_and(|word| word == "sample") {
        let Window { audio, reference, emotion, .. } = window(&config, 0);
        let audio = audio[config.num_prev_frames * config.audio_width()..].to_vec();
        let request = MotionRequest { audio, reference, emotion };
        for _ in 0..number(0, 5) {
            let start = Instant::now();
            let options = GuidanceOptions::default();
            let context = Context::inference(&parameters);
            let motions = model.sample(&context, std::slice::from_ref(&request), &options, &RngKey::new(1))?;
            println!("{} frames in {:.3} s", motions[0].len() / config.dim_w, start.elapsed().as_secs_f64());
        }
        return Ok(());
    }
    let windows: Vec<Window> = (0..number(1, 8) as u64).map(|number| window(&config, number)).collect();
    let batch = Batch::collate(&windows, &config)?;
    for step in 0..number(0, 5) {
        let key = RngKey::new(step as u64);
        let draws = Draws::from_rng_key(&key, &batch, &DropoutConfig::NONE)?;
        let start = Instant::now();
        let tape = Tape::new();
        let loss = model.loss(&Context::training(&parameters, &tape, key), &batch, &draws)?;
        let forward = start.elapsed().as_secs_f64();
        let gradients = tape.backward(&loss.total)?;
        println!(
            "step {:.4} s, forward {forward:.4} s, {} gradients, loss {:.4}",
            start.elapsed().as_secs_f64(),
            gradients.len(),
            loss.total.scalar()?
        );
    }
    // Highest memory of the process, in kB.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("VmHWM")).for_each(|line| println!("{line}"));
    Ok(())
}
