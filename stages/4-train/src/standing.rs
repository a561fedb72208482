//! How far a training got that is not done, and what it does when it is asked to stop.

use std::path::Path;

use flowmill_runner::{Reached, Resumable};
use flowmill_train::checkpoint::read_state;

use crate::look::checkpoints_in;

/// What a person is told of an unfinished training.
pub const RESUMABLE: Resumable = Resumable {
    reached,
    on_stop: "saving and stopping after the present step; once more stops at once, and loses what came after the newest checkpoint",
};

/// The newest checkpoint whose state can be read.
fn reached(folder: &Path) -> Option<Reached> {
    let found = checkpoints_in(folder).unwrap_or_default();
    let states = found.iter().filter_map(|checkpoint| Some((read_state(checkpoint).ok()?, checkpoint)));
    let (state, checkpoint) = states.max_by_key(|(state, _)| state.step)?;
    // Adapters are gone on from once they are exported, not from a checkpoint.
    let weights = state.base.is_none().then_some(checkpoint);
    Some(Reached {
        at: format!("step {} of {}", state.step, state.steps),
        reuse: weights.map(|checkpoint| {
            let at = checkpoint.display();
            format!("to start other settings from its weights, copy {at} elsewhere and set train.init_from to the copy")
        }),
    })
}
