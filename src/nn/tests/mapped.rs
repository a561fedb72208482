//! Frozen weights that stay in their file: the same results, and nothing but the file in memory.

mod support;

use candle_core::{Device, Tensor};
use flowmill_nn::init::Builder;
use flowmill_nn::layers::{Embedding, Linear};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, NnError, Parameters, Precision, Tape};
use flowmill_weights::{Archive, MappedTensor};
use std::collections::BTreeMap;
use support::{elements, value};

/// An embedding, a frozen layer and a trained one.
struct Network {
    table: Embedding,
    frozen: Linear,
    trained: Linear,
}

fn network(parameters: &mut Parameters, fills: bool) -> Network {
    let mut builder = Builder::new(parameters, RngKey::new(3));
    let trained = Linear::new(builder.scope("trained"), 6, 6).unwrap();
    let mut builder = if fills { builder } else { builder.without_values() };
    let table = Embedding::new(builder.scope("table"), 9, 6).unwrap();
    let frozen = Linear::new(builder.scope("frozen"), 6, 4).unwrap();
    for id in parameters.ids() {
        let frozen = !parameters.name(id).starts_with("trained");
        parameters.set_trainable(id, !frozen);
    }
    Network { table, frozen, trained }
}

/// The loss and the gradient of the trained weight.
fn results(network: &Network, parameters: &Parameters, precision: Precision) -> (f32, Vec<f32>) {
    let tape = Tape::with_precision(precision);
    let context = Context::training(parameters, &tape, RngKey::new(1));
    let state = network.table.forward(&context, &[3, 0, 3, 8], &[4]).unwrap();
    let state = network.trained.forward(&context, &state).unwrap();
    let output = network.frozen.forward(&context, &state).unwrap();
    let loss = output.multiply(&output).unwrap().sum().unwrap();
    let gradients = tape.backward(&loss).unwrap();
    let gradient = gradients.get(network.trained.weight()).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (loss.scalar().unwrap(), gradient)
}

/// Writes the parameters of a network and maps the file.
fn mapped(parameters: &Parameters, folder: &std::path::Path) -> BTreeMap<String, MappedTensor> {
    let path = folder.join("model.safetensors");
    let bytes = flowmill_weights::to_bytes(&parameters.named_tensors(), &BTreeMap::new(), &path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    Archive::open(folder).unwrap().map().unwrap()
}

#[test]
fn mapped_weights_are_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let mut filled = Parameters::new();
    let full = network(&mut filled, true);
    let mut parameters = Parameters::new();
    let network = network(&mut parameters, false);
    assert_eq!(parameters.first_unfilled(), Some("table.weight"));
    for (name, weight) in mapped(&filled, folder.path()) {
        let id = parameters.find(&name).unwrap();
        if name.starts_with("trained") {
            parameters.set(id, filled.tensor(filled.find(&name).unwrap()).clone()).unwrap();
        } else {
            parameters.set_mapped(id, weight).unwrap();
            assert!(!parameters.trainable(id));
        }
    }
    assert_eq!(parameters.first_unfilled(), None);
    for precision in [Precision::Fp32, Precision::Bf16] {
        let (expected, found) = (results(&full, &filled, precision), results(&network, &parameters, precision));
        assert_eq!(found, expected, "{precision:?}");
    }
    let id = parameters.find("frozen.weight").unwrap();
    assert_eq!(parameters.tensor(id).dims(), [4, 6]);
    assert_eq!(elements(&flowmill_nn::Value::plain(parameters.read(id).unwrap()).unwrap()).len(), 24);
    assert_eq!(parameters.element_count(false), filled.element_count(false));
    let context = Context::inference(&parameters);
    assert!(matches!(network.table.forward(&context, &[9], &[1]), Err(NnError::Index { index: 9, size: 9, .. })));
}

#[test]
fn weights_of_another_shape_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut filled = Parameters::new();
    network(&mut filled, true);
    let weights = mapped(&filled, folder.path());
    let mut parameters = Parameters::new();
    let id = parameters.add("weight", Tensor::zeros((2, 2), candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
    let refused = parameters.set_mapped(id, weights["frozen.weight"].clone());
    assert!(matches!(refused, Err(NnError::Shape { .. })));
    assert_eq!(value("x", &[1]).dims(), [1]);
}
