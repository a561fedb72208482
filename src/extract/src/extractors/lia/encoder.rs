//! The encoder of appearance and motion.

use flowmill_nn::inference::{Convolution2d, Epilogue, Filters, Linear, Rows, leaky_row};
use flowmill_nn::{Activation, NnError, Value, host};

use super::blur::{Halving, Maps, halved};
use super::dimensions::LINEAR_LAYERS;
use super::{Checkpoint, Dimensions};
use crate::UnusableWeights;

/// The slope of the rectifiers below zero.
pub(super) const SLOPE: f32 = 0.2;

/// The factor after every rectifier.
pub(super) const GAIN: f32 = std::f32::consts::SQRT_2;

/// The encoder's features of a picture, for the decoder: from 8 pixels to the size of the picture.
#[derive(Debug, Clone)]
pub struct Features(pub(super) Vec<Maps>);

impl Features {
    /// Copies features `[channel][line][column]`, from 8 pixels to the size of the picture; each is given with its channels.
    ///
    /// # Errors
    /// When one is no square of its size.
    pub fn of(levels: &[(Vec<f32>, usize)]) -> Result<Self, NnError> {
        let maps = levels.iter().enumerate().map(|(level, (elements, channels))| {
            let size = 8 << level;
            if elements.len() != channels * size * size {
                let message = format!("{} numbers for {channels} channels of {size} x {size}", elements.len());
                return Err(NnError::invalid("LIA features", message));
            }
            Ok(Maps::of(elements, *channels, size))
        });
        Ok(Self(maps.collect::<Result<_, _>>()?))
    }

    /// Returns the features as `[channel][line][column]`, from 8 pixels to the size of the picture.
    pub fn elements(&self) -> Vec<Vec<f32>> {
        self.0.iter().map(Maps::elements).collect()
    }
}

/// The encoder's outputs for a picture.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The appearance, `[number]`.
    pub appearance: Vec<f32>,
    /// The coefficients of the directions of motion.
    pub coefficients: Vec<f32>,
    /// The features for the decoder.
    pub features: Features,
}

/// The encoder, with packed weights on the CPU.
pub struct LiaEncoder {
    dimensions: Dimensions,
    colors: Filters,
    blocks: Vec<Block>,
    last: Linear,
    motion: Vec<Linear>,
}

/// Returns a weight times a factor over the square root of its fan-in, the scale by which the networks use it ("equalized learning rate").
pub(super) fn equalized(checkpoint: &Checkpoint, name: &str, factor: f32) -> Result<Vec<f32>, UnusableWeights> {
    let tensor = checkpoint.tensor(name)?;
    // Modulated weights have an axis of length 1 before the outputs.
    let outputs = match *tensor.dims() {
        [1, outputs, _, _, _] => outputs,
        [outputs, ..] => outputs,
        [] => 1,
    };
    let mut elements = checkpoint.elements(name)?;
    let scale = factor / ((elements.len() / outputs.max(1)).max(1) as f32).sqrt();
    elements.iter_mut().for_each(|x| *x *= scale);
    Ok(elements)
}

/// Returns the linear layer of `NAME.weight` and `NAME.bias`.
pub(super) fn linear(checkpoint: &Checkpoint, name: &str) -> Result<Linear, UnusableWeights> {
    let weight = equalized(checkpoint, &format!("{name}.weight"), 1.0)?;
    let weight = host::tensor(weight, checkpoint.tensor(&format!("{name}.weight"))?.dims())?;
    Ok(Linear::new(&weight, Some(checkpoint.tensor(&format!("{name}.bias"))?))?)
}

/// A residual block that halves the picture.
struct Block {
    first: Convolution2d,
    second: Filters,
    skip: Filters,
    outputs: usize,
}

impl Block {
    fn new(checkpoint: &Checkpoint, index: usize) -> Result<Self, UnusableWeights> {
        let name = |part: &str| format!("enc.net_app.convs.{index}.{part}");
        let channels = &checkpoint.dimensions().channels;
        let (inputs, outputs) = (channels[index - 1], channels[index]);
        // The rectifier is homogeneous, so the factor after it may come before it.
        let weight = equalized(checkpoint, &name("conv1.0.weight"), GAIN)?;
        let bias: Vec<f32> = checkpoint.elements(&name("conv1.1.bias"))?.iter().map(|x| x * GAIN).collect();
        let first = Convolution2d::new(&weight, &bias, inputs, 3, 1);
        // The sum of both paths is divided by the factor, which cancels it in this path.
        let weight = equalized(checkpoint, &name("conv2.1.weight"), 1.0)?;
        let second = Filters::new(&weight, &checkpoint.elements(&name("conv2.2.bias"))?, inputs * 9);
        let weight = equalized(checkpoint, &name("skip.1.weight"), 1.0 / GAIN)?;
        let skip = Filters::new(&weight, &vec![0.0; outputs], inputs);
        Ok(Self { first, second, skip, outputs })
    }

    fn forward(&self, input: &Maps, scratch: &mut Vec<f32>) -> Maps {
        let (channels, size, half) = (input.channels, input.size, input.size / 2);
        let mut state = Maps { rows: Rows::default(), channels, size };
        self.first.apply(input.plane(), None, false, &mut state.rows, scratch);
        state.for_lines(|_, line| leaky_row(line, [1.0, 0.0, SLOPE, 1.0]));
        let filtered = Halving::new(&state);
        drop(state);
        let (stride, odd) = (filtered.rows.stride(), filtered.odd);
        let window = |channel: usize, line: usize, tap: usize| {
            let column = [0, odd, 1][tap];
            ((channel * (size + 1) + line) * stride + column) as u32
        };
        let places = |channel: usize| (0..9).map(move |place| (channel, place / 3, place % 3));
        let taps: Vec<u32> =
            (0..channels).flat_map(places).map(|(channel, line, tap)| window(channel, line, tap)).collect();
        // The other path filters the block's input.
        let skipped = halved(input);
        let pixel: Vec<u32> = (0..channels).map(|channel| (channel * half * skipped.rows.stride()) as u32).collect();
        let mut path = Maps::new(self.outputs, half);
        let mut out = Maps::new(self.outputs, half);
        for line in 0..half {
            let data = &filtered.rows.data()[filtered.rows.start(2 * line)..];
            let (start, step) = (path.rows.start(line), half * path.rows.stride());
            self.second.apply(data, &taps, half, (path.rows.data_mut(), start, step), Epilogue::default());
            (0..self.outputs).for_each(|channel| leaky_row(path.line_mut(channel, line), [1.0, 0.0, SLOPE, 1.0]));
            let epilogue = Epilogue { residual: Some((path.rows.data(), start, step)), relu: false };
            let data = &skipped.rows.data()[skipped.rows.start(line)..];
            self.skip.apply(data, &pixel, half, (out.rows.data_mut(), start, step), epilogue);
        }
        out
    }
}

impl LiaEncoder {
    /// Packs the weights of a checkpoint.
    ///
    /// # Errors
    /// When a layer cannot be made of them.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self, UnusableWeights> {
        let dimensions = checkpoint.dimensions().clone();
        let weight = equalized(checkpoint, "enc.net_app.convs.0.0.weight", GAIN)?;
        let bias: Vec<f32> = checkpoint.elements("enc.net_app.convs.0.1.bias")?.iter().map(|x| x * GAIN).collect();
        let levels = dimensions.channels.len();
        let blocks = (1..levels).map(|index| Block::new(checkpoint, index)).collect::<Result<_, _>>()?;
        let last = format!("enc.net_app.convs.{levels}.weight");
        let weight_of_last = equalized(checkpoint, &last, 1.0)?;
        let inputs = weight_of_last.len() / dimensions.style.max(1);
        let last = Linear::new(&host::tensor(weight_of_last, &[dimensions.style, inputs])?, None)?;
        let motion = (0..LINEAR_LAYERS).map(|layer| linear(checkpoint, &format!("enc.fc.{layer}")));
        let motion = motion.collect::<Result<_, _>>()?;
        Ok(Self { colors: Filters::new(&weight, &bias, 3), dimensions, blocks, last, motion })
    }

    /// The sizes.
    pub fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// Encodes a picture `[color][line][column]`, from -1 to 1.
    ///
    /// # Errors
    /// When it has another size.
    pub fn encode(&self, picture: &[f32]) -> Result<Encoded, NnError> {
        let mut levels = self.levels(picture)?;
        let deepest = levels.pop().map(|maps| maps.elements()).unwrap_or_default();
        levels.reverse();
        let (appearance, coefficients) = self.head(deepest)?;
        Ok(Encoded { appearance, coefficients, features: Features(levels) })
    }

    /// Returns the coefficients of the directions of motion of a picture `[color][line][column]`, from -1 to 1.
    ///
    /// # Errors
    /// When it has another size.
    pub fn coefficients(&self, picture: &[f32]) -> Result<Vec<f32>, NnError> {
        let mut scratch = Vec::new();
        let mut state = self.colored(picture)?;
        for block in &self.blocks {
            state = block.forward(&state, &mut scratch);
        }
        Ok(self.head(state.elements())?.1)
    }

    /// Returns the maps of every size, the picture's first.
    fn levels(&self, picture: &[f32]) -> Result<Vec<Maps>, NnError> {
        let mut scratch = Vec::new();
        let mut levels = vec![self.colored(picture)?];
        for block in &self.blocks {
            let next = levels.last().map(|maps| block.forward(maps, &mut scratch));
            levels.extend(next);
        }
        Ok(levels)
    }

    /// Returns the first maps of a picture.
    fn colored(&self, picture: &[f32]) -> Result<Maps, NnError> {
        let size = self.dimensions.size();
        if picture.len() != 3 * size * size {
            let message = format!("{} numbers are no picture of 3 colors and {size} x {size} pixels", picture.len());
            return Err(NnError::invalid("LIA encoder", message));
        }
        let mut maps = Maps::new(self.colors.outputs(), size);
        pointwise(&self.colors, &Maps::of(picture, 3, size), &mut maps);
        maps.for_lines(|_, line| leaky_row(line, [1.0, 0.0, SLOPE, 1.0]));
        Ok(maps)
    }

    /// Returns appearance and coefficients from the smallest maps.
    fn head(&self, deepest: Vec<f32>) -> Result<(Vec<f32>, Vec<f32>), NnError> {
        let count = deepest.len();
        let appearance = self.last.forward(&Value::from_vec(deepest, &[1, count])?, Activation::Identity)?;
        let mut state = appearance.clone();
        for layer in &self.motion {
            state = layer.forward(&state, Activation::Identity)?;
        }
        Ok((host::read(appearance.tensor())?, host::read(state.tensor())?))
    }
}

/// Computes a convolution of one pixel.
pub(super) fn pointwise(filters: &Filters, input: &Maps, out: &mut Maps) {
    let size = input.size;
    let taps: Vec<u32> = (0..input.channels).map(|channel| (channel * size * input.rows.stride()) as u32).collect();
    for line in 0..size {
        let (start, step) = (out.rows.start(line), size * out.rows.stride());
        let data = &input.rows.data()[input.rows.start(line)..];
        filters.apply(data, &taps, size, (out.rows.data_mut(), start, step), Epilogue::default());
    }
}
