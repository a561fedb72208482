//! The `lia-motion` extractor: frames of a face in, their motion out.

use flowmill_corpus::{Array, ArrayError, Role};
use flowmill_video::crop::Frames;
use rayon::prelude::*;
use serde::Deserialize;

use super::config::columns;
use super::{Checkpoint, Directions, KIND, LiaEncoder, planes_of_rgb};
use crate::weights as taken;
use crate::{Column, ExtractError, Extracted, Extractor, Matrix, Media, State, StateError, UnusableWeights};

/// The encoder with its directions, as an extractor.
pub struct LiaExtractor {
    encoder: LiaEncoder,
    directions: Directions,
    frames: Frames,
}

#[derive(Deserialize)]
struct Settings {
    frames: Frames,
}

/// Returns the checkpoint in a state, and its settings of frames.
pub(super) fn of_state(state: &State) -> Result<(Checkpoint, Frames), StateError> {
    let Settings { frames } = state.settings_as(KIND)?;
    let checkpoint = taken::kept(state, "").and_then(Checkpoint::of_plain).map_err(taken::foreign(KIND))?;
    Ok((checkpoint, frames))
}

impl LiaExtractor {
    /// The extractor of a checkpoint, for videos whose frames are cropped by these settings.
    ///
    /// # Errors
    /// When a layer cannot be made of the weights.
    pub fn new(checkpoint: &Checkpoint, frames: Frames) -> Result<Self, UnusableWeights> {
        Ok(Self { encoder: LiaEncoder::new(checkpoint)?, directions: Directions::new(checkpoint)?, frames })
    }

    /// The extractor that a state describes.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State) -> Result<Self, StateError> {
        let (checkpoint, frames) = of_state(state)?;
        Self::new(&checkpoint, frames).map_err(taken::foreign(KIND))
    }

    /// Returns the motion of every frame, `[frame, channel]`. Frames are RGB pixels `[line][column][color]` of the size of the weights.
    ///
    /// # Errors
    /// When a frame has another size, or a motion is not finite.
    pub fn motions(&self, frames: &[&[u8]]) -> Result<Matrix, ExtractError> {
        let motion = |frame: &&[u8]| -> Result<Vec<f32>, ExtractError> {
            Ok(self.directions.motion(&self.encoder.coefficients(&planes_of_rgb(frame))?))
        };
        let motions = frames.par_iter().map(motion).collect::<Result<Vec<_>, _>>()?;
        let motions = Matrix::new(motions.concat(), self.directions.width());
        match motions.is_finite() {
            true => Ok(motions),
            false => Err(ExtractError::NotFinite { extractor: KIND }),
        }
    }

    /// Returns the columns of a clip: the motion of every frame, that of the first one as reference, and the first one as portrait.
    ///
    /// # Errors
    /// When there is no frame; like [`motions`](Self::motions).
    pub fn extracted(&self, frames: &[&[u8]]) -> Result<Extracted, ExtractError> {
        let [first, ..] = frames else { return Err(ExtractError::NoMedia { extractor: KIND, wanted: Role::Video }) };
        let media = |error: ArrayError| ExtractError::Media(error.to_string());
        let size = self.frames.size as usize;
        let portrait = Array::new(vec![size, size, 3], first.to_vec()).map_err(media)?;
        let motions = self.motions(frames)?;
        let reference = Array::vector(motions.row(0).to_vec());
        let array = Array::new(vec![motions.rows(), motions.columns()], motions.as_slice().to_vec());
        Ok(Extracted::new(vec![array.map_err(media)?, reference, portrait]))
    }
}

impl Extractor for LiaExtractor {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        columns(self.directions.width(), self.frames.size as usize)
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let clip = media.video(KIND, &self.frames)?;
        self.extracted(&clip.frames.iter().map(|frame| frame.rgb.as_slice()).collect::<Vec<_>>())
    }
}
