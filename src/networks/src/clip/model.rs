//! Both transformers and their common space.

use super::config::ClipConfig;
use super::image::ImageTower;
use super::text::TextTower;
use super::{ClipError, Result};
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::Linear;
use flowmill_nn::{Context, NnError, ParameterId, Value, host};

/// The logarithm of the initial factor of similarities.
const SCALE: f32 = 2.6592;

/// CLIP without its weights.
#[derive(Debug, Clone)]
pub struct Clip {
    texts: TextTower,
    images: ImageTower,
    text_projection: Linear,
    image_projection: Linear,
    scale: ParameterId,
}

impl Clip {
    /// Creates both transformers and the projections.
    ///
    /// # Errors
    /// When the settings cannot be used, or a name is taken.
    pub fn new(mut builder: Builder, config: &ClipConfig) -> Result<Self> {
        let width = config.projection_dim;
        if !(1..=1 << 20).contains(&width) {
            return Err(ClipError::Config { field: "projection_dim", message: format!("{width} channels") });
        }
        let texts = TextTower::new(builder.scope("text_model"), &config.text)?;
        let images = ImageTower::new(builder.scope("vision_model"), &config.image)?;
        let scale = builder.add("logit_scale", &[], Init::Constant(SCALE))?;
        Ok(Self {
            text_projection: Linear::without_bias(builder.scope("text_projection"), config.text.hidden_size, width)?,
            image_projection: Linear::without_bias(
                builder.scope("visual_projection"),
                config.image.hidden_size,
                width,
            )?,
            texts,
            images,
            scale,
        })
    }

    /// Returns the text transformer.
    pub fn texts(&self) -> &TextTower {
        &self.texts
    }

    /// Returns the image transformer.
    pub fn images(&self) -> &ImageTower {
        &self.images
    }

    /// Returns the embeddings of images `[item, height, width, channel]`, `[item, channel]`, which are not of unit length.
    ///
    /// # Errors
    /// Those of [`ImageTower::forward`].
    pub fn embed_images(&self, context: &Context, images: &Value) -> Result<Value> {
        Ok(self.image_projection.forward(context, &self.images.forward(context, images)?.pooled)?)
    }

    /// Returns the embeddings of texts, `[item, channel]`, which are not of unit length.
    ///
    /// # Errors
    /// Those of [`TextTower::forward`].
    pub fn embed_texts(&self, context: &Context, texts: &[Vec<u32>]) -> Result<Value> {
        Ok(self.text_projection.forward(context, &self.texts.forward(context, texts)?.pooled)?)
    }

    /// Returns the factor of similarities.
    ///
    /// # Errors
    /// When it cannot be copied from its device.
    pub fn scale(&self, context: &Context) -> Result<f32> {
        Ok(context.parameter(self.scale).scalar()?.exp())
    }
}

/// Returns embeddings `[item, channel]` at unit length, on the host.
///
/// # Errors
/// When the embeddings are not a matrix.
pub fn normalized(embeddings: &Value) -> Result<Value> {
    let mut elements = host::read(embeddings.tensor())?;
    for row in elements.chunks_exact_mut(embeddings.width().max(1)) {
        let length = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / length.max(f64::MIN_POSITIVE)) as f32);
    }
    Ok(Value::from_vec(elements, embeddings.dims())?)
}

/// Returns the cosines `[row of a, row of b]` of the angles between embeddings `[item, channel]`.
///
/// # Errors
/// When the embeddings have different numbers of channels.
pub fn cosine_similarities(a: &Value, b: &Value) -> Result<Value> {
    if a.dims().len() != 2 || b.dims().len() != 2 || a.width() != b.width() {
        return Err(NnError::shape("cosine similarity", format!("[item, {}]", a.width()), b.dims()).into());
    }
    Ok(normalized(a)?.linear(&normalized(b)?, None)?)
}
