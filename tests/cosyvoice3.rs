//! The CosyVoice 3 recipe through the binary: all stages of the smoke recipe, tokens of version 3, and public weights in and out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;

use crate::support::mini::{golden, golden_tensors, repository};
use crate::support::{Mini, flowmill};

/// The smoke recipe, made smaller still, on the miniature data.
const QUICK: &str = "\
base: cosyvoice3/smoke.yaml
name: mini
prep:
  data: data
  split: {by: list, lists: {train: lists/train, dev: lists/dev, test: lists/test}}
tokens:
  extractor: {k: 16, iterations: 5}
train:
  model:
    vocab_size: 16
    pre_lookahead_channels: 16
    estimator: {dim: 16, depth: 1, heads: 2, dim_head: 8}
  max_steps: 8
  validate_every: 4
  save_every: 4
  log_every: 1
average: {count: 2}
export: {split: dev, samples: 2, n_timesteps: 2, vocoder_iterations: 4, max_utterances: 2}
";

/// The dimensions of the golden file `cosyvoice3_flow_full`, whose speaker embeddings are as wide as those of the small CAM++.
const PUBLIC: &str = "\
base: recipe.yaml
name: public
embed:
  extractor: {kind: campplus, weights: campplus.onnx, embedding_size: 24}
pack:
  mel: {definition: cosyvoice3, overrides: {n_mels: 16}}
train:
  init_from: flow.pt
  normalise_mel: false
  model:
    family: cosyvoice3-flow
    vocab_size: 50
    input_size: 16
    output_size: 16
    spk_embed_dim: 24
    pre_lookahead_channels: 24
    estimator: {dim: 32, depth: 2, heads: 2, dim_head: 16, ff_mult: 2, static_chunk_size: 8}
  optim: {lr: 1e-9}
  max_steps: 2
  validate_every: 1
  save_every: 1
average: {count: 1}
";

/// The miniature data with the quick recipe.
fn quick() -> Mini {
    let mini = Mini::new();
    fs::create_dir(mini.path("cosyvoice3")).unwrap();
    for file in ["recipe.yaml", "smoke.yaml"] {
        let source = repository().join("recipes/cosyvoice3").join(file);
        fs::copy(source, mini.path("cosyvoice3").join(file)).unwrap();
    }
    fs::write(mini.path("recipe.yaml"), QUICK).unwrap();
    // The smoke recipe has a third list.
    fs::write(mini.path("lists/test"), "").unwrap();
    mini
}

/// Returns the elements of the tensors of a `.safetensors`, by name.
fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats =
        |data: &[u8]| data.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect::<Vec<f32>>();
    file.iter().map(|(name, view)| (name.to_owned(), floats(view.data()))).collect()
}

#[test]
fn the_smoke_recipe_runs_all_stages_and_its_model_resynthesizes() {
    let mini = quick();
    mini.run(&[]).expect_code(0);
    let config = fs::read_to_string(mini.exp("6-export/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["family"], "cosyvoice3-flow");
    assert_eq!(config["model"]["pre_lookahead_channels"], 16);
    assert_eq!(config["model"]["estimator"]["depth"], 1);
    assert_eq!(config["mel"]["config"]["fmax"], 12_000.0);
    let model = mini.exp("6-export").display().to_string();
    let recordings = fs::read_dir(mini.path("data/audio")).unwrap().map(|entry| entry.unwrap().path());
    let longest = recordings.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let wav = longest.display().to_string();
    let out = mini.path("out").display().to_string();
    flowmill(mini.folder(), &["synth", "--model", &model, "--wav", &wav, "--out", &out]).expect_code(0);
    assert!(fs::read_dir(mini.path("out")).unwrap().count() >= 2, "a wav and a picture");
    streamed_chunks_are_as_long_as_the_whole(&mini, &model, &wav);
    mini.run(&[]).expect_up_to_date();
    mini.flowmill("train", &["--plan-memory"]).expect_code(0).expect_words(&["utterances", "frames", "measured"]);
}

/// The first chunk differs from what full attention makes of it; nothing is lost or repeated.
fn streamed_chunks_are_as_long_as_the_whole(mini: &Mini, model: &str, wav: &str) {
    let mel = |file: &str, more: &[&str]| {
        let arguments = [&["synth", "--model", model, "--wav", wav, "--out", "heard", "--mel", file], more].concat();
        flowmill(mini.folder(), &arguments).expect_code(0);
        tensors(&mini.path(file)).remove("mel").unwrap()
    };
    let (whole, streamed) = (mel("whole.safetensors", &[]), mel("streamed.safetensors", &["--streaming"]));
    assert!(whole.len() > 80 * 50, "more than one chunk: {}", whole.len() / 80);
    assert_eq!(whole.len(), streamed.len());
    assert_ne!(whole, streamed);
    assert_eq!(streamed, mel("again.safetensors", &["--streaming"]));
}

#[test]
fn public_weights_are_tuned_and_exported_under_their_names() {
    let mini = Mini::new();
    fs::copy(golden("campplus_small.onnx"), mini.path("campplus.onnx")).unwrap();
    golden_tensors("cosyvoice3_flow_full.safetensors", "param.", &mini.path("public.safetensors"));
    flowmill(mini.folder(), &["convert", "public.safetensors", "flow.pt"]).expect_code(0);
    fs::write(mini.path("public.yaml"), PUBLIC).unwrap();
    let said = flowmill(mini.folder(), &["run", "public.yaml"]).expect_code(0);
    let public = tensors(&mini.path("public.safetensors"));
    said.expect_words(&[&format!("flow.pt: {} tensors", public.len()), "4-train: done"]);
    let export = mini.path("exp/public/6-export");
    let card = fs::read_to_string(export.join("README.md")).unwrap();
    assert!(!card.contains("Not for public inference code"), "{card}");
    let configuration = fs::read_to_string(export.join("cosyvoice3.yaml")).unwrap();
    for line in
        ["flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithDiT", "    pre_lookahead_len: 3", "    fmax: 12000"]
    {
        assert!(configuration.lines().any(|own| own == line), "no `{line}` in:\n{configuration}");
    }
    flowmill(&export, &["convert", "flow.pt", "back.safetensors"]).expect_code(0);
    let exported = tensors(&export.join("back.safetensors"));
    assert_eq!(exported.keys().collect::<Vec<_>>(), public.keys().collect::<Vec<_>>());
    for (name, expected) in &public {
        let found = &exported[name];
        assert_eq!(found.len(), expected.len(), "{name}");
        let moved = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(moved < 1e-6, "{name} moved by {moved}");
    }
}

#[test]
fn settings_that_make_no_network_are_refused_before_anything_runs() {
    let mini = quick();
    let refused = |set: &str, words: &[&str]| {
        mini.run(&["--set", set]).expect_code(2).expect_words(words);
    };
    refused("train.model.input_size=512", &["train.model.input_size", "output_size"]);
    refused("train.model.estimator.dim=24", &["train.model.estimator.dim", "16"]);
    refused("train.model.vocab_size=15", &["train.model.vocab_size", "16"]);
    refused("train.model.encoder={num_blocks: 2}", &["encoder", "unknown key"]);
    refused("train.model.token_mel_ratio=3", &["train.model.token_mel_ratio"]);
    assert!(!mini.exp("").exists());
}

#[test]
fn every_recipe_is_well_formed() {
    let here = tempfile::tempdir().unwrap();
    let check = |file: &str| {
        let file = repository().join("recipes/cosyvoice3").join(file);
        flowmill(here.path(), &["recipe".as_ref(), "check".as_ref(), file.as_os_str()])
    };
    check("recipe.yaml").expect_code(0);
    check("smoke.yaml").expect_code(0);
    // All that it lacks are the weights, which are not in the repository.
    check("fine-tune.yaml").expect_code(2).expect_words(&["train.init_from", "weights/flow.pt"]);
}
