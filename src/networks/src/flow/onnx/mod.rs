//! The estimator of a flow as an ONNX graph, with the inputs and the output that CosyVoice's runtime binds: `x`, `mask`, `mu`, `t`,
//! `spks` and `cond` (in this order, which the runtime relies on) to `estimator_out`.
//!
//! Tensors are `[2, channel, frame]`, unlike in the rest of this crate. The batch is fixed at two items, the conditional and the
//! unconditional one of classifier-free guidance: CosyVoice's runtime gives TensorRT a range of shapes for the inputs with frames
//! only. The graph attends to all valid frames, as the public export does: chunk-causal masks are not part of it.

mod dit;
mod graph;
mod rotary_dit;
mod unet;

use super::{ConditionsConfig, EstimatorConfig, FlowConfig};
use flowmill_weights::{Archive, OnnxAxis, OnnxBuilder, Result};
use graph::Graph;
use std::path::Path;

/// The names of the estimator's weights begin with it.
const PREFIX: &str = "decoder.estimator.";
/// The conditional and the unconditional item.
const ITEMS: OnnxAxis = OnnxAxis::Fixed(2);
const FRAMES: OnnxAxis = OnnxAxis::Free("seq_len");

/// The inputs of an estimator.
struct Inputs {
    /// The state, `[item, bin, frame]`.
    state: String,
    /// 1 for the frames of an item, 0 beyond its end: `[item, 1, frame]`.
    mask: String,
    /// Encoder output `[item, bin, frame]`.
    mu: String,
    /// Times `[item]`.
    times: String,
    /// The speaker, repeated for each frame: `[item, value, frame]`.
    speaker: String,
    /// Prompt frames `[item, bin, frame]`, if the estimator has a prompt.
    prompt: Option<String>,
    /// The number of frames, a list of one.
    frames: String,
}

impl Inputs {
    fn new(graph: &mut Graph<'_>, config: &FlowConfig) -> Self {
        let mel = [ITEMS, OnnxAxis::Fixed(config.output_size), FRAMES];
        let (speaker, has_prompt) = match config.conditions {
            ConditionsConfig::ProjectedSpeakerAndPrompt => (config.output_size, true),
            ConditionsConfig::Speaker => (config.spk_embed_dim, false),
        };
        let state = graph.builder.input("x", &mel);
        let mask = graph.builder.input("mask", &[ITEMS, OnnxAxis::Fixed(1), FRAMES]);
        let mu = graph.builder.input("mu", &mel);
        let times = graph.builder.input("t", &[ITEMS]);
        let speaker = graph.builder.input("spks", &[ITEMS, OnnxAxis::Fixed(speaker)]);
        let prompt = has_prompt.then(|| graph.builder.input("cond", &mel));
        let frames = graph.frames(&state);
        let ones = graph.builder.integers(&[1, 1]);
        let shape = graph.concatenate(&[&ones, &frames], 0);
        let column = graph.unsqueeze(&speaker, 2);
        let speaker = graph.builder.node("Expand", &[&column, &shape], &[]);
        Self { state, mask, mu, times, speaker, prompt, frames }
    }
}

/// Writes the estimator of a flow with these settings as an ONNX graph to `path`. `archive` has the weights of the flow under their
/// public names.
///
/// # Errors
/// If the archive does not have exactly the weights of the estimator, or the file cannot be written.
pub fn write_estimator(config: &FlowConfig, archive: &mut Archive<'static>, path: &Path) -> Result<()> {
    let mut graph = Graph { builder: OnnxBuilder::new("flow.decoder.estimator", archive, PREFIX) };
    let inputs = Inputs::new(&mut graph, config);
    let output = match &config.estimator {
        EstimatorConfig::UNet(network) => unet::build(&mut graph, network, config.estimator_channels(), &inputs)?,
        EstimatorConfig::Dit(network) => dit::build(&mut graph, network, &inputs)?,
        EstimatorConfig::RotaryDit(network) => rotary_dit::build(&mut graph, network, &inputs)?,
    };
    graph.builder.output(&output, "estimator_out", &[ITEMS, OnnxAxis::Fixed(config.output_size), FRAMES]);
    graph.builder.write(path)
}
