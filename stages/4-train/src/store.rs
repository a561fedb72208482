//! Checkpoints as durable folders of the part's staging folder.

use std::path::{Path, PathBuf};

use flowmill_runner::{PartWork, StageError};
use flowmill_train::{CheckpointStore, TrainError};

/// A store of checkpoints from which a rerun after a crash continues.
pub struct StagedCheckpoints<'a>(pub &'a PartWork);

impl StagedCheckpoints<'_> {
    fn error(name: &str) -> impl FnOnce(StageError) -> TrainError {
        let name = name.to_owned();
        move |source| TrainError::Store { name, source: Box::new(source) }
    }
}

impl CheckpointStore for StagedCheckpoints<'_> {
    fn save(&self, name: &str, write: &mut dyn FnMut(&Path) -> Result<(), TrainError>) -> Result<(), TrainError> {
        let written = self.0.persist_dir(name, |folder| write(folder).map_err(StageError::other));
        written.map(drop).map_err(Self::error(name))
    }

    fn list(&self) -> Result<Vec<String>, TrainError> {
        self.0.persisted().map_err(Self::error("list"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.staging_dir().join(name)
    }

    fn remove(&self, name: &str) -> Result<(), TrainError> {
        self.0.remove_persisted(name).map_err(Self::error(name))
    }

    fn record(&self) -> Option<serde_json::Value> {
        serde_json::to_value(self.0.record()).ok()
    }

    fn set_aside(&self, name: &str) -> Result<PathBuf, TrainError> {
        self.0.set_aside(name, &format!("damaged-{name}")).map_err(Self::error(name))
    }
}
