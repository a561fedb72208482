//! Dropout with a mask that is a function of a random stream and the position.

use crate::gradients::{Flow, Gradient};
use crate::host;
use crate::kernels::dropout::{GROUP, factors};
use crate::kernels::elementwise::{CHUNK, zip_assign_serial};
use crate::ops::operation::{Operation, apply};
use crate::random::RngKey;
use crate::tape::record;
use crate::{Context, NnError, Result, Value};
use candle_core::Tensor;
use rayon::prelude::*;

/// Multiplies each element by 0 or 1 / (1 - rate).
fn mask(elements: &mut [f32], rate: f32, rng_key: RngKey) {
    const RUN: usize = 4 * GROUP;
    let chunks = elements.par_chunks_mut(CHUNK).enumerate();
    chunks.for_each(|(chunk, elements)| {
        let mut kept = [0.0; RUN];
        for (run, elements) in elements.chunks_mut(RUN).enumerate() {
            let first = (chunk * CHUNK + run * RUN) / GROUP;
            factors(rng_key, first as u64, rate, &mut kept[..elements.len()]);
            zip_assign_serial(elements, &kept, &|x, kept| x * kept);
        }
    });
}

impl Value {
    /// Zeroes each element with probability `rate` and divides the others by `1 - rate`. The mask is not saved: the backward
    /// pass draws it again. Rates are exact to 1 / 65536.
    ///
    /// # Errors
    /// When the rate is not in [0, 1).
    pub fn dropout(&self, rate: f32, rng_key: RngKey) -> Result<Value> {
        if !(0.0..1.0).contains(&rate) {
            return Err(NnError::invalid("dropout", format!("{rate} is not in [0, 1)")));
        }
        if rate == 0.0 {
            return Ok(self.clone());
        }
        apply(Dropout { rate, rng_key }, &[self])
    }
}

struct Dropout {
    rate: f32,
    rng_key: RngKey,
}

impl Dropout {
    /// The dropout factors of all elements of `like`, drawn on the host so that they are the same on every device.
    fn factors(&self, like: &Tensor) -> Result<Tensor> {
        let mut ones = vec![1.0; like.elem_count()];
        mask(&mut ones, self.rate, self.rng_key);
        Ok(Tensor::from_vec(ones, like.dims(), like.device())?.to_dtype(like.dtype())?)
    }
}

impl Operation for Dropout {
    type Saved = ();

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, ())> {
        Ok(((&inputs[0] * self.factors(&inputs[0])?)?, ()))
    }

    fn backward(self, (): (), gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some((gradient * self.factors(gradient)?)?)])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let Self { rate, rng_key } = self;
        let mut elements = host::slice("dropout", inputs[0].tensor())?.to_vec();
        mask(&mut elements, rate, rng_key);
        Ok(record(host::tensor(elements, inputs[0].dims())?, inputs, || {
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                flow.give(0, gradient.map(|gradient| mask(gradient, rate, rng_key))?)
            }
        }))
    }
}

impl Context<'_> {
    /// Applies dropout with the next random stream of this context; does nothing in inference.
    ///
    /// # Errors
    /// When the rate is not in [0, 1).
    pub fn dropout(&self, value: &Value, rate: f32) -> Result<Value> {
        match self.next_rng_key() {
            Some(rng_key) => value.dropout(rate, rng_key),
            None => Ok(value.clone()),
        }
    }

    /// Rate and stream for the dropout on attention weights; `None` in inference or when the rate is 0.
    pub fn attention_dropout(&self, rate: f32) -> Option<(f32, RngKey)> {
        self.next_rng_key().filter(|_| rate > 0.0).map(|rng_key| (rate, rng_key))
    }
}
