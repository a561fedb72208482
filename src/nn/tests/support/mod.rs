//! Random values, and differences between results.
#![allow(dead_code, reason = "each test file uses its part")]

use flowmill_nn::{Value, random::RngKey};

/// Random elements for a named input.
pub fn normals(name: &str, shape: &[usize]) -> Vec<f32> {
    RngKey::new(17).purpose(name).normals(shape.iter().product())
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
