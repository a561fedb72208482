//! Noise that is added to recordings: the codes of the noisy recordings, and of the noise alone.
//!
//! The noise of a recording, its part and its loudness are functions of the seed and of the samples of the recording, so they do not
//! depend on other rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowmill_audio::{Audio, AudioError, Decoder, resample};
use flowmill_extract::{Column, ExtractError, Extracted, Extractor, Media, NOISE_CODES, NOISY_CODES, ValueType};
use flowmill_nn::random::RngKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Root mean square below which a recording of noise is silence: -80 dB of full scale.
const SILENCE: f64 = 1e-4;
/// The largest ratio of speech and noise, in decibels.
const LARGEST_RATIO: f64 = 100.0;

/// Noise that is added to recordings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoiseConfig {
    /// A folder of recordings of noise, in any format. Files in folders below it are not read.
    ///
    /// Counterparts: VALL-E's `dataset.noise`.
    pub dir: String,
    /// The smallest and the largest ratio of the powers of speech and noise, in decibels. The ratio of a recording is
    /// drawn between them.
    ///
    /// Counterparts: VALL-E's `dataset.noise_scale`.
    #[serde(default = "usual_ratios")]
    pub snr: [f64; 2],
}

fn usual_ratios() -> [f64; 2] {
    [5.0, 20.0]
}

/// The key of a section with noise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct NoiseSettings {
    /// Noise that is added to the recordings of a codec, for models that learn to remove it: two more columns,
    /// `noisy_codes` and `noise_codes`. `null` for none.
    pub noise: Option<NoiseConfig>,
}

impl NoiseConfig {
    /// Returns the key that cannot be used, and the reason.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let [least, most] = self.snr;
        if !(-LARGEST_RATIO..=LARGEST_RATIO).contains(&least) || !(least..=LARGEST_RATIO).contains(&most) {
            let range = format!("-{LARGEST_RATIO} to {LARGEST_RATIO}");
            return Err(("snr", format!("[{least}, {most}] is not a range of decibels within {range}")));
        }
        if self.dir.is_empty() { Err(("dir", "name a folder".to_owned())) } else { Ok(()) }
    }

    /// Returns the recordings of noise, sorted by name; `root` is the folder of the recipe.
    ///
    /// # Errors
    /// Returns the reason why there is none.
    pub(crate) fn files(&self, root: &Path) -> Result<Vec<PathBuf>, String> {
        let folder = root.join(&self.dir);
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let is_file = |path: &PathBuf| {
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            path.is_file() && !hidden
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_file).collect();
        files.sort();
        if files.is_empty() { Err(format!("{}: no recording of noise", folder.display())) } else { Ok(files) }
    }
}

/// Returns the columns that noise adds to those of a codec; none without codes.
pub(crate) fn columns(own: &[Column]) -> Vec<Column> {
    let codes = own.iter().find(|column| matches!(column.values, ValueType::Codes { .. }));
    let renamed = |name: &str| {
        codes.map(|codes| Column::from(flowmill_corpus::ColumnSpec { name: name.to_owned(), ..codes.spec.clone() }))
    };
    [NOISY_CODES, NOISE_CODES].into_iter().filter_map(renamed).collect()
}

/// Recordings of noise.
#[derive(Debug)]
pub(crate) struct Noises {
    files: Vec<PathBuf>,
    snr: [f64; 2],
    rng_key: RngKey,
}

impl Noises {
    /// Prepares the mixing with these recordings, of which there is at least one.
    pub(crate) fn new(files: Vec<PathBuf>, snr: [f64; 2], seed: u64) -> Self {
        Self { files, snr, rng_key: RngKey::new(seed).purpose("noise of recordings") }
    }

    /// Returns speech with noise, and the noise as it is in it.
    ///
    /// # Errors
    /// [`ExtractError::Machine`] if no recording of noise can be read and heard.
    fn mixed(&self, speech: &[f32], sample_rate: u32) -> Result<[Vec<f32>; 2], ExtractError> {
        let rng_key = self.rng_key.sample(digest(speech));
        let count = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        let first = rng_key.purpose("file").below_at(0, count) as usize;
        // A recording that cannot be used is replaced by the next one: no row is lost for it.
        let noise =
            (0..self.files.len()).find_map(|at| audible(&self.files[(first + at) % self.files.len()], sample_rate));
        let noise = noise.ok_or_else(|| {
            ExtractError::Machine("no recording in tokens.noise.dir can be read and heard".to_owned())
        })?;
        let room = u32::try_from(noise.len().saturating_sub(speech.len()) + 1).unwrap_or(u32::MAX);
        let start = rng_key.purpose("start").below_at(0, room) as usize;
        let noise: Vec<f32> = noise.iter().copied().cycle().skip(start).take(speech.len()).collect();
        let [least, most] = self.snr;
        let ratio = least + (most - least) * f64::from(rng_key.purpose("ratio").uniform_at(0));
        let factor = loudness(speech) / loudness(&noise).max(SILENCE) * 10f64.powf(-ratio / 20.0);
        let noise: Vec<f32> = noise.into_iter().map(|sample| (f64::from(sample) * factor) as f32).collect();
        Ok([speech.iter().zip(&noise).map(|(speech, noise)| speech + noise).collect(), noise])
    }
}

/// Returns the samples of a recording of noise; `None` if it cannot be read or is silent.
fn audible(file: &Path, sample_rate: u32) -> Option<Vec<f32>> {
    let audio = Decoder::with_ffmpeg().decode_file(file).ok()?;
    let own = audio.sample_rate;
    let samples = resample(&audio.into_mono(), own, sample_rate).ok()?;
    (loudness(&samples) >= SILENCE).then_some(samples)
}

/// Returns the root mean square.
fn loudness(samples: &[f32]) -> f64 {
    let power: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (power / samples.len().max(1) as f64).sqrt()
}

/// Returns a number that identifies samples (FNV-1a).
fn digest(samples: &[f32]) -> u64 {
    let step = |digest: u64, sample: &f32| (digest ^ u64::from(sample.to_bits())).wrapping_mul(0x0100_0000_01b3);
    samples.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// A codec that also gives the codes of recordings with noise.
pub(crate) struct NoisyExtractor {
    codec: Arc<dyn Extractor>,
    noises: Arc<Noises>,
}

impl NoisyExtractor {
    /// Adds noise to the recordings of a codec.
    pub(crate) fn new(codec: Arc<dyn Extractor>, noises: Arc<Noises>) -> Self {
        Self { codec, noises }
    }
}

impl Extractor for NoisyExtractor {
    fn kind(&self) -> &'static str {
        self.codec.kind()
    }

    fn columns(&self) -> Vec<Column> {
        let own = self.codec.columns();
        let more = columns(&own);
        [own, more].concat()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let mut values = self.codec.extract(media)?.into_arrays();
        let (speech, sample_rate) = media.as_audio(self.kind())?.recorded()?;
        let [noisy, noise] = self.noises.mixed(speech, sample_rate)?;
        let at = self.codec.columns().iter().position(|column| matches!(column.values, ValueType::Codes { .. }));
        for samples in [noisy, noise] {
            let load = move || {
                Ok::<_, AudioError>(Audio { samples: vec![samples.clone()], sample_rate, warnings: Vec::new() })
            };
            let arrays = self.codec.extract(&Media::audio(load))?.into_arrays();
            values.extend(arrays.into_iter().nth(at.unwrap_or(0)));
        }
        Ok(Extracted::new(values))
    }

    fn rows_per_batch(&self) -> usize {
        self.codec.rows_per_batch()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_ratio_and_depends_on_the_recording_only() {
        let folder = tempfile::tempdir().unwrap();
        let tone = |hertz: f32, count: usize| -> Vec<f32> {
            (0..count).map(|at| 0.3 * (at as f32 * hertz * std::f32::consts::TAU / 8000.0).sin()).collect()
        };
        let write = |name: &str, samples: &[f32]| {
            let mut file = std::fs::File::create(folder.path().join(name)).unwrap();
            flowmill_audio::write_wav(&mut file, samples, 8000).unwrap();
        };
        write("a.wav", &tone(500.0, 3000));
        write("b.wav", &vec![0.0; 4000]);
        std::fs::write(folder.path().join("c.txt"), "no sound").unwrap();
        let config = NoiseConfig { dir: folder.path().display().to_string(), snr: [6.0, 6.0] };
        let files = config.files(Path::new("")).unwrap();
        assert_eq!(files.len(), 3);
        let noises = Noises::new(files, config.snr, 1);
        let speech = tone(200.0, 8000);
        let [noisy, noise] = noises.mixed(&speech, 8000).unwrap();
        let ratio = 20.0 * (loudness(&speech) / loudness(&noise)).log10();
        assert!((ratio - 6.0).abs() < 0.1, "{ratio}");
        assert!(
            noisy.iter().zip(&speech).zip(&noise).all(|((mixed, speech), noise)| (mixed - speech - noise).abs() < 1e-6)
        );
        assert_eq!(noises.mixed(&speech, 8000).unwrap(), [noisy, noise]);
        let silent = Noises::new(vec![folder.path().join("b.wav"), folder.path().join("gone.wav")], config.snr, 1);
        assert!(matches!(silent.mixed(&speech, 8000), Err(ExtractError::Machine(_))));
    }

    #[test]
    fn impossible_settings_are_named() {
        let config = |snr| NoiseConfig { dir: "noise".to_owned(), snr };
        assert_eq!(config([0.0, 10.0]).check(), Ok(()));
        for bad in [[10.0, 0.0], [f64::NAN, 1.0], [0.0, 1e9]] {
            assert_eq!(config(bad).check().unwrap_err().0, "snr");
        }
        assert!(config([0.0, 1.0]).files(Path::new("/no/such")).is_err());
    }
}
