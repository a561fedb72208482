//! What a layer needs besides its input: the parameters' values, and whether to record.

use crate::parameters::{ParameterId, Parameters};
use crate::random::Draw;
use crate::tape::Tape;
use crate::value::Value;
use std::cell::{Cell, RefCell};

/// Gives layers their parameters. In training, trainable parameters are recorded values and dropout is active; in inference
/// everything is plain.
#[derive(Debug)]
pub struct Context<'a> {
    parameters: &'a Parameters,
    training: Option<Training>,
}

#[derive(Debug)]
struct Training {
    tape: Tape,
    leaves: RefCell<Vec<Option<Value>>>,
    draw: Draw,
    calls: Cell<u64>,
}

impl<'a> Context<'a> {
    /// A context that computes without recording.
    pub fn inference(parameters: &'a Parameters) -> Self {
        Self { parameters, training: None }
    }

    /// A context that records on `tape` and draws dropout masks from `draw` (keyed by the step).
    pub fn training(parameters: &'a Parameters, tape: &Tape, draw: Draw) -> Self {
        let leaves = RefCell::new(vec![None; parameters.len()]);
        let training = Training { tape: tape.clone(), leaves, draw, calls: Cell::new(0) };
        Self { parameters, training: Some(training) }
    }

    /// Whether dropout and the like are active.
    pub fn is_training(&self) -> bool {
        self.training.is_some()
    }

    /// The parameters themselves.
    pub fn parameters(&self) -> &'a Parameters {
        self.parameters
    }

    /// The value of a parameter: recorded when this context records and the parameter is trainable.
    pub fn parameter(&self, id: ParameterId) -> Value {
        let tensor = || self.parameters.tensor(id).clone();
        let Some(training) = self.training.as_ref().filter(|_| self.parameters.trainable(id)) else {
            return Value::new(tensor(), None);
        };
        let leaf = &mut training.leaves.borrow_mut()[id.index()];
        leaf.get_or_insert_with(|| Value::new(tensor(), Some(training.tape.parameter(id)))).clone()
    }

    /// The random stream of the next operation that needs one; `None` in inference. Calls are counted, so the same
    /// computation draws the same numbers.
    pub(crate) fn next_draw(&self) -> Option<Draw> {
        let training = self.training.as_ref()?;
        let call = training.calls.get();
        training.calls.set(call + 1);
        Some(training.draw.sample(call))
    }
}
