//! Building blocks of convolutional networks over waveforms, as neural codecs and vocoders have them: convolutions, upsampling, activations, and
//! weight normalization. They run forward only, on any device. A signal is a value `[frame, channel]`.

mod activation;
mod checkpoint;
mod convolution;
mod depthwise;
mod recording;
mod tiles;
mod upsampling;
mod weight_norm;

pub use activation::{elu, leaky_relu, snake};
pub(crate) use checkpoint::{Checkpoint, Sizes, axis};
pub use convolution::{Convolution, reflected};
pub use depthwise::Depthwise;
pub(crate) use recording::recording;
pub use tiles::in_tiles;
pub use upsampling::Upsampling;
pub use weight_norm::fold_weight_norms;

use flowmill_nn::{NnError, Result, Value};

/// Returns the sum of two signals of one shape.
///
/// # Errors
/// When the shapes differ.
pub fn sum(a: &Value, b: &Value) -> Result<Value> {
    if a.dims() != b.dims() {
        return Err(NnError::shape("sum", format!("{:?}", a.dims()), b.dims()));
    }
    Value::plain((a.tensor() + b.tensor())?)
}
