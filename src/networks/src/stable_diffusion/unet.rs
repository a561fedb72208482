//! The U-Net that predicts noise (`UNet2DConditionModel`).

use super::resnet::{ResnetBlock, ResnetSettings, convolution, double, halving};
use super::transformer::{PixelTransformer, TransformerSettings};
use super::{Result, UNetConfig};
use flowmill_nn::init::Builder;
use flowmill_nn::layers::{Conv2d, GroupNorm, Linear, scaled_timestep_encodings};
use flowmill_nn::ops::concatenate;
use flowmill_nn::{Activation, Context, NnError, Value};

/// Channels of the embeddings of steps, as a multiple of those of the first level.
const TIME_EXPANSION: usize = 4;

/// The U-Net without its weights.
#[derive(Debug, Clone)]
pub struct UNet {
    config: UNetConfig,
    into: Conv2d,
    time: [Linear; 2],
    down: Vec<Level>,
    middle: [ResnetBlock; 2],
    middle_transformer: PixelTransformer,
    up: Vec<Level>,
    norm: GroupNorm,
    out: Conv2d,
}

/// The blocks of one level.
#[derive(Debug, Clone)]
struct Level {
    /// Residual blocks, each with the transformer that follows it, if the level attends to the conditions.
    blocks: Vec<(ResnetBlock, Option<PixelTransformer>)>,
    /// The convolution to the next level.
    next: Option<Conv2d>,
}

/// The inputs that all blocks share.
struct Shared<'a> {
    /// The activated embedding of the step of each item.
    time: Value,
    conditions: &'a Value,
}

/// Computes a residual block and its transformer, each of which is recomputed in the backward pass if the context checkpoints.
fn compute(
    context: &Context,
    (resnet, transformer): (&ResnetBlock, Option<&PixelTransformer>),
    state: &Value,
    shared: &Shared,
) -> flowmill_nn::Result<Value> {
    let resnet = resnet.clone();
    let state = context.checkpoint(&[state, &shared.time], move |context, inputs| {
        resnet.forward(context, &inputs[0], Some(&inputs[1]))
    })?;
    let Some(transformer) = transformer.cloned() else { return Ok(state) };
    context.checkpoint(&[&state, shared.conditions], move |context, inputs| {
        transformer.forward(context, &inputs[0], &inputs[1])
    })
}

/// Creates the blocks of a network from its settings.
struct Maker<'a>(&'a UNetConfig);

impl Maker<'_> {
    fn time_width(&self) -> usize {
        TIME_EXPANSION * self.0.block_out_channels[0]
    }

    fn resnet(&self, builder: Builder, inputs: usize, outputs: usize) -> flowmill_nn::Result<ResnetBlock> {
        let UNetConfig { norm_num_groups: groups, norm_eps, .. } = *self.0;
        let time = Some(self.time_width());
        ResnetBlock::new(builder, ResnetSettings { inputs, outputs, time, groups, epsilon: norm_eps as f32 })
    }

    fn transformer(&self, builder: Builder, level: usize) -> flowmill_nn::Result<PixelTransformer> {
        let config = self.0;
        let settings = TransformerSettings {
            channels: config.block_out_channels[level],
            heads: config.attention_head_dim.at(level),
            conditions: config.cross_attention_dim,
            groups: config.norm_num_groups,
            linear_projection: config.use_linear_projection,
        };
        PixelTransformer::new(builder, settings)
    }

    /// Creates the blocks of a level; `inputs` are the channels that each residual block reads.
    fn blocks(
        &self,
        builder: &mut Builder,
        level: usize,
        attends: bool,
        inputs: &[usize],
    ) -> flowmill_nn::Result<Vec<(ResnetBlock, Option<PixelTransformer>)>> {
        let outputs = self.0.block_out_channels[level];
        let block = |(number, inputs): (usize, &usize)| {
            let transformer =
                attends.then(|| self.transformer(builder.scope("attentions").scope(number), level)).transpose()?;
            let resnet = self.resnet(builder.scope("resnets").scope(number), *inputs, outputs)?;
            Ok((resnet, transformer))
        };
        inputs.iter().enumerate().map(block).collect()
    }

    fn down(&self, mut builder: Builder, level: usize) -> flowmill_nn::Result<Level> {
        let channels = &self.0.block_out_channels;
        let mut inputs = vec![channels[level]; self.0.layers_per_block];
        inputs[0] = channels[level.saturating_sub(1)];
        let blocks = self.blocks(&mut builder, level, self.0.down_block_types[level].attends(), &inputs)?;
        let next = || halving(builder.scope("downsamplers").scope(0), channels[level], [1, 1]);
        Ok(Level { blocks, next: (level + 1 < channels.len()).then(next).transpose()? })
    }

    /// Creates the blocks of a level on the way up; `number` counts from the smallest images.
    fn up(&self, mut builder: Builder, number: usize) -> flowmill_nn::Result<Level> {
        let channels = &self.0.block_out_channels;
        let level = channels.len() - 1 - number;
        let below = channels[(level + 1).min(channels.len() - 1)];
        let above = channels[level.saturating_sub(1)];
        let layers = self.0.layers_per_block + 1;
        // Each reads the state and an output from the way down: of its own level, the last one of the level above.
        let input = |layer: usize| {
            let state = if layer == 0 { below } else { channels[level] };
            state + if layer + 1 == layers { above } else { channels[level] }
        };
        let inputs: Vec<usize> = (0..layers).map(input).collect();
        let blocks = self.blocks(&mut builder, level, self.0.up_block_types[number].attends(), &inputs)?;
        let next = || {
            let mut scope = builder.scope("upsamplers");
            convolution(scope.scope(0).scope("conv"), channels[level], channels[level])
        };
        Ok(Level { blocks, next: (level > 0).then(next).transpose()? })
    }
}

impl UNet {
    /// Creates the network with PyTorch's default initial weights.
    ///
    /// # Errors
    /// When the settings cannot be used, or a name is taken.
    pub fn new(mut builder: Builder, config: &UNetConfig) -> Result<Self> {
        config.check()?;
        let (maker, channels) = (Maker(config), &config.block_out_channels);
        let into = convolution(builder.scope("conv_in"), config.in_channels, channels[0])?;
        let mut scope = builder.scope("time_embedding");
        let width = maker.time_width();
        let time = [
            Linear::new(scope.scope("linear_1"), channels[0], width)?,
            Linear::new(scope.scope("linear_2"), width, width)?,
        ];
        let mut scope = builder.scope("down_blocks");
        let down = (0..channels.len()).map(|level| maker.down(scope.scope(level), level));
        let down = down.collect::<flowmill_nn::Result<_>>()?;
        let mut scope = builder.scope("mid_block");
        let last = channels.len() - 1;
        let middle_transformer = maker.transformer(scope.scope("attentions").scope(0), last)?;
        let mut resnet =
            |number: usize| maker.resnet(scope.scope("resnets").scope(number), channels[last], channels[last]);
        let middle = [resnet(0)?, resnet(1)?];
        let mut scope = builder.scope("up_blocks");
        let up = (0..channels.len()).map(|number| maker.up(scope.scope(number), number));
        let up = up.collect::<flowmill_nn::Result<_>>()?;
        let groups = config.norm_num_groups;
        let norm = GroupNorm::new(builder.scope("conv_norm_out"), groups, channels[0], config.norm_eps as f32)?;
        let out = convolution(builder.scope("conv_out"), channels[0], config.out_channels)?;
        Ok(Self { config: config.clone(), into, time, down, middle, middle_transformer, up, norm, out })
    }

    /// Returns the settings.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Returns the prediction for noisy latents `[item, height, width, channel]` at the diffusion steps of the items, which may lie
    /// between two steps, under conditions `[item, row, channel]`.
    ///
    /// # Errors
    /// When the shapes do not fit: height and width must be multiples of 2 to the number of levels minus 1.
    pub fn forward(&self, context: &Context, latents: &Value, steps: &[f32], conditions: &Value) -> Result<Value> {
        self.check(latents, steps, conditions)?;
        let shared = Shared { time: self.embed_steps(context, steps)?, conditions };
        let mut state = self.into.forward(context, latents)?;
        let mut skipped = vec![state.clone()];
        for level in &self.down {
            for (resnet, transformer) in &level.blocks {
                state = compute(context, (resnet, transformer.as_ref()), &state, &shared)?;
                skipped.push(state.clone());
            }
            if let Some(next) = &level.next {
                state = next.forward(context, &state)?;
                skipped.push(state.clone());
            }
        }
        let [first, second] = &self.middle;
        state = compute(context, (first, Some(&self.middle_transformer)), &state, &shared)?;
        state = compute(context, (second, None), &state, &shared)?;
        for level in &self.up {
            for (resnet, transformer) in &level.blocks {
                // The way up has as many residual blocks as the way down has outputs.
                let skip = skipped.pop().ok_or_else(|| NnError::invalid("U-Net", "blocks without a counterpart"))?;
                let joined = concatenate(&[&state, &skip])?;
                state = compute(context, (resnet, transformer.as_ref()), &joined, &shared)?;
            }
            if let Some(next) = &level.next {
                state = double(context, next, &state)?;
            }
        }
        let normal = self.norm.forward_activated(context, &state, Activation::Silu)?;
        Ok(self.out.forward(context, &normal)?)
    }

    /// Returns the activated embeddings of steps, `[item, channel]`.
    fn embed_steps(&self, context: &Context, steps: &[f32]) -> Result<Value> {
        let [first, second] = &self.time;
        let encodings = scaled_timestep_encodings(steps, 1.0, self.config.block_out_channels[0])?;
        let inner = first.forward_activated(context, &encodings, Activation::Silu)?;
        Ok(second.forward_activated(context, &inner, Activation::Silu)?)
    }

    fn check(&self, latents: &Value, steps: &[f32], conditions: &Value) -> Result<()> {
        let unit = 1 << (self.config.block_out_channels.len() - 1);
        let fits = match *latents.dims() {
            [items, height, width, channels] => {
                let sizes = [height, width];
                channels == self.config.in_channels
                    && steps.len() == items
                    && items > 0
                    && sizes.iter().all(|size| *size > 0 && size.is_multiple_of(unit))
            }
            _ => false,
        };
        if !fits {
            let channels = self.config.in_channels;
            let expected =
                format!("[{} items, height, width, {channels}] with sizes that are multiples of {unit}", steps.len());
            return Err(NnError::shape("U-Net latents", expected, latents.dims()).into());
        }
        match *conditions.dims() {
            [items, rows, width] if items == steps.len() && rows > 0 && width == self.config.cross_attention_dim => {
                Ok(())
            }
            _ => {
                let expected = format!("[{}, row, {}]", steps.len(), self.config.cross_attention_dim);
                Err(NnError::shape("U-Net conditions", expected, conditions.dims()).into())
            }
        }
    }
}
