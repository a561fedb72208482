//! LPIPS with the features of AlexNet and of VGG-16, whose weights follow from a formula.

use candle_core::{Device, Tensor};
use flowmill_nn::init::Builder;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters};
use serde_json::Value;
use std::collections::BTreeMap;

use super::{GoldenFile, ParityError, Report, Result};
use crate::lpips::{Lpips, Trunk};
use crate::stable_diffusion::{channels_first, channels_last};

/// Largest number of elements of a weight that is computed.
const LARGEST: usize = 1 << 24;

/// Compares everything that the file expects.
pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let mut report = Report::default();
    let [a, b] = ["in.image0", "in.image1"].map(|name| Ok::<_, ParityError>(channels_last(file.floats(name, 4)?)?));
    let (a, b) = (a?, b?);
    for (name, trunk) in [("alex", Trunk::Alex), ("vgg", Trunk::Vgg)] {
        let mut parameters = Parameters::new();
        let model = Lpips::new(Builder::new(&mut parameters, RngKey::new(0)), trunk)?;
        let loaded = parameters.load(&weights(file, name)?)?;
        if !loaded.is_exact() {
            return Err(ParityError::Weights(loaded));
        }
        parameters.to_device(file.device())?;
        let context = Context::inference(&parameters);
        let distances = model.distances(&context, &a, &b)?;
        let pairs = distances.total.len();
        let stages = distances.stages.len();
        let name_of = |part: &str| format!("out.{name}.{part}");
        let total = Tensor::from_vec(distances.total, pairs, &Device::Cpu)?;
        report.output(&name_of("distance"), &total, file.floats(&name_of("distance"), 1)?)?;
        let parts = Tensor::from_vec(distances.stages.concat(), (stages, pairs), &Device::Cpu)?;
        report.output(&name_of("layers"), &parts, file.floats(&name_of("layers"), 2)?)?;
        if let Some(last) = model.features(&context, &a)?.last() {
            report.output(&name_of("features4"), &channels_first(last)?, file.floats(&name_of("features4"), 4)?)?;
        }
    }
    Ok(report)
}

/// Returns the weights of a network: those of the file, and those that the formula of its note computes.
fn weights(file: &GoldenFile, network: &str) -> Result<BTreeMap<String, Tensor>> {
    let prefix = format!("{network}.");
    let stored = file.parameters().into_iter();
    let mut weights: BTreeMap<String, Tensor> =
        stored.filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor))).collect();
    let path = ["weights", network];
    let computed = file.value(&path).and_then(Value::as_array);
    let computed = computed.ok_or_else(|| ParityError::config(&path, "is not a list"))?;
    for entry in computed {
        let wrong = || ParityError::config(&path, format!("has the entry {entry}"));
        let name = entry.get("name").and_then(Value::as_str).ok_or_else(wrong)?;
        let seed = entry.get("seed").and_then(Value::as_u64).ok_or_else(wrong)?;
        let scale = entry.get("scale").and_then(Value::as_f64).ok_or_else(wrong)?;
        let axes = entry.get("shape").and_then(Value::as_array).ok_or_else(wrong)?;
        let shape: Vec<usize> = axes.iter().filter_map(|axis| usize::try_from(axis.as_u64()?).ok()).collect();
        let count = shape.iter().try_fold(1usize, |count, axis| count.checked_mul(*axis));
        let count = count.filter(|count| *count <= LARGEST).ok_or_else(wrong)?;
        let elements: Vec<f32> = (0..count as u32).map(|index| hashed(index, seed as u32, scale as f32)).collect();
        weights.insert(name.to_owned(), Tensor::from_vec(elements, shape, &Device::Cpu)?);
    }
    Ok(weights)
}

/// Returns the element of a computed weight at an index.
fn hashed(index: u32, seed: u32, scale: f32) -> f32 {
    let mut x = index.wrapping_add(seed.wrapping_mul(0x9E37_79B9));
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^= x >> 16;
    ((x >> 8) as f32 * (1.0 / (1 << 23) as f32) - 1.0) * scale
}
