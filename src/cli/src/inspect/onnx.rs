//! ONNX networks: their inputs, outputs, operators and weights.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flowmill_weights::{OnnxFile, OnnxValue};
use serde::Serialize;
use serde_json::Value;

use super::facts::{Facts, View};
use super::tensors::{Tensor, Tensors};
use crate::human;
use crate::table::print_pairs;

/// The content of an ONNX file, without the elements of its tensors.
#[derive(Serialize)]
pub struct Onnx {
    /// The program that wrote it.
    producer: String,
    /// The version of every operator set; the standard's own has no name.
    operator_sets: BTreeMap<String, i64>,
    inputs: Vec<NetworkValue>,
    outputs: Vec<NetworkValue>,
    nodes: usize,
    /// The number of nodes by operator.
    operators: BTreeMap<String, usize>,
    #[serde(flatten)]
    tensors: Tensors,
}

/// An input or output of a network.
#[derive(Serialize)]
struct NetworkValue {
    name: String,
    /// The dimensions; a free one is null.
    shape: Vec<Option<i64>>,
}

/// Reads the network in the file at `path`.
pub fn read(path: &Path) -> Result<Onnx> {
    let file = OnnxFile::open(path)?;
    let graph = &file.graph;
    let mut operators = BTreeMap::<String, usize>::new();
    for node in &graph.nodes {
        *operators.entry(node.op_type.clone()).or_default() += 1;
    }
    let value = |value: &OnnxValue| NetworkValue { name: value.name.clone(), shape: value.shape.clone() };
    let tensor = |(name, view): &(String, flowmill_weights::TensorView)| Tensor {
        name: name.clone(),
        dtype: view.element().to_string(),
        shape: view.shape().to_vec(),
        bytes: view.byte_count(),
    };
    Ok(Onnx {
        producer: file.producer.clone(),
        operator_sets: file.operator_sets.clone(),
        inputs: graph.inputs.iter().map(value).collect(),
        outputs: graph.outputs.iter().map(value).collect(),
        nodes: graph.nodes.len(),
        operators,
        tensors: graph.initializers.iter().map(tensor).collect(),
    })
}

impl Facts for Onnx {
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        let operators: Vec<String> = self.operators.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let sets = self.operator_sets.iter().map(|(domain, version)| match domain.as_str() {
            "" => version.to_string(),
            domain => format!("{domain} {version}"),
        });
        let pairs = [
            ("made by", self.producer.clone()),
            ("operator set", sets.collect::<Vec<_>>().join(", ")),
            ("takes", values(&self.inputs)),
            ("gives", values(&self.outputs)),
            ("nodes", format!("{}: {}", human::count(self.nodes as u64), operators.join(", "))),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_string(), human::shortened(&value, view.text(600))));
        print_pairs(&pairs, 2, out)?;
        self.tensors.print(view, out)
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }
}

/// Formats names and dimensions; a free dimension is `?`.
fn values(values: &[NetworkValue]) -> String {
    let size = |size: &Option<i64>| size.map_or("?".to_string(), |size| size.to_string());
    let value = |value: &NetworkValue| {
        let shape: Vec<String> = value.shape.iter().map(size).collect();
        format!("{} [{}]", value.name, shape.join(" × "))
    };
    values.iter().map(value).collect::<Vec<_>>().join(", ")
}
