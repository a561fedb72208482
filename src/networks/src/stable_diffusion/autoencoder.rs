//! The variational autoencoder of images (`AutoencoderKL`).

use super::resnet::{ResnetBlock, ResnetSettings, convolution, double, halving};
use super::{AutoencoderConfig, Result};
use flowmill_nn::init::Builder;
use flowmill_nn::layers::{Conv2d, GroupNorm, Linear};
use flowmill_nn::ops::{Attention, Convolution2d};
use flowmill_nn::{Activation, AttentionMask, Context, NnError, Ragged, Value};

/// Number added to the variances of the normalizations.
const EPSILON: f32 = 1e-6;
/// The range of log variances.
const LOG_VARIANCES: [f32; 2] = [-30.0, 20.0];

/// The distribution of the latents of images: a normal one per element, `[item, height, width, channel]`.
#[derive(Debug, Clone)]
pub struct Posterior {
    /// The means.
    pub mean: Value,
    /// The logarithms of the variances.
    pub log_variance: Value,
}

impl Posterior {
    /// Returns the latents for standard normal noise of the same shape.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn sample(&self, noise: &Value) -> Result<Value> {
        let deviation = self.log_variance.affine(0.5, 0.0)?.exponential()?;
        Ok(self.mean.add(&deviation.multiply(noise)?)?)
    }

    /// Returns the Kullback-Leibler divergence from the standard normal distribution, summed over elements and averaged over items.
    ///
    /// # Errors
    /// When candle cannot compute it.
    pub fn divergence(&self) -> Result<Value> {
        let items = self.mean.dims().first().copied().unwrap_or(1).max(1);
        let second_moments = self.mean.multiply(&self.mean)?.add(&self.log_variance.exponential()?)?;
        let terms = second_moments.subtract(&self.log_variance)?.affine(1.0, -1.0)?;
        Ok(terms.sum()?.affine(0.5 / items as f32, 0.0)?)
    }
}

/// The autoencoder without its weights.
#[derive(Debug, Clone)]
pub struct Autoencoder {
    config: AutoencoderConfig,
    encoder: Half,
    decoder: Half,
    /// The projections of the distributions and of latents.
    quantize: [Conv2d; 2],
}

/// The encoder or the decoder.
#[derive(Debug, Clone)]
struct Half {
    into: Conv2d,
    levels: Vec<Level>,
    middle: [ResnetBlock; 2],
    attention: PixelAttention,
    norm: GroupNorm,
    out: Conv2d,
}

/// The residual blocks of one level, and the convolution to the next.
#[derive(Debug, Clone)]
struct Level {
    blocks: Vec<ResnetBlock>,
    next: Option<Conv2d>,
}

/// Attention with one head between all pixels of each image, around a residual connection.
#[derive(Debug, Clone)]
struct PixelAttention {
    norm: GroupNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

impl PixelAttention {
    fn new(mut builder: Builder, groups: usize, channels: usize) -> flowmill_nn::Result<Self> {
        Ok(Self {
            norm: GroupNorm::new(builder.scope("group_norm"), groups, channels, EPSILON)?,
            query: Linear::new(builder.scope("to_q"), channels, channels)?,
            key: Linear::new(builder.scope("to_k"), channels, channels)?,
            value: Linear::new(builder.scope("to_v"), channels, channels)?,
            output: Linear::new(builder.scope("to_out").scope(0), channels, channels)?,
        })
    }

    fn forward(&self, context: &Context, images: &Value) -> flowmill_nn::Result<Value> {
        let items = images.dims().first().copied().unwrap_or(0);
        let pixels = Ragged::packed(&vec![images.rows() / items.max(1); items]);
        let normal = self.norm.forward_activated(context, images, Activation::Identity)?;
        let [query, key, value] = [&self.query, &self.key, &self.value].map(|layer| layer.forward(context, &normal));
        let attention =
            Attention { heads: 1, attention_mask: AttentionMask::Full, queries: &pixels, keys: &pixels, dropout: None };
        let attended = query?.attend(&key?, &value?, &attention, None)?;
        self.output.forward_onto(context, &attended, images)
    }
}

impl Half {
    /// Creates the encoder, or the decoder if `decodes`.
    fn new(mut builder: Builder, config: &AutoencoderConfig, decodes: bool) -> flowmill_nn::Result<Self> {
        let AutoencoderConfig { norm_num_groups: groups, ref block_out_channels, .. } = *config;
        let mut channels = block_out_channels.clone();
        let last = channels[channels.len() - 1];
        let (inputs, outputs) = match decodes {
            true => (config.latent_channels, config.out_channels),
            false => (config.in_channels, 2 * config.latent_channels),
        };
        if decodes {
            channels.reverse();
        }
        let resnet = |builder: Builder, inputs: usize, outputs: usize| {
            ResnetBlock::new(builder, ResnetSettings { inputs, outputs, time: None, groups, epsilon: EPSILON })
        };
        let into = convolution(builder.scope("conv_in"), inputs, channels[0])?;
        let mut scope = builder.scope(if decodes { "up_blocks" } else { "down_blocks" });
        let layers = config.layers_per_block + usize::from(decodes);
        let mut levels = Vec::with_capacity(channels.len());
        for (number, outputs) in channels.iter().enumerate() {
            let mut scope = scope.scope(number);
            let before = channels[number.saturating_sub(1)];
            let mut resnets = scope.scope("resnets");
            let block =
                |layer: usize| resnet(resnets.scope(layer), if layer == 0 { before } else { *outputs }, *outputs);
            let blocks = (0..layers).map(block).collect::<flowmill_nn::Result<_>>()?;
            let next = || match decodes {
                true => convolution(scope.scope("upsamplers").scope(0).scope("conv"), *outputs, *outputs),
                false => halving(scope.scope("downsamplers").scope(0), *outputs, [0, 1]),
            };
            let next = (number + 1 < channels.len()).then(next).transpose()?;
            levels.push(Level { blocks, next });
        }
        let mut scope = builder.scope("mid_block");
        let attention = PixelAttention::new(scope.scope("attentions").scope(0), groups, last)?;
        let mut middle = |number: usize| resnet(scope.scope("resnets").scope(number), last, last);
        let middle = [middle(0)?, middle(1)?];
        // The last level has the first one's channels in the decoder.
        let width = channels[channels.len() - 1];
        let norm = GroupNorm::new(builder.scope("conv_norm_out"), groups, width, EPSILON)?;
        let out = convolution(builder.scope("conv_out"), width, outputs)?;
        Ok(Self { into, levels, middle, attention, norm, out })
    }

    fn levels(&self, context: &Context, mut state: Value, doubles: bool) -> flowmill_nn::Result<Value> {
        for level in &self.levels {
            for block in &level.blocks {
                let block = block.clone();
                state =
                    context.checkpoint(&[&state], move |context, inputs| block.forward(context, &inputs[0], None))?;
            }
            state = match &level.next {
                Some(next) if doubles => double(context, next, &state)?,
                Some(next) => next.forward(context, &state)?,
                None => state,
            };
        }
        Ok(state)
    }

    fn middle(&self, context: &Context, state: &Value) -> flowmill_nn::Result<Value> {
        let [first, second] = &self.middle;
        let state = self.attention.forward(context, &first.forward(context, state, None)?)?;
        second.forward(context, &state, None)
    }

    fn finish(&self, context: &Context, state: &Value) -> flowmill_nn::Result<Value> {
        self.out.forward(context, &self.norm.forward_activated(context, state, Activation::Silu)?)
    }
}

impl Autoencoder {
    /// Creates the network with PyTorch's default initial weights.
    ///
    /// # Errors
    /// When the settings cannot be used, or a name is taken.
    pub fn new(mut builder: Builder, config: &AutoencoderConfig) -> Result<Self> {
        config.check()?;
        let encoder = Half::new(builder.scope("encoder"), config, false)?;
        let decoder = Half::new(builder.scope("decoder"), config, true)?;
        let mut pointwise = |name: &str, channels: usize| {
            Conv2d::new(builder.scope(name), channels, channels, 1, Convolution2d::default())
        };
        let quantize = [
            pointwise("quant_conv", 2 * config.latent_channels)?,
            pointwise("post_quant_conv", config.latent_channels)?,
        ];
        Ok(Self { config: config.clone(), encoder, decoder, quantize })
    }

    /// Returns the settings.
    pub fn config(&self) -> &AutoencoderConfig {
        &self.config
    }

    /// Returns the distribution of the latents of images `[item, height, width, channel]` with values from -1 to 1.
    ///
    /// # Errors
    /// When the shape does not fit: height and width must be multiples of [`AutoencoderConfig::factor`].
    pub fn encode(&self, context: &Context, images: &Value) -> Result<Posterior> {
        let unit = self.config.factor();
        let fits = |size: usize| size > 0 && size.is_multiple_of(unit);
        match *images.dims() {
            [_, height, width, channels] if channels == self.config.in_channels && fits(height) && fits(width) => {}
            _ => {
                let channels = self.config.in_channels;
                let expected = format!("[item, height, width, {channels}] with sizes that are multiples of {unit}");
                return Err(NnError::shape("autoencoder", expected, images.dims()).into());
            }
        }
        let state = self.encoder.levels(context, self.encoder.into.forward(context, images)?, false)?;
        let state = self.encoder.finish(context, &self.encoder.middle(context, &state)?)?;
        let both = self.quantize[0].forward(context, &state)?;
        let width = self.config.latent_channels;
        let [low, high] = LOG_VARIANCES;
        let log_variance = both.channels(width..2 * width)?.clamp(low, high)?;
        Ok(Posterior { mean: both.channels(0..width)?, log_variance })
    }

    /// Returns the images `[item, height, width, channel]` of latents; values are about -1 to 1.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn decode(&self, context: &Context, latents: &Value) -> Result<Value> {
        let state = self.quantize[1].forward(context, latents)?;
        let state = self.decoder.middle(context, &self.decoder.into.forward(context, &state)?)?;
        let state = self.decoder.levels(context, state, true)?;
        Ok(self.decoder.finish(context, &state)?)
    }
}
