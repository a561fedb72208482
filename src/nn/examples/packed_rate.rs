//! Time of a product with weights that were packed when a model was loaded (`flowmill_nn::inference`), relative to the same
//! product by the tape's operation, per shape: medians of five rounds, alternating between the two.
//!
//! `cargo run --release -p flowmill-nn --example packed_rate`

use candle_core::{Device, Tensor};
use flowmill_nn::inference::Linear;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Activation, NnError, Value};
use std::time::Instant;

/// Operations per round.
const WORK: usize = 20_000_000_000;

fn seconds(repeats: usize, product: impl Fn() -> Result<Value, NnError>) -> Result<f64, NnError> {
    let start = Instant::now();
    for _ in 0..repeats {
        product()?;
    }
    Ok(start.elapsed().as_secs_f64())
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Rows, inputs and outputs: the S3 tokenizer's layers on 10 s and 40 s, Paraformer's on 6 s and 45 s.
    let shapes = [
        [250, 1280, 1280],
        [250, 1280, 5120],
        [250, 5120, 1280],
        [1000, 1280, 1280],
        [100, 512, 2048],
        [750, 512, 512],
    ];
    for [rows, inputs, outputs] in shapes {
        let input = Value::from_vec(RngKey::new(1).normals(rows * inputs), &[rows, inputs])?;
        let weight = Tensor::from_vec(RngKey::new(2).normals(outputs * inputs), (outputs, inputs), &Device::Cpu)?;
        let packed = Linear::new(&weight, None)?;
        let weight = Value::plain(weight)?;
        let repeats = WORK / (2 * rows * inputs * outputs);
        let (mut by_packed, mut by_tape) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            by_packed.push(seconds(repeats, || packed.forward(&input, Activation::Identity))?);
            by_tape.push(seconds(repeats, || input.linear(&weight, None))?);
        }
        println!("{rows:>5} x {inputs:>4} x {outputs:>4}: {:.2}", median(by_packed) / median(by_tape));
    }
    Ok(())
}
