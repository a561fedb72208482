//! The recipe's `average` section.

use flowmill_runner::{Recipe, RecipeError};
use serde::{Deserialize, Serialize};

/// Which checkpoints are averaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AverageSection {
    /// By which order they are chosen.
    pub which: Which,
    /// How many; fewer are taken when fewer are there.
    pub count: usize,
}

/// An order of checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The lowest validation losses; of equal ones the earlier.
    Best,
    /// The newest.
    Last,
}

impl Default for AverageSection {
    fn default() -> Self {
        Self { which: Which::Best, count: 5 }
    }
}

impl AverageSection {
    /// Reads and checks the section.
    ///
    /// # Errors
    /// The first key that cannot be used.
    pub fn read(recipe: &Recipe) -> Result<Self, RecipeError> {
        let section: Self = recipe.section("average")?;
        if section.count == 0 {
            return Err(recipe.error("average.count", "must be at least 1"));
        }
        Ok(section)
    }
}
