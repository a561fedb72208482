//! A recognizer of a closed set of texts: the nearest recordings by dynamic time warping of cepstra. It needs no weights,
//! so that generated speech can be scored by what is heard in it.

use std::collections::{BTreeMap, BTreeSet};

use flowmill_audio::features::{CepstrumConfig, Features, MelConfig, MelSpectrogram, deltas, mfcc};
use flowmill_audio::{AudioError, TrimConfig, resample, trim_silence};
use flowmill_family::Audio;

/// Texts of a closed set at most.
const MOST_TEXTS: usize = 100;
/// Recordings of each text that are needed on average.
const RECORDINGS_PER_TEXT: usize = 2;
/// Recordings of a text whose distances count.
const NEAREST: usize = 5;
/// Frames to each side for the slopes of cepstra.
const REACH: usize = 2;

/// Silence at the ends of recordings: frames of 50 ms that are 30 dB below the loudest one, at 8 kHz.
const SILENCE: TrimConfig = TrimConfig { top_db: 30.0, frame_length: 400, hop_length: 80 };

/// Cepstra of recordings.
pub struct Cepstra {
    mel: MelSpectrogram,
    config: CepstrumConfig,
}

impl Cepstra {
    /// Creates the computation: 13 coefficients of 26 bands below 4 kHz, 100 frames a second.
    ///
    /// # Errors
    /// Never for these settings.
    pub fn new() -> Result<Self, AudioError> {
        let mel = MelConfig {
            sample_rate: 8000,
            n_fft: 256,
            win_length: 200,
            hop_length: 80,
            n_mels: 26,
            fmax: 4000.0,
            ..MelConfig::cosyvoice2()
        };
        Ok(Self { mel: MelSpectrogram::new(mel)?, config: CepstrumConfig::default() })
    }

    /// Returns the cepstra of a recording without the silence around it; none of a recording that is too short.
    ///
    /// # Errors
    /// Returns an error if the recording cannot be resampled.
    pub fn of(&self, audio: &Audio) -> Result<Option<Features>, AudioError> {
        let samples = resample(&audio.samples, audio.sample_rate, self.mel.config().sample_rate)?;
        let (start, end) = trim_silence(&samples, &SILENCE)?;
        let samples = if start < end { &samples[start..end] } else { &samples[..] };
        if samples.len() <= self.mel.config().n_fft {
            return Ok(None);
        }
        mfcc(&self.mel.compute(samples)?, &self.config).map(Some)
    }

    /// Returns the cepstra with their slopes, each around its mean: the channel and the loudness do not count.
    ///
    /// # Errors
    /// Never for cepstra of this computation.
    pub fn with_slopes(cepstra: &Features) -> Result<Features, AudioError> {
        let mut centered = cepstra.clone();
        centered.subtract_mean();
        let slopes = deltas(&centered, REACH)?;
        let both = centered.rows().zip(slopes.rows()).flat_map(|(values, slopes)| [values, slopes].concat());
        Features::new(both.collect(), cepstra.frames, 2 * cepstra.bins)
    }
}

/// Recordings with their texts.
#[derive(Default)]
pub struct Recognizer {
    recordings: Vec<(String, Features)>,
    texts: BTreeSet<String>,
}

impl Recognizer {
    /// Adds a recording of a text. Once there are too many texts, recordings are not kept.
    pub fn add(&mut self, text: &str, cepstra: Features) {
        self.texts.insert(text.to_owned());
        if self.texts.len() > MOST_TEXTS {
            self.recordings.clear();
        } else {
            self.recordings.push((text.to_owned(), cepstra));
        }
    }

    /// Returns the number of texts, if they are a closed set: few texts, each with several recordings.
    pub fn texts(&self) -> Option<usize> {
        let texts = self.texts.len();
        let is_closed = texts > 1 && texts <= MOST_TEXTS && self.recordings.len() >= RECORDINGS_PER_TEXT * texts;
        is_closed.then_some(texts)
    }

    /// Returns whether a text is one of the set.
    pub fn knows(&self, text: &str) -> bool {
        self.texts.contains(text)
    }

    /// Returns the text whose nearest recordings are nearest: the mean distance of [`NEAREST`] recordings counts, because a
    /// single one may be near by accident.
    pub fn recognize(&self, cepstra: &Features) -> Option<&str> {
        let mut distances: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (text, own) in &self.recordings {
            distances.entry(text).or_default().extend(warped_distance(own, cepstra));
        }
        let mean = |mut distances: Vec<f64>| {
            distances.sort_by(f64::total_cmp);
            distances.truncate(NEAREST);
            distances.iter().sum::<f64>() / distances.len() as f64
        };
        let means = distances.into_iter().filter(|(_, distances)| !distances.is_empty());
        let means = means.map(|(text, distances)| (text, mean(distances)));
        means.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(text, _)| text)
    }
}

/// Returns the mean Euclidean distance of two sequences of frames along their best alignment (dynamic time warping with
/// the symmetric steps of Sakoe and Chiba, IEEE Transactions on Acoustics 26, 1978); `None` without frames, or for
/// different numbers of bins.
pub fn warped_distance(one: &Features, other: &Features) -> Option<f64> {
    if one.frames == 0 || other.frames == 0 || one.bins != other.bins {
        return None;
    }
    let local = |a: &[f32], b: &[f32]| {
        let squares: f32 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
        f64::from(squares).sqrt()
    };
    let mut before: Vec<f64> = Vec::new();
    for row in one.rows() {
        let mut costs = Vec::with_capacity(other.frames);
        for (column, frame) in other.rows().enumerate() {
            let distance = local(row, frame);
            let left = costs.last().copied();
            let up = before.get(column).copied();
            let diagonal = column.checked_sub(1).and_then(|column| before.get(column)).copied();
            // A diagonal step counts twice, so that all alignments have the same weight.
            let steps = [left.map(|cost| cost + distance), up.map(|cost| cost + distance)];
            let steps = steps.into_iter().chain([diagonal.map(|cost| cost + 2.0 * distance)]).flatten();
            costs.push(steps.reduce(f64::min).unwrap_or(2.0 * distance));
        }
        before = costs;
    }
    before.last().map(|cost| cost / (one.frames + other.frames) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(values: &[f32]) -> Features {
        Features::new(values.to_vec(), values.len(), 1).unwrap()
    }

    #[test]
    fn a_slower_sequence_is_at_no_distance() {
        let (fast, slow) = (features(&[0.0, 1.0, 2.0]), features(&[0.0, 0.0, 1.0, 1.0, 1.0, 2.0]));
        assert_eq!(warped_distance(&fast, &slow), Some(0.0));
        assert_eq!(warped_distance(&features(&[1.0]), &features(&[4.0])), Some(3.0));
        assert_eq!(warped_distance(&fast, &features(&[])), None);
    }

    #[test]
    fn the_nearest_recording_gives_the_text() {
        let mut recognizer = Recognizer::default();
        for (text, values) in [("up", [0.0, 1.0, 2.0]), ("down", [2.0, 1.0, 0.0]), ("up", [0.1, 1.1, 2.1])] {
            recognizer.add(text, features(&values));
        }
        assert_eq!(recognizer.texts(), None, "a text with a single recording");
        recognizer.add("down", features(&[2.0, 1.5, 0.0]));
        assert_eq!(recognizer.texts(), Some(2));
        assert_eq!(recognizer.recognize(&features(&[0.0, 0.0, 0.9, 2.0])), Some("up"));
        assert_eq!(recognizer.recognize(&features(&[2.0, 1.0, 0.5])), Some("down"));
        (0..200).for_each(|text| recognizer.add(&text.to_string(), features(&[0.0])));
        assert_eq!(recognizer.texts(), None, "sentences are no closed set");
    }
}
