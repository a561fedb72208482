//! Layers: groups of parameters with a forward pass. Each is made from a [`Builder`](crate::init::Builder), holds ids only and takes its
//! weights from a [`Context`](crate::Context), so one layer serves training and inference.

mod conv;
mod embedding;
mod linear;
mod norm;
mod position;

pub use conv::{Conv1d, Conv2d, ConvTranspose1d, GroupedConv1d};
pub use embedding::Embedding;
pub use linear::{FeedForward, Linear};
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
pub use position::{
    RotaryAngles, position_encodings, relative_encodings, scaled_timestep_encodings, sinusoidal_time,
    sinusoidal_time_rates, timestep_encodings, timestep_rates,
};
