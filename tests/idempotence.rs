//! Repeated runs: only what changed runs again, and the reason names the field or file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::support::{Mini, Tree, Verdict};

/// The stages that a training change concerns.
const FROM_TRAINING: [&str; 3] = ["4-train", "5-average", "6-export"];

/// Runs again and gives the stages in which a file was written.
#[track_caller]
fn stages_rewritten(mini: &Mini, before: &Tree, arguments: &[&str], reason: &str) -> Vec<String> {
    mini.run(arguments).expect_code(0).expect_words(&[reason]);
    Tree::stages(&mini.tree().written_since(before))
}

/// Flips one bit in the middle of a file and puts its time of change back, as silent corruption does.
fn corrupt(path: &Path) {
    let changed = fs::metadata(path).unwrap().modified().unwrap();
    let mut content = fs::read(path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(path, content).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(changed).unwrap();
}

/// An output of every stage: the first file that is no receipt, no list, not the stage's summary and no checkpoint, of which damage is told
/// and moved aside.
fn one_output_per_stage(tree: &Tree) -> Vec<PathBuf> {
    let is_output = |path: &&PathBuf| {
        let text = path.to_string_lossy();
        !text.contains("/receipts/")
            && !text.contains("/checkpoints/")
            && !text.ends_with("/stage.json")
            && !text.ends_with("/rejected.parquet")
    };
    let stages = Tree::stages(&tree.0.keys().cloned().collect::<Vec<_>>());
    let first = |stage: &String| tree.0.keys().filter(is_output).find(|path| path.starts_with(stage)).cloned();
    stages.iter().filter_map(first).collect()
}

#[test]
fn a_second_run_changes_nothing_and_says_so() {
    let mini = Mini::finished();
    let before = mini.tree();
    let again = mini.run(&[]).expect_code(0).expect_nothing_to_do();
    println!("the second run took {:.3} s", again.took.as_secs_f64());
    assert_eq!(mini.tree(), before, "files or their times of change differ");
    let dry = mini.run(&["--dry-run"]).expect_code(0);
    let would_run = FROM_TRAINING.iter().chain(&["0-prep", "1-embed", "2-tokens", "3-pack"]);
    let would_run = would_run.filter(|stage| dry.has_verdict(stage, Verdict::WouldRun));
    assert_eq!(would_run.count(), 0, "{}", dry.text());
    assert_eq!(mini.tree(), before, "--dry-run touched something");
}

#[test]
fn touching_a_recording_without_changing_it_reruns_nothing() {
    let mini = Mini::finished();
    let before = mini.tree();
    let recording = File::options().write(true).open(mini.recording("367-130732-0006")).unwrap();
    recording.set_modified(SystemTime::now() - Duration::from_secs(1000)).unwrap();
    mini.run(&[]).expect_code(0).expect_nothing_to_do();
    assert_eq!(mini.tree(), before);
}

#[test]
fn a_changed_recording_is_named_and_what_depends_on_it_runs() {
    let mini = Mini::finished();
    fs::copy(mini.recording("367-130732-0000"), mini.recording("367-130732-0006")).unwrap();
    let before = mini.tree();
    let dry = mini.run(&["--dry-run"]).expect_code(0);
    dry.expect_verdict("0-prep", Verdict::WouldRun)
        .expect_verdict("4-train", Verdict::Refused)
        .expect_words(&["367-130732-0006.flac"]);
    mini.run(&[]).expect_code(2).expect_words(&["367-130732-0006.flac", "--stop-stage"]);
    assert_eq!(mini.tree(), before, "refused before anything is written");
    assert_eq!(mini.tree(), before, "--dry-run touched something");
    let stages = stages_rewritten(&mini, &before, &["--stop-stage", "pack"], "367-130732-0006.flac");
    assert_eq!(stages.first().map(String::as_str), Some("0-prep"), "{stages:?}");
    assert!(stages.contains(&"3-pack".to_string()), "{stages:?}");
    // Training on other data is another training, which is not begun over a finished one without being told to.
    let trained = Tree::of(&mini.exp("4-train"));
    mini.run(&[]).expect_error("would-lose", 2).expect_words(&["step 12 of 12", "3-pack/train/index.json"]);
    assert_eq!(trained, Tree::of(&mini.exp("4-train")));
    mini.run(&["--stage", "train", "--force"]).expect_code(0).expect_words(&["step 12 of 12"]);
    mini.run(&[]).expect_code(0).expect_nothing_to_do();
}

#[test]
fn a_changed_field_is_named_and_only_later_stages_run() {
    let mini = Mini::finished();
    let before = mini.tree();
    let change = ["--set", "train.optim.lr=3e-4"];
    let forced = ["--stage", "train", "--force"];
    mini.run(&change).expect_error("would-lose", 2).expect_words(&["train.optim.lr", "0.001", "0.0003"]);
    let stages = stages_rewritten(&mini, &before, &[&change[..], &forced].concat(), "step 12 of 12");
    assert_eq!(stages, FROM_TRAINING);
    mini.run(&change).expect_code(0).expect_nothing_to_do();
    // And back again: the values of the recipe give the bytes of the first run.
    mini.run(&[]).expect_code(2).expect_words(&["train.optim.lr: "]);
    mini.run(&forced).expect_code(0);
    before.expect_same_bytes(&mini.tree(), "after the field was changed back");
}

#[test]
fn a_deleted_shard_is_made_again_and_nothing_else() {
    let mini = Mini::finished();
    let before = mini.tree();
    let shards: Vec<PathBuf> =
        mini.files_ending(".parquet").into_iter().filter(|path| path.starts_with("3-pack/train")).collect();
    let shard = shards.first().expect("the pack stage makes Parquet shards").clone();
    fs::remove_file(mini.exp("").join(&shard)).unwrap();
    let reason = format!("output {} is missing", shard.display());
    let stages = stages_rewritten(&mini, &before, &[], &reason);
    assert_eq!(stages, ["3-pack"]);
    before.expect_same_bytes(&mini.tree(), "after a deleted shard");
}

#[test]
fn one_corrupt_byte_in_any_stage_is_found_and_repaired() {
    let mini = Mini::finished();
    let before = mini.tree();
    let outputs = one_output_per_stage(&before);
    assert_eq!(outputs.len(), 7, "{outputs:?}");
    for output in outputs {
        corrupt(&mini.exp("").join(&output));
        let damaged = mini.tree();
        let stages = stages_rewritten(&mini, &damaged, &[], &output.display().to_string());
        let own = output.iter().next().unwrap().to_string_lossy().into_owned();
        assert_eq!(stages, [own], "{}", output.display());
        before.expect_same_bytes(&mini.tree(), &format!("after {} was corrupted", output.display()));
    }
}

#[test]
fn the_same_recipe_gives_the_same_bytes_whatever_the_number_of_threads() {
    let (one, two) = (Mini::new(), Mini::new());
    one.run(&["--jobs", "1"]).expect_code(0);
    two.run(&["--jobs", "3"]).expect_code(0);
    one.tree().expect_same_bytes(&two.tree(), "1 thread against 3");
}

#[test]
fn deleted_stages_run_again_and_give_the_same() {
    let mini = Mini::finished();
    let before = mini.tree();
    mini.flowmill("clean", &["--stage", "pack", "--dry-run"]).expect_code(0).expect_words(&["3-pack", "6-export"]);
    mini.flowmill("clean", &["--stage", "pack"]).expect_code(2).expect_words(&["--yes"]);
    assert_eq!(mini.tree(), before);
    mini.flowmill("clean", &["--stage", "pack", "--stop-stage", "pack", "--yes"]).expect_code(0);
    assert!(!mini.exp("3-pack").exists() && mini.exp("2-tokens").exists());
    mini.run(&["--stage", "4"]).expect_error("not-finished", 2).expect_words(&["3-pack", "--stage 3"]);
    mini.run(&[]).expect_code(0);
    before.expect_same_bytes(&mini.tree(), "after a deleted stage");
}
