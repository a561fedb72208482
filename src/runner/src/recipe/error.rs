//! Errors in a recipe, with their place.

use std::fmt;

use super::node::Place;

/// One error in a recipe: place, key, what is wrong, and what to do. The program exits with code 2 on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeError {
    pub(super) place: Option<Place>,
    pub(super) key: String,
    pub(super) message: String,
}

impl RecipeError {
    /// The kind among the errors of a run ([`RunError::kind`](crate::RunError::kind)).
    pub const KIND: &str = "recipe";

    pub(crate) fn new(place: Place, message: impl fmt::Display) -> Self {
        Self { place: Some(place), key: String::new(), message: message.to_string() }
    }

    pub(crate) fn at(place: Option<Place>, key: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { place, key: key.into(), message: message.to_string() }
    }

    /// Creates an error that does not belong to a line of a recipe, such as a missing recipe.
    pub fn without_place(message: impl fmt::Display) -> Self {
        Self { place: None, key: String::new(), message: message.to_string() }
    }

    /// Returns the dotted key it concerns, such as `train.optim.lr`; empty if there is none.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the line it concerns, from 1, if any.
    pub fn line(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.line).filter(|&line| line > 0)
    }
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for RecipeError {}
