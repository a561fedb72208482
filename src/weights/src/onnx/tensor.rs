//! Tensors of ONNX files.

use super::wire::{Wire, fields, integers, message_end, text, words};
use crate::fault::Fault;
use crate::source::Source;
use crate::view::row_major;
use crate::{ElementType, Parsed, TensorView};

/// Largest number of dimensions.
const MOST_DIMENSIONS: usize = 64;

/// The element types with their numbers in the standard.
const TYPES: [(u64, ElementType); 10] = [
    (1, ElementType::F32),
    (2, ElementType::U8),
    (3, ElementType::I8),
    (5, ElementType::I16),
    (6, ElementType::I32),
    (7, ElementType::I64),
    (9, ElementType::Bool),
    (10, ElementType::F16),
    (11, ElementType::F64),
    (16, ElementType::BF16),
];

/// A tensor while its fields are collected.
#[derive(Debug, Default)]
struct Parts {
    name: String,
    dims: Vec<i64>,
    data_type: u64,
    /// Start and length of `raw_data`.
    raw: Option<(u64, u64)>,
    /// `float_data`, `double_data`.
    words: Vec<u8>,
    /// `int32_data`, `int64_data`.
    integers: Vec<i64>,
    /// True if the elements are in another file.
    external: bool,
    /// The other file, and the position in it.
    place: External,
}

/// Position of elements in another file.
#[derive(Debug, Default)]
struct External {
    location: Option<String>,
    offset: u64,
    length: Option<u64>,
}

/// Reads the tensor that ends at `end`; its name may be empty.
pub(super) fn tensor(source: &mut Source<'_>, end: u64) -> Parsed<(String, TensorView)> {
    let mut parts = Parts::default();
    fields(source, end, |source, field, wire| {
        match (field, wire) {
            (1, _) => integers(source, wire, &mut parts.dims)?,
            (2, Wire::Number(kind)) => parts.data_type = kind,
            (4 | 10, _) => words(source, wire, &mut parts.words)?,
            (5 | 7, _) => integers(source, wire, &mut parts.integers)?,
            (8, _) => parts.name = text(source, wire)?,
            (9, _) => {
                let end = message_end(source, wire)?;
                parts.raw = Some((source.position(), end - source.position()));
            }
            (13, _) => external_entry(source, wire, &mut parts.place)?,
            (14, Wire::Number(location)) => parts.external = location == 1,
            _ => {}
        }
        Ok(())
    })?;
    let name = std::mem::take(&mut parts.name);
    // Numbers in typed fields are kept in memory, in their own width instead of eight bytes.
    let wide = parts.integers.len() * size_of::<i64>();
    let view = view(source, parts).map_err(|fault| fault.within(format_args!("tensor `{}`", name.escape_debug())))?;
    if view.is_in_memory() {
        source.release(wide);
        source.hold(usize::try_from(view.byte_count()).unwrap_or(usize::MAX))?;
    }
    Ok((name, view))
}

/// Reads one pair of a key and a value: `location`, `offset` or `length`. A checksum is not verified, like in other readers.
fn external_entry(source: &mut Source<'_>, wire: Wire, place: &mut External) -> Parsed<()> {
    let (mut key, mut value) = (String::new(), String::new());
    let end = message_end(source, wire)?;
    fields(source, end, |source, field, wire| {
        match field {
            1 => key = text(source, wire)?,
            2 => value = text(source, wire)?,
            _ => {}
        }
        Ok(())
    })?;
    let number = || value.parse::<u64>().map_err(|_| format!("`{}` as its {key}", value.escape_debug()));
    match key.as_str() {
        "offset" => place.offset = number()?,
        "length" => place.length = Some(number()?),
        "location" => place.location = Some(value),
        _ => {}
    }
    Ok(())
}

/// Returns a tensor in another file of the folder.
fn external(source: &mut Source<'_>, element: ElementType, shape: Vec<usize>, place: &External) -> Parsed<TensorView> {
    let name = place.location.as_deref().ok_or("its data is in another file whose name is missing")?;
    let (file, length) = source.name_file(name)?;
    let shown = name.escape_debug().take(200).collect::<String>();
    let room = length.checked_sub(place.offset).ok_or_else(|| {
        format!(
            "its data begins at byte {} of `{shown}`, which has {length}; the file is truncated or modified",
            place.offset
        )
    })?;
    if let Some(claimed) = place.length
        && claimed > room
    {
        return Err(format!(
            "its data has {claimed} bytes and {room} are left of `{shown}`; the file is truncated or modified"
        )
        .into());
    }
    let view = TensorView::contiguous(element, shape, place.offset, place.length.unwrap_or(room))
        .map_err(|fault: Fault| Fault::new(fault.kind, format!("{fault} of `{shown}`")))?;
    if let Some(claimed) = place.length
        && claimed != view.byte_count()
    {
        return Err(format!("{claimed} bytes for {element} of shape {:?}", view.shape()).into());
    }
    Ok(view.in_file(file))
}

fn view(source: &mut Source<'_>, parts: Parts) -> Parsed<TensorView> {
    if parts.dims.len() > MOST_DIMENSIONS {
        return Err(format!("{} dimensions", parts.dims.len()).into());
    }
    let element = element(parts.data_type)?;
    let shape: Result<Vec<usize>, _> = parts.dims.iter().map(|size| usize::try_from(*size)).collect();
    let shape = shape.map_err(|_| format!("a shape of {:?}", parts.dims))?;
    if parts.external {
        return external(source, element, shape, &parts.place);
    }
    let Some((start, length)) = parts.raw else {
        let strides = row_major(&shape)?;
        return TensorView::in_memory(element, shape, strides, typed(element, parts.words, &parts.integers).into());
    };
    let view = TensorView::contiguous(element, shape, start, length)?;
    match view.byte_count() == length {
        true => Ok(view),
        false => Err(format!("{length} bytes for {element} of shape {:?}", view.shape()).into()),
    }
}

/// Returns the element type for its number in the standard.
fn element(data_type: u64) -> Parsed<ElementType> {
    let found = TYPES.iter().find(|(number, _)| *number == data_type);
    let unknown = || Fault::unsupported(format!("elements of ONNX's type {data_type} are not supported"));
    found.map(|(_, element)| *element).ok_or_else(unknown)
}

/// Returns the number of an element type in the standard.
pub(super) fn type_number(element: ElementType) -> u64 {
    // Every element type is in the list; 0 is the standard's undefined type.
    TYPES.iter().find(|(_, own)| *own == element).map_or(0, |(number, _)| *number)
}

/// Returns the bytes of elements that were stored as numbers; narrow types are stored in wider fields.
fn typed(element: ElementType, words: Vec<u8>, integers: &[i64]) -> Vec<u8> {
    match element {
        ElementType::F32 | ElementType::F64 => words,
        _ => integers.iter().flat_map(|value| value.to_le_bytes().into_iter().take(element.size())).collect(),
    }
}
