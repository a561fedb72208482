//! How much an update changed each parameter.

use flowmill_nn::ParameterId;

use super::norm::sum_of_squares;
use super::slot::Arrays;

/// Euclidean norms of a parameter and of its change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Of the weights before the update.
    pub weights: f64,
    /// Of what the update added to them.
    pub update: f64,
}

/// The changes of one update, in order of the parameters; empty when they were not asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes(pub Vec<(ParameterId, Change)>);

impl Changes {
    pub(super) fn from_visited(visited: Vec<(ParameterId, Option<Change>)>) -> Self {
        Self(visited.into_iter().filter_map(|(id, change)| Some((id, change?))).collect())
    }
}

impl Change {
    /// Runs an update and measures what it does, when asked to: that takes a copy of the parameter.
    pub(super) fn measured(wanted: bool, arrays: Arrays<'_>, update: impl FnOnce(Arrays<'_>)) -> Option<Self> {
        let Arrays { weights, gradient, state } = arrays;
        if !wanted {
            update(Arrays { weights, gradient, state });
            return None;
        }
        let mut before = weights.to_vec();
        update(Arrays { weights: &mut *weights, gradient, state });
        let norm = sum_of_squares(&before).sqrt();
        before.iter_mut().zip(weights.iter()).for_each(|(before, after)| *before = after - *before);
        Some(Self { weights: norm, update: sum_of_squares(&before).sqrt() })
    }
}
