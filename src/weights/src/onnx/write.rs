//! Writing ONNX files. A graph is composed node by node. Its weights stay in their file until they are copied, one at a time, so
//! that writing takes the memory of the largest of them. The same graph and weights give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::tensor::type_number;
use crate::protobuf::Message;
use crate::{Archive, ElementType, RawTensor, Result, WeightError, file_error};

/// The version of the file format that belongs to [`OPERATOR_SET`].
const FORMAT_VERSION: u64 = 8;
/// The version of the standard's operators.
const OPERATOR_SET: u64 = 18;
/// The number of bytes that a protocol buffer may have.
const LARGEST: u64 = i32::MAX as u64;

/// The size of an axis of an input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnnxAxis {
    /// A fixed size.
    Fixed(usize),
    /// Any size, the same for all axes with this name.
    Free(&'static str),
}

/// The value of an attribute of a node that is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OnnxSetting<'s> {
    /// An integer.
    Int(i64),
    /// Integers.
    Ints(&'s [i64]),
    /// A number.
    Float(f32),
}

/// The elements of an initializer.
#[derive(Debug)]
enum Elements {
    /// A tensor of the archive, by its position there.
    Stored(usize),
    /// Elements of a constant, row-major and little-endian.
    Constant(Vec<u8>),
}

/// An initializer: its message up to the elements, and the elements.
#[derive(Debug)]
struct Initializer {
    /// All fields, and the announcement of the last one, the elements.
    head: Message,
    bytes: u64,
    elements: Elements,
}

impl Initializer {
    fn length(&self) -> u64 {
        self.head.0.len() as u64 + self.bytes
    }
}

/// A graph under construction whose weights are those of an archive that begin with a prefix. Values (inputs, weights, constants
/// and outputs of nodes) are referred to by their names.
pub struct OnnxBuilder<'a> {
    archive: &'a mut Archive<'static>,
    prefix: &'a str,
    name: &'a str,
    nodes: Message,
    node_count: usize,
    initializers: Vec<Initializer>,
    weights: BTreeSet<String>,
    /// The names of constants by their type, shape and elements.
    constants: BTreeMap<(ElementType, Vec<usize>, Vec<u8>), String>,
    inputs: Message,
    outputs: Message,
}

impl<'a> OnnxBuilder<'a> {
    /// Begins the graph `name` on the weights of `archive` whose names begin with `prefix`.
    pub fn new(name: &'a str, archive: &'a mut Archive<'static>, prefix: &'a str) -> Self {
        Self {
            archive,
            prefix,
            name,
            nodes: Message::default(),
            node_count: 0,
            initializers: Vec::new(),
            weights: BTreeSet::new(),
            constants: BTreeMap::new(),
            inputs: Message::default(),
            outputs: Message::default(),
        }
    }

    /// Adds an input of single-precision numbers. Inputs keep their order.
    pub fn input(&mut self, name: &str, shape: &[OnnxAxis]) -> String {
        self.inputs = std::mem::take(&mut self.inputs).message(11, &value(name, shape));
        name.to_owned()
    }

    /// Gives the value `from` the name of an output of single-precision numbers.
    pub fn output(&mut self, from: &str, name: &str, shape: &[OnnxAxis]) {
        self.append("Identity", &[from], &[], &[name.to_owned()]);
        self.outputs = std::mem::take(&mut self.outputs).message(12, &value(name, shape));
    }

    /// Adds a node with one output, and returns the output's name.
    pub fn node(&mut self, operation: &str, inputs: &[&str], attributes: &[(&str, OnnxSetting<'_>)]) -> String {
        let output = format!("{operation}_{}", self.node_count);
        self.append(operation, inputs, attributes, std::slice::from_ref(&output));
        output
    }

    /// Adds a node that divides a value along an axis into parts of these sizes, and returns the names of the parts.
    pub fn split(&mut self, input: &str, sizes: &[i64], axis: i64) -> Vec<String> {
        let parts: Vec<String> = (0..sizes.len()).map(|part| format!("Split_{}_{part}", self.node_count)).collect();
        let sizes = self.integers(sizes);
        self.append("Split", &[input, &sizes], &[("axis", OnnxSetting::Int(axis))], &parts);
        parts
    }

    fn append(&mut self, operation: &str, inputs: &[&str], attributes: &[(&str, OnnxSetting<'_>)], outputs: &[String]) {
        let mut node = Message::default();
        // Positions count, so a name that is left out is written as an empty one.
        for input in inputs {
            node = node.bytes(1, input.as_bytes());
        }
        for output in outputs {
            node = node.bytes(2, output.as_bytes());
        }
        node = node.text(3, &format!("{operation}_{}", self.node_count)).text(4, operation);
        for (name, setting) in attributes {
            node = node.message(5, &attribute(name, *setting));
        }
        self.nodes = std::mem::take(&mut self.nodes).message(1, &node);
        self.node_count += 1;
    }

    /// Returns the initializer with a weight, which has the weight's name without the prefix. Floats are written in single
    /// precision.
    ///
    /// # Errors
    /// If the archive has no such weight.
    pub fn weight(&mut self, name: &str) -> Result<String> {
        if self.weights.contains(name) {
            return Ok(name.to_owned());
        }
        let full = format!("{}{name}", self.prefix);
        let found = self.archive.tensors.iter().position(|(own, _)| *own == full);
        let index =
            found.ok_or_else(|| self.error(format!("it has no tensor `{full}`, which the ONNX graph needs")))?;
        let view = &self.archive.tensors[index].1;
        let (element, shape) = (written_as(view.element()), view.shape().to_vec());
        let bytes = shape.iter().fold(element.size() as u64, |bytes, size| bytes.saturating_mul(*size as u64));
        self.initialize(name, element, &shape, bytes, Elements::Stored(index));
        self.weights.insert(name.to_owned());
        Ok(name.to_owned())
    }

    /// Returns the initializer with constant numbers.
    pub fn floats(&mut self, elements: &[f32], shape: &[usize]) -> String {
        let bytes = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
        self.constant(ElementType::F32, shape, bytes)
    }

    /// Returns the initializer with a list of integers.
    pub fn integers(&mut self, elements: &[i64]) -> String {
        let bytes = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
        self.constant(ElementType::I64, &[elements.len()], bytes)
    }

    /// Returns the initializer with one integer.
    pub fn integer(&mut self, element: i64) -> String {
        self.constant(ElementType::I64, &[], element.to_le_bytes().to_vec())
    }

    /// Equal constants share an initializer.
    fn constant(&mut self, element: ElementType, shape: &[usize], bytes: Vec<u8>) -> String {
        let key = (element, shape.to_vec(), bytes);
        if let Some(name) = self.constants.get(&key) {
            return name.clone();
        }
        let name = format!("constant_{}", self.constants.len());
        self.initialize(&name, element, shape, key.2.len() as u64, Elements::Constant(key.2.clone()));
        self.constants.insert(key, name.clone());
        name
    }

    fn initialize(&mut self, name: &str, element: ElementType, shape: &[usize], bytes: u64, elements: Elements) {
        let mut head = Message::default();
        for size in shape {
            head = head.integer(1, *size as i64);
        }
        let head = head.varint(2, type_number(element)).text(8, name).announce(9, bytes);
        self.initializers.push(Initializer { head, bytes, elements });
    }

    /// Writes the graph with its weights to `path`.
    ///
    /// # Errors
    /// If a weight with the prefix is not part of the graph, the file would be larger than the format allows, the archive cannot
    /// be read, or the file cannot be written.
    pub fn write(self, path: &Path) -> Result<()> {
        let mut owned = self.archive.tensors.iter().filter_map(|(name, _)| name.strip_prefix(self.prefix));
        if let Some(left) = owned.find(|name| !self.weights.contains(*name)) {
            let message = format!("tensor `{}{left}` has no place in the ONNX graph `{}`", self.prefix, self.name);
            return Err(self.error(message));
        }
        let heads: Vec<Message> =
            self.initializers.iter().map(|own| Message::default().announce(5, own.length())).collect();
        let name = Message::default().text(2, self.name);
        let parts = [&self.nodes, &name, &self.inputs, &self.outputs];
        let around: usize = parts.iter().map(|part| part.0.len()).sum();
        let initialized: u64 =
            self.initializers.iter().zip(&heads).map(|(own, head)| head.0.len() as u64 + own.length()).sum();
        let length = around as u64 + initialized;
        if length > LARGEST {
            let message = format!("an ONNX file of {length} bytes: the format allows {LARGEST}");
            return Err(file_error(path, message));
        }
        let operators = Message::default().text(1, "").varint(2, OPERATOR_SET);
        let model = Message::default().varint(1, FORMAT_VERSION).text(2, "flowmill");
        let model = model.message(8, &operators).announce(7, length);
        let failed = |error: std::io::Error| file_error(path, error);
        let mut sink = BufWriter::new(File::create(path).map_err(failed)?);
        for part in [&model, &self.nodes, &name] {
            sink.write_all(&part.0).map_err(failed)?;
        }
        for (initializer, head) in self.initializers.iter().zip(&heads) {
            sink.write_all(&head.0).map_err(failed)?;
            sink.write_all(&initializer.head.0).map_err(failed)?;
            match &initializer.elements {
                Elements::Constant(bytes) => sink.write_all(bytes).map_err(failed)?,
                Elements::Stored(index) => sink.write_all(load(self.archive, *index)?.data()).map_err(failed)?,
            }
        }
        for part in [&self.inputs, &self.outputs] {
            sink.write_all(&part.0).map_err(failed)?;
        }
        sink.flush().map_err(failed)
    }

    fn error(&self, message: String) -> WeightError {
        self.archive.error(message)
    }
}

/// Loads a tensor of the archive in the type that is written.
fn load(archive: &mut Archive<'static>, index: usize) -> Result<RawTensor> {
    let raw = archive.load(index)?;
    match raw.element() == written_as(raw.element()) {
        true => Ok(raw),
        // Floats of another width; integers are written as they are.
        false => match raw.to_floats() {
            Some(floats) => RawTensor::of_floats(&floats?),
            None => Ok(raw),
        },
    }
}

/// Returns the type in which elements are written.
fn written_as(element: ElementType) -> ElementType {
    match element {
        ElementType::F64 | ElementType::F16 | ElementType::BF16 => ElementType::F32,
        other => other,
    }
}

/// Describes an input or output of single-precision numbers.
fn value(name: &str, shape: &[OnnxAxis]) -> Message {
    let mut axes = Message::default();
    for axis in shape {
        let axis = match axis {
            OnnxAxis::Fixed(size) => Message::default().integer(1, *size as i64),
            OnnxAxis::Free(name) => Message::default().text(2, name),
        };
        axes = axes.message(1, &axis);
    }
    let tensor = Message::default().varint(1, type_number(ElementType::F32)).message(2, &axes);
    Message::default().text(1, name).message(2, &Message::default().message(1, &tensor))
}

fn attribute(name: &str, setting: OnnxSetting<'_>) -> Message {
    let named = Message::default().text(1, name);
    match setting {
        OnnxSetting::Float(number) => named.float(2, number).varint(20, 1),
        OnnxSetting::Int(number) => named.integer(3, number).varint(20, 2),
        OnnxSetting::Ints(numbers) => {
            numbers.iter().fold(named, |named, number| named.integer(8, *number)).varint(20, 7)
        }
    }
}
