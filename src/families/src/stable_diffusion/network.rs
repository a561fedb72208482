//! The networks, for training, validation and previews.
//!
//! The autoencoder and the U-Net are trained at the same time. The U-Net reads latents without a gradient to the autoencoder, so neither
//! changes what the other one learns. The factor that brings latents to a deviation of 1 is learned along: its logarithm follows that of
//! the latents of each batch.

use flowmill_family::{BoxError, ExtractorFiles, Loss, Made, Model};
use flowmill_networks::clip::TextTower;
use flowmill_networks::stable_diffusion::sampling::Schedule;
use flowmill_networks::stable_diffusion::{Autoencoder, UNet};
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, ParameterId, Parameters, Ragged, Value, host};

use super::example::{Example, ExampleBatch};
use super::files::rasters;
use super::sampling::Diffusion;
use super::tokenizer::ClipTokenizer;
use super::{Description, Sampling, StableDiffusion, StableDiffusionConfig};
use crate::image_sheet::Sheet;

/// A tenth of the logarithm of the factor from latents to the U-Net's samples.
pub const LOG_SCALE: &str = "log_scaling_factor";
/// The multiple of the parameter that is the logarithm: optimizers change it as much faster than other parameters.
const SCALE_GAIN: f32 = 10.0;
/// Weight of the squared error of the logarithm, too small to count in the norm of the gradient.
const SCALE_WEIGHT: f32 = 1e-3;

/// Returns the factor from latents to the U-Net's samples.
///
/// # Errors
/// When the parameter has no element.
pub fn scaling_factor(parameter: &candle_core::Tensor) -> Result<f32, BoxError> {
    let logarithm = host::read(parameter)?.first().copied().ok_or("the scaling factor is missing")?;
    Ok((SCALE_GAIN * logarithm).exp())
}

/// The networks of the family.
pub struct Network {
    autoencoder: Autoencoder,
    unet: UNet,
    text: TextTower,
    tokenizer: ClipTokenizer,
    schedule: Schedule,
    log_scale: ParameterId,
    config: StableDiffusionConfig,
}

/// The losses of a batch.
struct Losses {
    reconstruction: Value,
    divergence: Value,
    noise: Value,
    scale: Value,
}

impl Network {
    /// Creates the networks with random weights.
    ///
    /// # Errors
    /// When the settings are inconsistent.
    pub fn new(config: &StableDiffusionConfig, seed: u64) -> Result<(Self, Parameters), BoxError> {
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, RngKey::new(seed).purpose("initial weights"));
        let tokenizer = ClipTokenizer::new(&config.merges)?;
        let autoencoder = Autoencoder::new(builder.scope("vae"), &config.autoencoder_config(1.0))?;
        let text = TextTower::new(builder.scope("text_encoder").scope("text_model"), &config.text_config(&tokenizer))?;
        let unet = UNet::new(builder.scope("unet"), &config.unet_config())?;
        let log_scale = builder.add(LOG_SCALE, &[1], Init::Constant(0.0))?;
        let schedule = Schedule::new(&config.schedule_config())?;
        Ok((Self { autoencoder, unet, text, tokenizer, schedule, log_scale, config: config.clone() }, parameters))
    }

    /// Returns images `[item, height, width, 3]` with values from -1 to 1.
    pub(super) fn images(&self, examples: &[Example]) -> Result<Value, BoxError> {
        let size = self.config.image_size;
        let values = examples.iter().flat_map(Example::values).collect();
        Ok(Value::from_vec(values, &[examples.len(), size, size, 3])?)
    }

    /// Returns the conditions of captions, `[item, token, channel]`.
    pub(super) fn captions(&self, context: &Context, captions: &[&str]) -> Result<Value, BoxError> {
        let length = self.config.text_encoder.max_position_embeddings;
        let tokens: Vec<Vec<u32>> = captions.iter().map(|caption| self.tokenizer.encode(caption, length)).collect();
        Ok(self.text.forward(context, &tokens)?.hidden)
    }

    fn scale(&self, context: &Context) -> Result<f32, BoxError> {
        scaling_factor(context.parameter(self.log_scale).tensor())
    }

    /// Returns the mean squared error of the predicted noise. `latents` are plain, not scaled, `captions` one per item; each item gets
    /// `draws` noise levels.
    pub(super) fn noise_loss(
        &self,
        context: &Context,
        latents: &Value,
        captions: &[&str],
        (examples, draws): (&[Example], usize),
        rng_key: &RngKey,
    ) -> Result<Value, BoxError> {
        let scale = self.scale(context)?;
        let elements = host::read(latents.tensor())?;
        let size = elements.len() / examples.len().max(1);
        let total = self.schedule.alphas().len() as u32;
        let (mut scaled, mut noise, mut steps, mut repeated) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for draw in 0..draws as u64 {
            for (item, (example, latent)) in examples.iter().zip(elements.chunks_exact(size.max(1))).enumerate() {
                let key = rng_key.purpose("noise").sample(example.sample ^ draw << 48);
                scaled.extend(latent.iter().map(|x| x * scale));
                noise.extend(key.normals(size));
                steps.push(key.purpose("step").below_at(0, total));
                repeated.push(captions[item]);
            }
        }
        let shape = [&[draws * examples.len()], &latents.dims()[1..]].concat();
        let (scaled, noise) = (Value::from_vec(scaled, &shape)?, Value::from_vec(noise, &shape)?);
        let conditions = self.captions(context, &repeated)?;
        let noisy = self.schedule.add_noise(&scaled, &noise, &steps)?;
        let target = self.schedule.target(&scaled, &noise, &steps)?;
        let steps: Vec<f32> = steps.iter().map(|step| *step as f32).collect();
        let prediction = self.unet.forward(context, &noisy, &steps, &conditions)?;
        Ok(prediction.mean_square_error(&target, &Ragged::packed(&[prediction.rows()]))?)
    }

    fn losses(&self, context: &Context, batch: &ExampleBatch, rng_key: &RngKey) -> Result<Losses, BoxError> {
        let ExampleBatch { examples, options } = batch;
        let images = self.images(examples)?;
        let posterior = self.autoencoder.encode(context, &images)?;
        let size = posterior.mean.dims()[1..].iter().product();
        let draw = |example: &Example| rng_key.purpose("latents").sample(example.sample).normals(size);
        let noise = Value::from_vec(examples.iter().flat_map(draw).collect(), posterior.mean.dims())?;
        let latents = posterior.sample(&noise)?;
        let decoded = self.autoencoder.decode(context, &latents)?;
        let reconstruction = decoded.mean_square_error(&images, &Ragged::packed(&[images.rows()]))?;
        let divergence = posterior.divergence()?.affine(1.0 / size as f32, 0.0)?;
        let latents = latents.detach();
        let left_out = |example: &Example| {
            context.is_training()
                && rng_key.purpose("caption").sample(example.sample).uniform_at(0) < options.caption_dropout
        };
        let captions: Vec<&str> =
            examples.iter().map(|example| if left_out(example) { "" } else { example.caption.as_str() }).collect();
        let noise = self.noise_loss(context, &latents, &captions, (examples, options.draws_per_image), rng_key)?;
        let elements = host::read(latents.tensor())?;
        let square = elements.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / elements.len().max(1) as f64;
        let wanted = -0.5 * square.max(1e-12).ln() as f32;
        let error = context.parameter(self.log_scale).affine(SCALE_GAIN, -wanted)?;
        let scale = error.multiply(&error)?.sum()?.affine(SCALE_WEIGHT, 0.0)?;
        Ok(Losses { reconstruction, divergence, noise, scale })
    }

    /// Returns the reconstructions of images.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn reconstruct(
        &self,
        context: &Context,
        examples: &[Example],
    ) -> Result<Vec<flowmill_image::Raster>, BoxError> {
        let posterior = self.autoencoder.encode(context, &self.images(examples)?)?;
        rasters(&self.autoencoder.decode(context, &posterior.mean)?)
    }

    /// Returns the mean latents of images, not scaled.
    pub(super) fn latents(&self, context: &Context, examples: &[Example]) -> Result<Value, BoxError> {
        Ok(self.autoencoder.encode(context, &self.images(examples)?)?.mean.detach())
    }

    /// Returns an image sampled for each caption.
    ///
    /// # Errors
    /// When the settings cannot be used, or a prediction is not finite.
    pub fn sample(
        &self,
        context: &Context,
        captions: &[&str],
        sampling: &Sampling,
        rng_key: &RngKey,
    ) -> Result<Vec<flowmill_image::Raster>, BoxError> {
        let with = self.captions(context, captions)?;
        let without = self.captions(context, &vec![""; captions.len()])?;
        let diffusion = Diffusion { unet: &self.unet, context, schedule: &self.schedule };
        let keys: Vec<RngKey> = (0..captions.len() as u64).map(|item| rng_key.sample(item)).collect();
        let size = [self.config.latent_size(); 2];
        let latents = diffusion.sample(sampling, [&with, &without], size, &keys, &mut |_, _| {})?;
        rasters(&self.autoencoder.decode(context, &latents.affine(1.0 / self.scale(context)?, 0.0)?)?)
    }

    /// Returns a sheet with the images, their reconstructions, and samples for their captions.
    pub(super) fn sheet(
        &self,
        context: &Context,
        examples: &[(&str, &Example)],
        sampling: &Sampling,
        rng_key: &RngKey,
    ) -> Result<Sheet, BoxError> {
        let own: Vec<Example> = examples.iter().map(|(_, example)| (*example).clone()).collect();
        let captions: Vec<&str> = own.iter().map(|example| example.caption.as_str()).collect();
        let reconstructed = self.reconstruct(context, &own)?;
        let sampled = self.sample(context, &captions, sampling, rng_key)?;
        let size = self.config.image_size as u32;
        let mut rows = Vec::new();
        for (((id, example), reconstructed), sampled) in examples.iter().zip(reconstructed).zip(sampled) {
            let image = flowmill_image::Raster::new(size, size, example.pixels.clone())?;
            rows.push(((*id).to_owned(), vec![vec![image], vec![reconstructed], vec![sampled]]));
        }
        let columns = ["image", "reconstruction", "sample for the caption"].map(str::to_owned).to_vec();
        Ok(Sheet { columns, rows })
    }
}

impl Model<StableDiffusion> for Network {
    fn loss(&self, context: &Context<'_>, batch: &ExampleBatch, rng_key: RngKey) -> Result<Loss, BoxError> {
        let Losses { reconstruction, divergence, noise, scale } = self.losses(context, batch, &rng_key)?;
        let parts = host::scalars(&[&reconstruction, &divergence, &noise])?;
        let total = reconstruction.add(&divergence.affine(batch.options.divergence_weight, 0.0)?)?.add(&noise)?;
        let names = ["loss.reconstruction", "loss.divergence", "loss.noise"];
        let mut parts: Vec<(&'static str, f64)> =
            names.into_iter().zip(parts).map(|(name, part)| (name, f64::from(part))).collect();
        parts.push(("scaling_factor", f64::from(self.scale(context)?)));
        // The scale has its own minimum, and is no part of the score of a checkpoint.
        let total = if context.is_training() { total.add(&scale)? } else { total };
        Ok(Loss { total, parts, weight: batch.examples.len() as f64 })
    }

    fn preview(
        &self,
        context: &Context<'_>,
        examples: &[(String, Example)],
        description: &Description,
        _: &ExtractorFiles,
        rng_key: RngKey,
    ) -> Result<Vec<Made>, BoxError> {
        let examples: Vec<(&str, &Example)> = examples.iter().map(|(id, example)| (id.as_str(), example)).collect();
        Ok(vec![self.sheet(context, &examples, &description.sampling, &rng_key)?.made("images")?])
    }
}
