//! Context of a forward pass: the values of the parameters, and whether operations are recorded.

use crate::Result;
use crate::parameters::{ParameterId, Parameters};
use crate::precision::Precision;
use crate::random::RngKey;
use crate::stored::{self, Stored};
use crate::tape::Tape;
use crate::value::Value;
use candle_core::Tensor;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

/// A context that gives layers their parameters. In training, trainable parameters are recorded values and dropout is active; in
/// inference all values are plain.
#[derive(Debug)]
pub struct Context<'a> {
    parameters: &'a Parameters,
    training: Option<Training>,
}

#[derive(Debug)]
struct Training {
    tape: Tape,
    leaves: RefCell<Vec<Option<Value>>>,
    rng_key: RngKey,
    calls: Cell<u64>,
    checkpoints: bool,
    common: Rc<Common>,
}

/// State that the contexts of checkpointed blocks share with the enclosing context.
#[derive(Debug, Default)]
pub(crate) struct Common {
    /// The parameters, for computations after the borrow of them has ended.
    parameters: OnceCell<Rc<Parameters>>,
    /// Weights in the number format of the tape, by position; each is filled at its first use.
    rounded: RefCell<Vec<Option<Tensor>>>,
}

impl<'a> Context<'a> {
    /// A context that computes without recording.
    pub fn inference(parameters: &'a Parameters) -> Self {
        Self { parameters, training: None }
    }

    /// A context that records on `tape`, in its number format, and draws dropout masks from `draw` (keyed by the step).
    pub fn training(parameters: &'a Parameters, tape: &Tape, rng_key: RngKey) -> Self {
        Self::recording(parameters, tape, rng_key, 0, Rc::default())
    }

    /// A context whose random streams are those from number `calls` on.
    pub(crate) fn recording(
        parameters: &'a Parameters,
        tape: &Tape,
        rng_key: RngKey,
        calls: u64,
        common: Rc<Common>,
    ) -> Self {
        let leaves = RefCell::new(vec![None; parameters.len()]);
        let training =
            Training { tape: tape.clone(), leaves, rng_key, calls: Cell::new(calls), checkpoints: false, common };
        Self { parameters, training: Some(training) }
    }

    /// Sets whether blocks save only their inputs for the backward pass and are recomputed there; see
    /// [`checkpoint`](Self::checkpoint). Off by default.
    #[must_use]
    pub fn with_checkpoints(mut self, checkpoints: bool) -> Self {
        if let Some(training) = &mut self.training {
            training.checkpoints = checkpoints;
        }
        self
    }

    /// Returns whether dropout and similar operations are active.
    pub fn is_training(&self) -> bool {
        self.training.is_some()
    }

    /// The parameters themselves.
    pub fn parameters(&self) -> &'a Parameters {
        self.parameters
    }

    /// The value of a parameter: recorded when this context records and the parameter is trainable.
    ///
    /// # Panics
    /// When it has not been loaded ([`Parameters::first_unfilled`]): a bug in the caller.
    pub fn parameter(&self, id: ParameterId) -> Value {
        if let Some(weight) = self.parameters.mapped(id) {
            let stored = Stored::new(weight.clone(), self.precision().of_shape(weight.shape()));
            return Value::in_file(stored).expect("a tensor of one element is not refused");
        }
        let Some(training) = &self.training else {
            return Value::new(self.parameters.tensor(id).clone(), None);
        };
        let leaf = &mut training.leaves.borrow_mut()[id.index()];
        let make = || {
            let node = self.parameters.trainable(id).then(|| training.tape.parameter(id));
            Value::new(training.common.rounded(self.parameters, id, training.tape.precision()), node)
        };
        leaf.get_or_insert_with(make).clone()
    }

    /// The rows of a parameter `[entry, channel]` at `indices`, shaped `[.. of shape, channel]`. Of one that stays in its file only these
    /// rows are read.
    ///
    /// # Errors
    /// When an index is outside of the table, or the number of indices does not match `shape`.
    pub(crate) fn embed(&self, id: ParameterId, indices: &[u32], shape: &[usize]) -> Result<Value> {
        let Some(weight) = self.parameters.mapped(id) else { return self.parameter(id).embed(indices, shape) };
        let rows = Value::new(stored::read_rows(weight, indices, self.precision())?, None);
        rows.reshape(&[shape, &[rows.width()]].concat())
    }

    /// The number format of weights.
    fn precision(&self) -> Precision {
        self.training.as_ref().map_or(Precision::Fp32, |training| training.tape.precision())
    }

    /// Returns the random stream of the next operation that needs one; `None` in inference. Calls are counted, so the same
    /// computation draws the same numbers.
    pub(crate) fn next_rng_key(&self) -> Option<RngKey> {
        let training = self.training.as_ref()?;
        let call = training.calls.get();
        training.calls.set(call + 1);
        Some(training.rng_key.sample(call))
    }

    /// The number of the next random call.
    pub(crate) fn calls(&self) -> u64 {
        self.training.as_ref().map_or(0, |training| training.calls.get())
    }

    /// Returns what recomputing a block needs: tape, stream, number of the next random call, and shared state. `None` unless
    /// blocks are checkpointed.
    pub(crate) fn checkpointing(&self) -> Option<(&Tape, RngKey, &Cell<u64>, Rc<Common>)> {
        let training = self.training.as_ref().filter(|training| training.checkpoints)?;
        Some((&training.tape, training.rng_key, &training.calls, training.common.clone()))
    }

    /// The recorded parameters so far, and their places on the tape.
    pub(crate) fn recorded_parameters(&self) -> Vec<(ParameterId, usize)> {
        let Some(training) = &self.training else { return Vec::new() };
        let leaves = training.leaves.borrow();
        let node = |leaf: &Option<Value>| Some(leaf.as_ref()?.node()?.index);
        self.parameters.ids().zip(leaves.iter()).filter_map(|(id, leaf)| Some((id, node(leaf)?))).collect()
    }
}

impl Common {
    /// Returns the parameters, copied at the first call (the copy shares the tensors).
    pub(crate) fn parameters(&self, parameters: &Parameters) -> Rc<Parameters> {
        self.parameters.get_or_init(|| Rc::new(parameters.clone())).clone()
    }

    fn rounded(&self, parameters: &Parameters, id: ParameterId, precision: Precision) -> Tensor {
        let tensor = parameters.tensor(id);
        let precision = precision.of_shape(tensor.dims());
        if precision == Precision::Fp32 {
            return tensor.clone();
        }
        let mut all = self.rounded.borrow_mut();
        all.resize(parameters.len(), None);
        // Parameters are contiguous f32 tensors, the kind that can be rounded.
        let round = || precision.rounded(tensor).expect("a parameter is a contiguous f32 tensor");
        all[id.index()].get_or_insert_with(round).clone()
    }
}
