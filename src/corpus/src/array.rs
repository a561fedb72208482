//! A column's value in one row: numbers, strings or byte strings of any shape.

use std::fmt;

use half::f16;
use serde::{Deserialize, Serialize};

/// The type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum DType {
    F16,
    F32,
    F64,
    I32,
    I64,
    U8,
    /// UTF-8 strings.
    Text,
    /// Byte strings, such as encoded recordings and pictures.
    Bytes,
}

impl DType {
    /// The name, as recipes and messages write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::Text => "text",
            Self::Bytes => "bytes",
        }
    }

    /// Returns whether every value of this type can be converted to the other type exactly.
    pub fn widens_to(self, other: Self) -> bool {
        use DType::{F16, F32, F64, I32, I64, U8};
        self == other
            || matches!(
                (self, other),
                (F16, F32 | F64) | (F32, F64) | (I32, I64 | F64) | (U8, F16 | F32 | F64 | I32 | I64)
            )
    }
}

impl DType {
    /// Returns the type with a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Every type.
    pub const ALL: [Self; 8] =
        [Self::F16, Self::F32, Self::F64, Self::I32, Self::I64, Self::U8, Self::Text, Self::Bytes];
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error about an array.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArrayError {
    /// The shape and the number of values contradict each other.
    #[error("{values} values do not fill the shape {}", shape_text(.shape))]
    Shape {
        /// The shape.
        shape: Vec<usize>,
        /// The number of values.
        values: usize,
    },
    /// The elements have a type that cannot be converted to the wanted one exactly.
    #[error("has type {found}, not {wanted}")]
    Type {
        /// The type of the elements.
        found: DType,
        /// The requested type.
        wanted: DType,
    },
    /// The array is not a single value.
    #[error("has the shape {}, not a single value", shape_text(.shape))]
    NotScalar {
        /// The shape.
        shape: Vec<usize>,
    },
}

/// Formats a shape: `[8, 150]`; for a single value `[]`.
pub fn shape_text(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("[{}]", sizes.join(", "))
}

/// The elements of an array, in row-major order.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum ArrayData {
    F16(Vec<f16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    Text(Vec<String>),
    Bytes(Vec<Vec<u8>>),
}

/// Runs one expression for every kind of [`ArrayData`].
macro_rules! for_each_type {
    ($data:expr, $values:ident => $result:expr) => {
        match $data {
            ArrayData::F16($values) => $result,
            ArrayData::F32($values) => $result,
            ArrayData::F64($values) => $result,
            ArrayData::I32($values) => $result,
            ArrayData::I64($values) => $result,
            ArrayData::U8($values) => $result,
            ArrayData::Text($values) => $result,
            ArrayData::Bytes($values) => $result,
        }
    };
}

/// A Rust type that arrays hold.
pub trait Element: Clone + Sized + sealed::Sealed {
    /// The type's name in columns.
    const DTYPE: DType;
    /// Elements as an array's data.
    fn wrap(values: Vec<Self>) -> ArrayData;
    /// The elements of an array of exactly this type.
    fn slice(data: &ArrayData) -> Option<&[Self]>;
}

mod sealed {
    /// Prevents other crates from implementing [`super::Element`].
    pub trait Sealed {}
}

macro_rules! elements {
    ($($type:ty => $variant:ident),*) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$variant;
            fn wrap(values: Vec<Self>) -> ArrayData {
                ArrayData::$variant(values)
            }
            fn slice(data: &ArrayData) -> Option<&[Self]> {
                if let ArrayData::$variant(values) = data { Some(values) } else { None }
            }
        }
    )*};
}
elements!(
    f16 => F16, f32 => F32, f64 => F64, i32 => I32, i64 => I64, u8 => U8, String => Text, Vec<u8> => Bytes
);

/// Values of one type in a shape: a single value (no axes), a vector, a matrix, or more.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    data: ArrayData,
}

impl Array {
    /// Creates an array with a shape.
    ///
    /// # Errors
    /// [`ArrayError::Shape`] if the number of values does not match the shape.
    pub fn new<T: Element>(shape: Vec<usize>, values: Vec<T>) -> Result<Self, ArrayError> {
        Self::from_data(shape, T::wrap(values))
    }

    /// Creates an array like [`Array::new`], from data whose type is known only at run time.
    ///
    /// # Errors
    /// [`ArrayError::Shape`].
    pub fn from_data(shape: Vec<usize>, data: ArrayData) -> Result<Self, ArrayError> {
        let values = for_each_type!(&data, values => values.len());
        match shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size)) {
            Some(product) if product == values => Ok(Self { shape, data }),
            _ => Err(ArrayError::Shape { shape, values }),
        }
    }

    /// A single value, without axes.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self { shape: Vec::new(), data: T::wrap(vec![value]) }
    }

    /// A single string.
    pub fn text(value: impl Into<String>) -> Self {
        Self::scalar(value.into())
    }

    /// Values along one axis.
    pub fn vector<T: Element>(values: Vec<T>) -> Self {
        Self { shape: vec![values.len()], data: T::wrap(values) }
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        match &self.data {
            ArrayData::F16(_) => DType::F16,
            ArrayData::F32(_) => DType::F32,
            ArrayData::F64(_) => DType::F64,
            ArrayData::I32(_) => DType::I32,
            ArrayData::I64(_) => DType::I64,
            ArrayData::U8(_) => DType::U8,
            ArrayData::Text(_) => DType::Text,
            ArrayData::Bytes(_) => DType::Bytes,
        }
    }

    /// The size of every axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        for_each_type!(&self.data, values => values.len())
    }

    /// Returns whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements.
    pub fn data(&self) -> &ArrayData {
        &self.data
    }

    /// Returns the approximate memory that the array takes, in bytes.
    pub fn size(&self) -> usize {
        let elements = match &self.data {
            ArrayData::F16(values) => values.len() * 2,
            ArrayData::F32(values) => values.len() * 4,
            ArrayData::F64(values) => values.len() * 8,
            ArrayData::I32(values) => values.len() * 4,
            ArrayData::I64(values) => values.len() * 8,
            ArrayData::U8(values) => values.len(),
            ArrayData::Text(values) => values.iter().map(|value| value.len() + size_of::<String>()).sum(),
            ArrayData::Bytes(values) => values.iter().map(|value| value.len() + size_of::<Vec<u8>>()).sum(),
        };
        size_of::<Self>() + self.shape.len() * size_of::<usize>() + elements
    }

    /// Returns the elements, which must have exactly this type, without copying.
    ///
    /// # Errors
    /// [`ArrayError::Type`].
    pub fn values<T: Element>(&self) -> Result<&[T], ArrayError> {
        T::slice(&self.data).ok_or(ArrayError::Type { found: self.dtype(), wanted: T::DTYPE })
    }

    /// Returns the single value, which must have exactly this type.
    ///
    /// # Errors
    /// [`ArrayError::Type`] and [`ArrayError::NotScalar`].
    pub fn value<T: Element>(&self) -> Result<&T, ArrayError> {
        match self.values::<T>()? {
            [value] if self.shape.is_empty() => Ok(value),
            _ => Err(ArrayError::NotScalar { shape: self.shape.clone() }),
        }
    }

    /// Converts the values to a type that represents every value of this one exactly (`f16` to `f32`, `i32` to `i64`
    /// …).
    ///
    /// # Errors
    /// [`ArrayError::Type`].
    pub fn widened(self, wanted: DType) -> Result<Self, ArrayError> {
        let found = self.dtype();
        if found == wanted {
            return Ok(self);
        }
        let fail = ArrayError::Type { found, wanted };
        let data = match (self.data, wanted) {
            (ArrayData::F16(values), DType::F32) => ArrayData::F32(convert(values)),
            (ArrayData::F16(values), DType::F64) => ArrayData::F64(convert(values)),
            (ArrayData::F32(values), DType::F64) => ArrayData::F64(convert(values)),
            (ArrayData::I32(values), DType::I64) => ArrayData::I64(convert(values)),
            (ArrayData::I32(values), DType::F64) => ArrayData::F64(convert(values)),
            (ArrayData::U8(values), DType::F16) => ArrayData::F16(convert(values)),
            (ArrayData::U8(values), DType::F32) => ArrayData::F32(convert(values)),
            (ArrayData::U8(values), DType::F64) => ArrayData::F64(convert(values)),
            (ArrayData::U8(values), DType::I32) => ArrayData::I32(convert(values)),
            (ArrayData::U8(values), DType::I64) => ArrayData::I64(convert(values)),
            _ => return Err(fail),
        };
        Ok(Self { shape: self.shape, data })
    }

    /// Rounds doubles to single precision. Returns `None` if the type is another or a value is outside the range of single precision.
    pub fn to_single(self) -> Option<Self> {
        let ArrayData::F64(values) = self.data else { return None };
        let fits = values.iter().all(|value| !value.is_finite() || (*value as f32).is_finite());
        let values = values.into_iter().map(|value| value as f32).collect();
        fits.then_some(Self { shape: self.shape, data: ArrayData::F32(values) })
    }

    /// Rounds the numbers to half precision. Returns `None` if the type is not single precision or a value is outside
    /// the range of half precision.
    pub fn to_half(self) -> Option<Self> {
        let ArrayData::F32(values) = self.data else { return None };
        let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
        let fits = values.iter().all(|value| value.is_finite());
        fits.then_some(Self { shape: self.shape, data: ArrayData::F16(values) })
    }
}

/// Converts values to a type that represents all of them exactly.
fn convert<A, B: From<A>>(values: Vec<A>) -> Vec<B> {
    values.into_iter().map(B::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_holds_exactly_its_values() {
        let array = Array::new(vec![2, 3], vec![1i64, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!((array.dtype(), array.shape(), array.len()), (DType::I64, &[2, 3][..], 6));
        assert!(matches!(Array::new(vec![2, 3], vec![1i64]), Err(ArrayError::Shape { values: 1, .. })));
        assert!(matches!(Array::new(vec![usize::MAX, 2], vec![1u8, 2]), Err(ArrayError::Shape { .. })));
        assert!(Array::new(vec![0, 512], Vec::<f32>::new()).unwrap().is_empty());
        assert_eq!(Array::scalar(3.0f64).value::<f64>(), Ok(&3.0));
        assert_eq!(Array::vector(vec![3.0f64]).value::<f64>(), Err(ArrayError::NotScalar { shape: vec![1] }));
    }

    #[test]
    fn types_widen_without_loss_or_not_at_all() {
        let types = [
            Array::vector(vec![f16::from_f32(0.5)]),
            Array::vector(vec![0.5f32]),
            Array::vector(vec![0.5f64]),
            Array::vector(vec![7i32]),
            Array::vector(vec![7i64]),
            Array::vector(vec![7u8]),
            Array::vector(vec!["7".to_owned()]),
            Array::vector(vec![vec![7u8]]),
        ];
        for array in &types {
            for wanted in types.iter().map(Array::dtype) {
                let widened = array.clone().widened(wanted);
                assert_eq!(widened.is_ok(), array.dtype().widens_to(wanted), "{} to {wanted}", array.dtype());
                assert!(widened.is_err() || widened.is_ok_and(|array| array.dtype() == wanted));
            }
        }
        assert_eq!(types[0].clone().widened(DType::F64).unwrap().values::<f64>(), Ok(&[0.5][..]));
        assert_eq!(types[1].clone().to_half().unwrap(), types[0]);
        assert!(Array::vector(vec![0.0, 1e6f32]).to_half().is_none());
        assert_eq!(types[5].clone().widened(DType::I64).unwrap().values::<i64>(), Ok(&[7][..]));
    }
}
