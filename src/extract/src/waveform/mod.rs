//! Building blocks of convolutional networks over waveforms, as neural codecs have them: convolutions, upsampling, activations, and
//! weight normalization. They run forward only, on any device. A signal is a value `[frame, channel]`.

mod activation;
mod checkpoint;
mod convolution;
mod recording;
mod tiles;
mod upsampling;
mod weight_norm;

pub(crate) use activation::{elu, snake};
pub(crate) use checkpoint::{Checkpoint, Sizes, axis};
pub(crate) use convolution::Convolution;
pub(crate) use recording::recording;
pub(crate) use tiles::in_tiles;
pub(crate) use upsampling::Upsampling;
pub(crate) use weight_norm::fold_weight_norms;

use flowmill_nn::{NnError, Result, Value};

/// The sum of two signals of one shape.
pub(crate) fn sum(a: &Value, b: &Value) -> Result<Value> {
    if a.dims() != b.dims() {
        return Err(NnError::shape("sum", format!("{:?}", a.dims()), b.dims()));
    }
    Value::plain((a.tensor() + b.tensor())?)
}
