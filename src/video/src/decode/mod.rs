//! Decoders of frames: H.264 in process, everything else by the `ffmpeg` program.

mod color;
mod h264;
mod parameters;
mod program;

pub(crate) use color::to_rgb;
pub(crate) use h264::H264;
pub(crate) use program::Program;
