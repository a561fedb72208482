//! Milliseconds and memory traffic of one gradient norm and one AdamW update, compared with a plain copy of the same number of bytes.
//!
//! `cargo run --release -p flowmill-train --example optimizer_speed [MILLIONS OF PARAMETERS]`

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use flowmill_nn::{Context, Parameters, Tape, random::RngKey};
use flowmill_train::OptimConfig;
use flowmill_train::optimizer::{Update, gradient_norms};

const ROUNDS: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let millions: usize = std::env::args().nth(1).map_or(Ok(20), |text| text.parse())?;
    let (rows, columns) = (1000, 250);
    let mut parameters = Parameters::new();
    for index in 0..4 * millions {
        parameters.add(format!("weight.{index}"), Tensor::ones((rows, columns), DType::F32, &Device::Cpu)?)?;
    }
    let tape = Tape::new();
    let context = Context::training(&parameters, &tape, RngKey::new(0));
    let sums = parameters.ids().map(|id| context.parameter(id).sum()).collect::<Result<Vec<_>, _>>()?;
    let mut loss = sums[0].clone();
    for sum in &sums[1..] {
        loss = loss.add(sum)?;
    }
    let gradients = tape.backward(&loss)?;
    drop((context, sums, loss));
    let mut optimizer = OptimConfig::default().build(&parameters)?;
    let count = 1e6 * millions as f64;
    report("gradient norm", 4.0 * count, || {
        std::hint::black_box(gradient_norms(&parameters, &gradients, 1.0)?);
        Ok(())
    })?;
    let update = Update::new(1e-3, 0.5);
    report("AdamW update", 28.0 * count, || {
        optimizer.step(&mut parameters, &gradients, update)?;
        Ok(())
    })?;
    let source = vec![1f32; millions * 1_000_000];
    let mut target = source.clone();
    report("plain copy, one thread", 8.0 * count, || {
        target.copy_from_slice(std::hint::black_box(&source));
        Ok(())
    })
}

fn report(
    name: &str,
    bytes: f64,
    mut work: impl FnMut() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name}: {:.1} ms, {:.1} GB/s", best * 1e3, bytes / best / 1e9);
    Ok(())
}
