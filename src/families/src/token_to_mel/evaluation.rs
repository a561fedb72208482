//! Scores of a split: the contribution of each utterance, and the final figures.

use flowmill_audio::features::Features;
use flowmill_audio::measure::{correlation, log_spectral_distance};
use flowmill_nn::solvers::Method;
use serde::{Deserialize, Serialize};

use super::baselines::{Baseline, Baselines};
use super::measures::{Residual, Spread, energy_contour, mean_of, pitch_correlation};

/// The data of one utterance that are compared.
pub struct Comparison<'a> {
    /// The speaker, for the baseline per unit and speaker.
    pub speaker: &'a str,
    /// The units.
    pub tokens: &'a [u32],
    /// The mel of the recording.
    pub real_mel: &'a Features,
    /// Samples of the model, at least two, each of the real mel's shape.
    pub samples: &'a [Features],
    /// The number of evaluations of the velocity for each sample.
    pub evaluations: &'a [usize],
    /// The recording at the mel's sample rate.
    pub real_wav: &'a [f32],
    /// The first sample, vocoded.
    pub generated_wav: &'a [f32],
    /// F0 of the recording in Hz, `None` where unvoiced.
    pub real_pitch: &'a [Option<f32>],
    /// F0 of the generated waveform.
    pub generated_pitch: &'a [Option<f32>],
    /// Samples per frame of the energy contour.
    pub hop_length: usize,
}

/// Log-spectral distances to the real mel, in dB (lower is nearer).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Distances {
    /// The mean of the model's samples.
    pub mean_of_samples: f64,
    /// The model's first sample alone.
    pub single_sample: f64,
    /// The mean mel of the training split.
    pub corpus_mean: f64,
    /// The mean mel per unit.
    pub unit_mean: f64,
    /// The mean mel per unit and speaker.
    pub unit_and_speaker_mean: f64,
}

impl Distances {
    /// Returns the smallest distance among the trivial answers.
    pub fn best_trivial(&self) -> f64 {
        self.corpus_mean.min(self.unit_mean).min(self.unit_and_speaker_mean)
    }
}

/// The scores of one utterance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UtteranceScores {
    /// The utterance's id.
    pub utt: String,
    /// The number of compared mel frames.
    pub frames: usize,
    /// Log-spectral distances.
    pub distance_db: Distances,
    /// Correlation of the energy contours of the waveforms.
    pub energy_correlation: Option<f64>,
    /// Correlation of log F0 over frames where both waveforms are voiced.
    pub pitch_correlation: Option<f64>,
    /// The number of frames that are voiced in both.
    pub voiced_frames: usize,
}

/// The scores of a split: means over utterances weighted by frames, except for the spreads, which are over all frames
/// together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The split.
    pub split: String,
    /// The number of scored utterances.
    pub utterances: usize,
    /// The number of compared mel frames.
    pub frames: usize,
    /// The number of samples per utterance.
    pub samples: usize,
    /// The solver of the flow's ODE.
    pub solver: Method,
    /// Mean number of evaluations of the velocity for a sample.
    pub evaluations_per_sample: f64,
    /// Log-spectral distances.
    pub distance_db: Distances,
    /// Deviation of real log-mels over time, mean over bins.
    pub real_spread_db: f64,
    /// The same of single samples.
    pub sample_spread_db: f64,
    /// Their ratio: a value near 1 means neither noise nor blur.
    pub spread_ratio: f64,
    /// Root mean square of the difference between a single sample and the mean of the others, divided by that between
    /// the recording and the mean of all. It is 1 if the model is exactly as uncertain as it is wrong.
    pub residual_ratio: f64,
    /// Mean correlation of the energy contours.
    pub energy_correlation: f64,
    /// Mean correlation of log F0 over frames voiced in both, weighted by the number of these frames.
    pub pitch_correlation: Option<f64>,
    /// The scores of each utterance.
    pub per_utterance: Vec<UtteranceScores>,
}

/// The accumulated scores of a split.
pub struct Evaluation {
    baselines: Baselines,
    real_spread: Spread,
    sample_spread: Spread,
    real_residual: Residual,
    sample_residual: Residual,
    evaluations: Vec<usize>,
    utterances: Vec<UtteranceScores>,
}

impl Evaluation {
    /// Creates an empty evaluation with these baselines.
    pub fn new(baselines: Baselines) -> Self {
        Self {
            baselines,
            real_spread: Spread::default(),
            sample_spread: Spread::default(),
            real_residual: Residual::default(),
            sample_residual: Residual::default(),
            evaluations: Vec::new(),
            utterances: Vec::new(),
        }
    }

    /// Returns the baselines, so that they can be completed.
    pub fn baselines(&mut self) -> &mut Baselines {
        &mut self.baselines
    }

    /// Adds an utterance. Returns `None` if there are fewer than two samples, their shapes differ, or nothing can be
    /// compared.
    pub fn add(&mut self, utt: &str, comparison: &Comparison) -> Option<&UtteranceScores> {
        let Comparison { real_mel, samples, .. } = comparison;
        let mean = mean_of(samples)?;
        let first = samples.first().filter(|_| samples.len() > 1)?;
        let frames = real_mel.frames.min(mean.frames);
        let distance_db = self.distances(comparison, &mean, first)?;
        self.real_spread.add(real_mel, frames);
        self.sample_spread.add(first, frames);
        self.real_residual.add(real_mel, &mean);
        self.sample_residual.add(first, &mean_of(&samples[1..])?);
        self.evaluations.extend(comparison.evaluations);
        let pitch = pitch_correlation(comparison.real_pitch, comparison.generated_pitch);
        let energy = |wav| energy_contour(wav, comparison.hop_length);
        self.utterances.push(UtteranceScores {
            utt: utt.to_owned(),
            frames,
            distance_db,
            energy_correlation: correlation(&energy(comparison.real_wav), &energy(comparison.generated_wav)),
            pitch_correlation: pitch.map(|(value, _)| value),
            voiced_frames: pitch.map_or(0, |(_, frames)| frames),
        });
        self.utterances.last()
    }

    fn distances(&self, comparison: &Comparison, mean: &Features, first: &Features) -> Option<Distances> {
        let to_real = |mel: &Features| log_spectral_distance(mel, comparison.real_mel).ok();
        let baseline = |which| to_real(&self.baselines.predict(which, comparison.speaker, comparison.tokens));
        Some(Distances {
            mean_of_samples: to_real(mean)?,
            single_sample: to_real(first)?,
            corpus_mean: baseline(Baseline::Corpus)?,
            unit_mean: baseline(Baseline::Unit)?,
            unit_and_speaker_mean: baseline(Baseline::UnitAndSpeaker)?,
        })
    }

    /// Returns the scores of all utterances that were added.
    pub fn finish(self, split: &str, samples: usize, solver: Method) -> Scores {
        let by_frames = |value: fn(&UtteranceScores) -> Option<f64>| {
            weighted_mean(self.utterances.iter().map(|u| (value(u), u.frames)))
        };
        let distance = |value: fn(&Distances) -> f64| {
            weighted_mean(self.utterances.iter().map(|u| (Some(value(&u.distance_db)), u.frames))).unwrap_or(0.0)
        };
        let (real, sample) = (self.real_spread.decibels(), self.sample_spread.decibels());
        Scores {
            split: split.to_owned(),
            utterances: self.utterances.len(),
            frames: self.utterances.iter().map(|u| u.frames).sum(),
            samples,
            solver,
            evaluations_per_sample: self.evaluations.iter().sum::<usize>() as f64
                / self.evaluations.len().max(1) as f64,
            distance_db: Distances {
                mean_of_samples: distance(|d| d.mean_of_samples),
                single_sample: distance(|d| d.single_sample),
                corpus_mean: distance(|d| d.corpus_mean),
                unit_mean: distance(|d| d.unit_mean),
                unit_and_speaker_mean: distance(|d| d.unit_and_speaker_mean),
            },
            real_spread_db: real,
            sample_spread_db: sample,
            spread_ratio: ratio(sample, real),
            residual_ratio: ratio(self.sample_residual.decibels(), self.real_residual.decibels() * correction(samples)),
            energy_correlation: by_frames(|u| u.energy_correlation).unwrap_or(0.0),
            pitch_correlation: weighted_mean(self.utterances.iter().map(|u| (u.pitch_correlation, u.voiced_frames))),
            per_utterance: self.utterances,
        }
    }
}

/// Returns the ratio of two factors: a sample differs from the mean of n − 1 others by σ √(n / (n − 1)), and a
/// recording of the same distribution from the mean of n samples by σ √((n + 1) / n).
fn correction(samples: usize) -> f64 {
    let n = samples as f64;
    ((n / (n - 1.0)) / ((n + 1.0) / n)).sqrt()
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

fn weighted_mean(values: impl Iterator<Item = (Option<f64>, usize)>) -> Option<f64> {
    let (sum, weight) = values
        .filter_map(|(value, weight)| Some((value?, weight as f64)))
        .fold((0.0, 0.0), |(sum, total), (value, weight)| (sum + value * weight, total + weight));
    (weight > 0.0).then(|| sum / weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mel(values: &[f32]) -> Features {
        Features { data: values.to_vec(), frames: values.len(), bins: 1 }
    }

    #[test]
    fn a_model_that_repeats_the_recording_is_at_distance_zero_with_spread_one() {
        let mut baselines = Baselines::new(1, 2);
        baselines.add("a", &[0, 1], &mel(&[0.0, 0.0, 2.0, 2.0]));
        let mut evaluation = Evaluation::new(baselines);
        let real = mel(&[0.0, 1.0, 2.0, 3.0]);
        let wav: Vec<f32> = (0..40).map(|i| (i as f32 / 40.0).powi(2)).collect();
        let pitch: Vec<Option<f32>> = (0..20).map(|i| Some(100.0 + i as f32)).collect();
        let comparison = Comparison {
            speaker: "a",
            tokens: &[0, 1],
            real_mel: &real,
            samples: &[real.clone(), real.clone()],
            evaluations: &[10, 20],
            real_wav: &wav,
            generated_wav: &wav,
            real_pitch: &pitch,
            generated_pitch: &pitch,
            hop_length: 4,
        };
        assert!(evaluation.add("u", &comparison).is_some());
        let scores = evaluation.finish("dev", 2, Method::Dopri5);
        assert_eq!((scores.distance_db.mean_of_samples, scores.evaluations_per_sample), (0.0, 15.0));
        assert!(scores.distance_db.unit_mean > 1.0 && scores.distance_db.corpus_mean > scores.distance_db.unit_mean);
        assert!((scores.spread_ratio - 1.0).abs() < 1e-9);
        assert!((scores.energy_correlation - 1.0).abs() < 1e-9);
        assert_eq!(scores.pitch_correlation.map(|r| (r * 1e6).round()), Some(1e6));
    }
}
