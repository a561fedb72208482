//! Examples: an image with its caption.

use flowmill_corpus::{ColumnError, ColumnSpec, DType, Row};
use flowmill_family::TrainSettings;
use flowmill_nn::random::RngKey;

use super::{StableDiffusion, StableDiffusionConfig};

pub use flowmill_corpus::shard::speech::TEXT;
pub use flowmill_extract::extractors::pixels::PIXELS;

/// The reason why a row cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RowFault {
    /// A column is missing or of another type or shape.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// The image has another size than the model's.
    #[error("its image has the shape {found:?}, the model reads {wanted} x {wanted} pixels (train.model.image_size)")]
    Size {
        /// The shape of the pixels.
        found: Vec<usize>,
        /// Height and width of the model's images.
        wanted: usize,
    },
}

/// Returns the columns of an example.
pub fn columns(config: &StableDiffusionConfig) -> Vec<ColumnSpec> {
    let size = config.image_size;
    vec![
        ColumnSpec::new(PIXELS, DType::U8).fixed_axis("row", size).fixed_axis("column", size).fixed_axis("channel", 3),
        ColumnSpec::new(TEXT, DType::Text),
    ]
}

/// An image with its caption.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The pixels `[row, column, channel]`.
    pub pixels: Vec<u8>,
    /// The caption.
    pub caption: String,
    /// The number that identifies it in random draws.
    pub sample: u64,
}

impl Example {
    /// Returns the example of a row, as it is in the data.
    ///
    /// # Errors
    /// The reason why the row cannot be used.
    pub fn of(row: &Row, config: &StableDiffusionConfig, sample: u64) -> Result<Self, RowFault> {
        let pixels = row.column(PIXELS)?;
        let wanted = config.image_size;
        if pixels.shape() != [wanted, wanted, 3] {
            return Err(RowFault::Size { found: pixels.shape().to_vec(), wanted });
        }
        Ok(Self { pixels: row.values::<u8>(PIXELS)?.to_vec(), caption: row.text(TEXT)?.to_owned(), sample })
    }

    /// Mirrors the image, left to right, in this share of draws.
    #[must_use]
    pub fn mirrored(mut self, share: f32, size: usize, rng_key: RngKey) -> Self {
        if rng_key.purpose("flip").uniform_at(0) < share {
            for row in self.pixels.chunks_exact_mut(3 * size) {
                let mirrored: Vec<u8> = row.chunks_exact(3).rev().flatten().copied().collect();
                row.copy_from_slice(&mirrored);
            }
        }
        self
    }

    /// Returns the values of the pixels, from -1 to 1.
    pub fn values(&self) -> impl Iterator<Item = f32> + '_ {
        self.pixels.iter().map(|byte| f32::from(*byte) / 127.5 - 1.0)
    }
}

/// A batch of images with the options that its loss reads.
#[derive(Debug, Clone)]
pub struct ExampleBatch {
    /// The images.
    pub examples: Vec<Example>,
    /// The options.
    pub options: super::TrainOptions,
}

/// Makes a batch.
pub fn collate(settings: &TrainSettings<StableDiffusion>, examples: Vec<Example>) -> ExampleBatch {
    ExampleBatch { examples, options: settings.options.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_mirrored_row_by_row() {
        let example = Example { pixels: (0..12).collect(), caption: String::new(), sample: 0 };
        let mirrored = example.clone().mirrored(1.0, 2, RngKey::new(0));
        assert_eq!(mirrored.pixels, [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]);
        assert_eq!(example.clone().mirrored(0.0, 2, RngKey::new(0)), example);
        assert_eq!(Example { pixels: vec![0, 255], ..example }.values().collect::<Vec<_>>(), [-1.0, 1.0]);
    }
}
