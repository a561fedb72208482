//! A recognizer of a closed set of texts: the nearest training recordings by dynamic time warping of cepstra. It needs no weights,
//! so that generated speech can be scored by what is heard in it.
//!
//! The cepstra of a recording are taken around the mean of its speaker, as far as the speaker is known: the channel and the length of the vocal
//! tract count less. [`Discrimination`] weights them by what tells texts apart rather than speakers.

use std::collections::{BTreeMap, BTreeSet};

use flowmill_audio::features::{CepstrumConfig, Features, MelConfig, MelSpectrogram, deltas, mfcc};
use flowmill_audio::{AudioError, TrimConfig, resample, trim_silence};
use flowmill_family::Audio;
use rayon::prelude::*;

use super::discrimination::Discrimination;
use super::warping::warped_distance;

/// Texts of a closed set at most.
const MOST_TEXTS: usize = 100;
/// Recordings of each text that are needed on average.
const RECORDINGS_PER_TEXT: usize = 2;
/// Speakers of a text whose nearest recordings count.
const NEAREST_SPEAKERS: usize = 3;
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
}

/// A recording of a known text.
struct Recording {
    text: String,
    speaker: String,
    cepstra: Features,
}

/// Recordings with their texts and speakers.
#[derive(Default)]
pub struct Recognizer {
    recordings: Vec<Recording>,
    texts: BTreeSet<String>,
}

/// A recognizer that has heard all its recordings.
pub struct Trained {
    /// The features of each recording.
    recordings: Vec<Recording>,
    /// The mean cepstra of each speaker.
    means: BTreeMap<String, Vec<f32>>,
    discrimination: Discrimination,
}

impl Recognizer {
    /// Adds a recording of a text. Once there are too many texts, recordings are not kept.
    pub fn add(&mut self, text: &str, speaker: &str, cepstra: Features) {
        self.texts.insert(text.to_owned());
        if self.texts.len() > MOST_TEXTS {
            self.recordings.clear();
        } else {
            self.recordings.push(Recording { text: text.to_owned(), speaker: speaker.to_owned(), cepstra });
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

    /// Learns from the recordings; `None` if the texts are no closed set.
    pub fn train(&self) -> Option<Trained> {
        self.texts()?;
        let mut of_speakers: BTreeMap<&str, Vec<&Features>> = BTreeMap::new();
        for Recording { speaker, cepstra, .. } in &self.recordings {
            of_speakers.entry(speaker).or_default().push(cepstra);
        }
        let means = of_speakers.into_iter().map(|(speaker, cepstra)| (speaker.to_owned(), mean(&cepstra)));
        let means: BTreeMap<String, Vec<f32>> = means.collect();
        let recordings: Vec<Recording> = self
            .recordings
            .iter()
            .filter_map(|Recording { text, speaker, cepstra }| {
                let cepstra = with_slopes(cepstra, means.get(speaker))?;
                Some(Recording { text: text.clone(), speaker: speaker.clone(), cepstra })
            })
            .collect();
        let triples: Vec<(&str, &str, &Features)> = recordings
            .iter()
            .map(|Recording { text, speaker, cepstra }| (text.as_str(), speaker.as_str(), cepstra))
            .collect();
        let discrimination = Discrimination::of(&triples)?;
        let recordings = recordings.into_iter().map(|recording| {
            let cepstra = discrimination.apply(&recording.cepstra);
            Recording { cepstra, ..recording }
        });
        Some(Trained { recordings: recordings.collect(), means, discrimination })
    }
}

impl Trained {
    /// Returns the text whose recordings are nearest: for each of its speakers the nearest one, of which the mean distance of the
    /// [`NEAREST_SPEAKERS`] nearest speakers counts, because a single one may be near by accident.
    pub fn recognize(&self, speaker: &str, cepstra: &Features) -> Option<&str> {
        let features = self.discrimination.apply(&with_slopes(cepstra, self.means.get(speaker))?);
        let distances: Vec<Option<f64>> =
            self.recordings.par_iter().map(|recording| warped_distance(&recording.cepstra, &features)).collect();
        let mut nearest: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
        for (recording, distance) in self.recordings.iter().zip(distances) {
            let Some(distance) = distance else { continue };
            let own = nearest.entry(&recording.text).or_default().entry(&recording.speaker).or_insert(distance);
            *own = own.min(distance);
        }
        let mean = |speakers: BTreeMap<&str, f64>| {
            let mut distances: Vec<f64> = speakers.into_values().collect();
            distances.sort_by(f64::total_cmp);
            distances.truncate(NEAREST_SPEAKERS);
            distances.iter().sum::<f64>() / distances.len() as f64
        };
        let means = nearest.into_iter().map(|(text, speakers)| (text, mean(speakers)));
        means.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(text, _)| text)
    }
}

/// Returns the cepstra around the mean of their speaker, or around their own if it is unknown, with their slopes. The first coefficient, the
/// loudness, is always around its own mean.
fn with_slopes(cepstra: &Features, of_speaker: Option<&Vec<f32>>) -> Option<Features> {
    let own = mean(&[cepstra]);
    let mut center = of_speaker.unwrap_or(&own).clone();
    center[..1].copy_from_slice(own.get(..1)?);
    let centered = cepstra.rows().flat_map(|row| row.iter().zip(&center).map(|(value, center)| value - center));
    let centered = Features::new(centered.collect(), cepstra.frames, cepstra.bins).ok()?;
    let slopes = deltas(&centered, REACH).ok()?;
    let both = centered.rows().zip(slopes.rows()).flat_map(|(values, slopes)| [values, slopes].concat());
    Features::new(both.collect(), cepstra.frames, 2 * cepstra.bins).ok()
}

/// Returns the mean of all frames of recordings.
fn mean(recordings: &[&Features]) -> Vec<f32> {
    let bins = recordings.first().map_or(0, |first| first.bins);
    let mut sums = vec![0.0f64; bins];
    let mut frames = 0;
    for row in recordings.iter().flat_map(|recording| recording.rows()) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        frames += 1;
    }
    sums.into_iter().map(|sum| (sum / f64::from(frames.max(1))) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a first coefficient that is always 0 and of a second one.
    fn features(values: &[f32]) -> Features {
        Features::new(values.iter().flat_map(|value| [0.0, *value]).collect(), values.len(), 2).unwrap()
    }

    #[test]
    fn the_nearest_recordings_of_several_speakers_give_the_text() {
        let mut recognizer = Recognizer::default();
        let up = [0.0, 0.4, 1.1, 1.5, 2.0];
        // A channel adds a constant.
        for (speaker, offset) in [("a", 0.0), ("b", 5.0), ("c", -3.0)] {
            for stretch in [0.9, 1.0, 1.1] {
                let values: Vec<f32> = up.iter().map(|value| value * stretch + offset).collect();
                recognizer.add("up", speaker, features(&values));
                let falling: Vec<f32> = values.iter().rev().copied().collect();
                recognizer.add("down", speaker, features(&falling));
            }
        }
        assert_eq!(recognizer.texts(), Some(2));
        let trained = recognizer.train().unwrap();
        assert_eq!(trained.recognize("b", &features(&[5.0, 5.0, 5.5, 6.0, 6.9])), Some("up"));
        assert_eq!(trained.recognize("new", &features(&[9.0, 9.0, 8.3, 8.0, 7.1])), Some("down"));
        (0..200).for_each(|text| recognizer.add(&text.to_string(), "a", features(&[0.0])));
        assert!(recognizer.texts().is_none() && recognizer.train().is_none(), "sentences are no closed set");
    }

    #[test]
    fn a_text_with_a_single_recording_is_no_closed_set() {
        let mut recognizer = Recognizer::default();
        ["up", "down", "up"].iter().for_each(|text| recognizer.add(text, "a", features(&[0.0, 1.0])));
        assert_eq!(recognizer.texts(), None);
    }
}
