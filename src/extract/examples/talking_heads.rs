//! Prints the time that the networks of FLOAT's front-ends take, at their published sizes with random weights:
//!
//!     talking_heads wav2vec2 [SECONDS] [--repeat N]        seconds of time per second of speech
//!     talking_heads lia [FRAMES] [--repeat N]              seconds of time per picture, encoded and decoded

use std::time::Instant;

use candle_core::Device;
use flowmill_extract::extractors::{lia, wav2vec2};
use flowmill_nn::random::RngKey;
use rayon::prelude::*;

#[global_allocator]
static ALLOCATOR: flowmill_nn::HugePages = flowmill_nn::HugePages;

/// The result of a function whose errors are printed and end the program.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let repeat: usize = match words.iter().position(|word| word == "--repeat") {
        Some(at) => words.get(at + 1).ok_or("N is missing")?.parse()?,
        None => 3,
    };
    let amount = words.get(1).filter(|word| !word.starts_with("--"));
    match words.first().map(String::as_str) {
        Some("wav2vec2") => speech(amount.map_or(Ok(5.0), |word| word.parse())?, repeat),
        Some("lia") => pictures(amount.map_or(Ok(4), |word| word.parse())?, repeat),
        _ => Err("wav2vec2 or lia is missing".into()),
    }
}

fn speech(seconds: f64, repeat: usize) -> Outcome<()> {
    let checkpoint = wav2vec2::Checkpoint::random(wav2vec2::Dimensions::default(), 1)?;
    let encoder = wav2vec2::Wav2Vec2::new(&checkpoint, None, &Device::Cpu)?;
    let samples = RngKey::new(1).normals((seconds * f64::from(wav2vec2::SAMPLE_RATE)) as usize);
    for _ in 0..repeat {
        let started = Instant::now();
        let features = encoder.features(&samples, (25.0 * seconds) as usize, false)?;
        let time = started.elapsed().as_secs_f64() / seconds;
        println!("wav2vec2 {time:.4} s per second of speech, {} features", features.columns());
    }
    Ok(())
}

fn pictures(frames: usize, repeat: usize) -> Outcome<()> {
    let checkpoint = lia::Checkpoint::random(lia::Dimensions::default(), 1)?;
    let (encoder, decoder) = (lia::LiaEncoder::new(&checkpoint)?, lia::LiaDecoder::new(&checkpoint)?);
    let size = encoder.dimensions().size();
    let picture: Vec<f32> = RngKey::new(1).uniforms(3 * size * size).into_iter().map(|x| 2.0 * x - 1.0).collect();
    let encoded = encoder.encode(&picture)?;
    for _ in 0..repeat {
        let started = Instant::now();
        (0..frames).into_par_iter().try_for_each(|_| encoder.coefficients(&picture).map(drop))?;
        let encoding = started.elapsed().as_secs_f64() / frames as f64;
        let started = Instant::now();
        let decode = |_| decoder.decode(&encoded.appearance, &encoded.features).map(drop);
        (0..frames).into_par_iter().try_for_each(decode)?;
        let decoding = started.elapsed().as_secs_f64() / frames as f64;
        println!("lia encoder {encoding:.4} s, decoder {decoding:.4} s per picture of {size} x {size}");
    }
    Ok(())
}
