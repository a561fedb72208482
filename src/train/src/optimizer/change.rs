//! Measurement of how much an update changes each parameter.

use flowmill_nn::ParameterId;

use super::Update;
use super::norm::sum_of_squares;
use super::slot::{Arrays, Figures};

/// Euclidean norms of a parameter and of its change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Norm of the weights before the update.
    pub weights: f64,
    /// Norm of the update.
    pub update: f64,
}

/// The changes of one update, in order of the parameters; empty if they were not measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes(pub Vec<(ParameterId, Change)>);

impl Changes {
    /// Returns the changes that an update measured.
    pub(super) fn of(update: Update, visited: Vec<(ParameterId, Figures)>) -> Self {
        if !update.measure {
            return Self::default();
        }
        Self(visited.into_iter().map(|(id, [weights, update])| (id, Change { weights, update })).collect())
    }
}

impl Change {
    /// Runs an update by a kernel and measures it if `wanted`, which takes a copy of the parameter. Returns the norms of the
    /// weights before the update and of the update.
    pub(super) fn measured(wanted: bool, arrays: Arrays<'_>, update: impl FnOnce(Arrays<'_>)) -> Figures {
        let Arrays { weights, gradient, state } = arrays;
        if !wanted {
            update(Arrays { weights, gradient, state });
            return [0.0; 2];
        }
        let mut before = weights.to_vec();
        update(Arrays { weights: &mut *weights, gradient, state });
        let norm = sum_of_squares(&before).sqrt();
        before.iter_mut().zip(weights.iter()).for_each(|(before, after)| *before = after - *before);
        [norm, sum_of_squares(&before).sqrt()]
    }
}
