//! Contents of an ONNX file: nodes with their attributes, initializers, inputs and outputs.

use crate::TensorView;

/// A graph.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OnnxGraph {
    /// The name.
    pub name: String,
    /// The nodes, in order of execution.
    pub nodes: Vec<OnnxNode>,
    /// The weights by name, in order of the file.
    pub initializers: Vec<(String, TensorView)>,
    /// The inputs; old files list the initializers too.
    pub inputs: Vec<OnnxValue>,
    /// The outputs.
    pub outputs: Vec<OnnxValue>,
}

impl OnnxGraph {
    /// The initializer of this name.
    pub fn initializer(&self, name: &str) -> Option<&TensorView> {
        self.initializers.iter().find(|(own, _)| own == name).map(|(_, tensor)| tensor)
    }
}

/// One operation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OnnxNode {
    /// The name.
    pub name: String,
    /// Type of the operation: `Conv`, `MatMul` …
    pub op_type: String,
    /// Domain that defines the operation; empty for the standard's own.
    pub domain: String,
    /// Names of its inputs; an omitted input is empty.
    pub inputs: Vec<String>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// The attributes by name, in order of the file.
    pub attributes: Vec<(String, OnnxAttribute)>,
}

impl OnnxNode {
    /// Returns the attribute with a name.
    pub fn attribute(&self, name: &str) -> Option<&OnnxAttribute> {
        self.attributes.iter().find(|(own, _)| own == name).map(|(_, attribute)| attribute)
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attribute(name) {
            Some(OnnxAttribute::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// An attribute of integers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attribute(name) {
            Some(OnnxAttribute::Ints(values)) => Some(values),
            _ => None,
        }
    }

    /// A number.
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attribute(name) {
            Some(OnnxAttribute::Float(value)) => Some(*value),
            _ => None,
        }
    }
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum OnnxAttribute {
    /// A number.
    Float(f32),
    /// An integer.
    Int(i64),
    /// Text, or bytes.
    Bytes(Vec<u8>),
    /// A tensor, as in `Constant` nodes.
    Tensor(TensorView),
    /// A graph, as in `If` and `Loop` nodes.
    Graph(Box<OnnxGraph>),
    /// Numbers.
    Floats(Vec<f32>),
    /// Integers.
    Ints(Vec<i64>),
    /// Texts.
    Texts(Vec<Vec<u8>>),
    /// A kind that is not read: its number in the standard.
    Other(i64),
}

/// An input or output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnnxValue {
    /// The name.
    pub name: String,
    /// The dimensions; `None` for one that is free.
    pub shape: Vec<Option<i64>>,
}
