//! Weights of an exported ONNX graph, by their place in it: exporters fold normalizations into convolutions and rename what they
//! change, but they keep the order of computation.

use std::{collections::HashMap, path::Path};

use flowmill_weights::{OnnxAttribute, OnnxFile, OnnxNode, TensorView};

use super::{
    error::{CampplusError, Result, expect_shape},
    network::SEGMENT,
    weights::{BLOCKS, BatchNorm, Convolution, Dimensions, Normalization, RESIDUAL_BLOCKS, Source},
};
use crate::{
    UnusableWeights,
    graph_attributes::{self, Attributes, Geometry},
};

/// Convolutions of the head, whose residual layers have one shortcut each; then comes the first layer along time.
const TDNN: usize = 2 + 2 * (2 * RESIDUAL_BLOCKS + 1);

/// The convolutions and normalizations of a graph, in order.
pub(super) struct Graph {
    file: OnnxFile,
    /// Tensors that nodes give: constants.
    constants: HashMap<String, TensorView>,
    /// Other names of tensors: exporters write equal tensors once.
    aliases: HashMap<String, String>,
    steps: Vec<Step>,
    next: usize,
}

/// A node with weights.
#[derive(Clone)]
struct Step {
    kind: Kind,
    /// The node's name, or its result's.
    name: String,
    /// Names of its tensors.
    tensors: Vec<String>,
    /// The step whose result it takes, unless something was computed in between.
    behind: Option<usize>,
    node: OnnxNode,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Convolution,
    Normalization,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Convolution => "a convolution",
            Self::Normalization => "a normalization",
        }
    }
}

impl Graph {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = OnnxFile::open(path)?;
        let mut graph = Self { constants: HashMap::new(), aliases: HashMap::new(), steps: Vec::new(), next: 0, file };
        // Which step made a value, through nodes that only change its shape.
        let mut made: HashMap<String, usize> = HashMap::new();
        for node in std::mem::take(&mut graph.file.graph.nodes) {
            graph_attributes::expect_standard(&node).map_err(contradiction)?;
            let (Some(output), input) = (node.outputs.first(), node.inputs.first()) else { continue };
            match node.op_type.as_str() {
                "Conv" | "BatchNormalization" => {
                    let behind = input.and_then(|input| made.get(input).copied());
                    if node.op_type == "Conv" {
                        made.insert(output.clone(), graph.steps.len());
                    }
                    graph.steps.push(Step::new(&node, behind));
                }
                "AveragePool" => expect_context_pool(&node)?,
                // Axes that are an input may be computed.
                "ReduceMean" if node.inputs.len() < 2 => {
                    graph_attributes::expect_over_last(&node, None, &[0, 1]).map_err(contradiction)?;
                }
                "Constant" => {
                    if let Some(OnnxAttribute::Tensor(tensor)) = node.attribute("value") {
                        graph.constants.insert(output.clone(), tensor.clone());
                    }
                }
                "Identity" | "Squeeze" | "Unsqueeze" => {
                    if let Some(input) = input {
                        graph.aliases.insert(output.clone(), input.clone());
                        made.get(input).copied().map(|step| made.insert(output.clone(), step));
                    }
                }
                _ => {}
            }
        }
        Ok(graph)
    }

    fn view(&self, name: &str) -> Option<&TensorView> {
        let name = self.aliases.get(name).map_or(name, String::as_str);
        self.constants.get(name).or_else(|| self.file.graph.initializer(name))
    }

    /// The shape of a step's weights; none when it is no such step.
    fn shape(&self, step: Option<&Step>) -> &[usize] {
        let view = step.and_then(|step| self.view(step.tensors.first()?));
        view.map_or(&[], TensorView::shape)
    }

    /// The next step, which must be of this kind.
    fn step(&mut self, kind: Kind, name: &str) -> Result<Step> {
        let wrong =
            |found: String| CampplusError::Graph(format!("in the place of `{name}`, {}, it has {found}", kind.name()));
        let step = self.steps.get(self.next).ok_or_else(|| wrong("nothing more".to_owned()))?;
        if step.kind != kind {
            return Err(wrong(format!("{} (`{}`)", step.kind.name(), step.name)));
        }
        self.next += 1;
        Ok(step.clone())
    }

    /// The values of a tensor; `own` is what messages call it.
    fn values(&mut self, tensor: &str, own: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let view = self.view(tensor).cloned();
        let view = view.ok_or_else(|| CampplusError::Graph(format!("`{own}` is computed, not stored")))?;
        expect_shape(&format!("{own}, in the file {tensor}"), view.shape(), shape)?;
        let problem = |problem: String| CampplusError::Number { name: format!("{own}, in the file {tensor}"), problem };
        let floats = self.file.load(&view)?.to_floats().ok_or_else(|| problem("holds integers".to_owned()))??;
        let values: Vec<f32> =
            floats.flatten_all().and_then(|flat| flat.to_vec1()).map_err(flowmill_nn::NnError::from)?;
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(problem(format!("holds {} at element {index}", values[index]))),
            None => Ok(values),
        }
    }

    fn batch_norm(&mut self, step: &Step, name: &str, channels: usize) -> Result<BatchNorm> {
        let mut part = |index: usize, part: &str| {
            let tensor = step.tensors.get(index).cloned().unwrap_or_default();
            self.values(&tensor, &format!("{name}.{part}"), &[channels])
        };
        let (weight, bias) = (part(0, "weight")?, part(1, "bias")?);
        let (mean, variance) = (part(2, "running_mean")?, part(3, "running_var")?);
        let epsilon = graph_attributes::batch_norm_epsilon(&step.node).map_err(contradiction)?;
        Ok(BatchNorm { weight, bias, mean, variance, epsilon: f64::from(epsilon) })
    }
}

impl Step {
    fn new(node: &OnnxNode, behind: Option<usize>) -> Self {
        let kind = if node.op_type == "Conv" { Kind::Convolution } else { Kind::Normalization };
        let name = if node.name.is_empty() { node.outputs.concat() } else { node.name.clone() };
        let tensors = node.inputs.iter().skip(1).filter(|name| !name.is_empty()).cloned().collect();
        Self { kind, name, tensors, behind, node: node.clone() }
    }
}

/// An attribute that is not the network's.
fn contradiction(error: UnusableWeights) -> CampplusError {
    CampplusError::Graph(error.to_string())
}

/// Fails unless a convolution goes over its input as the one of this name does.
fn expect_geometry(node: &OnnxNode, name: &str, shape: &[usize]) -> Result<()> {
    let kernel: Vec<i64> = shape[2..].iter().map(|taps| *taps as i64).collect();
    // Frequencies are halved by the first block of a residual layer and behind the last one, frames by the first layer along time.
    let halves_frequencies = name == "head.conv2"
        || name.starts_with("head.layer") && (name.ends_with(".0.conv1") || name.ends_with(".shortcut.0"));
    let strides: &[i64] = match kernel.len() {
        2 if halves_frequencies => &[2, 1],
        2 => &[1, 1],
        _ if name == "xvector.tdnn.linear" => &[2],
        _ => &[1],
    };
    let block = name.strip_prefix("xvector.block").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    let dilation = match block.filter(|_| name.ends_with("linear_local")) {
        Some(block) => BLOCKS.get(block.wrapping_sub(1)).map_or(1, |(_, dilation)| *dilation as i64),
        None => 1,
    };
    let dilations = vec![dilation; kernel.len()];
    let padding: Vec<i64> = kernel.iter().map(|taps| (taps - 1) / 2 * dilation).collect();
    let expected = Geometry { kernel: &kernel, strides, padding: &padding, dilations: &dilations, group: 1 };
    let padded = graph_attributes::expect_convolution(node, &expected).map_err(contradiction)?;
    if padded || padding.iter().all(|zeros| *zeros == 0) {
        return Ok(());
    }
    Err(CampplusError::Graph(format!("`{name}` has no padding, this network has {padding:?} at both ends")))
}

/// Fails unless a pool averages what the network's contexts are: segments, the last of which may be shorter.
fn expect_context_pool(node: &OnnxNode) -> Result<()> {
    let known = ["kernel_shape", "strides", "pads", "dilations", "auto_pad", "ceil_mode", "count_include_pad"];
    let check = || {
        let attributes = Attributes::of(node, &known)?;
        let segment = [SEGMENT as i64];
        attributes.expect_ints("kernel_shape", &[], &segment)?;
        attributes.expect_ints("strides", &[1], &segment)?;
        attributes.expect_ints("pads", &[0, 0], &[0, 0])?;
        attributes.expect_ints("dilations", &[1], &[1])?;
        attributes.expect_int("ceil_mode", 0, &[1])?;
        match &*attributes.text("auto_pad", "NOTSET")? {
            "NOTSET" | "VALID" => Ok(()),
            other => Err(attributes.contradicts("auto_pad", &other, &"NOTSET")),
        }
    };
    check().map_err(contradiction)
}

impl Source for Graph {
    fn dimensions(&self) -> Result<Dimensions> {
        let convolutions: Vec<&Step> = self.steps.iter().filter(|step| step.kind == Kind::Convolution).collect();
        let shape = |index: usize| self.shape(convolutions.get(index).copied());
        let dense = self.shape(convolutions.last().copied());
        Ok(Dimensions::of_shapes(shape(0), shape(TDNN), shape(TDNN + 1), shape(TDNN + 2), dense))
    }

    fn convolution(&mut self, name: &str, norm: Option<&str>, shape: &[usize]) -> Result<Convolution> {
        let index = self.next;
        let step = self.step(Kind::Convolution, name)?;
        expect_geometry(&step.node, name, shape)?;
        let weight = step.tensors.first().cloned().unwrap_or_default();
        let weight = self.values(&weight, &format!("{name}.weight"), shape)?;
        let bias = match step.tensors.get(1) {
            Some(bias) => self.values(&bias.clone(), &format!("{name}.bias"), &shape[..1])?,
            None => vec![0.0; shape[0]],
        };
        let mut convolution = Convolution { weight, bias };
        let follows = self
            .steps
            .get(self.next)
            .is_some_and(|next| next.kind == Kind::Normalization && next.behind == Some(index));
        match norm {
            Some(norm) if follows => {
                let step = self.step(Kind::Normalization, norm)?;
                self.batch_norm(&step, norm, shape[0])?.fold(norm, &mut convolution)?;
            }
            // Folded by the exporter, which left a bias.
            Some(norm) if step.tensors.len() < 2 => {
                return Err(CampplusError::Graph(format!("`{name}` has neither a bias nor `{norm}` behind it")));
            }
            _ => {}
        }
        Ok(convolution)
    }

    fn normalization(&mut self, name: &str, channels: usize) -> Result<Normalization> {
        let step = self.step(Kind::Normalization, name)?;
        self.batch_norm(&step, name, channels)?.normalization(name)
    }

    fn finish(&self) -> Result<()> {
        match &self.steps[self.next.min(self.steps.len())..] {
            [] => Ok(()),
            [first, ..] => Err(CampplusError::Graph(format!("it has more layers, the first is `{}`", first.name))),
        }
    }
}
