//! The content of files and folders, as readable tables or as JSON. There is one file per kind; the kind is determined from the content.

mod arrow;
mod audio;
mod cells;
mod checkpoint;
mod compressed;
mod experiment;
mod export;
mod facts;
mod files;
mod json;
mod kind;
mod lines;
mod onnx;
mod parquet;
mod png;
mod receipt;
mod safetensors;
mod stage;
mod tar;
mod tensorboard;
mod tensors;
mod text;
mod video;
mod wandb;
mod weights;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::{human, style};
use compressed::Unpacked;
use facts::Facts;
pub use facts::View;
pub use files::size_below;
use kind::Kind;

/// Prints the content of the file or folder at `path`, as JSON on one line if `as_json` is true.
///
/// # Errors
/// Returns an error for what cannot be read, has an unknown kind, or is damaged, and the errors of `out`.
pub fn inspect(path: &Path, view: View, as_json: bool, out: &mut dyn Write) -> Result<()> {
    let (file, kind) = find(path)?;
    let path = file.as_path();
    // Damage can hide the kind, so it is reported first.
    let changed = if path.is_dir() { None } else { flowmill_runner::damage(path) };
    if let Some(damage) = &changed {
        style::warning(&format!("{} is damaged, or changed since it was made: {damage}", path.display()));
    }
    let cannot_be_shown = || format!("{} cannot be shown", path.display());
    let kind = kind.map_or_else(|| Kind::of(path), Ok)?;
    let size = size(path)?;
    // The content of a compressed file is shown as if it were the file.
    let unpacked = match kind {
        Kind::Compressed(by) => Some((by, Unpacked::of(path, by).with_context(cannot_be_shown)?)),
        _ => None,
    };
    let inner = unpacked.as_ref().map(|(_, unpacked)| Kind::of(unpacked.path())).transpose();
    let inner = inner.with_context(|| format!("the content of {}", path.display()))?;
    let shown_kind = inner.unwrap_or(kind);
    if !as_json {
        let by = unpacked.as_ref().map_or(String::new(), |(by, unpacked)| {
            format!(" compressed with {}, of {}", by.name(), human::bytes(unpacked.size))
        });
        let title = style::paint(style::TITLE, path.display());
        writeln!(out, "{title}  {}, {}{by}", shown_kind.title(), human::bytes(size))?;
    }
    let content = unpacked.as_ref().map_or(path, |(_, unpacked)| unpacked.path());
    let facts = read(shown_kind, content, view).with_context(cannot_be_shown)?;
    let damage = unpacked.as_ref().and_then(|(_, unpacked)| unpacked.damage.as_deref()).or(facts.damage());
    if as_json {
        let mut document = Map::new();
        document.insert("path".into(), json!(path.to_string_lossy()));
        document.insert("kind".into(), json!(shown_kind.name()));
        document.insert("bytes".into(), json!(size));
        if let Some((by, unpacked)) = &unpacked {
            document.insert("compression".into(), json!(by.name()));
            document.insert("uncompressed_bytes".into(), json!(unpacked.size));
        }
        if let Some(changed) = changed {
            document.insert("changed".into(), json!(changed));
        }
        if let Value::Object(facts) = facts.json().with_context(cannot_be_shown)? {
            document.extend(facts);
        }
        if let Some(damage) = damage {
            document.insert("damage".into(), json!(damage));
        }
        writeln!(out, "{}", Value::Object(document))?;
    } else {
        facts.print(view, out).with_context(cannot_be_shown)?;
    }
    match damage {
        Some(damage) => Err(anyhow::anyhow!("{damage}")).with_context(cannot_be_shown),
        None => Ok(()),
    }
}

/// Returns the file or folder to show. The kind is returned if it is known before the file is read.
fn find(path: &Path) -> Result<(PathBuf, Option<Kind>)> {
    if !path.is_dir() {
        return Ok((path.to_owned(), None));
    }
    if let Some(kind) = kind::of_folder(path) {
        return Ok((path.to_owned(), Some(kind)));
    }
    if path.join("recipe.yaml").is_file() {
        let experiment = crate::experiment::named(path).map_err(|failure| anyhow::anyhow!("{failure}"))?;
        let folder = experiment.dir().to_owned();
        if kind::of_folder(&folder) == Some(Kind::Experiment) {
            return Ok((folder, Some(Kind::Experiment)));
        }
        bail!("nothing has run yet: there is no experiment in {}", folder.display());
    }
    let weights = flowmill_weights::locate(path).with_context(|| {
        format!("{} is a folder, but not an experiment, a stage, a checkpoint or an exported model", path.display())
    })?;
    Ok((weights, None))
}

/// Returns the size of a file, or of all files of a folder, in bytes.
fn size(path: &Path) -> Result<u64> {
    if path.is_dir() {
        return Ok(size_below(path));
    }
    Ok(std::fs::metadata(path).with_context(|| format!("{}", path.display()))?.len())
}

/// Reads what is shown of the file or folder at `path`.
fn read(kind: Kind, path: &Path, view: View) -> Result<Box<dyn Facts>> {
    Ok(match kind {
        Kind::Parquet => Box::new(parquet::read(path, view)?),
        Kind::Arrow => Box::new(arrow::read(path, view)?),
        Kind::Safetensors => Box::new(safetensors::read(path)?),
        Kind::Torch | Kind::Npy | Kind::Shards => weights::read(path)?,
        Kind::Onnx => Box::new(onnx::read(path)?),
        Kind::Tar => Box::new(tar::read(path, view)?),
        Kind::Receipt => Box::new(receipt::read(path)?),
        Kind::Json => Box::new(json::read(path)?),
        Kind::JsonLines => Box::new(lines::read(path, view)?),
        Kind::TensorBoard => Box::new(tensorboard::read(path)?),
        Kind::Wandb => Box::new(wandb::read(path)?),
        Kind::Audio => Box::new(audio::read(path)?),
        Kind::Video => Box::new(video::read(path)?),
        Kind::Png => Box::new(png::read(path)?),
        Kind::Text => Box::new(text::read(path, view)?),
        Kind::Checkpoint => Box::new(checkpoint::read(path)?),
        Kind::Export => Box::new(export::read(path)?),
        Kind::Stage => Box::new(stage::read(path)?),
        Kind::Experiment => Box::new(experiment::read(path)?),
        Kind::Compressed(_) => bail!("it is compressed more than once"),
    })
}
