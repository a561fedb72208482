//! The neural codecs with the small models of the golden files as their weights, and with random ones. `flowmill parity` compares their
//! numbers with the golden files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use flowmill_corpus::Array;
use flowmill_extract::extractors::registry;
use flowmill_extract::{Codec, Extractor, Fitted, Media, Scope, State, StateError, ValueType, apply};
use serde_json::{Value, json};

use crate::speech::{NoRejection, Recording, chosen, split};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// The weights in a golden file.
fn weights(name: &str) -> BTreeMap<String, Tensor> {
    let tensors = flowmill_weights::read(&golden(name)).unwrap().tensors;
    tensors.into_iter().filter_map(|(name, tensor)| Some((name.strip_prefix("param.")?.to_owned(), tensor))).collect()
}

fn write(to: &Path, tensors: BTreeMap<String, Tensor>) {
    flowmill_weights::write(to, &tensors.into_iter().collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
}

fn fit(config: &Value, root: &Path) -> Result<Fitted, StateError> {
    let config = chosen(config).unwrap();
    config.check().unwrap();
    let fit = config.fit(7, root).unwrap();
    fit.finish(&fit.accumulator(Scope::Whole).into_state())
}

fn open(state: &State) -> (Box<dyn Extractor>, Box<dyn Codec>) {
    let codec = registry().codec(state, &Device::Cpu).unwrap().unwrap();
    (registry().open(state, &Device::Cpu).unwrap(), codec)
}

/// The codes of samples at a rate.
fn codes(extractor: &dyn Extractor, samples: &[f32], sample_rate: u32) -> Array {
    let samples = samples.to_vec();
    let media = Media::audio(move || {
        Ok::<_, String>(flowmill_audio::Audio { samples: vec![samples.clone()], sample_rate, warnings: Vec::new() })
    });
    extractor.extract(&media).unwrap().into_arrays().remove(0)
}

fn encodec(weights: &str, levels: usize) -> Value {
    json!({"kind": "encodec", "weights": weights, "levels": levels, "codebook_size": 64})
}

#[test]
fn encodec_takes_the_names_of_hugging_face_and_of_meta() {
    let folder = tempfile::tempdir().unwrap();
    let public = weights("encodec.safetensors");
    let renamed = |from: &[(&str, &str)]| -> BTreeMap<String, Tensor> {
        let rename = |name: &String| from.iter().fold(name.clone(), |name, (from, to)| name.replace(from, to));
        public.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect()
    };
    let up = ["3", "6", "9", "12"].map(|layer| format!("decoder.layers.{layer}.conv."));
    let of_meta: BTreeMap<String, Tensor> = public
        .iter()
        .map(|(name, tensor)| {
            let is_up = up.iter().any(|layer| name.starts_with(layer));
            let inner = if is_up { ".convtr.convtr." } else { ".conv.conv." };
            let name = name.replace(".conv.", inner).replace(".layers.", ".model.");
            let name = name.replace("quantizer.model.", "quantizer.vq.layers.").replace(".codebook.", "._codebook.");
            (name, tensor.clone())
        })
        .collect();
    assert!(of_meta.contains_key("decoder.model.3.convtr.convtr.weight_v"));
    assert!(of_meta.contains_key("quantizer.vq.layers.0._codebook.embed"));
    write(&folder.path().join("public"), public.clone());
    write(&folder.path().join("meta"), of_meta);
    let parametrized = renamed(&[
        ("weight_g", "parametrizations.weight.original0"),
        ("weight_v", "parametrizations.weight.original1"),
    ]);
    write(&folder.path().join("parametrized"), parametrized);
    let state = fit(&encodec("public", 8), folder.path()).unwrap().state;
    for other in ["meta", "parametrized"] {
        assert_eq!(fit(&encodec(other, 8), folder.path()).unwrap().state, state, "{other}");
    }
}

#[test]
fn encodec_codes_are_those_of_the_golden_file_after_a_state_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("weights"), weights("encodec.safetensors"));
    let file = flowmill_weights::read(&golden("encodec.safetensors")).unwrap();
    let samples: Vec<f32> = file.tensors["in.wav"].to_vec1().unwrap();
    let expected: Vec<i32> = file.integers["out.codes"]
        .flatten_all()
        .unwrap()
        .to_vec1::<i64>()
        .unwrap()
        .into_iter()
        .map(|code| code as i32)
        .collect();
    for levels in [8, 3] {
        let path = folder.path().join("state");
        fit(&encodec("weights", levels), folder.path()).unwrap().state.save(&path).unwrap();
        let (extractor, codec) = open(&State::load(&path).unwrap());
        let found = codes(&*extractor, &samples, 24_000);
        assert_eq!((found.shape(), found.values::<i32>().unwrap()), (&[levels, 51][..], &expected[..levels * 51]));
        assert_eq!(extractor.columns()[0].values, ValueType::Codes { levels, vocabulary: 64, rate: 75.0 });
        assert_eq!((codec.levels(), codec.vocabulary(), codec.frame_rate()), (levels, 64, 75.0));
        assert_eq!(codec.decode(&found).unwrap().len(), 51 * 320);
    }
}

#[test]
fn dac_codes_are_of_the_loudness_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("weights"), weights("dac.safetensors"));
    let config = |loudness: Value| {
        json!({
            "kind": "dac", "weights": "weights", "levels": 5, "codebook_size": 64, "sample_rate": 16_000, "hop_length": 32,
            "loudness": loudness,
        })
    };
    let file = flowmill_weights::read(&golden("dac.safetensors")).unwrap();
    let samples: Vec<f32> = file.tensors["in.wav"].get(0).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let expected: Vec<i64> = file.integers["out.codes"].get(0).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let expected: Vec<i32> = expected.into_iter().map(|code| code as i32).collect();
    let (plain, codec) = open(&fit(&config(Value::Null), folder.path()).unwrap().state);
    let peak = samples.iter().fold(0.0f32, |peak, sample| peak.max(sample.abs()));
    if peak <= 1.0 {
        let found = codes(&*plain, &samples, 16_000);
        assert_eq!((found.shape(), found.values::<i32>().unwrap()), (&[5, 38][..], &expected[..]));
        assert_eq!(codec.decode(&found).unwrap().len(), 38 * 32);
    }
    // A recording and a softer copy of it have the same codes once both have one loudness.
    let (level, _) = open(&fit(&config(json!(-16.0)), folder.path()).unwrap().state);
    let soft: Vec<f32> = samples.iter().map(|sample| sample * 0.125).collect();
    assert_eq!(codes(&*level, &samples, 16_000), codes(&*level, &soft, 16_000));
    assert_ne!(codes(&*plain, &samples, 16_000), codes(&*plain, &soft, 16_000));
}

#[test]
fn random_weights_try_the_machinery_on_real_speech() {
    let folder = tempfile::tempdir().unwrap();
    for (config, rate, hop) in [
        (json!({"kind": "encodec", "weights": "random"}), 24_000, 320),
        (json!({"kind": "dac", "weights": "random"}), 44_100, 512),
    ] {
        let fitted = fit(&config, folder.path()).unwrap();
        assert!(fitted.facts[0].1.as_str().unwrap().contains("RANDOM"));
        let (extractor, codec) = open(&fitted.state);
        assert_eq!(extractor.columns(), chosen(&config).unwrap().columns());
        let rows = &split("dev")[..1];
        let values = apply(&*extractor, rows, &NoRejection, Recording::id, Recording::media).unwrap();
        let found = values[0].1.arrays()[0].clone();
        let audio = flowmill_audio::decode_file(&rows[0].wav).unwrap();
        let samples = flowmill_audio::resample(&audio.mono(), audio.sample_rate, rate).unwrap().len();
        assert_eq!(found.shape(), [codec.levels(), samples.div_ceil(hop)]);
        let first = Array::new(vec![1, 20], found.values::<i32>().unwrap()[..20].to_vec()).unwrap();
        assert_eq!(codec.decode(&first).unwrap().len(), 20 * hop);
    }
}

#[test]
fn weights_of_other_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    let message = |config: &Value| fit(config, folder.path()).unwrap_err().to_string();
    write(&path, weights("encodec.safetensors"));
    assert!(message(&encodec("weights", 9)).contains("8 levels"));
    let size = message(&json!({"kind": "encodec", "weights": "weights"}));
    assert!(size.contains("codebook_size: 1024"), "{size}");
    write(&path, weights("dac.safetensors"));
    assert!(message(&encodec("weights", 8)).contains("EnCodec"));
    let dac = json!({"kind": "dac", "weights": "weights", "levels": 5, "codebook_size": 64});
    assert!(message(&dac).contains("hop_length: 512"));
    let changed = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut tensors = weights("encodec.safetensors");
        change(&mut tensors);
        write(&path, tensors);
        message(&encodec("weights", 8))
    };
    let lstm = "encoder.layers.13.lstm.weight_hh_l1";
    assert!(changed(&|tensors| drop(tensors.remove(lstm))).contains(lstm));
    let extra =
        changed(&|tensors| drop(tensors.insert("encoder.layers.0.norm.weight".to_owned(), tensors[lstm].clone())));
    assert!(extra.contains("encoder.layers.0.norm.weight"), "{extra}");
    let shape = changed(&|tensors| drop(tensors.insert(lstm.to_owned(), tensors[lstm].narrow(0, 0, 8).unwrap())));
    assert!(shape.contains(lstm), "{shape}");
}

#[test]
fn a_state_that_was_tampered_with_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("weights"), weights("encodec.safetensors"));
    let mut state = fit(&encodec("weights", 2), folder.path()).unwrap().state;
    state.set_f32("quantizer.layers.1.codebook.embed", &[3, 16], vec![0.0; 48]);
    assert!(matches!(registry().open(&state, &Device::Cpu), Err(StateError::Foreign { .. })));
    assert!(matches!(registry().codec(&state, &Device::Cpu), Err(StateError::Foreign { .. })));
}
