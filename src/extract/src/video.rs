//! The video of a row, decoded once.

use std::sync::{Arc, Mutex, PoisonError};

use flowmill_audio::{Audio, Decoder};
use flowmill_nn::random::RngKey;
use flowmill_video::clip::{self, Clip, ClipOptions};
use flowmill_video::crop::Frames;
use flowmill_video::{ClipNote, VideoError};

use crate::{ConfigError, ExtractError};

/// The part of a video that a row is, and how it is decoded.
#[derive(Debug, Clone, Default)]
pub struct VideoPart {
    /// The row's id, by which random changes are drawn.
    pub id: String,
    /// The name of the video, for messages.
    pub name: String,
    /// Start in seconds; `None` is the video's beginning.
    pub start_seconds: Option<f64>,
    /// End in seconds; `None` is the video's end.
    pub end_seconds: Option<f64>,
    /// The decoder of the sound; its fallback is also that of the frames.
    pub decoder: Decoder,
}

impl VideoPart {
    fn options(&self, fps: f64) -> ClipOptions {
        ClipOptions {
            fps,
            start_seconds: self.start_seconds,
            end_seconds: self.end_seconds,
            decoder: self.decoder,
            ..ClipOptions::default()
        }
    }
}

/// A part of a video and its frames, kept for the settings with which they were last asked for.
#[derive(Default)]
pub(crate) struct LazyClip {
    part: VideoPart,
    decoded: Mutex<Option<(Frames, Arc<Clip>)>>,
}

impl LazyClip {
    pub(crate) fn new(part: VideoPart) -> Self {
        Self { part, decoded: Mutex::default() }
    }

    /// The frames by these settings; `bytes` reads the file if they are not decoded yet.
    pub(crate) fn get(
        &self,
        frames: &Frames,
        bytes: impl FnOnce() -> Result<Vec<u8>, ExtractError>,
    ) -> Result<Arc<Clip>, ExtractError> {
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, clip)) = decoded.as_ref().filter(|(by, _)| by == frames) {
            return Ok(Arc::clone(clip));
        }
        let part = &self.part;
        let mut clip = frames.read(&bytes()?, &part.name, &part.options(frames.fps))?;
        for note in
            clip.notes.iter().filter(|note| matches!(note, ClipNote::FaceJumps { .. } | ClipNote::SeveralFaces { .. }))
        {
            tracing::warn!(row = part.id, %note, "video");
        }
        augment(&mut clip, frames, &part.id);
        let clip = Arc::new(clip);
        *decoded = Some((frames.clone(), Arc::clone(&clip)));
        Ok(clip)
    }

    /// The sound in step with the frames at `fps` frames per second.
    pub(crate) fn sound(&self, fps: f64, bytes: &[u8]) -> Result<Option<Audio>, ExtractError> {
        let sound = clip::read_sound(bytes, &self.part.name, &self.part.options(fps))?;
        Ok(sound.map(|(audio, _)| audio))
    }
}

/// Changes the frames of a row by its own draws.
fn augment(clip: &mut Clip, frames: &Frames, id: &str) {
    if frames.augment.is_none() {
        return;
    }
    let row = RngKey::new(frames.augment.seed).purpose("augment").purpose(id);
    let uniforms = [0, 1, 2, 3].map(|position| row.uniform_at(position));
    let change = frames.augment.draw(uniforms);
    for (at, frame) in clip.frames.iter_mut().enumerate() {
        let count = if frames.augment.noise > 0.0 { frame.rgb.len() } else { 0 };
        let mut normals = row.purpose("noise").sample(at as u64).normals(count).into_iter();
        change.apply(frame, || normals.next().unwrap_or_default());
    }
}

impl From<VideoError> for ExtractError {
    fn from(error: VideoError) -> Self {
        if error.is_of_machine() { Self::Machine(error.to_string()) } else { Self::Media(error.to_string()) }
    }
}

impl From<VideoError> for ConfigError {
    /// An error of the settings [`Frames`] as one of the extractor's field `frames`.
    fn from(error: VideoError) -> Self {
        Self::new("frames", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use flowmill_corpus::Role;
    use flowmill_video::augment::AugmentOptions;
    use flowmill_video::crop::Crop;
    use flowmill_video::{Frame, write};

    use super::*;
    use crate::{Media, MediaError};

    /// A row whose video has a ramp that becomes brighter.
    fn media(id: &str) -> Media {
        let frame = |at: u8| Frame {
            width: 64,
            height: 64,
            rgb: (0..64 * 64).flat_map(|pixel| [(pixel % 64 * 3) as u8, at * 4, 100]).collect(),
        };
        let frames: Vec<Frame> = (0..20).map(frame).collect();
        let bytes = write::mp4(&frames, None, &write::WriteOptions::default()).unwrap();
        let files = move |role| match role {
            Role::Video => Ok::<_, MediaError>(vec![bytes.clone()]),
            _ => Ok(Vec::new()),
        };
        Media::default().with_files(files).with_video_part(VideoPart { id: id.to_owned(), ..VideoPart::default() })
    }

    fn settings(augment: AugmentOptions) -> Frames {
        Frames { size: 32, crop: Crop::Given, augment, ..Frames::default() }
    }

    #[test]
    fn a_row_gives_its_frames_once_and_a_part_gives_its_own() {
        let row = media("a");
        let whole = row.video("test", &settings(AugmentOptions::default())).unwrap();
        assert_eq!((whole.frames.len(), whole.frames[0].width), (20, 32));
        assert!(Arc::ptr_eq(&whole, &row.video("test", &settings(AugmentOptions::default())).unwrap()));
        let part = VideoPart { start_seconds: Some(0.2), end_seconds: Some(0.4), ..VideoPart::default() };
        let part = media("a").with_video_part(part).video("test", &settings(AugmentOptions::default())).unwrap();
        assert_eq!(part.frames, whole.frames[5..10]);
        assert_eq!(row.video_sound("test", 25.0).unwrap(), None);
        assert!(matches!(
            Media::default().video("test", &settings(AugmentOptions::default())),
            Err(ExtractError::NoMedia { wanted: Role::Video, .. })
        ));
    }

    #[test]
    fn changes_are_drawn_by_row_and_seed() {
        let changed = |id: &str, seed| {
            let augment = AugmentOptions { flip: 0.5, color_jitter: 0.2, noise: 1.0, seed };
            media(id).video("test", &settings(augment)).unwrap()
        };
        assert_eq!(changed("a", 1).frames, changed("a", 1).frames);
        assert_ne!(changed("a", 1).frames, changed("b", 1).frames);
        assert_ne!(changed("a", 1).frames, changed("a", 2).frames);
        let wrong = settings(AugmentOptions { flip: 2.0, ..AugmentOptions::default() });
        assert!(matches!(media("a").video("test", &wrong), Err(ExtractError::Media(_))));
    }
}
