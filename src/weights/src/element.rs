//! Element types as files store them.

use std::fmt;

/// The type of a stored tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementType {
    /// IEEE double precision.
    F64,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single precision number.
    BF16,
    /// Signed, 64 bits.
    I64,
    /// Signed, 32 bits.
    I32,
    /// Signed, 16 bits.
    I16,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 8 bits.
    U8,
    /// One byte: 0 or 1.
    Bool,
}

/// Every element type with its name in `.safetensors`, the storage class of PyTorch, and its name as a PyTorch `dtype`.
const NAMES: [(ElementType, &str, &str, &str); 10] = [
    (ElementType::F64, "F64", "DoubleStorage", "float64"),
    (ElementType::F32, "F32", "FloatStorage", "float32"),
    (ElementType::F16, "F16", "HalfStorage", "float16"),
    (ElementType::BF16, "BF16", "BFloat16Storage", "bfloat16"),
    (ElementType::I64, "I64", "LongStorage", "int64"),
    (ElementType::I32, "I32", "IntStorage", "int32"),
    (ElementType::I16, "I16", "ShortStorage", "int16"),
    (ElementType::I8, "I8", "CharStorage", "int8"),
    (ElementType::U8, "U8", "ByteStorage", "uint8"),
    (ElementType::Bool, "BOOL", "BoolStorage", "bool"),
];

impl ElementType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Returns whether it is a floating point type.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// Returns its name in `.safetensors`: `F32`, `BF16`, `BOOL` …
    pub fn name(self) -> &'static str {
        self.names().1
    }

    /// Returns the element type with a name in `.safetensors`.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|names| names.1 == name).map(|names| names.0)
    }

    /// Returns the class of PyTorch's storages of this type, in the module `torch`.
    pub(crate) fn torch_storage(self) -> &'static str {
        self.names().2
    }

    pub(crate) fn from_torch_storage(class: &str) -> Option<Self> {
        NAMES.iter().find(|names| names.2 == class).map(|names| names.0)
    }

    /// Returns the bytes per element of a class of PyTorch's storages whose elements are not read.
    pub(crate) fn unread_torch_storage(class: &str) -> Option<usize> {
        Some(match class {
            "ComplexDoubleStorage" => 16,
            "ComplexFloatStorage" => 8,
            "QInt32Storage" => 4,
            "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => 1,
            _ => return None,
        })
    }

    /// Returns the element type of PyTorch's `dtype`.
    pub(crate) fn from_torch_dtype(dtype: &str) -> Option<Self> {
        NAMES.iter().find(|names| names.3 == dtype).map(|names| names.0)
    }

    /// Returns the element type with NumPy's name `kind`, without its byte order.
    pub(crate) fn from_numpy(kind: &str) -> Option<Self> {
        Some(match kind {
            "f8" => Self::F64,
            "f4" => Self::F32,
            "f2" => Self::F16,
            "i8" => Self::I64,
            "i4" => Self::I32,
            "i2" => Self::I16,
            "i1" => Self::I8,
            "u1" => Self::U8,
            "b1" => Self::Bool,
            _ => return None,
        })
    }

    pub(crate) fn torch_dtype(self) -> &'static str {
        self.names().3
    }

    fn names(self) -> (Self, &'static str, &'static str, &'static str) {
        // The table has one row per variant, in order of declaration.
        NAMES[self as usize]
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_names_is_in_order_of_declaration() {
        for (index, (element, name, ..)) in NAMES.into_iter().enumerate() {
            assert_eq!(element as usize, index);
            assert_eq!(ElementType::from_name(name), Some(element));
            assert_eq!(element.name(), name);
            assert_eq!(ElementType::from_torch_storage(element.torch_storage()), Some(element));
        }
    }
}
