//! The part that HiFi-GAN and HiFT have in common: levels of upsampling and residual blocks between two convolutions.

use flowmill_extract::UnusableWeights;
use flowmill_extract::waveform::{Convolution, Upsampling, leaky_relu, sum};
use flowmill_nn::{NnError, Result, Value};

use super::residual::{Block, BlockForm};
use super::weights::{Loaded, Tensors};

/// Taps of the first and the last convolution.
const TAPS: usize = 7;
/// Slope of the leaky rectifier before the last convolution, which is PyTorch's default.
const LAST_SLOPE: f32 = 0.01;

/// The largest number of samples per mel frame; it bounds the memory for the output of a frame.
pub(super) const LARGEST_FACTOR: usize = 1 << 16;

/// Settings that the shapes of the weights do not tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct TrunkSettings<'a> {
    /// Slope of the leaky rectifier before each upsampling.
    pub slope: f32,
    /// Form of the residual blocks.
    pub form: BlockForm,
    /// Factor of each upsampling; by default half its taps, rounded down.
    pub rates: Option<&'a [usize]>,
    /// Dilations of each block of a level; by default the published ones.
    pub dilations: Option<&'a [Vec<usize>]>,
}

/// A level: an upsampling, and residual blocks whose mean is its result.
pub(super) struct Level {
    upsampling: Upsampling,
    /// Output frames that are cut at either end.
    cut: usize,
    slope: f32,
    blocks: Vec<Block>,
    /// The factor of the upsampling.
    pub rate: usize,
    /// The number of channels.
    pub channels: usize,
}

impl Level {
    /// Activates and upsamples a signal.
    pub(super) fn raise(&self, signal: &Value) -> Result<Value> {
        self.upsampling.forward(&leaky_relu(signal, self.slope)?, [self.cut, self.cut])
    }

    /// Returns the mean of the residual blocks.
    pub(super) fn refine(&self, signal: &Value) -> Result<Value> {
        let mut total: Option<Value> = None;
        for block in &self.blocks {
            let value = block.forward(signal)?;
            total = Some(match total {
                Some(total) => sum(&total, &value)?,
                None => value,
            });
        }
        let total = total.ok_or_else(|| NnError::invalid("vocoder", "a level without residual blocks"))?;
        Value::plain((total.tensor() * (1.0 / self.blocks.len() as f64))?)
    }

    fn reach(&self) -> usize {
        self.blocks.iter().map(Block::reach).max().unwrap_or(0)
    }
}

/// The levels with the convolutions before and after them.
pub(super) struct Trunk {
    /// The convolution of the mel.
    pub first: Convolution,
    /// The levels, each with half the channels of the one before it.
    pub levels: Vec<Level>,
    last: Convolution,
    /// Mel bands.
    pub bands: usize,
}

impl Trunk {
    /// Takes the weights of a trunk with this number of output channels.
    pub(super) fn new(tensors: &mut Tensors<'_>, outputs: usize, settings: TrunkSettings<'_>) -> Loaded<Self> {
        let bands = tensors.needed_axis("conv_pre.weight", 1)?;
        let mut channels = tensors.needed_axis("conv_pre.weight", 0)?;
        let taps = tensors.axis("conv_pre.weight", 2);
        if taps != TAPS {
            let reason = format!(
                "`conv_pre` has {taps} taps, expected {TAPS}; the causal vocoder of CosyVoice 3 is not supported"
            );
            return Err(UnusableWeights(reason));
        }
        let (first, _) = tensors.centered("conv_pre", [channels, bands, TAPS], 1, true)?;
        let (count, blocks) = (tensors.count("ups"), tensors.count("resblocks"));
        if count == 0 || blocks == 0 || !blocks.is_multiple_of(count) {
            return Err(UnusableWeights(format!("{count} upsampling layers with {blocks} residual blocks")));
        }
        let blocks = blocks / count;
        if let Some(rates) = settings.rates.filter(|rates| rates.len() != count) {
            let reason = format!("upsample_rates has {} factors for {count} upsampling layers", rates.len());
            return Err(UnusableWeights(reason));
        }
        if let Some(dilations) = settings.dilations.filter(|dilations| dilations.len() != blocks) {
            let found = dilations.len();
            let reason = format!("resblock_dilation_sizes has {found} lists for {blocks} residual blocks per level");
            return Err(UnusableWeights(reason));
        }
        let mut levels = Vec::new();
        for level in 0..count {
            levels.push(Self::level(tensors, level, channels, blocks, settings)?);
            channels = levels[level].channels;
        }
        let (last, _) = tensors.centered("conv_post", [outputs, channels, TAPS], 1, true)?;
        Ok(Self { first, levels, last, bands })
    }

    fn level(
        tensors: &mut Tensors<'_>,
        level: usize,
        inputs: usize,
        blocks: usize,
        settings: TrunkSettings<'_>,
    ) -> Loaded<Level> {
        let name = format!("ups.{level}");
        let weight = format!("{name}.weight");
        let (channels, taps) = (tensors.needed_axis(&weight, 1)?, tensors.axis(&weight, 2));
        let rate = settings.rates.map_or(taps / 2, |rates| rates[level]);
        if !(1..=taps).contains(&rate) || !(taps - rate).is_multiple_of(2) {
            let reason = format!("`{name}` has {taps} taps, which do not fit upsampling by {rate}");
            return Err(UnusableWeights(reason));
        }
        let (weight, bias) =
            (tensors.take(&weight, &[inputs, channels, taps])?, tensors.take(&format!("{name}.bias"), &[channels])?);
        let upsampling = Upsampling::with_stride(&weight, &bias, rate, tensors.device())?;
        let block = |block: usize| {
            let dilations = settings.dilations.map(|dilations| dilations[block].as_slice());
            let name = format!("resblocks.{}", level * blocks + block);
            Block::new(tensors, &name, channels, settings.form, dilations)
        };
        let blocks = (0..blocks).map(block).collect::<Loaded<_>>()?;
        Ok(Level { upsampling, cut: (taps - rate) / 2, slope: settings.slope, blocks, rate, channels })
    }

    /// Activates and convolves the result of the last level.
    pub(super) fn last(&self, signal: &Value) -> Result<Value> {
        self.last.forward(&leaky_relu(signal, LAST_SLOPE)?)
    }

    /// Returns the product of the factors of all levels. `None` if it is too large.
    pub(super) fn factor(&self) -> Option<usize> {
        let product = self.levels.iter().try_fold(1usize, |product, level| product.checked_mul(level.rate));
        product.filter(|factor| *factor <= LARGEST_FACTOR)
    }

    /// Returns the number of mel frames that a sample sees to either side.
    pub(super) fn context(&self) -> usize {
        let half = TAPS as f64 / 2.0;
        let (mut frames, mut factor) = (half, 1.0);
        for level in &self.levels {
            // An upsampled frame sees the input frames that `cut` and the window span.
            frames += (1.0 + level.cut as f64 / level.rate as f64) / factor;
            factor *= level.rate as f64;
            frames += level.reach() as f64 / factor;
        }
        (frames + half / factor).ceil() as usize + 1
    }
}
