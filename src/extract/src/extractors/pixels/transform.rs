//! Bringing images to one size, like the transforms of torchvision and Pillow.

use flowmill_image::{Filter, Raster};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::within;
use crate::{ConfigError, ExtractError};

/// Largest size of an image, in pixels along each axis.
const LARGEST: usize = 4096;

/// The way in which an image becomes a square.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageResize {
    /// Both axes are resized to the size, so proportions may change (Pillow's `resize`, as PMG does).
    #[default]
    Squash,
    /// The shorter axis is resized to the size, and the middle is cut out (torchvision's `Resize` and `CenterCrop`).
    CenterCrop,
}

/// The filter that pixels are weighted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageFilter {
    /// Cubic splines through the pixels.
    #[default]
    Bicubic,
    /// A triangle.
    Bilinear,
}

/// A size of images, and the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageTransform {
    /// Pixels along each axis.
    pub size: usize,
    /// The way in which an image becomes a square.
    pub resize: ImageResize,
    /// The filter.
    pub filter: ImageFilter,
}

impl Default for ImageTransform {
    fn default() -> Self {
        Self { size: 512, resize: ImageResize::default(), filter: ImageFilter::default() }
    }
}

impl ImageTransform {
    /// Checks the settings.
    ///
    /// # Errors
    /// The field that cannot be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        within("size", self.size, 1, LARGEST)
    }

    /// Returns an image as a square of this size.
    ///
    /// # Errors
    /// [`ExtractError::Media`] for an image whose proportions are too extreme.
    pub fn apply(&self, image: &Raster) -> Result<Raster, ExtractError> {
        let filter = match self.filter {
            ImageFilter::Bicubic => Filter::Bicubic,
            ImageFilter::Bilinear => Filter::Bilinear,
        };
        // `check` bounds it.
        let size = self.size.min(LARGEST) as u32;
        let resized = match self.resize {
            ImageResize::Squash => image.resize(size, size, filter),
            ImageResize::CenterCrop => {
                image.resize_shorter(size, filter).and_then(|image| image.center_crop(size, size))
            }
        };
        resized.map_err(|error| ExtractError::Media(error.to_string()))
    }
}
