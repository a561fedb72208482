//! The renderer of LIA's motion for portraits of any size.

use flowmill_video::Frame;
use flowmill_video::crop::Frames;

use super::extractor::of_state;
use super::{KIND, LiaRenderer};
use crate::renderer::{check, crop_portrait};
use crate::weights as taken;
use crate::{RenderError, Renderer, State, StateError};

/// A renderer with the settings by which portraits are cropped.
pub(super) struct LiaFace {
    renderer: LiaRenderer,
    frames: Frames,
}

impl LiaFace {
    /// The renderer that a state describes; none if its weights have no decoder.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub(super) fn from_state(state: &State) -> Result<Option<Self>, StateError> {
        let (checkpoint, frames) = of_state(state)?;
        if !checkpoint.dimensions().has_decoder {
            return Ok(None);
        }
        let renderer = LiaRenderer::new(&checkpoint).map_err(taken::foreign(KIND))?;
        Ok(Some(Self { renderer, frames }))
    }
}

impl Renderer for LiaFace {
    fn channels(&self) -> usize {
        self.renderer.motion_size()
    }

    fn size(&self) -> u32 {
        // Sizes of weights are powers of two of a few hundred pixels.
        self.renderer.picture_size() as u32
    }

    fn portrait(&self, picture: &Frame) -> Result<Frame, RenderError> {
        crop_portrait(&self.frames, picture)
    }

    fn reference(&self, portrait: &Frame) -> Result<Vec<f32>, RenderError> {
        check(self, portrait, &[])?;
        Ok(self.renderer.reference(&portrait.rgb)?)
    }

    fn render(&self, portrait: &Frame, motion: &[f32]) -> Result<Vec<Frame>, RenderError> {
        check(self, portrait, motion)?;
        let size = self.size();
        let frames = self.renderer.render(&portrait.rgb, motion)?;
        Ok(frames.into_iter().map(|rgb| Frame { width: size, height: size, rgb }).collect())
    }
}
