//! Runs the estimator of an exported flow on random inputs of several lengths, for `scripts/check_export`: `cargo run --release -p
//! flowmill-networks --example estimator_cases EXPORT OUT.safetensors`. The tensors are those of the graph
//! `flow.decoder.estimator.fp32.onnx`: `CASE.x`, `CASE.mask`, `CASE.mu`, `CASE.t`, `CASE.spks`, `CASE.cond` and `CASE.estimator_out`.

use candle_core::{Device, Tensor};
use flowmill_networks::flow::{ConditionsConfig, CosyVoice3Config, EstimatorInputs, Flow, FlowConfig, StepAudioConfig};
use flowmill_networks::sfm::SfmConfig;
use flowmill_nn::Context;
use flowmill_nn::random::RngKey;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Frames of a batch, and how many of them are valid in each item.
const CASES: [(usize, [usize; 2]); 5] =
    [(4, [4, 4]), (50, [50, 50]), (101, [101, 64]), (256, [77, 256]), (500, [500, 499])];

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, out] = arguments.as_slice() else { return Err("arguments: EXPORT OUT.safetensors".into()) };
    let mut described: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let model = described["model"].take();
    let config = match described["family"].as_str() {
        Some("cosyvoice2-flow") => serde_json::from_value::<FlowConfig>(model)?,
        Some("cosyvoice3-flow") => FlowConfig::from(&serde_json::from_value::<CosyVoice3Config>(model)?),
        Some("step-audio-flow") => FlowConfig::from(&serde_json::from_value::<StepAudioConfig>(model)?),
        Some("sfm-flow") => serde_json::from_value::<SfmConfig>(model)?.flow,
        family => return Err(format!("{family:?} has no estimator").into()),
    };
    let (flow, mut parameters) = Flow::new(&config, 0)?;
    let report = parameters.load(&flowmill_weights::read(&folder.join("model.safetensors"))?.tensors)?;
    if !report.missing.is_empty() || !report.mismatched.is_empty() {
        return Err(format!("model.safetensors: {report}").into());
    }
    let mut tensors = Vec::new();
    for (frames, lengths) in CASES {
        let (bins, rng_key) = (config.output_size, RngKey::new(frames as u64));
        let normal = |name: &str, shape: &[usize]| -> Result<Tensor, Failure> {
            Ok(Tensor::from_vec(rng_key.purpose(name).normals(shape.iter().product()), shape, &Device::Cpu)?)
        };
        let mel = [2, frames, bins];
        let has_prompt = config.conditions == ConditionsConfig::ProjectedSpeakerAndPrompt;
        let (state, mu) = (normal("x", &mel)?, normal("mu", &mel)?);
        let speaker = normal("spks", &[2, if has_prompt { bins } else { config.spk_embed_dim }])?;
        let prompt = has_prompt.then(|| normal("cond", &mel)).transpose()?;
        let times = rng_key.purpose("t").uniforms(2);
        let inputs = EstimatorInputs {
            state: &state,
            mu: &mu,
            times: &times,
            speaker: &speaker,
            prompt: prompt.as_ref(),
            lengths: &lengths,
        };
        let velocity = flow.estimate(&Context::inference(&parameters), &inputs)?;
        let mask = lengths.iter().flat_map(|length| (0..frames).map(move |frame| f32::from(u8::from(frame < *length))));
        let mask = Tensor::from_vec(mask.collect::<Vec<f32>>(), (2, 1, frames), &Device::Cpu)?;
        let mut add = |name: &str, tensor: Tensor| tensors.push((format!("{frames}.{name}"), tensor));
        for (name, mel) in [("x", Some(state)), ("mu", Some(mu)), ("cond", prompt), ("estimator_out", Some(velocity))] {
            if let Some(mel) = mel {
                add(name, mel.transpose(1, 2)?.contiguous()?);
            }
        }
        add("mask", mask);
        add("t", Tensor::from_vec(times, 2, &Device::Cpu)?);
        add("spks", speaker);
    }
    Ok(flowmill_weights::write(out, &tensors, &BTreeMap::new())?)
}
