//! The kind of a file, determined from its content.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail};
use flowmill_corpus::arrow_file;
use flowmill_train::metrics;
use flowmill_weights::{Format, is_index};

use super::json::LARGEST_JSON;
use super::{checkpoint, experiment, export, stage};

/// The number of bytes at the beginning that are examined.
const HEAD: usize = 64 * 1024;

/// The form of compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip, in one or more members.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(b"\x1f\x8b") {
            return Some(Self::Gzip);
        }
        head.starts_with(b"\x28\xb5\x2f\xfd").then_some(Self::Zstd)
    }
}

/// Returns the kind of a folder; `None` if it is none of those that are shown as a whole.
pub fn of_folder(folder: &Path) -> Option<Kind> {
    match folder {
        folder if checkpoint::is_one(folder) => Some(Kind::Checkpoint),
        folder if export::is_one(folder) => Some(Kind::Export),
        folder if stage::is_one(folder) => Some(Kind::Stage),
        folder if experiment::is_one(folder) => Some(Kind::Experiment),
        _ => None,
    }
}

/// The kinds of file and folder that can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Parquet table or shard.
    Parquet,
    /// Named tensors.
    Safetensors,
    /// A file written by `torch.save` or `pickle.dump`.
    Torch,
    /// One NumPy array.
    Npy,
    /// A network with its weights.
    Onnx,
    /// The index of a model's shards.
    Shards,
    /// A tar shard.
    Tar,
    /// The receipt of one part of a stage.
    Receipt,
    /// One JSON value.
    Json,
    /// One JSON object per line: metrics, journals, manifests.
    JsonLines,
    /// A recording.
    Audio,
    /// A video, with or without sound.
    Video,
    /// A picture.
    Png,
    /// Lines of text.
    Text,
    /// An Arrow IPC file or stream.
    Arrow,
    /// An event file of TensorBoard.
    TensorBoard,
    /// The file of a Weights & Biases run.
    Wandb,
    /// A compressed file of any other kind.
    Compressed(Compression),
    /// The folder of a training checkpoint.
    Checkpoint,
    /// The folder of an exported model.
    Export,
    /// The folder of a stage.
    Stage,
    /// The folder of an experiment.
    Experiment,
}

impl Kind {
    /// Determines the kind from the content of the file at `path`.
    ///
    /// # Errors
    /// Returns an error for a folder, an empty or unreadable file, or content of an unknown kind.
    pub fn of(path: &Path) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let about = file.metadata().with_context(|| format!("cannot read {}", path.display()))?;
        if about.is_dir() {
            bail!("{} is a folder", path.display());
        }
        if about.len() == 0 {
            bail!("{} is empty", path.display());
        }
        if is_index(path) {
            return Ok(Self::Shards);
        }
        let mut head = Vec::new();
        file.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
        match Self::of_bytes(&head, about.len()) {
            Some(Self::Audio) if flowmill_video::info::is_video(path) => Ok(Self::Video),
            Some(Self::Json) => Self::of_json(&mut file, path, &head, about.len()),
            Some(kind) => Ok(kind),
            None if flowmill_audio::holds_recording(&mut file, about.len())? => Ok(Self::Audio),
            None => bail!(
                "{} has an unknown format: it is not Parquet, Arrow, safetensors, PyTorch, NumPy, ONNX, tar, JSON, text, PNG, a log of TensorBoard or W&B, or a recording",
                path.display()
            ),
        }
    }

    /// Returns a short description for the title line.
    pub fn title(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::Safetensors => "safetensors",
            Self::Torch => "PyTorch",
            Self::Npy => "NumPy array",
            Self::Onnx => "ONNX network",
            Self::Shards => "index of shards",
            Self::Tar => "tar",
            Self::Receipt => "receipt",
            Self::Json => "JSON",
            Self::JsonLines => "JSON lines",
            Self::Audio => "recording",
            Self::Video => "video",
            Self::Png => "PNG picture",
            Self::Text => "text",
            Self::Arrow => "Arrow",
            Self::TensorBoard => "TensorBoard events",
            Self::Wandb => "Weights & Biases run",
            Self::Compressed(by) => by.name(),
            Self::Checkpoint => "checkpoint",
            Self::Export => "exported model",
            Self::Stage => "stage",
            Self::Experiment => "experiment",
        }
    }

    /// Returns the name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Safetensors => "safetensors",
            Self::Torch => "torch",
            Self::Npy => "npy",
            Self::Onnx => "onnx",
            Self::Shards => "weight_index",
            Self::Tar => "tar",
            Self::Receipt => "receipt",
            Self::Json => "json",
            Self::JsonLines => "json_lines",
            Self::Audio => "recording",
            Self::Video => "video",
            Self::Png => "png",
            Self::Text => "text",
            Self::Arrow => "arrow",
            Self::TensorBoard => "tensorboard",
            Self::Wandb => "wandb",
            Self::Compressed(by) => by.name(),
            Self::Checkpoint => "checkpoint",
            Self::Export => "exported_model",
            Self::Stage => "stage",
            Self::Experiment => "experiment",
        }
    }

    /// Determines the kind by the first bytes and the length of the file; `Json` means anything that begins like
    /// JSON.
    fn of_bytes(head: &[u8], length: u64) -> Option<Self> {
        if head.starts_with(b"PAR1") {
            return Some(Self::Parquet);
        }
        if head.starts_with(b"\x89PNG\r\n\x1a\n") {
            return Some(Self::Png);
        }
        if let Some(by) = Compression::of(head) {
            return Some(Self::Compressed(by));
        }
        if arrow_file::begins_arrow(head, length) {
            return Some(Self::Arrow);
        }
        if metrics::begins_wandb(head) {
            return Some(Self::Wandb);
        }
        if metrics::tensorboard::begins_events(head) {
            return Some(Self::TensorBoard);
        }
        if flowmill_audio::begins_recording(head) {
            return Some(Self::Audio);
        }
        if head.get(257..262) == Some(b"ustar") {
            return Some(Self::Tar);
        }
        match Format::of(head, length) {
            Some(Format::Safetensors) => return Some(Self::Safetensors),
            Some(Format::Torch) => return Some(Self::Torch),
            Some(Format::Npy) => return Some(Self::Npy),
            Some(Format::Onnx) => return Some(Self::Onnx),
            None => {}
        }
        let text = text_of(head)?;
        match text.trim_start_matches('\u{feff}').trim_start().chars().next() {
            Some('{' | '[') => Some(Self::Json),
            _ => Some(Self::Text),
        }
    }

    /// Distinguishes one JSON value from lines of them, a receipt from any other value, and text that only begins
    /// like JSON.
    fn of_json(file: &mut File, path: &Path, head: &[u8], length: u64) -> Result<Self> {
        let first_line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line_is_whole = serde_json::from_slice::<serde_json::Value>(first_line).is_ok();
        let rest = &head[first_line.len()..];
        if line_is_whole && (rest.iter().any(|byte| !byte.is_ascii_whitespace()) || length > head.len() as u64) {
            return Ok(Self::JsonLines);
        }
        if length > LARGEST_JSON {
            return Ok(Self::Json);
        }
        let mut content = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.take(LARGEST_JSON).read_to_end(&mut content)?;
        Ok(match serde_json::from_slice(&content) {
            Ok(value) if super::receipt::looks_like_one(&value) => Self::Receipt,
            Err(_) if path.extension().is_none_or(|ending| ending != "json" && ending != "jsonl") => Self::Text,
            // Damaged JSON counts as JSON, so that its error is shown.
            Ok(_) | Err(_) => Self::Json,
        })
    }
}

/// Returns the beginning as text if it is text: UTF-8 without NUL. A character cut at the end of the window is
/// allowed.
fn text_of(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    (!text.contains('\0')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(content: &[u8]) -> Result<Kind> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        Kind::of(file.path())
    }

    #[test]
    fn content_decides() {
        assert_eq!(kind(b"PAR1....").unwrap(), Kind::Parquet);
        assert_eq!(kind(b"RIFF\0\0\0\0WAVEfmt ").unwrap(), Kind::Audio);
        for start in [b"\xff\xf1\x50\x80".as_slice(), b"\xff\xfd\x84\0", b".snd\0\0\0\x18", b"NIST_1A\n   1024\n"] {
            assert_eq!(kind(start).unwrap(), Kind::Audio, "{start:02x?}");
        }
        assert_eq!(kind(&[&[0; 100_000], b"RIFF\0\0\0\0WAVEfmt ".as_slice()].concat()).unwrap(), Kind::Audio);
        assert_eq!(kind(b"{\"a\": 1}\n{\"a\": 2}\n").unwrap(), Kind::JsonLines);
        assert_eq!(kind(b"{\n  \"a\": 1\n}\n").unwrap(), Kind::Json);
        assert_eq!(kind(b"{\"a\": 1}\n").unwrap(), Kind::Json);
        assert_eq!(kind(b"train/shard-00000.parquet\n").unwrap(), Kind::Text);
        assert_eq!(kind(b"\x02\0\0\0\0\0\0\0{}").unwrap(), Kind::Safetensors);
        assert_eq!(kind(b"PK\x03\x04\xff\xff").unwrap(), Kind::Torch);
        assert_eq!(kind(b"\x80\x02}.").unwrap(), Kind::Torch);
        assert_eq!(kind(b"\x93NUMPY\x01\0").unwrap(), Kind::Npy);
        assert_eq!(kind(b"\x08\x08\x12\x07pytorch").unwrap(), Kind::Onnx);
        assert_eq!(kind(b"ARROW1\0\0").unwrap(), Kind::Arrow);
        assert_eq!(kind(&[&[0xff, 0xff, 0xff, 0xff, 8, 0, 0, 0][..], &[0; 8]].concat()).unwrap(), Kind::Arrow);
        assert_eq!(kind(b":W&B\xe1\xbe\0").unwrap(), Kind::Wandb);
        assert_eq!(kind(&metrics::tensorboard::version_record(0.0)).unwrap(), Kind::TensorBoard);
        assert_eq!(kind(b"\x1f\x8b\x08\0").unwrap(), Kind::Compressed(Compression::Gzip));
        assert_eq!(kind(b"\x28\xb5\x2f\xfd").unwrap(), Kind::Compressed(Compression::Zstd));
    }

    #[test]
    fn unknown_content_is_an_error_that_says_what_is_known() {
        let error = kind(b"\xde\xad\xff\xff").unwrap_err().to_string();
        assert!(error.contains("unknown format") && error.contains("Parquet"), "{error}");
        assert!(kind(b"").unwrap_err().to_string().contains("empty"));
        let header_longer_than_file = kind(b"\xff\0\0\0\0\0\0\0{}");
        assert!(header_longer_than_file.is_err());
    }
}
