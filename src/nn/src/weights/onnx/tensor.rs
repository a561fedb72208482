//! Tensors of ONNX files.

use super::wire::{Wire, fields, integers, message_end, text, words};
use crate::weights::source::Source;
use crate::weights::{ElementType, Parsed, TensorView};

/// More dimensions than any tensor has.
const MOST_DIMENSIONS: usize = 64;

/// A tensor while its fields are collected.
#[derive(Debug, Default)]
struct Parts {
    name: String,
    dims: Vec<i64>,
    data_type: u64,
    /// Where `raw_data` begins and how long it is.
    raw: Option<(u64, u64)>,
    /// `float_data`, `double_data`.
    words: Vec<u8>,
    /// `int32_data`, `int64_data`.
    integers: Vec<i64>,
    external: bool,
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
            (13, _) => parts.external = true,
            (14, Wire::Number(location)) => parts.external |= location != 0,
            _ => {}
        }
        Ok(())
    })?;
    let name = std::mem::take(&mut parts.name);
    // Numbers in fields of their own are kept in memory, in their own width instead of eight bytes.
    let wide = parts.integers.len() * size_of::<i64>();
    let view = view(parts).map_err(|message| format!("tensor `{}`: {message}", name.escape_debug()))?;
    if view.is_in_memory() {
        source.release(wide);
        source.hold(usize::try_from(view.byte_count()).unwrap_or(usize::MAX))?;
    }
    Ok((name, view))
}

fn view(parts: Parts) -> Parsed<TensorView> {
    if parts.external {
        return Err("its data is in another file; save the model as one file (onnx.save_model with \
                    save_as_external_data=False)"
            .to_owned());
    }
    if parts.dims.len() > MOST_DIMENSIONS {
        return Err(format!("{} dimensions", parts.dims.len()));
    }
    let element = element(parts.data_type)?;
    let shape: Result<Vec<usize>, _> = parts.dims.iter().map(|size| usize::try_from(*size)).collect();
    let shape = shape.map_err(|_| format!("a shape of {:?}", parts.dims))?;
    let Some((start, length)) = parts.raw else {
        return TensorView::in_memory(element, shape, typed(element, parts.words, &parts.integers));
    };
    let view = TensorView::contiguous(element, shape, start, length)?;
    match view.byte_count() == length {
        true => Ok(view),
        false => Err(format!("{length} bytes for {element} of shape {:?}", view.shape())),
    }
}

/// The element types by their numbers in the standard.
fn element(data_type: u64) -> Parsed<ElementType> {
    Ok(match data_type {
        1 => ElementType::F32,
        2 => ElementType::U8,
        3 => ElementType::I8,
        5 => ElementType::I16,
        6 => ElementType::I32,
        7 => ElementType::I64,
        9 => ElementType::Bool,
        10 => ElementType::F16,
        11 => ElementType::F64,
        16 => ElementType::BF16,
        other => return Err(format!("elements of ONNX's type {other} are not supported")),
    })
}

/// The bytes of elements that were given as numbers; narrow types are kept in wider fields.
fn typed(element: ElementType, words: Vec<u8>, integers: &[i64]) -> Vec<u8> {
    match element {
        ElementType::F32 | ElementType::F64 => words,
        _ => integers.iter().flat_map(|value| value.to_le_bytes().into_iter().take(element.size())).collect(),
    }
}
