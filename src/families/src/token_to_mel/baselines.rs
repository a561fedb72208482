//! The best trivial answers that a token-to-mel model must beat: mean mels of the training split.

use std::collections::BTreeMap;

use flowmill_audio::features::Features;

/// Sums of log-mel values over all occurrences of a unit, `[frame of the unit][bin]`.
#[derive(Debug, Clone)]
struct Cell {
    count: f64,
    sums: Vec<f64>,
}

impl Cell {
    fn new(values: usize) -> Self {
        Self { count: 0.0, sums: vec![0.0; values] }
    }

    fn add(&mut self, values: &[f32]) {
        self.count += 1.0;
        self.sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(*value));
    }

    fn mean(&self) -> impl Iterator<Item = f32> + '_ {
        self.sums.iter().map(|sum| (sum / self.count) as f32)
    }
}

/// The kind of trivial answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// The mean mel of the whole training split, for every frame.
    Corpus,
    /// The mean mel of each unit, frame by frame; an unseen unit falls back to the corpus.
    Unit,
    /// The mean mel of each unit spoken by one speaker; an unseen pair falls back to the unit.
    UnitAndSpeaker,
}

/// Mean log-mels of the training split: over everything, per unit, and per unit and speaker.
#[derive(Debug, Clone)]
pub struct Baselines {
    bins: usize,
    frames_per_unit: usize,
    corpus: Cell,
    units: BTreeMap<u32, Cell>,
    units_and_speakers: BTreeMap<(u32, String), Cell>,
}

impl Baselines {
    /// Creates empty means over mels of `bins` bins, with `frames_per_unit` frames per unit.
    pub fn new(bins: usize, frames_per_unit: usize) -> Self {
        let corpus = Cell::new(bins * frames_per_unit);
        Self { bins, frames_per_unit, corpus, units: BTreeMap::new(), units_and_speakers: BTreeMap::new() }
    }

    /// Adds a training utterance: its units, and its mel `[frame][bin]`, truncated to whole units.
    pub fn add(&mut self, speaker: &str, tokens: &[u32], mel: &Features) {
        let values = self.bins * self.frames_per_unit;
        for (token, mel) in tokens.iter().zip(mel.data.chunks_exact(values.max(1))) {
            self.corpus.add(mel);
            self.units.entry(*token).or_insert_with(|| Cell::new(values)).add(mel);
            self.units_and_speakers.entry((*token, speaker.to_owned())).or_insert_with(|| Cell::new(values)).add(mel);
        }
    }

    /// Returns the trivial answer for an utterance of `tokens` by `speaker`: a log-mel with a unit's frames for each
    /// token.
    pub fn predict(&self, baseline: Baseline, speaker: &str, tokens: &[u32]) -> Features {
        let frames = tokens.len() * self.frames_per_unit;
        let mut data = Vec::with_capacity(frames * self.bins);
        for token in tokens {
            data.extend(self.cell(baseline, speaker, *token).mean());
        }
        Features { data, frames, bins: self.bins }
    }

    fn cell(&self, baseline: Baseline, speaker: &str, token: u32) -> &Cell {
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
        let mut baselines = Baselines::new(1, 2);
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
    #[test]
    fn a_unit_has_as_many_frames_as_the_model_makes_of_it() {
        let mut baselines = Baselines::new(2, 3);
        let data: Vec<f32> = (0..14).map(|value| value as f32).collect();
        // Seven frames: two units of three, and one remaining frame.
        baselines.add("a", &[4, 4, 4], &Features { data, frames: 7, bins: 2 });
        let predicted = baselines.predict(Baseline::Unit, "a", &[4, 9]);
        assert_eq!((predicted.frames, predicted.bins), (6, 2));
        assert_eq!(predicted.data[..6], [3.0, 4.0, 5.0, 6.0, 7.0, 8.0], "the mean of 0..6 and 6..12");
    }
}
