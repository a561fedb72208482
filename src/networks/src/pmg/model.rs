//! The network: prompts through the frozen language model into the frozen diffusion model.

use super::{PmgConfig, PmgError, Result, SoftPrompts};
use crate::llama::{Llama, LlamaConfig};
use crate::stable_diffusion::sampling::{Schedule, ScheduleConfig};
use crate::stable_diffusion::{UNet, UNetConfig};
use flowmill_nn::init::Builder;
use flowmill_nn::layers::Embedding;
use flowmill_nn::ops::concatenate;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Ragged, Value};

/// Prefixes of the names of the frozen networks' parameters.
const FROZEN: [&str; 2] = ["llama.", "unet."];

/// PMG without its weights. The parameters of the frozen networks are named `llama.*` (without `model.`) and `unet.*`.
#[derive(Debug, Clone)]
pub struct Pmg {
    config: PmgConfig,
    prompts: SoftPrompts,
    tokens: Embedding,
    llama: Llama,
    unet: UNet,
    schedule: Schedule,
}

/// Settings of the whole network.
#[derive(Debug, Clone)]
pub struct PmgSettings {
    /// The soft prompts.
    pub prompts: PmgConfig,
    /// The language model.
    pub llama: LlamaConfig,
    /// Number of its tokens.
    pub vocabulary: usize,
    /// The diffusion network.
    pub unet: UNetConfig,
    /// The noise of the diffusion.
    pub schedule: ScheduleConfig,
}

/// The initial weights of the frozen networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    /// Random numbers that follow from the seed.
    Seeded,
    /// Those of the language model are random numbers that follow from a seed of their own, the others are loaded.
    SeededLanguage(u64),
    /// None: they are loaded before the network is used.
    FromFiles,
}

/// A batch of training.
#[derive(Debug, Clone)]
pub struct PmgBatch {
    /// The tokens of each text, without padding.
    pub texts: Vec<Vec<u32>>,
    /// Latents of the target images times the scaling factor of the autoencoder, `[item, height, width, channel]`.
    pub latents: Value,
    /// Standard normal noise of the same shape.
    pub noise: Value,
    /// The diffusion step of each item.
    pub steps: Vec<u32>,
}

/// Everything that the network computes for a batch.
#[derive(Debug, Clone)]
pub struct PmgPrediction {
    /// The conditions of the diffusion model, `[item, prompt, channel]`.
    pub conditions: Value,
    /// The latents with noise.
    pub noisy: Value,
    /// The prediction of the diffusion model.
    pub prediction: Value,
    /// The mean squared error of the prediction.
    pub loss: Value,
}

/// Returns the builder of a frozen network: with random weights if it `fills`, or without any.
fn frozen_builder(parameters: &mut Parameters, key: RngKey, fills: bool) -> Builder<'_> {
    let builder = Builder::new(parameters, key);
    if fills { builder } else { builder.without_values() }
}

impl Pmg {
    /// Creates the network with random soft prompts. Only these are trainable.
    ///
    /// # Errors
    /// When settings cannot be used.
    pub fn new(settings: &PmgSettings, frozen: Frozen, seed: u64) -> Result<(Self, Parameters)> {
        let PmgSettings { prompts: config, llama, vocabulary, unet, schedule } = settings;
        let mut parameters = Parameters::new();
        let key = RngKey::new(seed).purpose("initial weights");
        let mut builder = Builder::new(&mut parameters, key);
        let prompts = SoftPrompts::new(builder.scope_here(), config, llama, unet.cross_attention_dim)?;
        let (language_key, language_fills, unet_fills) = match frozen {
            Frozen::Seeded => (key, true, true),
            Frozen::SeededLanguage(seed) => (RngKey::new(seed).purpose("language model"), true, false),
            Frozen::FromFiles => (key, false, false),
        };
        let mut language = frozen_builder(&mut parameters, language_key, language_fills);
        let mut scope = language.scope("llama");
        let tokens = Embedding::new(scope.scope("embed_tokens"), *vocabulary, llama.dim)?;
        let transformer = Llama::new(scope, llama)?;
        let unet = UNet::new(frozen_builder(&mut parameters, key, unet_fills).scope("unet"), unet)?;
        for id in parameters.ids() {
            if FROZEN.iter().any(|prefix| parameters.name(id).starts_with(prefix)) {
                parameters.set_external(id);
            }
        }
        let schedule = Schedule::new(schedule)?;
        Ok((Self { config: config.clone(), prompts, tokens, llama: transformer, unet, schedule }, parameters))
    }

    /// Returns the settings of the soft prompts.
    pub fn config(&self) -> &PmgConfig {
        &self.config
    }

    /// Returns the trained part.
    pub fn prompts(&self) -> &SoftPrompts {
        &self.prompts
    }

    /// Returns the diffusion network.
    pub fn unet(&self) -> &UNet {
        &self.unet
    }

    /// Returns the noise of the diffusion.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Checks that texts are neither empty nor too long.
    ///
    /// # Errors
    /// [`PmgError::Empty`] or [`PmgError::TooLong`] for the first text that is.
    pub fn check_texts(&self, texts: &[Vec<u32>]) -> Result<()> {
        let (limit, prompts) = (self.config.max_sequence_length, self.config.num_image_prompt);
        for (item, text) in texts.iter().enumerate() {
            let tokens = text.len();
            if tokens == 0 {
                return Err(PmgError::Empty { item });
            }
            if tokens + prompts > limit {
                return Err(PmgError::TooLong { item, tokens, prompts, limit, excess: tokens + prompts - limit });
            }
        }
        Ok(())
    }

    /// Returns the conditions of the diffusion model for texts, `[item, prompt, channel]`: the projected states of the image prompts,
    /// which follow each text.
    ///
    /// # Errors
    /// When a text is empty or too long, or has a token that does not exist.
    pub fn conditions(&self, context: &Context, texts: &[Vec<u32>]) -> Result<Value> {
        self.check_texts(texts)?;
        let prompts = self.config.num_image_prompt;
        let tokens = texts.concat();
        let lengths: Vec<usize> = texts.iter().map(|text| text.len() + prompts).collect();
        let items = Ragged::packed(&lengths);
        let words = self.tokens.forward(context, &tokens, &[tokens.len()])?;
        let embeddings = self.follow(&words, &self.prompts.images(context)?, texts)?;
        let first = self.config.num_prefix_prompt as u32;
        let positions: Vec<u32> = lengths.iter().flat_map(|length| (first..).take(*length)).collect();
        let prefix = self.prompts.prefix(context)?;
        let states = self.llama.forward_after(context, Some(&prefix), &embeddings, &positions, &items)?;
        let last: Vec<usize> = items.ranges().iter().flat_map(|rows| rows.end - prompts..rows.end).collect();
        let states = self.llama.normalize(context, &states.select_rows(&last)?)?;
        let conditions = self.prompts.map(context, &states)?;
        Ok(conditions.reshape(&[texts.len(), prompts, conditions.width()])?)
    }

    /// Puts the image prompts after the words of each text: `[row, channel]`.
    fn follow(&self, words: &Value, prompts: &Value, texts: &[Vec<u32>]) -> Result<Value> {
        let (count, width) = (words.rows() + prompts.rows(), words.width());
        let flat = |value: &Value| value.reshape(&[1, value.rows() * width]);
        let all = concatenate(&[&flat(words)?, &flat(prompts)?])?.reshape(&[count, width])?;
        let mut sources = Vec::new();
        let mut start = 0;
        for text in texts {
            sources.extend((start..start + text.len()).chain(words.rows()..count).map(|row| row as u32));
            start += text.len();
        }
        Ok(all.embed(&sources, &[sources.len()])?)
    }

    /// Returns the prediction of noisy latents `[item, height, width, channel]` at diffusion steps, under conditions.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn predict(&self, context: &Context, latents: &Value, steps: &[f32], conditions: &Value) -> Result<Value> {
        Ok(self.unet.forward(context, latents, steps, conditions)?)
    }

    /// Computes the loss of a batch, and everything on the way.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    pub fn loss(&self, context: &Context, batch: &PmgBatch) -> Result<PmgPrediction> {
        let conditions = self.conditions(context, &batch.texts)?;
        let noisy = self.schedule.add_noise(&batch.latents, &batch.noise, &batch.steps)?;
        let target = self.schedule.target(&batch.latents, &batch.noise, &batch.steps)?;
        let steps: Vec<f32> = batch.steps.iter().map(|step| *step as f32).collect();
        let prediction = self.predict(context, &noisy, &steps, &conditions)?;
        let rows = Ragged::packed(&[prediction.rows()]);
        let loss = prediction.mean_square_error(&target, &rows)?;
        Ok(PmgPrediction { conditions, noisy, prediction, loss })
    }
}
