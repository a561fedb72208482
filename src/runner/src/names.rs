//! Names of files in receipts: relative to the recipe or the experiment, so that a copied tree stays up to date.

use std::path::{Path, PathBuf};

use crate::StageError;

const EXPERIMENT: &str = "exp:";
const RECIPE: &str = "recipe:";

/// Turns paths into the names that receipts keep.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    recipe_dir: PathBuf,
    experiment_dir: PathBuf,
}

impl Names {
    pub fn new(recipe_dir: &Path, experiment_dir: &Path) -> Self {
        Self { recipe_dir: recipe_dir.to_owned(), experiment_dir: experiment_dir.to_owned() }
    }

    /// Returns the absolute path of a declared file. Relative paths start from the recipe's folder.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.recipe_dir.join(path)
    }

    /// Returns the path of a receipt's name.
    pub fn path(&self, name: &str) -> PathBuf {
        match (name.strip_prefix(EXPERIMENT), name.strip_prefix(RECIPE)) {
            (Some(relative), _) => self.experiment_dir.join(relative),
            (None, Some(relative)) => self.recipe_dir.join(relative),
            (None, None) => PathBuf::from(name),
        }
    }

    /// Returns the receipt's name of an absolute path.
    pub fn name(&self, path: &Path) -> Result<String, StageError> {
        let (prefix, relative) = if let Ok(relative) = path.strip_prefix(&self.experiment_dir) {
            (EXPERIMENT, relative)
        } else if let Ok(relative) = path.strip_prefix(&self.recipe_dir) {
            (RECIPE, relative)
        } else {
            ("", path)
        };
        let text = relative.to_str();
        let text = text.ok_or_else(|| StageError::new(format!("{}: the name is not UTF-8", path.display())))?;
        Ok(format!("{prefix}{text}"))
    }
}

/// Returns whether a receipt's name is that of a file in the experiment's folder.
pub(crate) fn is_of_experiment(name: &str) -> bool {
    name.starts_with(EXPERIMENT)
}

/// Formats a receipt's name of a file for people.
pub(crate) fn display(name: &str) -> &str {
    name.strip_prefix(EXPERIMENT).or_else(|| name.strip_prefix(RECIPE)).unwrap_or(name)
}
