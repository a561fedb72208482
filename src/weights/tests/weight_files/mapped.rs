//! Tensors that stay in their file.

use ::safetensors::tensor::{Dtype, TensorView};
use candle_core::{DType, Device, Tensor};
use flowmill_weights::{Archive, ElementType, FaultKind, WeightError};
use std::collections::BTreeMap;
use std::path::Path;

fn bytes_of(tensors: &[(&str, Dtype, Vec<u8>, Vec<usize>)]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, dtype, bytes, shape)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    ::safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()
}

/// The bytes of numbers in an element type.
fn encoded(numbers: &[f32], dtype: DType) -> Vec<u8> {
    let tensor = Tensor::new(numbers, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    match dtype {
        DType::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F64 => numbers.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect(),
        DType::BF16 => tensor.to_vec1::<half::bf16>().unwrap().into_iter().flat_map(half::bf16::to_le_bytes).collect(),
        _ => tensor.to_vec1::<half::f16>().unwrap().into_iter().flat_map(half::f16::to_le_bytes).collect(),
    }
}

#[test]
fn floats_of_every_width_are_converted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    // Exact in all types.
    let numbers: Vec<f32> = (0..3000).map(|i| (i % 200) as f32 - 100.0).collect();
    let kinds = [
        ("a", Dtype::F32, DType::F32),
        ("b", Dtype::BF16, DType::BF16),
        ("c", Dtype::F16, DType::F16),
        ("d", Dtype::F64, DType::F64),
    ];
    let mut tensors: Vec<_> =
        kinds.iter().map(|(name, kind, dtype)| (*name, *kind, encoded(&numbers, *dtype), vec![30, 100])).collect();
    tensors.push(("steps", Dtype::I64, vec![0; 8], vec![1]));
    std::fs::write(&path, bytes_of(&tensors)).unwrap();
    let mapped = Archive::open(&path).unwrap().map().unwrap();
    assert_eq!(mapped.keys().map(String::as_str).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(mapped["b"].element(), ElementType::BF16);
    for weight in mapped.values() {
        assert_eq!((weight.shape(), weight.count()), (&[30, 100][..], 3000));
        let mut out = vec![f32::NAN; 2500];
        weight.copy_to(300, &mut out);
        assert_eq!(out, numbers[300..2800]);
    }
}

#[test]
fn shards_are_mapped_and_a_missing_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (shard, name) in [("one.safetensors", "a"), ("two.safetensors", "b")] {
        let bytes = bytes_of(&[(name, Dtype::F32, encoded(&[1.0, 2.0], DType::F32), vec![2])]);
        std::fs::write(folder.path().join(shard), bytes).unwrap();
    }
    let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    assert_eq!(Archive::open(folder.path()).unwrap().map().unwrap().len(), 2);
    std::fs::remove_file(folder.path().join("two.safetensors")).unwrap();
    assert!(Archive::open(folder.path()).is_err());
}

#[test]
fn other_files_and_memory_cannot_be_mapped() {
    let tensors = vec![("a".to_owned(), Tensor::new(&[1f32], &Device::Cpu).unwrap())];
    let bytes = flowmill_weights::to_bytes(&tensors, &BTreeMap::new(), Path::new("x.safetensors")).unwrap();
    let in_memory = Archive::from_bytes(&bytes, Path::new("x.safetensors")).unwrap().map();
    let torch = Archive::open(&crate::support::golden("pt/cosyvoice2_flow_full.pt")).and_then(|archive| archive.map());
    for refused in [in_memory, torch] {
        assert!(matches!(refused, Err(WeightError::File { kind: FaultKind::Unsupported, .. })));
    }
}
