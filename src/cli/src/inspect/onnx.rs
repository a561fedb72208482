//! ONNX networks: their inputs, outputs, operators and weights.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flowmill_weights::{OnnxFile, OnnxValue};

use crate::human;
use crate::table::print_pairs;

use super::tensors;

/// Prints the network.
pub fn show(path: &Path, out: &mut dyn Write) -> Result<()> {
    let file = OnnxFile::open(path)?;
    let graph = &file.graph;
    let mut operators = BTreeMap::<&str, usize>::new();
    for node in &graph.nodes {
        *operators.entry(&node.op_type).or_default() += 1;
    }
    let operators: Vec<String> = operators.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let sets = file.operator_sets.iter().map(|(domain, version)| match domain.as_str() {
        "" => version.to_string(),
        domain => format!("{domain} {version}"),
    });
    let pairs = [
        ("made by", file.producer.clone()),
        ("operator set", sets.collect::<Vec<_>>().join(", ")),
        ("takes", values(&graph.inputs)),
        ("gives", values(&graph.outputs)),
        ("nodes", format!("{}: {}", human::count(graph.nodes.len() as u64), operators.join(", "))),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_string(), human::shortened(&value, 600)));
    print_pairs(&pairs, 2, out)?;
    tensors::print(
        graph.initializers.iter().map(|(name, view)| tensors::Row {
            name,
            dtype: view.element().to_string(),
            shape: view.shape(),
            bytes: view.byte_count(),
        }),
        out,
    )
}

/// Formats names and dimensions; a free dimension is `?`.
fn values(values: &[OnnxValue]) -> String {
    let size = |size: &Option<i64>| size.map_or("?".to_string(), |size| size.to_string());
    let value = |value: &OnnxValue| {
        let shape: Vec<String> = value.shape.iter().map(size).collect();
        format!("{} [{}]", value.name, shape.join(" × "))
    };
    values.iter().map(value).collect::<Vec<_>>().join(", ")
}
