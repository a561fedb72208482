//! Decoding by content.

use crate::raster::CHANNELS;
use crate::{ImageError, Raster, Result};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

/// The formats that are decoded.
const FORMATS: [ImageFormat; 4] = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif];
/// Bytes that a decoder may allocate per pixel of the largest image: 16 bits in four channels, and a second copy of them.
const BYTES_PER_PIXEL: u64 = 16;

/// Largest sizes of files and images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a file.
    pub bytes: u64,
    /// Pixels of an image.
    pub pixels: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 256 << 20, pixels: 100_000_000 }
    }
}

/// Reads and decodes a file; see [`decode`].
///
/// # Errors
/// Those of [`decode`]; [`ImageError::Unreadable`] if the file cannot be read.
pub fn read(path: &Path, limits: &Limits) -> Result<Raster> {
    let file = File::open(path)?;
    let found = file.metadata()?.len();
    let too_large = |found| ImageError::TooLarge { found, limit: limits.bytes, unit: "bytes" };
    if found > limits.bytes {
        return Err(too_large(found));
    }
    let mut bytes = Vec::new();
    file.take(limits.bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limits.bytes {
        return Err(too_large(bytes.len() as u64));
    }
    decode(&bytes, limits)
}

/// Decodes the content of a PNG, JPEG, WebP or GIF file, whatever its name: the first image of an animation, upright according to its
/// EXIF orientation, transparent parts on white, deeper channels rounded to 8 bits.
///
/// # Errors
/// [`ImageError`] says what is wrong with the content.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Raster> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    if bytes.len() as u64 > limits.bytes {
        return Err(ImageError::TooLarge { found: bytes.len() as u64, limit: limits.bytes, unit: "bytes" });
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let format = reader.format().ok_or(ImageError::UnknownFormat)?;
    if !FORMATS.contains(&format) {
        return Err(ImageError::UnsupportedFormat { format: format!("{format:?}") });
    }
    if format == ImageFormat::Jpeg && is_cut_off(bytes) {
        return Err(ImageError::Damaged("the file ends before the image does".to_owned()));
    }
    let mut bounds = image::Limits::default();
    bounds.max_alloc = Some(limits.pixels.saturating_mul(BYTES_PER_PIXEL));
    reader.limits(bounds);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.pixels {
        return Err(ImageError::TooLarge { found: pixels, limit: limits.pixels, unit: "pixels" });
    }
    let orientation = decoder.orientation().map_err(damaged)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    let pixels = match image.color().has_alpha() {
        true => on_white(&image.into_rgba8().into_raw()),
        false => image.into_rgb8().into_raw(),
    };
    Raster::new(width, height, pixels)
}

fn damaged(error: image::ImageError) -> ImageError {
    match error {
        image::ImageError::Unsupported(error) => ImageError::UnsupportedFormat { format: error.to_string() },
        other => ImageError::Damaged(other.to_string()),
    }
}

/// Returns whether a JPEG file ends before its image: the decoder fills the rest with gray. The end of the image is a marker after the
/// last scan; inside of scans no marker occurs.
fn is_cut_off(bytes: &[u8]) -> bool {
    const SCAN: [u8; 2] = [0xff, 0xda];
    const END: [u8; 2] = [0xff, 0xd9];
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|window| window == marker);
    match (last(SCAN), last(END)) {
        (Some(scan), Some(end)) => end < scan,
        _ => true,
    }
}

/// Puts pixels with transparency on white.
fn on_white(pixels: &[u8]) -> Vec<u8> {
    let blend = |pixel: &[u8]| -> [u8; CHANNELS] {
        let alpha = u32::from(pixel[CHANNELS]);
        [0, 1, 2].map(|channel| {
            let sum = u32::from(pixel[channel]) * alpha + 255 * (255 - alpha);
            // At most 255, because the weights sum to 255.
            ((sum + 127) / 255) as u8
        })
    };
    pixels.chunks_exact(CHANNELS + 1).flat_map(blend).collect()
}
