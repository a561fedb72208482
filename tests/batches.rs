//! The keys that say which utterances are trained on and how many a batch holds, and those of W&B's runs.

use std::fs;

use crate::support::training::metrics;
use crate::support::{Mini, Outcome};

/// Trains one epoch with these settings.
fn epoch(mini: &Mini, settings: &[&str]) -> Outcome {
    let mut arguments = vec!["--stop-stage", "train", "--force", "--set", "train.max_steps=null"];
    arguments.extend([
        "--set",
        "train.max_epochs=1",
        "--set",
        "train.save_every=1000",
        "--set",
        "train.validate_every=0",
    ]);
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    mini.run(&arguments).expect_code(0)
}

/// The steps that the last training took.
fn steps(mini: &Mini) -> usize {
    let lines = metrics(&mini.exp("4-train/metrics.jsonl"));
    lines.iter().filter(|line| line.get("lr").is_some()).count()
}

#[test]
fn a_batch_holds_as_many_utterances_as_the_recipe_says() {
    let mini = Mini::packed();
    let count = fs::read_to_string(mini.path("lists/train")).unwrap().lines().count();
    let room = "train.batch.max_frames_in_batch=100000";
    epoch(&mini, &[room]).expect_words(&[&format!("train_utterances {count}")]);
    assert_eq!(steps(&mini), 1, "one batch takes them all");
    epoch(&mini, &[room, "train.batch.max_utterances_in_batch=3"]);
    assert_eq!(steps(&mini), count.div_ceil(3));
    epoch(&mini, &["train.batch={batch_size: 2}"]);
    assert_eq!(steps(&mini), count.div_ceil(2));
}

#[test]
fn another_split_can_be_trained_on() {
    let mini = Mini::new();
    let list = fs::read_to_string(mini.path("lists/train")).unwrap();
    let ids: Vec<&str> = list.lines().collect();
    let (few, most) = ids.split_at(3);
    fs::write(mini.path("lists/train"), most.join("\n") + "\n").unwrap();
    fs::write(mini.path("lists/few"), few.join("\n") + "\n").unwrap();
    let lists = "prep.split.lists={train: lists/train, dev: lists/dev, few: lists/few}";
    let run = epoch(&mini, &[lists, "train.train_split=few", "train.batch={batch_size: 1}"]);
    run.expect_words(&["train_utterances 3,"]);
    assert_eq!(steps(&mini), 3);
}

#[test]
fn a_run_of_wandb_says_whose_it_is() {
    let mini = Mini::packed();
    let names = "train.wandb={project: p-mill, name: n-first, entity: e-people, group: g-series, tags: [t-slow], notes: o-look}";
    epoch(&mini, &[names]);
    let files = mini.files_ending(".wandb");
    let [file] = &files[..] else { panic!("{files:?}") };
    let bytes = fs::read(mini.exp(&file.to_string_lossy())).unwrap();
    for name in ["p-mill", "n-first", "e-people", "g-series", "t-slow", "o-look"] {
        assert!(bytes.windows(name.len()).any(|window| window == name.as_bytes()), "{name}");
    }
}
