//! The text transformer, which is also the text encoder of Stable Diffusion.

use super::config::TextConfig;
use super::transformer::Transformer;
use super::{ClipError, Result};
use flowmill_nn::init::Builder;
use flowmill_nn::layers::{Embedding, LayerNorm};
use flowmill_nn::{Context, NnError, Ragged, Value};

/// The text transformer without its weights: parameters under `text_model`.
#[derive(Debug, Clone)]
pub struct TextTower {
    config: TextConfig,
    tokens: Embedding,
    positions: Embedding,
    transformer: Transformer,
    norm: LayerNorm,
}

/// The outputs of the text transformer for a batch of texts.
#[derive(Debug, Clone)]
pub struct TextStates {
    /// The states of all tokens, `[item, token, channel]`: the conditions of Stable Diffusion.
    pub hidden: Value,
    /// The states before the last block, not normalized.
    pub penultimate: Value,
    /// The state at the end of each text, `[item, channel]`.
    pub pooled: Value,
}

impl TextTower {
    /// Creates the transformer.
    ///
    /// # Errors
    /// When the settings cannot be used, or a name is taken.
    pub fn new(mut builder: Builder, config: &TextConfig) -> Result<Self> {
        let settings = config.transformer()?;
        let mut scope = builder.scope("embeddings");
        let tokens = Embedding::new(scope.scope("token_embedding"), config.vocab_size, config.hidden_size)?;
        let positions =
            Embedding::new(scope.scope("position_embedding"), config.max_position_embeddings, config.hidden_size)?;
        let transformer = Transformer::new(builder.scope("encoder"), settings)?;
        let norm = LayerNorm::new(builder.scope("final_layer_norm"), config.hidden_size, settings.epsilon)?;
        Ok(Self { config: config.clone(), tokens, positions, transformer, norm })
    }

    /// Returns the settings.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// Computes the states of texts of the same number of tokens: begin, words, end, then padding, which later tokens see like words.
    ///
    /// # Errors
    /// When the texts differ in length, are longer than the model allows, have a token that does not exist, or do not end.
    pub fn forward(&self, context: &Context, texts: &[Vec<u32>]) -> Result<TextStates> {
        let length = texts.first().map_or(0, Vec::len);
        if length == 0 || length > self.config.max_position_embeddings || texts.iter().any(|text| text.len() != length)
        {
            let expected = format!("texts of the same length, 1 to {}", self.config.max_position_embeddings);
            let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
            return Err(NnError::shape("CLIP texts", expected, &lengths).into());
        }
        let ends = texts.iter().enumerate().map(|(item, text)| Ok(item * length + self.end(text)?));
        let ends = ends.collect::<Result<Vec<usize>>>()?;
        let rows = texts.len() * length;
        let positions: Vec<u32> = (0..texts.len()).flat_map(|_| 0..length as u32).collect();
        let words = self.tokens.forward(context, &texts.concat(), &[rows])?;
        let input = words.add(&self.positions.forward(context, &positions, &[rows])?)?;
        let items = Ragged::packed(&vec![length; texts.len()]);
        let [penultimate, state] = self.transformer.forward(context, &input, &items)?;
        let hidden = self.norm.forward(context, &state)?;
        let pooled = hidden.select_rows(&ends)?;
        let shape = [texts.len(), length, self.config.hidden_size];
        Ok(TextStates { hidden: hidden.reshape(&shape)?, penultimate: penultimate.reshape(&shape)?, pooled })
    }

    /// Returns the position at which a text ends.
    fn end(&self, text: &[u32]) -> Result<usize> {
        let Some(end) = self.config.end() else {
            let highest = text.iter().max();
            return Ok(text.iter().position(|token| Some(token) == highest).unwrap_or(0));
        };
        let position = text.iter().position(|token| *token == end);
        position.ok_or_else(|| {
            let message = format!("a text without its end, token {end}");
            ClipError::Nn(NnError::invalid("CLIP texts", message))
        })
    }
}
