//! `.safetensors`: round trip and errors.

use crate::support::refusal;
use candle_core::{Device, Tensor};
use flowmill_weights::FaultKind::{Damaged, NotFinite, NotWeights};
use flowmill_weights::WeightError;
use std::collections::BTreeMap;
use std::path::Path;

/// Named tensors; the last element of the file is the bias.
fn tensors() -> Vec<(String, Tensor)> {
    let tensor = |name: &str, elements: Vec<f32>, shape: &[usize]| {
        (name.to_owned(), Tensor::from_vec(elements, shape, &Device::Cpu).unwrap())
    };
    vec![
        tensor("b.weight", vec![1.5, -2.25, 1e-30, 3e30, f32::MIN_POSITIVE / 8.0, -0.0], &[2, 3]),
        tensor("a.weight", vec![0.1, 0.2, 0.3, 0.4], &[4]),
        tensor("a.bias", vec![7.0], &[1]),
    ]
}

fn bytes() -> Vec<u8> {
    let metadata = BTreeMap::from([("step".to_owned(), "7".to_owned()), ("model".to_owned(), "x".to_owned())]);
    flowmill_weights::to_bytes(&tensors(), &metadata, Path::new("m.safetensors")).unwrap()
}

#[test]
fn what_is_written_is_read_back_bit_for_bit() {
    let file = flowmill_weights::from_bytes(&bytes(), Path::new("m.safetensors")).unwrap();
    assert_eq!(file.metadata["step"], "7");
    let bits = |tensor: &Tensor| -> Vec<u32> {
        tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    };
    for (name, tensor) in tensors() {
        assert_eq!(file.tensors[&name].dims(), tensor.dims());
        assert_eq!(bits(&file.tensors[&name]), bits(&tensor), "{name}");
    }
    assert_eq!(bytes(), bytes());
}

#[test]
fn damaged_and_non_finite_files_are_refused_with_their_reason() {
    let good = bytes();
    for cut in [0, 4] {
        refusal(&good[..cut]).expect(NotWeights, &[]);
    }
    for cut in [40, good.len() - 1] {
        refusal(&good[..cut]).expect(Damaged, &["safetensors"]);
    }
    let mut poisoned = good;
    let last = poisoned.len() - 4;
    poisoned[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    refusal(&poisoned).expect(NotFinite, &["`a.bias`", "NaN", "element 0"]);
}

#[test]
fn nothing_that_is_not_finite_is_written() {
    let tensors = [("w".to_owned(), Tensor::new(&[1f32, f32::INFINITY], &Device::Cpu).unwrap())];
    let error = flowmill_weights::to_bytes(&tensors, &BTreeMap::new(), Path::new("m.safetensors")).unwrap_err();
    assert!(
        matches!(&error, WeightError::File { kind: NotFinite, message, .. } if message.contains("`w` holds inf at element 1")),
        "{error}"
    );
}
