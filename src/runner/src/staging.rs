//! From a part's staging folder to its place: prepared, synced, renamed, the receipt last.
//!
//! A receipt names the hash of every output, so a mixture of old and new files is never taken for a finished part.
//! The new receipt lies in the staging folder before the first rename; a run that is killed between the renames
//! leaves it there, and the next run carries on with the renames.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::cache::{ContentCache, Hash, hash_file, hex};
use crate::layout::StageDir;
use crate::receipt::{OutputRecord, PartDone, Receipt};
use crate::work::{OUTPUTS, STATE, TEMPORARY, lock};
use crate::{StageError, files, sealed};

/// The receipt of prepared work, inside its staging folder.
const RECEIPT: &str = "receipt.json";
/// What resumable work belongs to, inside its staging folder.
const FINGERPRINT: &str = "fingerprint.json";

/// Makes the staging folder of a part ready. Resumable work is kept when it belongs to the same fingerprint.
pub(crate) fn begin(staging: &Path, resumable: Option<&[u8]>) -> Result<(), StageError> {
    let fingerprint = staging.join(FINGERPRINT);
    let same = resumable.is_some_and(|bytes| fs::read(&fingerprint).is_ok_and(|kept| kept == bytes));
    if same {
        files::remove_any(&staging.join(OUTPUTS))?;
        files::remove_any(&staging.join(RECEIPT))?;
        remove_temporaries(&staging.join(STATE))?;
    } else {
        files::remove_any(staging)?;
        files::make_dir(staging)?;
        if let Some(bytes) = resumable {
            files::write_atomically(&fingerprint, bytes)?;
        }
    }
    files::make_dir(&staging.join(OUTPUTS))?;
    files::make_dir(&staging.join(STATE))
}

fn remove_temporaries(state: &Path) -> Result<(), StageError> {
    for name in files::list_names(state)?.iter().filter(|name| name.starts_with(TEMPORARY)) {
        files::remove_any(&state.join(name))?;
    }
    Ok(())
}

/// The outputs that lie in a staging folder, hashed, sorted by path.
pub(crate) fn outputs(staging: &Path) -> Result<Vec<(OutputRecord, Hash)>, StageError> {
    let root = staging.join(OUTPUTS);
    let mut records = Vec::new();
    for path in files::files_below(&root)? {
        let (hash, _, stamp) = hash_file(&root.join(&path))?;
        records.push((OutputRecord { path, size: stamp.size, blake3: hex(&hash) }, hash));
    }
    Ok(records)
}

/// Work that is done and lies in its staging folder.
pub(crate) struct Prepared {
    pub staging: PathBuf,
    pub receipt: Receipt,
    pub hashes: Vec<Hash>,
}

impl Prepared {
    /// Writes the receipt beside the outputs.
    pub fn write_receipt(&self) -> Result<(), StageError> {
        let bytes = sealed::seal(&self.receipt).map_err(StageError::other)?;
        let path = self.staging.join(RECEIPT);
        fs::write(&path, bytes).map_err(|e| StageError::file(path, e))
    }
}

/// Puts prepared work in its place.
pub(crate) struct Publisher<'a> {
    pub dir: &'a StageDir,
    pub cache: &'a ContentCache,
    /// Which part each output belongs to.
    claims: Mutex<HashMap<String, String>>,
    /// Folders whose list of names has changed.
    touched: Mutex<BTreeSet<PathBuf>>,
}

impl<'a> Publisher<'a> {
    pub fn new(dir: &'a StageDir, cache: &'a ContentCache) -> Self {
        Self { dir, cache, claims: Mutex::default(), touched: Mutex::default() }
    }

    /// Notes whose the outputs are; two parts that write the same file are an error.
    pub fn claim(&self, key: &str, outputs: &[String]) -> Result<(), StageError> {
        let mut claims = lock(&self.claims);
        for output in outputs {
            match claims.get(output) {
                Some(other) if other != key => {
                    return Err(StageError::new(format!("the parts {other} and {key} both write {output}")));
                }
                _ => drop(claims.insert(output.clone(), key.to_owned())),
            }
        }
        Ok(())
    }

    /// Syncs prepared work and renames it into place, the receipt last.
    pub fn publish(&self, prepared: Prepared) -> Result<PartDone, StageError> {
        let done = prepared.receipt.done();
        self.claim(&done.key, &done.outputs)?;
        let staged = prepared.staging.join(OUTPUTS);
        for output in &done.outputs {
            files::sync_file(&staged.join(output))?;
        }
        files::sync_file(&prepared.staging.join(RECEIPT))?;
        self.put_in_place(&prepared.staging, &prepared.receipt)?;
        for (output, hash) in done.outputs.iter().zip(prepared.hashes) {
            self.cache.remember_output(&self.dir.path.join(output), hash)?;
        }
        Ok(done)
    }

    /// Carries on where a killed run stopped between its renames.
    pub fn recover(&self) -> Result<(), StageError> {
        let root = self.dir.staging_root();
        for name in files::list_names(&root)? {
            let staging = root.join(name);
            let Ok(receipt) = Receipt::read(&staging.join(RECEIPT)) else {
                continue;
            };
            if self.dir.staging(&receipt.key) == staging && receipt.stage == self.dir.name {
                self.put_in_place(&staging, &receipt)?;
            }
        }
        Ok(())
    }

    /// Removes a part that is not planned any more: its outputs, unless they are another part's now, and its receipt.
    pub fn retire(&self, key: &str) -> Result<(), StageError> {
        let path = self.dir.receipt(key);
        if let Ok(receipt) = Receipt::read(&path) {
            self.remove_outputs(&receipt, &[])?;
        }
        files::remove_any(&path)?;
        self.touch_parent(&path);
        if let Some(parent) = path.parent() {
            files::remove_empty_dirs(parent, &self.dir.receipts());
        }
        Ok(())
    }

    /// Forces the names of everything that was put in place to the disk.
    pub fn sync_names(&self) -> Result<(), StageError> {
        for dir in std::mem::take(&mut *lock(&self.touched)) {
            if dir.is_dir() {
                files::sync_dir(&dir)?;
            }
        }
        Ok(())
    }

    /// Every step may have been done before by a run that was killed.
    fn put_in_place(&self, staging: &Path, receipt: &Receipt) -> Result<(), StageError> {
        let final_receipt = self.dir.receipt(&receipt.key);
        if let Ok(old) = Receipt::read(&final_receipt) {
            let kept: Vec<&str> = receipt.files.iter().map(|file| file.path.as_str()).collect();
            self.remove_outputs(&old, &kept)?;
        }
        for file in &receipt.files {
            let staged = staging.join(OUTPUTS).join(&file.path);
            if staged.exists() {
                self.rename(&staged, &self.dir.path.join(&file.path))?;
            }
        }
        self.rename(&staging.join(RECEIPT), &final_receipt)?;
        files::remove_any(staging)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StageError> {
        if let Some(parent) = to.parent() {
            files::make_dir(parent)?;
        }
        self.touch_parent(to);
        fs::rename(from, to).map_err(|e| StageError::file(to, e))
    }

    fn remove_outputs(&self, receipt: &Receipt, keep: &[&str]) -> Result<(), StageError> {
        for file in &receipt.files {
            let others = lock(&self.claims).get(&file.path).is_some_and(|owner| *owner != receipt.key);
            if others || keep.contains(&file.path.as_str()) || !is_below(&file.path) {
                continue;
            }
            let path = self.dir.path.join(&file.path);
            files::remove_any(&path)?;
            self.touch_parent(&path);
            if let Some(parent) = path.parent() {
                files::remove_empty_dirs(parent, &self.dir.path);
            }
        }
        Ok(())
    }

    fn touch_parent(&self, path: &Path) {
        let mut touched = lock(&self.touched);
        for parent in path.ancestors().skip(1).take_while(|parent| parent.starts_with(&self.dir.path)) {
            if !touched.insert(parent.to_owned()) {
                return;
            }
        }
        if let Some(above) = self.dir.path.parent() {
            touched.insert(above.to_owned());
        }
    }
}

/// A receipt is sealed, not signed: what it names is still not let out of the stage's folder.
fn is_below(path: &str) -> bool {
    Path::new(path).components().all(|c| matches!(c, std::path::Component::Normal(_)))
}
