//! The differentiation tape: a flat list of operations, walked backward once.

use crate::gradients::{Flow, Gradient, Gradients};
use crate::parameters::ParameterId;
use crate::{NnError, Precision, Result, Value, device, host};
use candle_core::Tensor;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// The backward pass of one operation: takes the gradient of its output and adds the gradients of its inputs.
pub(crate) type Backward = Box<dyn FnOnce(Gradient, &mut Flow<'_>) -> Result<()>>;

enum Entry {
    Leaf(Leaf),
    Operation {
        inputs: Vec<Option<usize>>,
        backward: Backward,
        /// The format that the gradient of the output is rounded to.
        precision: Precision,
    },
}

/// A recorded value that was not computed by an operation of this tape.
#[derive(Debug, Clone, Copy)]
enum Leaf {
    Parameter(ParameterId),
    /// A value of another tape, whose operation contains this tape.
    Outer,
}

/// A tape that records operations on values that depend on trainable parameters. A clone is another handle on the same list.
///
/// [`backward`](Self::backward) walks the list from the loss to the start, once. An operation and its saved state are freed as soon as
/// the walk has passed it, gradients of inner values as soon as they have been used, and gradients that arrive at the same value are
/// added in place. Operations on plain values (data, frozen parameters) are never recorded, and a recorded operation skips the gradients
/// of its plain inputs.
#[derive(Clone, Default)]
pub struct Tape {
    entries: Rc<RefCell<Vec<Entry>>>,
    precision: Rc<Cell<Precision>>,
}

impl fmt::Debug for Tape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tape({} entries)", self.len())
    }
}

/// Position of a recorded value on its tape.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) tape: Tape,
    pub(crate) index: usize,
}

impl Tape {
    /// Creates an empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty tape that rounds recorded values to a number format.
    pub fn with_precision(precision: Precision) -> Self {
        Self { precision: Rc::new(Cell::new(precision)), ..Self::default() }
    }

    /// The number format of recorded values.
    pub fn precision(&self) -> Precision {
        self.precision.get()
    }

    /// Number of recorded operations and parameters.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Returns whether nothing has been recorded (or everything has been walked).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&self, entry: Entry) -> Node {
        let mut entries = self.entries.borrow_mut();
        entries.push(entry);
        Node { tape: self.clone(), index: entries.len() - 1 }
    }

    pub(crate) fn parameter(&self, id: ParameterId) -> Node {
        self.push(Entry::Leaf(Leaf::Parameter(id)))
    }

    /// Adds a leaf for a value of another tape.
    pub(crate) fn outer(&self) -> Node {
        self.push(Entry::Leaf(Leaf::Outer))
    }

    pub(crate) fn is(&self, other: &Tape) -> bool {
        Rc::ptr_eq(&self.entries, &other.entries)
    }

    /// Returns the gradients of a scalar loss with respect to the parameters it depends on. The tape is empty afterwards.
    ///
    /// # Errors
    /// [`NnError::NotRecorded`] when the loss does not depend on anything trainable; a shape error when it is not a scalar.
    pub fn backward(&self, loss: &Value) -> Result<Gradients> {
        if loss.tensor().elem_count() != 1 {
            return Err(NnError::shape("backward", "a scalar loss", loss.dims()));
        }
        self.backward_from(loss, loss.tensor().ones_like()?)
    }

    /// Returns the gradients of `sum(output * seed)` with respect to the parameters: a backward pass from a given gradient.
    ///
    /// # Errors
    /// Those of [`backward`](Self::backward); also when the shapes differ.
    pub fn backward_from(&self, output: &Value, seed: Tensor) -> Result<Gradients> {
        let mut gradients = Gradients::default();
        self.backward_onto(output, seed, &mut gradients, &mut |_, _| Ok(()))?;
        Ok(gradients)
    }

    /// Adds the gradients of [`backward_from`](Self::backward_from) to `sums`. Calls `arrived` for each parameter as soon as its sum is
    /// complete, in the order of the backward pass, which differs from batch to batch if these use different parameters.
    ///
    /// # Errors
    /// Those of [`backward_from`](Self::backward_from), and of `arrived`.
    pub fn backward_onto(
        &self,
        output: &Value,
        seed: Tensor,
        sums: &mut Gradients,
        arrived: &mut dyn FnMut(ParameterId, &Gradients) -> Result<()>,
    ) -> Result<()> {
        if output.dims() != seed.dims() {
            return Err(NnError::shape("backward", format!("{:?}", output.dims()), seed.dims()));
        }
        let (entries, mut slots) = self.take_until(output)?;
        if let Some(last) = slots.last_mut() {
            // The caller may hold a clone, which shares its memory.
            *last = Some(Gradient::shared(seed));
        }
        walk(entries, slots, |_, leaf, gradient| match leaf {
            Leaf::Parameter(id) => {
                sums.insert(id, gradient.round(self.precision())?)?;
                arrived(id, sums)
            }
            Leaf::Outer => Ok(()),
        })
    }

    /// Runs the backward pass of a recording that is one operation of another tape, from the gradient of its output. `leaves` maps the
    /// place of each leaf to the input of that operation. Gradients that have already arrived at those inputs are continued instead of
    /// summed up separately: the same additions in the same order as on one tape.
    pub(crate) fn backward_into(
        &self,
        output: &Value,
        gradient: Gradient,
        leaves: &BTreeMap<usize, usize>,
        flow: &mut Flow<'_>,
    ) -> Result<()> {
        let (entries, mut slots) = self.take_until(output)?;
        for (leaf, input) in leaves {
            if let Some(slot) = slots.get_mut(*leaf) {
                *slot = flow.take(*input);
            }
        }
        if let Some(last) = slots.last_mut() {
            *last = Some(match last.take() {
                Some(sum) => sum.add(gradient)?,
                None => gradient,
            });
        }
        walk(entries, slots, |place, _, gradient| match leaves.get(&place) {
            Some(input) => flow.give(*input, gradient),
            None => Ok(()),
        })
    }

    /// Takes the entries up to a value's, with an empty slot for the gradient of each; leaves the tape empty.
    #[allow(clippy::type_complexity, reason = "both halves are taken apart at once")]
    fn take_until(&self, output: &Value) -> Result<(Vec<Entry>, Vec<Option<Gradient>>)> {
        let node = output.node().filter(|node| self.is(&node.tape)).ok_or(NnError::NotRecorded)?;
        let mut entries = std::mem::take(&mut *self.entries.borrow_mut());
        entries.truncate(node.index + 1);
        let slots = entries.iter().map(|_| None).collect();
        Ok((entries, slots))
    }
}

/// Walks entries backward, each with its gradient if it has one; `arrive` receives those of leaves and their places.
fn walk(
    mut entries: Vec<Entry>,
    mut slots: Vec<Option<Gradient>>,
    mut arrive: impl FnMut(usize, Leaf, Gradient) -> Result<()>,
) -> Result<()> {
    while let Some(entry) = entries.pop() {
        let Some(gradient) = slots.pop().flatten() else {
            continue;
        };
        match entry {
            Entry::Leaf(leaf) => arrive(entries.len(), leaf, gradient)?,
            Entry::Operation { inputs, backward, precision } => {
                backward(gradient.round(precision)?, &mut Flow::new(&inputs, &mut slots))?;
            }
        }
    }
    Ok(())
}

/// Creates the value of an operation: plain if all inputs are plain, recorded otherwise. `backward` creates the closure that
/// adds the gradients of the inputs, by position in `inputs`; for plain inputs it is not called, so nothing is saved.
///
/// This is the only way to record an operation, so an operation that can be recorded has a backward pass.
pub(crate) fn record<B>(output: Tensor, inputs: &[&Value], backward: impl FnOnce() -> B) -> Value
where
    B: FnOnce(Gradient, &mut Flow<'_>) -> Result<()> + 'static,
{
    let Some(tape) = inputs.iter().find_map(|value| value.tape()) else {
        return Value::new(output, None);
    };
    let precision = tape.precision().of_shape(output.dims());
    // On other devices the element type is the number format.
    if precision != Precision::Fp32 && device::is_host_single(&output) {
        // Every kernel's output is a contiguous f32 CPU tensor, the only kind that can be changed in place. Tensors that share its memory
        // (the input of a reshape) have been rounded before, so this does not change them.
        host::modify(&output, |elements| precision.round(elements)).expect("a kernel's output can be changed");
    }
    let indices = inputs.iter().map(|value| value.node().filter(|node| node.tape.is(tape)).map(|node| node.index));
    let entry = Entry::Operation { inputs: indices.collect(), backward: Box::new(backward()), precision };
    Value::new(output, Some(tape.push(entry)))
}

/// Returns the number format that an operation on these values is recorded in.
pub(crate) fn precision(values: &[&Value]) -> Precision {
    values.iter().find_map(|value| value.tape()).map_or(Precision::Fp32, Tape::precision)
}

/// Records the computations of `work` on these values in single precision, gradients included: for objectives, whose factors leave the
/// range of narrower formats.
pub(crate) fn in_single_precision<R>(values: &[&Value], work: impl FnOnce() -> R) -> R {
    let Some(tape) = values.iter().find_map(|value| value.tape()) else {
        return work();
    };
    let precision = tape.precision.replace(Precision::Fp32);
    let result = work();
    tape.precision.set(precision);
    result
}
