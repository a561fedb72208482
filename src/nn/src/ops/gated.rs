//! Gated activations (GLU variants; Shazeer, arXiv 2002.05202).

use crate::gradients::{Flow, Gradient};
use crate::host::uninitialized;
use crate::kernels::activation::Activation;
use crate::kernels::elementwise::{CHUNK, zip_assign_serial};
use crate::ops::operation::{Operation, apply};
use crate::tape::record;
use crate::{NnError, Result, Value, host};
use candle_core::Tensor;
use rayon::prelude::*;
use std::rc::Rc;

impl Value {
    /// `f(self) * up`, element by element: `self` passes through the activation and gates `up`. Same shape.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn gated(&self, up: &Value, activation: Activation) -> Result<Value> {
        if self.dims() != up.dims() {
            return Err(NnError::shape("gated activation", format!("two values of {:?}", self.dims()), up.dims()));
        }
        apply(Gated { activation }, &[self, up])
    }
}

/// The product of the activated gate and the other input.
struct Gated {
    activation: Activation,
}

impl Operation for Gated {
    type Saved = [Tensor; 2];

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, [Tensor; 2])> {
        let output = (self.activation.composed(&inputs[0])? * &inputs[1])?;
        Ok((output, [inputs[0].clone(), inputs[1].clone()]))
    }

    fn backward(self, [gate, up]: [Tensor; 2], gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let of_gate = || self.activation.composed_slope(&(gradient * &up)?, &gate);
        let of_up = || -> Result<Tensor> { Ok((gradient * self.activation.composed(&gate)?)?) };
        Ok(vec![needs[0].then(of_gate).transpose()?, needs[1].then(of_up).transpose()?])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let fused = Rc::new(Fused {
            gate: inputs[0].tensor().clone(),
            up: inputs[1].tensor().clone(),
            activation: self.activation,
        });
        let recorded = record(fused.forward()?, inputs, || {
            let fused = fused.clone();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let (of_gate, of_up) = fused.backward(gradient.tensor())?;
                drop(gradient);
                flow.give_vec(0, of_gate, fused.gate.dims())?;
                flow.give_vec(1, of_up, fused.up.dims())
            }
        });
        Ok(recorded.recomputed_by(move || fused.forward()))
    }
}

/// The inputs of the fused kernel, from which the output is recomputed.
struct Fused {
    gate: Tensor,
    up: Tensor,
    activation: Activation,
}

impl Fused {
    fn forward(&self) -> Result<Tensor> {
        let (gate, up) = (host::slice("gated activation", &self.gate)?, host::slice("gated activation", &self.up)?);
        // SAFETY: all three are cut into the same chunks, and every element of a chunk is written.
        let mut out = unsafe { uninitialized(gate.len()) };
        let tasks = out.par_chunks_mut(CHUNK).zip(gate.par_chunks(CHUNK)).zip(up.par_chunks(CHUNK));
        tasks.for_each(|((out, gate), up)| {
            self.activation.write(out, gate);
            zip_assign_serial(out, up, &|gate, up| gate * up);
        });
        host::tensor(out, self.gate.dims())
    }

    /// The gradients of gate and other input.
    fn backward(&self, gradient: &Tensor) -> Result<(Vec<f32>, Vec<f32>)> {
        let (gate, up) = (host::slice("gated activation", &self.gate)?, host::slice("gated activation", &self.up)?);
        let dy = host::slice("gated activation", gradient)?;
        // SAFETY: all are cut into the same chunks, and every element of a chunk is written.
        let (mut of_gate, mut of_up) = unsafe { (uninitialized(gate.len()), uninitialized(gate.len())) };
        let outputs = of_gate.par_chunks_mut(CHUNK).zip(of_up.par_chunks_mut(CHUNK));
        let inputs = gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK)).zip(dy.par_chunks(CHUNK));
        outputs.zip(inputs).for_each(|((of_gate, of_up), ((gate, up), dy))| {
            of_gate.copy_from_slice(dy);
            zip_assign_serial(of_gate, up, &|dy, up| dy * up);
            self.activation.multiply_slope(of_gate, gate);
            self.activation.write(of_up, gate);
            zip_assign_serial(of_up, dy, &|gate, dy| gate * dy);
        });
        Ok((of_gate, of_up))
    }
}
