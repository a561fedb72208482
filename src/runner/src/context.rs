//! The view of an experiment that a stage has while it plans.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::layout::StageDir;
use crate::receipt::Receipt;
use crate::work::lock;
use crate::{Experiment, Recipe, StageError, store};

/// The view of an experiment that a stage has while it plans its parts: the recipe, the folders, and finished stages.
#[derive(Debug, Clone)]
pub struct PlanContext {
    pub(crate) recipe: Recipe,
    pub(crate) experiment: Experiment,
    /// Number and folder of every stage.
    pub(crate) stages: Arc<[(u8, String)]>,
    /// The stage that plans.
    pub(crate) own: u8,
    /// The keys of its earlier phases.
    pub(crate) own_keys: Vec<String>,
    pub(crate) shared: RunValues,
}

/// Values that the stages of one run share, one of each type.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunValues(Arc<Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>>);

impl PlanContext {
    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The recipe's folder, absolute.
    pub fn recipe_dir(&self) -> &Path {
        self.recipe.dir()
    }

    /// The experiment's folder, absolute.
    pub fn experiment_dir(&self) -> &Path {
        self.experiment.dir()
    }

    /// The folder of a stage: `exp/NAME/0-prep`.
    pub fn stage_dir(&self, number: u8) -> PathBuf {
        self.folder(number).path
    }

    /// Returns the folder for temporary files that no later run needs. It is on the experiment's disk and not part of
    /// any result.
    pub fn scratch_dir(&self) -> PathBuf {
        self.experiment.scratch_dir()
    }

    /// The value of this type that all stages of the run share, made when one first asks for it and freed with the run. It is for what can be
    /// made again at any time, such as a cache.
    pub fn of_run<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let mut values = lock(&self.shared.0);
        let value = values.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default()));
        // The entry of a type holds a value of that type.
        Arc::clone(value).downcast().unwrap_or_default()
    }

    /// A path as the recipe says it: relative ones are taken from the recipe's folder.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.recipe.resolve(path)
    }

    /// Returns the receipts of a finished stage, in the order in which the parts were planned. For the number of the
    /// stage that plans, returns those of its earlier phases.
    ///
    /// # Errors
    /// Returns an error if that stage is not finished, or a receipt is missing or damaged.
    pub fn receipts(&self, number: u8) -> Result<Vec<Receipt>, StageError> {
        let dir = self.folder(number);
        if number == self.own {
            return store::read_receipts(&dir, &self.own_keys);
        }
        let Some(summary) = store::read_summary(&dir)? else {
            return Err(StageError::new(format!("{} is not finished; run it with --stage {number}", dir.name)));
        };
        store::read_receipts(&dir, &summary.phases.concat())
    }

    /// Returns the last receipt of the part with this key in the planning stage, even if it is out of date.
    pub fn last_receipt(&self, key: &str) -> Option<Receipt> {
        Receipt::read(&self.folder(self.own).receipt(key)).ok()
    }

    fn folder(&self, number: u8) -> StageDir {
        let known = self.stages.iter().find(|(n, _)| *n == number);
        let name = known.map_or_else(|| number.to_string(), |(_, name)| name.clone());
        StageDir::new(self.experiment.dir(), name)
    }
}
