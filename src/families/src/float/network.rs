//! The network, for training, validation and previews.

use flowmill_family::{BoxError, ExtractorFiles, Loss, Made, Model};
use flowmill_networks::float::{Draws, DropoutConfig, Float as FloatNetwork, FloatConfig, MotionRequest, Window};
use flowmill_nn::Context;
use flowmill_nn::random::RngKey;

use super::contact_sheet::{Faces, Sheet};
use super::example::{Example, ExampleBatch};
use super::measures::{distance, mean, mouth_correlation, opening};
use super::rendering::Rendering;
use super::{Description, Float, MOTION_EXTRACTOR};

/// The network of the family.
pub struct Network(pub FloatNetwork);

impl Model<Float> for Network {
    fn loss(&self, context: &Context<'_>, batch: &ExampleBatch, rng_key: RngKey) -> Result<Loss, BoxError> {
        let training = context.is_training();
        let dropout = if training { &batch.dropout } else { &DropoutConfig::NONE };
        let draws = Draws::from_rng_key(&rng_key, &batch.batch, dropout)?;
        let loss = self.0.loss(context, &batch.batch, &draws)?;
        let sampled = if training { Sampled::default() } else { self.sampled(context, batch, &rng_key)? };
        let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let parts = vec![
            ("loss.current", loss.current),
            ("loss.previous", if loss.previous.is_finite() { loss.previous } else { f64::NAN }),
            ("distance", number(sampled.distance)),
            ("distance.still", number(sampled.still)),
            ("mouth", number(sampled.mouth)),
        ];
        Ok(Loss { total: loss.total, parts, weight: loss.weight })
    }

    fn preview(
        &self,
        context: &Context<'_>,
        examples: &[(String, Example)],
        description: &Description,
        extractors: &ExtractorFiles,
        rng_key: RngKey,
    ) -> Result<Vec<Made>, BoxError> {
        let rendering = Rendering::open(extractors.path(MOTION_EXTRACTOR)?, &candle_core::Device::Cpu)?;
        let requests: Vec<MotionRequest> = examples
            .iter()
            .map(|(_, Example { clip, .. })| MotionRequest {
                audio: clip.speech.clone(),
                reference: clip.reference.clone(),
                emotion: clip.emotion.clone(),
            })
            .collect();
        let motions = description.sampling.sample(&self.0, context, &requests, &rng_key)?;
        let mut made = Vec::new();
        for ((id, Example { clip, .. }), motion) in examples.iter().zip(&motions) {
            let frames = |motion: &[f32]| rendering.frames(clip.portrait.as_ref(), motion);
            let (real, generated) = (frames(&clip.motion)?, frames(motion)?);
            let channels = self.0.config().dim_w;
            let open = |motion: &[f32]| opening(motion, channels, &description.mouth);
            let sheet = Sheet {
                title: id,
                fps: f64::from(description.fps),
                faces: Faces::of(real.as_deref(), generated.as_deref()),
                openings: [&open(&clip.motion), &open(motion)],
                envelope: &[],
            };
            made.push(sheet.made(id)?);
            made.extend(generated.map(|frames| rendering.video(id, frames, description.fps, None)));
        }
        Ok(made)
    }
}

/// Measures of sampled windows; none in training.
#[derive(Default)]
struct Sampled {
    distance: Option<f64>,
    /// The distance of motion that is zero.
    still: Option<f64>,
    mouth: Option<f64>,
}

impl Network {
    /// Samples the windows of a batch and compares them with the real motion.
    fn sampled(&self, context: &Context<'_>, batch: &ExampleBatch, rng_key: &RngKey) -> Result<Sampled, BoxError> {
        let FloatConfig { num_prev_frames: previous, dim_w, .. } = *self.0.config();
        let before = previous * self.0.config().audio_width();
        let request = |window: &Window| MotionRequest {
            audio: window.audio[before..].to_vec(),
            reference: window.reference.clone(),
            emotion: window.emotion.clone(),
        };
        let requests: Vec<MotionRequest> = batch.windows.iter().map(request).collect();
        let motions = batch.sampling.sample(&self.0, context, &requests, rng_key)?;
        let real = |window: &Window| window.motion[previous * dim_w..].to_vec();
        let pairs: Vec<(Vec<f32>, Vec<f32>)> = batch.windows.iter().map(real).zip(motions).collect();
        Ok(Sampled {
            distance: mean(pairs.iter().filter_map(|(real, motion)| distance(real, motion))),
            still: mean(pairs.iter().filter_map(|(real, _)| distance(real, &vec![0.0; real.len()]))),
            mouth: mean(pairs.iter().filter_map(|(real, motion)| mouth_correlation(real, motion, dim_w, &batch.mouth))),
        })
    }
}
