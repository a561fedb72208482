//! A uniform sample of frames that does not depend on the order in which they come.

use std::collections::BinaryHeap;

use flowmill_nn::random::RngKey;

use crate::{Accumulator, Matrix, State, StateError};

/// Keeps the frames with the smallest keys; a frame's key is a random number drawn for its utterance and position.
pub(crate) struct Reservoir {
    kind: &'static str,
    settings: serde_json::Value,
    dimensions: usize,
    capacity: usize,
    rng_key: RngKey,
    seen: u64,
    frames: Vec<f32>,
    /// (key, index into `frames`), the largest key on top.
    keys: BinaryHeap<(u64, usize)>,
}

impl Reservoir {
    /// Creates a sample of at most `capacity` frames for an extractor of this kind; `settings` are those that measuring reads.
    pub(crate) fn new(
        kind: &'static str,
        settings: serde_json::Value,
        dimensions: usize,
        capacity: usize,
        rng_key: RngKey,
    ) -> Self {
        Self { kind, settings, dimensions, capacity, rng_key, seen: 0, frames: Vec::new(), keys: BinaryHeap::new() }
    }

    /// Returns the number of frames that were offered.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    fn offer(&mut self, key: u64, frame: &[f32]) {
        if self.keys.len() < self.capacity {
            self.keys.push((key, self.keys.len()));
            self.frames.extend_from_slice(frame);
        } else if let Some(mut top) = self.keys.peek_mut()
            && key < top.0
        {
            let place = top.1;
            *top = (key, place);
            self.frames[place * self.dimensions..][..self.dimensions].copy_from_slice(frame);
        }
    }

    /// The kept frames and their keys in the order of the keys, which is a random one.
    fn into_sorted(self) -> (Vec<u64>, Vec<f32>) {
        let order = self.keys.into_sorted_vec();
        let frame =
            |&(_, place): &(u64, usize)| self.frames[place * self.dimensions..][..self.dimensions].iter().copied();
        (order.iter().map(|(key, _)| *key).collect(), order.iter().flat_map(frame).collect())
    }

    /// The kept frames in the order of their keys.
    pub(crate) fn into_frames(self) -> Matrix {
        let dimensions = self.dimensions;
        Matrix::new(self.into_sorted().1, dimensions)
    }
}

impl Accumulator for Reservoir {
    fn add(&mut self, id: &str, measured: &Matrix) -> Result<(), StateError> {
        if measured.columns() != self.dimensions {
            let reason = format!("a frame measures {} values, not {}", measured.columns(), self.dimensions);
            return Err(StateError::NotEnough { kind: self.kind, reason });
        }
        let rng_key = self.rng_key.purpose(id);
        for (position, frame) in (0..).zip(measured.iter()) {
            let words = rng_key.block(position);
            self.offer(u64::from(words[0]) << 32 | u64::from(words[1]), frame);
        }
        self.seen += measured.rows() as u64;
        Ok(())
    }

    fn absorb(&mut self, state: &State) -> Result<(), StateError> {
        state.expect_kind(self.kind)?;
        let keys = state.u64("keys", &[None])?;
        let frames = state.f32("frames", &[Some(keys.len()), Some(self.dimensions)])?;
        self.seen = self.seen.saturating_add(state.u64("seen", &[Some(1)])?[0]);
        for (&key, frame) in keys.iter().zip(frames.chunks_exact(self.dimensions)) {
            self.offer(key, frame);
        }
        Ok(())
    }

    fn into_state(self: Box<Self>) -> State {
        let (dimensions, seen) = (self.dimensions, self.seen);
        let mut state = State::new(self.kind, self.settings.clone());
        let (keys, frames) = self.into_sorted();
        state.set_f32("frames", &[keys.len(), dimensions], frames);
        state.set_u64("keys", &[keys.len()], keys);
        state.set_u64("seen", &[1], vec![seen]);
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reservoir(capacity: usize) -> Reservoir {
        with_seed(capacity, 3)
    }

    fn with_seed(capacity: usize, seed: u64) -> Reservoir {
        Reservoir::new("toy", serde_json::json!({}), 2, capacity, RngKey::new(seed))
    }

    fn rows(count: usize, offset: usize) -> Matrix {
        Matrix::new((0..2 * count).map(|i| (i + offset) as f32).collect(), 2)
    }

    #[test]
    fn the_sample_is_the_same_in_any_order_and_any_parts() {
        let (first, second, third) = (rows(50, 0), rows(30, 1000), rows(70, 5000));
        let mut whole = Box::new(reservoir(40));
        whole.add("a", &first).unwrap();
        whole.add("b", &second).unwrap();
        whole.add("c", &third).unwrap();
        let (mut one, mut other, mut merged) =
            (Box::new(reservoir(40)), Box::new(reservoir(40)), Box::new(reservoir(40)));
        other.add("c", &third).unwrap();
        one.add("b", &second).unwrap();
        one.add("a", &first).unwrap();
        merged.absorb(&other.into_state()).unwrap();
        merged.absorb(&one.into_state()).unwrap();
        assert_eq!(merged.seen(), 150);
        let (whole, merged) = (whole.into_state(), merged.into_state());
        assert_eq!(whole, merged);
        assert_eq!(whole.u64("keys", &[None]).unwrap().len(), 40);
    }

    #[test]
    fn every_frame_has_the_same_chance() {
        let mut hits = [0u32; 20];
        for seed in 0..400 {
            let mut reservoir = with_seed(5, seed);
            reservoir.add("utterance", &rows(20, 0)).unwrap();
            for row in reservoir.into_frames().iter() {
                hits[row[0] as usize / 2] += 1;
            }
        }
        // 100 expected, deviation 8.7: five deviations to either side.
        assert!(hits.iter().all(|hits| (57..=143).contains(hits)), "{hits:?}");
    }
}
