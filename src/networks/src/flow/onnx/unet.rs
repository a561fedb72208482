//! CosyVoice 2's estimator as a graph; see [`estimator::unet`](crate::flow::estimator) for its layers.

use super::Inputs;
use super::graph::{Graph, Heads, Layout};
use crate::flow::UNetConfig;
use crate::flow::estimator::unet::{EPSILON, HALF, TAPS};
use flowmill_nn::layers::sinusoidal_time_rates;
use flowmill_weights::Result;

/// The values that the stages of a level share.
struct Level {
    /// `[item, 1, frame]`.
    mask: String,
    attention_bias: String,
}

/// Adds the network with `channels` input channels, and returns the velocity `[item, bin, frame]`.
pub(super) fn build(graph: &mut Graph<'_>, config: &UNetConfig, channels: usize, inputs: &Inputs) -> Result<String> {
    let [sines, cosines] = graph.time_waves(&inputs.times, &sinusoidal_time_rates(channels));
    let time = graph.concatenate(&[&sines, &cosines], 1);
    let time = graph.item_linear(&time, "time_mlp.linear_1")?;
    let time = graph.silu(&time);
    let time = graph.item_linear(&time, "time_mlp.linear_2")?;
    // Every residual block first applies Mish to the embedding.
    let time = graph.mish(&time);

    let mut parts = vec![inputs.state.as_str(), &inputs.mu, &inputs.speaker];
    parts.extend(inputs.prompt.as_deref());
    let mut hidden = graph.concatenate(&parts, 1);
    let count = config.channels.len();
    let mut levels: Vec<Level> = Vec::with_capacity(count);
    let mut skips = Vec::with_capacity(count);
    for index in 0..count {
        let mask = match levels.last() {
            None => inputs.mask.clone(),
            Some(before) => graph.every_second_frame(&before.mask),
        };
        let attention_bias = graph.attention_bias(&mask);
        let level = Level { mask, attention_bias };
        let name = format!("down_blocks.{index}");
        let skip = stage(graph, config, &name, &hidden, &time, &level)?;
        let masked = graph.multiply(&skip, &level.mask);
        hidden = if index + 1 == count {
            graph.convolution(&masked, &format!("{name}.2"), Layout::causal(TAPS))?
        } else {
            let halving = Layout { padding: [1, 1], stride: HALF, groups: 1 };
            graph.convolution(&masked, &format!("{name}.2.conv"), halving)?
        };
        skips.push(skip);
        levels.push(level);
    }
    if let Some(deepest) = levels.last() {
        for index in 0..config.num_mid_blocks {
            hidden = stage(graph, config, &format!("mid_blocks.{index}"), &hidden, &time, deepest)?;
        }
    }
    for (index, (level, skip)) in levels.iter().zip(&skips).rev().enumerate() {
        if index > 0 {
            // Halving an odd number of frames rounded up, so doubling gives one frame too many.
            let frames = graph.frames(skip);
            hidden = graph.first_frames(&hidden, &frames);
        }
        let joined = graph.concatenate(&[&hidden, skip], 1);
        let name = format!("up_blocks.{index}");
        hidden = stage(graph, config, &name, &joined, &time, level)?;
        let masked = graph.multiply(&hidden, &level.mask);
        hidden = if index + 1 == count {
            graph.convolution(&masked, &format!("{name}.2"), Layout::causal(TAPS))?
        } else {
            graph.transposed_convolution(&masked, &format!("{name}.2.conv"), HALF)?
        };
    }
    let hidden = convolution_block(graph, "final_block", &hidden, &inputs.mask)?;
    let velocity = graph.convolution(&hidden, "final_proj", Layout::causal(1))?;
    Ok(graph.multiply(&velocity, &inputs.mask))
}

/// A residual block and the transformer blocks after it, on `[item, channel, frame]`.
fn stage(
    graph: &mut Graph<'_>,
    config: &UNetConfig,
    name: &str,
    input: &str,
    time: &str,
    level: &Level,
) -> Result<String> {
    let state = residual_block(graph, &format!("{name}.0"), input, time, &level.mask)?;
    let mut state = graph.swap(&state);
    for index in 0..config.n_blocks {
        state = transformer_block(graph, config, &format!("{name}.1.{index}"), &state, &level.attention_bias)?;
    }
    Ok(graph.swap(&state))
}

/// Two convolution blocks with the time added between them, around a projected residual.
fn residual_block(graph: &mut Graph<'_>, name: &str, input: &str, time: &str, mask: &str) -> Result<String> {
    let state = convolution_block(graph, &format!("{name}.block1"), input, mask)?;
    let time = graph.item_linear(time, &format!("{name}.mlp.1"))?;
    let time = graph.unsqueeze(&time, 2);
    let state = graph.add(&state, &time);
    let state = convolution_block(graph, &format!("{name}.block2"), &state, mask)?;
    let masked = graph.multiply(input, mask);
    let residual = graph.convolution(&masked, &format!("{name}.res_conv"), Layout::causal(1))?;
    Ok(graph.add(&state, &residual))
}

/// Causal convolution, layer norm, Mish; zero beyond the end of an item.
fn convolution_block(graph: &mut Graph<'_>, name: &str, input: &str, mask: &str) -> Result<String> {
    let masked = graph.multiply(input, mask);
    let state = graph.convolution(&masked, &format!("{name}.block.0"), Layout::causal(TAPS))?;
    let state = graph.swap(&state);
    let state = graph.layer_norm(&state, &format!("{name}.block.2"), EPSILON)?;
    let state = graph.mish(&state);
    let state = graph.swap(&state);
    Ok(graph.multiply(&state, mask))
}

/// Self-attention and feed-forward, each after a norm and around a residual, on `[item, frame, channel]`.
fn transformer_block(
    graph: &mut Graph<'_>,
    config: &UNetConfig,
    name: &str,
    input: &str,
    attention_bias: &str,
) -> Result<String> {
    let heads = Heads { count: config.num_heads, width: config.attention_head_dim };
    let normal = graph.layer_norm(input, &format!("{name}.norm1"), EPSILON)?;
    let mut divided = |projection: &str| -> Result<String> {
        let projected = graph.linear(&normal, &format!("{name}.attn1.{projection}"), false)?;
        Ok(graph.divide(&projected, heads))
    };
    let (query, key, value) = (divided("to_q")?, divided("to_k")?, divided("to_v")?);
    let attended = graph.attend([&query, &key, &value], attention_bias, heads);
    let update = graph.linear(&attended, &format!("{name}.attn1.to_out.0"), true)?;
    let state = graph.add(input, &update);
    let normal = graph.layer_norm(&state, &format!("{name}.norm3"), EPSILON)?;
    let inner = graph.linear(&normal, &format!("{name}.ff.net.0.proj"), true)?;
    let inner = graph.gelu(&inner);
    let update = graph.linear(&inner, &format!("{name}.ff.net.2"), true)?;
    Ok(graph.add(&state, &update))
}
