//! Rules for which checkpoints stay on disk.

use crate::config::KeepConfig;
use crate::{CheckpointStore, Observer, TrainError};

use super::{State, names, read_state, step_of, verify};

/// A checkpoint's properties that the rules use.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Saved {
    step: u64,
    validation: Option<f64>,
    scheduled: bool,
    for_best: bool,
}

impl Saved {
    /// Returns whether it was made at a step of the schedule, whatever its score.
    fn is_of_schedule(&self) -> bool {
        self.scheduled && !self.for_best
    }
}

/// Removes the checkpoints that no rule keeps. The newest always stays; those made by command or on an interruption stay until the
/// schedule makes another one. A checkpoint that a rule drops is never kept again by that rule, so the next prune makes up for one that a
/// crash prevented.
pub fn prune(store: &dyn CheckpointStore, keep: &KeepConfig, observer: &mut dyn Observer) -> Result<(), TrainError> {
    let mut saved = Vec::new();
    for name in names(store)? {
        match (read_state(&store.path(&name)), step_of(&name)) {
            (Ok(state), Some(step)) if state.step == step => {
                let State { validation, scheduled, for_best, .. } = state;
                saved.push((name, Saved { step, validation, scheduled, for_best }));
            }
            // The rules do not apply to it, so they do not remove it.
            _ => match verify(&store.path(&name)) {
                Err(error @ TrainError::Damaged { .. }) => {
                    let aside = store.set_aside(&name)?;
                    observer.message(&format!("WARNING: {error}; it is moved to {}", aside.display()));
                }
                _ => observer.message(&format!("WARNING: checkpoint {name} stays: its state cannot be read")),
            },
        }
    }
    let facts: Vec<Saved> = saved.iter().map(|(_, facts)| *facts).collect();
    let wanted = wanted(&facts, keep);
    saved.iter().zip(wanted).filter(|(_, wanted)| !wanted).try_for_each(|((name, _), _)| store.remove(name))
}

/// Returns which of the checkpoints, oldest first, stay.
fn wanted(saved: &[Saved], keep: &KeepConfig) -> Vec<bool> {
    let mut wanted = vec![false; saved.len()];
    if let Some(newest) = wanted.last_mut() {
        *newest = true;
    }
    let since = saved.iter().rposition(Saved::is_of_schedule).map_or(0, |newest| newest + 1);
    (since..saved.len()).filter(|&index| !saved[index].scheduled).for_each(|index| wanted[index] = true);
    let scheduled: Vec<usize> = (0..saved.len()).filter(|&index| saved[index].scheduled).collect();
    for &index in scheduled.iter().rev().filter(|&&index| saved[index].is_of_schedule()).take(keep.last) {
        wanted[index] = true;
    }
    let mut scored: Vec<(f64, usize)> =
        scheduled.iter().filter_map(|&index| Some((saved[index].validation?, index))).collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    for &(_, index) in scored.iter().take(keep.best) {
        wanted[index] = true;
    }
    for &index in scheduled.iter().filter(|&&index| keep.every > 0 && saved[index].step.is_multiple_of(keep.every)) {
        wanted[index] = true;
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(step: u64, validation: f64) -> Saved {
        Saved { step, validation: Some(validation), scheduled: true, for_best: false }
    }

    /// A checkpoint made between two of the schedule for its score.
    fn best(step: u64, validation: f64) -> Saved {
        Saved { for_best: true, ..saved(step, validation) }
    }

    fn steps(all: &[Saved], keep: &KeepConfig) -> Vec<u64> {
        all.iter().zip(wanted(all, keep)).filter(|(_, wanted)| *wanted).map(|(saved, _)| saved.step).collect()
    }

    #[test]
    fn last_best_and_every_are_a_union() {
        let all = [saved(10, 0.5), saved(20, 0.1), saved(30, 0.4), saved(40, 0.1), saved(50, 0.9), saved(60, 0.8)];
        assert_eq!(steps(&all, &KeepConfig { last: 1, best: 0, every: 0 }), [60]);
        assert_eq!(
            steps(&all, &KeepConfig { last: 2, best: 1, every: 0 }),
            [20, 50, 60],
            "of equal scores the earlier"
        );
        assert_eq!(steps(&all, &KeepConfig { last: 1, best: 2, every: 30 }), [20, 30, 40, 60]);
    }

    #[test]
    fn those_beside_the_schedule_stay_until_its_next() {
        let beside = |step| Saved { step, validation: None, scheduled: false, for_best: false };
        let keep = KeepConfig { last: 2, best: 0, every: 0 };
        assert_eq!(steps(&[beside(3), beside(7)], &keep), [3, 7]);
        assert_eq!(steps(&[saved(10, 0.5), saved(20, 0.4), beside(25), beside(28)], &keep), [10, 20, 25, 28]);
        assert_eq!(steps(&[saved(10, 0.5), saved(20, 0.4), beside(25), beside(28), saved(30, 0.6)], &keep), [20, 30]);
    }

    #[test]
    fn the_best_between_two_of_the_schedule_stay_for_their_score_only() {
        let keep = |last, best| KeepConfig { last, best, every: 0 };
        let all = [saved(10, 0.5), best(13, 0.3), saved(20, 0.4), best(27, 0.2), saved(30, 0.6), saved(40, 0.7)];
        assert_eq!(steps(&all, &keep(1, 1)), [27, 40]);
        assert_eq!(steps(&all, &keep(2, 2)), [13, 27, 30, 40], "they are not among the last");
        assert_eq!(steps(&all[..4], &keep(1, 1)), [20, 27]);
        assert_eq!(steps(&all[..2], &keep(1, 1)), [10, 13], "the newest is what a run goes on from");
        let by_command = Saved { scheduled: false, validation: None, ..saved(25, 0.0) };
        let made = [saved(20, 0.4), by_command, best(27, 0.2)];
        assert_eq!(steps(&made, &keep(1, 1)), [20, 25, 27], "those by command stay until the next of the schedule");
    }

    /// Pruning after every save or only occasionally ends with the same checkpoints.
    #[test]
    fn a_prune_left_out_is_made_up_for() {
        let score = |step: u64| f64::from((step * 7 % 5) as u32);
        let all: Vec<Saved> = (1..=12)
            .map(|step| if step % 3 == 1 { best(step, score(step)) } else { saved(step, score(step)) })
            .collect();
        let keep = KeepConfig { last: 2, best: 3, every: 5 };
        let mut kept: Vec<Saved> = Vec::new();
        for checkpoint in &all {
            kept.push(*checkpoint);
            let wanted = wanted(&kept, &keep);
            kept = kept.iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(saved, _)| *saved).collect();
        }
        let once: Vec<u64> = steps(&all, &keep);
        assert_eq!(kept.iter().map(|saved| saved.step).collect::<Vec<_>>(), once);
    }
}
