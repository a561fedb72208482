//! Video processing: containers, decoding at a constant frame rate in step with the sound, faces, crops, augmentation and writing.
//!
//! MP4, MOV and Matroska files with H.264 are decoded in process. Other formats go to the `ffmpeg` program, if that is allowed and
//! installed. This crate handles frames and times and does not depend on corpora, recipes, stages or networks: the same input gives the
//! same bytes.
//!
//! ```no_run
//! use flowmill_video::clip::{self, ClipOptions};
//! let clip = clip::read("talk.mp4", &ClipOptions::default())?;
//! println!("{} frames of {} per second", clip.frames.len(), clip.fps);
//! # Ok::<(), flowmill_video::VideoError>(())
//! ```

mod container;
mod decode;
mod error;
mod note;
mod sound;

pub mod augment;
pub mod clip;
pub mod crop;
pub mod faces;
pub mod info;
pub mod resize;
pub mod stabilize;
pub mod write;

pub use clip::{Clip, ClipOptions, Frame};
pub use error::{Fault, VideoError};
pub use note::ClipNote;
