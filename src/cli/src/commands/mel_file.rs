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
#[derive(Clone, Copy)]
enum Format {
    Npy,
    Weights(Target),
}

impl Format {
    /// Returns the format with this extension.
    fn of(extension: &str) -> Option<Self> {
        match extension {
            "npy" => Some(Self::Npy),
            "pt" | "pth" => Some(Self::Weights(Target::Torch)),
            "safetensors" => Some(Self::Weights(Target::Safetensors)),
            _ => None,
        }
    }
}

/// The files of generated mels.
pub struct MelFiles {
    /// The file of the only mel; without it, each mel gets a file of its own.
    path: Option<PathBuf>,
    extension: String,
    format: Format,
}

impl MelFiles {
    /// Reads the option: a file, whose extension is the format, or the name of a format.
    ///
    /// # Errors
    /// Returns an error for another format than `npy`, `pt`, `pth` and `safetensors`.
    pub fn new(option: &Path) -> Result<Self, Failure> {
        let lower = |name: &std::ffi::OsStr| name.to_string_lossy().to_lowercase();
        let format_only = option.to_str().filter(|name| Format::of(name).is_some());
        let extension = format_only.map_or_else(|| option.extension().map(lower).unwrap_or_default(), str::to_owned);
        let Some(format) = Format::of(&extension) else {
            let option = option.display();
            return Err(Failure::usage(format!("--mel {option}: use the extension .npy, .pt or .safetensors")));
        };
        Ok(Self { path: format_only.is_none().then(|| option.to_owned()), extension, format })
    }

    /// Returns whether there is a file for one mel only.
    pub fn is_single(&self) -> bool {
        self.path.is_some()
    }

    /// Writes a mel as `[band, frame]`, the layout that vocoders read, and returns the path: `NAME.EXTENSION` in `folder`, or the only file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self, mel: &Features, folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.clone().unwrap_or_else(|| folder.join(format!("{name}.{}", self.extension)));
        let cannot = || format!("cannot write {}", path.display());
        let file = WholeFile::beside(&path).with_context(cannot)?;
        let tensor = host::tensor(mel.transposed(), &[mel.bins, mel.frames])?;
        let tensors = [(ENTRY.to_owned(), tensor)];
        match self.format {
            Format::Npy => write_npy(file.path(), &tensors[0].1),
            Format::Weights(Target::Torch) => write_torch(file.path(), &tensors, &[]),
            Format::Weights(Target::Safetensors) => write(file.path(), &tensors, &BTreeMap::new()),
        }
        .with_context(cannot)?;
        file.put().with_context(cannot)?;
        Ok(path)
    }
}
