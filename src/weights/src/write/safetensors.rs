//! Writing `.safetensors`. (The crate's own writer stores metadata in a hash map, so its bytes vary from run to run.)

use super::{Load, Outline};
use crate::Result;
use crate::safetensors::SCALARS;
use crate::{file_error, scalar};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;

/// Writes header and tensors; scalars become one metadata entry.
pub(super) fn write(mut sink: impl Write, outline: &Outline<'_>, load: &mut Load<'_>, path: &Path) -> Result<()> {
    let failed = |error: std::io::Error| file_error(path, error);
    // Wide elements first, so that every tensor is aligned to its element size as readers expect; otherwise in order.
    let mut order: Vec<usize> = (0..outline.tensors.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(outline.tensors[*index].element.size()));
    let header = header(outline, &order);
    sink.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    sink.write_all(&header).map_err(failed)?;
    for index in order {
        sink.write_all(load(index)?.data()).map_err(failed)?;
    }
    sink.flush().map_err(failed)
}

/// The JSON header with tensors in `order` and metadata in the order of its keys, padded to 8 bytes.
fn header(outline: &Outline<'_>, order: &[usize]) -> Vec<u8> {
    let mut header = Map::new();
    let mut notes = outline.metadata.clone();
    if !outline.scalars.is_empty() {
        notes.insert(SCALARS.to_owned(), scalar::to_note(&outline.scalars));
    }
    if !notes.is_empty() {
        header.insert("__metadata__".to_owned(), json!(notes));
    }
    let mut start = 0;
    for index in order {
        let entry = &outline.tensors[*index];
        let end = start + entry.byte_count();
        let about = json!({"dtype": entry.element.name(), "shape": entry.shape, "data_offsets": [start, end]});
        header.insert(entry.name.to_owned(), about);
        start = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}
