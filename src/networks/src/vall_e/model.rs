//! The network: parameters, embeddings, transformer, classifiers.

use super::config::LENGTH_TOKENS;
use super::sequence::{Sequence, Table};
use super::{Batch, Result, VallEConfig};
use crate::llama::Llama;
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::Linear;
use flowmill_nn::ops::{EntrySums, sum_embeddings};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, ParameterId, Parameters, Ragged, Value};
use std::ops::Range;

/// VALL-E without its weights, which are in the [`Parameters`] that were created with it.
#[derive(Debug, Clone)]
pub struct VallE {
    config: VallEConfig,
    /// The embedding tables, by the numbers of [`Table`].
    pub(super) tables: Vec<ParameterId>,
    pub(super) transformer: Llama,
    pub(super) classifiers: Vec<Linear>,
}

impl VallE {
    /// Creates a model with random weights, under the names of the public `state_dict`. Embeddings and separator are standard normal,
    /// the transformer's weights have the deviation 0.02, and the classifiers PyTorch's default: the distributions of the public code.
    ///
    /// No task reads `dropout_token`, nor the last level of the prompt's embeddings. They exist for files of weights only and are frozen.
    ///
    /// # Errors
    /// [`VallEError::Config`](super::VallEError::Config) if the settings are inconsistent.
    pub fn new(config: &VallEConfig, seed: u64) -> Result<(Self, Parameters)> {
        config.check()?;
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, RngKey::new(seed).purpose("initial weights"));
        let (dim, levels, codes) = (config.dim, config.levels, config.audio_tokens);
        let standard = Init::Normal(1.0);
        let mut tables = vec![builder.add("sep", &[dim], standard)?];
        let unread = [builder.add("dropout_token", &[dim], standard)?];
        let mut table = |name: &str, entries| builder.scope(name).add("weight", &[entries, dim], standard);
        for (name, entries) in [
            ("text_emb", config.phoneme_tokens),
            ("langs_emb", config.languages),
            ("tones_emb", config.tones),
            ("tasks_emb", config.tasks),
            ("rvq_l_emb", levels),
            ("len_emb", LENGTH_TOKENS),
        ] {
            tables.push(table(name, entries)?);
        }
        for level in 0..levels {
            tables.push(table(&format!("proms_emb.embeddings.{level}"), codes)?);
        }
        // Level 0 also has the stop token, and with masks the token of a masked frame.
        for place in 0..=levels {
            let special = usize::from(place == 0 || place == levels);
            tables.push(table(&format!("resps_emb.embeddings.{place}"), codes + special)?);
        }
        let transformer = Llama::new(builder.scope("model"), &config.transformer())?;
        let mut scope = builder.scope("classifiers");
        let mut scope = scope.scope("proj");
        let mut classes = vec![codes; levels + 1];
        classes[0] += 1;
        classes.extend([config.phoneme_tokens, LENGTH_TOKENS]);
        let classifiers =
            classes.iter().enumerate().map(|(number, classes)| Linear::new(scope.scope(number), dim, *classes));
        let classifiers = classifiers.collect::<flowmill_nn::Result<_>>()?;
        for id in unread.into_iter().chain((levels > 1).then(|| tables[Table::FIRST + levels - 1])) {
            parameters.set_trainable(id, false);
        }
        Ok((Self { config: config.clone(), tables, transformer, classifiers }, parameters))
    }

    /// Returns the settings of the model.
    pub fn config(&self) -> &VallEConfig {
        &self.config
    }

    /// Returns whether a batch may leave this parameter without a gradient: embeddings and classifiers of levels, tasks and tones that
    /// none of its samples has.
    pub fn is_optional(&self, name: &str) -> bool {
        !name.starts_with("model.")
            && !["sep", "langs_emb.weight", "text_emb.weight", "rvq_l_emb.weight"].contains(&name)
    }

    /// Returns the residual stream `[row, channel]` of the sequences of a batch, before the last normalization, and the rows of each.
    pub(super) fn states(&self, context: &Context, sequences: &[Sequence]) -> Result<(Value, Ragged)> {
        let whole: Vec<_> = sequences.iter().map(|sequence| (sequence, 0..sequence.len())).collect();
        let (embeddings, positions, items) = self.embed(context, &whole)?;
        let states = self.transformer.forward(context, &embeddings, &positions, &items)?;
        Ok((states, items))
    }

    /// Returns the embeddings `[row, channel]` and the positions of some rows of sequences, and the rows of each.
    pub(super) fn embed(
        &self,
        context: &Context,
        sequences: &[(&Sequence, Range<usize>)],
    ) -> Result<(Value, Vec<u32>, Ragged)> {
        let (mut entries, mut positions) = (EntrySums::default(), Vec::new());
        for (sequence, rows) in sequences {
            entries.extend(&sequence.entries, rows.clone());
            positions.extend_from_slice(&sequence.positions[rows.clone()]);
        }
        let items = Ragged::packed(&sequences.iter().map(|(_, rows)| rows.len()).collect::<Vec<_>>());
        Ok((self.sum_entries(context, entries)?, positions, items))
    }

    /// Returns the sums `[row, channel]` of table entries.
    fn sum_entries(&self, context: &Context, mut entries: EntrySums) -> Result<Value> {
        // Only tables that are read take part, so that the others have no gradient, as in PyTorch.
        let mut place = vec![None; self.tables.len()];
        let mut read = Vec::new();
        for term in entries.terms() {
            place[term.table as usize].get_or_insert_with(|| {
                read.push(context.parameter(self.tables[term.table as usize]));
                read.len() as u32 - 1
            });
        }
        entries.map_tables(|table| place[table as usize].unwrap_or_default());
        Ok(sum_embeddings(&read.iter().collect::<Vec<_>>(), entries)?)
    }

    /// Returns the logits `[row, class]` of every row of each sample.
    ///
    /// # Errors
    /// Returns an error if the batch does not match the model.
    pub fn logits(&self, context: &Context, batch: &Batch) -> Result<Vec<Value>> {
        let (states, items) = self.states(context, &batch.sequences)?;
        let states = self.transformer.normalize(context, &states)?;
        let of = |(sequence, rows): (&Sequence, &Range<usize>)| {
            let rows: Vec<usize> = rows.clone().collect();
            let classifier = &self.classifiers[sequence.classifier.number(self.config.levels)];
            Ok(classifier.forward(context, &states.select_rows(&rows)?)?)
        };
        batch.sequences.iter().zip(items.ranges()).map(of).collect()
    }
}
