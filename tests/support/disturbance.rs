//! Disturbances of an interrupted training other than kills: logs that are deleted, cut or lengthened, rights that are taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::random::Random;
use super::tree::EXCLUDED;

/// The logs of a training, relative to its folder: they tell about it and are none of its results.
const LOGS: [&str; 3] = ["metrics.jsonl", "tensorboard", "wandb"];
/// The user and group called `nobody`.
const NOBODY: u32 = 65534;

/// The user who runs the program: permissions mean nothing to the superuser, who therefore lets `nobody` run a copy of it.
pub struct Person {
    copy: Option<(TempDir, PathBuf)>,
    /// True if permissions apply.
    bound: bool,
}

impl Person {
    /// The user that permissions apply to; the superuser itself where `nobody` may not read the recipe.
    pub fn unprivileged(recipe: &Path) -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self { copy: None, bound: true };
        }
        let closed = |folder: &Path| fs::metadata(folder).unwrap().permissions().mode() & 0o001 == 0;
        if recipe.ancestors().any(closed) && !recipe.starts_with(std::env::temp_dir()) {
            println!("permissions are not tested: nobody may not read {}", recipe.display());
            return Self { copy: None, bound: false };
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = folder.path().join("flowmill");
        fs::copy(env!("CARGO_BIN_EXE_flowmill"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { copy: Some((folder, program)), bound: true }
    }

    /// Makes everything below a folder this person's.
    pub fn give(&self, folder: &Path) {
        if self.copy.is_none() {
            return;
        }
        for path in everything_below(folder).into_iter().chain([folder.to_owned()]) {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    /// A command as this person gives it.
    pub fn command(&self, command: Command) -> Command {
        let Some((_, program)) = &self.copy else { return command };
        let mut other = Command::new(program);
        other.args(command.get_args()).uid(NOBODY).gid(NOBODY);
        command.get_current_dir().map(|folder| other.current_dir(folder));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => other.env(name, value),
                None => other.env_remove(name),
            };
        }
        other
    }
}

/// A disturbance of a training.
pub enum Disturbance {
    /// No disturbance: there was nothing to disturb.
    None,
    /// A changed log: the next run warns and continues.
    Log(&'static str),
    /// A file of the newest checkpoint cannot be read: the next run stops and touches nothing, until [`restore`](Self::restore).
    Unreadable(PathBuf),
}

impl Disturbance {
    /// Does something to the unfinished training of an experiment.
    pub fn at_random(experiment: &Path, person: &Person, random: &mut Random) -> Self {
        let state = experiment.join("4-train/.staging/train/state");
        if person.bound && random.bits().is_multiple_of(3) {
            return newest_checkpoint(&state).map_or(Self::None, |checkpoint| {
                let files = ["model.safetensors", "optimizer.safetensors", "state.json", "checksums.b3"];
                let file = checkpoint.join(files[random.bits() as usize % files.len()]);
                fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
                Self::Unreadable(file)
            });
        }
        let log = LOGS[random.bits() as usize % LOGS.len()];
        if disturb(&state.join(log), random) { Self::Log(log) } else { Self::None }
    }

    /// Gives the rights back.
    pub fn restore(self) {
        if let Self::Unreadable(file) = self {
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        }
    }
}

/// Deletes a log, or cuts, lengthens or protects one of its files; whether there was one.
fn disturb(log: &Path, random: &mut Random) -> bool {
    let files: Vec<PathBuf> = everything_below(log).into_iter().filter(|path| path.is_file()).collect();
    let file = if log.is_file() { Some(log.to_owned()) } else { files.first().cloned() };
    let Some(file) = file else { return false };
    let length = fs::metadata(&file).unwrap().len();
    match random.bits() % 5 {
        0 if log.is_dir() => fs::remove_dir_all(log).unwrap(),
        0 => fs::remove_file(log).unwrap(),
        1 => fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(random.bits() % (length + 1)).unwrap(),
        2 => fs::write(&file, "").unwrap(),
        3 => fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"of another program\n").unwrap(),
        _ => fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap(),
    }
    true
}

/// The newest checkpoint of an unfinished training.
fn newest_checkpoint(state: &Path) -> Option<PathBuf> {
    let names = fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.path());
    names.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"))).max()
}

/// The checkpoints of an unfinished training with their files and sizes, damaged ones that were moved aside among them.
pub fn checkpoints(experiment: &Path) -> BTreeMap<PathBuf, u64> {
    let state = experiment.join("4-train/.staging/train/state");
    // What a kill left half written is no checkpoint.
    let whole = |path: &PathBuf| {
        let path = path.to_string_lossy();
        path.contains("step-") && !path.contains("/.tmp-")
    };
    let files = everything_below(&state).into_iter().filter(whole);
    files.filter(|path| path.is_file()).map(|path| (path.clone(), fs::metadata(&path).unwrap().len())).collect()
}

/// The results of an experiment by path: everything but the logs that were disturbed and what has their lengths or hashes in it.
pub fn results(experiment: &Path, disturbed: &BTreeSet<&str>) -> BTreeMap<PathBuf, blake3::Hash> {
    let mut found = BTreeMap::new();
    for path in everything_below(experiment).into_iter().filter(|path| path.is_file()) {
        let name = path.strip_prefix(experiment).unwrap().to_owned();
        let first = name.iter().next().unwrap_or_default().to_string_lossy().into_owned();
        let text = name.to_string_lossy().into_owned();
        let log = disturbed.iter().any(|log| name.starts_with(Path::new("4-train").join(log)));
        let of_logs = !disturbed.is_empty()
            && (text.starts_with("4-train/receipts")
                || text.starts_with("5-average/receipts")
                || text.ends_with("checksums.b3"));
        if EXCLUDED.contains(&first.as_str()) || log || of_logs {
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        if !disturbed.is_empty() && text.ends_with("state.json") {
            let mut state: Value = serde_json::from_slice(&bytes).unwrap();
            state.as_object_mut().unwrap().remove("metrics");
            bytes = state.to_string().into_bytes();
        }
        found.insert(name, blake3::hash(&bytes));
    }
    found
}

/// Returns all files and folders below a folder.
fn everything_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything_below(&path));
        }
        found.push(path);
    }
    found
}
