//! The network, for training and validation.

use flowmill_family::{BoxError, ExtractorFiles, Loss, Made, Model};
use flowmill_networks::pmg::Pmg as PmgNetwork;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Ragged, Value};

use super::rows::User;
use super::{Description, Pmg};

/// The network of the family.
pub struct Network {
    /// The soft prompts with the frozen networks.
    pub pmg: PmgNetwork,
    /// The factor from latents to the U-Net's samples.
    pub scaling_factor: f32,
    /// Height and width of latents.
    pub latent_size: usize,
}

/// A user with the number that identifies it in random draws.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The user.
    pub user: User,
    /// The number.
    pub sample: u64,
}

/// A batch of users.
#[derive(Debug, Clone)]
pub struct ExampleBatch {
    /// The users.
    pub examples: Vec<Example>,
    /// Number of noise levels per user.
    pub draws: usize,
}

impl Network {
    /// Returns the conditions of prompts, `[item, prompt, channel]`.
    ///
    /// # Errors
    /// When a prompt is empty or too long.
    pub fn conditions(&self, context: &Context, examples: &[Example]) -> Result<Value, BoxError> {
        let texts: Vec<Vec<u32>> = examples.iter().map(|example| example.user.tokens.clone()).collect();
        Ok(self.pmg.conditions(context, &texts)?)
    }

    /// Returns the mean squared error of the predicted noise, in single precision. `conditions` are `[item, row, channel]`; each target gets
    /// `draws` noise levels, with a draw of its latents for each.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn noise_loss(
        &self,
        context: &Context,
        conditions: &Value,
        (examples, draws): (&[Example], usize),
        rng_key: &RngKey,
    ) -> Result<Value, BoxError> {
        let schedule = self.pmg.schedule();
        let total = schedule.alphas().len() as u32;
        let (mut latents, mut noise, mut steps) = (Vec::new(), Vec::new(), Vec::new());
        for draw in 0..draws as u64 {
            for Example { user, sample } in examples {
                let key = rng_key.sample(sample ^ draw << 48);
                let normals = key.purpose("latents").normals(user.mean.len());
                let drawn = user.mean.iter().zip(&user.deviation).zip(normals);
                latents.extend(drawn.map(|((mean, deviation), x)| (mean + deviation * x) * self.scaling_factor));
                noise.extend(key.purpose("noise").normals(user.mean.len()));
                steps.push(key.purpose("step").below_at(0, total));
            }
        }
        let shape = [steps.len(), self.latent_size, self.latent_size, self.pmg.unet().config().in_channels];
        let (latents, noise) = (Value::from_vec(latents, &shape)?, Value::from_vec(noise, &shape)?);
        let noisy = schedule.add_noise(&latents, &noise, &steps)?;
        let target = schedule.target(&latents, &noise, &steps)?;
        let repeated = repeat_items(conditions, draws)?;
        let steps: Vec<f32> = steps.iter().map(|step| *step as f32).collect();
        let prediction = self.pmg.predict(context, &noisy, &steps, &repeated)?;
        Ok(prediction.mean_square_error(&target, &Ragged::packed(&[prediction.rows()]))?)
    }
}

/// Repeats all items of conditions `[item, row, channel]`, one after the other.
fn repeat_items(conditions: &Value, count: usize) -> Result<Value, BoxError> {
    let &[items, rows, width] = conditions.dims() else {
        return Err(format!("conditions of the shape {:?}", conditions.dims()).into());
    };
    if count == 1 {
        return Ok(conditions.clone());
    }
    let all: Vec<u32> = (0..count).flat_map(|_| 0..(items * rows) as u32).collect();
    let repeated = conditions.reshape(&[items * rows, width])?.embed(&all, &[all.len()])?;
    Ok(repeated.reshape(&[count * items, rows, width])?)
}

impl Model<Pmg> for Network {
    fn loss(&self, context: &Context<'_>, batch: &ExampleBatch, rng_key: RngKey) -> Result<Loss, BoxError> {
        let ExampleBatch { examples, draws } = batch;
        let conditions = self.conditions(context, examples)?;
        let total = self.noise_loss(context, &conditions, (examples, *draws), &rng_key)?;
        let mut other = f64::NAN;
        if !context.is_training() && examples.len() > 1 {
            // The same targets and noise, each with the history of the next user.
            let rotated: Vec<Example> = examples.iter().cycle().skip(1).take(examples.len()).cloned().collect();
            let conditions = self.conditions(context, &rotated)?;
            other = self.noise_loss(context, &conditions, (examples, *draws), &rng_key)?.scalar()?.into();
        }
        Ok(Loss { total, parts: vec![("loss.other_history", other)], weight: examples.len() as f64 })
    }

    fn preview(
        &self,
        _: &Context<'_>,
        _: &[(String, Example)],
        _: &Description,
        _: &ExtractorFiles,
        _: RngKey,
    ) -> Result<Vec<Made>, BoxError> {
        // Images need the autoencoder, which training leaves in its folder; stage 6 makes them.
        Ok(Vec::new())
    }
}
