//! Frames of faces: a clip cropped to a square and resized.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::augment::AugmentOptions;
use crate::clip::{self, Clip, ClipOptions, SoundPolicy};
use crate::error::{Fault, VideoError};
use crate::faces::{Examined, FaceDetector, follow};
use crate::note::ClipNote;
use crate::resize::{Region, resize};
use crate::stabilize::stabilize;

/// The part of a frame that is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// The whole frame, which is cropped already; frames that are not square are rejected.
    Given,
    /// The largest square in the center.
    #[default]
    Center,
    /// A square that follows the face which is largest in the first frame with one, found by SeetaFace.
    Detect,
}

/// Settings of the frames that an extractor sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Frames {
    /// Frames per second. Frames are chosen by the timestamps of the video.
    pub fps: f64,
    /// Width and height of the frames in pixels.
    pub size: u32,
    /// The part of the picture that is used: `given` (the whole, which must be square), `center` (the largest square) or `detect` (a square
    /// round the face).
    pub crop: Crop,
    /// Distance between the face's box and each side of the crop, as a fraction of the box. Used by `crop: detect`.
    pub margin: f64,
    /// Shifts the crops so that the upper half of the face stays in place: the movement of the head is taken out, that of the mouth stays.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stabilize: bool,
    /// Random changes of the frames, one draw per row.
    pub augment: AugmentOptions,
}

impl Default for Frames {
    /// 25 frames of 512 x 512 pixels per second from the center, without augmentation.
    fn default() -> Self {
        Self {
            fps: 25.0,
            size: 512,
            crop: Crop::Center,
            margin: 0.3,
            stabilize: false,
            augment: AugmentOptions::default(),
        }
    }
}

/// Frames per second in which faces are looked for.
const EXAMINED_PER_SECOND: f64 = 5.0;
/// Largest side of frames, in pixels.
pub const MAX_SIZE: u32 = 2048;

impl Frames {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`VideoError::Config`] with the key of the first wrong value.
    pub fn check(&self) -> Result<(), VideoError> {
        let wrong = |field, value: String, expected| Err(VideoError::Config { field, value, expected });
        if !(self.fps.is_finite() && self.fps > 0.0 && self.fps <= 1000.0) {
            return wrong("fps", self.fps.to_string(), "more than 0 and at most 1000");
        }
        if !(16..=MAX_SIZE).contains(&self.size) {
            return wrong("size", self.size.to_string(), "16 to 2048");
        }
        if !(0.0..=4.0).contains(&self.margin) {
            return wrong("margin", self.margin.to_string(), "0 to 4");
        }
        self.augment.check()
    }

    /// Reads a clip, crops and resizes its frames. The rate of `options` is replaced by that of these settings; augmentation is not applied.
    ///
    /// # Errors
    /// Those of [`clip::read`], [`Fault::NoFace`], and [`Fault::SizeChanges`] for a picture that should be square and is not.
    pub fn read(&self, bytes: &[u8], name: &str, options: &ClipOptions) -> Result<Clip, VideoError> {
        self.check()?;
        let options = ClipOptions { fps: self.fps, ..options.clone() };
        let mut clip = self.read_cropped(bytes, name, &options)?;
        if self.stabilize {
            stabilize(&mut clip.frames);
        }
        Ok(clip)
    }

    fn read_cropped(&self, bytes: &[u8], name: &str, options: &ClipOptions) -> Result<Clip, VideoError> {
        let size = self.size;
        match self.crop {
            Crop::Given => clip::read_mapped(bytes, name, options, |frame| {
                if frame.width != frame.height {
                    let before = format!("{}x{}", frame.width, frame.height);
                    return Err(Fault::NotSquare { size: before });
                }
                Ok(resize(&frame, Region::whole(&frame), size, size))
            }),
            Crop::Center => clip::read_mapped(bytes, name, options, |frame| {
                Ok(resize(&frame, Region::center_square(frame.width, frame.height), size, size))
            }),
            Crop::Detect => self.read_face(bytes, name, options),
        }
    }

    /// Reads a clip twice: faces are found in some of its frames, then all are cropped.
    fn read_face(&self, bytes: &[u8], name: &str, options: &ClipOptions) -> Result<Clip, VideoError> {
        let mut detector = FaceDetector::new()?;
        let step = (self.fps / EXAMINED_PER_SECOND).round().max(1.0) as usize;
        let mut examined: Vec<Examined> = Vec::new();
        let mut count = 0;
        let silent = ClipOptions { sound: SoundPolicy::Ignore, ..options.clone() };
        for frame in clip::frames(bytes, name, &silent)? {
            let frame = frame?;
            if count % step == 0 {
                examined.push((count, detector.faces(&frame)));
            }
            count += 1;
        }
        let (regions, notes) = follow(&examined, count, self.fps, self.margin).map_err(|fault| fault.of(name))?;
        let mut regions = regions.into_iter();
        let mut past_border = false;
        let mut clip = clip::read_mapped(bytes, name, options, |frame| {
            // Both passes give the same frames.
            let region = regions.next().unwrap_or_else(|| Region::center_square(frame.width, frame.height));
            let (right, bottom) = (region.left + region.width, region.top + region.height);
            past_border |= region.left < 0.0 || region.top < 0.0;
            past_border |= right > f64::from(frame.width) || bottom > f64::from(frame.height);
            Ok(resize(&frame, region, self.size, self.size))
        })?;
        clip.notes.extend(notes);
        if past_border {
            clip.notes.push(ClipNote::CropPastBorder);
        }
        Ok(clip)
    }
}
