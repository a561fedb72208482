//! The layout of an experiment's folder.

use std::path::{Path, PathBuf};

use crate::stage::folder_name;
use crate::work::STATE;
use crate::{Recipe, Stage};

/// Names in a stage's folder that are reserved for the runner.
pub(crate) const RESERVED: [&str; 5] = ["receipts", REJECTED, "stage.json", ".staging", ".previous"];
/// The table of a stage's rejected rows.
pub(crate) const REJECTED: &str = "rejected.parquet";

/// An experiment: the folder that the stages of one recipe write to. The default is `exp/NAME` next to the recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experiment {
    dir: PathBuf,
}

impl Experiment {
    /// Returns the experiment `exp/NAME` next to the recipe file.
    pub fn of_recipe(recipe: &Recipe) -> Self {
        Self { dir: recipe.dir().join("exp").join(recipe.name()) }
    }

    /// Returns the experiment in a folder chosen by the user (`--exp DIR`).
    ///
    /// # Errors
    /// Returns an error if the folder is relative and the current directory no longer exists.
    pub fn at(dir: impl AsRef<Path>) -> std::io::Result<Self> {
        Ok(Self { dir: std::path::absolute(dir)? })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the folder of a stage: `4-train`.
    pub fn stage_dir(&self, stage: &dyn Stage) -> PathBuf {
        self.dir.join(folder_name(stage))
    }

    /// Returns the path of the journal: one JSON line per command, with command line, version, host, start, duration
    /// and outcome.
    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal.jsonl")
    }

    /// Returns the path of the lock file, which names the running process. It is empty when none runs.
    pub fn lock_file(&self) -> PathBuf {
        self.dir.join(".lock")
    }

    /// Returns the path of the cache from (size, times, inode) to content hashes. It may be deleted at any time.
    pub fn cache_file(&self) -> PathBuf {
        self.scratch_dir().join("content")
    }

    /// Returns the folder of files that may be deleted at any time.
    pub(crate) fn scratch_dir(&self) -> PathBuf {
        self.dir.join(".cache")
    }
}

/// Returns the folder in which an unfinished resumable part keeps its state ([`crate::PartWork::staging_dir`]), given
/// the folder of its stage.
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
    /// The name: `0-prep`.
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

    /// Returns a part's staging folder. Keys cannot contain `%`, so different keys never share one.
    pub fn staging(&self, key: &str) -> PathBuf {
        self.staging_root().join(key.replace('/', "%"))
    }

    pub fn summary(&self) -> PathBuf {
        self.path.join("stage.json")
    }

    pub fn rejected(&self) -> PathBuf {
        self.path.join(REJECTED)
    }

    /// Returns the folder that keeps the last complete result while it is replaced.
    pub fn previous(&self) -> PathBuf {
        self.path.join(".previous")
    }

    /// Returns the path of the rejected rows of a failed attempt. A complete result keeps its own.
    pub fn rejected_of_attempt(&self) -> PathBuf {
        self.staging_root().join(format!("%{REJECTED}"))
    }
}
