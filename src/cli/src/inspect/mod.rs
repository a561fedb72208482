//! The content of files as readable tables. There is one file per kind; the kind is determined from the content.

mod audio;
mod json;
mod kind;
mod lines;
mod onnx;
mod parquet;
mod png;
mod receipt;
mod safetensors;
mod tar;
mod tensors;
mod text;
mod video;
mod weights;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{human, style};
use kind::Kind;

/// Returns the weights of a folder: of a checkpoint, an exported model, or a published one.
fn weights_of_folder(folder: &Path) -> Result<PathBuf> {
    let advice = "give a file in it, or use `flowmill status` for an experiment";
    flowmill_weights::locate(folder).with_context(|| format!("{} is a folder; {advice}", folder.display()))
}

/// Prints the content of the file at `path`, or of the weights in the folder there, with at most `rows` rows. `full`
/// shows the texts of tables in full.
///
/// # Errors
/// Returns an error for a file that cannot be read, has an unknown kind, or is damaged, and the errors of `out`.
pub fn inspect(path: &Path, rows: usize, full: bool, out: &mut dyn Write) -> Result<()> {
    let file = match path.is_dir() {
        true => weights_of_folder(path)?,
        false => path.to_owned(),
    };
    let path = file.as_path();
    // Damage can hide the kind, so it is reported first.
    if let Some(damage) = flowmill_runner::damage(path) {
        style::warning(&format!("{} is damaged, or changed since it was made: {damage}", path.display()));
    }
    let kind = Kind::of(path)?;
    let size = std::fs::metadata(path).with_context(|| format!("{}", path.display()))?.len();
    let title = style::paint(style::TITLE, path.display());
    writeln!(out, "{title}  {}, {}", kind.title(), human::bytes(size))?;
    let shown = match kind {
        Kind::Parquet => parquet::show(path, rows, full, out),
        Kind::Safetensors => safetensors::show(path, out),
        Kind::Torch | Kind::Npy | Kind::Shards => weights::show(path, rows, out),
        Kind::Onnx => onnx::show(path, out),
        Kind::Tar => tar::show(path, rows, out),
        Kind::Receipt => receipt::show(path, out),
        Kind::Json => json::show(path, out),
        Kind::JsonLines => lines::show(path, rows, out),
        Kind::Audio => audio::show(path, out),
        Kind::Video => video::show(path, out),
        Kind::Png => png::show(path, out),
        Kind::Text => text::show(path, rows, out),
    };
    shown.with_context(|| format!("{} cannot be shown", path.display()))
}
