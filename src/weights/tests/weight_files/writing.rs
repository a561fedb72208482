//! Written files: the same bytes every time, and nothing lost.

use crate::support::{golden, legacy};
use candle_core::{Device, Tensor};
use flowmill_weights::FaultKind::NotFinite;
use flowmill_weights::{Archive, RawTensor, Scalar, Target, WeightError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// All contents of a file, by name.
fn contents(path: &Path) -> (BTreeMap<String, RawTensor>, BTreeMap<String, String>) {
    let mut archive = Archive::open(path).unwrap();
    let names: Vec<String> = archive.tensors.iter().map(|(name, _)| name.clone()).collect();
    let tensors = names.into_iter().enumerate().map(|(index, name)| (name, archive.load(index).unwrap())).collect();
    (tensors, archive.scalars.iter().map(|(name, scalar)| (name.clone(), format!("{scalar:?}"))).collect())
}

fn convert(from: &Path, to: &Path) {
    let target = Target::of(to).unwrap();
    flowmill_weights::write_archive(to, &mut Archive::open(from).unwrap(), target).unwrap();
}

/// A folder for this test only; callers remove it with its files.
pub fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("flowmill-weights-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn nothing_changes_on_the_way_from_format_to_format() {
    let folder = folder("convert");
    let old = folder.join("old.pt");
    std::fs::write(&old, legacy()).unwrap();
    for source in
        [golden("pt/cosyvoice2_flow_full.pt"), golden("pt/dtypes_views.pt"), golden("campplus_small.onnx"), old]
    {
        let original = contents(&source);
        assert!(!original.0.is_empty());
        let (safetensors, torch) = (folder.join("a.safetensors"), folder.join("a.pt"));
        convert(&source, &safetensors);
        assert_eq!(contents(&safetensors), original, "{}", source.display());
        convert(&safetensors, &torch);
        assert_eq!(contents(&torch), original, "{}", source.display());
        let again = folder.join("b.pth");
        convert(&torch, &again);
        assert_eq!(std::fs::read(&torch).unwrap(), std::fs::read(&again).unwrap(), "{}", source.display());
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_legacy_format_is_read_with_its_views() {
    let file = flowmill_weights::from_bytes(&legacy(), Path::new("old.pt")).unwrap();
    assert_eq!(file.tensors["w"].to_vec1::<f32>().unwrap(), [1.0, 2.0, 3.0]);
    assert_eq!(file.tensors["v"].to_vec1::<f32>().unwrap(), [2.0, 3.0]);
}

#[test]
fn a_state_dict_is_written_with_its_scalars() {
    let folder = folder("state-dict");
    let path = folder.join("flow.pt");
    let tensors = [
        ("encoder.weight".to_owned(), Tensor::arange(0f32, 6.0, &Device::Cpu).unwrap().reshape((1, 2, 3, 1)).unwrap()),
        ("scalar".to_owned(), Tensor::new(7f32, &Device::Cpu).unwrap()),
        ("empty".to_owned(), Tensor::zeros((0, 3), candle_core::DType::F32, &Device::Cpu).unwrap()),
    ];
    let scalars = [300, -1, 70_000, -(1 << 40)].map(|value| (format!("n{value}"), Scalar::Int(value)));
    flowmill_weights::write_torch(&path, &tensors, &scalars).unwrap();
    let first = std::fs::read(&path).unwrap();
    let file = flowmill_weights::read(&path).unwrap();
    for (name, tensor) in &tensors {
        assert_eq!(file.tensors[name].dims(), tensor.dims());
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&file.tensors[name]), values(tensor));
    }
    assert!(scalars.iter().all(|(name, scalar)| file.scalars[name] == *scalar));
    flowmill_weights::write_torch(&path, &tensors, &scalars).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);
    let twice = [tensors[0].clone(), tensors[0].clone()];
    let error = flowmill_weights::write_torch(&path, &twice, &[]).unwrap_err().to_string();
    assert!(error.contains("two") && error.contains("`encoder.weight`"), "{error}");
    let infinite = [("w".to_owned(), Tensor::new(&[f32::INFINITY], &Device::Cpu).unwrap())];
    let error = flowmill_weights::write_torch(&path, &infinite, &[]).unwrap_err();
    let named = |message: &str| message.contains("`w` holds inf");
    assert!(matches!(&error, WeightError::File { kind: NotFinite, message, .. } if named(message)), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}
