//! Rendering of motion on a portrait.

use flowmill_nn::NnError;
use rayon::prelude::*;

use super::{Checkpoint, Directions, LiaDecoder, LiaEncoder, planes_of_rgb, rgb_of_planes};
use crate::UnusableWeights;

/// Encoder and decoder together: a portrait and motion in, pictures out.
pub struct LiaRenderer {
    encoder: LiaEncoder,
    decoder: LiaDecoder,
    directions: Directions,
}

impl LiaRenderer {
    /// The renderer of a checkpoint.
    ///
    /// # Errors
    /// When it has no decoder, or a layer cannot be made of the weights.
    pub fn new(checkpoint: &Checkpoint) -> Result<Self, UnusableWeights> {
        if !checkpoint.dimensions().has_decoder {
            return Err(UnusableWeights(
                "they have an encoder only; rendering needs LIA's decoder (`dec.*`)".to_owned(),
            ));
        }
        Ok(Self {
            encoder: LiaEncoder::new(checkpoint)?,
            decoder: LiaDecoder::new(checkpoint)?,
            directions: Directions::new(checkpoint)?,
        })
    }

    /// Returns the width and height of pictures, in pixels.
    pub fn picture_size(&self) -> usize {
        self.encoder.dimensions().size()
    }

    /// Returns the numbers of a motion.
    pub fn motion_size(&self) -> usize {
        self.directions.width()
    }

    /// Returns the motion of a portrait, the reference of what is sampled for it. Portraits are RGB pixels `[line][column][color]`.
    ///
    /// # Errors
    /// When the portrait has another size.
    pub fn reference(&self, portrait: &[u8]) -> Result<Vec<f32>, NnError> {
        Ok(self.directions.motion(&self.encoder.coefficients(&planes_of_rgb(portrait))?))
    }

    /// Renders motion `[frame, number]` on a portrait; returns RGB pixels `[line][column][color]` for every frame.
    ///
    /// # Errors
    /// When the portrait or the motion have another size.
    pub fn render(&self, portrait: &[u8], motion: &[f32]) -> Result<Vec<Vec<u8>>, NnError> {
        let encoded = self.encoder.encode(&planes_of_rgb(portrait))?;
        let width = self.motion_size();
        if !motion.len().is_multiple_of(width) {
            return Err(NnError::invalid("LIA renderer", format!("{} numbers of motion of {width}", motion.len())));
        }
        let frame = |motion: &[f32]| {
            let style: Vec<f32> = encoded.appearance.iter().zip(motion).map(|(a, b)| a + b).collect();
            Ok(rgb_of_planes(&self.decoder.decode(&style, &encoded.features)?.picture))
        };
        motion.par_chunks_exact(width).map(frame).collect()
    }
}
