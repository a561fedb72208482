//! LPIPS 0.1 (Zhang et al., arXiv 1801.03924): the distance of two images in the features of a network for image recognition, weighted
//! to agree with people. Names of parameters are those of the package lpips.

use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::Conv2d;
use flowmill_nn::ops::Convolution2d;
use flowmill_nn::{Activation, Context, NnError, ParameterId, Result, Value, host};

/// Mean of the color channels that the networks were trained with, for values from -1 to 1.
const MEAN: [f32; 3] = [-0.030, -0.088, -0.188];
/// Deviation of the color channels.
const DEVIATION: [f32; 3] = [0.458, 0.448, 0.450];
/// Number added to the lengths of feature vectors.
const EPSILON: f32 = 1e-10;

/// The network whose features are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trunk {
    /// AlexNet, the default of the package and the best judge of two images.
    Alex,
    /// VGG-16.
    Vgg,
}

/// A convolution of a trunk, followed by a rectifier.
struct LayerShape {
    /// The stage that it belongs to, and its number among the layers of the trunk, which are parts of its name.
    place: [usize; 2],
    /// Channels of its output.
    channels: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
}

const fn layer(place: [usize; 2], channels: usize, kernel: usize, stride: usize, padding: usize) -> LayerShape {
    LayerShape { place, channels, kernel, stride, padding }
}

const ALEX: [LayerShape; 5] = [
    layer([1, 0], 64, 11, 4, 2),
    layer([2, 3], 192, 5, 1, 2),
    layer([3, 6], 384, 3, 1, 1),
    layer([4, 8], 256, 3, 1, 1),
    layer([5, 10], 256, 3, 1, 1),
];

const VGG: [LayerShape; 13] = [
    layer([1, 0], 64, 3, 1, 1),
    layer([1, 2], 64, 3, 1, 1),
    layer([2, 5], 128, 3, 1, 1),
    layer([2, 7], 128, 3, 1, 1),
    layer([3, 10], 256, 3, 1, 1),
    layer([3, 12], 256, 3, 1, 1),
    layer([3, 14], 256, 3, 1, 1),
    layer([4, 17], 512, 3, 1, 1),
    layer([4, 19], 512, 3, 1, 1),
    layer([4, 21], 512, 3, 1, 1),
    layer([5, 24], 512, 3, 1, 1),
    layer([5, 26], 512, 3, 1, 1),
    layer([5, 28], 512, 3, 1, 1),
];

impl Trunk {
    fn layers(self) -> &'static [LayerShape] {
        match self {
            Self::Alex => &ALEX,
            Self::Vgg => &VGG,
        }
    }

    /// The size of the windows whose largest element is kept, before a stage (counted from 1); 0 if there are none.
    fn pool(self, stage: usize) -> usize {
        match (self, stage) {
            (Self::Alex, 2 | 3) => 3,
            (Self::Vgg, 2..) => 2,
            _ => 0,
        }
    }
}

/// LPIPS without its weights.
#[derive(Debug, Clone)]
pub struct Lpips {
    trunk: Trunk,
    /// The convolutions of each stage.
    stages: Vec<Vec<Conv2d>>,
    /// The weights of the channels of each stage, `[1, channel, 1, 1]`.
    weights: Vec<ParameterId>,
}

/// The distances of a batch of pairs of images.
#[derive(Debug, Clone, PartialEq)]
pub struct Distances {
    /// The distance of each pair.
    pub total: Vec<f32>,
    /// The contribution of each stage to the distance of each pair, `[stage][pair]`.
    pub stages: Vec<Vec<f32>>,
}

impl Lpips {
    /// Creates the network: parameters `net.sliceN.M.*` and `linN.model.1.weight`.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(mut builder: Builder, trunk: Trunk) -> Result<Self> {
        let mut stages: Vec<Vec<Conv2d>> = Vec::new();
        let mut widths = Vec::new();
        let mut inputs = 3;
        for shape in trunk.layers() {
            let [stage, number] = shape.place;
            let mut scope = builder.scope("net");
            let mut scope = scope.scope(format_args!("slice{stage}"));
            let settings = Convolution2d::padded(shape.padding, shape.stride);
            let convolution = Conv2d::new(scope.scope(number), inputs, shape.channels, shape.kernel, settings)?;
            inputs = shape.channels;
            if stages.len() < stage {
                stages.push(Vec::new());
                widths.push(0);
            }
            stages[stage - 1].push(convolution);
            widths[stage - 1] = inputs;
        }
        let mut weight = |(stage, width): (usize, &usize)| {
            let name = format!("lin{stage}.model.1.weight");
            builder.add(&name, &[1, *width, 1, 1], Init::Constant(1.0 / *width as f32))
        };
        let weights = widths.iter().enumerate().map(&mut weight).collect::<Result<_>>()?;
        Ok(Self { trunk, stages, weights })
    }

    /// Returns the features of each stage for images `[item, height, width, 3]` with values from -1 to 1.
    ///
    /// # Errors
    /// When the shape does not fit, or the images are too small for the network.
    pub fn features(&self, context: &Context, images: &Value) -> Result<Vec<Value>> {
        if images.dims().len() != 4 || images.width() != MEAN.len() {
            return Err(NnError::shape("LPIPS", "[item, height, width, 3]", images.dims()));
        }
        let scale: Vec<f32> = DEVIATION.iter().map(|deviation| 1.0 / deviation).collect();
        let offset: Vec<f32> = MEAN.iter().map(|mean| -mean).collect();
        let centered = images.add_channels(&Value::from_vec(offset, &[3])?)?;
        let mut state = centered.scale_channels(&Value::from_vec(scale, &[3])?)?;
        let mut features = Vec::with_capacity(self.stages.len());
        for (number, stage) in self.stages.iter().enumerate() {
            state = largest_of_windows(&state, self.trunk.pool(number + 1))?;
            for convolution in stage {
                state = convolution.forward(context, &state)?.activate(Activation::Relu)?;
            }
            features.push(state.clone());
        }
        Ok(features)
    }

    /// Returns the distances of pairs of images `[item, height, width, 3]` with values from -1 to 1.
    ///
    /// # Errors
    /// When the shapes differ or do not fit.
    pub fn distances(&self, context: &Context, a: &Value, b: &Value) -> Result<Distances> {
        if a.dims() != b.dims() {
            return Err(NnError::shape("LPIPS", format!("two batches of {:?}", a.dims()), b.dims()));
        }
        let pairs = a.dims().first().copied().unwrap_or(0);
        let (features_a, features_b) = (self.features(context, a)?, self.features(context, b)?);
        let mut stages = Vec::with_capacity(self.stages.len());
        for ((a, b), weight) in features_a.iter().zip(&features_b).zip(&self.weights) {
            let weight = host::read(context.parameter(*weight).tensor())?;
            let (x, y) = (host::read(a.tensor())?, host::read(b.tensor())?);
            let count = x.len() / pairs.max(1);
            let distance = |pair: usize| {
                let elements = pair * count..(pair + 1) * count;
                mean_difference(&x[elements.clone()], &y[elements], &weight)
            };
            stages.push((0..pairs).map(distance).collect::<Vec<f32>>());
        }
        let total = |pair: usize| stages.iter().map(|stage| stage[pair]).sum();
        Ok(Distances { total: (0..pairs).map(total).collect(), stages })
    }
}

/// The mean over pixels of the weighted squared differences of the features `[pixel, channel]`, each at unit length.
fn mean_difference(a: &[f32], b: &[f32], weights: &[f32]) -> f32 {
    let width = weights.len().max(1);
    let length = |x: &[f32]| x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() + f64::from(EPSILON);
    let of_pixel = |(a, b): (&[f32], &[f32])| {
        let (length_a, length_b) = (length(a), length(b));
        let terms = a.iter().zip(b).zip(weights).map(|((a, b), weight)| {
            let difference = f64::from(*a) / length_a - f64::from(*b) / length_b;
            f64::from(*weight) * difference * difference
        });
        terms.sum::<f64>()
    };
    let pixels = (a.len() / width).max(1);
    (a.chunks_exact(width).zip(b.chunks_exact(width)).map(of_pixel).sum::<f64>() / pixels as f64) as f32
}

/// Keeps the largest element of windows of this size, 2 pixels apart; a size of 0 keeps everything.
fn largest_of_windows(images: &Value, size: usize) -> Result<Value> {
    if size == 0 {
        return Ok(images.clone());
    }
    if images.dims()[1..3].iter().any(|axis| *axis < size) {
        return Err(NnError::shape("LPIPS", "larger images", images.dims()));
    }
    let pooled = images.tensor().permute((0, 3, 1, 2))?.contiguous()?.max_pool2d_with_stride(size, 2)?;
    Value::plain(pooled.permute((0, 2, 3, 1))?.contiguous()?)
}
