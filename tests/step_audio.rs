//! The Step-Audio recipe through the binary: two codebooks, DiT, export, resynthesis.

use std::fs;

use crate::support::mini::repository;
use crate::support::{Mini, flowmill};

/// The smoke recipe, made smaller still, on the miniature data.
const QUICK: &str = "\
base: step-audio/smoke.yaml
name: mini
prep:
  data: data
  split: {by: list, lists: {train: lists/train, dev: lists/dev, test: lists/test}}
tokens:
  extractor: {vq02_size: 12, vq06_size: 24, iterations: 5}
train:
  model:
    vq02_size: 12
    vq06_size: 24
    vocab_size: 37
    input_size: 16
    encoder: {attention_heads: 2, linear_units: 32}
    estimator: {hidden_size: 16, depth: 2, num_heads: 2, head_dim: 8}
  max_steps: 8
  validate_every: 4
  save_every: 4
  log_every: 1
average: {count: 2}
export: {split: dev, samples: 2, n_timesteps: 2, vocoder_iterations: 4, max_utterances: 2}
";

/// The miniature data with the quick recipe.
fn quick() -> Mini {
    let mini = Mini::new();
    fs::create_dir(mini.path("step-audio")).unwrap();
    for file in ["recipe.yaml", "smoke.yaml"] {
        let source = repository().join("recipes/step-audio").join(file);
        fs::copy(source, mini.path("step-audio").join(file)).unwrap();
    }
    fs::write(mini.path("recipe.yaml"), QUICK).unwrap();
    // The smoke recipe has a third list.
    fs::write(mini.path("lists/test"), "").unwrap();
    mini
}

#[test]
fn the_smoke_recipe_runs_all_stages_and_its_model_resynthesizes() {
    let mini = quick();
    mini.run(&[]).expect_code(0);
    let config = fs::read_to_string(mini.exp("6-export/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["family"], "step-audio-flow");
    assert_eq!(config["model"]["vocab_size"], 37);
    assert_eq!(config["model"]["estimator"]["depth"], 2);
    let model = mini.exp("6-export").display().to_string();
    let wav = fs::read_dir(mini.path("data/audio")).unwrap().next().unwrap().unwrap().path();
    let wav = wav.display().to_string();
    let out = mini.path("out").display().to_string();
    flowmill(mini.folder(), &["synth", "--model", &model, "--wav", &wav, "--out", &out]).expect_code(0);
    assert!(fs::read_dir(mini.path("out")).unwrap().count() >= 2, "a wav and a picture");
    let status = mini.status();
    assert!(status.to_string().contains("done"), "{status}");
    let public = fs::read_to_string(mini.exp("6-export/cosyvoice.yaml")).unwrap();
    for line in ["mel_conf:", "        vocab_size: 37", "            depth: 2", "            hidden_size: 16"] {
        assert!(public.lines().any(|own| own == line), "no `{line}` in:\n{public}");
    }

    // Tokens of two codebooks: the mixed sequence, ids of the language model, and two streams are one sound.
    let mixed = [0, 1, 12, 13, 14, 2, 3, 15, 16, 17];
    let moved: Vec<i64> = mixed.iter().map(|token| token + 65_536).collect();
    let tokens = serde_json::json!({
        "mixed": mixed,
        "moved": moved,
        "streams": {"vq02": [0, 1, 2, 3], "vq06": [0, 1, 2, 3, 4, 5]},
        "wrong": {"vq02": [0, 1], "vq06": [0, 1, 24]},
        "other": [0, 1, 2],
    });
    fs::write(mini.path("tokens.json"), tokens.to_string()).unwrap();
    let said = ["synth", "--model", &model, "--tokens", "tokens.json", "--speaker", &wav, "--out", "said"];
    let outcome = flowmill(mini.folder(), &said).expect_code(1);
    outcome.expect_words(&[
        "tokens.json: `wrong`",
        "token 36",
        "tokens.json: `other`",
        "3 tokens are not whole groups",
    ]);
    let sounds = ["mixed", "moved", "streams"].map(|name| fs::read(mini.path(&format!("said/{name}.wav"))).unwrap());
    assert_eq!(sounds[0].len(), 44 + 2 * 6 * 2 * 480);
    assert!(sounds[0] == sounds[1] && sounds[1] == sounds[2]);
}

#[test]
fn what_does_not_fit_the_two_codebooks_is_said_before_anything_runs() {
    let mini = quick();
    let refused = |set: &[&str], words: &[&str]| {
        let arguments: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        mini.run(&arguments).expect_code(2).expect_words(words);
    };
    refused(
        &["train.model.vocab_size=30"],
        &["train.model.vocab_size", "make 37", "7 entries of codebook 06 would be clipped"],
    );
    refused(&["tokens.extractor.vq06_size=20"], &["train.model.vq02_size", "make 36", "stage 2 gives 32"]);
    refused(&["tokens.extractor={kind: kmeans, k: 16}"], &["tokens.extractor.kind", "dual-kmeans"]);
    refused(&["train.model={family: cosyvoice2-flow}"], &["train.model.family", "step-audio-flow"]);
    refused(&["train.model.estimator.channels=[16]"], &["channels", "unknown key"]);
    assert!(!mini.exp("").exists());
}

#[test]
fn every_recipe_of_both_published_flows_is_well_formed() {
    let here = tempfile::tempdir().unwrap();
    for folder in ["step-audio", "cosyvoice2"] {
        let check = |file: &str| {
            let file = repository().join("recipes").join(folder).join(file);
            flowmill(here.path(), &["recipe".as_ref(), "check".as_ref(), file.as_os_str()])
        };
        check("recipe.yaml").expect_code(0);
        check("smoke.yaml").expect_code(0);
        // All that it lacks are the weights, which are not in the repository.
        check("fine-tune.yaml").expect_code(2).expect_words(&["train.init_from", "weights/flow.pt"]);
    }
}
