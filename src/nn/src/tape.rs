//! The differentiation tape: a flat list of operations, walked backwards once.

use crate::gradients::{Flow, Gradients};
use crate::parameters::ParameterId;
use crate::{NnError, Result, Value};
use candle_core::Tensor;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// The backward pass of one operation: takes the gradient of its output, gives those of its inputs.
pub(crate) type Backward = Box<dyn FnOnce(crate::gradients::Gradient, &mut Flow<'_>) -> Result<()>>;

enum Entry {
    Parameter(ParameterId),
    Operation { inputs: Vec<Option<usize>>, backward: Backward },
}

/// Records the operations on values that depend on trainable parameters. Cloning gives another handle on the same list.
///
/// [`backward`](Self::backward) walks the list from the loss to the start, once: an operation and all it kept for its backward
/// pass are freed as soon as it has been passed, gradients of inner values as soon as they have been used, and gradients that
/// arrive at the same place are added in place. Operations on plain values (data, frozen parameters) are never recorded, and
/// a recorded operation skips the gradients of its plain inputs.
#[derive(Clone, Default)]
pub struct Tape {
    entries: Rc<RefCell<Vec<Entry>>>,
}

impl fmt::Debug for Tape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tape({} entries)", self.len())
    }
}

/// The place of a recorded value on its tape.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) tape: Tape,
    pub(crate) index: usize,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of recorded operations and parameters.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether nothing has been recorded (or everything has been walked).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&self, entry: Entry) -> Node {
        let mut entries = self.entries.borrow_mut();
        entries.push(entry);
        Node { tape: self.clone(), index: entries.len() - 1 }
    }

    pub(crate) fn parameter(&self, id: ParameterId) -> Node {
        self.push(Entry::Parameter(id))
    }

    fn is(&self, other: &Tape) -> bool {
        Rc::ptr_eq(&self.entries, &other.entries)
    }

    /// The gradients of a scalar loss with respect to the parameters it depends on. The tape is empty afterwards.
    ///
    /// # Errors
    /// [`NnError::NotRecorded`] when nothing trainable led to the loss; a shape error when it is not a scalar.
    pub fn backward(&self, loss: &Value) -> Result<Gradients> {
        if loss.tensor().elem_count() != 1 {
            return Err(NnError::shape("backward", "a scalar loss", loss.dims()));
        }
        self.backward_from(loss, loss.tensor().ones_like()?)
    }

    /// The gradients of `sum(output * seed)` with respect to the parameters: a backward pass that starts from a given gradient.
    ///
    /// # Errors
    /// As [`backward`](Self::backward), and when the shapes differ.
    pub fn backward_from(&self, output: &Value, seed: Tensor) -> Result<Gradients> {
        let node = output.node().filter(|node| self.is(&node.tape)).ok_or(NnError::NotRecorded)?;
        if output.dims() != seed.dims() {
            return Err(NnError::shape("backward", format!("{:?}", output.dims()), seed.dims()));
        }
        let mut entries = std::mem::take(&mut *self.entries.borrow_mut());
        entries.truncate(node.index + 1);
        let mut slots: Vec<_> = entries.iter().map(|_| None).collect();
        slots[node.index] = Some(crate::gradients::Gradient::fresh(seed));
        let mut gradients = Gradients::default();
        while let Some(entry) = entries.pop() {
            let Some(gradient) = slots.pop().flatten() else {
                continue;
            };
            match entry {
                Entry::Parameter(id) => gradients.insert(id, gradient)?,
                Entry::Operation { inputs, backward } => {
                    backward(gradient, &mut Flow::new(&inputs, &mut slots))?;
                }
            }
        }
        Ok(gradients)
    }
}

/// Makes the value of an operation: plain when all inputs are plain, recorded otherwise. `backward` makes the closure that
/// gives the gradients of the inputs, by position in `inputs`; it is not called (and keeps nothing) for plain inputs.
///
/// This is the only way to record an operation, so an operation that can be recorded has a backward pass.
pub(crate) fn record<B>(output: Tensor, inputs: &[&Value], backward: impl FnOnce() -> B) -> Value
where
    B: FnOnce(crate::gradients::Gradient, &mut Flow<'_>) -> Result<()> + 'static,
{
    let Some(tape) = inputs.iter().find_map(|value| value.tape()) else {
        return Value::new(output, None);
    };
    let indices = inputs.iter().map(|value| value.node().filter(|node| node.tape.is(tape)).map(|node| node.index));
    let entry = Entry::Operation { inputs: indices.collect(), backward: Box::new(backward()) };
    Value::new(output, Some(tape.push(entry)))
}
