//! Measures of the similarity of two images.

mod planes;
mod ssim;

pub use planes::{Planes, peak_signal_to_noise};
pub use ssim::{SsimSettings, ssim, ssim_map};
