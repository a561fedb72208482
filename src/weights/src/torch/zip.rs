//! The zip archive of `torch.save`: `NAME/data.pkl` and one stored entry `NAME/data/KEY` per storage.

use super::directory::{Directory, Place};
use crate::Parsed;
use crate::fault::Fault;
use crate::pickle::{self, PickleValue, StorageRef, Tree};
use crate::source::Source;
use std::collections::HashMap;
use std::sync::Arc;

/// Reads the values of the archive.
pub(super) fn read(source: &mut Source<'_>) -> Parsed<PickleValue> {
    let directory = Directory::read(source)?;
    let prefix = prefix(&directory)?;
    check_byte_order(&directory, source, &prefix)?;
    let (start, size) = directory.place(source, &format!("{prefix}/data.pkl"))?;
    source.seek(start)?;
    let pickle = pickle::parse(source)?;
    if source.position() > start + size {
        return Err("its pickle is longer than its entry".into());
    }
    let mut places = HashMap::<Arc<str>, Place>::new();
    for storage in &pickle.storages {
        if !places.contains_key(&storage.key) {
            let place = directory.place(source, &format!("{prefix}/data/{}", storage.key))?;
            places.insert(storage.key.clone(), place);
        }
    }
    refuse_overlaps(&places)?;
    let within = pickle.storages.iter().map(|storage| part(storage, places[&storage.key]));
    let within: Vec<Place> = within.collect::<Parsed<_>>()?;
    Tree::of(pickle, source, |storage| Ok(within[storage as usize]))
}

/// Returns the folder in the archive that contains everything.
fn prefix(directory: &Directory) -> Parsed<String> {
    let folders = directory.names().filter_map(|name| name.strip_suffix("/data.pkl"));
    if let Some(prefix) = folders.min_by_key(|prefix| (prefix.len(), *prefix)) {
        return Ok(prefix.to_owned());
    }
    Err(Fault::not_weights(match directory.names().any(|name| name.ends_with(".npy")) {
        true => "an .npz archive of arrays; unpack it and name one .npy of it",
        false => "a zip archive that torch.save did not write: it has no data.pkl",
    }))
}

fn check_byte_order(directory: &Directory, source: &mut Source<'_>, prefix: &str) -> Parsed<()> {
    let name = format!("{prefix}/byteorder");
    if !directory.names().any(|own| own == name) {
        return Ok(());
    }
    let (start, size) = directory.place(source, &name)?;
    match source.bytes_at(start, size.min(16))?.as_slice() {
        b"little" => Ok(()),
        _ => Err(Fault::unsupported("it was not written on a little-endian machine; save it again on one")),
    }
}

/// Returns the bytes of a storage, or of a part of one.
fn part(storage: &StorageRef, (start, size): Place) -> Parsed<Place> {
    let bytes = |count: u64| count.checked_mul(storage.element.size() as u64);
    match bytes(storage.offset).zip(bytes(storage.count)) {
        Some((offset, room)) if offset.checked_add(room).is_some_and(|end| end <= size) => Ok((start + offset, room)),
        _ => Err(format!(
            "storage `{}` claims {} elements of {} and has {size} bytes; the file is truncated or modified",
            storage.key.escape_debug(),
            storage.count,
            storage.element
        )
        .into()),
    }
}

/// Checks that no two storages share bytes.
fn refuse_overlaps(places: &HashMap<Arc<str>, Place>) -> Parsed<()> {
    let mut sorted: Vec<Place> = places.values().copied().filter(|(_, size)| *size > 0).collect();
    sorted.sort_unstable();
    match sorted.windows(2).any(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
        true => Err("entries of its zip archive overlap".into()),
        false => Ok(()),
    }
}
