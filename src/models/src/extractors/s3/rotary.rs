//! Rotary positions (Su et al., arXiv 2104.09864): channel `c` and channel `c + half` of a head turn by the angle of the position.

use flowmill_nn::{NnError, Sequences, Value, host};
use rayon::prelude::*;

/// Rows that one task turns.
const ROWS_PER_TASK: usize = 64;

/// The speeds at which pairs of channels turn.
pub(super) struct Rotary {
    speeds: Vec<f32>,
}

/// Cosines and sines of every row of a batch, `[row][pair]`.
pub(super) struct Angles {
    cosines: Vec<f32>,
    sines: Vec<f32>,
    pairs: usize,
}

impl Rotary {
    /// For heads of this many channels.
    pub(super) fn new(head_width: usize) -> Self {
        let speed = |pair: usize| 1.0 / 10_000f32.powf((2 * pair) as f32 / head_width as f32);
        Self { speeds: (0..head_width / 2).map(speed).collect() }
    }

    /// The angles of the rows of each item, counted from its first.
    pub(super) fn angles(&self, items: &Sequences) -> Angles {
        let positions = items.ranges().iter().flat_map(|rows| 0..rows.len());
        let angles: Vec<f32> =
            positions.flat_map(|position| self.speeds.iter().map(move |speed| position as f32 * speed)).collect();
        Angles {
            cosines: angles.iter().map(|angle| angle.cos()).collect(),
            sines: angles.iter().map(|angle| angle.sin()).collect(),
            pairs: self.speeds.len(),
        }
    }
}

impl Angles {
    /// Turns queries or keys `[.., head x channel]`.
    pub(super) fn turn(&self, input: &Value) -> Result<Value, NnError> {
        let (pairs, width) = (self.pairs, input.width());
        if self.cosines.len() != input.rows() * pairs || !width.is_multiple_of(2 * pairs) {
            let expected = format!("{} rows of heads of {} channels", self.cosines.len() / pairs.max(1), 2 * pairs);
            return Err(NnError::shape("rotary positions", expected, input.dims()));
        }
        let mut out = host::slice("rotary positions", input.tensor())?.to_vec();
        let tasks = out.par_chunks_mut(ROWS_PER_TASK * width).enumerate();
        tasks.for_each(|(task, rows)| {
            for (row, channels) in (task * ROWS_PER_TASK..).zip(rows.chunks_exact_mut(width)) {
                let range = row * pairs..(row + 1) * pairs;
                let (cosines, sines) = (&self.cosines[range.clone()], &self.sines[range]);
                channels.chunks_exact_mut(2 * pairs).for_each(|head| turn_head(head, cosines, sines));
            }
        });
        Value::from_vec(out, input.dims())
    }
}

fn turn_head(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (first, second) = head.split_at_mut(cosines.len());
    for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores after turning depend on the distance of the positions alone.
    #[test]
    fn scores_depend_on_the_distance_alone() {
        let (rows, width) = (9, 16);
        let row = |seed: u64| flowmill_nn::random::Draw::new(seed).normals(width);
        let (query, key) = (row(1).repeat(rows), row(2).repeat(rows));
        let angles = Rotary::new(8).angles(&Sequences::packed(&[rows]));
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
