//! Files that a finished training began with may be gone: nothing after it needs them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Mini, Outcome, flowmill};

/// The state of the training stage under these settings.
fn state(mini: &Mini, settings: &[&str]) -> String {
    let shown = mini.flowmill("status", &[&["--json"], settings].concat()).expect_code(0).stdout;
    let status: Value = serde_json::from_str(&shown).unwrap();
    status["stages"][4]["state"].as_str().unwrap().to_owned()
}

/// Finishes a training that begins with `gone`, takes that away, and uses the training.
fn used_without(mini: &Mini, settings: &[&str], gone: &Path) {
    let run = |arguments: &[&str]| -> Outcome { mini.run(&[arguments, settings].concat()) };
    run(&[]).expect_code(0);
    assert_eq!(state(mini, settings), "done");
    let aside = gone.with_extension("aside");
    fs::rename(gone, &aside).unwrap();

    assert_eq!(state(mini, settings), "done");
    mini.flowmill("status", settings).expect_code(0);
    let shown = [&["recipe", "show", "."], settings].concat();
    flowmill(mini.folder(), &shown).expect_code(0);
    run(&[]).expect_code(0).expect_nothing_to_do();
    run(&["--stage", "average", "--set", "average.count=1"]).expect_code(0).expect_words(&["6-export"]);
    run(&["--stage", "export", "--set", "average.count=1", "--set", "export.samples=3"]).expect_code(0);
    mini.flowmill("train", &[&["--eval"], settings].concat()).expect_code(0);

    // To train anew it is needed, and that is said before anything is touched.
    let before = mini.tree();
    let name = gone.file_name().unwrap().to_str().unwrap();
    run(&["--stage", "train", "--force"]).expect_error("recipe", 2).expect_words(&[name]);
    let checked = [&["recipe", "check", "."], settings].concat();
    flowmill(mini.folder(), &checked).expect_code(2).expect_words(&[name]);
    assert!(before.contents() == mini.tree().contents());
    fs::rename(&aside, gone).unwrap();
    assert_eq!(state(mini, settings), "done");
}

/// Weights of the mini recipe's model.
fn weights(mini: &Mini) {
    let trained = Mini::finished();
    fs::copy(trained.exp("5-average/model.safetensors"), mini.path("start.safetensors")).unwrap();
}

#[test]
fn the_weights_that_a_training_began_with() {
    let mini = Mini::new();
    weights(&mini);
    let start = ["--set", "train.init_from=start.safetensors"];
    used_without(&mini, &start, &mini.path("start.safetensors"));
    // Other weights are another training.
    fs::write(mini.path("start.safetensors"), "others").unwrap();
    assert_ne!(state(&mini, &start), "done");
}

#[test]
fn the_corpus_of_another_experiment() {
    let (mini, other) = (Mini::new(), Mini::new());
    // Another corpus must not hold what is validated on.
    let train = fs::read_to_string(mini.path("lists/train")).unwrap();
    let (first, last) = train.split_at(train.lines().take(5).map(|line| line.len() + 1).sum());
    fs::write(other.path("lists/train"), first).unwrap();
    fs::write(mini.path("lists/train"), last).unwrap();
    let rest = ["--set", "prep.split.rest=unused"];
    other.run(&[&["--stop-stage", "pack"], &rest[..]].concat()).expect_code(0);
    fs::rename(other.exp("3-pack/train"), mini.path("corpus")).unwrap();
    let mixture = ["--set", "train.mixture=[{weight: 1}, {index: corpus, weight: 1}]"];
    let settings = [&mixture[..], &rest].concat();
    mini.run(&settings).expect_code(0);
    fs::rename(mini.path("corpus"), mini.path("elsewhere")).unwrap();
    assert_eq!(state(&mini, &settings), "done");
    mini.run(&settings).expect_code(0).expect_nothing_to_do();
    mini.run(&[&["--stage", "export", "--set", "export.samples=3"], &settings[..]].concat()).expect_code(0);
    mini.run(&[&["--stage", "train", "--force"], &settings[..]].concat())
        .expect_code(2)
        .expect_words(&["mixture[1].index"]);
}

#[test]
fn the_adapter_and_the_base_that_adapters_began_with() {
    let mini = Mini::new();
    weights(&mini);
    let lora = "train.lora={rank: 2, alpha: 4, targets: [\"encoder.*.linear_q\"]}";
    let adapted = ["--set", "train.init_from=start.safetensors", "--set", lora];
    mini.run(&adapted).expect_code(0);
    fs::remove_file(mini.path("start.safetensors")).unwrap();
    assert_eq!(state(&mini, &adapted), "done");
    mini.run(&adapted).expect_code(0).expect_nothing_to_do();
    // The base is kept with the training, so the model can still be exported in the other form.
    let apart = [&["--stage", "export", "--set", "export.merge_adapters=false"], &adapted[..]].concat();
    mini.run(&apart).expect_code(0);
}

#[test]
fn imported_tokens_and_embeddings() {
    let mini = Mini::finished();
    crate::import::export(&mini);
    let tokens = "tokens.extractor={kind: import, tokens: utt2speech_token.pt, vocabulary: 16, rate: 25}";
    let embeddings =
        "embed.extractor={kind: import, embeddings: utt2embedding.pt, speakers: spk2embedding.pt, dimensions: 32}";
    let imported = ["--set", tokens, "--set", embeddings, "--exp", "exp/imported"];
    mini.run(&imported).expect_code(0);
    for file in ["utt2speech_token.pt", "utt2embedding.pt", "spk2embedding.pt"] {
        fs::remove_file(mini.path(file)).unwrap();
    }
    mini.run(&imported).expect_code(0).expect_nothing_to_do();
    mini.run(&[&["--stage", "export", "--set", "export.samples=3"], &imported[..]].concat()).expect_code(0);
    let anew = mini.run(&[&["--stage", "tokens", "--force"], &imported[..]].concat()).expect_code(2);
    anew.expect_words(&["tokens.extractor", "utt2speech_token.pt"]);
}
