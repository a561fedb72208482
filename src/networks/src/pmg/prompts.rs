//! The trained parameters.

use super::{PmgConfig, Result};
use crate::llama::{LlamaConfig, Prefix};
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::Linear;
use flowmill_nn::{Activation, Context, ParameterId, Value};

/// Image prompts, prefix and projection: parameters `trainable_prompt`, `prefix_encoder.*` and `mapping_layer.*`.
#[derive(Debug, Clone)]
pub struct SoftPrompts {
    /// Embeddings of the image prompts, `[1, prompt, channel]`.
    images: ParameterId,
    /// The prefix `[position, block x 2 x channel]`, or the input of the network that computes it, `[position, channel]`.
    prefix: ParameterId,
    /// The network that computes the prefix.
    encoder: Option<[Linear; 2]>,
    mapping: Linear,
    llama: LlamaConfig,
    count: usize,
}

impl SoftPrompts {
    /// Creates the parameters for a language model and conditions of this many channels.
    ///
    /// # Errors
    /// When the settings cannot be used, or a name is taken.
    pub fn new(mut builder: Builder, config: &PmgConfig, llama: &LlamaConfig, conditions: usize) -> Result<Self> {
        config.check()?;
        let init = Init::Normal(config.initial_deviation);
        let (positions, table) = (config.num_prefix_prompt, 2 * llama.layers * llama.key_value_width());
        let mapping = Linear::new(builder.scope("mapping_layer"), llama.dim, conditions)?;
        let images = builder.add("trainable_prompt", &[1, config.num_image_prompt, llama.dim], init)?;
        let mut scope = builder.scope("prefix_encoder");
        let width = if config.prefix_hidden_size.is_some() { llama.dim } else { table };
        let prefix = scope.scope("embedding").add("weight", &[positions, width], init)?;
        let mut scope = scope.scope("trans");
        let mut network = |inner: usize| -> flowmill_nn::Result<[Linear; 2]> {
            Ok([Linear::new(scope.scope(0), llama.dim, inner)?, Linear::new(scope.scope(2), inner, table)?])
        };
        let encoder = config.prefix_hidden_size.map(&mut network).transpose()?;
        Ok(Self { images, prefix, encoder, mapping, llama: llama.clone(), count: config.num_image_prompt })
    }

    /// Number of image prompts.
    pub fn image_prompts(&self) -> usize {
        self.count
    }

    /// Returns the embeddings of the image prompts, `[prompt, channel]`.
    ///
    /// # Errors
    /// When candle cannot reshape them.
    pub(super) fn images(&self, context: &Context) -> Result<Value> {
        Ok(context.parameter(self.images).reshape(&[self.count, self.llama.dim])?)
    }

    /// Returns the keys and values of the prefix.
    ///
    /// # Errors
    /// When candle cannot compute them.
    pub fn prefix(&self, context: &Context) -> Result<Prefix> {
        let mut table = context.parameter(self.prefix);
        if let Some([first, second]) = &self.encoder {
            table = second.forward(context, &first.forward_activated(context, &table, Activation::Tanh)?)?;
        }
        Ok(Prefix::from_table(&table, &self.llama)?)
    }

    /// Projects the states of the image prompts, `[row, channel]`, to conditions.
    pub(super) fn map(&self, context: &Context, states: &Value) -> Result<Value> {
        Ok(self.mapping.forward(context, states)?)
    }
}
