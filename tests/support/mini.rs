//! A copy of the miniature recipe in a folder of its own, with the recordings next to it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

use super::flowmill::{Outcome, command, flowmill};
use super::tree::Tree;

/// The copy; the folder is removed in the end.
pub struct Mini {
    folder: TempDir,
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns the path of a golden file, or of a file next to them.
pub fn golden(name: &str) -> PathBuf {
    repository().join("tests/golden").join(name)
}

/// Writes the tensors of a golden file whose names begin with `prefix`, without it, as a weight file.
pub fn golden_tensors(name: &str, prefix: &str, to: &Path) {
    let bytes = fs::read(golden(name)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<(String, TensorView)> = file
        .iter()
        .filter_map(|(name, view)| Some((name.strip_prefix(prefix)?.to_owned(), view)))
        .filter(|(_, view)| view.dtype() == Dtype::F32)
        .map(|(name, view)| (name, TensorView::new(view.dtype(), view.shape().to_vec(), view.data()).unwrap()))
        .collect();
    fs::write(to, safetensors::serialize(tensors, None).unwrap()).unwrap();
}

/// Copies the files (not the folders) of a folder.
fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Copies a folder with all that is below it; `to` must not exist.
pub fn copy_tree(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

impl Mini {
    /// Copies the recipe, its lists, and its twelve recordings to `data/audio/ID.flac`.
    pub fn new() -> Self {
        let source = repository().join("tests/recipes/mini");
        let mini = Self { folder: tempfile::tempdir().unwrap() };
        copy_files(&source, mini.folder());
        copy_files(&source.join("data"), &mini.path("data"));
        copy_files(&source.join("lists"), &mini.path("lists"));
        fs::create_dir(mini.path("data/audio")).unwrap();
        let mut entries = String::new();
        for line in fs::read_to_string(source.join("data/wav.scp")).unwrap().lines() {
            let (id, path) = line.split_once(' ').unwrap();
            fs::copy(source.join("data").join(path), mini.recording(id)).unwrap();
            entries.push_str(&format!("{id} audio/{id}.flac\n"));
        }
        fs::write(mini.path("data/wav.scp"), entries).unwrap();
        mini
    }

    /// A copy whose data are packed, ready to be trained on.
    pub fn packed() -> Self {
        let mini = Self::new();
        mini.run(&["--stop-stage", "pack", "--quiet"]).expect_code(0);
        mini
    }

    /// A copy whose seven stages are done.
    pub fn finished() -> Self {
        let mini = Self::new();
        mini.run(&[]).expect_code(0);
        mini
    }

    /// The folder of the recipe.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in that folder.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder().join(relative)
    }

    /// A path in the experiment folder.
    pub fn exp(&self, relative: &str) -> PathBuf {
        self.folder().join("exp/mini").join(relative)
    }

    /// Copies an experiment to another name, in place of one that is there.
    pub fn copy_experiment(&self, from: &str, to: &str) -> PathBuf {
        let (from, to) = (self.path("exp").join(from), self.path("exp").join(to));
        let _not_there = fs::remove_dir_all(&to);
        copy_tree(&from, &to);
        to
    }

    /// The recording of an utterance.
    pub fn recording(&self, id: &str) -> PathBuf {
        self.path(&format!("data/audio/{id}.flac"))
    }

    /// Runs `flowmill run` with further arguments.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.flowmill("run", arguments)
    }

    /// Deletes what stage 4 made, so that other settings may train: a finished training is not replaced unasked.
    pub fn forget_training(&self) {
        fs::remove_dir_all(self.exp("4-train")).unwrap();
    }

    /// Runs one of the commands that take a recipe, with further arguments.
    pub fn flowmill(&self, name: &str, arguments: &[&str]) -> Outcome {
        flowmill(self.folder(), &self.arguments(name, arguments))
    }

    /// Returns the same command as a process that is not started yet.
    pub fn command(&self, name: &str, arguments: &[&str]) -> std::process::Command {
        command(self.folder(), &self.arguments(name, arguments))
    }

    /// Returns the command's arguments.
    fn arguments(&self, name: &str, arguments: &[&str]) -> Vec<OsString> {
        [name, "."].iter().chain(arguments).map(OsString::from).collect()
    }

    /// Returns the state of every stage as `status --json` gives it.
    pub fn status(&self) -> serde_json::Value {
        let outcome = self.flowmill("status", &["--json"]).expect_code(0);
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {}", outcome.stdout))
    }

    /// The files of the experiment.
    pub fn tree(&self) -> Tree {
        Tree::of(&self.exp(""))
    }

    /// The files of the experiment with this ending, sorted.
    pub fn files_ending(&self, ending: &str) -> Vec<PathBuf> {
        self.tree().0.into_keys().filter(|path| path.to_string_lossy().ends_with(ending)).collect()
    }
}
