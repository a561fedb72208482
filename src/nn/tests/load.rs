//! Loading of parameters from named tensors: what fits, and the report.

mod support;

use candle_core::{DType, Device, Tensor};
use flowmill_nn::Parameters;
use std::collections::BTreeMap;

fn parameters() -> Parameters {
    let mut parameters = Parameters::new();
    for (name, shape) in [("b.weight", &[2, 3][..]), ("a.weight", &[4]), ("a.bias", &[1])] {
        parameters.add(name, support::value(name, shape).tensor().clone()).unwrap();
    }
    parameters
}

fn tensors() -> BTreeMap<String, Tensor> {
    parameters().named_tensors().into_iter().collect()
}

fn elements(parameters: &Parameters) -> Vec<Vec<f32>> {
    let tensors = parameters.named_tensors();
    tensors.iter().map(|(_, tensor)| tensor.flatten_all().unwrap().to_vec1().unwrap()).collect()
}

#[test]
fn all_parameters_are_set() {
    let mut copy = parameters();
    for id in copy.ids() {
        copy.set(id, copy.tensor(id).zeros_like().unwrap()).unwrap();
    }
    let report = copy.load(&tensors()).unwrap();
    assert!(report.is_exact());
    assert_eq!(report.matched, ["b.weight", "a.weight", "a.bias"]);
    assert_eq!(elements(&copy), elements(&parameters()));
}

#[test]
fn the_report_names_what_differs() {
    let mut tensors = tensors();
    let other = tensors.remove("a.bias").unwrap();
    tensors.insert("c".to_owned(), other);
    tensors.insert("a.weight".to_owned(), Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap());
    let report = parameters().load(&tensors).unwrap();
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
