//! The decoder: a picture from appearance, motion and the encoder's features.

use flowmill_nn::inference::{Filters, blend_row, leaky_row};
use flowmill_nn::{Activation, NnError};

use super::blur::{Maps, doubled};
use super::dimensions::SMALLEST;
use super::encoder::{GAIN, SLOPE, equalized, pointwise};
use super::modulated::{StyledConvolution, StyledProjection};
use super::warp::warped;
use super::{Checkpoint, Dimensions, Features};
use crate::UnusableWeights;

/// One size of the picture.
struct Level {
    doubling: StyledConvolution,
    convolution: StyledConvolution,
    flow: StyledProjection,
    colors: Filters,
    color_bias: Vec<f32>,
}

/// The decoder, with packed weights on the CPU.
pub struct LiaDecoder {
    dimensions: Dimensions,
    /// The maps that every picture starts with.
    start: Vec<f32>,
    first: StyledConvolution,
    levels: Vec<Level>,
}

/// A decoded picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The picture `[color][line][column]`, about -1 to 1.
    pub picture: Vec<f32>,
    /// The places (x, y) in the features that the largest maps come from, `[line][column]`, from -1 to 1.
    pub flow: Vec<[f32; 2]>,
}

impl LiaDecoder {
    /// Packs the weights of a checkpoint.
    ///
    /// # Errors
    /// When it has no decoder, or a layer cannot be made of the weights.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self, UnusableWeights> {
        let dimensions = checkpoint.dimensions().clone();
        let deepest = dimensions.channels.last().copied().unwrap_or(0);
        let convolutions = dimensions.decoder_convolutions();
        let styled = |(number, inputs, outputs, doubles): (usize, usize, usize, bool)| {
            StyledConvolution::new(checkpoint, &format!("dec.convs.{number}"), [inputs, outputs], doubles)
        };
        let level = |(level, pair): (usize, &[(usize, usize, usize, bool)])| -> Result<Level, UnusableWeights> {
            let name = format!("dec.to_rgbs.{level}");
            let weight = equalized(checkpoint, &format!("{name}.conv.0.weight"), 1.0)?;
            let bias = checkpoint.elements(&format!("{name}.conv.1.bias"))?;
            Ok(Level {
                doubling: styled(pair[0])?,
                convolution: styled(pair[1])?,
                flow: StyledProjection::new(checkpoint, &format!("dec.to_flows.{level}"))?,
                colors: Filters::new(&weight, &bias, pair[1].2),
                color_bias: checkpoint.elements(&format!("{name}.bias"))?,
            })
        };
        Ok(Self {
            start: checkpoint.elements("dec.input.input")?,
            first: StyledConvolution::new(checkpoint, "dec.conv1", [deepest, deepest], false)?,
            levels: convolutions.chunks_exact(2).enumerate().map(level).collect::<Result<_, _>>()?,
            dimensions,
        })
    }

    /// The sizes.
    pub fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// Decodes a style, the sum of an appearance and a motion, with the features of the picture that the appearance comes from.
    ///
    /// # Errors
    /// When the style or the features have other sizes.
    pub fn decode(&self, style: &[f32], features: &Features) -> Result<Decoded, NnError> {
        self.check(style, features)?;
        let mut scratch = Vec::new();
        let deepest = self.dimensions.channels.last().copied().unwrap_or(0);
        let mut state = self.first.forward(Maps::of(&self.start, deepest, SMALLEST), style, &mut scratch);
        let (mut colors, mut flows): (Option<Maps>, Option<Maps>) = (None, None);
        let mut places = Vec::new();
        for (level, features) in self.levels.iter().zip(&features.0) {
            state = level.doubling.forward(state, style, &mut scratch);
            state = level.convolution.forward(state, style, &mut scratch);
            let mut flow = Maps::new(3, state.size);
            pointwise(&level.flow.filters(style), &state, &mut flow);
            add_doubled(&mut flow, flows.as_ref());
            places = grid(&flow);
            let mask = mask(&flow);
            let mut moved = warped(features, &places);
            for row in 0..state.channels * state.size {
                let mask = &mask[row % state.size * state.size..][..state.size];
                blend_row(state.rows.row_mut(row), moved.rows.row_mut(row), mask, 1.0);
            }
            let mut picture = Maps::new(3, state.size);
            pointwise(&level.colors, &moved, &mut picture);
            picture.for_lines(|color, line| {
                leaky_row(line, [1.0, 0.0, SLOPE, GAIN]);
                line.iter_mut().for_each(|x| *x += level.color_bias[color]);
            });
            add_doubled(&mut picture, colors.as_ref());
            (colors, flows) = (Some(picture), Some(flow));
        }
        Ok(Decoded { picture: colors.map(|maps| maps.elements()).unwrap_or_default(), flow: places })
    }

    fn check(&self, style: &[f32], features: &Features) -> Result<(), NnError> {
        let channels = self.dimensions.channels.iter().rev().skip(1);
        let fits = style.len() == self.dimensions.style
            && features.0.len() == self.levels.len()
            && features.0.iter().zip(channels).all(|(maps, channels)| maps.channels == *channels);
        match fits {
            true => Ok(()),
            false => {
                let message = format!("{} numbers of style and {} levels of features", style.len(), features.0.len());
                Err(NnError::invalid("LIA decoder", message))
            }
        }
    }
}

/// Adds the maps of the next smaller size, doubled.
fn add_doubled(maps: &mut Maps, smaller: Option<&Maps>) {
    let Some(smaller) = smaller else { return };
    let larger = doubled(smaller);
    for row in 0..maps.channels * maps.size {
        maps.rows.row_mut(row).iter_mut().zip(larger.rows.row(row)).for_each(|(a, b)| *a += b);
    }
}

/// Returns the places that the flow points to: each pixel's own, from -1 to 1 with both ends, plus the hyperbolic tangent of the first two
/// maps.
fn grid(flow: &Maps) -> Vec<[f32; 2]> {
    let size = flow.size;
    let line = |axis: usize, line: usize| {
        let mut offsets = flow.rows.row(axis * size + line).to_vec();
        Activation::Tanh.apply(&mut offsets);
        offsets
    };
    let own = |place: usize| (-1.0 + 2.0 * place as f64 / (size.max(2) - 1) as f64) as f32;
    let lines = (0..size).flat_map(|y| {
        let (xs, ys) = (line(0, y), line(1, y));
        (0..size).map(move |x| [xs[x] + own(x), ys[x] + own(y)]).collect::<Vec<_>>()
    });
    lines.collect()
}

/// Returns the mask `[line][column]` by which the warped features replace the state: the logistic function of the third map.
fn mask(flow: &Maps) -> Vec<f32> {
    let size = flow.size;
    let mut mask: Vec<f32> = (0..size).flat_map(|line| flow.rows.row(2 * size + line)).copied().collect();
    Activation::Sigmoid.apply(&mut mask);
    mask
}
