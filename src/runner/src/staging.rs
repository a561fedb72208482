//! Committing a part, from its staging folder to its place: prepared, synced, renamed, the receipt last.
//!
//! A receipt names the hash of every output, so a mixture of old and new files is never taken for a finished part.
//! The new receipt is in the staging folder before the first rename. If a run is killed between the renames, it
//! remains there, and the next run adopts the part if it still fits. Replaced files go to [`Previous`].

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::assess::{Assessor, Planned};
use crate::cache::{ContentCache, Hash, hash_file, hex};
use crate::layout::{RESERVED, StageDir};
use crate::part::{Restored, Resumable};
use crate::previous::{Previous, receipt_name};
use crate::receipt::{Fingerprint, OutputRecord, PartDone, Receipt};
use crate::work::{OUTPUTS, STATE, TEMPORARY, lock};
use crate::{StageError, checksummed_json, files, store};

/// The receipt of prepared work, inside its staging folder.
const RECEIPT: &str = "receipt.json";
/// Number of further attempts of a rename whose folder is gone.
const RENAMES: usize = 10;
/// The identity of resumable work, inside its staging folder.
const FINGERPRINT: &str = "fingerprint.json";

/// Returns the record of how the resumable work in a staging folder started, or a description of its damage. Returns
/// none if there is no record, as for work that was being removed.
pub(crate) fn begun_with(staging: &Path) -> Result<Option<Fingerprint>, String> {
    match fs::read(staging.join(FINGERPRINT)) {
        Ok(bytes) => checksummed_json::open(&bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the path of the receipt of prepared work.
pub(crate) fn staged_receipt(staging: &Path) -> PathBuf {
    staging.join(RECEIPT)
}

/// Returns the receipt of finished work in a staging folder, if it belongs to this stage.
pub(crate) fn prepared_receipt(staging: &Path, dir: &StageDir) -> Option<Receipt> {
    let receipt = Receipt::read(&staged_receipt(staging)).ok()?;
    (dir.staging(&receipt.key) == staging && receipt.stage == dir.name).then_some(receipt)
}

/// Removes a staging folder. It is renamed first, so that its remains after a kill are never taken for work without a
/// record.
pub(crate) fn discard(staging: &Path) -> Result<(), StageError> {
    let doomed = renamed(staging, "%discarded");
    files::remove_any(&doomed)?;
    match fs::rename(staging, &doomed) {
        Ok(()) => files::remove_any(&doomed),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(StageError::file(staging, e)),
    }
}

/// Returns the path of a staging folder under a name that no part has: `%` is in no key, and in a part's folder only
/// between names.
fn renamed(staging: &Path, prefix: &str) -> PathBuf {
    staging.with_file_name(format!("{prefix}{}", staging.file_name().unwrap_or_default().to_string_lossy()))
}

/// Returns whether the resumable work in a staging folder started with the same fingerprint.
fn belongs_to(staging: &Path, fingerprint: &Fingerprint) -> Result<bool, StageError> {
    // Compared as read back from a file, so that converting numbers to text and back cannot make a difference.
    let bytes = checksummed_json::seal(fingerprint).map_err(StageError::other)?;
    let fingerprint: Fingerprint = checksummed_json::open(&bytes).map_err(StageError::new)?;
    Ok(begun_with(staging).is_ok_and(|begun| begun == Some(fingerprint)))
}

/// Prepares the staging folder of a part that starts from the beginning. Files of resumable work from which nothing
/// can continue are kept if it started with the same fingerprint.
pub(crate) fn begin(staging: &Path, resumable: Option<&Fingerprint>) -> Result<(), StageError> {
    let same = resumable.map_or(Ok(false), |fingerprint| belongs_to(staging, fingerprint))?;
    if same {
        return clear(staging);
    }
    discard(staging)?;
    files::make_dir(staging)?;
    if let Some(fingerprint) = resumable {
        record(staging, fingerprint)?;
    }
    clear(staging)
}

/// Prepares the staging folder of a part that continues from its content, which started with this or another
/// fingerprint.
pub(crate) fn take_up(staging: &Path, fingerprint: &Fingerprint) -> Result<(), StageError> {
    if !belongs_to(staging, fingerprint)? {
        record(staging, fingerprint)?;
    }
    clear(staging)
}

/// Prepares the staging folder of a part that continues from its results, which stay unchanged. Without a
/// fingerprint, the work itself will provide its record.
pub(crate) fn reopen(
    dir: &StageDir,
    receipt: &Receipt,
    restored: fn(&str) -> Option<Restored>,
    fingerprint: Option<&Fingerprint>,
) -> Result<(), StageError> {
    let staging = dir.staging(&receipt.key);
    let fresh = renamed(&staging, "%reopened");
    files::remove_any(&fresh)?;
    restore(dir, receipt, &fresh.join(STATE), &|output| restored(output))?;
    if let Some(fingerprint) = fingerprint {
        record(&fresh, fingerprint)?;
    }
    files::sync_tree(&fresh)?;
    discard(&staging)?;
    fs::rename(&fresh, &staging).map_err(|e| StageError::file(&staging, e))?;
    files::sync_dir(&dir.staging_root())?;
    clear(&staging)
}

/// Puts outputs of a finished part where its work continues from. Missing outputs are left out.
pub(crate) fn restore(
    dir: &StageDir,
    receipt: &Receipt,
    state: &Path,
    restored: &dyn Fn(&str) -> Option<Restored>,
) -> Result<(), StageError> {
    files::make_dir(state)?;
    for file in receipt.files.iter().filter(|file| is_below(&file.path)) {
        let from = dir.path.join(&file.path);
        let Some(place) = restored(&file.path).filter(|_| from.is_file()) else { continue };
        let (Restored::Linked(name) | Restored::Copied(name)) = &place;
        if !is_below(name) {
            return Err(StageError::new(format!("`{name}` is not a path inside the folder of a part")));
        }
        let to = state.join(name);
        files::make_dir(to.parent().unwrap_or(state))?;
        match place {
            Restored::Linked(_) => files::link_tree(&from, &to)?,
            // The work can continue without it.
            Restored::Copied(_) => drop(fs::copy(&from, &to)),
        }
    }
    Ok(())
}

/// Returns the files that resumable work continues from among the results of a stage, named as in a receipt.
pub(crate) fn results(dir: &StageDir, key: &str, resumable: &Resumable) -> Result<Receipt, StageError> {
    let mut found = Vec::new();
    for name in files::list_names(&dir.path)?.iter().filter(|name| !RESERVED.contains(&name.as_str())) {
        let path = dir.path.join(name);
        if path.is_dir() {
            found.extend(files::files_below(&path)?.into_iter().map(|file| format!("{name}/{file}")));
        } else {
            found.push(name.clone());
        }
    }
    found.retain(|file| (resumable.restored)(file).is_some());
    Ok(Receipt::unknown(&dir.name, key, found))
}

/// Writes the record of the conditions of resumable work.
fn record(staging: &Path, fingerprint: &Fingerprint) -> Result<(), StageError> {
    let bytes = checksummed_json::seal(fingerprint).map_err(StageError::other)?;
    files::write_atomically(&staging.join(FINGERPRINT), &bytes)
}

/// Turns finished work back into work that continues: it is no longer to be put in place, and outputs already in
/// place are removed. The folder of the work contains all of them too.
pub(crate) fn unprepare(staging: &Path, dir: &StageDir) -> Result<(), StageError> {
    if let Some(receipt) = prepared_receipt(staging, dir) {
        let in_place = |file: &&OutputRecord| is_below(&file.path) && !staging.join(OUTPUTS).join(&file.path).exists();
        for file in receipt.files.iter().filter(in_place) {
            files::remove_any(&dir.path.join(&file.path))?;
        }
    }
    clear(staging)
}

/// Removes the remains of an incomplete attempt from a staging folder.
fn clear(staging: &Path) -> Result<(), StageError> {
    files::remove_any(&staging.join(OUTPUTS))?;
    files::remove_any(&staging.join(RECEIPT))?;
    remove_temporaries(&staging.join(STATE))?;
    files::make_dir(&staging.join(OUTPUTS))?;
    files::make_dir(&staging.join(STATE))
}

fn remove_temporaries(state: &Path) -> Result<(), StageError> {
    for name in files::list_names(state)?.iter().filter(|name| name.starts_with(TEMPORARY)) {
        files::remove_any(&state.join(name))?;
    }
    Ok(())
}

/// Returns the outputs in a staging folder with their hashes, sorted by path.
pub(crate) fn outputs(staging: &Path) -> Result<Vec<(OutputRecord, Hash)>, StageError> {
    let root = staging.join(OUTPUTS);
    let mut records = Vec::new();
    for path in files::files_below(&root)? {
        let (hash, _, stamp) = hash_file(&root.join(&path))?;
        records.push((OutputRecord { path, size: stamp.size, blake3: hex(&hash) }, hash));
    }
    Ok(records)
}

/// Finished work in its staging folder.
pub(crate) struct Prepared {
    pub staging: PathBuf,
    pub receipt: Receipt,
    pub hashes: Vec<Hash>,
    /// True if the work stays in its folder when it cannot be put in place.
    pub resumable: bool,
}

impl Prepared {
    /// Writes the receipt next to the outputs.
    pub fn write_receipt(&self) -> Result<(), StageError> {
        let bytes = checksummed_json::seal(&self.receipt).map_err(StageError::other)?;
        let path = self.staging.join(RECEIPT);
        fs::write(&path, bytes).map_err(|e| StageError::file(path, e))
    }
}

/// Puts prepared work in its place.
pub(crate) struct Publisher<'a> {
    pub dir: &'a StageDir,
    pub cache: &'a ContentCache,
    /// The part that each output belongs to.
    claims: Mutex<HashMap<String, String>>,
    /// Folders in which names have changed.
    touched: Mutex<BTreeSet<PathBuf>>,
    /// Result files without a receipt, by part, from which its work continues.
    without_receipt: Mutex<HashMap<String, Receipt>>,
    /// The complete result that is being replaced.
    previous: Option<Previous>,
    /// True if parts stay in their staging folders.
    holds_back: bool,
}

impl<'a> Publisher<'a> {
    pub fn new(dir: &'a StageDir, cache: &'a ContentCache) -> Self {
        let (claims, touched, without_receipt) = Default::default();
        Self { dir, cache, claims, touched, without_receipt, previous: None, holds_back: false }
    }

    /// A publisher of single parts. It replaces nothing of a whole result: where there is one, the parts stay in their staging folders, from
    /// which a run takes them when it has all.
    pub fn of_single_parts(dir: &'a StageDir, cache: &'a ContentCache) -> Result<Self, StageError> {
        let holds_back = Previous::is_unfinished(dir) || store::read_summary(dir)?.is_some();
        Ok(Self { holds_back, ..Self::new(dir, cache) })
    }

    /// Returns whether parts stay in their staging folders.
    pub fn holds_back(&self) -> bool {
        self.holds_back
    }

    /// Continues the replacement of a complete result that a killed run started.
    pub fn resume_replacement(&mut self) -> Result<(), StageError> {
        self.previous = Previous::unfinished(self.dir)?;
        Ok(())
    }

    /// Marks the stage as unfinished until it is finished again. Its present result, if complete, is kept aside.
    pub fn begin_replacement(&mut self) -> Result<(), StageError> {
        if self.previous.is_none() && !self.holds_back {
            files::make_dir(&self.dir.path)?;
            self.previous = Previous::keep(self.dir)?;
            tracing::debug!(stage = self.dir.name, kept = self.previous.is_some(), "last good result kept aside");
            files::sync_dir(&self.dir.path)?;
        }
        Ok(())
    }

    /// Records the files of results without a receipt, which the part's new results replace.
    pub fn replaces_without_receipt(&self, results: &Receipt) {
        lock(&self.without_receipt).insert(results.key.clone(), results.clone());
    }

    /// Returns whether a whole result is being replaced, now or by a later run.
    pub fn replaces(&self) -> bool {
        self.previous.is_some() || self.holds_back
    }

    /// Puts the result back that was being replaced. Returns whether there was one.
    pub fn put_back(&mut self) -> Result<bool, StageError> {
        let Some(previous) = self.previous.take() else {
            return Ok(false);
        };
        tracing::info!(stage = self.dir.name, "last good result put back");
        previous.put_back(self.dir).map(|()| true)
    }

    /// Drops the replaced result once the stage is complete again.
    pub fn end_replacement(&mut self) -> Result<(), StageError> {
        self.previous.take().map_or(Ok(()), Previous::forget)
    }

    /// Records the owner of the outputs. Two parts that write the same file are an error.
    pub fn claim(&self, key: &str, outputs: &[String]) -> Result<(), StageError> {
        let mut claims = lock(&self.claims);
        for output in outputs {
            match claims.get(output) {
                Some(other) if other != key => {
                    let (first, second, output) = (other.clone(), key.to_owned(), output.clone());
                    return Err(StageError::OutputOfTwo { parts: Box::new([first, second]), output });
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
        if self.holds_back {
            for dir in files::dirs_below(&staged)? {
                files::sync_dir(&dir)?;
            }
            files::sync_dir(&prepared.staging)?;
            files::sync_dir(&self.dir.staging_root())?;
            return Ok(done);
        }
        self.put_in_place(&prepared.staging, &prepared.receipt)?;
        for (output, hash) in done.outputs.iter().zip(prepared.hashes) {
            self.cache.remember_output(&self.dir.path.join(output), hash)?;
        }
        tracing::debug!(stage = self.dir.name, part = done.key, outputs = done.outputs.len(), "published");
        Ok(done)
    }

    /// Removes the staging folders of a finished stage, except those of the parts in `kept`.
    pub fn sweep(&self, kept: &[String]) -> Result<(), StageError> {
        let root = self.dir.staging_root();
        let kept: Vec<PathBuf> = kept.iter().map(|key| self.dir.staging(key)).collect();
        for name in files::list_names(&root)? {
            let staging = root.join(name);
            if !kept.contains(&staging) {
                files::remove_any(&staging)?;
            }
        }
        if kept.is_empty() { files::remove_any(&root) } else { Ok(()) }
    }

    /// Puts a part in place that an earlier run finished and left in its staging folder, if it fits the present plan.
    /// That run was killed between its renames, or its stage failed after the part was done.
    pub fn adopt(&self, assessor: &Assessor<'_>, planned: &Planned) -> Result<Option<PartDone>, StageError> {
        let staging = self.dir.staging(&planned.part.key);
        match prepared_receipt(&staging, self.dir) {
            Some(receipt) if assessor.fits(planned, &receipt)? => self.adopt_whole(&staging, &receipt),
            _ => Ok(None),
        }
    }

    /// Puts a part in place if all of its outputs exist, in its staging folder or in their places.
    fn adopt_whole(&self, staging: &Path, receipt: &Receipt) -> Result<Option<PartDone>, StageError> {
        let mut hashes = Vec::with_capacity(receipt.files.len());
        for file in &receipt.files {
            let staged = staging.join(OUTPUTS).join(&file.path);
            let place = if staged.exists() { staged } else { self.dir.path.join(&file.path) };
            if !is_below(&file.path) || !place.is_file() {
                return Ok(None);
            }
            let (hash, ..) = hash_file(&place)?;
            if hex(&hash) != file.blake3 {
                return Ok(None);
            }
            hashes.push(hash);
        }
        let done = receipt.done();
        self.claim(&done.key, &done.outputs)?;
        if self.holds_back {
            return Ok(Some(done));
        }
        self.put_in_place(staging, receipt)?;
        for (output, hash) in done.outputs.iter().zip(hashes) {
            self.cache.remember_output(&self.dir.path.join(output), hash)?;
        }
        Ok(Some(done))
    }

    /// Removes a part that is no longer planned: its receipt, and its outputs unless another part owns them now.
    pub fn retire(&self, key: &str) -> Result<(), StageError> {
        let path = self.dir.receipt(key);
        if let Ok(receipt) = Receipt::read(&path) {
            self.remove_outputs(&receipt, &[])?;
        }
        self.retire_receipt(key)
    }

    /// Removes the outputs that the given receipt names (it may differ from the one in place), and the receipt in
    /// place.
    pub fn retire_as(&self, receipt: &Receipt) -> Result<(), StageError> {
        self.remove_outputs(receipt, &[])?;
        self.retire_receipt(&receipt.key)
    }

    fn retire_receipt(&self, key: &str) -> Result<(), StageError> {
        let path = self.dir.receipt(key);
        self.set_aside(&receipt_name(key))?;
        files::remove_any(&path)?;
        self.touch_parent(&path);
        if let Some(parent) = path.parent() {
            files::remove_empty_dirs(parent, &self.dir.receipts());
        }
        Ok(())
    }

    /// Moves a file of the result that is being replaced aside before another takes its place.
    pub fn set_aside(&self, name: &str) -> Result<(), StageError> {
        self.previous.as_ref().map_or(Ok(()), |previous| previous.set_aside(name))
    }

    /// Forces the names of all files that were put in place to the disk.
    pub fn sync_names(&self) -> Result<(), StageError> {
        for dir in std::mem::take(&mut *lock(&self.touched)) {
            if dir.is_dir() {
                files::sync_dir(&dir)?;
            }
        }
        Ok(())
    }

    /// A killed run may already have done any of these steps.
    fn put_in_place(&self, staging: &Path, receipt: &Receipt) -> Result<(), StageError> {
        let final_receipt = self.dir.receipt(&receipt.key);
        let old = Receipt::read(&final_receipt).ok().or_else(|| lock(&self.without_receipt).remove(&receipt.key));
        if let Some(old) = old {
            let kept: Vec<&str> = receipt.files.iter().map(|file| file.path.as_str()).collect();
            self.remove_outputs(&old, &kept)?;
        }
        for file in &receipt.files {
            let staged = staging.join(OUTPUTS).join(&file.path);
            if staged.exists() {
                self.set_aside(&file.path)?;
                self.rename(&staged, &self.dir.path.join(&file.path))?;
            }
        }
        self.set_aside(&receipt_name(&receipt.key))?;
        self.rename(&staging.join(RECEIPT), &final_receipt)?;
        discard(staging)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StageError> {
        self.touch_parent(to);
        let mut tries = 0;
        loop {
            if let Some(parent) = to.parent() {
                files::make_dir(parent)?;
            }
            match fs::rename(from, to) {
                // Another process on a part may just have removed the folder because it was empty.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && from.exists() && tries < RENAMES => tries += 1,
                other => return other.map_err(|e| StageError::file(to, e)),
            }
        }
    }

    fn remove_outputs(&self, receipt: &Receipt, keep: &[&str]) -> Result<(), StageError> {
        for file in &receipt.files {
            let others = lock(&self.claims).get(&file.path).is_some_and(|owner| *owner != receipt.key);
            if others || keep.contains(&file.path.as_str()) || !is_below(&file.path) {
                continue;
            }
            let path = self.dir.path.join(&file.path);
            self.set_aside(&file.path)?;
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

/// Returns whether a path stays inside the stage's folder. Receipts are sealed but not signed, so their paths are
/// checked.
pub(crate) fn is_below(path: &str) -> bool {
    Path::new(path).components().all(|c| matches!(c, std::path::Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PartReport;

    struct Place {
        _root: tempfile::TempDir,
        dir: StageDir,
        cache: ContentCache,
    }

    fn place() -> Place {
        let root = tempfile::tempdir().unwrap();
        let dir = StageDir::new(root.path(), "0-read".to_owned());
        let cache = ContentCache::load(&root.path().join("none"), false);
        Place { _root: root, dir, cache }
    }

    /// Prepares a part `train/a` with outputs in its staging folder.
    fn prepare(place: &Place, outputs_and_texts: &[(&str, &str)]) -> Prepared {
        let staging = place.dir.staging("train/a");
        begin(&staging, None).unwrap();
        for (path, text) in outputs_and_texts {
            let path = staging.join(OUTPUTS).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let fingerprint = Fingerprint {
            stage: place.dir.name.clone(),
            version: 1,
            key: "train/a".to_owned(),
            config: serde_json::json!({}),
            inputs: Vec::new(),
        };
        let (files, hashes) = outputs(&staging).unwrap().into_iter().unzip();
        let receipt = Receipt::new(fingerprint, PartReport::rows(2, 2), files, Vec::new(), None);
        let prepared = Prepared { staging, receipt, hashes, resumable: false };
        prepared.write_receipt().unwrap();
        prepared
    }

    fn names(place: &Place) -> Vec<String> {
        files::files_below(&place.dir.path).unwrap()
    }

    fn read(place: &Place, path: &str) -> String {
        fs::read_to_string(place.dir.path.join(path)).unwrap()
    }

    /// Covers every state that a kill between the renames can leave, whatever the number of finished renames.
    #[test]
    fn a_run_killed_between_its_renames_is_carried_on() {
        let new = [("train/x", "new x"), ("train/y", "new y")];
        for renamed in 0..=2 {
            let place = place();
            let publisher = Publisher::new(&place.dir, &place.cache);
            publisher.publish(prepare(&place, &[("train/x", "old x"), ("train/gone", "old")])).unwrap();
            let prepared = prepare(&place, &new);
            for (path, _) in &new[..renamed] {
                let staged = prepared.staging.join(OUTPUTS).join(path);
                fs::rename(staged, place.dir.path.join(path)).unwrap();
            }
            let next = Publisher::new(&place.dir, &place.cache);
            let staging = place.dir.staging("train/a");
            let receipt = prepared_receipt(&staging, &place.dir).unwrap();
            assert!(next.adopt_whole(&staging, &receipt).unwrap().is_some(), "after {renamed}");
            assert_eq!(names(&place), ["receipts/train/a.json", "train/x", "train/y"], "after {renamed}");
            assert_eq!((read(&place, "train/x"), read(&place, "train/y")), ("new x".into(), "new y".into()));
            let receipt = Receipt::read(&place.dir.receipt("train/a")).unwrap();
            assert_eq!(receipt.files.len(), 2);
        }
    }

    #[test]
    fn a_torn_receipt_or_output_is_not_adopted() {
        let place = place();
        let prepared = prepare(&place, &[("x", "x")]);
        let receipt = prepared.staging.join(RECEIPT);
        let bytes = fs::read(&receipt).unwrap();
        fs::write(&receipt, &bytes[..bytes.len() / 2]).unwrap();
        assert!(prepared_receipt(&prepared.staging, &place.dir).is_none());
        fs::write(&receipt, bytes).unwrap();
        fs::write(prepared.staging.join(OUTPUTS).join("x"), "y").unwrap();
        let publisher = Publisher::new(&place.dir, &place.cache);
        assert!(publisher.adopt_whole(&prepared.staging, &prepared.receipt).unwrap().is_none());
        assert!(!place.dir.path.join("x").exists() && !place.dir.receipt("train/a").exists());
    }

    /// Finishes a stage with the part `train/a`.
    fn finish(place: &Place, outputs_and_texts: &[(&str, &str)]) {
        let publisher = Publisher::new(&place.dir, &place.cache);
        publisher.publish(prepare(place, outputs_and_texts)).unwrap();
        let summary = crate::receipt::StageSummary {
            stage: place.dir.name.clone(),
            version: 1,
            phases: vec![vec!["train/a".to_owned()]],
            rows_in: 2,
            rows_out: 2,
            rejected: 0,
            carries_rows: true,
            facts: serde_json::Map::new(),
        };
        fs::write(place.dir.summary(), checksummed_json::seal(&summary).unwrap()).unwrap();
    }

    fn contents(place: &Place) -> Vec<(String, Vec<u8>)> {
        let staging = format!("{}/", place.dir.staging_root().file_name().unwrap().to_string_lossy());
        let names = names(place).into_iter().filter(|name| !name.starts_with(&staging));
        names.map(|name| (name.clone(), fs::read(place.dir.path.join(name)).unwrap())).collect()
    }

    /// Covers every state that a kill can leave while a part replaces another or is taken back, by the number of
    /// moved files.
    #[test]
    fn the_whole_result_before_comes_back_from_any_instant_and_the_new_part_is_kept() {
        let (old, new) = ([("train/x", "old x"), ("train/gone", "old")], [("train/x", "new x"), ("new/y", "y")]);
        for moved in 0..5 {
            let place = place();
            finish(&place, &old);
            let whole = contents(&place);
            let mut publisher = Publisher::new(&place.dir, &place.cache);
            publisher.begin_replacement().unwrap();
            let prepared = prepare(&place, &new);
            let receipt = prepared.receipt.clone();
            let staging = prepared.staging.clone();
            // The steps of putting in place, one after the other.
            let steps: [&dyn Fn(); 4] = [
                &|| {
                    publisher
                        .remove_outputs(&Receipt::read(&place.dir.receipt("train/a")).unwrap(), &["train/x"])
                        .unwrap()
                },
                &|| publisher.set_aside("train/x").unwrap(),
                &|| publisher.rename(&staging.join("out/train/x"), &place.dir.path.join("train/x")).unwrap(),
                &|| publisher.put_in_place(&staging, &receipt).unwrap(),
            ];
            steps.iter().take(moved).for_each(|step| step());
            let mut next = Publisher::new(&place.dir, &place.cache);
            next.resume_replacement().unwrap();
            assert!(next.replaces());
            assert!(next.put_back().unwrap());
            assert_eq!(contents(&place), whole, "after {moved} steps");
            let kept = prepared_receipt(&staging, &place.dir).unwrap();
            let mut later = Publisher::new(&place.dir, &place.cache);
            later.begin_replacement().unwrap();
            assert!(later.adopt_whole(&staging, &kept).unwrap().is_some(), "after {moved} steps");
            assert_eq!((read(&place, "train/x"), read(&place, "new/y")), ("new x".into(), "y".into()));
        }
    }

    #[test]
    fn two_parts_that_write_the_same_file_are_an_error() {
        let place = place();
        let publisher = Publisher::new(&place.dir, &place.cache);
        publisher.claim("b", &["train/x".to_owned()]).unwrap();
        let error = publisher.publish(prepare(&place, &[("train/x", "x")])).unwrap_err();
        let StageError::OutputOfTwo { parts, output } = &error else { panic!("{error}") };
        assert_eq!((parts[0].as_str(), parts[1].as_str(), output.as_str()), ("b", "train/a", "train/x"));
    }

    #[test]
    fn a_part_that_is_retired_leaves_what_belongs_to_another() {
        let place = place();
        let publisher = Publisher::new(&place.dir, &place.cache);
        publisher.publish(prepare(&place, &[("train/x", "x"), ("train/y", "y")])).unwrap();
        let next = Publisher::new(&place.dir, &place.cache);
        next.claim("b", &["train/y".to_owned()]).unwrap();
        next.retire("train/a").unwrap();
        assert_eq!(names(&place), ["train/y"]);
    }

    #[test]
    fn resumable_work_survives_only_with_its_fingerprint_and_without_its_half_written_parts() {
        let place = place();
        let staging = place.dir.staging("model");
        let [one, two] = [1, 2].map(|version| Fingerprint {
            stage: "0-read".to_owned(),
            version,
            key: "model".to_owned(),
            config: serde_json::json!({ "rate": 1e-3 }),
            inputs: Vec::new(),
        });
        begin(&staging, Some(&one)).unwrap();
        fs::create_dir(staging.join(STATE).join("step-1")).unwrap();
        fs::create_dir(staging.join(STATE).join(".tmp-step-2")).unwrap();
        fs::write(staging.join(OUTPUTS).join("half"), "x").unwrap();
        begin(&staging, Some(&one)).unwrap();
        assert_eq!(files::list_names(&staging.join(STATE)).unwrap(), ["step-1"]);
        assert!(files::list_names(&staging.join(OUTPUTS)).unwrap().is_empty());
        begin(&staging, Some(&two)).unwrap();
        assert!(files::list_names(&staging.join(STATE)).unwrap().is_empty());
    }
}
