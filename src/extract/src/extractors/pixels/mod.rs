//! The `pixels` extractor: the first image of a row as bytes of one size, for the training of an autoencoder.

mod transform;

pub use transform::{ImageFilter, ImageResize, ImageTransform};

use candle_core::Device;
use flowmill_corpus::{Array, ColumnSpec, DType, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Column, ConfigError, ExtractError, Extracted, Extractor, Kind, Media, State, StateError};

/// The extractor's kind.
pub const KIND: &str = "pixels";

/// The column of pixels, `[row, column, channel]`.
pub const PIXELS: &str = "pixels";

/// Settings of the `pixels` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PixelsConfig {
    /// Pixels along each axis.
    pub size: usize,
    /// The way in which an image becomes a square: `squash` resizes both axes, `center-crop` the shorter one and cuts out the middle.
    pub resize: ImageResize,
    /// The filter, `bicubic` or `bilinear`.
    pub filter: ImageFilter,
}

impl Default for PixelsConfig {
    fn default() -> Self {
        let ImageTransform { size, resize, filter } = ImageTransform::default();
        Self { size, resize, filter }
    }
}

impl PixelsConfig {
    fn image(&self) -> ImageTransform {
        ImageTransform { size: self.size, resize: self.resize, filter: self.filter }
    }
}

impl Kind for PixelsConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str =
        "The first image of a row, resized, as bytes: red, green and blue of each pixel. Nothing is fitted.";
    const MEDIA: &'static [Role] = &[Role::Images];

    fn columns(&self) -> Vec<Column> {
        let size = self.size;
        let spec = ColumnSpec::new(PIXELS, DType::U8).fixed_axis("row", size).fixed_axis("column", size);
        vec![spec.fixed_axis("channel", 3).docs("red, green and blue of the image").into()]
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(Pixels { config: state.settings_as(KIND)? }))
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.image().check()
    }
}

/// The extractor.
struct Pixels {
    config: PixelsConfig,
}

impl Extractor for Pixels {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let image = self.config.image().apply(&media.image(KIND)?)?;
        let shape = vec![image.height() as usize, image.width() as usize, 3];
        let pixels = Array::new(shape, image.into_pixels());
        Ok(Extracted::from(pixels.map_err(|error| ExtractError::Media(error.to_string()))?))
    }
}
