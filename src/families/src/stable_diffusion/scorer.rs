//! The scorer: reconstructs images, predicts their noise, and samples images for their captions.

use std::sync::Arc;

use flowmill_corpus::{ColumnSpec, Row};
use flowmill_family::{BoxError, Loaded, Report, Scored, Scorer};
use flowmill_image::measure::peak_signal_to_noise;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters};
use serde_json::json;

use super::example::{self, Example};
use super::network::Network;
use super::scores::{ImageScores, Scores};
use super::{ExportOptions, StableDiffusion, StableDiffusionConfig};

/// Noise levels per image.
const DRAWS: usize = 8;
/// Most images on the sheet.
const SHOWN: usize = 16;

/// Scores a split.
pub struct ImageScorer {
    config: StableDiffusionConfig,
    network: Network,
    parameters: Parameters,
    options: ExportOptions,
    rng_key: RngKey,
    /// Sums of the training's pixels, and the number of images.
    sums: Vec<f64>,
    images: u64,
    scores: Vec<ImageScores>,
    has_sheet: bool,
}

impl ImageScorer {
    /// Prepares scoring a model.
    pub fn new(loaded: Loaded<StableDiffusion>, options: ExportOptions, seed: u64) -> Self {
        let Loaded { config, model, parameters, .. } = loaded;
        Self {
            sums: vec![0.0; 3 * config.image_size * config.image_size],
            config,
            network: model,
            parameters,
            options,
            rng_key: RngKey::new(seed).purpose("scores"),
            images: 0,
            scores: Vec::new(),
            has_sheet: false,
        }
    }

    fn score_one(&self, id: &str, example: &Example, other: &str) -> Result<ImageScores, BoxError> {
        let context = Context::inference(&self.parameters);
        let own = std::slice::from_ref(example);
        let reconstructed = self.network.reconstruct(&context, own)?;
        let reconstructed = reconstructed.first().map(|image| image.pixels().to_vec()).unwrap_or_default();
        let mean: Vec<u8> = self.sums.iter().map(|sum| (sum / self.images.max(1) as f64).round() as u8).collect();
        let latents = self.network.latents(&context, own)?;
        let noise = |caption: &str| -> Result<f64, BoxError> {
            let loss = self.network.noise_loss(&context, &latents, &[caption], (own, DRAWS), &self.rng_key)?;
            Ok(f64::from(loss.scalar()?))
        };
        Ok(ImageScores {
            image: id.to_owned(),
            reconstruction: ratio(&example.pixels, &reconstructed),
            mean_image: ratio(&example.pixels, &mean),
            noise: noise(&example.caption)?,
            noise_other_caption: noise(other)?,
            noise_no_caption: noise("")?,
        })
    }
}

/// Returns the signal-to-noise ratio of bytes, in decibels; at most 99.
fn ratio(real: &[u8], found: &[u8]) -> f64 {
    let squares = real.iter().zip(found).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2) / (255.0 * 255.0));
    peak_signal_to_noise(squares.sum::<f64>() / real.len().max(1) as f64).min(99.0)
}

impl Scorer for ImageScorer {
    fn columns(&self) -> Vec<ColumnSpec> {
        example::columns(&self.config)
    }

    fn learn(&mut self, row: &Row) -> Result<(), BoxError> {
        let example = Example::of(row, &self.config, 0)?;
        self.sums.iter_mut().zip(&example.pixels).for_each(|(sum, byte)| *sum += f64::from(*byte));
        self.images += 1;
        Ok(())
    }

    fn score(&mut self, rows: &[Arc<Row>], interrupted: &dyn Fn() -> bool) -> Result<Vec<Scored>, BoxError> {
        let first = self.scores.len() as u64;
        let numbered = rows.iter().zip(first..);
        let examples: Vec<Result<Example, String>> = numbered
            .map(|(row, number)| Example::of(row, &self.config, number).map_err(|fault| fault.to_string()))
            .collect();
        let mut scored = Vec::new();
        for (at, (row, example)) in rows.iter().zip(&examples).enumerate() {
            if interrupted() {
                break;
            }
            let example = match example {
                Ok(example) => example,
                Err(reason) => {
                    scored.push(Err(reason.clone()));
                    continue;
                }
            };
            let others = (1..rows.len()).filter_map(|step| examples[(at + step) % rows.len()].as_ref().ok());
            let other = others.map(|other| other.caption.as_str()).find(|other| *other != example.caption);
            let scores = self.score_one(&row.id, example, other.unwrap_or_default())?;
            self.scores.push(scores);
            scored.push(Ok(Vec::new()));
        }
        let shown: Vec<(&str, &Example)> = rows
            .iter()
            .zip(&examples)
            .filter_map(|(row, example)| Some((row.id.as_str(), example.as_ref().ok()?)))
            .take(SHOWN)
            .collect();
        if let Some(Ok(made)) = scored.iter_mut().find(|scored| scored.is_ok()).filter(|_| !self.has_sheet) {
            let context = Context::inference(&self.parameters);
            let sheet = self.network.sheet(&context, &shown, &self.options.images, &self.rng_key.purpose("samples"))?;
            made.push(sheet.made("images")?);
            self.has_sheet = true;
        }
        Ok(scored)
    }

    fn finish(self: Box<Self>, split: &str) -> Report {
        let scores = Scores::of(split, self.scores);
        let facts = vec![
            ("reconstruction_db", scores.mean.reconstruction),
            ("mean_image_db", scores.mean.mean_image),
            ("noise", scores.mean.noise),
            ("noise_other_caption", scores.mean.noise_other_caption),
            ("noise_no_caption", scores.mean.noise_no_caption),
        ];
        Report { lines: scores.lines(), facts, rows: scores.images as u64, scores: json!(scores) }
    }
}
