//! The published tokenizers with the small models of the golden files as their weights.

use crate::speech::{NoRejection, Recording, chosen, split};
use candle_core::Device;
use flowmill_extract::extractors::registry;
use flowmill_extract::{Fitted, Scope, StateError, apply};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// Writes the tensors of a golden file whose names begin with `prefix`, without it.
fn extract(name: &str, prefix: &str, to: &Path) {
    let file = flowmill_weights::read(&golden(name)).unwrap();
    let own =
        file.tensors.into_iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor)));
    flowmill_weights::write(to, &own.collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
}

fn fit(config: Value, root: &Path) -> Result<Fitted, StateError> {
    let config = chosen(&config).unwrap();
    config.check().unwrap();
    let fit = config.fit(7, root).unwrap();
    fit.finish(&fit.accumulator(Scope::Whole).into_state())
}

/// The tokens of the recordings of the `dev` split.
fn tokens(config: Value, root: &Path) -> Vec<Vec<i64>> {
    let extractor = registry().open(&fit(config, root).unwrap().state, &Device::Cpu).unwrap();
    let rows = split("dev");
    let values = apply(&*extractor, &rows, &NoRejection, Recording::id, Recording::media).unwrap();
    values.into_iter().map(|(_, value)| value.as_tokens().unwrap().to_vec()).collect()
}

#[test]
fn s3_tokens_are_the_same_from_an_onnx_export_and_from_named_tensors() {
    let folder = tempfile::tempdir().unwrap();
    for (version, heads) in [("v1", 4), ("v2", 1), ("v3", 1)] {
        extract(&format!("s3_tokenizer_{version}_25hz.safetensors"), "param.", &folder.path().join("named"));
        let config =
            |weights: &str| json!({"kind": "s3-tokenizer", "version": version, "weights": weights, "heads": heads});
        let mut of_names = config("named");
        if version == "v2" {
            // The epsilon of the export.
            of_names["layer_norm_epsilon"] = json!({"attn_ln": 1e-6});
        }
        let named = tokens(of_names, folder.path());
        let onnx = golden(&format!("s3_tokenizer_{version}_small.onnx"));
        assert_eq!(named, tokens(config(onnx.to_str().unwrap()), folder.path()), "{version}");
        for (recording, tokens) in split("dev").iter().zip(&named) {
            let frames = flowmill_audio::decode_file(&recording.wav).unwrap().frames() / 160;
            assert_eq!(tokens.len(), frames.div_ceil(4), "{}", recording.utt);
        }
    }
}

#[test]
fn step_audio_tokens_are_groups_of_two_and_three() {
    let folder = tempfile::tempdir().unwrap();
    extract("linguistic_tokenizer.safetensors", "param.", &folder.path().join("paraformer"));
    extract("linguistic_tokenizer.safetensors", "in.kmeans", &folder.path().join("centres"));
    let linguistic = json!({"weights": "paraformer", "centres": "centres", "cmvn": "none"});
    let semantic = json!({"weights": golden("s3_tokenizer_v1_small.onnx"), "heads": 4});
    let dual = |trim: bool| {
        let prepare = json!({"trim": trim});
        json!({"kind": "step-audio-dual", "linguistic": linguistic, "semantic": semantic, "prepare": prepare})
    };
    let mixed = tokens(dual(false), folder.path());
    let mut alone = json!({"kind": "paraformer-units"});
    alone.as_object_mut().unwrap().extend(linguistic.as_object().unwrap().clone());
    let units = tokens(alone, folder.path());
    for (mixed, units) in mixed.iter().zip(&units) {
        // The small models have 32 centres and 64 entries.
        for group in mixed.chunks(5) {
            assert!(group[..2].iter().all(|token| (0..32).contains(token)), "{group:?}");
            assert!(group[2..].iter().all(|token| (1024..1024 + 64).contains(token)), "{group:?}");
        }
        assert!(
            mixed.len().is_multiple_of(5)
                && mixed.len() / 5 * 2 <= units.len()
                && units.len() <= mixed.len() / 5 * 2 + 4
        );
    }
    assert_ne!(tokens(dual(true), folder.path()), mixed, "trimming changes what there is to hear");
}

#[test]
fn random_weights_give_tokens_and_say_what_they_are() {
    let random = json!({"weights": "random"});
    let config = json!({"kind": "step-audio-dual", "linguistic": random, "semantic": random});
    let fitted = fit(config.clone(), Path::new(".")).unwrap();
    assert!(fitted.facts.iter().all(|(_, told)| told.as_str().is_some_and(|told| told.contains("RANDOM"))));
    assert_eq!(fitted.facts.len(), 2);
    assert_eq!(tokens(config.clone(), Path::new(".")), tokens(config, Path::new(".")), "the seed decides");
}

#[test]
fn bad_weights_are_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    let refused = |version: &str, words: &[&str]| {
        let config = json!({"kind": "s3-tokenizer", "version": version, "weights": "weights", "heads": 4});
        let error = fit(config, folder.path()).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    };
    extract("s3_tokenizer_v1_25hz.safetensors", "param.", &path);
    let whole = std::fs::read(&path).unwrap();
    refused("v2", &["weights of version v1", "`version: v2`"]);
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    refused("v1", &["weights", "not a whole safetensors file"]);
    let mut not_a_number = whole.clone();
    not_a_number[whole.len() - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, not_a_number).unwrap();
    refused("v1", &["NaN"]);
    let mut renamed = whole.clone();
    let at = whole.windows(18).position(|window| window == b"encoder.conv1.bias").unwrap();
    renamed[at + 14..at + 18].copy_from_slice(b"bean");
    std::fs::write(&path, renamed).unwrap();
    refused("v1", &["`encoder.conv1.bias`", "`encoder.conv1.bean`"]);
    extract("linguistic_tokenizer.safetensors", "param.", &path);
    refused("v1", &["not an S3 tokenizer", "after_norm.bias"]);
    std::fs::copy(golden("campplus_small.onnx"), &path).unwrap();
    refused("v1", &["not the graph of an S3 tokenizer"]);
    std::fs::remove_file(&path).unwrap();
    refused("v1", &["weights"]);
}
