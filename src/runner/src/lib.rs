//! The runner: everything a numbered, idempotent stage needs around it, once for all stages.
//!
//! It reads a recipe, asks each stage for its parts, compares every part with the receipt of its last run, runs what
//! changed on local threads, puts the outputs in place atomically, counts rows, and tells a person what happens.
//! It knows nothing of audio, corpora or networks: a stage is anything that implements [`Stage`].
//!
//! | to learn about | read |
//! |---|---|
//! | what a stage gives | [`Stage`], [`Phase`], [`Part`], [`PartWork`], [`PartReport`] |
//! | the recipe file | [`Recipe`], [`RecipeError`] |
//! | what lies on disk | [`Experiment`], [`Receipt`] |

mod context;
mod error;
mod files;
mod layout;
mod part;
mod receipt;
mod recipe;
mod sealed;
mod stage;
mod store;
mod work;

pub use context::PlanContext;
pub use error::StageError;
pub use layout::Experiment;
pub use part::{Part, Phase};
pub use receipt::{InputRecord, OutputRecord, Receipt, Rejection};
pub use recipe::{Recipe, RecipeError};
pub use stage::Stage;
pub use work::{PartReport, PartWork};
