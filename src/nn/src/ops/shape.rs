//! Operations that move elements without computing.

use crate::gradients::{Flow, Gradient};
use crate::tape::record;
use crate::{Result, Value};

impl Value {
    /// The same elements under another shape of as many elements; nothing is copied.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Value> {
        let output = self.tensor().reshape(shape)?;
        let before = self.dims();
        Ok(record(output, &[self], || {
            let before = before.to_vec();
            move |gradient: Gradient, flow: &mut Flow<'_>| flow.give(0, gradient.reshape(&before)?)
        }))
    }
}
