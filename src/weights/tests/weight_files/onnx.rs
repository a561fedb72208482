//! ONNX graphs.

use crate::support::{field, golden, number, onnx, refusal, small_onnx};
use crate::writing::folder;
use flowmill_weights::FaultKind::{Damaged, TooLarge, Unsupported};
use flowmill_weights::{
    Archive, ElementType, OnnxAttribute, OnnxAxis, OnnxBuilder, OnnxFile, OnnxSetting, OnnxValue, WeightError,
};
use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

#[test]
fn an_exported_network_is_read_with_its_graph() {
    let mut file = OnnxFile::open(&golden("campplus_small.onnx")).unwrap();
    assert_eq!(file.producer, "pytorch");
    assert!(file.operator_sets[""] >= 11);
    let graph = file.graph.clone();
    assert_eq!((graph.inputs.len(), graph.outputs.len()), (1, 1));
    assert_eq!(graph.inputs[0].shape.len(), 3);
    assert!(graph.inputs[0].shape[1].is_none(), "the time axis is free: {:?}", graph.inputs);
    // Every input of a node is an input of the graph, a weight, or the output of an earlier node.
    let mut known: HashSet<&str> = graph.initializers.iter().map(|(name, _)| name.as_str()).collect();
    known.extend(graph.inputs.iter().map(|input| input.name.as_str()));
    for node in &graph.nodes {
        assert!(!node.op_type.is_empty());
        for input in node.inputs.iter().filter(|input| !input.is_empty()) {
            assert!(known.contains(input.as_str()), "{} of {}", input, node.name);
        }
        known.extend(node.outputs.iter().map(String::as_str));
    }
    assert!(known.contains(graph.outputs[0].name.as_str()));
    let convolution = graph.nodes.iter().find(|node| node.op_type == "Conv").unwrap();
    assert_eq!(convolution.ints("kernel_shape").unwrap().len(), 2);
    let weight = file.initializer(&convolution.inputs[1]).unwrap();
    assert_eq!(weight.shape().len(), 4);
    assert!(
        weight.to_floats().unwrap().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().any(|x| *x != 0.0)
    );
    let constant =
        graph.nodes.iter().filter(|node| node.op_type == "Constant").find_map(|node| node.attribute("value"));
    if let Some(OnnxAttribute::Tensor(tensor)) = constant {
        file.load(tensor).unwrap();
    }
}

#[test]
fn a_weight_that_kept_its_name_has_the_values_of_the_golden_file() {
    let exported = flowmill_weights::read(&golden("campplus_small.onnx")).unwrap();
    let reference = flowmill_weights::read(&golden("campplus.safetensors")).unwrap();
    let mut same = 0;
    for (name, tensor) in &exported.tensors {
        if let Some(expected) = reference.tensors.get(&format!("param.{name}")) {
            let values = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(tensor), values(expected), "{name}");
            same += 1;
        }
    }
    assert!(same > 20, "{same}");
}

#[test]
fn numbers_may_be_raw_or_typed() {
    let raw = flowmill_weights::from_bytes(&small_onnx(), Path::new("x")).unwrap();
    assert_eq!(raw.tensors["w"].to_vec1::<f32>().unwrap(), [1.0, 2.0]);
    let data: Vec<u8> = [1f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let typed = onnx(&[field(1, &[2]), number(2, 1), field(8, b"w"), field(4, &data)].concat());
    assert_eq!(
        flowmill_weights::from_bytes(&typed, Path::new("x")).unwrap().tensors["w"].to_vec1::<f32>().unwrap(),
        [1.0, 2.0]
    );
    let integers = onnx(&[number(1, 3), number(2, 7), field(8, b"w"), field(7, &[1, 2, 3])].concat());
    let read = flowmill_weights::from_bytes(&integers, Path::new("x")).unwrap();
    assert_eq!(read.integers["w"].to_vec1::<i64>().unwrap(), [1, 2, 3]);
    let halves = onnx(&[number(1, 1), number(2, 10), field(8, b"w"), field(5, &[0x80, 0x78])].concat());
    assert_eq!(
        flowmill_weights::from_bytes(&halves, Path::new("x")).unwrap().tensors["w"].to_vec1::<f32>().unwrap(),
        [1.0]
    );
}

#[test]
fn models_that_lie_are_refused() {
    let refused = |bytes: &[u8], value: &str| refusal(bytes).expect(Damaged, &[value]);
    refused(&onnx(&[number(1, 2), number(2, 1), field(8, b"w"), number(14, 1)].concat()), "another file");
    refused(&onnx(&[number(1, 3), number(2, 1), field(8, b"w"), field(9, &[0; 8])].concat()), "8 bytes");
    refused(&onnx(&[number(1, 1), number(2, 1), field(8, b"w"), field(9, &[0; 8])].concat()), "8 bytes for F32");
    refusal(&onnx(&[number(1, 2), number(2, 8), field(8, b"w"), field(9, &[0; 8])].concat()))
        .expect(Unsupported, &["type 8"]);
    refused(&onnx(&[&number(1, 1)[..], &[1 << 3, 0xff, 0xff]].concat()), "byte ");
    let mut graph = Vec::new();
    for _ in 0..40 {
        graph = field(1, &field(5, &field(6, &graph)));
    }
    refusal(&[number(1, 8), field(7, &graph), field(8, &number(2, 17))].concat()).expect(TooLarge, &["16 deep"]);
    let whole = std::fs::read(golden("campplus_small.onnx")).unwrap();
    for cut in [whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..cut], "ONNX");
    }
    refused(&[number(1, 8), field(2, b"x")].concat(), "graph");
}

/// Writes a `.safetensors` with one tensor `net.w` of this type and shape, whose bytes are `elements` and zeros after them.
fn one_tensor(folder: &Path, kind: &str, shape: &[u64], bytes: u64, elements: &[u8]) -> PathBuf {
    let path = folder.join("weights.safetensors");
    let header = format!("{{\"net.w\":{{\"dtype\":\"{kind}\",\"shape\":{shape:?},\"data_offsets\":[0,{bytes}]}}}}");
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(elements).unwrap();
    file.set_len(8 + header.len() as u64 + bytes).unwrap();
    path
}

#[test]
fn a_written_graph_is_read_back() {
    let folder = folder("graph");
    let halves = [0x3c00u16, 0xc000].map(u16::to_le_bytes).concat();
    let weights = one_tensor(&folder, "F16", &[2], 4, &halves);
    let path = folder.join("graph.onnx");
    let mut archive = Archive::open(&weights).unwrap();
    let mut builder = OnnxBuilder::new("net", &mut archive, "net.");
    let x = builder.input("x", &[OnnxAxis::Free("items"), OnnxAxis::Fixed(2)]);
    let weight = builder.weight("w").unwrap();
    assert_eq!(builder.weight("w").unwrap(), weight);
    let product = builder.node("Mul", &[&x, &weight], &[]);
    let parts = builder.split(&product, &[1, 1], -1);
    let (half, same) = (builder.floats(&[0.5], &[]), builder.floats(&[0.5], &[]));
    assert_eq!(half, same);
    let scaled = builder.node("Mul", &[&parts[1], &half], &[]);
    let settings =
        [("axis", OnnxSetting::Int(0)), ("list", OnnxSetting::Ints(&[0, -3])), ("size", OnnxSetting::Float(0.0))];
    let joined = builder.node("Concat", &[&parts[0], &scaled], &settings);
    builder.output(&joined, "y", &[OnnxAxis::Fixed(3)]);
    builder.write(&path).unwrap();

    let mut file = OnnxFile::open(&path).unwrap();
    assert_eq!((file.producer.as_str(), file.operator_sets[""]), ("flowmill", 18));
    let graph = file.graph.clone();
    assert_eq!(graph.name, "net");
    assert_eq!(graph.inputs, [OnnxValue { name: "x".to_owned(), shape: vec![None, Some(2)] }]);
    assert_eq!(graph.outputs, [OnnxValue { name: "y".to_owned(), shape: vec![Some(3)] }]);
    let operations: Vec<&str> = graph.nodes.iter().map(|node| node.op_type.as_str()).collect();
    assert_eq!(operations, ["Mul", "Split", "Mul", "Concat", "Identity"]);
    assert_eq!(graph.nodes[1].outputs, parts);
    assert_eq!(graph.nodes[1].int("axis"), Some(-1));
    let concat = &graph.nodes[3];
    assert_eq!(
        (concat.int("axis"), concat.ints("list"), concat.float("size")),
        (Some(0), Some(&[0, -3][..]), Some(0.0))
    );
    // Halves become single precision; equal constants are one.
    let stored = file.initializer("w").unwrap();
    assert_eq!(stored.element(), ElementType::F32);
    assert_eq!(stored.data(), [1.0f32, -2.0].map(f32::to_le_bytes).concat());
    let sizes = file.initializer(&graph.nodes[1].inputs[1]).unwrap();
    assert_eq!((sizes.element(), sizes.shape()), (ElementType::I64, &[2usize][..]));
    assert_eq!(graph.initializers.len(), 3);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_graph_that_cannot_be_written_leaves_no_file() {
    let folder = folder("no-graph");
    let path = folder.join("graph.onnx");
    let message = |error: WeightError| error.to_string();
    let mut archive = Archive::open(&one_tensor(&folder, "F32", &[2], 8, &[])).unwrap();
    let absent = message(OnnxBuilder::new("net", &mut archive, "net.").weight("v").unwrap_err());
    assert!(absent.contains("weights.safetensors") && absent.contains("`net.v`"), "{absent}");
    let left = message(OnnxBuilder::new("net", &mut archive, "net.").write(&path).unwrap_err());
    assert!(left.contains("weights.safetensors") && left.contains("`net.w`"), "{left}");
    // The file of weights has a hole: it takes no room.
    let elements = 1u64 << 29;
    let mut archive = Archive::open(&one_tensor(&folder, "F32", &[elements], 4 * elements, &[])).unwrap();
    let mut builder = OnnxBuilder::new("net", &mut archive, "net.");
    builder.weight("w").unwrap();
    let large = message(builder.write(&path).unwrap_err());
    assert!(large.contains("graph.onnx") && large.contains("2147483647"), "{large}");
    assert!(!path.exists());
    std::fs::remove_dir_all(folder).unwrap();
}
