//! Files of a generated mel, for other programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flowmill_audio::features::Features;
use flowmill_nn::host;
use flowmill_runner::WholeFile;
use flowmill_weights::{Target, write, write_npy, write_torch};

use crate::failure::Failure;

/// The name of the entry in files with names.
const ENTRY: &str = "mel";

/// A format that mels are written in.
enum Format {
    Npy,
    Weights(Target),
}

/// A file for a mel.
pub struct MelFile {
    path: PathBuf,
    format: Format,
}

impl MelFile {
    /// Chooses the format by the extension of `path`.
    ///
    /// # Errors
    /// Returns an error for another extension than `.npy`, `.pt`, `.pth` and `.safetensors`.
    pub fn new(path: &Path) -> Result<Self, Failure> {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let format = match extension.as_deref() {
            Some("npy") => Format::Npy,
            Some("pt" | "pth") => Format::Weights(Target::Torch),
            Some("safetensors") => Format::Weights(Target::Safetensors),
            _ => {
                let path = path.display();
                return Err(Failure::usage(format!("--mel {path}: use the extension .npy, .pt or .safetensors")));
            }
        };
        Ok(Self { path: path.to_owned(), format })
    }

    /// Writes a mel as `[band, frame]`, the layout that vocoders read, and returns the path.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self, mel: &Features) -> anyhow::Result<PathBuf> {
        let cannot = || format!("cannot write {}", self.path.display());
        let file = WholeFile::beside(&self.path).with_context(cannot)?;
        let tensor = host::tensor(mel.transposed(), &[mel.bins, mel.frames])?;
        let tensors = [(ENTRY.to_owned(), tensor)];
        match self.format {
            Format::Npy => write_npy(file.path(), &tensors[0].1),
            Format::Weights(Target::Torch) => write_torch(file.path(), &tensors, &[]),
            Format::Weights(Target::Safetensors) => write(file.path(), &tensors, &BTreeMap::new()),
        }
        .with_context(cannot)?;
        file.put().with_context(cannot)?;
        Ok(self.path.clone())
    }
}
