//! The training loss.

use super::sequence::Output;
use super::{Batch, Result, VallE};
use flowmill_nn::ops::TargetScore;
use flowmill_nn::{Context, Value};
use std::collections::BTreeMap;

/// A target's rank below which it counts for the top-10 accuracy.
const TOP: usize = 10;

/// The loss of a batch.
#[derive(Debug, Clone)]
pub struct TrainLoss {
    /// The mean over the outputs of each sample, then over the samples.
    pub total: Value,
    /// The mean loss of the samples of each task and level, by [`Sample::label`](super::Sample::label).
    pub parts: Vec<(String, f64)>,
    /// The accuracies of each task and level.
    pub accuracies: Vec<(String, Accuracy)>,
    /// The number of samples, which is the weight in averages over batches.
    pub weight: f64,
}

/// Shares of outputs that are predicted right.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Accuracy {
    /// Share whose target is the most probable class.
    pub top1: f64,
    /// Share whose target is among the 10 most probable classes.
    pub top10: f64,
    /// The number of outputs.
    pub outputs: usize,
}

/// Sums over the samples of a task and level.
#[derive(Default)]
struct Sums {
    losses: f64,
    samples: usize,
    top1: usize,
    top10: usize,
    outputs: usize,
}

impl Sums {
    fn add(&mut self, scores: &[TargetScore]) {
        self.losses += scores.iter().map(|score| f64::from(score.loss)).sum::<f64>() / scores.len().max(1) as f64;
        self.samples += 1;
        self.top1 += scores.iter().filter(|score| score.rank == 0).count();
        self.top10 += scores.iter().filter(|score| score.rank < TOP).count();
        self.outputs += scores.len();
    }

    fn accuracy(&self) -> Accuracy {
        let share = |count: usize| count as f64 / self.outputs.max(1) as f64;
        Accuracy { top1: share(self.top1), top10: share(self.top10), outputs: self.outputs }
    }
}

impl VallE {
    /// Returns the loss of a batch: the cross entropy of the outputs. Inputs (phonemes, prompt) have no loss.
    ///
    /// # Errors
    /// Returns an error if the batch does not match the model.
    pub fn loss(&self, context: &Context, batch: &Batch) -> Result<TrainLoss> {
        let (states, items) = self.states(context, &batch.sequences)?;
        let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
        let mut total: Option<Value> = None;
        for (number, classifier) in self.classifiers.iter().enumerate() {
            let members = |item: &usize| batch.sequences[*item].classifier.number(self.config().levels) == number;
            let members: Vec<usize> = (0..batch.len()).filter(members).collect();
            let (mut rows, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
            for item in &members {
                let (outputs, first) = (&batch.sequences[*item].outputs, items.ranges()[*item].start);
                rows.extend(outputs.iter().map(|Output { row, .. }| first + row));
                targets.extend(outputs.iter().map(|Output { target, .. }| *target));
                let weight = 1.0 / (outputs.len() * batch.len()) as f64;
                weights.resize(rows.len(), weight as f32);
            }
            if rows.is_empty() {
                continue;
            }
            let states = self.transformer.normalize(context, &states.select_rows(&rows)?)?;
            let logits = classifier.forward(context, &states)?;
            let (loss, scores) = logits.scored_cross_entropy(&targets, &weights)?;
            total = Some(match total {
                Some(total) => total.add(&loss)?,
                None => loss,
            });
            let mut rest = scores.as_slice();
            for item in members {
                let (own, others) = rest.split_at(batch.sequences[item].outputs.len());
                sums.entry(&batch.labels()[item]).or_default().add(own);
                rest = others;
            }
        }
        let total = match total {
            Some(total) => total,
            // `collate` lets no batch without outputs pass.
            None => Value::from_vec(vec![0.0], &[])?,
        };
        let parts = sums.iter().map(|(label, sums)| ((*label).to_owned(), sums.losses / sums.samples as f64)).collect();
        let accuracies = sums.iter().map(|(label, sums)| ((*label).to_owned(), sums.accuracy())).collect();
        Ok(TrainLoss { total, parts, accuracies, weight: batch.len() as f64 })
    }
}
