//! A transformer with the embeddings and the classifier of its tokens.

use super::decoder::packed;
use super::{Llama, LlamaConfig, LlamaDecoder, Prefix};
use flowmill_nn::inference;
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::{Embedding, Linear};
use flowmill_nn::{Activation, Context, NnError, Parameters, Ragged, Result, Value, host};

/// A causal language model, without its weights (`LlamaForCausalLM` in transformers).
#[derive(Debug, Clone)]
pub struct LanguageModel {
    embeddings: Embedding,
    transformer: Llama,
    /// The classifier, if its weight is not the table of embeddings.
    head: Option<Linear>,
}

impl LanguageModel {
    /// Creates the model: parameters `model.*`, and `lm_head.weight` unless the classifier shares the weights of the embeddings.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(mut builder: Builder, config: &LlamaConfig, vocabulary: usize, tied: bool) -> Result<Self> {
        let mut scope = builder.scope("model");
        let embeddings = Embedding::new(scope.scope("embed_tokens"), vocabulary, config.dim)?;
        let transformer = Llama::new(scope, config)?;
        let head = |builder| Linear::with_init(builder, config.dim, vocabulary, Init::Normal(0.02), None);
        let head = (!tied).then(|| head(builder.scope("lm_head"))).transpose()?;
        Ok(Self { embeddings, transformer, head })
    }

    /// Returns the transformer.
    pub fn transformer(&self) -> &Llama {
        &self.transformer
    }

    /// Returns the logits `[row, token]` of packed sequences, each after the prefix if there is one. Rows of an item count from the
    /// number of rows of the prefix.
    ///
    /// # Errors
    /// When a token does not exist, or the prefix does not belong to this model.
    pub fn logits(&self, context: &Context, prefix: Option<&Prefix>, sequences: &[&[u32]]) -> Result<Value> {
        let (tokens, positions, items) = rows(sequences, prefix.map_or(0, Prefix::rows));
        let embeddings = self.embeddings.forward(context, &tokens, &[tokens.len()])?;
        let states = self.transformer.forward_after(context, prefix, &embeddings, &positions, &items)?;
        let states = self.transformer.normalize(context, &states)?;
        match &self.head {
            Some(head) => head.forward(context, &states),
            None => states.linear(&self.embeddings.value(context), None),
        }
    }

    /// Returns the mean cross entropy of each next token, over all sequences.
    ///
    /// # Errors
    /// When a token does not exist, or no sequence has two.
    pub fn loss(&self, context: &Context, prefix: Option<&Prefix>, sequences: &[&[u32]]) -> Result<Value> {
        let count: usize = sequences.iter().map(|tokens| tokens.len().saturating_sub(1)).sum();
        if count == 0 {
            return Err(NnError::invalid("language model", "a loss needs a sequence of two tokens"));
        }
        let logits = self.logits(context, prefix, sequences)?;
        let (mut targets, mut weights) = (Vec::new(), Vec::new());
        for tokens in sequences.iter().filter(|tokens| !tokens.is_empty()) {
            // The last token has no next one; its row counts nothing.
            targets.extend(tokens[1..].iter().chain(&tokens[..1]));
            weights.extend(std::iter::repeat_n(1.0 / count as f32, tokens.len() - 1).chain([0.0]));
        }
        logits.cross_entropy(&targets, &weights)
    }

    /// Packs the weights for generation.
    ///
    /// # Errors
    /// When a weight cannot be copied.
    pub fn generator(&self, parameters: &Parameters) -> Result<Generator> {
        let table = Value::plain(host::fetch(self.embeddings.value(&Context::inference(parameters)).tensor())?)?;
        let head = match &self.head {
            Some(head) => packed(parameters, head)?,
            None => inference::Linear::new(table.tensor(), None)?,
        };
        let transformer = LlamaDecoder::new(&self.transformer, parameters)?;
        Ok(Generator { table, transformer, head })
    }
}

/// The tokens of sequences one after the other, their positions, and the rows of each sequence.
fn rows(sequences: &[&[u32]], first: usize) -> (Vec<u32>, Vec<u32>, Ragged) {
    let lengths: Vec<usize> = sequences.iter().map(|tokens| tokens.len()).collect();
    let positions = lengths.iter().flat_map(|length| (first as u32..).take(*length)).collect();
    (sequences.concat(), positions, Ragged::packed(&lengths))
}

/// A [`LanguageModel`] with constant weights that generates text.
pub struct Generator {
    /// The embeddings `[token, channel]`.
    table: Value,
    transformer: LlamaDecoder,
    head: inference::Linear,
}

impl Generator {
    /// Continues a text with the most probable tokens, until one of `stop`, which is kept, or until there are `limit` new ones.
    ///
    /// # Errors
    /// When the text is empty, a token does not exist, or the prefix does not belong to this model.
    pub fn greedy(&self, prefix: Option<&Prefix>, text: &[u32], stop: &[u32], limit: usize) -> Result<Vec<u32>> {
        if text.is_empty() {
            return Err(NnError::invalid("generation", "the text has no token to continue"));
        }
        let mut cache = match prefix {
            Some(prefix) => self.transformer.cache_after(prefix)?,
            None => self.transformer.cache(),
        };
        let (mut next, mut position) = (text.to_vec(), prefix.map_or(0, Prefix::rows));
        let mut made = Vec::new();
        while made.len() < limit {
            let (tokens, positions, items) = rows(&[&next], position);
            let embeddings = self.table.embed(&tokens, &[tokens.len()])?;
            let states = self.transformer.forward(&embeddings, &positions, &items, Some(&mut [&mut cache]))?;
            let last = states.select_rows(&[tokens.len() - 1])?;
            let logits = self.head.forward(&self.transformer.normalize(&last)?, Activation::Identity)?;
            let token = logits.largest()?.first().copied().unwrap_or(0);
            made.push(token);
            position += tokens.len();
            next = vec![token];
            if stop.contains(&token) {
                break;
            }
        }
        Ok(made)
    }
}
