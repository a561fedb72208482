//! The splits that are trained on and scored are those that the recipe names, under whatever names.

use std::fs;

use serde_json::Value;

use crate::support::{Mini, flowmill, json};

/// The mini recipe with other names for its splits.
const RENAMED: &str = "\
name: mini
base: base.yaml
prep: {split: {by: list}}
train: {train_split: learn, validation_split: held}
";

/// A copy of the mini recipe whose splits are called `learn` and `held`.
fn renamed() -> Mini {
    let mini = Mini::new();
    let base = fs::read_to_string(mini.path("recipe.yaml")).unwrap();
    let base = base.replace("{train: lists/train, dev: lists/dev}", "{learn: lists/train, held: lists/dev}");
    assert!(base.contains("learn: lists/train"));
    fs::write(mini.path("base.yaml"), base).unwrap();
    fs::write(mini.path("recipe.yaml"), RENAMED).unwrap();
    mini
}

#[test]
fn a_training_split_of_another_name_gives_the_same_model_and_scores() {
    let expected = Mini::finished();
    let mini = renamed();
    mini.run(&[]).expect_code(0);
    let statistics = |mini: &Mini| json(&mini.exp("3-pack/mel_statistics.json"));
    let (ours, theirs) = (statistics(&mini), statistics(&expected));
    assert_eq!((&ours["split"], &theirs["split"]), (&"learn".into(), &"train".into()));
    assert_eq!((&ours["mean"], &ours["std"]), (&theirs["mean"], &theirs["std"]));
    for file in ["5-average/model.safetensors", "6-export/config.json", "2-tokens/codebook.safetensors"] {
        assert!(fs::read(mini.exp(file)).unwrap() == fs::read(expected.exp(file)).unwrap(), "{file}");
    }
    let (ours, theirs) = (json(&mini.exp("6-export/scores.json")), json(&expected.exp("6-export/scores.json")));
    assert_eq!((&ours["split"], &theirs["split"]), (&"held".into(), &"dev".into()));
    assert_eq!(ours["distance_db"], theirs["distance_db"]);
    assert!(ours["distance_db"]["unit_mean"].as_f64().unwrap() > 0.0);
}

#[test]
fn statistics_and_trivial_answers_are_of_the_split_that_is_trained_on_where_train_is_another() {
    let mini = Mini::new();
    // The held-out utterances are called `train` here, and the others `more`.
    let swapped = "prep.split.lists={more: lists/train, train: lists/dev}";
    let splits = ["--set", swapped, "--set", "train.train_split=more", "--set", "train.validation_split=train"];
    mini.run(&splits).expect_code(0);
    let expected = Mini::finished();
    assert_eq!(json(&mini.exp("3-pack/mel_statistics.json"))["split"], "more");
    let distances = |mini: &Mini| json(&mini.exp("6-export/scores.json"))["distance_db"].clone();
    assert_eq!(distances(&mini), distances(&expected));
}

#[test]
fn statistics_of_another_split_are_not_taken_for_those_of_this_one() {
    let mini = Mini::new();
    let lists = "prep.split.lists={a: lists/train, b: lists/dev}";
    let on = |split: &str| format!("train.train_split={split}");
    let (a, b) = (on("a"), on("b"));
    let fitted = ["--set", "embed.fit_on=a", "--set", "tokens.fit_on=a"];
    let base = [&fitted[..], &["--set", lists, "--set", "train.validation_split=null", "--set"]].concat();
    mini.run(&[&base[..], &[&a, "--stop-stage", "pack"]].concat()).expect_code(0);
    let other = [&base[..], &[&b, "--stage", "train", "--stop-stage", "train"]].concat();
    mini.run(&other).expect_error("stage", 1).expect_words(&["mel_statistics.json", "`a`", "train.train_split", "`b`"]);
    mini.run(&[&base[..], &[&b, "--stop-stage", "train"]].concat())
        .expect_code(0)
        .expect_words(&["train.train_split: \"a\" → \"b\""]);
}

#[test]
fn without_a_validation_split_the_training_split_is_scored_and_that_is_said_at_the_start() {
    let mini = Mini::new();
    let nothing_held_out = ["--set", "train.validation_split=null"];
    let ran = mini.run(&nothing_held_out).expect_code(0);
    let first = ran.stderr.lines().next().unwrap_or_default();
    assert!(first.starts_with("WARNING: export.split: ") && first.contains("`train`"), "{}", ran.stderr);
    let scores = json(&mini.exp("6-export/scores.json"));
    assert_eq!(scores["split"], "train");
    let train = fs::read_to_string(mini.path("lists/train")).unwrap();
    assert_eq!(scores["utterances"].as_u64().unwrap() as usize, train.lines().count());
    assert_eq!(json(&mini.exp("5-average/average.json"))["which"], "last");
    // Named, it is scored as any other; only what was trained on is warned of.
    let named = mini.run(&[&nothing_held_out[..], &["--set", "export.split=dev"]].concat()).expect_code(0);
    assert!(!named.text().contains("WARNING"), "{}", named.text());
    assert_eq!(json(&mini.exp("6-export/scores.json"))["split"], "dev");
}

#[test]
fn a_split_that_lost_all_its_rows_is_told_of_before_the_training() {
    let mini = Mini::new();
    fs::write(mini.path("lists/test"), "").unwrap();
    let lists = "prep.split.lists={train: lists/train, dev: lists/dev, test: lists/test}";
    let empty = ["--set", lists, "--set", "export.split=test", "--stop-stage", "train"];
    let ran = mini.run(&empty).expect_code(0);
    ran.expect_words(&["WARNING: export.split: ", "`test`", ": dev, train"]);
}

#[test]
fn shards_without_mels_are_scored_as_those_with_them() {
    let raw = ["--set", "train.normalise_mel=false", "--set", "pack.mel.store"];
    let scores = |store: &str| {
        let mini = Mini::new();
        let store = format!("pack.mel.store={store}");
        mini.run(&[&raw[..3], &[&store]].concat()).expect_code(0);
        json(&mini.exp("6-export/scores.json"))["distance_db"].clone()
    };
    let (computed, stored) = (scores("none"), scores("float32"));
    for trivial in ["corpus_mean", "unit_mean", "unit_and_speaker_mean"] {
        let (a, b) = (computed[trivial].as_f64().unwrap(), stored[trivial].as_f64().unwrap());
        assert!((a - b).abs() < 1e-3 && a > 0.0, "{trivial}: {a} {b}");
    }
}

#[test]
fn the_split_of_the_scores_is_shown_with_the_defaults() {
    let mini = renamed();
    let shown = flowmill(mini.folder(), &["recipe", "show", ".", "--json"]).expect_code(0).stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["export"]["split"], &shown["embed"]["fit_on"]), (&"held".into(), &"learn".into()));
}
