//! Errors of families.

use flowmill_runner::{Recipe, RecipeError};

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct KeyError {
    /// The key of the recipe, in full: `train.model.vocab_size`.
    pub key: String,
    /// The problem with its value.
    pub reason: String,
}

impl KeyError {
    /// An error about a key of the recipe.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: reason.into() }
    }

    /// The same error with the line on which the recipe has the key.
    pub fn in_recipe(self, recipe: &Recipe) -> RecipeError {
        recipe.error(&self.key, self.reason)
    }
}

/// A misuse of the interface, or a description that names no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FamilyError {
    /// No family of this name is registered.
    #[error("there is no family `{name}` (known: {known})")]
    Unknown {
        /// The name.
        name: String,
        /// The names of the registered families.
        known: String,
    },
    /// The settings of a described model are not those of its family.
    #[error("model: {0}")]
    Settings(#[source] serde_json::Error),
    /// The options are not those of the family.
    #[error("{0}")]
    Options(#[source] serde_json::Error),
    /// Data of one family were given to another.
    #[error("these {what} do not belong to the family `{family}`")]
    Foreign {
        /// The value given.
        what: &'static str,
        /// The family that it was given to.
        family: &'static str,
    },
}
