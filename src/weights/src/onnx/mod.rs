//! ONNX files: the graph and its initializers, read with a small reader of the protocol buffer wire format, and written (`write`). Field
//! numbers are from the ONNX standard.

mod graph;
mod tensor;
mod wire;
mod write;

pub use graph::{OnnxAttribute, OnnxGraph, OnnxNode, OnnxValue};
pub use write::{OnnxAxis, OnnxBuilder, OnnxSetting};

use super::archive::Contents;
use super::source::Source;
use super::{Parsed, RawTensor, Result, TensorView, file_error};
use crate::WeightError;
use crate::fault::Fault;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tensor::tensor;
use wire::{Wire, bytes, fields, hold_item, integers, message_end, text, words};

/// Deepest allowed nesting of graphs.
const DEEPEST: usize = 16;

/// An open ONNX file. Tensors are read on demand.
pub struct OnnxFile {
    /// The graph.
    pub graph: OnnxGraph,
    /// The operator sets it needs: domain (empty for the standard's own) and version.
    pub operator_sets: BTreeMap<String, i64>,
    /// The program that wrote it.
    pub producer: String,
    /// The file itself, then the files with external tensors.
    sources: Vec<Source<'static>>,
}

impl OnnxFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or a file with external tensors is not in its folder.
    pub fn open(path: &Path) -> Result<Self> {
        let opened = Source::open(path).and_then(|mut source| Ok((model(&mut source)?, source.with_named_files()?)));
        let (model, sources) = opened.map_err(|fault| file_error(path, fault))?;
        Ok(Self { graph: model.graph, operator_sets: model.operator_sets, producer: model.producer, sources })
    }

    /// Reads a tensor of its graph: an initializer, or an attribute of a node.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(&mut self, tensor: &TensorView) -> Result<RawTensor> {
        tensor.read(&mut self.sources).map_err(|fault| self.error(fault))
    }

    /// Reads the initializer of this name.
    ///
    /// # Errors
    /// When there is none, or the file cannot be read.
    pub fn initializer(&mut self, name: &str) -> Result<RawTensor> {
        let found = self.graph.initializer(name).cloned();
        let found = found.ok_or_else(|| self.error(format!("it has no initializer `{name}`")))?;
        self.load(&found)
    }

    fn error(&self, fault: impl Into<Fault>) -> WeightError {
        // The first of its sources is the file itself.
        file_error(self.sources.first().map_or(Path::new(""), Source::path), fault)
    }
}

/// Returns whether a file begins like an ONNX model: its version, then a field of models.
pub(super) fn begins(head: &[u8]) -> bool {
    matches!(head, [0x08, 1..=64, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42 | 0x72, ..])
}

/// Reads the initializers as the tensors of a weight file.
pub(super) fn read(source: &mut Source<'_>) -> Parsed<Contents> {
    let tensors = model(source)?.graph.initializers;
    Ok(Contents { tensors, ..Contents::default() })
}

/// Returns the files with external tensors.
pub(super) fn external_files(mut source: Source<'static>) -> Parsed<Vec<PathBuf>> {
    model(&mut source)?;
    Ok(source.named_files())
}

#[derive(Debug, Default)]
struct Model {
    graph: OnnxGraph,
    operator_sets: BTreeMap<String, i64>,
    producer: String,
}

fn model(source: &mut Source<'_>) -> Parsed<Model> {
    let mut model = Model::default();
    let mut found = false;
    let end = source.length();
    let read = fields(source, end, |source, field, wire| {
        match field {
            2 => model.producer = text(source, wire)?,
            7 => {
                let end = message_end(source, wire)?;
                model.graph = graph(source, end, 0)?;
                found = true;
            }
            8 => {
                let (domain, version) = operator_set(source, wire)?;
                model.operator_sets.insert(domain, version);
            }
            _ => {}
        }
        Ok(())
    });
    read.map_err(|fault| fault.within(format_args!("not a whole ONNX file")))?;
    if found { Ok(model) } else { Err("not a whole ONNX file: it has no graph".into()) }
}

fn operator_set(source: &mut Source<'_>, wire: Wire) -> Parsed<(String, i64)> {
    let (mut domain, mut version) = (String::new(), 0);
    let end = message_end(source, wire)?;
    fields(source, end, |source, field, wire| {
        match (field, wire) {
            (1, _) => domain = text(source, wire)?,
            (2, Wire::Number(number)) => version = number as i64,
            _ => {}
        }
        Ok(())
    })?;
    Ok((domain, version))
}

fn graph(source: &mut Source<'_>, end: u64, depth: usize) -> Parsed<OnnxGraph> {
    if depth > DEEPEST {
        return Err(Fault::too_large(format!("graphs nested more than {DEEPEST} deep")));
    }
    let mut graph = OnnxGraph::default();
    fields(source, end, |source, field, wire| {
        match field {
            1 => {
                let end = message_end(source, wire)?;
                hold_item::<OnnxNode>(source)?;
                graph.nodes.push(node(source, end, depth)?);
            }
            2 => graph.name = text(source, wire)?,
            5 => {
                let end = message_end(source, wire)?;
                hold_item::<(String, TensorView)>(source)?;
                graph.initializers.push(tensor(source, end)?);
            }
            11 => graph.inputs.push(value(source, wire)?),
            12 => graph.outputs.push(value(source, wire)?),
            15 => return Err(Fault::unsupported("it has sparse initializers, which are not supported")),
            _ => {}
        }
        Ok(())
    })?;
    Ok(graph)
}

fn node(source: &mut Source<'_>, end: u64, depth: usize) -> Parsed<OnnxNode> {
    let mut node = OnnxNode::default();
    fields(source, end, |source, field, wire| {
        match field {
            1 => node.inputs.push(text(source, wire)?),
            2 => node.outputs.push(text(source, wire)?),
            3 => node.name = text(source, wire)?,
            4 => node.op_type = text(source, wire)?,
            5 => {
                let end = message_end(source, wire)?;
                hold_item::<(String, OnnxAttribute)>(source)?;
                node.attributes.push(attribute(source, end, depth)?);
            }
            7 => node.domain = text(source, wire)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(node)
}

fn attribute(source: &mut Source<'_>, end: u64, depth: usize) -> Parsed<(String, OnnxAttribute)> {
    let mut name = String::new();
    let mut kind = 0;
    let mut single = None;
    let (mut floats, mut ints, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    fields(source, end, |source, field, wire| {
        match (field, wire) {
            (1, _) => name = text(source, wire)?,
            (2, Wire::Word(word)) => single = Some(OnnxAttribute::Float(f32::from_le_bytes(word))),
            (3, Wire::Number(number)) => single = Some(OnnxAttribute::Int(number as i64)),
            (4, _) => single = Some(OnnxAttribute::Bytes(bytes(source, wire)?)),
            (5, _) => {
                let end = message_end(source, wire)?;
                single = Some(OnnxAttribute::Tensor(tensor(source, end)?.1));
            }
            (6, _) => {
                let end = message_end(source, wire)?;
                single = Some(OnnxAttribute::Graph(Box::new(graph(source, end, depth + 1)?)));
            }
            (7, _) => words(source, wire, &mut floats)?,
            (8, _) => integers(source, wire, &mut ints)?,
            (9, _) => texts.push(bytes(source, wire)?),
            (20, Wire::Number(number)) => kind = number as i64,
            _ => {}
        }
        Ok(())
    })?;
    let floats =
        || floats.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
    // A scalar 0 may be left out; the attribute's type tells then.
    let value = match (kind, single) {
        (6, _) => OnnxAttribute::Floats(floats()),
        (7, _) => OnnxAttribute::Ints(ints),
        (8, _) => OnnxAttribute::Texts(texts),
        (_, Some(single)) => single,
        (1, None) => OnnxAttribute::Float(0.0),
        (2, None) => OnnxAttribute::Int(0),
        (3, None) => OnnxAttribute::Bytes(Vec::new()),
        (kind, None) => OnnxAttribute::Other(kind),
    };
    Ok((name, value))
}

fn value(source: &mut Source<'_>, wire: Wire) -> Parsed<OnnxValue> {
    hold_item::<OnnxValue>(source)?;
    let mut value = OnnxValue::default();
    let end = message_end(source, wire)?;
    fields(source, end, |source, field, wire| {
        match field {
            1 => value.name = text(source, wire)?,
            // type . tensor_type . shape
            2 => inside(source, wire, 1, &mut |source, wire| {
                inside(source, wire, 2, &mut |source, wire| {
                    inside(source, wire, 1, &mut |source, wire| {
                        hold_item::<Option<i64>>(source)?;
                        value.shape.push(dimension(source, wire)?);
                        Ok(())
                    })
                })
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(value)
}

/// Visits one field of a message.
fn inside<'a>(
    source: &mut Source<'a>,
    wire: Wire,
    wanted: u64,
    visit: &mut dyn FnMut(&mut Source<'a>, Wire) -> Parsed<()>,
) -> Parsed<()> {
    let end = message_end(source, wire)?;
    fields(source, end, |source, field, wire| if field == wanted { visit(source, wire) } else { Ok(()) })
}

fn dimension(source: &mut Source<'_>, wire: Wire) -> Parsed<Option<i64>> {
    let mut size = None;
    let end = message_end(source, wire)?;
    fields(source, end, |_, field, wire| {
        if let (1, Wire::Number(number)) = (field, wire) {
            size = Some(number as i64);
        }
        Ok(())
    })?;
    Ok(size)
}
