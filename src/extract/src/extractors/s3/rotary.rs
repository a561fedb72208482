//! Rotary positions (Su et al., arXiv 2104.09864): the angles that queries and keys of every position turn by.

use flowmill_nn::{NnError, Ragged, Value};

/// The speeds at which pairs of channels turn.
pub(super) struct Rotary {
    speeds: Vec<f32>,
}

/// Cosines and sines of every row of a batch, `[row, pair]`.
pub(super) struct Angles {
    cosines: Value,
    sines: Value,
}

impl Rotary {
    /// Creates the rotary positions for heads of this many channels.
    pub(super) fn new(head_width: usize) -> Self {
        let speed = |pair: usize| 1.0 / 10_000f32.powf((2 * pair) as f32 / head_width as f32);
        Self { speeds: (0..head_width / 2).map(speed).collect() }
    }

    /// The angles of the rows of each item, counted from its first.
    ///
    /// # Errors
    /// None in practice: the shape is that of the numbers.
    pub(super) fn angles(&self, items: &Ragged) -> Result<Angles, NnError> {
        let positions = items.ranges().iter().flat_map(|rows| 0..rows.len());
        let angles: Vec<f32> =
            positions.flat_map(|position| self.speeds.iter().map(move |speed| position as f32 * speed)).collect();
        let shape = [angles.len() / self.speeds.len().max(1), self.speeds.len()];
        let value = |of: fn(f32) -> f32| Value::from_vec(angles.iter().map(|angle| of(*angle)).collect(), &shape);
        Ok(Angles { cosines: value(f32::cos)?, sines: value(f32::sin)? })
    }
}

impl Angles {
    /// Turns queries or keys `[.., head x channel]`.
    pub(super) fn turn(&self, input: &Value) -> Result<Value, NnError> {
        input.rotate(&self.cosines, &self.sines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores after turning depend on the distance of the positions alone.
    #[test]
    fn scores_depend_on_the_distance_alone() {
        let (rows, width) = (9, 16);
        let row = |seed: u64| flowmill_nn::random::RngKey::new(seed).normals(width);
        let (query, key) = (row(1).repeat(rows), row(2).repeat(rows));
        let angles = Rotary::new(8).angles(&Ragged::packed(&[rows])).unwrap();
        let turn = |data: Vec<f32>| {
            let turned = angles.turn(&Value::from_vec(data, &[rows, width]).unwrap()).unwrap();
            turned.tensor().to_vec2::<f32>().unwrap()
        };
        let (query, key) = (turn(query), turn(key));
        let score = |i: usize, j: usize| -> f32 { query[i].iter().zip(&key[j]).map(|(q, k)| q * k).sum() };
        assert!((score(0, 3) - score(5, 8)).abs() < 1e-5);
        assert!((score(0, 3) - score(0, 4)).abs() > 1e-3);
    }
}
