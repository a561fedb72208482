//! Convolution over time with constant weights, channels innermost.

use candle_core::Tensor;

use super::packed::{Packed, Rows};
use crate::kernels::convolution::{Geometry, pad, taps_outermost};
use crate::ops::Convolution;
use crate::{Activation, NnError, Precision, Ragged, Result, Value, device, host};

/// A convolution whose weights do not change: a [`Linear`](super::Linear) on overlapping windows, which are read in place.
pub struct Convolution1d {
    weights: Weights,
    geometry: Geometry,
}

enum Weights {
    /// For the CPU kernel.
    Packed(Packed),
    /// For the operation of the tape, on any device: weight and bias.
    Plain(Tensor, Tensor),
}

impl Convolution1d {
    /// Creates a convolution from the weight `[output, input, tap]` and the bias `[output]`.
    ///
    /// # Errors
    /// When the shapes do not fit, or the dilation is not 1.
    pub fn new(weight: &Tensor, bias: &Tensor, settings: Convolution) -> Result<Self> {
        let &[outputs, inputs, kernel] = weight.dims() else {
            return Err(NnError::shape("convolution weight", "[output, input, tap]", weight.dims()));
        };
        if bias.dims() != [outputs] {
            return Err(NnError::shape("convolution bias", format!("[{outputs}]"), bias.dims()));
        }
        let Convolution { stride, dilation, padding } = settings;
        if stride == 0 || dilation != 1 || kernel == 0 || inputs == 0 {
            let message = "kernel, stride and channels must be at least 1, the dilation 1";
            return Err(NnError::invalid("convolution", message));
        }
        let geometry = Geometry { inputs, outputs, kernel, stride, dilation, padding, precision: Precision::Fp32 };
        let (weight, bias) = (host::contiguous(weight)?, host::contiguous(bias)?);
        if !device::is_fused(&weight) {
            return Ok(Self { weights: Weights::Plain(weight, bias), geometry });
        }
        let taps = taps_outermost(&host::slice("convolution", &weight)?, &geometry);
        let packed = Packed::new(&taps, Some(&host::slice("convolution", &bias)?), [outputs, kernel * inputs]);
        Ok(Self { weights: Weights::Packed(packed), geometry })
    }

    /// Convolves each item of a padded `[item, time, input]` or packed `[row, input]` batch; the result has the same layout with fewer
    /// rows. In a padded item, rows that are not in `valid` count as zeros.
    ///
    /// # Errors
    /// When the shape does not fit or an item is shorter than the kernel.
    pub fn forward(&self, input: &Value, valid: &Ragged, activation: Activation) -> Result<Value> {
        let Geometry { inputs, outputs, stride, padding, .. } = self.geometry;
        let (whole, axes) = match *input.dims() {
            [items, time, channels] if channels == inputs && valid.len() == items && valid.total() == items * time => {
                (vec![time; items], 3)
            }
            [rows, channels] if channels == inputs && valid.total() == rows && valid.is_packed() => {
                (valid.lengths(), 2)
            }
            _ => return Err(NnError::shape("convolution", format!("[item, time, {inputs}]"), input.dims())),
        };
        let lengths: Vec<usize> = whole.iter().map(|length| self.geometry.output_length(*length)).collect();
        if let Some(item) = lengths.iter().position(|length| *length == 0) {
            let message = format!("an item of {} frames is shorter than {} taps", whole[item], self.geometry.kernel);
            return Err(NnError::invalid("convolution", message));
        }
        let packed = match &self.weights {
            Weights::Packed(packed) => packed,
            Weights::Plain(weight, bias) => {
                let (weight, bias) = (Value::new(weight.clone(), None), Value::new(bias.clone(), None));
                let Geometry { dilation, .. } = self.geometry;
                let settings = Convolution { stride, dilation, padding };
                let output = match axes {
                    3 => input.conv1d(&weight, Some(&bias), settings, Some(&valid.lengths()))?,
                    _ => input.conv1d_packed(&weight, Some(&bias), settings, valid)?,
                };
                return output.activate(activation);
            }
        };
        let padded = pad(&host::slice("convolution", input.tensor())?, inputs, valid, &whole, padding);
        let mut out = vec![0.0; lengths.iter().sum::<usize>() * outputs];
        let mut rest = out.as_mut_slice();
        for (start, count) in padded.starts.iter().zip(&lengths) {
            let (item, later) = rest.split_at_mut(count * outputs);
            let rows = Rows { data: &padded.data[start * inputs..], count: *count, stride: stride * inputs };
            packed.apply(rows, None, activation, item);
            rest = later;
        }
        match (axes, lengths.first()) {
            (3, Some(time)) => Value::from_vec(out, &[lengths.len(), *time, outputs]),
            _ => Value::from_vec(out, &[lengths.iter().sum(), outputs]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::RngKey;

    fn value(name: &str, shape: &[usize]) -> Value {
        Value::from_vec(RngKey::new(8).purpose(name).normals(shape.iter().product()), shape).unwrap()
    }

    fn agree(found: Value, expected: Value) {
        assert_eq!(found.dims(), expected.dims());
        let [found, expected] = [&found, &expected].map(|value| host::slice("test", value.tensor()).unwrap().to_vec());
        found.iter().zip(&expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} {b}"));
    }

    #[test]
    fn it_is_the_layer_that_is_trained() {
        let (weight, bias) = (value("weight", &[70, 5, 3]), value("bias", &[70]));
        let settings = Convolution { stride: 2, padding: [1, 1], ..Convolution::default() };
        let layer = Convolution1d::new(weight.tensor(), bias.tensor(), settings).unwrap();
        let items = Ragged::packed(&[7, 1, 40]);
        let packed = value("packed", &[48, 5]);
        let expected = packed.conv1d_packed(&weight, Some(&bias), settings, &items).unwrap();
        agree(layer.forward(&packed, &items, Activation::Relu).unwrap(), expected.activate(Activation::Relu).unwrap());
        let padded = value("padded", &[2, 9, 5]);
        let valid = Ragged::padded(&[9, 4], 9).unwrap();
        let expected = padded.conv1d(&weight, Some(&bias), settings, Some(&[9, 4])).unwrap();
        agree(layer.forward(&padded, &valid, Activation::Identity).unwrap(), expected);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let (weight, bias) = (value("weight", &[2, 5, 3]), value("bias", &[2]));
        let dilated = Convolution { dilation: 2, ..Convolution::default() };
        assert!(Convolution1d::new(weight.tensor(), bias.tensor(), dilated).is_err());
        assert!(Convolution1d::new(weight.tensor(), value("bias", &[3]).tensor(), Convolution::default()).is_err());
        let layer = Convolution1d::new(weight.tensor(), bias.tensor(), Convolution::default()).unwrap();
        let forward = |shape: &[usize], items: &[usize]| {
            layer.forward(&value("input", shape), &Ragged::packed(items), Activation::Identity)
        };
        assert_eq!(forward(&[4, 5], &[4]).unwrap().dims(), [2, 2]);
        assert!(forward(&[4, 5], &[2, 2]).unwrap_err().to_string().contains("2 frames"));
        assert!(forward(&[4, 5], &[3]).is_err());
        assert!(forward(&[4, 4], &[4]).is_err());
    }
}
