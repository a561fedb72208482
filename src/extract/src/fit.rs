//! Fitting an extractor on the training split, in steps that can run apart and be merged.

use crate::{ExtractError, Matrix, Media, State, StateError};

/// An extractor that learns from rows before it can be used.
///
/// The steps map on a runner's phases: every part of the corpus *measures* its rows (in parallel) and *adds* them in
/// row order to an accumulator of its own, whose state is kept in a file; the states are *absorbed* in part order;
/// *finish* turns the whole into the fitted state. Each step is a pure function, so the same corpus in the same parts
/// gives the same bytes on any number of threads. [`crate::fit_rows`] and [`crate::fit_parts`] are these steps.
pub trait Fit: Send + Sync {
    /// The name that a recipe selects the extractor by.
    fn kind(&self) -> &'static str;

    /// Returns the contribution of one row, `[observation][dimension]`.
    ///
    /// # Errors
    /// The reason why the row cannot be used.
    fn measure(&self, media: &Media) -> Result<Matrix, ExtractError>;

    /// An accumulator before any row.
    fn accumulator(&self, scope: Scope) -> Box<dyn Accumulator>;

    /// Returns the fitted state, from which the extractor is made, and figures about it.
    ///
    /// # Errors
    /// When the state is not one of this extractor, or there is too little in it.
    fn finish(&self, state: &State) -> Result<Fitted, StateError>;
}

/// The rows that an accumulator gathers; one that keeps samples keeps more of the whole than of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The rows of one part.
    Part,
    /// The states of all parts.
    Whole,
}

/// Gathers what [`Fit::measure`] gave, in memory bounded by the settings and not by the number of rows.
pub trait Accumulator: Send {
    /// Adds what the row with this id contributes.
    ///
    /// # Errors
    /// When the numbers are not what this extractor measures.
    fn add(&mut self, id: &str, measured: &Matrix) -> Result<(), StateError>;

    /// Adds the state of a later part.
    ///
    /// # Errors
    /// When it is not a state of this extractor.
    fn absorb(&mut self, state: &State) -> Result<(), StateError>;

    /// Returns the gathered data as a state that can be saved.
    fn into_state(self: Box<Self>) -> State;
}

/// Named figures about a step, in the order to show them.
pub type Facts = Vec<(String, serde_json::Value)>;

/// A fitted state and its figures.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The data that the extractor needs, as a state that can be saved.
    pub state: State,
    /// Figures about the fit.
    pub facts: Facts,
}
