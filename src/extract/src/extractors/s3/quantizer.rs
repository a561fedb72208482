//! The quantizer from channels to tokens: the nearest entry (version 1), or eight numbers rounded to three levels (version 2).

use candle_core::Tensor;
use flowmill_nn::{Activation, NnError, Value, host, inference::Linear};
use rayon::prelude::*;

use super::dimensions::FSQ_DIGITS;

/// The factor on the hyperbolic tangent before rounding, so that 1 and -1 are never reached.
const FSQ_BOUND: f32 = 0.999;

/// Below this length a vector is divided by it instead of its own length.
const SHORTEST: f32 = 1e-12;

/// Rows whose scores are in memory at a time.
const ROWS_PER_BLOCK: usize = 256;

/// Entries to be looked up by vectors of unit length.
pub(super) struct Lookup {
    /// |x − e|² = |x|² − 2 (x·e − |e|² / 2): the nearest entry has the largest x·e − |e|² / 2.
    scores: Linear,
}

impl Lookup {
    /// Entries `[entry, channel]`.
    pub(super) fn new(entries: &Tensor) -> Result<Self, NnError> {
        let half_squares = (entries.sqr()?.sum(1)? * -0.5)?;
        Ok(Self { scores: Linear::new(entries, Some(&half_squares))? })
    }

    /// The nearest entry of each row, scaled to unit length first.
    pub(super) fn tokens(&self, hidden: &Value) -> Result<Vec<u32>, NnError> {
        let columns = self.scores.inputs();
        if hidden.width() != columns {
            return Err(NnError::shape("codebook", format!("[.., {columns}]"), hidden.dims()));
        }
        let rows = host::read(hidden.tensor())?;
        let mut tokens = Vec::with_capacity(hidden.rows());
        for block in rows.chunks(ROWS_PER_BLOCK * columns) {
            let mut block = block.to_vec();
            block.par_chunks_exact_mut(columns).for_each(scale_to_unit_length);
            let shape = [block.len() / columns, columns];
            let block = Value::from_vec(block, &shape)?;
            let scores = self.scores.forward(&block, Activation::Identity)?;
            tokens.extend(scores.largest()?);
        }
        Ok(tokens)
    }
}

fn scale_to_unit_length(row: &mut [f32]) {
    let length = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
    row.iter_mut().for_each(|x| *x /= length.max(SHORTEST));
}

/// Rows of eight numbers as indices: each number is squeezed to (-1, 1) and rounded to a digit of base three.
pub(super) fn three_levels(projected: &Value) -> Result<Vec<u32>, NnError> {
    if projected.width() != FSQ_DIGITS {
        return Err(NnError::shape("finite scalar quantizer", format!("[.., {FSQ_DIGITS}]"), projected.dims()));
    }
    let numbers = host::read(projected.tensor())?;
    Ok(numbers.chunks_exact(FSQ_DIGITS).map(index).collect())
}

fn index(numbers: &[f32]) -> u32 {
    // Horner's rule from the most significant digit, the last.
    numbers.iter().rev().fold(0, |index, number| 3 * index + digit(*number))
}

fn digit(number: f32) -> u32 {
    // A number of -1, 0 and 1, so the cast is exact; not-a-number becomes the middle.
    ((number.tanh() * FSQ_BOUND).round_ties_even() as i8 + 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_of_base_three_and_the_first_is_the_least_significant() {
        let value = |numbers: [f32; 8]| Value::from_vec(numbers.to_vec(), &[1, 8]).unwrap();
        assert_eq!(three_levels(&value([-9.0; 8])).unwrap(), [0]);
        assert_eq!(three_levels(&value([9.0; 8])).unwrap(), [6560]);
        let one = [0.0, -9.0, -9.0, -9.0, -9.0, -9.0, -9.0, -9.0];
        assert_eq!(three_levels(&value(one)).unwrap(), [1]);
        let last = [-9.0, -9.0, -9.0, -9.0, -9.0, -9.0, -9.0, 0.5];
        assert_eq!(three_levels(&value(last)).unwrap(), [2187]);
    }

    #[test]
    fn the_length_of_a_vector_does_not_matter() {
        let entries = Value::from_vec(vec![1.0, 0.0, 0.0, 1.0, -0.7, -0.7], &[3, 2]).unwrap();
        let lookup = Lookup::new(entries.tensor()).unwrap();
        let rows = Value::from_vec(vec![0.01, 0.002, 5.0, 90.0, -3.0, -2.0], &[3, 2]).unwrap();
        assert_eq!(lookup.tokens(&rows).unwrap(), [0, 1, 2]);
    }
}
