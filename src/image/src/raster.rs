//! An image in memory.

use crate::{ImageError, Result};

/// An opaque image of 8 bits per channel: red, green and blue of each pixel, row by row from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raster {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

/// Channels per pixel.
pub(crate) const CHANNELS: usize = 3;

impl Raster {
    /// Creates an image from its pixels.
    ///
    /// # Errors
    /// [`ImageError::Size`] if an axis is 0, or the number of bytes is not three per pixel.
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self> {
        let expected = (width as usize).checked_mul(height as usize).and_then(|count| count.checked_mul(CHANNELS));
        if width == 0 || height == 0 || expected != Some(pixels.len()) {
            let message = format!("{} bytes for {width} x {height} pixels of {CHANNELS}", pixels.len());
            return Err(ImageError::size("image", message));
        }
        Ok(Self { width, height, pixels })
    }

    /// Creates an image from values from -1 to 1, `[row, column, channel]`, as autoencoders compute them. Values outside are clipped.
    ///
    /// # Errors
    /// [`ImageError::Size`] as in [`new`](Self::new).
    pub fn from_signed(width: u32, height: u32, values: &[f32]) -> Result<Self> {
        // The byte of the value, rounded to the nearest one; NaN is black.
        let byte = |value: &f32| ((value.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8;
        Self::new(width, height, values.iter().map(byte).collect())
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes, `[row, column, channel]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Returns the bytes, `[row, column, channel]`.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// Returns values from -1 to 1, `[row, column, channel]`, as autoencoders read them.
    pub fn to_signed(&self) -> Vec<f32> {
        self.pixels.iter().map(|byte| f32::from(*byte) / 255.0 * 2.0 - 1.0).collect()
    }

    /// Returns values `(x / 255 - mean) / deviation` of each channel, `[row, column, channel]`, as image classifiers read them.
    pub fn to_normalized(&self, mean: [f32; 3], deviation: [f32; 3]) -> Vec<f32> {
        let pixel = |pixel: &[u8]| [0, 1, 2].map(|c| (f32::from(pixel[c]) / 255.0 - mean[c]) / deviation[c]);
        self.pixels.chunks_exact(CHANNELS).flat_map(pixel).collect()
    }

    /// Cuts out the rectangle whose upper left corner is at a column and a row.
    ///
    /// # Errors
    /// [`ImageError::Size`] if it is empty or reaches beyond the image.
    pub fn crop(&self, left: u32, top: u32, width: u32, height: u32) -> Result<Self> {
        let fits = |start: u32, length: u32, whole: u32| start.checked_add(length).is_some_and(|end| end <= whole);
        if width == 0 || height == 0 || !fits(left, width, self.width) || !fits(top, height, self.height) {
            let message =
                format!("{width} x {height} pixels at {left}, {top} of an image of {} x {}", self.width, self.height);
            return Err(ImageError::size("crop", message));
        }
        let (row, start, length) =
            (self.width as usize * CHANNELS, left as usize * CHANNELS, width as usize * CHANNELS);
        let rows = self.pixels.chunks_exact(row).skip(top as usize).take(height as usize);
        Self::new(width, height, rows.flat_map(|row| &row[start..start + length]).copied().collect())
    }

    /// Cuts out the middle, like `CenterCrop` of torchvision for images that are large enough.
    ///
    /// # Errors
    /// [`ImageError::Size`] if the image is smaller.
    pub fn center_crop(&self, width: u32, height: u32) -> Result<Self> {
        // A half is rounded to the even number, as Python does.
        let start = |whole: u32, part: u32| (f64::from(whole.saturating_sub(part)) / 2.0).round_ties_even() as u32;
        self.crop(start(self.width, width), start(self.height, height), width, height)
    }

    /// Cuts out a rectangle at a random place, like `RandomCrop` of torchvision, given random numbers from 0 (inclusive) to 1 (exclusive)
    /// for its column and its row.
    ///
    /// # Errors
    /// [`ImageError::Size`] if the image is smaller.
    pub fn random_crop(&self, width: u32, height: u32, [column, row]: [f32; 2]) -> Result<Self> {
        let start = |whole: u32, part: u32, draw: f32| {
            let room = whole.saturating_sub(part);
            ((f64::from(room) + 1.0) * f64::from(draw.clamp(0.0, 1.0))).min(f64::from(room)) as u32
        };
        self.crop(start(self.width, width, column), start(self.height, height, row), width, height)
    }
}
