//! A bad recipe is one clear error with place, key and suggestion, and exit code 2; nothing runs.

use std::fs;

use crate::support::{Mini, flowmill};

/// Replaces one piece of the recipe and checks what every command that reads it says.
#[track_caller]
fn expect_error(old: &str, new: &str, words: &[&str]) {
    let mini = Mini::new();
    let recipe = fs::read_to_string(mini.path("recipe.yaml")).unwrap();
    assert_eq!(recipe.matches(old).count(), 1, "`{old}` is not once in the recipe");
    fs::write(mini.path("recipe.yaml"), recipe.replace(old, new)).unwrap();
    let line = recipe.lines().position(|line| line.contains(old)).unwrap() + 1;
    for command in ["run", "status", "doctor"] {
        let outcome = mini.flowmill(command, &[]).expect_code(2).expect_words(words);
        let place = format!("recipe.yaml:{line}");
        assert!(outcome.stderr.starts_with("error: ") && outcome.stderr.contains(&place), "{}", outcome.stderr);
        assert!(outcome.stderr.matches("error:").count() == 1, "{}", outcome.stderr);
    }
    flowmill(mini.folder(), &["recipe", "check", "."]).expect_code(2).expect_words(words);
    assert!(!mini.path("exp").exists(), "something was written");
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    expect_error("max_steps: 12", "max_stesp: 12", &["max_stesp", "`max_steps`"]);
    expect_error("samples: 2", "sample: 2", &["sample", "`samples`"]);
    expect_error("average:", "avrage:", &["avrage", "`average`"]);
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
    expect_error("data: data", "data: dtaa", &["prep.data", "dtaa"]);
    expect_error("dev: lists/dev", "dev: lists/dve", &["dev", "lists/dve"]);
}

#[test]
fn impossible_combinations_are_refused() {
    expect_error("part_size: 4", "max_duration: 0.01", &["max_duration", "0.1"]);
    expect_error("keep: {last: 2, best: 2}", "validation_split: train", &["validation_split", "train"]);
}

#[test]
fn a_section_that_fits_no_other_is_refused_before_anything_runs() {
    // As many units as the model has embeddings; one more could not be looked up.
    let mini = Mini::new();
    let outcome = mini.run(&["--set", "tokens.extractor.k=17"]).expect_code(2);
    outcome.expect_words(&["vocab_size", "17"]);
    assert!(!mini.path("exp").exists(), "something was written");
}

#[test]
fn broken_yaml_is_an_error_with_its_line() {
    expect_error("seed: 7", "seed: {7", &["recipe.yaml"]);
}

#[test]
fn a_change_on_the_command_line_is_checked_like_the_file() {
    let mini = Mini::new();
    mini.run(&["--set", "train.optim.lrr=1"]).expect_code(2).expect_words(&["lrr", "`lr`", "--set"]);
    mini.run(&["--set", "train.optim"]).expect_code(2).expect_words(&["--set", "="]);
    mini.run(&["--stage", "9"]).expect_code(2).expect_words(&["9", "6-export"]);
    mini.run(&["--stage", "3", "--stop-stage", "1"]).expect_code(2).expect_words(&["3-pack", "1-embed"]);
    mini.run(&["--stage", "3"]).expect_code(2).expect_words(&["2-tokens", "never run"]);
    flowmill(mini.folder(), &["run", "nowhere"]).expect_code(2).expect_words(&["nowhere"]);
    flowmill(mini.folder(), &["rnu"]).expect_code(2).expect_words(&["run"]);
}
