//! Large arrays: results do not depend on the number of threads.

mod support;

use candle_core::{Device, Tensor};
use flowmill_nn::{Context, Gradients, Parameters, Tape, Value, random::RngKey};
use flowmill_train::OptimConfig;
use flowmill_train::optimizer::{OptimizerName, Update, gradient_norms};
use support::OPTIMIZERS;

const ROWS: usize = 401;
const COLUMNS: usize = 999;

fn draw(name: &str) -> Tensor {
    RngKey::new(4).purpose(name).normal_tensor(&[ROWS, COLUMNS], &Device::Cpu).unwrap()
}

fn parameters() -> Parameters {
    let mut parameters = Parameters::new();
    parameters.add("weight", draw("weight")).unwrap();
    parameters
}

fn gradients(parameters: &Parameters) -> Gradients {
    let tape = Tape::new();
    let context = Context::training(parameters, &tape, RngKey::new(0));
    let weight = context.parameter(parameters.find("weight").unwrap());
    let loss = weight.multiply(&Value::plain(draw("gradient")).unwrap()).unwrap().sum().unwrap();
    tape.backward(&loss).unwrap()
}

/// The weight after three updates.
fn trained(name: OptimizerName) -> Vec<f32> {
    let mut parameters = parameters();
    let gradients = gradients(&parameters);
    let mut optimizer = OptimConfig { name, ..OptimConfig::default() }.build(&parameters).unwrap();
    for _ in 0..3 {
        optimizer.step(&mut parameters, &gradients, Update::new(1e-2, 0.7)).unwrap();
    }
    let weight = parameters.tensor(parameters.find("weight").unwrap());
    weight.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn norm_and_update_are_the_same_on_any_number_of_threads() {
    let mut expected: Option<(u64, Vec<Vec<f32>>)> = None;
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let result = pool.install(|| {
            let norms = gradient_norms(&parameters(), &gradients(&parameters()), 1.0).unwrap();
            (norms.total.to_bits(), OPTIMIZERS.map(trained).to_vec())
        });
        assert!(expected.get_or_insert_with(|| result.clone()) == &result, "{threads} threads");
    }
    let norm = f64::from_bits(expected.unwrap().0);
    let plain = draw("gradient").flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let expected = plain.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    assert!((norm / expected - 1.0).abs() < 1e-12);
}
