//! NumPy's `.npy`, versions 1 to 3.

use super::archive::Contents;
use super::source::Source;
use super::view::{column_major, row_major};
use super::{ElementType, Parsed, TensorView};
use crate::fault::Fault;

/// First bytes of every such file.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// Largest length of a header.
const LONGEST_HEADER: u64 = 1 << 16;

/// Reads the header; the array gets the name of the file.
pub(super) fn read(source: &mut Source<'_>) -> Parsed<Contents> {
    let header = header(source)?;
    let strides = if header.fortran { column_major(&header.shape)? } else { row_major(&header.shape)? };
    let (element, big_endian) = element(&header.descr)?;
    let view = TensorView::strided(element, header.shape, strides, source.position(), source.remaining())?;
    if view.byte_count() != source.remaining() {
        return Err(format!("its array takes {} bytes and {} follow", view.byte_count(), source.remaining()).into());
    }
    let view = if big_endian { view.big_endian() } else { view };
    let name = source.path().file_stem().map_or("array".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(Contents { tensors: vec![(name, view)], ..Contents::default() })
}

/// Reads the header of an array of Python objects; the pickle of the array follows it.
pub(super) fn objects(source: &mut Source<'_>) -> Parsed<()> {
    let header = header(source)?;
    match header.descr.trim_start_matches('|') {
        "O" => Ok(()),
        _ => Err(Fault::not_weights("an array of numbers, not of Python objects")),
    }
}

/// Reads the header up to its end.
fn header(source: &mut Source<'_>) -> Parsed<Header> {
    source.skip(MAGIC.len() as u64)?;
    let [major, minor] = source.array()?;
    let length = match major {
        1 => u64::from(u16::from_le_bytes(source.array()?)),
        2 | 3 => u64::from(u32::from_le_bytes(source.array()?)),
        _ => return Err(Fault::unsupported(format!("an .npy file of version {major}.{minor}; 1 to 3 are understood"))),
    };
    if length > LONGEST_HEADER {
        return Err(format!("an .npy header of {length} bytes").into());
    }
    let header = String::from_utf8(source.bytes(length)?).map_err(|_| "an .npy header that is not UTF-8".to_owned())?;
    Header::parse(&header)
}

/// Returns the element type, and whether its first byte is the most significant.
fn element(descr: &str) -> Parsed<(ElementType, bool)> {
    let (order, kind) = descr.split_at_checked(1).unwrap_or(("", ""));
    if kind.starts_with('O') {
        return Err(Fault::unsupported("it holds Python objects, which are never executed; save numbers"));
    }
    let element = ElementType::from_numpy(kind).ok_or_else(|| unknown(descr))?;
    match order {
        "<" | "|" | "=" => Ok((element, false)),
        ">" => Ok((element, true)),
        _ => Err(unknown(descr)),
    }
}

fn unknown(descr: &str) -> Fault {
    Fault::unsupported(format!("elements of type `{}` are not supported", descr.escape_debug()))
}

/// The header: a Python dict literal of three entries.
#[derive(Debug)]
struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Parsed<Self> {
        let damaged =
            || Fault::from(format!("a damaged .npy header: {}", text.escape_debug().take(120).collect::<String>()));
        let value = |key: &str| {
            let (_, rest) = text.split_once(&format!("'{key}':"))?;
            Some(rest.trim_start())
        };
        let descr = value("descr").ok_or_else(damaged)?;
        if descr.starts_with('[') {
            return Err(Fault::unsupported("an array of records; save its columns one by one"));
        }
        let descr = descr.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).ok_or_else(damaged)?.0;
        let fortran = match value("fortran_order").ok_or_else(damaged)? {
            order if order.starts_with("True") => true,
            order if order.starts_with("False") => false,
            _ => return Err(damaged()),
        };
        let shape = value("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')')).ok_or_else(damaged)?.0;
        let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
        let shape: Result<Vec<usize>, _> = sizes.map(|size| size.trim_end_matches('L').parse()).collect();
        Ok(Self { descr: descr.to_owned(), fortran, shape: shape.map_err(|_| damaged())? })
    }
}
