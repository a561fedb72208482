//! Location of the files with the weights of a path: one file, a folder with one, or the shards of an index.

use super::onnx;
use super::source::Source;
use super::{Format, Parsed, Result, file_error};
use crate::fault::Fault;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// File names of weights in folders: checkpoints and exported models, Transformers, Diffusers, CosyVoice, the public VALL-E trainer,
/// DeepSpeed. The first existing one is used.
const IN_FOLDERS: [&str; 10] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    FLOW,
    "fp32.sft",
    "fp32.pth",
    "mp_rank_00_model_states.pt",
];
/// The file of the flow in a folder of CosyVoice.
const FLOW: &str = "flow.pt";
/// File extensions of weight files.
const EXTENSIONS: [&str; 8] = ["safetensors", "sft", "pt", "pth", "bin", "ckpt", "pkl", "onnx"];
/// Number of files of a folder that a message names.
const SHOWN: usize = 5;
/// Suffix of the name of an index of shards.
const INDEX: &str = ".index.json";
/// Largest size of an index.
const LARGEST_INDEX: u64 = 64 << 20;

/// Returns the file with the weights of `path`: the path itself, or in a folder the file with a usual name. In a folder of
/// CosyVoice, which contains other networks too, that is `flow.pt`.
///
/// # Errors
/// When a folder has none of them.
pub fn locate(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let names = file_names(path);
    let is_cosyvoice = names.iter().any(|name| name.starts_with("cosyvoice") && name.ends_with(".yaml"));
    let first = if is_cosyvoice { FLOW } else { IN_FOLDERS[0] };
    let found = [first].into_iter().chain(IN_FOLDERS).map(|name| path.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| {
        let usual = IN_FOLDERS.join(", ");
        let weights: Vec<&str> = names.iter().map(String::as_str).filter(|name| is_weights(name)).collect();
        let more = if weights.len() > SHOWN { " …" } else { "" };
        let advice = match weights.is_empty() {
            true => "name the file".to_owned(),
            false => format!("name one of its files: {}{more}", weights[..weights.len().min(SHOWN)].join(", ")),
        };
        file_error(
            path,
            Fault::not_weights(format!("it is a folder without weights of a usual name ({usual}); {advice}")),
        )
    })
}

/// Returns the names of the files in a folder, sorted.
fn file_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// Returns whether a file has the name of a weight file.
fn is_weights(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known))
}

/// Returns all files with the weights of `path`: an index and its shards, an ONNX file and the files with its tensors.
/// An unreadable file is returned itself, because opening it reports the error.
pub fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(file) = locate(path) else { return vec![path.to_owned()] };
    let mut files = vec![file.clone()];
    if is_index(&file) {
        files.extend(Index::read(&file).unwrap_or_default().shards());
    } else if has_format(&file, Format::Onnx) {
        files.extend(Source::open(&file).and_then(onnx::external_files).unwrap_or_default());
    }
    files
}

fn has_format(file: &Path, format: Format) -> bool {
    let mut head = Vec::new();
    let Ok(opened) = File::open(file) else { return false };
    let length = opened.metadata().map_or(0, |about| about.len());
    opened.take(256).read_to_end(&mut head).is_ok() && Format::of(&head, length) == Some(format)
}

/// Returns whether a file is an index of shards, by its name, because its content is JSON like many other files.
pub fn is_index(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(INDEX))
}

/// Returns the path of a file that another file refers to, in the same folder.
///
/// # Errors
/// When the name leads outside of the folder.
pub(super) fn neighbor(of: &Path, name: &str) -> Parsed<PathBuf> {
    let shown = name.escape_debug().take(200).collect::<String>();
    let outside = || Fault::from(format!("`{shown}` lies outside of its folder"));
    let inner = Path::new(name);
    let plain = inner.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
    if name.is_empty() || !plain || name.contains(['\\', '\0']) || name.get(1..2) == Some(":") {
        return Err(outside());
    }
    let file = of.with_file_name("").join(inner);
    // A link may lead elsewhere only if the file that refers to it is such a link itself, as in caches of model hubs.
    let (Ok(real), Ok(own)) = (file.canonicalize(), of.canonicalize()) else {
        return Err(format!("there is no file `{shown}` in its folder").into());
    };
    let folder = of.with_file_name("").join(".").canonicalize()?;
    let beside_own = own.parent().is_some_and(|folder| real.starts_with(folder));
    if !real.starts_with(folder) && !beside_own {
        return Err(outside());
    }
    match real.is_file() {
        true => Ok(file),
        false => Err(format!("`{shown}` is not a regular file").into()),
    }
}

/// The index of shards, `model.safetensors.index.json`, which assigns tensors to files.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Index {
    /// File names by the names of tensors.
    pub weight_map: BTreeMap<String, String>,
    #[serde(skip)]
    path: PathBuf,
}

impl Index {
    pub fn read(path: &Path) -> Parsed<Self> {
        let mut content = Vec::new();
        let file = File::open(path)?;
        file.take(LARGEST_INDEX + 1).read_to_end(&mut content)?;
        if content.len() as u64 > LARGEST_INDEX {
            return Err(format!("an index of more than {LARGEST_INDEX} bytes").into());
        }
        let index: Self = serde_json::from_slice(&content)
            .map_err(|error| format!("not an index of shards (`weight_map`): {error}"))?;
        if index.weight_map.is_empty() {
            return Err("an index of shards without tensors".into());
        }
        Ok(Self { path: path.to_owned(), ..index })
    }

    /// Returns the names of the shards, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.weight_map.values().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns the shards that exist.
    fn shards(&self) -> Vec<PathBuf> {
        self.names().into_iter().filter_map(|name| neighbor(&self.path, name).ok()).collect()
    }
}
