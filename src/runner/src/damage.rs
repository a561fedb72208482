//! Checks whether files of an experiment match their receipts, for commands that show or use them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cache::{hash_file, hex};
use crate::layout::{REJECTED, StageDir};
use crate::receipt::{OutputRecord, Receipt};
use crate::{StageError, checksummed_json, files, rejects, store};

/// The receipts of a stage's folder, indexed by file.
pub struct StageFiles {
    dir: StageDir,
    outputs: BTreeMap<String, OutputRecord>,
}

impl StageFiles {
    /// Reads the receipts of a stage's folder. Returns none if the folder is not one of a stage.
    pub fn of(folder: &Path) -> Option<Self> {
        let name = folder.file_name()?.to_str()?.to_owned();
        let dir = StageDir::new(folder.parent()?, name);
        let names = dir.receipts().is_dir().then(|| files::files_below(&dir.receipts()).ok())??;
        let receipts = names.iter().filter_map(|name| Receipt::read(&dir.receipts().join(name)).ok());
        let outputs = receipts.flat_map(|receipt| receipt.files).map(|file| (file.path.clone(), file)).collect();
        Some(Self { dir, outputs })
    }

    /// Returns the outputs with their sizes; paths are relative to the folder.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, u64)> {
        self.outputs.iter().map(|(name, output)| (name.as_str(), output.size))
    }

    /// Describes the damage of a file, given by its path relative to the folder. Returns none if the file is intact
    /// or unknown.
    pub fn damage(&self, name: &str) -> Option<String> {
        let path = self.dir.path.join(name);
        match name {
            "stage.json" => sealed_content(&path).err().map(|error| error.to_string()),
            REJECTED => self.damage_of_rejected(&path),
            _ if name.starts_with("receipts/") => Receipt::read(&path).err().map(|error| error.to_string()),
            _ => {
                let output = self.outputs.get(name)?;
                let (hash, ..) = hash_file(&path).ok()?;
                let differs = hex(&hash) != output.blake3;
                differs.then(|| format!("{}/{name} differs from its receipt", self.dir.name))
            }
        }
    }

    fn damage_of_rejected(&self, path: &Path) -> Option<String> {
        let summary = store::read_summary(&self.dir).ok()??;
        let receipts = store::read_receipts(&self.dir, &summary.phases.concat()).ok()?;
        let parts: Vec<_> = receipts.iter().map(Receipt::done).collect();
        let differs = rejects::encode(&parts).ok()? != std::fs::read(path).ok();
        differs.then(|| format!("{}/{REJECTED} differs from the receipts", self.dir.name))
    }
}

/// Describes the damage of a file of an experiment. Returns none if the file is intact or unknown.
pub fn damage(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    let folders = path.ancestors().skip(1).map(Path::to_owned);
    let stage: PathBuf = folders.into_iter().find(|folder| folder.join("receipts").is_dir())?;
    StageFiles::of(&stage)?.damage(path.strip_prefix(&stage).ok()?.to_str()?)
}

/// Returns the content of a file that contains its own hash, such as `stage.json`.
///
/// # Errors
/// Returns an error if the file is missing or damaged.
pub fn sealed_content(path: &Path) -> Result<Value, StageError> {
    let bytes = std::fs::read(path).map_err(|e| StageError::file(path, e))?;
    checksummed_json::open(&bytes).map_err(|e| StageError::new(format!("{}: {e}", path.display())))
}
