//! Where things lie in an experiment's folder.

use std::path::{Path, PathBuf};

use crate::stage::folder_name;
use crate::work::STATE;
use crate::{Recipe, Stage};

/// Names in a stage's folder that are the runner's.
pub(crate) const RESERVED: [&str; 5] = ["receipts", REJECTED, "stage.json", ".staging", ".previous"];
/// The table of a stage's rejected rows.
pub(crate) const REJECTED: &str = "rejected.parquet";

/// An experiment: the folder that one recipe's stages write to, `exp/NAME` beside the recipe unless told otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experiment {
    dir: PathBuf,
}

impl Experiment {
    /// `exp/NAME` beside the recipe file.
    pub fn of_recipe(recipe: &Recipe) -> Self {
        Self { dir: recipe.dir().join("exp").join(recipe.name()) }
    }

    /// A folder of the person's choice (`--exp DIR`).
    ///
    /// # Errors
    /// When the current directory, which a relative folder is taken from, is gone.
    pub fn at(dir: impl AsRef<Path>) -> std::io::Result<Self> {
        Ok(Self { dir: std::path::absolute(dir)? })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of a stage: `4-train`.
    pub fn stage_dir(&self, stage: &dyn Stage) -> PathBuf {
        self.dir.join(folder_name(stage))
    }

    /// One JSON line per command that ran: command line, version, host, start, duration, outcome.
    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal.jsonl")
    }

    /// Who works here now; empty when nobody does.
    pub fn lock_file(&self) -> PathBuf {
        self.dir.join(".lock")
    }

    /// The short-cut from (size, times, inode) to content hashes; may be deleted at any time.
    pub fn cache_file(&self) -> PathBuf {
        self.scratch_dir().join("content")
    }

    /// What may be deleted at any time.
    pub(crate) fn scratch_dir(&self) -> PathBuf {
        self.dir.join(".cache")
    }
}

/// Where a resumable part keeps what it goes on from ([`crate::PartWork::staging_dir`]) while it is not done, by the folder of its stage.
pub fn part_state(stage_dir: &Path, key: &str) -> PathBuf {
    StageDir::new(
        stage_dir.parent().unwrap_or(Path::new("")),
        stage_dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    )
    .staging(key)
    .join(STATE)
}

/// The paths of one stage's folder.
#[derive(Debug, Clone)]
pub(crate) struct StageDir {
    /// Its name: `0-prep`.
    pub name: String,
    /// The folder itself.
    pub path: PathBuf,
}

impl StageDir {
    pub fn new(experiment: &Path, name: String) -> Self {
        Self { path: experiment.join(&name), name }
    }

    pub fn receipts(&self) -> PathBuf {
        self.path.join("receipts")
    }

    pub fn receipt(&self, key: &str) -> PathBuf {
        self.path.join("receipts").join(format!("{key}.json"))
    }

    pub fn staging_root(&self) -> PathBuf {
        self.path.join(".staging")
    }

    /// A part's staging folder. `%` is in no key, so that different keys never share one.
    pub fn staging(&self, key: &str) -> PathBuf {
        self.staging_root().join(key.replace('/', "%"))
    }

    pub fn summary(&self) -> PathBuf {
        self.path.join("stage.json")
    }

    pub fn rejected(&self) -> PathBuf {
        self.path.join(REJECTED)
    }

    /// Where the last whole result is kept while it is replaced.
    pub fn previous(&self) -> PathBuf {
        self.path.join(".previous")
    }

    /// The rejected rows of an attempt that failed, beside a whole result that keeps its own.
    pub fn rejected_of_attempt(&self) -> PathBuf {
        self.staging_root().join(format!("%{REJECTED}"))
    }
}
