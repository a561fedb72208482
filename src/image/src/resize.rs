//! Resizing like Pillow, which torchvision's transforms of images use: filters grow with the reduction, so nothing aliases.

use crate::{ImageError, Raster, Result};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

/// Largest number of pixels of a resized image.
const LARGEST: u64 = 1 << 30;

/// The filter that pixels are weighted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// A triangle.
    Bilinear,
    /// Cubic splines through the pixels.
    Bicubic,
}

impl Raster {
    /// Resizes the image to exactly this size; its proportions may change. Equal to Pillow's `resize`, within one step of a channel.
    ///
    /// # Errors
    /// [`ImageError::Size`] if the size is 0 or too large.
    pub fn resize(&self, width: u32, height: u32, filter: Filter) -> Result<Raster> {
        if width == 0 || height == 0 || u64::from(width) * u64::from(height.max(self.height())) > LARGEST {
            return Err(ImageError::size("resize", format!("{width} x {height} pixels")));
        }
        // Rows first, like Pillow, which rounds in between. In one call the crate would begin with the columns.
        self.resize_axis(width, self.height(), filter)?.resize_axis(width, height, filter)
    }

    /// Resizes the image along one axis.
    fn resize_axis(&self, width: u32, height: u32, filter: Filter) -> Result<Raster> {
        if (width, height) == (self.width(), self.height()) {
            return Ok(self.clone());
        }
        let refuse = |message: String| ImageError::size("resize", message);
        let source = ImageRef::new(self.width(), self.height(), self.pixels(), PixelType::U8x3);
        let source = source.map_err(|error| refuse(error.to_string()))?;
        let mut target = Image::new(width, height, PixelType::U8x3);
        let filter = match filter {
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
        };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
        let resized = Resizer::new().resize(&source, &mut target, &options);
        resized.map_err(|error| refuse(error.to_string()))?;
        Raster::new(width, height, target.into_vec())
    }

    /// Resizes the image so that its shorter side has this length, like `Resize` of torchvision.
    ///
    /// # Errors
    /// [`ImageError::Size`] if the size is 0 or the longer side becomes too long.
    pub fn resize_shorter(&self, size: u32, filter: Filter) -> Result<Raster> {
        let (short, long) = (self.width().min(self.height()), self.width().max(self.height()));
        let other = u64::from(size) * u64::from(long) / u64::from(short.max(1));
        let other = u32::try_from(other).map_err(|_| ImageError::size("resize", format!("{other} pixels")))?;
        let other = other.max(1);
        match self.width() <= self.height() {
            true => self.resize(size, other, filter),
            false => self.resize(other, size, filter),
        }
    }
}
