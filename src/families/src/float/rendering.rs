//! Frames from motion.

use std::path::Path;

use candle_core::Device;
use flowmill_extract::extractors::registry;
use flowmill_extract::{Renderer, State};
use flowmill_family::{Audio, BoxError, Image, Made, Output};
use flowmill_video::Frame;

/// The renderer of an extractor of motion, if it has one: motion that was imported has none.
pub struct Rendering(Option<Box<dyn Renderer>>);

impl Rendering {
    /// Opens the renderer of the extractor that is fitted in the file `path`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn open(path: &Path, device: &Device) -> Result<Self, BoxError> {
        Ok(Self(registry().renderer(&State::load(path)?, device)?))
    }

    /// Returns the renderer.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn required(&self) -> Result<&dyn Renderer, BoxError> {
        let none = "the motion of this model was made elsewhere and cannot be rendered here; train with `kind: pca-motion` or `kind: lia-motion`";
        Ok(self.0.as_deref().ok_or(none)?)
    }

    /// Returns the frames of motion; none without a renderer or a portrait.
    ///
    /// # Errors
    /// Returns an error if the motion is not the renderer's.
    pub fn frames(&self, portrait: Option<&Frame>, motion: &[f32]) -> Result<Option<Vec<Frame>>, BoxError> {
        let Some((renderer, portrait)) = self.0.as_ref().zip(portrait) else { return Ok(None) };
        Ok(Some(renderer.render(portrait, motion)?))
    }

    /// Returns frames as a video with sound.
    pub fn video(&self, name: &str, frames: Vec<Frame>, fps: u16, audio: Option<Audio>) -> Made {
        let frames = frames.into_iter().map(image).collect();
        let output = Output::Video { frames, rate: fps, audio };
        Made { name: name.to_owned(), title: name.to_owned(), output, real: None }
    }
}

/// Returns a frame as a picture.
pub fn image(frame: Frame) -> Image {
    Image { width: frame.width, height: frame.height, rgb: frame.rgb }
}
