//! Writing `.pt`: the zip archive of `torch.save`.

use super::{Load, Outline, pickle};
use crate::Result;
use crate::file_error;
use std::collections::HashSet;
use std::io::{Seek, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// The folder in the archive. PyTorch names it after the file; a fixed name keeps equal content equal.
const PREFIX: &str = "archive";
/// Alignment of storages, as in PyTorch.
const ALIGNMENT: u16 = 64;
/// Size from which entries are marked as large.
const LARGE: u64 = u32::MAX as u64;

/// Writes the state dict. No time is written: the same tensors give the same bytes.
pub(super) fn write(sink: impl Write + Seek, outline: &Outline<'_>, load: &mut Load<'_>, path: &Path) -> Result<()> {
    let failed = |error: zip::result::ZipError| file_error(path, error.to_string());
    let broken = |error: std::io::Error| file_error(path, error);
    let mut names = HashSet::new();
    let scalars = outline.scalars.iter().map(|(name, _)| name.as_str());
    if let Some(twice) = outline.tensors.iter().map(|entry| entry.name).chain(scalars).find(|name| !names.insert(*name))
    {
        return Err(file_error(path, format!("two entries are named `{twice}`")));
    }
    let mut archive = ZipWriter::new(sink);
    let start = |archive: &mut ZipWriter<_>, name: &str, size: u64| {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(size >= LARGE)
            .with_alignment(ALIGNMENT);
        archive.start_file(format!("{PREFIX}/{name}"), options).map_err(failed)
    };
    let pickle = pickle::state_dict(outline);
    start(&mut archive, "data.pkl", pickle.len() as u64)?;
    archive.write_all(&pickle).map_err(broken)?;
    start(&mut archive, "byteorder", 6)?;
    archive.write_all(b"little").map_err(broken)?;
    let stored = outline.tensors.iter().enumerate().filter(|(index, entry)| entry.first == *index);
    for (index, entry) in stored {
        start(&mut archive, &format!("data/{index}"), entry.byte_count())?;
        archive.write_all(load(index)?.data()).map_err(broken)?;
    }
    start(&mut archive, "version", 2)?;
    archive.write_all(b"3\n").map_err(broken)?;
    archive.finish().map_err(failed)?.flush().map_err(broken)
}
