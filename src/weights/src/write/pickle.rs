//! The pickle of a state dict, protocol 2: an `OrderedDict` of names to tensors, as in `torch.save`.

use super::{Entry, Outline};
use crate::Scalar;

/// Numbers in the memo.
const DICT_CLASS: u8 = 0;
const REBUILD: u8 = 1;
const STORAGE: u8 = 2;
const CPU: u8 = 3;
/// First number of the classes of storages, which follow by element type.
const FIRST_CLASS: u8 = 4;
/// Integers that have a 32-bit instruction.
const INT32: std::ops::RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;

/// Returns the pickle.
pub(super) fn state_dict(outline: &Outline<'_>) -> Vec<u8> {
    let mut writer = Writer { bytes: vec![0x80, 2], kept: [false; 256] };
    writer.empty_dict();
    writer.put(b'(');
    for entry in &outline.tensors {
        writer.text(entry.name);
        writer.tensor(entry);
    }
    for (name, scalar) in outline.scalars.iter() {
        writer.text(name);
        writer.scalar(scalar);
    }
    writer.put(b'u');
    writer.put(b'.');
    writer.bytes
}

struct Writer {
    bytes: Vec<u8>,
    /// Numbers of the memo in use.
    kept: [bool; 256],
}

impl Writer {
    fn put(&mut self, opcode: u8) {
        self.bytes.push(opcode);
    }

    /// Writes a value once and refers to its number in the memo afterwards.
    fn shared(&mut self, place: u8, write: impl FnOnce(&mut Self)) {
        if self.kept[place as usize] {
            self.bytes.extend([b'h', place]);
        } else {
            write(self);
            self.bytes.extend([b'q', place]);
            self.kept[place as usize] = true;
        }
    }

    fn global(&mut self, place: u8, module: &str, name: &str) {
        self.shared(place, |writer| writer.bytes.extend(format!("c{module}\n{name}\n").into_bytes()));
    }

    /// `OrderedDict()`
    fn empty_dict(&mut self) {
        self.global(DICT_CLASS, "collections", "OrderedDict");
        self.bytes.extend(*b")R");
    }

    fn text(&mut self, text: &str) {
        self.put(b'X');
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn integer(&mut self, value: i64) {
        match value {
            0..=0xff => self.bytes.extend([b'K', value as u8]),
            0x100..=0xffff => {
                self.put(b'M');
                self.bytes.extend((value as u16).to_le_bytes());
            }
            value if INT32.contains(&value) => {
                self.put(b'J');
                self.bytes.extend((value as i32).to_le_bytes());
            }
            value => {
                self.bytes.extend([0x8a, 8]);
                self.bytes.extend(value.to_le_bytes());
            }
        }
    }

    /// Writes a tuple of integers.
    fn tuple(&mut self, values: &[i64]) {
        match values.len() {
            0 => self.put(b')'),
            1..=3 => {
                values.iter().for_each(|value| self.integer(*value));
                // TUPLE1, TUPLE2, TUPLE3
                self.put(0x84 + values.len() as u8);
            }
            _ => {
                self.put(b'(');
                values.iter().for_each(|value| self.integer(*value));
                self.put(b't');
            }
        }
    }

    /// Writes `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`, with an entry of the archive as storage.
    fn tensor(&mut self, entry: &Entry<'_>) {
        let class = entry.element;
        self.global(REBUILD, "torch._utils", "_rebuild_tensor_v2");
        self.bytes.extend(*b"((");
        self.shared(STORAGE, |writer| writer.text("storage"));
        self.global(FIRST_CLASS + class as u8, "torch", class.torch_storage());
        self.text(&entry.first.to_string());
        self.shared(CPU, |writer| writer.text("cpu"));
        let count: usize = entry.shape.iter().product();
        self.integer(count as i64);
        self.bytes.extend(*b"tQ");
        self.integer(0);
        let shape: Vec<i64> = entry.shape.iter().map(|size| *size as i64).collect();
        self.tuple(&shape);
        self.tuple(&strides(&shape));
        self.put(0x89);
        self.empty_dict();
        self.bytes.extend(*b"tR");
    }

    fn scalar(&mut self, scalar: &Scalar) {
        match scalar {
            Scalar::Bool(value) => self.put(if *value { 0x88 } else { 0x89 }),
            Scalar::Int(value) => self.integer(*value),
            Scalar::Float(value) => {
                self.put(b'G');
                self.bytes.extend(value.to_be_bytes());
            }
            Scalar::Text(value) => self.text(value),
        }
    }
}

/// Returns the strides of a row-major tensor.
fn strides(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}
