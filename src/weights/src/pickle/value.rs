//! Values of a pickle.

use crate::TensorView;
use std::sync::Arc;

/// A value of a pickle. Lists of only integers, or only floats, are stored compactly.
#[derive(Debug, Clone, PartialEq)]
pub enum PickleValue {
    /// Nothing.
    None,
    /// A boolean.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// An integer that takes more than 64 bits.
    Long(Box<i128>),
    /// A number.
    Float(f64),
    /// Text.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A list of floats.
    Floats(Vec<f64>),
    /// Any other list.
    List(Vec<PickleValue>),
    /// A tuple or a shape.
    Tuple(Vec<PickleValue>),
    /// A set.
    Set(Vec<PickleValue>),
    /// A dictionary, in order; a key that was set twice occurs twice.
    Dict(Vec<(PickleValue, PickleValue)>),
    /// A tensor or a NumPy array that has not been read yet.
    Tensor(Box<TensorView>),
    /// A tensor that cannot be read: a description of what it has instead of plain elements.
    Unreadable(Arc<str>),
    /// A NumPy array of Python objects, in row order.
    Objects(Vec<PickleValue>),
    /// The name of an object, a class or a function. Nothing of it is read or executed.
    Object(Arc<str>),
}

impl PickleValue {
    /// Returns the text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the integer, if it is one of 64 bits.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns the items of a dictionary.
    pub fn as_dict(&self) -> Option<&[(PickleValue, PickleValue)]> {
        match self {
            Self::Dict(items) => Some(items),
            _ => None,
        }
    }

    /// Returns a dictionary's value for a text, the last one if it was set twice.
    pub fn get(&self, key: &str) -> Option<&PickleValue> {
        self.as_dict()?.iter().rev().find(|(name, _)| name.as_text() == Some(key)).map(|(_, value)| value)
    }

    /// Returns the items of a list or tuple of integers.
    pub fn to_ints(&self) -> Option<Vec<i64>> {
        match self {
            Self::Ints(items) => Some(items.clone()),
            Self::List(items) | Self::Tuple(items) => items.iter().map(Self::as_int).collect(),
            _ => None,
        }
    }

    /// Returns the items of a list or tuple of numbers.
    pub fn to_floats(&self) -> Option<Vec<f64>> {
        let number = |value: &Self| match value {
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        };
        match self {
            Self::Floats(items) => Some(items.clone()),
            Self::Ints(items) => Some(items.iter().map(|item| *item as f64).collect()),
            Self::List(items) | Self::Tuple(items) => items.iter().map(number).collect(),
            _ => None,
        }
    }

    /// Returns a short description: `dict of 3`, `list of 192 floats`.
    pub fn summary(&self) -> String {
        match self {
            Self::None => "None".to_owned(),
            Self::Bool(_) => "boolean".to_owned(),
            Self::Int(_) | Self::Long(_) => "whole number".to_owned(),
            Self::Float(_) => "float".to_owned(),
            Self::Text(text) => format!("text of {} bytes", text.len()),
            Self::Bytes(bytes) => format!("string of {} bytes", bytes.len()),
            Self::Ints(items) => format!("list of {} integers", items.len()),
            Self::Floats(items) => format!("list of {} floats", items.len()),
            Self::List(items) => format!("list of {}", items.len()),
            Self::Tuple(items) => format!("tuple of {}", items.len()),
            Self::Set(items) => format!("set of {}", items.len()),
            Self::Dict(items) => format!("dict of {}", items.len()),
            Self::Tensor(tensor) => format!("tensor {} {:?}", tensor.element(), tensor.shape()),
            Self::Unreadable(problem) => format!("tensor of {problem}"),
            Self::Objects(items) => format!("numpy array of Python objects, [{}]", items.len()),
            Self::Object(name) => name.to_string(),
        }
    }
}
