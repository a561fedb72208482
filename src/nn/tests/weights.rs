//! Weight files: round trip, reports, refusals.

mod support;

use candle_core::{Device, Tensor};
use flowmill_nn::{Parameters, weights};
use std::collections::BTreeMap;
use std::path::Path;

fn parameters() -> Parameters {
    let mut parameters = Parameters::new();
    for (name, shape) in [("b.weight", &[2, 3][..]), ("a.weight", &[4]), ("a.bias", &[1])] {
        parameters.add(name, support::value(name, shape).tensor().clone()).unwrap();
    }
    parameters
}

fn bytes(parameters: &Parameters) -> Vec<u8> {
    let metadata = BTreeMap::from([("step".to_owned(), "7".to_owned()), ("model".to_owned(), "x".to_owned())]);
    weights::to_bytes(&parameters.named_tensors(), &metadata, Path::new("m.safetensors")).unwrap()
}

#[test]
fn what_is_written_is_read_back_bit_for_bit() {
    let original = parameters();
    let file = weights::from_bytes(&bytes(&original), Path::new("m.safetensors")).unwrap();
    assert_eq!(file.metadata["step"], "7");
    let mut copy = parameters();
    for id in copy.ids() {
        copy.set(id, copy.tensor(id).zeros_like().unwrap()).unwrap();
    }
    let report = copy.load(&file.tensors).unwrap();
    assert!(report.is_exact());
    assert_eq!(report.matched, ["b.weight", "a.weight", "a.bias"]);
    assert_eq!(bytes(&copy), bytes(&original));
}

#[test]
fn the_report_names_what_differs() {
    let mut file = weights::from_bytes(&bytes(&parameters()), Path::new("m.safetensors")).unwrap();
    let other = file.tensors.remove("a.bias").unwrap();
    file.tensors.insert("c".to_owned(), other);
    file.tensors.insert("a.weight".to_owned(), Tensor::zeros((2, 2), candle_core::DType::F32, &Device::Cpu).unwrap());
    let report = parameters().load(&file.tensors).unwrap();
    assert_eq!(report.matched, ["b.weight"]);
    assert_eq!(report.missing, ["a.bias"]);
    assert_eq!(report.extra, ["c"]);
    assert_eq!(report.mismatched, [("a.weight".to_owned(), vec![4], vec![2, 2])]);
    let text = report.to_string();
    assert!(
        ["1 missing (`a.bias`)", "1 extra (`c`)", "`a.weight`: model [4], file [2, 2]"]
            .iter()
            .all(|s| text.contains(s))
    );
}

#[test]
fn damaged_and_non_finite_files_are_refused_with_their_reason() {
    let path = Path::new("m.safetensors");
    let good = bytes(&parameters());
    for cut in [0, 4] {
        assert!(weights::from_bytes(&good[..cut], path).unwrap_err().to_string().starts_with("m.safetensors: it is "));
    }
    for cut in [40, good.len() - 1] {
        let error = weights::from_bytes(&good[..cut], path).unwrap_err().to_string();
        assert!(error.contains("m.safetensors: not a whole safetensors file"), "{error}");
    }
    let mut poisoned = good;
    let last = poisoned.len() - 4;
    poisoned[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = weights::from_bytes(&poisoned, path).unwrap_err().to_string();
    assert!(error.contains("tensor `a.bias` holds NaN at element 0"), "{error}");
}

#[test]
fn nothing_that_is_not_finite_is_written() {
    let tensors = [("w".to_owned(), Tensor::new(&[1f32, f32::INFINITY], &Device::Cpu).unwrap())];
    let error = weights::to_bytes(&tensors, &BTreeMap::new(), Path::new("m.safetensors")).unwrap_err().to_string();
    assert!(error.contains("tensor `w` holds inf at element 1"), "{error}");
}
