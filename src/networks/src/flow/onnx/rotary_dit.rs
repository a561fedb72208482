//! CosyVoice 3's estimator as a graph; see [`estimator::rotary_dit`](crate::flow::estimator) for its layers.

use super::Inputs;
use super::graph::{Graph, Heads, Layout};
use crate::flow::RotaryDitConfig;
use crate::flow::config::POSITION_GROUPS;
use crate::flow::estimator::rotary_dit::{ATTENTION, EPSILON, FEED_FORWARD, FINAL, POSITION_TAPS, TIME_CHANNELS};
use flowmill_nn::layers::sinusoidal_time_rates;
use flowmill_weights::OnnxSetting::Int;
use flowmill_weights::Result;

/// The number of vectors of a block's modulation.
const VECTORS: usize = 6;
/// The number of ONNX's type of single-precision numbers.
const FLOAT: i64 = 1;

/// The values that all blocks share.
struct Shared {
    /// The activated time embedding `[item, channel]`.
    time: String,
    /// 1 for the frames of an item, 0 beyond its end: `[item, frame, 1]`.
    mask: String,
    attention_bias: String,
    /// Cosines and sines of the rotary positions, `[frame, pair, 1]`.
    angles: [String; 2],
}

/// Adds the network, and returns the velocity `[item, bin, frame]`.
pub(super) fn build(graph: &mut Graph<'_>, config: &RotaryDitConfig, inputs: &Inputs) -> Result<String> {
    let [sines, cosines] = graph.time_waves(&inputs.times, &sinusoidal_time_rates(TIME_CHANNELS));
    let time = graph.concatenate(&[&sines, &cosines], 1);
    let time = graph.item_linear(&time, "time_embed.time_mlp.0")?;
    let time = graph.silu(&time);
    let time = graph.item_linear(&time, "time_embed.time_mlp.2")?;
    // Every modulation first applies SiLU to the embedding.
    let time = graph.silu(&time);

    let mut parts = vec![inputs.state.as_str()];
    parts.extend(inputs.prompt.as_deref());
    parts.extend([inputs.mu.as_str(), &inputs.speaker]);
    let input = graph.concatenate(&parts, 1);
    let mut state = embed(graph, &input)?;
    let shared = Shared {
        time,
        mask: graph.swap(&inputs.mask),
        attention_bias: graph.attention_bias(&inputs.mask),
        angles: angles(graph, &inputs.frames)?,
    };
    for index in 0..config.depth {
        state = block(graph, config, &format!("transformer_blocks.{index}"), &state, &shared)?;
    }
    let vectors = graph.modulation(&shared.time, "norm_out.linear", config.dim, 2)?;
    let normal = graph.modulated_norm(&state, config.dim, FINAL.map(|vector| vectors[vector].as_str()), EPSILON);
    let velocity = graph.linear(&normal, "proj_out", true)?;
    Ok(graph.swap(&velocity))
}

/// Projects states and conditions `[item, channel, frame]`, and adds what the frames before contribute: `[item, frame, channel]`.
fn embed(graph: &mut Graph<'_>, input: &str) -> Result<String> {
    let input = graph.swap(input);
    let projected = graph.linear(&input, "input_embed.proj", true)?;
    let mut positions = graph.swap(&projected);
    for name in ["conv1", "conv2"] {
        let layout = Layout { groups: POSITION_GROUPS, ..Layout::causal(POSITION_TAPS) };
        let convolved = graph.convolution(&positions, &format!("input_embed.conv_pos_embed.{name}.0"), layout)?;
        positions = graph.mish(&convolved);
    }
    let positions = graph.swap(&positions);
    Ok(graph.add(&positions, &projected))
}

/// Returns the cosines and sines of the rotary positions; `frames` is the number of frames, a list of one.
fn angles(graph: &mut Graph<'_>, frames: &str) -> Result<[String; 2]> {
    let axes = graph.builder.integers(&[0]);
    let count = graph.builder.node("Squeeze", &[frames, &axes], &[]);
    let [zero, one] = [0, 1].map(|number| graph.builder.integer(number));
    let positions = graph.builder.node("Range", &[&zero, &count, &one], &[]);
    let positions = graph.builder.node("Cast", &[&positions], &[("to", Int(FLOAT))]);
    let positions = graph.unsqueeze(&positions, 1);
    let rates = graph.builder.weight("rotary_embed.inv_freq")?;
    let angles = graph.multiply(&positions, &rates);
    let angles = graph.unsqueeze(&angles, 2);
    Ok(["Cos", "Sin"].map(|wave| graph.builder.node(wave, &[&angles], &[])))
}

/// Attention and feed-forward, each with a modulated norm before it and a gate after it, on `[item, frame, channel]`.
fn block(graph: &mut Graph<'_>, config: &RotaryDitConfig, name: &str, input: &str, shared: &Shared) -> Result<String> {
    let vectors = graph.modulation(&shared.time, &format!("{name}.attn_norm.linear"), config.dim, VECTORS)?;
    let normal = |graph: &mut Graph<'_>, state: &str, [shift, scale, _]: [usize; 3]| {
        graph.modulated_norm(state, config.dim, [&vectors[shift], &vectors[scale]], EPSILON)
    };
    let before = normal(graph, input, ATTENTION);
    let update = attention(graph, config, &format!("{name}.attn"), &before, shared)?;
    let state = graph.add_gated(input, &update, &vectors[ATTENTION[2]]);
    let before = normal(graph, &state, FEED_FORWARD);
    let inner = graph.linear(&before, &format!("{name}.ff.ff.0.0"), true)?;
    let inner = graph.gelu_tanh(&inner);
    let update = graph.linear(&inner, &format!("{name}.ff.ff.2"), true)?;
    Ok(graph.add_gated(&state, &update, &vectors[FEED_FORWARD[2]]))
}

/// Self-attention whose first head has rotary positions; zero beyond the end of an item.
fn attention(
    graph: &mut Graph<'_>,
    config: &RotaryDitConfig,
    name: &str,
    input: &str,
    shared: &Shared,
) -> Result<String> {
    let heads = Heads { count: config.heads, width: config.dim_head };
    let mut divided = |projection: &str, turned: bool| -> Result<String> {
        let projected = graph.linear(input, &format!("{name}.{projection}"), true)?;
        let projected = if turned { turn_first_head(graph, &projected, heads, &shared.angles) } else { projected };
        Ok(graph.divide(&projected, heads))
    };
    let (query, key, value) = (divided("to_q", true)?, divided("to_k", true)?, divided("to_v", false)?);
    let attended = graph.attend([&query, &key, &value], &shared.attention_bias, heads);
    let output = graph.linear(&attended, &format!("{name}.to_out.0"), true)?;
    Ok(graph.multiply(&output, &shared.mask))
}

/// Rotates the first head's channels of `[item, frame, channel]` in pairs of neighbors.
fn turn_first_head(graph: &mut Graph<'_>, x: &str, heads: Heads, [cosines, sines]: &[String; 2]) -> String {
    let (head, rest) = (heads.width as i64, (heads.channels() - heads.width) as i64);
    let parts = if rest > 0 { graph.builder.split(x, &[head, rest], 2) } else { vec![x.to_owned()] };
    let pairs = graph.reshape(&parts[0], &[0, 0, head / 2, 2]);
    let pair = graph.builder.split(&pairs, &[1, 1], 3);
    let mut turned = |direct: &str, crossed: &str| [graph.multiply(direct, cosines), graph.multiply(crossed, sines)];
    let [first, minus] = turned(&pair[0], &pair[1]);
    let [second, plus] = turned(&pair[1], &pair[0]);
    let first = graph.subtract(&first, &minus);
    let second = graph.add(&second, &plus);
    let joined = graph.concatenate(&[&first, &second], 3);
    let joined = graph.reshape(&joined, &[0, 0, head]);
    match parts.get(1) {
        Some(rest) => graph.concatenate(&[&joined, rest], 2),
        None => joined,
    }
}
