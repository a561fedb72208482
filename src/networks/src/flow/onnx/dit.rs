//! Step-Audio's estimator as a graph; see [`estimator::dit`](crate::flow::estimator) for its layers.

use super::Inputs;
use super::graph::{Graph, Heads, Layout};
use crate::flow::DitConfig;
use crate::flow::estimator::dit::{
    ATTENTION, CONVOLUTION, EPSILON, FEED_FORWARD, MODULATED_EPSILON, TAPS, TIME_CHANNELS,
};
use flowmill_nn::layers::timestep_rates;
use flowmill_weights::Result;

/// The number of vectors of a block's modulation.
const VECTORS: usize = 9;

/// Adds the network, and returns the velocity `[item, bin, frame]`.
pub(super) fn build(graph: &mut Graph<'_>, config: &DitConfig, inputs: &Inputs) -> Result<String> {
    let [sines, cosines] = graph.time_waves(&inputs.times, &timestep_rates(TIME_CHANNELS));
    let time = graph.concatenate(&[&cosines, &sines], 1);
    let time = graph.item_linear(&time, "t_embedder.mlp.0")?;
    let time = graph.silu(&time);
    let time = graph.item_linear(&time, "t_embedder.mlp.2")?;
    // Every modulation first applies SiLU to the embedding.
    let time = graph.silu(&time);

    let mut parts = vec![inputs.state.as_str(), &inputs.mu, &inputs.speaker];
    parts.extend(inputs.prompt.as_deref());
    let input = graph.concatenate(&parts, 1);
    let input = graph.swap(&input);
    let mut state = graph.linear(&input, "in_proj", true)?;
    let attention_bias = graph.attention_bias(&inputs.mask);
    for index in 0..config.depth {
        state = block(graph, config, &format!("blocks.{index}"), &state, &time, &attention_bias)?;
    }
    let vectors = graph.modulation(&time, "final_layer.adaLN_modulation.1", config.hidden_size, 2)?;
    let normal = graph.modulated_norm(&state, config.hidden_size, [&vectors[0], &vectors[1]], MODULATED_EPSILON);
    let velocity = graph.linear(&normal, "final_layer.linear", true)?;
    Ok(graph.swap(&velocity))
}

/// Attention, convolutions and feed-forward, each with a modulated norm before it and a gate after it, on `[item, frame, channel]`.
fn block(
    graph: &mut Graph<'_>,
    config: &DitConfig,
    name: &str,
    input: &str,
    time: &str,
    attention_bias: &str,
) -> Result<String> {
    let channels = config.hidden_size;
    let vectors = graph.modulation(time, &format!("{name}.adaLN_modulation.1"), channels, VECTORS)?;
    let normal = |graph: &mut Graph<'_>, state: &str, [shift, scale, _]: [usize; 3]| {
        graph.modulated_norm(state, channels, [&vectors[shift], &vectors[scale]], MODULATED_EPSILON)
    };
    let before = normal(graph, input, ATTENTION);
    let update = attention(graph, config, &format!("{name}.attn"), &before, attention_bias)?;
    let state = graph.add_gated(input, &update, &vectors[ATTENTION[2]]);
    let before = normal(graph, &state, CONVOLUTION);
    let update = convolutions(graph, &format!("{name}.conv.block"), &before)?;
    let state = graph.add_gated(&state, &update, &vectors[CONVOLUTION[2]]);
    let before = normal(graph, &state, FEED_FORWARD);
    let inner = graph.linear(&before, &format!("{name}.mlp.fc1"), true)?;
    let inner = graph.gelu_tanh(&inner);
    let update = graph.linear(&inner, &format!("{name}.mlp.fc2"), true)?;
    Ok(graph.add_gated(&state, &update, &vectors[FEED_FORWARD[2]]))
}

/// Self-attention with normalized queries and keys.
fn attention(graph: &mut Graph<'_>, config: &DitConfig, name: &str, input: &str, bias: &str) -> Result<String> {
    let heads = Heads { count: config.num_heads, width: config.head_dim };
    let mut divided = |projection: &str, norm: Option<&str>| -> Result<String> {
        let projected = graph.linear(input, &format!("{name}.{projection}"), true)?;
        let divided = graph.divide(&projected, heads);
        match norm {
            Some(norm) => graph.layer_norm(&divided, &format!("{name}.{norm}"), EPSILON),
            None => Ok(divided),
        }
    };
    let (query, key) = (divided("to_q", Some("q_norm"))?, divided("to_k", Some("k_norm"))?);
    let value = divided("to_v", None)?;
    let attended = graph.attend([&query, &key, &value], bias, heads);
    graph.linear(&attended, &format!("{name}.proj"), true)
}

/// Causal convolution, layer norm, Mish, causal convolution.
fn convolutions(graph: &mut Graph<'_>, name: &str, input: &str) -> Result<String> {
    let state = graph.swap(input);
    let state = graph.convolution(&state, &format!("{name}.1"), Layout::causal(TAPS))?;
    let state = graph.swap(&state);
    let state = graph.layer_norm(&state, &format!("{name}.3"), EPSILON)?;
    let state = graph.mish(&state);
    let state = graph.swap(&state);
    let state = graph.convolution(&state, &format!("{name}.6"), Layout::causal(TAPS))?;
    Ok(graph.swap(&state))
}
