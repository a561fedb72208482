//! The weights of a published `.onnx` export, by their places in its graph.
//!
//! Exporters name initializers as they like (`onnx::MatMul_1554`), but the order of operations is that of the network: two
//! convolutions, then block after block a normalization, query, key, value and output projections, a normalization and two
//! projections, then the quantizer. Matrices are stored as `[input, output]`; normalizations are one operation or spelled out as a
//! product and a sum.

use std::{collections::BTreeMap, path::Path};

use candle_core::Tensor;
use flowmill_nn::host;
use flowmill_weights::{OnnxFile, OnnxNode, TensorView};

use super::{
    LayerNormEpsilon, Version,
    graph::{self, Edges, Place},
};
use crate::{
    UnusableWeights,
    graph_attributes::{self as attributes, Geometry},
};

/// Projections of a block, in order, and whether they have a bias: the key has none.
const PROJECTIONS: [(&str, bool); 6] = [
    ("attn.query", true),
    ("attn.key", false),
    ("attn.value", true),
    ("attn.out", true),
    ("mlp.0", true),
    ("mlp.2", true),
];

/// Normalizations of a block, in order.
const NORMS: [&str; 2] = ["attn_ln", "mlp_ln"];

/// Zeros at both ends of the FSMN memory's input.
const MEMORY_PADDING: i64 = 15;

/// The facts about a network in its export.
pub(super) struct Exported {
    /// The tensors under the names of the public `state_dict`.
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// The epsilons of each block.
    pub(super) epsilons: Vec<LayerNormEpsilon>,
    /// Heads of the attention, where the graph stores the shape that it splits channels into.
    pub(super) heads: Option<usize>,
}

/// Reads an export.
pub(super) fn read(path: &Path, version: Version) -> Result<Exported, UnusableWeights> {
    let mut file = OnnxFile::open(path)?;
    let numbers = graph::numbers(&mut file)?;
    let graph = std::mem::take(&mut file.graph);
    let places = Places::of(&graph, &Edges::of(&graph, &numbers));
    let places = places.map_err(|error| UnusableWeights(format!("not the graph of an S3 tokenizer: {error}")))?;
    let views: BTreeMap<&str, &TensorView> = graph::stored(&graph).collect();
    let mut tensors = BTreeMap::new();
    for (name, place) in places.named(version)? {
        let view = views.get(place.name.as_str());
        let view = view.ok_or_else(|| UnusableWeights(format!("`{name}` is computed, not stored")))?;
        let floats = file.load(view)?.to_floats();
        let floats = floats.ok_or_else(|| UnusableWeights(format!("`{name}` does not hold floats")))??;
        let elements = host::slice("weights", &floats)?;
        if let Some(index) = elements.iter().position(|element| !element.is_finite()) {
            let message = format!("tensor `{}` holds {} at element {index}", place.name, elements[index]);
            return Err(UnusableWeights(message));
        }
        drop(elements);
        let floats = if place.transposed { floats.t().and_then(|tensor| tensor.contiguous()) } else { Ok(floats) };
        let floats = match place.factor {
            1.0 => floats,
            factor => floats.and_then(|floats| floats * f64::from(factor)),
        };
        tensors.insert(name, floats.map_err(|error| UnusableWeights(error.to_string()))?);
    }
    Ok(Exported { tensors, epsilons: places.epsilons(), heads: places.heads()? })
}

/// A product with a matrix of weights.
#[derive(Debug)]
struct Projection {
    weight: Place,
    bias: Option<Place>,
}

/// A normalization: weight, bias and epsilon.
#[derive(Debug)]
struct Norm {
    tensors: [Place; 2],
    epsilon: f32,
}

/// The weighted operations of a graph, in order.
#[derive(Debug, Default)]
struct Places {
    convolutions: Vec<[Place; 2]>,
    memories: Vec<Place>,
    norms: Vec<Norm>,
    projections: Vec<Projection>,
    positions: Option<Place>,
    /// The codebook where it is squared: of exports that fold its product away.
    codebook: Option<Place>,
    /// Shapes that channels are split into: heads and their width.
    splits: Vec<[usize; 2]>,
}

impl Places {
    fn of(graph: &flowmill_weights::OnnxGraph, edges: &Edges<'_>) -> Result<Self, UnusableWeights> {
        let mut places = Self::default();
        for node in &graph.nodes {
            places.visit(node, edges)?;
        }
        Ok(places)
    }

    fn visit<'a>(&mut self, node: &'a OnnxNode, edges: &Edges<'a>) -> Result<(), UnusableWeights> {
        attributes::expect_standard(node)?;
        let plain = |input: usize| Ok::<_, UnusableWeights>(edges.weight(node, input)?.map(|(place, _)| place));
        match node.op_type.as_str() {
            "Conv" => self.visit_convolution(node, edges)?,
            "LayerNormalization" => {
                if let (Some(weight), Some(bias)) = (plain(1)?, plain(2)?) {
                    let epsilon = attributes::layer_norm_epsilon(node)?;
                    self.norms.push(Norm { tensors: [weight, bias], epsilon });
                }
            }
            "MatMul" => {
                if let Some((weight, shape)) = edges.weight(node, 1)?.filter(|(_, shape)| shape.len() == 2) {
                    let bias = edges.added(node, shape[1]);
                    let weight = Place { transposed: !weight.transposed, ..weight };
                    self.projections.push(Projection { weight, bias });
                }
            }
            "Gemm" => {
                if let Some(weight) = plain(1)? {
                    let gemm = attributes::gemm(node)?;
                    let transposed = weight.transposed == gemm.transposed_b;
                    let bias = plain(2)?.map(|bias| Place { factor: gemm.beta, ..bias });
                    self.projections
                        .push(Projection { weight: Place { transposed, factor: gemm.alpha, ..weight }, bias });
                }
            }
            "Mul" => {
                if let Some((weight, length)) = edges.vector(node)
                    && let Some(bias) = edges.added(node, length)
                {
                    let epsilon = edges.spelled_out_epsilon(node)?;
                    self.norms.push(Norm { tensors: [weight, bias], epsilon });
                }
            }
            "Slice" | "Gather" | "Add" if self.positions.is_none() => {
                let tables = (0..node.inputs.len()).filter_map(|input| edges.weight(node, input).ok()?);
                self.positions = tables.filter(|(_, shape)| shape.len() == 2).map(|(place, _)| place).next();
            }
            "Pow" => {
                let table = edges.weight(node, 0)?.filter(|(_, shape)| shape.len() == 2);
                self.codebook = table.map(|(place, _)| Place { transposed: !place.transposed, ..place });
            }
            "Reshape" => {
                let shape = node.inputs.get(1).and_then(|shape| edges.numbers(shape));
                if let Some(&[_, _, heads, width]) = shape
                    && heads >= 1.0
                    && width >= 1.0
                {
                    self.splits.push([heads as usize, width as usize]);
                }
            }
            "ReduceL2" => {
                let axes = node.inputs.get(1).and_then(|axes| edges.numbers(axes));
                attributes::expect_norm_of_vectors(node, axes)?;
            }
            _ => attributes::expect_usual(node)?,
        }
        Ok(())
    }

    fn visit_convolution<'a>(&mut self, node: &'a OnnxNode, edges: &Edges<'a>) -> Result<(), UnusableWeights> {
        let Some((weight, shape)) = edges.weight(node, 1)? else { return Ok(()) };
        let &[channels, inputs, taps] = shape.as_slice() else { return Ok(()) };
        let (channels, kernel) = (channels as i64, [taps as i64]);
        if inputs == 1 && channels > 1 {
            let padding = [MEMORY_PADDING];
            let geometry =
                Geometry { kernel: &kernel, strides: &[1], padding: &padding, dilations: &[1], group: channels };
            if !attributes::expect_convolution(node, &geometry)? {
                let pad = node.inputs.first().and_then(|value| edges.maker(value));
                let pad = pad.filter(|pad| pad.op_type == "Pad").ok_or_else(|| {
                    UnusableWeights(format!("`{}` (Conv): it has no `pads`, and nothing pads its input", node.name))
                })?;
                let input = |index: usize| pad.inputs.get(index).and_then(|value| edges.numbers(value));
                attributes::expect_zeros(pad, MEMORY_PADDING, input(1), input(2))?;
            }
            self.memories.push(weight);
            return Ok(());
        }
        let geometry = Geometry { kernel: &kernel, strides: &[2], padding: &[1], dilations: &[1], group: 1 };
        if !attributes::expect_convolution(node, &geometry)? {
            return Err(UnusableWeights(format!("`{}` (Conv): its `pads` are not [1, 1]", node.name)));
        }
        if let Some((bias, _)) = edges.weight(node, 2)? {
            self.convolutions.push([weight, bias]);
        }
        Ok(())
    }

    /// The epsilons of the blocks.
    fn epsilons(&self) -> Vec<LayerNormEpsilon> {
        let block = |norms: &[Norm]| LayerNormEpsilon::of_floats([norms[0].epsilon, norms[1].epsilon]);
        self.norms.chunks_exact(NORMS.len()).map(block).collect()
    }

    /// The number of heads that all blocks split their channels into, where it is stored.
    fn heads(&self) -> Result<Option<usize>, UnusableWeights> {
        let mut heads = self.splits.iter().map(|[heads, _]| *heads);
        let first = heads.next();
        match heads.find(|other| Some(*other) != first) {
            None => Ok(first),
            Some(other) => {
                let first = first.unwrap_or(0);
                Err(UnusableWeights(format!(
                    "its attentions have {first} heads and {other}; this network has one number"
                )))
            }
        }
    }

    /// The stored tensors by the names of the public `state_dict`.
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
            Version::V2 | Version::V3 => {
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
        norms: &[Norm],
        named: &mut Vec<(String, Place)>,
    ) -> Result<(), UnusableWeights> {
        for (name, Norm { tensors: [weight, bias], .. }) in NORMS.into_iter().zip(norms) {
            named.push((format!("{block}.{name}.weight"), weight.clone()));
            named.push((format!("{block}.{name}.bias"), bias.clone()));
        }
        if projections.len() != PROJECTIONS.len() {
            return Err(self.foreign("six projections for every two normalizations"));
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
             single channels, {norms} normalizations, {projections} projections)"
        ))
    }
}
