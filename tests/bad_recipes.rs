//! A bad recipe is one clear error with place, key and suggestion, and exit code 2; nothing runs.

use std::fs;

use crate::support::{Mini, flowmill};

/// Replaces one piece of the recipe and gives it with the line of that piece.
#[track_caller]
fn changed(old: &str, new: &str) -> (Mini, String) {
    let mini = Mini::new();
    let recipe = fs::read_to_string(mini.path("recipe.yaml")).unwrap();
    assert_eq!(recipe.matches(old).count(), 1, "`{old}` is not once in the recipe");
    fs::write(mini.path("recipe.yaml"), recipe.replace(old, new)).unwrap();
    let line = recipe.lines().position(|line| line.contains(old)).unwrap() + 1;
    (mini, format!("recipe.yaml:{line}: "))
}

/// Checks what these commands say to a recipe with one piece replaced.
#[track_caller]
fn expect_error_of(commands: &[&str], old: &str, new: &str, words: &[&str]) {
    let (mini, place) = changed(old, new);
    for command in commands {
        let outcome = mini.flowmill(command, &[]).expect_error("recipe", 2).expect_words(words);
        let one_line = outcome.stderr.trim_end().lines().count() == 1;
        assert!(outcome.stderr.starts_with("error[recipe]: ") && one_line, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(&place), "{place} in {}", outcome.stderr);
    }
    flowmill(mini.folder(), &["recipe", "check", "."]).expect_code(2).expect_words(words);
    assert!(!mini.path("exp").exists(), "something was written");
}

/// Checks what every command that reads the recipe says.
#[track_caller]
fn expect_error(old: &str, new: &str, words: &[&str]) {
    expect_error_of(&["run", "status", "doctor"], old, new, words);
}

/// Checks what every command says that needs more than the recipe itself to be right.
#[track_caller]
fn expect_error_of_check(old: &str, new: &str, words: &[&str]) {
    expect_error_of(&["run", "doctor"], old, new, words);
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    expect_error("max_steps: 12", "max_stesp: 12", &["max_stesp", "\"max_steps\""]);
    expect_error("samples: 2", "sample: 2", &["sample", "\"samples\""]);
    expect_error("average:", "avrage:", &["avrage", "\"average\""]);
}

#[test]
fn a_wrong_type_is_named() {
    expect_error("max_steps: 12", "max_steps: many", &["train.max_steps", "many"]);
    expect_error("part_size: 4", "part_size: -4", &["prep.part_size", "-4"]);
    expect_error("seed: 7", "seed: [7]", &["seed"]);
}

#[test]
fn a_value_outside_its_list_is_named_with_the_list() {
    expect_error("kind: kmeans", "kind: kmean", &["kmean", "kmeans"]);
    expect_error("by: list", "by: lists", &["prep.split.by", "list"]);
}

#[test]
fn a_missing_file_is_named() {
    expect_error_of_check("data: data", "data: dtaa", &["prep.data", "dtaa"]);
    expect_error_of_check("dev: lists/dev", "dev: lists/dve", &["dev", "lists/dve"]);
}

#[test]
fn impossible_combinations_are_refused() {
    expect_error("part_size: 4", "max_duration: 0.01", &["max_duration", "0.1"]);
    expect_error("keep: {last: 2, best: 2}", "validation_split: train", &["validation_split", "train"]);
}

#[test]
fn a_model_that_does_not_fit_the_other_stages_is_refused_before_anything_runs() {
    expect_error_of_check("vocab_size: 16", "vocab_size: 15", &["train.model.vocab_size", "16"]);
    expect_error_of_check("spk_embed_dim: 32", "spk_embed_dim: 36", &["train.model.spk_embed_dim", "32"]);
    expect_error_of_check("input_size: 16", "output_size: 40", &["train.model.output_size", "80"]);
}

#[test]
fn embeddings_cannot_start_from_a_codebook_that_no_stage_fits() {
    let mini = Mini::new();
    let published = "tokens.extractor={kind: s3-tokenizer, version: v2, weights: tokenizer.onnx}";
    let settings = ["--set", published, "--set", "train.model.vocab_size=6561"];
    let check = |more: &[&str]| flowmill(mini.folder(), &[&["recipe", "check", "."], &settings[..], more].concat());
    check(&[]).expect_code(0);
    let refused = check(&["--set", "train.token_embedding=codebook"]).expect_code(2);
    refused.expect_words(&["train.token_embedding", "s3-tokenizer", "kmeans", "random"]);
}

#[test]
fn broken_yaml_is_an_error_with_its_line() {
    let (mini, _) = changed("seed: 7", "seed: {7");
    let outcome = mini.run(&[]).expect_error("recipe", 2);
    assert!(outcome.stderr.starts_with("error[recipe]: ./recipe.yaml:"), "{}", outcome.stderr);
}

#[test]
fn a_change_on_the_command_line_is_checked_like_the_file() {
    let mini = Mini::new();
    mini.run(&["--set", "train.optim.lrr=1"]).expect_error("recipe", 2).expect_words(&["lrr", "\"lr\"", "--set"]);
    mini.run(&["--set", "train.optim"]).expect_code(2).expect_words(&["--set", "="]);
    mini.run(&["--stage", "9"]).expect_code(2).expect_words(&["9", "6-export"]);
    mini.run(&["--stage", "3", "--stop-stage", "1"]).expect_code(2).expect_words(&["3-pack", "1-embed"]);
    mini.run(&["--stage", "3"]).expect_error("not-finished", 2).expect_words(&["0-prep"]);
    flowmill(mini.folder(), &["run", "nowhere"]).expect_code(2).expect_words(&["nowhere"]);
    flowmill(mini.folder(), &["statsu"]).expect_code(2).expect_words(&["'status'"]);
}
