//! NumPy's scalars and arrays in a pickle: created from a type, a shape and bytes.

use super::machine::{Item, Machine, Node};
use crate::view::{column_major, row_major};
use crate::{ElementType, Parsed, TensorView};
use std::sync::Arc;

/// The longest name of a type in a message.
const SHOWN: usize = 40;

/// The type of NumPy's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dtype {
    kind: Kind,
    big_endian: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Elements of a stored type.
    Element(ElementType),
    /// Unsigned integers of this number of bytes, which are widened because no stored type has them.
    Unsigned(usize),
    /// Text with four bytes per character.
    Text,
    /// Bytes.
    Bytes,
    /// Python objects.
    Object,
    /// Anything else: complex numbers, times, records.
    Other,
}

impl Dtype {
    /// Returns the type with NumPy's name, such as `f4`, `u2`, `U12`.
    fn named(name: &str) -> Self {
        let (order, name) = match name.as_bytes().first() {
            Some(order @ (b'<' | b'>' | b'|' | b'=')) => (*order, &name[1..]),
            _ => (b'=', name),
        };
        let kind = match (ElementType::from_numpy(name), name) {
            (Some(element), _) => Kind::Element(element),
            (None, "u2") => Kind::Unsigned(2),
            (None, "u4") => Kind::Unsigned(4),
            (None, "u8") => Kind::Unsigned(8),
            (None, name) => match name.as_bytes().first() {
                Some(b'U') => Kind::Text,
                Some(b'S' | b'a') => Kind::Bytes,
                Some(b'O') => Kind::Object,
                _ => Kind::Other,
            },
        };
        Self { kind, big_endian: order == b'>' }
    }

    /// Returns a description.
    fn described(self) -> &'static str {
        match self.kind {
            Kind::Element(_) | Kind::Unsigned(_) => "numbers",
            Kind::Text => "text",
            Kind::Bytes => "bytes",
            Kind::Object => "Python objects",
            Kind::Other => "an element type that is not read",
        }
    }
}

/// Converts unsigned integers to a wider signed type; `None` if one is too large for any.
fn widened(bytes: &[u8], width: usize, big_endian: bool) -> Option<(ElementType, Vec<u8>)> {
    let values = bytes.chunks_exact(width).map(|word| {
        let shift = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        if big_endian { word.iter().fold(0, shift) } else { word.iter().rev().fold(0, shift) }
    });
    if width == 2 {
        return Some((ElementType::I32, values.flat_map(|value| (value as i32).to_le_bytes()).collect()));
    }
    let words: Option<Vec<[u8; 8]>> = values.map(|value| Some(i64::try_from(value).ok()?.to_le_bytes())).collect();
    Some((ElementType::I64, words?.into_flattened()))
}

impl Machine<'_, '_> {
    /// `numpy.dtype('f4', False, True)`.
    pub(super) fn numpy_dtype(&self, name: Item) -> Parsed<Node> {
        match self.node(name) {
            Some(Node::Text(name)) => Ok(Node::Dtype(Dtype::named(name))),
            // A class such as `numpy.float32`, or a type of another type.
            _ => Ok(Node::Dtype(Dtype { kind: Kind::Other, big_endian: false })),
        }
    }

    /// The state of a type: (version, order, subtype, names, fields, …).
    pub(super) fn build_numpy_dtype(&mut self, target: Item, state: Item) -> Parsed<()> {
        let Some(Node::Tuple(state)) = self.node(state) else { return Err(self.unexpected("a damaged NumPy type")) };
        let part = |at: usize| state.get(at).copied().unwrap_or(Item::None);
        let big_endian = matches!(self.node(part(1)), Some(Node::Text(order)) if &**order == ">");
        let plain = [2, 3, 4].iter().all(|at| matches!(part(*at), Item::None));
        if let Item::Node(number) = target
            && let Some(Node::Dtype(dtype)) = self.nodes.get_mut(number as usize)
        {
            dtype.big_endian = big_endian;
            if !plain {
                dtype.kind = Kind::Other;
            }
        }
        Ok(())
    }

    /// The state of an array: (version, shape, type, whether it is in column order, bytes).
    pub(super) fn build_numpy_array(&mut self, target: Item, state: Item) -> Parsed<()> {
        let parts = match self.node(state) {
            Some(Node::Tuple(parts)) => parts.clone(),
            _ => Vec::new(),
        };
        let &[_version, shape, dtype, column_order, data] = &parts[..] else {
            return Err(self.unexpected("a damaged NumPy array"));
        };
        let column_order = match column_order {
            Item::Bool(order) => order,
            Item::Int(order) => order != 0,
            _ => return Err(self.unexpected("a damaged NumPy array")),
        };
        let array = self.array(shape, dtype, column_order, data)?;
        self.source.hold(array.held())?;
        if let Item::Node(number) = target
            && let Some(node) = self.nodes.get_mut(number as usize)
        {
            *node = array;
        }
        Ok(())
    }

    /// `_frombuffer(buffer, dtype, shape, order)`.
    pub(super) fn numpy_buffer(&mut self, arguments: &[Item]) -> Parsed<Node> {
        let &[buffer, dtype, shape, order] = arguments else { return Err(self.unexpected("a damaged NumPy array")) };
        let column_order = matches!(self.node(order), Some(Node::Text(order)) if &**order == "F");
        self.array(shape, dtype, column_order, buffer)
    }

    /// `scalar(dtype, bytes)`.
    pub(super) fn numpy_scalar(&mut self, arguments: &[Item]) -> Parsed<Item> {
        let (dtype, data) = match arguments {
            [dtype, data] => (self.dtype(*dtype)?, *data),
            _ => return Err(self.unexpected("a damaged NumPy scalar")),
        };
        if dtype.kind == Kind::Object {
            return Ok(data);
        }
        let bytes = self.numpy_bytes(data).ok_or_else(|| self.unexpected("a NumPy scalar without bytes"))?;
        let mut word = bytes.to_vec();
        if dtype.big_endian && dtype.kind != Kind::Bytes {
            let unit = if dtype.kind == Kind::Text { 4 } else { word.len().max(1) };
            word.chunks_mut(unit).for_each(<[u8]>::reverse);
        }
        let damaged = |machine: &Self| machine.unexpected("a NumPy scalar of the wrong size");
        let node = match dtype.kind {
            Kind::Element(element) => match number(element, &word) {
                Some(item) => return Ok(item),
                None => return Err(damaged(self)),
            },
            Kind::Unsigned(width) if word.len() == width => {
                let value = word.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
                match i64::try_from(value) {
                    Ok(value) => return Ok(Item::Int(value)),
                    Err(_) => Node::Long(Box::new(i128::from(value))),
                }
            }
            Kind::Unsigned(_) => return Err(damaged(self)),
            Kind::Text => {
                let characters =
                    word.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]));
                let text: String = characters.map(|unit| char::from_u32(unit).unwrap_or('\u{fffd}')).collect();
                Node::Text(text.trim_end_matches('\0').into())
            }
            Kind::Bytes => Node::Bytes(word.into()),
            Kind::Object | Kind::Other => Node::Object("numpy scalar of an element type that is not read".into()),
        };
        self.push_node(node)?;
        self.pop()
    }

    fn dtype(&self, item: Item) -> Parsed<Dtype> {
        match self.node(item) {
            Some(Node::Dtype(dtype)) => Ok(*dtype),
            // A class of types that is not understood.
            Some(Node::Object(_) | Node::Global(..)) => Ok(Dtype { kind: Kind::Other, big_endian: false }),
            _ => Err(self.unexpected("a NumPy value without a type")),
        }
    }

    /// Returns the bytes of an array; Python 2 wrote them as text.
    fn numpy_bytes(&self, item: Item) -> Option<Arc<[u8]>> {
        match self.node(item)? {
            Node::Bytes(bytes) => Some(bytes.clone()),
            Node::Text(text) => Some(text.as_bytes().into()),
            _ => None,
        }
    }

    /// Creates an array of these bytes; if its elements are not read, an object.
    fn array(&mut self, shape: Item, dtype: Item, column_order: bool, data: Item) -> Parsed<Node> {
        let damaged = |machine: &Self| machine.unexpected("a damaged NumPy array");
        let sizes = self.sizes(shape).ok_or_else(|| damaged(self))?;
        let shape: Result<Vec<usize>, _> = sizes.into_iter().map(usize::try_from).collect();
        let shape = shape.map_err(|_| damaged(self))?;
        let dtype = self.dtype(dtype)?;
        let not_read = |why: &str| {
            let name = format!("numpy array of {why}, {:?}", shape.iter().take(8).collect::<Vec<_>>());
            Ok(Node::Object(name.chars().take(2 * SHOWN).collect::<String>().into()))
        };
        let objects = match self.node(data) {
            Some(Node::List(list)) if dtype.kind == Kind::Object && (shape.len() < 2 || !column_order) => {
                Some(list.len())
            }
            _ => None,
        };
        if let Some(length) = objects {
            if shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size)) != Some(length) {
                return Err(damaged(self));
            }
            self.charge(length)?;
            let Some(Node::List(list)) = self.node(data) else { return Err(damaged(self)) };
            return Ok(Node::Objects(list.to_items()));
        }
        let (Kind::Element(_) | Kind::Unsigned(_)) = dtype.kind else { return not_read(dtype.described()) };
        let bytes = self.numpy_bytes(data).ok_or_else(|| damaged(self))?;
        if matches!(self.node(data), Some(Node::Text(_))) {
            self.charge(bytes.len())?;
        }
        let (element, bytes, big_endian) = match dtype.kind {
            Kind::Unsigned(width) => {
                if bytes.len() % width != 0 {
                    return Err(damaged(self));
                }
                self.charge(bytes.len())?;
                let Some((element, wide)) = widened(&bytes, width, dtype.big_endian) else {
                    return not_read("integers beyond 2^63");
                };
                self.source.hold(wide.len())?;
                (element, wide.into(), false)
            }
            Kind::Element(element) => (element, bytes, dtype.big_endian),
            _ => return not_read(dtype.described()),
        };
        let strides = if column_order { column_major(&shape)? } else { row_major(&shape)? };
        let view = TensorView::in_memory(element, shape, strides, bytes);
        let view = view.map_err(|message| self.unexpected(&format!("a NumPy array with {message}")))?;
        Ok(Node::Array(Some(Box::new(if big_endian { view.big_endian() } else { view }))))
    }
}

/// Decodes these little-endian bytes as a number; `None` if there are too few or too many.
fn number(element: ElementType, bytes: &[u8]) -> Option<Item> {
    Some(match element {
        ElementType::F64 => Item::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
        ElementType::F32 => Item::Float(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
        ElementType::F16 => Item::Float(half::f16::from_le_bytes(bytes.try_into().ok()?).to_f64()),
        ElementType::BF16 => Item::Float(half::bf16::from_le_bytes(bytes.try_into().ok()?).to_f64()),
        ElementType::I64 => Item::Int(i64::from_le_bytes(bytes.try_into().ok()?)),
        ElementType::I32 => Item::Int(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        ElementType::I16 => Item::Int(i16::from_le_bytes(bytes.try_into().ok()?).into()),
        ElementType::I8 => Item::Int(i8::from_le_bytes(bytes.try_into().ok()?).into()),
        ElementType::U8 => Item::Int(u8::from_le_bytes(bytes.try_into().ok()?).into()),
        ElementType::Bool => Item::Bool(u8::from_le_bytes(bytes.try_into().ok()?) != 0),
    })
}
