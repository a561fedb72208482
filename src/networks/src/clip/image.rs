//! The image transformer (Dosovitskiy et al., arXiv 2010.11929).

use super::Result;
use super::config::ImageConfig;
use super::transformer::Transformer;
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::{Conv2d, Embedding, LayerNorm};
use flowmill_nn::ops::{Convolution2d, concatenate};
use flowmill_nn::{Context, NnError, ParameterId, Ragged, Value};

/// The image transformer without its weights: parameters under `vision_model`.
#[derive(Debug, Clone)]
pub struct ImageTower {
    config: ImageConfig,
    class: ParameterId,
    patches: Conv2d,
    positions: Embedding,
    first_norm: LayerNorm,
    transformer: Transformer,
    last_norm: LayerNorm,
}

/// The outputs of the image transformer for a batch of images.
#[derive(Debug, Clone)]
pub struct ImageStates {
    /// The states of the class and of all patches, `[item, row, channel]`.
    pub hidden: Value,
    /// The normalized state of the class, `[item, channel]`.
    pub pooled: Value,
}

impl ImageTower {
    /// Creates the transformer.
    ///
    /// # Errors
    /// When the settings cannot be used, or a name is taken.
    pub fn new(mut builder: Builder, config: &ImageConfig) -> Result<Self> {
        let settings = config.transformer()?;
        let (width, patch) = (config.hidden_size, config.patch_size);
        let mut scope = builder.scope("embeddings");
        let class = scope.add("class_embedding", &[width], Init::Normal(1.0))?;
        let stride = Convolution2d::padded(0, patch);
        let patches = Conv2d::without_bias(scope.scope("patch_embedding"), config.num_channels, width, patch, stride)?;
        let rows = config.patches() * config.patches() + 1;
        let positions = Embedding::new(scope.scope("position_embedding"), rows, width)?;
        // The public name has this spelling.
        let first_norm = LayerNorm::new(builder.scope("pre_layrnorm"), width, settings.epsilon)?;
        let transformer = Transformer::new(builder.scope("encoder"), settings)?;
        let last_norm = LayerNorm::new(builder.scope("post_layernorm"), width, settings.epsilon)?;
        Ok(Self { config: config.clone(), class, patches, positions, first_norm, transformer, last_norm })
    }

    /// Returns the settings.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// Computes the states of images `[item, height, width, channel]` of the model's size.
    ///
    /// # Errors
    /// When the images have another size.
    pub fn forward(&self, context: &Context, images: &Value) -> Result<ImageStates> {
        let ImageConfig { image_size: size, num_channels, hidden_size: width, .. } = self.config;
        let &[items, height, across, channels] = images.dims() else {
            return Err(NnError::shape("CLIP images", "[item, height, width, channel]", images.dims()).into());
        };
        if [height, across, channels] != [size, size, num_channels] || items == 0 {
            let expected = format!("[item, {size}, {size}, {num_channels}]");
            return Err(NnError::shape("CLIP images", expected, images.dims()).into());
        }
        let patches = self.patches.forward(context, images)?;
        let count = self.config.patches() * self.config.patches();
        // The class is the first row of each item.
        let class = context.parameter(self.class).reshape(&[1, width])?.embed(&vec![0; items], &[items])?;
        let rows = concatenate(&[&class, &patches.reshape(&[items, count * width])?])?;
        let total = items * (count + 1);
        let places: Vec<u32> = (0..items).flat_map(|_| 0..=count as u32).collect();
        let input = rows.reshape(&[total, width])?.add(&self.positions.forward(context, &places, &[total])?)?;
        let ragged = Ragged::packed(&vec![count + 1; items]);
        let [_, state] = self.transformer.forward(context, &self.first_norm.forward(context, &input)?, &ragged)?;
        let classes: Vec<usize> = (0..items).map(|item| item * (count + 1)).collect();
        let pooled = self.last_norm.forward(context, &state.select_rows(&classes)?)?;
        Ok(ImageStates { hidden: state.reshape(&[items, count + 1, width])?, pooled })
    }
}
