//! The renderer of an extractor of motion: motion and a portrait in, frames out.

use flowmill_corpus::{Array, ArrayError};
use flowmill_nn::NnError;
use flowmill_video::crop::{Crop, Frames};
use flowmill_video::faces::{FaceDetector, follow};
use flowmill_video::resize::{Region, resize};
use flowmill_video::{Fault, Frame, VideoError};

/// The column of motion: `f32 [frame, channel]`.
pub const MOTION: &str = "motion";
/// The column of the reference, the motion space's view of the portrait: `f32 [channel]`.
pub const REFERENCE: &str = "reference";
/// The column of the portrait that motion is applied to: `u8 [row, column, color]`.
pub const PORTRAIT: &str = "portrait";

/// Turns the motion of an extractor back into frames of a face. It is opened from the extractor's fitted state by
/// [`Registry::renderer`](crate::Registry::renderer). Pure: the same motion gives the same frames, on any thread.
pub trait Renderer: Send + Sync {
    /// Returns the number of channels of the motion of a frame.
    fn channels(&self) -> usize;

    /// Returns the width and the height of portraits and rendered frames, in pixels.
    fn size(&self) -> u32;

    /// Returns a picture of a face as a portrait: cropped like the frames that the extractor was fitted on, of [`size`](Self::size).
    ///
    /// # Errors
    /// [`RenderError::Crop`] if there is no face where one is needed, or the picture cannot be used.
    fn portrait(&self, picture: &Frame) -> Result<Frame, RenderError>;

    /// Returns the reference of a portrait, `[channel]`.
    ///
    /// # Errors
    /// [`RenderError::Portrait`] for a portrait of another size; an error of the network.
    fn reference(&self, portrait: &Frame) -> Result<Vec<f32>, RenderError>;

    /// Renders the frames of motion `[frame, channel]`, one after the other.
    ///
    /// # Errors
    /// [`RenderError::Motion`] if it is not a whole number of frames; [`RenderError::Portrait`]; an error of the network.
    fn render(&self, portrait: &Frame, motion: &[f32]) -> Result<Vec<Frame>, RenderError>;

    /// Returns the direction of motion, `[channel]`, that opens and closes the mouth most: the opening of a frame is its motion's
    /// projection on it. Its sign has no meaning. `None` if the extractor does not know it.
    fn mouth(&self) -> Option<&[f32]> {
        None
    }
}

/// The reason why motion cannot be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The motion is not a whole number of frames.
    #[error("{values} values of motion are no whole number of frames of {channels} channels")]
    Motion {
        /// The number of values.
        values: usize,
        /// The channels of a frame.
        channels: usize,
    },
    /// The portrait has another size than the renderer's.
    #[error("the portrait has {found:?} pixels, the renderer needs {size} x {size}")]
    Portrait {
        /// Width and height.
        found: [u32; 2],
        /// The width and height of the renderer.
        size: u32,
    },
    /// An array is not that of a portrait.
    #[error("the portrait: {0}")]
    Array(String),
    /// The face detector does not work.
    #[error(transparent)]
    Video(#[from] VideoError),
    /// A picture cannot be cropped.
    #[error("the portrait: {0}")]
    Crop(Fault),
    /// A network refused the motion.
    #[error(transparent)]
    Network(#[from] NnError),
}

/// Returns the portrait in a column `u8 [row, column, color]`.
///
/// # Errors
/// [`RenderError::Array`] for another type or shape.
pub fn portrait_of(array: &Array) -> Result<Frame, RenderError> {
    let wrong = |reason: String| RenderError::Array(reason);
    let rgb = array.values::<u8>().map_err(|error: ArrayError| wrong(error.to_string()))?.to_vec();
    match *array.shape() {
        [height, width, 3] if height > 0 && width > 0 => {
            let side = |side: usize| u32::try_from(side).map_err(|_| wrong(format!("{side} pixels are too many")));
            Ok(Frame { width: side(width)?, height: side(height)?, rgb })
        }
        _ => Err(wrong(format!("the shape {:?} is not [row, column, 3]", array.shape()))),
    }
}

/// Crops a picture of a face as the frames of clips are cropped.
///
/// # Errors
/// [`RenderError::Crop`] if there is no face in it, or it should be square and is not; [`RenderError::Video`].
pub(crate) fn crop_portrait(frames: &Frames, picture: &Frame) -> Result<Frame, RenderError> {
    let region = match frames.crop {
        Crop::Given if picture.width != picture.height => {
            let size = format!("{}x{}", picture.width, picture.height);
            return Err(RenderError::Crop(Fault::NotSquare { size }));
        }
        Crop::Given => Region::whole(picture),
        Crop::Center => Region::center_square(picture.width, picture.height),
        Crop::Detect => {
            let examined = [(0, FaceDetector::new()?.faces(picture))];
            let (regions, _) = follow(&examined, 1, frames.fps, frames.margin).map_err(RenderError::Crop)?;
            regions.into_iter().next().unwrap_or_else(|| Region::whole(picture))
        }
    };
    Ok(resize(picture, region, frames.size, frames.size))
}

/// Checks a portrait and motion for a renderer.
pub(crate) fn check(renderer: &dyn Renderer, portrait: &Frame, motion: &[f32]) -> Result<(), RenderError> {
    let (size, channels) = (renderer.size(), renderer.channels());
    if [portrait.width, portrait.height] != [size, size] {
        return Err(RenderError::Portrait { found: [portrait.width, portrait.height], size });
    }
    if channels == 0 || !motion.len().is_multiple_of(channels) {
        return Err(RenderError::Motion { values: motion.len(), channels });
    }
    Ok(())
}
