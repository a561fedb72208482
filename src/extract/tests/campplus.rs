//! The CAM++ encoder: its golden embedding from every kind of weight file, and the errors for files that do not
//! match.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use flowmill_extract::extractors::campplus::{Campplus, Dimensions};
use flowmill_nn::{device, host, random::RngKey};

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")).join(name)
}

struct Golden {
    /// Features and embedding of each item.
    items: Vec<(Vec<f32>, Vec<f32>)>,
    parameters: BTreeMap<String, Tensor>,
}

fn read_golden() -> Golden {
    let tensors = flowmill_weights::read(&golden("campplus.safetensors")).unwrap().tensors;
    let features = tensors["in.feat"].to_vec3::<f32>().unwrap();
    let embeddings = tensors["out.embedding"].to_vec2::<f32>().unwrap();
    let parameter =
        |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix("param.")?.to_owned(), tensor.clone()));
    let parameters = tensors.iter().filter_map(parameter).collect();
    Golden { items: features.into_iter().map(|item| item.concat()).zip(embeddings).collect(), parameters }
}

fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let error = found.iter().zip(expected).fold(0.0f32, |error, (a, b)| error.max((a - b).abs()));
    f64::from(error) / (f64::from(largest) + 1e-6)
}

/// Writes a state dict and opens it as an encoder.
fn open(folder: &Path, name: &str, parameters: &BTreeMap<String, Tensor>) -> Result<Campplus, String> {
    let path = folder.join(name);
    let tensors: Vec<(String, Tensor)> =
        parameters.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    match path.extension().is_some_and(|ending| ending == "safetensors") {
        true => flowmill_weights::write(&path, &tensors, &BTreeMap::new()).unwrap(),
        false => flowmill_weights::write_torch(&path, &tensors, &[]).unwrap(),
    }
    Campplus::open(&path, &Device::Cpu).map_err(|error| error.to_string())
}

#[test]
fn the_exported_graph_gives_the_golden_embedding() {
    let encoder = Campplus::open(&golden("campplus_small.onnx"), &Device::Cpu).unwrap();
    let expected = Dimensions {
        feat_dim: 80,
        embedding_size: 24,
        growth_rate: 4,
        bn_channels: 16,
        init_channels: 16,
        m_channels: 32,
    };
    assert_eq!(*encoder.dimensions(), expected);
    for (features, embedding) in read_golden().items {
        let error = relative_error(&encoder.embed(&features).unwrap().unwrap(), &embedding);
        assert!(error <= 2e-5, "{error:.1e}");
    }
}

#[test]
fn a_torch_file_gives_the_same_embedding_as_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let golden = read_golden();
    let safetensors = open(folder.path(), "campplus.safetensors", &golden.parameters).unwrap();
    let torch = open(folder.path(), "campplus_cn_common.bin", &golden.parameters).unwrap();
    for (features, embedding) in golden.items {
        let found = torch.embed(&features).unwrap().unwrap();
        assert_eq!(found, safetensors.embed(&features).unwrap().unwrap());
        assert!(relative_error(&found, &embedding) <= 2e-5);
    }
}

#[test]
fn what_ran_before_leaves_no_trace() {
    let encoder = Campplus::random(Dimensions::small(), 1).unwrap();
    let features = |frames: usize| RngKey::new(frames as u64).normals(80 * frames);
    let lengths = [3, 47, 48, 49, 100, 203, 1100];
    let alone: Vec<Vec<f32>> = lengths
        .iter()
        .map(|&frames| Campplus::random(Dimensions::small(), 1).unwrap().embed(&features(frames)).unwrap().unwrap())
        .collect();
    for (&frames, alone) in lengths.iter().zip(&alone).rev().chain(lengths.iter().zip(&alone)) {
        assert_eq!(encoder.embed(&features(frames)).unwrap().unwrap(), *alone, "{frames} frames");
    }
}

#[test]
fn too_few_frames_have_no_embedding() {
    let encoder = Campplus::random(Dimensions::small(), 1).unwrap();
    assert!(encoder.embed(&[0.0; 160]).unwrap().is_none());
    assert!(encoder.embed(&[0.0; 241]).unwrap().is_none());
    assert!(encoder.embed(&[0.5; 240]).unwrap().unwrap().iter().all(|value| value.is_finite()));
}

#[test]
fn random_weights_depend_on_their_seed_only() {
    let embed = |seed: u64| Campplus::random(Dimensions::small(), seed).unwrap().embed(&[0.5; 800]).unwrap().unwrap();
    assert_eq!(embed(1).len(), 192);
    assert_eq!(embed(1), embed(1));
    assert_ne!(embed(1), embed(2));
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let parameters = read_golden().parameters;
    let with = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut changed = parameters.clone();
        change(&mut changed);
        open(folder.path(), "changed.safetensors", &changed).err().expect("an error")
    };
    let name = "xvector.block2.tdnnd7.linear1.weight";
    let missing = with(&|tensors| drop(tensors.remove(name)));
    assert!(missing.contains(name) && missing.contains("CAM++"), "{missing}");
    let zeros = |shape: &[usize]| host::tensor(vec![0.0; shape.iter().product()], shape).unwrap();
    let shape = with(&|tensors| drop(tensors.insert(name.into(), zeros(&[16, 57, 1]))));
    assert!(shape.contains(name) && shape.contains("[16, 57, 1]") && shape.contains("[16, 56, 1]"), "{shape}");
    let extra = with(&|tensors| drop(tensors.insert("decoder.weight".into(), zeros(&[1]))));
    assert!(extra.contains("decoder.weight"), "{extra}");
    let negative = host::tensor(vec![-1.0; 32], &[32]).unwrap();
    let variance = with(&|tensors| drop(tensors.insert("head.bn1.running_var".into(), negative.clone())));
    assert!(variance.contains("head.bn1"), "{variance}");
    let nothing = with(&|tensors| tensors.clear());
    assert!(nothing.contains("CAM++"), "{nothing}");
}

#[test]
fn damaged_graphs_end_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(golden("campplus_small.onnx")).unwrap();
    let path = folder.path().join("damaged.onnx");
    for part in 1..8 {
        std::fs::write(&path, &whole[..whole.len() * part / 8]).unwrap();
        assert!(Campplus::open(&path, &Device::Cpu).is_err(), "{part} eighths");
    }
    // A weight that the exporter keeps unchanged gets a value that is not finite.
    let weight = &read_golden().parameters["xvector.block3.tdnnd5.cam_layer.linear2.weight"];
    let values: Vec<f32> = weight.flatten_all().unwrap().to_vec1().unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let place = whole.windows(bytes.len()).position(|window| window == bytes).unwrap();
    let mut broken = whole.clone();
    broken[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, broken).unwrap();
    let error = Campplus::open(&path, &Device::Cpu).err().expect("an error").to_string();
    assert!(error.contains("tdnnd5.cam_layer.linear2") && error.contains("NaN at element 0"), "{error}");
}

/// The code for devices: recordings of any lengths together, long ones in pieces.
#[test]
fn a_batch_by_composition_is_each_recording_by_the_kernels() {
    let features = |frames: usize| RngKey::new(frames as u64).normals(80 * frames);
    let recordings = [3, 57, 4, 250, 4300].map(features);
    let recordings: Vec<&[f32]> = recordings.iter().map(Vec::as_slice).collect();
    let kernels = Campplus::random(Dimensions::small(), 1).unwrap();
    let expected = kernels.embed_all(&[&recordings[..], &[&[0.0; 160]]].concat()).unwrap();
    let check = |composed: &Campplus, what: &str| {
        let found = composed.embed_all(&[&recordings[..], &[&[0.0; 160]]].concat()).unwrap();
        assert!(found[5].is_none() && expected[5].is_none());
        for (recording, (found, expected)) in found.iter().zip(&expected).enumerate().take(5) {
            let (found, expected) = (found.as_ref().unwrap(), expected.as_ref().unwrap());
            let error = relative_error(found, expected);
            assert!(error < 2e-5, "{what}, recording {recording}: off by {error}");
            let alone = composed.embed(recordings[recording]).unwrap().unwrap();
            let error = relative_error(&alone, found);
            assert!(error < 2e-6, "{what}, recording {recording}: alone it is off by {error}");
        }
    };
    device::by_composition(|| check(&Campplus::random(Dimensions::small(), 1).unwrap(), "on the CPU"));
}
