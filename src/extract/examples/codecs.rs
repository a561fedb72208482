//! Prints the time that the codecs take to encode and decode sound, with networks of the published size and random weights:
//!
//!     codecs encodec|dac [SECONDS] [--repeat N]

use std::time::Instant;

use candle_core::Device;
use flowmill_extract::Matrix;
use flowmill_extract::extractors::{dac, encodec};
use flowmill_nn::Value;
use flowmill_nn::random::RngKey;

#[global_allocator]
static ALLOCATOR: flowmill_nn::HugePages = flowmill_nn::HugePages;

/// The result of a function whose errors are printed and end the program.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let kind = words.first().ok_or("encodec or dac is missing")?;
    let seconds: f64 = words.get(1).map_or(Ok(5.0), |word| word.parse())?;
    let repeat: usize = match words.iter().position(|word| word == "--repeat") {
        Some(at) => words.get(at + 1).ok_or("N is missing")?.parse()?,
        None => 3,
    };
    match kind.as_str() {
        "encodec" => encodec(seconds, repeat),
        "dac" => dac(seconds, repeat),
        other => Err(format!("there is no codec `{other}` here").into()),
    }
}

/// Noise of a length.
fn noise(seconds: f64, sample_rate: f64) -> Vec<f32> {
    let noise = RngKey::new(1).normals((seconds * sample_rate) as usize);
    noise.into_iter().map(|sample| 0.1 * sample).collect()
}

fn encodec(seconds: f64, repeat: usize) -> Outcome<()> {
    let checkpoint = encodec::Checkpoint::random(encodec::Dimensions::default(), 1)?;
    let extractor = encodec::EncodecExtractor::new(&checkpoint, &Device::Cpu)?;
    let decoder = encodec::Decoder::new(&checkpoint, &Device::Cpu)?;
    let samples = noise(seconds, f64::from(encodec::SAMPLE_RATE));
    for _ in 0..repeat {
        let encoded = timed("encoder", seconds, || extractor.encode(&samples))?;
        timed("quantizer", seconds, || Ok(extractor.quantize(&encoded)))?;
        let frames = Value::from_vec(encoded.as_slice().to_vec(), &[encoded.rows(), encoded.columns()])?;
        timed("decoder", seconds, || decoder.decode(&frames))?;
    }
    Ok(())
}

fn dac(seconds: f64, repeat: usize) -> Outcome<()> {
    let checkpoint = dac::Checkpoint::random(dac::Dimensions::default(), 1)?;
    let encoder = dac::Encoder::new(&checkpoint, &Device::Cpu)?;
    let (quantizer, decoder) = (dac::Quantizer::new(&checkpoint)?, dac::Decoder::new(&checkpoint, &Device::Cpu)?);
    let samples = noise(seconds, 44_100.0);
    for _ in 0..repeat {
        let encoded = timed("encoder", seconds, || encoder.encode(&samples))?;
        let quantized = timed("quantizer", seconds, || quantizer.quantize(&encoded, usize::MAX))?;
        let output: &Matrix = &quantized.output;
        let frames = Value::from_vec(output.as_slice().to_vec(), &[output.rows(), output.columns()])?;
        timed("decoder", seconds, || decoder.decode(&frames))?;
    }
    Ok(())
}

/// Does some work and prints its time per second of sound.
fn timed<T>(name: &str, seconds: f64, work: impl FnOnce() -> flowmill_nn::Result<T>) -> Outcome<T> {
    let started = Instant::now();
    let result = work()?;
    println!("{name} {:.4} s per second of sound", started.elapsed().as_secs_f64() / seconds);
    Ok(result)
}
