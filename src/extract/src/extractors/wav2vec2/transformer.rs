//! The transformer over the rows of the convolutions.

use candle_core::{Device, Tensor};
use flowmill_nn::inference::{Convolution1d, LayerNorm, Linear};
use flowmill_nn::ops::{Attention, Convolution, concatenate};
use flowmill_nn::{Activation, AttentionMask, NnError, Ragged, Value};

use super::{Checkpoint, Form};
use crate::UnusableWeights;

const EPSILON: f32 = 1e-5;

/// Returns a tensor on a device.
pub(super) fn moved(checkpoint: &Checkpoint, name: &str, device: &Device) -> Result<Tensor, UnusableWeights> {
    Ok(checkpoint.tensor(name)?.to_device(device).map_err(NnError::from)?)
}

/// Returns the linear layer of `NAME.weight` and `NAME.bias`.
pub(super) fn linear(checkpoint: &Checkpoint, name: &str, device: &Device) -> Result<Linear, UnusableWeights> {
    let [weight, bias] = ["weight", "bias"].map(|part| moved(checkpoint, &format!("{name}.{part}"), device));
    Ok(Linear::new(&weight?, Some(&bias?))?)
}

/// Returns the normalization of `NAME.weight` and `NAME.bias`.
pub(super) fn layer_norm(checkpoint: &Checkpoint, name: &str, device: &Device) -> Result<LayerNorm, UnusableWeights> {
    let [weight, bias] = ["weight", "bias"].map(|part| moved(checkpoint, &format!("{name}.{part}"), device));
    Ok(LayerNorm::new(&weight?, &bias?, EPSILON)?)
}

/// The convolution in groups of channels whose output is added as the position.
struct Positions {
    groups: Vec<Convolution1d>,
    width: usize,
}

impl Positions {
    fn new(checkpoint: &Checkpoint, device: &Device) -> Result<Self, UnusableWeights> {
        let dimensions = checkpoint.dimensions();
        let (taps, width) = (dimensions.position_taps, dimensions.hidden / dimensions.position_groups);
        let weight = moved(checkpoint, "encoder.pos_conv_embed.conv.weight", device)?;
        let bias = moved(checkpoint, "encoder.pos_conv_embed.conv.bias", device)?;
        // An even kernel would give one row more, which is cut at the end.
        let padding = [taps / 2, taps / 2 - usize::from(taps.is_multiple_of(2))];
        let settings = Convolution { padding, ..Convolution::default() };
        let group = |group: usize| {
            let part = |tensor: &Tensor| tensor.narrow(0, group * width, width).map_err(NnError::from);
            Ok(Convolution1d::new(&part(&weight)?, &part(&bias)?, settings)?)
        };
        let groups = (0..dimensions.position_groups).map(group).collect::<Result<_, UnusableWeights>>()?;
        Ok(Self { groups, width })
    }

    /// Returns the rows with their positions added.
    fn add_to(&self, rows: &Value) -> Result<Value, NnError> {
        let items = Ragged::packed(&[rows.rows()]);
        let group = |(index, convolution): (usize, &Convolution1d)| {
            let channels = rows.channels(index * self.width..(index + 1) * self.width)?;
            convolution.forward(&channels, &items, Activation::Gelu)
        };
        let groups = self.groups.iter().enumerate().map(group).collect::<Result<Vec<_>, NnError>>()?;
        rows.add(&concatenate(&groups.iter().collect::<Vec<_>>())?)
    }
}

/// Attention and feed-forward layer.
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: LayerNorm,
    expand: Linear,
    contract: Linear,
    final_norm: LayerNorm,
}

impl Layer {
    fn new(checkpoint: &Checkpoint, layer: usize, device: &Device) -> Result<Self, UnusableWeights> {
        let name = |part: &str| format!("encoder.layers.{layer}.{part}");
        let linear = |part: &str| linear(checkpoint, &name(part), device);
        let layer_norm = |part: &str| layer_norm(checkpoint, &name(part), device);
        Ok(Self {
            query: linear("attention.q_proj")?,
            key: linear("attention.k_proj")?,
            value: linear("attention.v_proj")?,
            output: linear("attention.out_proj")?,
            norm: layer_norm("layer_norm")?,
            expand: linear("feed_forward.intermediate_dense")?,
            contract: linear("feed_forward.output_dense")?,
            final_norm: layer_norm("final_layer_norm")?,
        })
    }

    /// `residual + attention(input)`.
    fn attend(&self, input: &Value, residual: &Value, heads: usize) -> Result<Value, NnError> {
        let items = Ragged::packed(&[input.rows()]);
        let project = |linear: &Linear| linear.forward(input, Activation::Identity);
        let (query, key, value) = (project(&self.query)?, project(&self.key)?, project(&self.value)?);
        let attention =
            Attention { heads, attention_mask: AttentionMask::Full, queries: &items, keys: &items, dropout: None };
        let attended = query.attend(&key, &value, &attention, None)?;
        self.output.forward_onto(&attended, residual)
    }

    /// `residual + feed_forward(input)`.
    fn feed_forward(&self, input: &Value, residual: &Value) -> Result<Value, NnError> {
        self.contract.forward_onto(&self.expand.forward(input, Activation::Gelu)?, residual)
    }

    fn forward(&self, form: Form, input: &Value, heads: usize) -> Result<Value, NnError> {
        match form {
            Form::Base => {
                let state = self.norm.forward(&self.attend(input, input, heads)?)?;
                self.final_norm.forward(&self.feed_forward(&state, &state)?)
            }
            Form::Stable => {
                let state = self.attend(&self.norm.forward(input)?, input, heads)?;
                self.feed_forward(&self.final_norm.forward(&state)?, &state)
            }
        }
    }
}

/// Positions, layers and normalization.
pub(super) struct Transformer {
    form: Form,
    heads: usize,
    positions: Positions,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

impl Transformer {
    pub(super) fn new(checkpoint: &Checkpoint, heads: usize, device: &Device) -> Result<Self, UnusableWeights> {
        let dimensions = checkpoint.dimensions();
        if heads == 0 || !dimensions.hidden.is_multiple_of(heads) {
            return Err(UnusableWeights(format!(
                "{} channels cannot be divided among {heads} heads",
                dimensions.hidden
            )));
        }
        let layers = (0..dimensions.layers).map(|layer| Layer::new(checkpoint, layer, device));
        Ok(Self {
            form: dimensions.form,
            heads,
            positions: Positions::new(checkpoint, device)?,
            norm: layer_norm(checkpoint, "encoder.layer_norm", device)?,
            layers: layers.collect::<Result<_, _>>()?,
        })
    }

    /// Returns the hidden states: the input of the first layer, and the output of every layer.
    pub(super) fn forward(&self, rows: &Value) -> Result<Vec<Value>, NnError> {
        let mut state = self.positions.add_to(rows)?;
        if self.form == Form::Base {
            state = self.norm.forward(&state)?;
        }
        let mut states = vec![state];
        for layer in &self.layers {
            states.extend(states.last().map(|state| layer.forward(self.form, state, self.heads)).transpose()?);
        }
        Ok(states)
    }

    /// Returns the result of the encoder from the output of its last layer, which the stable form normalizes.
    pub(super) fn finish(&self, last: &Value) -> Result<Value, NnError> {
        match self.form {
            Form::Base => Ok(last.clone()),
            Form::Stable => self.norm.forward(last),
        }
    }
}
