//! The recipe's `average` section.

use flowmill_runner::{Recipe, RecipeError};
use flowmill_train::{Interval, KeepConfig, RunLength};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of stage 5, `average`: the checkpoints whose weights are averaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AverageSection {
    /// The order by which checkpoints are chosen. Without validation losses the last ones are taken.
    pub which: Which,
    /// Number of checkpoints; fewer if fewer exist.
    ///
    /// Counterparts: `average_num`.
    pub count: usize,
}

/// An order of checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The lowest validation losses; the earlier of equal ones.
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
    /// Returns the first invalid key.
    pub fn read(recipe: &Recipe) -> Result<Self, RecipeError> {
        let section: Self = recipe.section("average")?;
        if section.count == 0 {
            return Err(recipe.error("average.count", "must be at least 1"));
        }
        Ok(section)
    }
}

/// Returns warnings about averages of more checkpoints than there will be.
///
/// # Errors
/// Returns an error if a section does not parse.
pub fn warnings(recipe: &Recipe) -> Result<Vec<String>, RecipeError> {
    let AverageSection { which, count } = AverageSection::read(recipe)?;
    let keep: KeepConfig = recipe.value("train.keep")?.unwrap_or_default();
    let validates = !recipe.gives("train.validation_split") || recipe.sets("train.validation_split");
    let (key, kept) = match which {
        Which::Best if validates => ("best", keep.best),
        _ => ("last", keep.last),
    };
    let mut found = Vec::new();
    if count > kept {
        found.push(format!(
            "average.count is {count}, but train.keep.{key} keeps {kept}: the average is of fewer checkpoints, or of others than the {key} \
             {count}; raise train.keep.{key}"
        ));
    }
    let length = RunLength { steps: recipe.value("train.max_steps")?, epochs: recipe.value("train.max_epochs")? };
    let save_every: Option<Interval> = recipe.value("train.save_every")?;
    // Without validations between them, checkpoints are those of the schedule and the one at the end.
    let made = save_every.and_then(|every| Some(length.times(every)?.saturating_add(1)));
    if let Some(made) = made.filter(|made| key == "last" && (count as u64) > *made && count <= kept) {
        found.push(format!(
            "average.count is {count}, but training makes at most {made} checkpoints (train.save_every)"
        ));
    }
    Ok(found)
}
