//! safetensors: names, types, shapes, number of elements, and the notes. Only the header is read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use ::safetensors::tensor::Metadata;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::facts::{Facts, View};
use super::tensors::{Tensor, Tensors};
use crate::human;
use crate::style;
use crate::table::print_pairs;

/// The largest size of a header; the format does not allow more either.
const LARGEST_HEADER: u64 = 100_000_000;
/// The number of characters of a note that are shown.
const NOTE: usize = 400;

/// The content of a safetensors file, without the elements of its tensors.
#[derive(Serialize)]
pub struct Safetensors {
    /// The free-form notes.
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: Tensors,
}

/// Reads the header of the file at `path`.
pub fn read(path: &Path) -> Result<Safetensors> {
    let header = read_header(path)?;
    let metadata = header.metadata().iter().flatten().map(|(key, text)| (key.clone(), text.clone())).collect();
    let names = header.offset_keys();
    let tensors = names.into_iter().filter_map(|name| {
        let info = header.info(&name)?;
        let (begin, end) = info.data_offsets;
        Some(Tensor {
            dtype: format!("{:?}", info.dtype),
            shape: info.shape.clone(),
            bytes: end.saturating_sub(begin) as u64,
            name,
        })
    });
    Ok(Safetensors { metadata, tensors: tensors.collect() })
}

impl Safetensors {
    /// Returns the number of tensors and of their elements by type.
    pub fn summary(&self) -> String {
        self.tensors.summary()
    }
}

impl Facts for Safetensors {
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        if !self.metadata.is_empty() {
            let shortened = |(key, text): (&String, &String)| {
                (human::shortened(key, view.text(60)), human::shortened(text, view.text(NOTE)))
            };
            let pairs: Vec<_> = self.metadata.iter().map(shortened).collect();
            writeln!(out, "{}", style::paint(style::TITLE, "notes"))?;
            print_pairs(&pairs, 2, out)?;
        }
        self.tensors.print(view, out)
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }
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
