//! Adapters: their derivatives, their initial effect (none), and merging, which does not change the output.

mod support;

use std::collections::BTreeMap;

use candle_core::Tensor;
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::{FeedForward, Linear};
use flowmill_nn::low_rank::{self, LowRankSettings};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Activation, Context, ParameterId, Parameters, Tape, Value};
use support::{elements, value};

const SCALE: f32 = 1.5;

/// A layer followed by a feed-forward block, 7 channels wide, 5 out.
struct Network {
    first: Linear,
    block: FeedForward,
    last: Linear,
}

fn network() -> (Network, Parameters) {
    let mut parameters = Parameters::new();
    let mut builder = Builder::new(&mut parameters, RngKey::new(2));
    let first = Linear::new(builder.scope("first"), 7, 6).unwrap();
    let mut linear = |name: &str, inputs, outputs| Linear::new(builder.scope(name), inputs, outputs).unwrap();
    let block = FeedForward::new(linear("up", 6, 12), linear("down", 12, 6), Activation::GeluTanh, 0.0);
    let last = Linear::with_init(builder.scope("last"), 6, 5, Init::Normal(0.4), None).unwrap();
    (Network { first, block, last }, parameters)
}

impl Network {
    /// Uses linear layers in every possible way.
    fn forward(&self, context: &Context, input: &Value) -> Value {
        let state = self.first.forward_activated(context, input, Activation::Tanh).unwrap();
        let inner = self.block.forward(context, &state).unwrap();
        let state = self.block.forward_onto(context, &inner, &state, 0.0).unwrap();
        let out = self.last.forward(context, &state).unwrap();
        self.last.forward_onto(context, &state, &out).unwrap()
    }
}

/// Adapters on every layer with B away from zero; everything else frozen.
fn adapted(dropout: f32) -> (Network, Parameters, Vec<ParameterId>) {
    let (network, mut parameters) = network();
    let weights: Vec<ParameterId> = parameters.ids().filter(|id| parameters.is_linear(*id)).collect();
    assert_eq!(weights.len(), 4);
    parameters.ids().for_each(|id| parameters.set_trainable(id, false));
    let settings = LowRankSettings { rank: 2, scale: SCALE, dropout };
    let mut trained = Vec::new();
    for id in weights {
        let adapter = parameters.add_low_rank(id, settings, RngKey::new(5)).unwrap();
        let dims = parameters.tensor(adapter.up).dims().to_vec();
        let name = parameters.name(adapter.up).to_owned();
        parameters.set(adapter.up, (value(&name, &dims).tensor() * 0.3).unwrap()).unwrap();
        trained.extend([adapter.down, adapter.up]);
    }
    (network, parameters, trained)
}

fn output(network: &Network, parameters: &Parameters) -> Vec<f32> {
    elements(&network.forward(&Context::inference(parameters), &value("x", &[9, 7])))
}

#[test]
fn an_adapter_starts_as_nothing() {
    let (network, mut parameters) = network();
    let before = output(&network, &parameters);
    let settings = LowRankSettings { rank: 3, scale: SCALE, dropout: 0.1 };
    for name in ["first.weight", "up.weight", "last.weight"] {
        let id = parameters.find(name).unwrap();
        parameters.add_low_rank(id, settings, RngKey::new(1)).unwrap();
    }
    let after = output(&network, &parameters);
    let worst = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-6, "{worst}");
    assert_eq!(parameters.tensor(parameters.find("up.lora_A.weight").unwrap()).dims(), [3, 6]);
    assert_eq!(parameters.tensor(parameters.find("up.lora_B.weight").unwrap()).dims(), [12, 3]);
}

#[test]
fn gradients_are_those_of_finite_differences_and_the_base_has_none() {
    let (network, mut parameters, trained) = adapted(0.0);
    let weights = support::normals("weights", &[9, 5]);
    let loss = |parameters: &Parameters| -> f64 {
        output(&network, parameters).iter().zip(&weights).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum()
    };
    let tape = Tape::new();
    let context = Context::training(&parameters, &tape, RngKey::new(3));
    let recorded = network.forward(&context, &value("x", &[9, 7]));
    assert_eq!(elements(&recorded), output(&network, &parameters), "recording changes nothing");
    let seed = Tensor::from_vec(weights.clone(), &[9, 5], &candle_core::Device::Cpu).unwrap();
    let gradients = tape.backward_from(&recorded, seed).unwrap();
    drop(context);
    assert_eq!(gradients.iter().map(|(id, _)| id).collect::<Vec<_>>(), trained, "of the adapters, and of nothing else");
    for id in trained {
        let gradient: Vec<f32> = gradients.get(id).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let start = parameters.tensor(id).clone();
        let plain: Vec<f32> = start.flatten_all().unwrap().to_vec1().unwrap();
        let mut at = |index: usize, offset: f32| {
            let mut moved = plain.clone();
            moved[index] += offset;
            let tensor = Tensor::from_vec(moved, start.dims(), start.device()).unwrap();
            parameters.set(id, tensor).unwrap();
            loss(&parameters)
        };
        let step = 1e-2f32;
        let expected: Vec<f64> = (0..plain.len())
            .map(|index| {
                let near = at(index, step) - at(index, -step);
                let far = at(index, 2.0 * step) - at(index, -2.0 * step);
                (8.0 * near - far) / (12.0 * f64::from(step))
            })
            .collect();
        parameters.set(id, start).unwrap();
        let worst = support::worst(&gradient, &expected);
        assert!(worst < 2e-3, "{}: {worst}", parameters.name(id));
    }
}

#[test]
fn merging_changes_nothing_but_the_names() {
    let (network, parameters, _) = adapted(0.2);
    let before = output(&network, &parameters);
    let mut tensors: BTreeMap<String, Tensor> = parameters.named_tensors().into_iter().collect();
    let taken = low_rank::merge(&mut tensors, SCALE).unwrap();
    assert_eq!(taken.len(), 8);
    let (network, mut plain) = self::network();
    assert!(plain.load(&tensors).unwrap().is_exact());
    let after = output(&network, &plain);
    let worst = support::worst(&after, &before.iter().map(|y| f64::from(*y)).collect::<Vec<_>>());
    assert!(worst < 1e-5, "{worst}");

    for half in ["up.lora_A.weight", "up.lora_B.weight", "up.weight"] {
        let mut tensors: BTreeMap<String, Tensor> = parameters.named_tensors().into_iter().collect();
        tensors.remove(half);
        let error = low_rank::merge(&mut tensors, SCALE).unwrap_err().to_string();
        assert!(error.contains(half), "{error}");
    }
}

#[test]
fn dropout_is_drawn_in_training_only_and_keeps_the_mean() {
    let (network, parameters, _) = adapted(0.5);
    let tape = Tape::new();
    let trained = |step| {
        let context = Context::training(&parameters, &tape, RngKey::new(3).step(step));
        elements(&network.last.forward(&context, &value("y", &[4, 6])).unwrap())
    };
    assert_eq!(trained(0), trained(0));
    assert_ne!(trained(0), trained(1));
    let plain = elements(&network.last.forward(&Context::inference(&parameters), &value("y", &[4, 6])).unwrap());
    let mut means = vec![0f64; plain.len()];
    for step in 0..4000 {
        trained(step).iter().zip(&mut means).for_each(|(y, mean)| *mean += f64::from(*y) / 4000.0);
    }
    assert!(support::worst(&plain, &means) < 0.05, "{plain:?} {means:?}");
}

#[test]
fn what_no_adapter_fits_is_refused() {
    let (_, mut parameters) = network();
    let settings = |rank| LowRankSettings { rank, scale: 1.0, dropout: 0.0 };
    let (weight, bias) = (parameters.find("last.weight").unwrap(), parameters.find("up.bias").unwrap());
    assert!(parameters.add_low_rank(bias, settings(1), RngKey::new(0)).is_err());
    assert!(parameters.add_low_rank(weight, settings(0), RngKey::new(0)).is_err());
    assert!(parameters.add_low_rank(weight, settings(6), RngKey::new(0)).is_err());
    parameters.add_low_rank(weight, settings(5), RngKey::new(0)).unwrap();
    assert!(parameters.add_low_rank(weight, settings(5), RngKey::new(0)).is_err(), "there is one already");
}
