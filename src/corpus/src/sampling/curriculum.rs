//! The curriculum: a list of phases, each with an order of the utterances.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An order of the utterances of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Shuffled in windows, sorted by length in smaller ones; the batches of those are shuffled again.
    #[default]
    Shuffled,
    /// In buckets of similar length: a batch is of one bucket, and batches come in random order.
    Bucketed,
    /// From short to long; equally long ones are shuffled.
    Sorted,
    /// In rounds with one utterance of every speaker: all speakers come equally often. Speakers with few utterances
    /// repeat them; of those with many, later epochs bring the rest.
    BySpeaker,
}

/// Epochs of one order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Number of epochs; the last phase has none, because it lasts to the end of training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// The order of the utterances. Required.
    pub order: Order,
}

/// Returns the order of an epoch; the default one if there are no phases.
pub fn order_of(phases: &[Phase], epoch: u64) -> Order {
    let mut rest = epoch;
    for phase in phases {
        match phase.epochs {
            Some(epochs) if rest >= epochs => rest -= epochs,
            _ => return phase.order,
        }
    }
    phases.last().map_or_else(Order::default, |phase| phase.order)
}

/// Checks that the phases are a curriculum: each except the last has a length, and the last one continues to the end.
///
/// # Errors
/// Returns the wrong key, below the list's own name, and what is wrong with it.
pub fn check(phases: &[Phase]) -> Result<(), (String, String)> {
    let Some((last, before)) = phases.split_last() else {
        return Err((String::new(), "needs at least one phase, such as [{order: shuffled}]".to_owned()));
    };
    for (index, phase) in before.iter().enumerate() {
        if phase.epochs.unwrap_or(0) == 0 {
            let reason = "must be at least 1: only the last phase leaves it out, and lasts to the end";
            return Err((format!("[{index}].epochs"), reason.to_owned()));
        }
    }
    match last.epochs {
        None => Ok(()),
        Some(_) => Err((
            format!("[{}].epochs", before.len()),
            "leave it out: the last phase lasts to the end of training, which max_steps and max_epochs set".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(epochs: Option<u64>, order: Order) -> Phase {
        Phase { epochs, order }
    }

    #[test]
    fn phases_follow_each_other_and_the_last_one_stays() {
        let phases = [phase(Some(1), Order::Sorted), phase(Some(2), Order::Shuffled), phase(None, Order::BySpeaker)];
        check(&phases).unwrap();
        let orders: Vec<Order> = (0..6).map(|epoch| order_of(&phases, epoch)).collect();
        let (sorted, shuffled, speaker) = (Order::Sorted, Order::Shuffled, Order::BySpeaker);
        assert_eq!(orders, [sorted, shuffled, shuffled, speaker, speaker, speaker]);
    }

    #[test]
    fn what_is_no_curriculum_is_refused_by_its_key() {
        let key = |phases: &[Phase]| check(phases).unwrap_err().0;
        assert_eq!(key(&[]), "");
        assert_eq!(key(&[phase(None, Order::Sorted), phase(None, Order::Shuffled)]), "[0].epochs");
        assert_eq!(key(&[phase(Some(0), Order::Sorted), phase(None, Order::Shuffled)]), "[0].epochs");
        assert_eq!(key(&[phase(Some(1), Order::Sorted), phase(Some(2), Order::Shuffled)]), "[1].epochs");
    }
}
