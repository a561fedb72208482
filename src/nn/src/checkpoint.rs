//! Gradient checkpointing (Chen et al., "Training deep nets with sublinear memory cost", arXiv 1604.06174): a block saves only its inputs
//! and is recomputed in the backward pass.

use crate::context::{Common, Context};
use crate::gradients::{Flow, Gradient};
use crate::parameters::{ParameterId, Parameters};
use crate::precision::Precision;
use crate::random::RngKey;
use crate::tape::{Tape, record};
use crate::value::Value;
use crate::{NnError, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::rc::Rc;

impl Context<'_> {
    /// Computes a block of a network: `block` on this context and `inputs`, in the same order. If this context
    /// [checkpoints](Self::with_checkpoints), nothing computed inside is saved for the backward pass, which recomputes the block from the
    /// same inputs, parameters and random numbers. Output and gradients are the same either way, bit for bit.
    ///
    /// Recorded values must enter through `inputs`; anything that `block` captures (layers, row numbers) is constant to it. A nested
    /// block is not checkpointed again.
    ///
    /// # Errors
    /// Those of the block; [`NnError::Invalid`] when its output depends on a recorded value that is not among the inputs.
    pub fn checkpoint<E: From<NnError> + Display + 'static>(
        &self,
        inputs: &[&Value],
        block: impl Fn(&Context, &[Value]) -> std::result::Result<Value, E> + 'static,
    ) -> std::result::Result<Value, E> {
        let Some((tape, rng_key, calls, common)) = self.checkpointing() else {
            let inputs: Vec<Value> = inputs.iter().map(|value| (*value).clone()).collect();
            return block(self, &inputs);
        };
        let kept = Segment {
            parameters: common.parameters(self.parameters()),
            precision: tape.precision(),
            rng_key,
            first_call: calls.get(),
            inputs: inputs.iter().map(|value| (value.tensor().clone(), value.is_recorded())).collect(),
            common,
        };
        let Recording { output, parameters, calls: after, .. } = kept.compute(&block)?;
        calls.set(after);
        let output = output.tensor().clone();
        let parameters: Vec<ParameterId> = parameters.into_iter().map(|(id, _)| id).collect();
        let leaves: Vec<Value> = parameters.iter().map(|id| self.parameter(*id)).collect();
        let values: Vec<&Value> = inputs.iter().copied().chain(&leaves).collect();
        Ok(record(output, &values, || {
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let again =
                    kept.compute(&block).map_err(|error: E| NnError::invalid("checkpoint", error.to_string()))?;
                again.backward(gradient, &parameters, kept.inputs.len(), flow)
            }
        }))
    }
}

/// Everything that a block's computation depends on.
struct Segment {
    parameters: Rc<Parameters>,
    precision: Precision,
    rng_key: RngKey,
    first_call: u64,
    /// The inputs, and whether a gradient flows into them.
    inputs: Vec<(Tensor, bool)>,
    common: Rc<Common>,
}

/// A block that was computed on a tape of its own.
struct Recording {
    tape: Tape,
    output: Value,
    /// Index into the inputs and place on the tape of each input that a gradient flows into.
    inputs: Vec<(usize, usize)>,
    /// The recorded parameters and their places.
    parameters: Vec<(ParameterId, usize)>,
    /// The number of the next random call.
    calls: u64,
}

impl Segment {
    fn compute<E: From<NnError>>(
        &self,
        block: &impl Fn(&Context, &[Value]) -> std::result::Result<Value, E>,
    ) -> std::result::Result<Recording, E> {
        let tape = Tape::with_precision(self.precision);
        let context = Context::recording(&self.parameters, &tape, self.rng_key, self.first_call, self.common.clone());
        let mut values = Vec::with_capacity(self.inputs.len());
        let mut inputs = Vec::new();
        for (number, (tensor, recorded)) in self.inputs.iter().enumerate() {
            let node = recorded.then(|| tape.outer());
            inputs.extend(node.iter().map(|node| (number, node.index)));
            values.push(Value::new(tensor.clone(), node));
        }
        let output = block(&context, &values)?;
        if output.tape().is_some_and(|of| !of.is(&tape)) {
            let message = "the block uses a recorded value that is not among its inputs";
            return Err(NnError::invalid("checkpoint", message).into());
        }
        let (parameters, calls) = (context.recorded_parameters(), context.calls());
        Ok(Recording { tape, output, inputs, parameters, calls })
    }
}

impl Recording {
    /// Returns the gradients of the block's inputs, followed by those of its parameters in the order of `parameters`.
    fn backward(
        self,
        gradient: Gradient,
        parameters: &[ParameterId],
        inputs: usize,
        flow: &mut Flow<'_>,
    ) -> Result<()> {
        if !self.output.is_recorded() {
            return Ok(());
        }
        let number = |id: &ParameterId| parameters.binary_search(id).ok().map(|position| inputs + position);
        let of_parameters = self.parameters.iter().filter_map(|(id, place)| Some((*place, number(id)?)));
        let of_inputs = self.inputs.iter().map(|(number, place)| (*place, *number));
        let leaves: BTreeMap<usize, usize> = of_inputs.chain(of_parameters).collect();
        self.tape.backward_into(&self.output, gradient, &leaves, flow)
    }
}
