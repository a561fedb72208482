//! The estimator of the velocity, which is one of several networks.

pub(super) mod dit;
pub(super) mod rotary_dit;
pub(super) mod unet;

use super::rows::Rows;
use super::{EstimatorConfig, FlowConfig, Result};
use dit::Dit;
use flowmill_nn::init::Builder;
use flowmill_nn::ops::concatenate;
use flowmill_nn::{Context, Value};
use rotary_dit::RotaryDit;
use unet::UNet;

/// The inputs of the velocity in addition to the state and the time.
pub(crate) struct Conditions {
    /// Encoder output `[row, bin]`.
    pub(crate) mu: Value,
    /// Speaker: `[item, bin]` if it is projected, otherwise `[item, value]`.
    pub(crate) speaker: Value,
    /// Prompt frames `[row, bin]`, zero elsewhere; none if the estimator has no prompt.
    pub(crate) prompt: Option<Value>,
    /// 1 for an item with conditions, 0 for one without: its conditions are zero.
    pub(crate) kept: Vec<f32>,
}

/// The network that estimates the velocity.
#[derive(Debug, Clone)]
pub(super) enum Estimator {
    UNet(Box<UNet>),
    Dit(Box<Dit>),
    RotaryDit(Box<RotaryDit>),
}

impl Estimator {
    pub(super) fn new(builder: Builder, flow: &FlowConfig) -> Result<Self> {
        let (inputs, bins) = (flow.estimator_channels(), flow.output_size);
        Ok(match &flow.estimator {
            EstimatorConfig::UNet(config) => Self::UNet(Box::new(UNet::new(builder, config, inputs, bins)?)),
            EstimatorConfig::Dit(config) => Self::Dit(Box::new(Dit::new(builder, config, inputs, bins)?)),
            EstimatorConfig::RotaryDit(config) => {
                Self::RotaryDit(Box::new(RotaryDit::new(builder, config, inputs, bins)?))
            }
        })
    }

    /// Returns the velocity `[row, bin]` at `state` (`[row, bin]`) and one time per item. The U-Net computes only
    /// valid rows.
    pub(super) fn forward(
        &self,
        context: &Context,
        state: &Value,
        times: &[f32],
        conditions: &Conditions,
        rows: &Rows,
        streaming: bool,
    ) -> Result<Value> {
        let speaker = conditions.speaker.expand_items(&rows.all)?;
        let (mu, prompt) = (&conditions.mu, &conditions.prompt);
        let input: Vec<&Value> = match self {
            Self::UNet(_) | Self::Dit(_) => [state, mu, &speaker].into_iter().chain(prompt).collect(),
            Self::RotaryDit(_) => [state].into_iter().chain(prompt).chain([mu, &speaker]).collect(),
        };
        let input = concatenate(&input)?;
        drop(speaker);
        match self {
            Self::UNet(network) => network.forward(context, &input, times, &rows.all, streaming),
            Self::Dit(network) => network.forward(context, &input, times, rows, streaming),
            Self::RotaryDit(network) => network.forward(context, &input, times, rows, streaming),
        }
    }

    /// Returns whether the public implementation also computes frames beyond the end of an item, instead of leaving
    /// them zero.
    pub(super) fn computes_padding(&self) -> bool {
        matches!(self, Self::Dit(_) | Self::RotaryDit(_))
    }
}
