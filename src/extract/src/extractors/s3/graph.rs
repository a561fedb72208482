//! A graph with its edges: what is stored, what makes a value and what reads it.

use std::collections::HashMap;

use flowmill_weights::{OnnxAttribute, OnnxFile, OnnxGraph, OnnxNode, TensorView};

use crate::{UnusableWeights, graph_attributes as attributes};

/// The most elements of a stored tensor that is read at once: epsilons, paddings, axes, shapes.
const FEW: u64 = 16;

/// A stored tensor, what it is multiplied by, and whether rows and columns are to be swapped.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) transposed: bool,
    pub(super) factor: f32,
}

/// The nodes of a graph by what they take and give.
pub(super) struct Edges<'a> {
    views: HashMap<&'a str, &'a TensorView>,
    numbers: &'a HashMap<String, Vec<f64>>,
    readers: HashMap<&'a str, Vec<&'a OnnxNode>>,
    makers: HashMap<&'a str, &'a OnnxNode>,
}

/// Iterates over all tensors that a graph stores: initializers, and values of `Constant` nodes.
pub(super) fn stored(graph: &OnnxGraph) -> impl Iterator<Item = (&str, &TensorView)> {
    let constants = graph.nodes.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
        let Some(OnnxAttribute::Tensor(tensor)) = node.attribute("value") else { return None };
        Some((node.outputs.first()?.as_str(), tensor))
    });
    graph.initializers.iter().map(|(name, view)| (name.as_str(), view)).chain(constants)
}

/// The values of the small tensors that a graph stores.
pub(super) fn numbers(file: &mut OnnxFile) -> Result<HashMap<String, Vec<f64>>, UnusableWeights> {
    let few: Vec<(String, TensorView)> = stored(&file.graph)
        .filter(|(_, view)| view.element_count() <= FEW)
        .map(|(name, view)| (name.to_owned(), view.clone()))
        .collect();
    let mut numbers = HashMap::new();
    for (name, view) in few {
        let raw = file.load(&view)?;
        let floats = |tensor: candle_core::Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let integers = |tensor: candle_core::Tensor| tensor.flatten_all()?.to_vec1::<i64>();
        let values: Vec<f64> = match (raw.to_floats(), raw.to_integers()) {
            (Some(tensor), _) => floats(tensor?).map(|values| values.into_iter().map(f64::from).collect()),
            (None, Some(tensor)) => {
                integers(tensor?).map(|values| values.into_iter().map(|value| value as f64).collect())
            }
            (None, None) => continue,
        }
        .map_err(|error| UnusableWeights(error.to_string()))?;
        numbers.insert(name, values);
    }
    for node in file.graph.nodes.iter().filter(|node| node.op_type == "Constant") {
        let values = match node.attributes.first() {
            Some((_, OnnxAttribute::Float(value))) => vec![f64::from(*value)],
            Some((_, OnnxAttribute::Int(value))) => vec![*value as f64],
            Some((_, OnnxAttribute::Floats(values))) => values.iter().copied().map(f64::from).collect(),
            Some((_, OnnxAttribute::Ints(values))) => values.iter().map(|value| *value as f64).collect(),
            _ => continue,
        };
        numbers.extend(node.outputs.first().map(|name| (name.clone(), values)));
    }
    Ok(numbers)
}

impl<'a> Edges<'a> {
    pub(super) fn of(graph: &'a OnnxGraph, numbers: &'a HashMap<String, Vec<f64>>) -> Self {
        let mut readers: HashMap<&str, Vec<&OnnxNode>> = HashMap::new();
        for node in &graph.nodes {
            node.inputs.iter().for_each(|input| readers.entry(input.as_str()).or_default().push(node));
        }
        let makers = graph.nodes.iter().flat_map(|node| node.outputs.iter().map(move |output| (output.as_str(), node)));
        Self { views: stored(graph).collect(), numbers, readers, makers: makers.collect() }
    }

    /// The node that makes a value, through nodes that pass it on as it is.
    pub(super) fn maker(&self, value: &str) -> Option<&'a OnnxNode> {
        let mut node = *self.makers.get(value)?;
        // As many steps as there are nodes: a graph that runs in circles is no graph.
        for _ in 0..self.makers.len() {
            if !matches!(node.op_type.as_str(), "Identity" | "Cast") {
                return Some(node);
            }
            node = *self.makers.get(node.inputs.first()?.as_str())?;
        }
        None
    }

    /// The numbers of a small stored tensor.
    pub(super) fn numbers(&self, value: &str) -> Option<&'a [f64]> {
        let (name, _) = self.resolve(value).ok()?;
        self.numbers.get(name).map(Vec::as_slice)
    }

    /// The stored tensor behind a value, through `Identity` and through a `Transpose` of a matrix, and whether it is transposed.
    fn resolve<'v>(&self, value: &'v str) -> Result<(&'v str, bool), Option<UnusableWeights>>
    where
        'a: 'v,
    {
        let (mut name, mut transposed) = (value, false);
        for _ in 0..=self.makers.len() {
            if self.views.contains_key(name) || self.numbers.contains_key(name) {
                return Ok((name, transposed));
            }
            let node = self.makers.get(name).ok_or(None)?;
            match node.op_type.as_str() {
                "Identity" => {}
                "Transpose" => transposed = !transposed,
                _ => return Err(None),
            }
            let input = node.inputs.first().ok_or(None)?;
            if node.op_type == "Transpose" && self.is_stored(input) {
                let attributes = attributes::Attributes::of(node, &["perm"]).map_err(Some)?;
                attributes.expect_ints("perm", &[1, 0], &[1, 0]).map_err(Some)?;
            }
            name = input;
        }
        Err(None)
    }

    fn is_stored(&self, value: &str) -> bool {
        self.resolve(value).is_ok()
    }

    /// The stored tensor behind the input of a node with its shape as the node sees it; `None` where it is computed.
    pub(super) fn weight(
        &self,
        node: &'a OnnxNode,
        input: usize,
    ) -> Result<Option<(Place, Vec<usize>)>, UnusableWeights> {
        let Some(value) = node.inputs.get(input).filter(|name| !name.is_empty()) else { return Ok(None) };
        match self.resolve(value) {
            Ok((name, transposed)) => {
                let Some(view) = self.views.get(name) else { return Ok(None) };
                let mut shape = view.shape().to_vec();
                if transposed {
                    shape.reverse();
                }
                Ok(Some((Place { name: name.to_owned(), transposed, factor: 1.0 }, shape)))
            }
            Err(Some(error)) => Err(error),
            Err(None) => Ok(None),
        }
    }

    /// The vector of weights that a node reads, longer than a scalar.
    pub(super) fn vector(&self, node: &'a OnnxNode) -> Option<(Place, usize)> {
        (0..node.inputs.len()).find_map(|input| match self.weight(node, input).ok()?? {
            (place, shape) if shape.len() == 1 && shape[0] > 1 => Some((place, shape[0])),
            _ => None,
        })
    }

    /// The vector of this length that is added to what a node gives.
    pub(super) fn added(&self, node: &OnnxNode, length: usize) -> Option<Place> {
        let readers = self.readers.get(node.outputs.first()?.as_str())?;
        let mut vectors =
            readers.iter().filter(|reader| reader.op_type == "Add").filter_map(|reader| self.vector(reader));
        vectors.find(|(_, found)| *found == length).map(|(place, _)| place)
    }

    /// The epsilon of a normalization that is spelled out, from the product with its weights: (x - mean) / sqrt(variance + epsilon).
    pub(super) fn spelled_out_epsilon(&self, product: &'a OnnxNode) -> Result<f32, UnusableWeights> {
        let unknown = || {
            let OnnxNode { name, outputs, .. } = product;
            let name = if name.is_empty() { outputs.concat() } else { name.clone() };
            UnusableWeights(format!(
                "the normalization before `{name}` has an epsilon that cannot be found in the graph"
            ))
        };
        let of = |op: &str, value: &str| self.maker(value).filter(|node| node.op_type == op);
        let input = |node: &'a OnnxNode, index: usize| node.inputs.get(index).map(String::as_str);
        let division = product.inputs.iter().find_map(|value| of("Div", value)).ok_or_else(unknown)?;
        let root = input(division, 1).and_then(|value| of("Sqrt", value)).ok_or_else(unknown)?;
        let sum = input(root, 0).and_then(|value| of("Add", value)).ok_or_else(unknown)?;
        let epsilon = sum.inputs.iter().find_map(|value| match self.numbers(value) {
            Some(&[epsilon]) => Some(epsilon as f32),
            _ => None,
        });
        let variance = sum.inputs.iter().find_map(|value| of("ReduceMean", value)).ok_or_else(unknown)?;
        let centered = input(division, 0).and_then(|value| of("Sub", value)).ok_or_else(unknown)?;
        let mean = input(centered, 1).and_then(|value| of("ReduceMean", value)).ok_or_else(unknown)?;
        for reduction in [mean, variance] {
            let axes = input(reduction, 1).and_then(|value| self.numbers(value));
            attributes::expect_over_last(reduction, axes, &[1])?;
        }
        epsilon.filter(|epsilon| epsilon.is_finite() && *epsilon >= 0.0).ok_or_else(unknown)
    }
}
