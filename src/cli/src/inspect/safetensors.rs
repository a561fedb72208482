//! safetensors: names, types, shapes, number of elements, and the notes. Only the header is read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use ::safetensors::tensor::Metadata;
use anyhow::{Context, Result, bail};

use crate::human;
use crate::style;
use crate::table::print_pairs;

use super::tensors;

/// The largest size of a header; the format does not allow more either.
const LARGEST_HEADER: u64 = 100_000_000;
/// The number of characters of a note that are shown.
const NOTE: usize = 400;

/// Prints the tensors and the notes.
pub fn show(path: &Path, out: &mut dyn Write) -> Result<()> {
    let header = read_header(path)?;
    print_notes(&header, out)?;
    print_tensors(&header, out)
}

/// Reads and checks the header against the length of the file.
fn read_header(path: &Path) -> Result<Metadata> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).context("the file ends before its header")?;
    let size = u64::from_le_bytes(prefix);
    if size > LARGEST_HEADER || size + 8 > length {
        bail!("the header claims {} bytes, but the file has {}", human::count(size), human::count(length));
    }
    let mut header = Vec::new();
    file.take(size).read_to_end(&mut header)?;
    let header: Metadata = serde_json::from_slice(&header).context("the header is not a valid safetensors header")?;
    let expected = 8 + size + header.data_len() as u64;
    if expected != length {
        bail!(
            "the header describes {} bytes, but the file has {}; it was truncated or changed",
            human::count(expected),
            human::count(length)
        );
    }
    Ok(header)
}

/// Prints the free-form notes, sorted by name.
fn print_notes(header: &Metadata, out: &mut dyn Write) -> Result<()> {
    let Some(notes) = header.metadata() else { return Ok(()) };
    let sorted: BTreeMap<_, _> = notes.iter().collect();
    let shortened = |(key, text): (&String, &String)| (human::shortened(key, 60), human::shortened(text, NOTE));
    let pairs: Vec<_> = sorted.into_iter().map(shortened).collect();
    writeln!(out, "{}", style::paint(style::TITLE, "notes"))?;
    Ok(print_pairs(&pairs, 2, out)?)
}

/// Prints the tensors in the order of the file.
fn print_tensors(header: &Metadata, out: &mut dyn Write) -> Result<()> {
    let names = header.offset_keys();
    let rows = names.iter().filter_map(|name| Some((name, header.info(name)?)));
    tensors::print(
        rows.map(|(name, info)| tensors::Row {
            name,
            dtype: format!("{:?}", info.dtype),
            shape: &info.shape,
            bytes: (info.data_offsets.1 - info.data_offsets.0) as u64,
        }),
        out,
    )
}
