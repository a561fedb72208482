//! Images: decoding by content, resizing and cropping like the transforms of torchvision, encoding, and measures of similarity.
//!
//! Every decoded image is a [`Raster`]: 8 bits per channel, red, green and blue, upright, opaque (on white). Nothing in a file is trusted:
//! sizes are checked before anything is allocated, and a broken file is an [`ImageError`] that says what is wrong.

mod decode;
mod encode;
mod error;
pub mod measure;
mod raster;
mod resize;

pub use decode::{Limits, decode, read};
pub use encode::{to_jpeg, to_png};
pub use error::ImageError;
pub use raster::Raster;
pub use resize::Filter;

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, ImageError>;
