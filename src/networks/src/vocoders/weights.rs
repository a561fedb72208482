//! The tensors of a vocoder on their way into its layers.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use flowmill_extract::UnusableWeights;
use flowmill_extract::waveform::{Convolution, fold_weight_norms};
use flowmill_nn::inference::Linear;
use flowmill_nn::ops::Convolution as Settings;
use flowmill_nn::{NnError, host};

/// The result of loading.
pub(super) type Loaded<T> = std::result::Result<T, UnusableWeights>;

/// The prefix of the vocoder's tensors in a checkpoint that contains discriminators too.
const GENERATOR: &str = "generator.";

/// The largest dilation that is believed; it bounds the zeros around a signal.
const LARGEST_DILATION: usize = 1 << 12;

/// Tensors by name, without weight norms. Each is taken once, with the shape that the network needs.
pub(super) struct Tensors<'a> {
    tensors: BTreeMap<String, Tensor>,
    device: &'a Device,
}

impl<'a> Tensors<'a> {
    /// Takes over a state dict. Of a checkpoint with discriminators, only the generator is used.
    pub(super) fn new(tensors: BTreeMap<String, Tensor>, device: &'a Device) -> Loaded<Self> {
        let mut tensors = if tensors.keys().any(|name| name.starts_with(GENERATOR)) {
            let own = |(name, tensor): (String, Tensor)| Some((name.strip_prefix(GENERATOR)?.to_owned(), tensor));
            tensors.into_iter().filter_map(own).collect()
        } else {
            tensors
        };
        fold_weight_norms(&mut tensors)?;
        Ok(Self { tensors, device })
    }

    /// Returns the device of the network.
    pub(super) fn device(&self) -> &'a Device {
        self.device
    }

    /// Returns whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Returns the size of an axis of a tensor; 0 if there is none.
    pub(super) fn axis(&self, name: &str, axis: usize) -> usize {
        self.tensors.get(name).and_then(|tensor| tensor.dims().get(axis).copied()).unwrap_or(0)
    }

    /// Returns the number of modules in a list: `NAME.0` and so on.
    pub(super) fn count(&self, list: &str) -> usize {
        let exists = |index: &usize| {
            let prefix = format!("{list}.{index}.");
            self.tensors.range(prefix.clone()..).next().is_some_and(|(name, _)| name.starts_with(&prefix))
        };
        (0..).take_while(exists).count()
    }

    /// Returns a size that must not be 0.
    pub(super) fn needed_axis(&self, name: &str, axis: usize) -> Loaded<usize> {
        match self.axis(name, axis) {
            0 => Err(missing(name)),
            size => Ok(size),
        }
    }

    /// Takes a tensor of this shape, and moves it to the device.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Loaded<Tensor> {
        let tensor = self.tensors.remove(name).ok_or_else(|| missing(name))?;
        if tensor.dims() != shape {
            let found = tensor.dims();
            return Err(UnusableWeights(format!("`{name}` has the shape {found:?}, expected {shape:?}")));
        }
        Ok(tensor.to_device(self.device).map_err(NnError::from)?)
    }

    /// Takes the elements of a tensor of this shape.
    pub(super) fn elements(&mut self, name: &str, shape: &[usize]) -> Loaded<Vec<f32>> {
        Ok(host::read(&self.take(name, shape)?)?)
    }

    /// Takes the convolution of `NAME.weight` and `NAME.bias`, with a weight `[output, input, tap]`.
    pub(super) fn convolution(&mut self, name: &str, shape: [usize; 3], settings: Settings) -> Loaded<Convolution> {
        let weight = self.take(&format!("{name}.weight"), &shape)?;
        let bias = self.take(&format!("{name}.bias"), &shape[..1])?;
        Ok(Convolution::new(&weight, &bias, settings, self.device)?)
    }

    /// Takes a convolution like [`convolution`](Self::convolution) that keeps the number of frames, and returns the frames that a frame of
    /// its result sees to either side; with `padded`, zeros are put around the signal.
    pub(super) fn centered(
        &mut self,
        name: &str,
        shape: [usize; 3],
        dilation: usize,
        padded: bool,
    ) -> Loaded<(Convolution, usize)> {
        let taps = shape[2];
        if taps.is_multiple_of(2) || !(1..=LARGEST_DILATION).contains(&dilation) {
            let reason =
                format!("`{name}` has {taps} taps at a distance of {dilation}, expected an odd number of taps");
            return Err(UnusableWeights(reason));
        }
        let reach = (taps - 1) / 2 * dilation;
        let padding = if padded { [reach, reach] } else { [0, 0] };
        let settings = Settings { dilation, padding, ..Settings::default() };
        Ok((self.convolution(name, shape, settings)?, reach))
    }

    /// Takes the linear layer of `NAME.weight` and `NAME.bias`, with a weight `[output, input]`.
    pub(super) fn linear(&mut self, name: &str, shape: [usize; 2]) -> Loaded<Linear> {
        let weight = self.take(&format!("{name}.weight"), &shape)?;
        let bias = self.take(&format!("{name}.bias"), &shape[..1])?;
        Ok(Linear::new(&weight, Some(&bias))?)
    }

    /// Drops the tensors whose names begin like this, which the network does not need.
    pub(super) fn drop_prefix(&mut self, prefix: &str) {
        self.tensors.retain(|name, _| !name.starts_with(prefix));
    }

    /// Checks that every tensor was taken.
    pub(super) fn finish(self) -> Loaded<()> {
        match self.tensors.keys().next() {
            Some(first) => {
                let count = self.tensors.len();
                let reason = format!("{count} tensors belong to no part of the network, the first is `{first}`");
                Err(UnusableWeights(reason))
            }
            None => Ok(()),
        }
    }
}

fn missing(name: &str) -> UnusableWeights {
    UnusableWeights(format!("there is no tensor `{name}`"))
}
