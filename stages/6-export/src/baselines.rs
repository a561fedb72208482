//! The best trivial answers a token-to-mel model must beat: mean mels of the training split.

use std::collections::BTreeMap;

use flowmill_audio::features::Features;

/// Log-mel frames that belong to one unit: 50 Hz mel frames over 25 Hz units.
pub const FRAMES_PER_UNIT: usize = 2;

/// Sums of log-mel rows, one for each of a unit's frames.
#[derive(Debug, Clone)]
struct Cell {
    count: f64,
    sums: [Vec<f64>; FRAMES_PER_UNIT],
}

impl Cell {
    fn new(bins: usize) -> Self {
        Self { count: 0.0, sums: [vec![0.0; bins], vec![0.0; bins]] }
    }

    fn add(&mut self, rows: [&[f32]; FRAMES_PER_UNIT]) {
        self.count += 1.0;
        for (sums, row) in self.sums.iter_mut().zip(rows) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += f64::from(*value);
            }
        }
    }

    fn mean(&self, position: usize) -> impl Iterator<Item = f32> + '_ {
        self.sums[position].iter().map(|sum| (sum / self.count) as f32)
    }
}

/// Which trivial answer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// The mean mel of the whole training split, at every frame.
    Corpus,
    /// The mean mel of each unit, its two frames apart; an unseen unit falls back to the corpus.
    Unit,
    /// The mean mel of each unit as one speaker says it; an unseen pair falls back to the unit.
    UnitAndSpeaker,
}

/// Mean log-mels of the training split: over everything, per unit, and per unit and speaker.
#[derive(Debug, Clone)]
pub struct Baselines {
    bins: usize,
    corpus: Cell,
    units: BTreeMap<i64, Cell>,
    units_and_speakers: BTreeMap<(i64, String), Cell>,
}

impl Baselines {
    /// Empty means over `bins` mel bins.
    pub fn new(bins: usize) -> Self {
        Self { bins, corpus: Cell::new(bins), units: BTreeMap::new(), units_and_speakers: BTreeMap::new() }
    }

    /// Adds a training utterance: `tokens` at 25 Hz, `mel` `[frame][bin]` at 50 Hz.
    pub fn add(&mut self, speaker: &str, tokens: &[i64], mel: &Features) {
        let bins = self.bins;
        for (position, token) in tokens.iter().enumerate() {
            let start = position * FRAMES_PER_UNIT * bins;
            let Some(rows) = mel.data.get(start..start + FRAMES_PER_UNIT * bins) else {
                break;
            };
            let rows = [&rows[..bins], &rows[bins..]];
            self.corpus.add(rows);
            self.units.entry(*token).or_insert_with(|| Cell::new(bins)).add(rows);
            self.units_and_speakers.entry((*token, speaker.to_owned())).or_insert_with(|| Cell::new(bins)).add(rows);
        }
    }

    /// The trivial answer for an utterance of `tokens` by `speaker`: a log-mel of two frames per token.
    pub fn predict(&self, baseline: Baseline, speaker: &str, tokens: &[i64]) -> Features {
        let mut data = Vec::with_capacity(tokens.len() * FRAMES_PER_UNIT * self.bins);
        for token in tokens {
            let cell = self.cell(baseline, speaker, *token);
            for position in 0..FRAMES_PER_UNIT {
                data.extend(cell.mean(position));
            }
        }
        Features { data, frames: tokens.len() * FRAMES_PER_UNIT, bins: self.bins }
    }

    fn cell(&self, baseline: Baseline, speaker: &str, token: i64) -> &Cell {
        let unit = || self.units.get(&token).unwrap_or(&self.corpus);
        match baseline {
            Baseline::Corpus => &self.corpus,
            Baseline::Unit => unit(),
            Baseline::UnitAndSpeaker => self.units_and_speakers.get(&(token, speaker.to_owned())).unwrap_or_else(unit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_baseline_falls_back_to_the_next_coarser_one() {
        let mut baselines = Baselines::new(1);
        let mel = |values: &[f32]| Features { data: values.to_vec(), frames: values.len(), bins: 1 };
        baselines.add("a", &[7], &mel(&[1.0, 2.0]));
        baselines.add("b", &[7, 8], &mel(&[3.0, 4.0, 5.0, 6.0]));
        let predict = |baseline, speaker, token| baselines.predict(baseline, speaker, &[token]).data;
        assert_eq!(predict(Baseline::Corpus, "a", 7), [3.0, 4.0]);
        assert_eq!(predict(Baseline::Unit, "a", 7), [2.0, 3.0]);
        assert_eq!(predict(Baseline::UnitAndSpeaker, "a", 7), [1.0, 2.0]);
        assert_eq!(predict(Baseline::UnitAndSpeaker, "a", 8), [5.0, 6.0]);
        assert_eq!(predict(Baseline::UnitAndSpeaker, "a", 9), [3.0, 4.0]);
    }
}
