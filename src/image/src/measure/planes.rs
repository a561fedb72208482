//! Images of numbers, and their mean squared error.

use crate::{ImageError, Raster, Result};

/// An image of numbers, usually from 0 to 1, `[row, column, channel]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Planes {
    elements: Vec<f64>,
    /// Height, width, channels.
    size: [usize; 3],
}

impl Planes {
    /// Creates an image from its elements; `size` is `[height, width, channels]`.
    ///
    /// # Errors
    /// [`ImageError::Size`] if the number of elements differs or is 0.
    pub fn new(elements: Vec<f64>, size: [usize; 3]) -> Result<Self> {
        let count = size.iter().try_fold(1usize, |count, axis| count.checked_mul(*axis));
        if elements.is_empty() || count != Some(elements.len()) {
            return Err(ImageError::size("image", format!("{} elements for {size:?}", elements.len())));
        }
        Ok(Self { elements, size })
    }

    /// The elements, `[row, column, channel]`.
    pub fn elements(&self) -> &[f64] {
        &self.elements
    }

    /// Height, width and channels.
    pub fn size(&self) -> [usize; 3] {
        self.size
    }

    /// Returns one channel.
    ///
    /// # Errors
    /// [`ImageError::Size`] if there is none of this number.
    pub fn channel(&self, channel: usize) -> Result<Self> {
        let [height, width, channels] = self.size;
        if channel >= channels {
            return Err(ImageError::size("image", format!("channel {channel} of {channels}")));
        }
        Self::new(self.elements.iter().skip(channel).step_by(channels).copied().collect(), [height, width, 1])
    }

    /// Returns the mean squared difference from another image.
    ///
    /// # Errors
    /// [`ImageError::Size`] if the sizes differ.
    pub fn mean_square_error(&self, other: &Self) -> Result<f64> {
        self.check_same(other)?;
        let squares = self.elements.iter().zip(&other.elements).map(|(a, b)| (a - b) * (a - b));
        Ok(squares.sum::<f64>() / self.elements.len() as f64)
    }

    pub(super) fn check_same(&self, other: &Self) -> Result<()> {
        match self.size == other.size {
            true => Ok(()),
            false => Err(ImageError::size("comparison", format!("{:?} and {:?}", self.size, other.size))),
        }
    }
}

impl From<&Raster> for Planes {
    fn from(image: &Raster) -> Self {
        let elements = image.pixels().iter().map(|byte| f64::from(*byte) / 255.0).collect();
        Self { elements, size: [image.height() as usize, image.width() as usize, 3] }
    }
}

/// Returns the peak signal-to-noise ratio in decibels of a mean squared error, for values from 0 to 1. Infinite for equal images.
pub fn peak_signal_to_noise(mean_square_error: f64) -> f64 {
    -10.0 * mean_square_error.log10()
}
