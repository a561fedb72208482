//! Checks of derivatives against finite differences.
#![allow(dead_code, reason = "each test file uses its part")]

use candle_core::{Device, Tensor};
use flowmill_nn::{Context, Parameters, Tape, Value, random::Draw};

/// Random elements for a named input.
pub fn normals(name: &str, shape: &[usize]) -> Vec<f32> {
    Draw::new(17).purpose(name).normals(shape.iter().product())
}

/// A plain value of random elements.
pub fn value(name: &str, shape: &[usize]) -> Value {
    Value::from_vec(normals(name, shape), shape).unwrap()
}

/// The elements of a value.
pub fn elements(value: &Value) -> Vec<f32> {
    value.tensor().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference relative to the largest expected magnitude.
pub fn worst(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    let difference = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    difference.fold(0.0, f64::max) / (largest + 1e-6)
}

/// Compares the recorded gradients of `sum(f(inputs) * weights)`, with random weights, to fourth-order central differences.
pub fn check_gradients(name: &str, shapes: &[&[usize]], f: impl Fn(&[Value]) -> Value) {
    check_gradients_at(name, shapes, 1.0, f);
}

/// As [`check_gradients`], with inputs of the given deviation.
pub fn check_gradients_at(name: &str, shapes: &[&[usize]], deviation: f32, f: impl Fn(&[Value]) -> Value) {
    let mut parameters = Parameters::new();
    let mut ids = Vec::new();
    for (index, shape) in shapes.iter().enumerate() {
        let elements = normals(&format!("{name} {index}"), shape).iter().map(|x| x * deviation).collect();
        let tensor = Tensor::from_vec::<_, f32>(elements, *shape, &Device::Cpu).unwrap();
        ids.push(parameters.add(format!("input {index}"), tensor).unwrap());
    }
    let tape = Tape::new();
    let context = Context::training(&parameters, &tape, Draw::new(3));
    let inputs: Vec<Value> = ids.iter().map(|id| context.parameter(*id)).collect();
    let output = f(&inputs);
    let weights = normals(&format!("{name} weights"), output.dims());
    let seed = Tensor::from_vec(weights.clone(), output.dims(), &Device::Cpu).unwrap();
    let gradients = tape.backward_from(&output, seed.clone()).unwrap();
    assert!(tape.is_empty());
    let after: Vec<f32> = seed.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(after, weights, "{name}: the seed that the caller holds is overwritten");

    let plain: Vec<Value> = inputs.iter().map(Value::detach).collect();
    assert_eq!(elements(&f(&plain)), elements(&output), "{name}: recording changes the result");
    let loss = |inputs: &[Value]| -> f64 {
        elements(&f(inputs)).iter().zip(&weights).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum()
    };
    for (input, id) in ids.iter().enumerate() {
        let gradient = gradients.get(*id).unwrap_or_else(|| panic!("{name}: input {input} has no gradient"));
        let gradient: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
        let expected: Vec<f64> = (0..gradient.len()).map(|element| difference(&plain, input, element, &loss)).collect();
        let error = worst(&gradient, &expected);
        assert!(error < 3e-4, "{name}: gradient of input {input} is off by {error}");
    }
}

fn difference(inputs: &[Value], input: usize, element: usize, loss: &impl Fn(&[Value]) -> f64) -> f64 {
    const STEP: f32 = 1.0 / 32.0;
    let at = |steps: f32| {
        let mut moved = inputs.to_vec();
        let mut changed = elements(&inputs[input]);
        changed[element] += steps * STEP;
        moved[input] = Value::from_vec(changed, inputs[input].dims()).unwrap();
        loss(&moved)
    };
    (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * f64::from(STEP))
}
