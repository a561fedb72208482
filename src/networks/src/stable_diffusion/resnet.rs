//! Residual blocks of images, and the convolutions between levels.

use flowmill_nn::init::Builder;
use flowmill_nn::layers::{Conv2d, GroupNorm, Linear};
use flowmill_nn::ops::Convolution2d;
use flowmill_nn::{Activation, Context, Ragged, Result, Value};

/// Size of the windows of the convolutions.
const KERNEL: usize = 3;

/// Creates a convolution with windows of 3 x 3 pixels that keeps the size of images.
pub(super) fn convolution(builder: Builder, inputs: usize, outputs: usize) -> Result<Conv2d> {
    Conv2d::new(builder, inputs, outputs, KERNEL, Convolution2d::padded(KERNEL / 2, 1))
}

/// Settings of a residual block.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResnetSettings {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Channels of the embedding of the diffusion step, if the block reads it.
    pub(super) time: Option<usize>,
    pub(super) groups: usize,
    pub(super) epsilon: f32,
}

/// Two normalized convolutions around a residual connection (`ResnetBlock2D`).
#[derive(Debug, Clone)]
pub(super) struct ResnetBlock {
    norms: [GroupNorm; 2],
    convolutions: [Conv2d; 2],
    time: Option<Linear>,
    /// The projection of the residual connection, if the number of channels changes.
    shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    pub(super) fn new(mut builder: Builder, settings: ResnetSettings) -> Result<Self> {
        let ResnetSettings { inputs, outputs, groups, epsilon, .. } = settings;
        let first = GroupNorm::new(builder.scope("norm1"), groups, inputs, epsilon)?;
        let in_convolution = convolution(builder.scope("conv1"), inputs, outputs)?;
        let time =
            settings.time.map(|width| Linear::new(builder.scope("time_emb_proj"), width, outputs)).transpose()?;
        let second = GroupNorm::new(builder.scope("norm2"), groups, outputs, epsilon)?;
        let out_convolution = convolution(builder.scope("conv2"), outputs, outputs)?;
        let project = || Conv2d::new(builder.scope("conv_shortcut"), inputs, outputs, 1, Convolution2d::default());
        let shortcut = (inputs != outputs).then(project).transpose()?;
        Ok(Self { norms: [first, second], convolutions: [in_convolution, out_convolution], time, shortcut })
    }

    /// Maps `[item, height, width, input]` to `[item, height, width, output]`; `time` is the activated embedding of each item's step,
    /// `[item, channel]`.
    pub(super) fn forward(&self, context: &Context, input: &Value, time: Option<&Value>) -> Result<Value> {
        let [first, second] = &self.norms;
        let [in_convolution, out_convolution] = &self.convolutions;
        let mut state = in_convolution.forward(context, &first.forward_activated(context, input, Activation::Silu)?)?;
        if let Some((layer, time)) = self.time.as_ref().zip(time) {
            let items = time.rows();
            let pixels = state.rows() / items.max(1);
            let rows = Ragged::packed(&vec![pixels; items]);
            state = state.add_items(&layer.forward(context, time)?, &rows)?;
        }
        let normal = second.forward_activated(context, &state, Activation::Silu)?;
        let state = out_convolution.forward(context, &normal)?;
        match &self.shortcut {
            Some(shortcut) => state.add(&shortcut.forward(context, input)?),
            None => state.add(input),
        }
    }
}

/// Creates the convolution that halves images on the way down, with the given zeros on each side of both axes.
pub(super) fn halving(mut builder: Builder, channels: usize, padding: [usize; 2]) -> Result<Conv2d> {
    let settings = Convolution2d { stride: 2, padding: [padding; 2] };
    Conv2d::new(builder.scope("conv"), channels, channels, KERNEL, settings)
}

/// Doubles images by repeating pixels, then convolves them.
pub(super) fn double(context: &Context, convolution: &Conv2d, input: &Value) -> Result<Value> {
    convolution.forward(context, &input.repeat_pixels(2)?)
}
