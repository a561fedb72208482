//! Reading `.safetensors`: the header has the position of each tensor.

use super::archive::Contents;
use super::source::Source;
use super::{ElementType, Parsed, TensorView, scalar};
use crate::fault::Fault;
use ::safetensors::tensor::Metadata;

/// Largest length of a header, which is the limit of the format too.
const LARGEST_HEADER: u64 = 100_000_000;
/// The metadata key for the scalars of a state dict.
pub(super) const SCALARS: &str = "scalars";

/// Returns whether a file of `length` bytes begins like one: a length that fits, and the brace of a JSON header.
pub(super) fn begins(head: &[u8], length: u64) -> bool {
    resembles(head) && header_length(head).is_some_and(|header| header.checked_add(8).is_some_and(|end| end <= length))
}

/// Like [`begins`], for a file that may be truncated.
pub(super) fn resembles(head: &[u8]) -> bool {
    head.get(8) == Some(&b'{') && header_length(head).is_some_and(|header| header <= LARGEST_HEADER)
}

fn header_length(head: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(head.get(..8)?.try_into().ok()?))
}

/// Reads the header.
pub(super) fn read(source: &mut Source<'_>) -> Parsed<Contents> {
    let length = u64::from_le_bytes(source.array()?);
    if length > LARGEST_HEADER {
        return Err(format!("not a whole safetensors file: a header of {length} bytes").into());
    }
    let header = source.bytes(length)?;
    let damaged = |error: &dyn std::fmt::Display| Fault::from(format!("not a whole safetensors file: {error}"));
    let header: Metadata = serde_json::from_slice(&header).map_err(|error| damaged(&error))?;
    let start = source.position();
    if start.checked_add(header.data_len() as u64) != Some(source.length()) {
        let (data, rest) = (header.data_len(), source.remaining());
        return Err(damaged(&format!("its header describes {data} bytes and {rest} follow")));
    }
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let mut contents = Contents { metadata, ..Contents::default() };
    if let Some(scalars) = contents.metadata.get(SCALARS).and_then(|note| scalar::from_note(note)) {
        contents.scalars = scalars;
        contents.metadata.remove(SCALARS);
    }
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let dtype = format!("{:?}", info.dtype);
        let element = ElementType::from_name(&dtype);
        let element = element.ok_or_else(|| {
            Fault::unsupported(format!("tensor `{name}` has elements of type {dtype}, which is not supported"))
        })?;
        let (begin, end) = info.data_offsets;
        let room = end.saturating_sub(begin) as u64;
        let view = TensorView::contiguous(element, info.shape.clone(), start + begin as u64, room);
        let view = view.map_err(|fault| fault.within(format_args!("tensor `{name}`")))?;
        contents.tensors.push((name, view));
    }
    Ok(contents)
}
