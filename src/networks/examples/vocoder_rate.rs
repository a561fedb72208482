//! The time that HiFT takes for a second of sound at its published size, with random weights.
//!
//! `cargo run --release -p flowmill-networks --example vocoder_rate [SECONDS]`

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{Device, Tensor};
use flowmill_audio::features::Features;
use flowmill_networks::vocoders::Vocoder;
use flowmill_networks::vocoders::hift::{Hift, HiftSettings};
use flowmill_nn::host;
use flowmill_nn::random::RngKey;

const BANDS: usize = 80;
const CHANNELS: usize = 512;
/// Frames per second.
const RATE: usize = 50;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds: usize = std::env::args().nth(1).map_or(Ok(10), |seconds| seconds.parse())?;
    let vocoder = Hift::new(weights()?, &HiftSettings::default(), &Device::Cpu)?;
    let frames = seconds * RATE;
    let mel = Features::new(RngKey::new(1).normals(frames * BANDS), frames, BANDS)?;
    let start = Instant::now();
    let samples = vocoder.vocode(&mel, &RngKey::new(2))?;
    let taken = start.elapsed().as_secs_f64();
    println!("{} samples in {taken:.2} s: {:.3} s per second of sound", samples.len(), taken / seconds as f64);
    Ok(())
}

/// Draws weights of CosyVoice 2's dimensions.
fn weights() -> Result<BTreeMap<String, Tensor>, Box<dyn std::error::Error>> {
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: String, shape: &[usize], bias: usize| {
        shapes.push((format!("{name}.weight"), shape.to_vec()));
        shapes.push((format!("{name}.bias"), vec![bias]));
    };
    add("conv_pre".to_owned(), &[CHANNELS, BANDS, 7], CHANNELS);
    add("conv_post".to_owned(), &[18, CHANNELS / 8, 7], 18);
    for layer in 0..5 {
        let inputs = if layer == 0 { BANDS } else { CHANNELS };
        add(format!("f0_predictor.condnet.{}", 2 * layer), &[CHANNELS, inputs, 3], CHANNELS);
    }
    add("f0_predictor.classifier".to_owned(), &[1, CHANNELS], 1);
    add("m_source.l_linear".to_owned(), &[1, 9], 1);
    let mut alphas = Vec::new();
    for (level, taps, source_taps, down) in [(0, 16, 7, 30), (1, 11, 7, 6), (2, 7, 11, 1)] {
        let channels = CHANNELS >> (level + 1);
        add(format!("ups.{level}"), &[2 * channels, channels, taps], channels);
        add(format!("source_downs.{level}"), &[channels, 18, down], channels);
        let own = [(3, 0), (7, 1), (11, 2)].map(|(taps, block)| (format!("resblocks.{}", 3 * level + block), taps));
        for (name, taps) in own.into_iter().chain([(format!("source_resblocks.{level}"), source_taps)]) {
            for (part, unit) in (1..=2).flat_map(|part| (0..3).map(move |unit| (part, unit))) {
                add(format!("{name}.convs{part}.{unit}"), &[channels, channels, taps], channels);
                alphas.push((format!("{name}.activations{part}.{unit}.alpha"), vec![channels]));
            }
        }
    }
    shapes.extend(alphas);
    let mut weights = BTreeMap::new();
    for (name, shape) in shapes {
        let count: usize = shape.iter().product();
        // About the power of the input: a deviation of one over the root of the terms.
        let scale = 0.5 / ((count / shape[0]).max(1) as f32).sqrt();
        let values = RngKey::new(5).purpose(&name).normals(count).into_iter().map(|value| scale * value).collect();
        weights.insert(name, host::tensor(values, &shape)?);
    }
    Ok(weights)
}
