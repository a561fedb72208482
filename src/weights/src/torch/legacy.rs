//! The format before PyTorch 1.6: pickles of a magic number, a version, properties of the machine, the values and the names of
//! the storages, then the storages, each after its number of elements. A file with one pickle was written by `pickle.dump`.

use crate::Parsed;
use crate::fault::Fault;
use crate::pickle::{self, Pickle, PickleValue, Tree};
use crate::source::Source;
use std::collections::HashMap;
use std::sync::Arc;

/// Value of the first pickle.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// Value of the second pickle.
const VERSION: i128 = 1001;

/// Reads the values of the file.
pub(super) fn read(source: &mut Source<'_>) -> Parsed<PickleValue> {
    let first = pickle::parse(source)?;
    if first.integer() != Some(MAGIC) {
        return plain(source, first);
    }
    let version = pickle::parse(source)?.integer();
    if version != Some(VERSION) {
        return Err(Fault::unsupported(format!(
            "a legacy PyTorch file of version {version:?}; {VERSION} is understood"
        )));
    }
    let machine = tree(source)?;
    if machine.get("little_endian") != Some(&PickleValue::Bool(true)) {
        return Err(Fault::unsupported("it was not written on a little-endian machine; save it again on one"));
    }
    let values = pickle::parse(source)?;
    let keys = tree(source)?;
    let places = storages(source, &values, &keys)?;
    let within = values.storages.iter().map(|storage| {
        let place = places.get(&storage.key).copied();
        let (start, count) = place.ok_or_else(|| format!("storage `{}` is missing", storage.key.escape_debug()))?;
        let end = storage.offset.checked_add(storage.count);
        match end {
            Some(end) if end <= count => {
                let size = storage.element.size() as u64;
                Ok((start + storage.offset * size, storage.count * size))
            }
            _ => Err(format!("a part of storage `{}` lies outside of it", storage.key.escape_debug()).into()),
        }
    });
    let within: Vec<(u64, u64)> = within.collect::<Parsed<_>>()?;
    Tree::of(values, source, |storage| Ok(within[storage as usize]))
}

/// Reads a single pickle with nothing after it.
fn plain(source: &mut Source<'_>, pickle: Pickle) -> Parsed<PickleValue> {
    if source.remaining() > 0 {
        return Err(format!("{} bytes follow its pickle", source.remaining()).into());
    }
    Tree::of(pickle, source, no_storages)
}

/// Reads the values of the next pickle, which may not contain tensors.
fn tree(source: &mut Source<'_>) -> Parsed<PickleValue> {
    let pickle = pickle::parse(source)?;
    Tree::of(pickle, source, no_storages)
}

fn no_storages(_: u32) -> Parsed<(u64, u64)> {
    Err("a tensor in a pickle without storages".into())
}

/// Returns the start and the number of elements of each storage.
fn storages(source: &mut Source<'_>, values: &Pickle, keys: &PickleValue) -> Parsed<HashMap<Arc<str>, (u64, u64)>> {
    let PickleValue::List(keys) = keys else {
        return Err("its list of storages is missing".into());
    };
    let read = values.storages.iter().map(|storage| (storage.key.clone(), storage.element.size()));
    let sizes: HashMap<Arc<str>, usize> = read.chain(values.unread.iter().cloned()).collect();
    let mut places = HashMap::new();
    for key in keys {
        let PickleValue::Text(key) = key else { return Err("a storage without a name".into()) };
        let size = sizes.get(key).ok_or_else(|| {
            format!(
                "storage `{}` is not used, or has an unknown type; save it again with a current torch.save",
                key.escape_debug()
            )
        })?;
        let count = u64::from_le_bytes(source.array()?);
        let start = source.position();
        let size = count.checked_mul(*size as u64);
        source.skip(size.ok_or_else(|| format!("storage `{}` claims {count} elements", key.escape_debug()))?)?;
        if places.insert(key.clone(), (start, count)).is_some() {
            return Err(format!("storage `{}` is there twice", key.escape_debug()).into());
        }
    }
    Ok(places)
}
