//! Encoding.

use crate::{ImageError, Raster, Result};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

/// Returns the bytes of a PNG file.
///
/// # Errors
/// [`ImageError::Encode`] if it cannot be encoded.
pub fn to_png(image: &Raster) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(PngEncoder::new(&mut bytes), image)?;
    Ok(bytes)
}

/// Returns the bytes of a JPEG file of a quality from 1 to 100.
///
/// # Errors
/// [`ImageError::Encode`] if it cannot be encoded.
pub fn to_jpeg(image: &Raster, quality: u8) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100)), image)?;
    Ok(bytes)
}

fn write(encoder: impl ImageEncoder, image: &Raster) -> Result<()> {
    let written = encoder.write_image(image.pixels(), image.width(), image.height(), ExtendedColorType::Rgb8);
    written.map_err(|error| ImageError::Encode(error.to_string()))
}
