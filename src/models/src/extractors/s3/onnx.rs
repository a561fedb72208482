//! The weights of a published `.onnx` export, by their places in its graph.
//!
//! Exporters name initialisers as they like (`onnx::MatMul_1554`), but the order of operations is that of the network: two
//! convolutions, then block after block a normalisation, query, key, value and output projections, a normalisation and two
//! projections, then the quantiser. Matrices are stored as `[input, output]`; normalisations are one operation or spelled out as a
//! product and a sum.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use candle_core::Tensor;
use flowmill_nn::{
    host,
    weights::{OnnxFile, OnnxGraph, OnnxNode},
};

use super::Version;
use crate::extractors::UnusableWeights;

/// Projections of a block, in order, and whether they have a bias: the key has none.
const PROJECTIONS: [(&str, bool); 6] = [
    ("attn.query", true),
    ("attn.key", false),
    ("attn.value", true),
    ("attn.out", true),
    ("mlp.0", true),
    ("mlp.2", true),
];

/// Normalisations of a block, in order.
const NORMS: [&str; 2] = ["attn_ln", "mlp_ln"];

/// The tensors of an export under the names of the public `state_dict`.
pub(super) fn read(path: &Path, version: Version) -> Result<BTreeMap<String, Tensor>, UnusableWeights> {
    let mut file = OnnxFile::open(path)?;
    let places = Places::of(&file.graph);
    let wanted = places.named(version)?;
    let mut tensors = BTreeMap::new();
    for (name, place) in wanted {
        let raw = file.initializer(&place.initializer)?;
        let floats = raw.to_floats().ok_or_else(|| UnusableWeights(format!("`{name}` does not hold floats")))??;
        let elements = host::slice("weights", &floats)?;
        if let Some(index) = elements.iter().position(|element| !element.is_finite()) {
            let message = format!("tensor `{}` holds {} at element {index}", place.initializer, elements[index]);
            return Err(UnusableWeights(message));
        }
        drop(elements);
        let floats = if place.transposed { floats.t().and_then(|tensor| tensor.contiguous()) } else { Ok(floats) };
        tensors.insert(name, floats.map_err(|error| UnusableWeights(error.to_string()))?);
    }
    Ok(tensors)
}

/// An initialiser, and whether rows and columns are to be swapped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    initializer: String,
    transposed: bool,
}

impl Place {
    fn plain(initializer: &str) -> Self {
        Self { initializer: initializer.to_owned(), transposed: false }
    }
}

/// A product with a matrix of weights.
#[derive(Debug)]
struct Projection {
    weight: Place,
    bias: Option<Place>,
}

/// The weighted operations of a graph, in order.
#[derive(Debug, Default)]
struct Places {
    convolutions: Vec<[Place; 2]>,
    memories: Vec<Place>,
    norms: Vec<[Place; 2]>,
    projections: Vec<Projection>,
    positions: Option<Place>,
    /// The codebook where it is squared: of exports that fold its product away.
    codebook: Option<Place>,
}

/// A graph with its edges.
struct Edges<'a> {
    shapes: HashMap<&'a str, &'a [usize]>,
    readers: HashMap<&'a str, Vec<&'a OnnxNode>>,
}

impl<'a> Edges<'a> {
    fn of(graph: &'a OnnxGraph) -> Self {
        let shapes = graph.initializers.iter().map(|(name, view)| (name.as_str(), view.shape())).collect();
        let mut readers: HashMap<&str, Vec<&OnnxNode>> = HashMap::new();
        for node in &graph.nodes {
            node.inputs.iter().for_each(|input| readers.entry(input.as_str()).or_default().push(node));
        }
        Self { shapes, readers }
    }

    /// The shape of an initialiser.
    fn shape(&self, name: &str) -> Option<&'a [usize]> {
        self.shapes.get(name).copied()
    }

    /// The vector of weights that a node reads, longer than a scalar.
    fn vector(&self, node: &'a OnnxNode) -> Option<(&'a str, usize)> {
        node.inputs.iter().find_map(|input| match self.shape(input) {
            Some(&[length]) if length > 1 => Some((input.as_str(), length)),
            _ => None,
        })
    }

    /// The vector of this length that is added to what a node gives.
    fn added(&self, node: &OnnxNode, length: usize) -> Option<Place> {
        let readers = self.readers.get(node.outputs.first()?.as_str())?;
        let mut vectors =
            readers.iter().filter(|reader| reader.op_type == "Add").filter_map(|reader| self.vector(reader));
        vectors.find(|(_, found)| *found == length).map(|(name, _)| Place::plain(name))
    }
}

impl Places {
    fn of(graph: &OnnxGraph) -> Self {
        let edges = Edges::of(graph);
        let mut places = Self::default();
        for node in &graph.nodes {
            places.visit(node, &edges);
        }
        places
    }

    fn visit<'a>(&mut self, node: &'a OnnxNode, edges: &Edges<'a>) {
        let input = |index: usize| node.inputs.get(index).map(String::as_str).filter(|name| !name.is_empty());
        let shape = |index: usize| input(index).and_then(|name| edges.shape(name));
        match (node.op_type.as_str(), shape(1)) {
            ("Conv", Some(&[_, 1, _])) => self.memories.extend(input(1).map(Place::plain)),
            ("Conv", Some(_)) => {
                self.convolutions.extend(input(1).zip(input(2)).map(|(w, b)| [w, b].map(Place::plain)))
            }
            ("LayerNormalization", Some(_)) => {
                self.norms.extend(input(1).zip(input(2)).map(|(w, b)| [w, b].map(Place::plain)));
            }
            ("MatMul", Some(&[_, outputs])) => {
                let weight = input(1).map(|name| Place { transposed: true, ..Place::plain(name) });
                let bias = edges.added(node, outputs);
                self.projections.extend(weight.map(|weight| Projection { weight, bias }));
            }
            ("Gemm", Some(_)) => {
                let transposed = node.int("transB").unwrap_or(0) == 0;
                let weight = input(1).map(|name| Place { transposed, ..Place::plain(name) });
                let bias = input(2).map(Place::plain);
                self.projections.extend(weight.map(|weight| Projection { weight, bias }));
            }
            ("Mul", _) => {
                if let Some((weight, length)) = edges.vector(node)
                    && let Some(bias) = edges.added(node, length)
                {
                    self.norms.push([Place::plain(weight), bias]);
                }
            }
            ("Slice" | "Gather" | "Add", _) if self.positions.is_none() => {
                let table = node.inputs.iter().find(|name| matches!(edges.shape(name), Some(&[_, _])));
                self.positions = table.map(|name| Place::plain(name));
            }
            ("Pow", _) => {
                let table = input(0).filter(|name| matches!(edges.shape(name), Some(&[_, _])));
                self.codebook = table.map(|name| Place { transposed: true, ..Place::plain(name) });
            }
            _ => {}
        }
    }

    /// The initialisers by the names of the public `state_dict`.
    fn named(&self, version: Version) -> Result<Vec<(String, Place)>, UnusableWeights> {
        let [first, second] = self.convolutions.as_slice() else {
            return Err(self.foreign("two convolutions with weights and biases"));
        };
        let mut named = Vec::new();
        for (name, [weight, bias]) in [("conv1", first), ("conv2", second)] {
            named.push((format!("encoder.{name}.weight"), weight.clone()));
            named.push((format!("encoder.{name}.bias"), bias.clone()));
        }
        let layers = self.norms.len() / NORMS.len();
        let blocks = self.projections.chunks(PROJECTIONS.len()).zip(self.norms.chunks_exact(NORMS.len()));
        for (block, (projections, norms)) in blocks.enumerate() {
            self.name_block(&format!("encoder.blocks.{block}"), projections, norms, &mut named)?;
        }
        let rest = self.projections.get(layers * PROJECTIONS.len()..).unwrap_or(&[]);
        match version {
            Version::V1 => {
                let positions = self.positions.clone().ok_or_else(|| self.foreign("a table of positions"))?;
                named.push(("encoder.positional_embedding".to_owned(), positions));
                let codebook =
                    rest.first().map(|projection| projection.weight.clone()).or_else(|| self.codebook.clone());
                let codebook = codebook.ok_or_else(|| self.foreign("a codebook behind its blocks"))?;
                named.push(("quantizer._codebook.embed".to_owned(), codebook));
            }
            Version::V2 => {
                if self.memories.len() != layers {
                    return Err(self.foreign("a memory (a convolution of each channel) in every block"));
                }
                for (block, memory) in self.memories.iter().enumerate() {
                    named.push((format!("encoder.blocks.{block}.attn.fsmn_block.weight"), memory.clone()));
                }
                let Some(Projection { weight, bias: Some(bias) }) = rest.first() else {
                    return Err(self.foreign("a projection with a bias behind its blocks"));
                };
                named.push(("quantizer._codebook.project_down.weight".to_owned(), weight.clone()));
                named.push(("quantizer._codebook.project_down.bias".to_owned(), bias.clone()));
            }
        }
        Ok(named)
    }

    fn name_block(
        &self,
        block: &str,
        projections: &[Projection],
        norms: &[[Place; 2]],
        named: &mut Vec<(String, Place)>,
    ) -> Result<(), UnusableWeights> {
        for (name, [weight, bias]) in NORMS.into_iter().zip(norms) {
            named.push((format!("{block}.{name}.weight"), weight.clone()));
            named.push((format!("{block}.{name}.bias"), bias.clone()));
        }
        if projections.len() != PROJECTIONS.len() {
            return Err(self.foreign("six projections for every two normalisations"));
        }
        for ((name, has_bias), projection) in PROJECTIONS.into_iter().zip(projections) {
            if projection.bias.is_some() != has_bias {
                return Err(self.foreign("a bias beside every projection of a block but the second, the key"));
            }
            named.push((format!("{block}.{name}.weight"), projection.weight.clone()));
            named.extend(projection.bias.iter().map(|bias| (format!("{block}.{name}.bias"), bias.clone())));
        }
        Ok(())
    }

    /// Says what the graph lacks, and what it has.
    fn foreign(&self, lacks: &str) -> UnusableWeights {
        let (convolutions, norms) = (self.convolutions.len(), self.norms.len());
        let (projections, memories) = (self.projections.len(), self.memories.len());
        UnusableWeights(format!(
            "not the graph of an S3 tokenizer: it lacks {lacks} (found {convolutions} convolutions, {memories} convolutions of \
             single channels, {norms} normalisations, {projections} projections)"
        ))
    }
}
