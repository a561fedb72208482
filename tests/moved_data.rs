//! Data that moved to another place are the same data: nothing is made again, and no training is blocked.

use std::fs;

use crate::support::training::{ENDLESS, Training};
use crate::support::{Mini, Tree, Verdict};

/// Moves the corpus elsewhere, with another name for every recording, and makes the recipe read it there.
fn move_corpus(mini: &Mini, absolute: bool) {
    fs::create_dir(mini.path("moved")).unwrap();
    fs::rename(mini.path("data"), mini.path("moved/corpus")).unwrap();
    fs::rename(mini.path("moved/corpus/audio"), mini.path("moved/corpus/recordings")).unwrap();
    let index = mini.path("moved/corpus/wav.scp");
    let text = fs::read_to_string(&index).unwrap();
    let folder = if absolute {
        format!("{}/recordings/", mini.path("moved/corpus").display())
    } else {
        "recordings/".to_owned()
    };
    fs::write(&index, text.replace("audio/", &folder)).unwrap();
    let recipe = fs::read_to_string(mini.path("recipe.yaml")).unwrap();
    fs::write(mini.path("recipe.yaml"), recipe.replace("  data: data", "  data: moved/corpus")).unwrap();
}

#[test]
fn a_corpus_that_moved_is_listed_again_and_nothing_else_is_done() {
    for absolute in [false, true] {
        let mini = Mini::finished();
        let before = mini.tree();
        move_corpus(&mini, absolute);
        mini.run(&[]).expect_code(0);
        let rewritten = Tree::stages(&mini.tree().written_since(&before));
        // The table of stage 0 holds paths, and the card repeats the recipe.
        assert!(rewritten.contains(&"0-prep".to_owned()), "{rewritten:?}");
        assert!(rewritten.iter().all(|stage| stage == "0-prep" || stage == "6-export"), "{rewritten:?}");
        let changed = mini.tree().written_since(&before);
        let changed: Vec<String> = changed.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let export: Vec<&String> = changed.iter().filter(|path| path.starts_with("6-export")).collect();
        let of_card = |path: &str| path.contains("README") || path.contains("card") || path.ends_with("stage.json");
        assert!(export.iter().all(|path| of_card(path)), "{export:?}");
        mini.run(&[]).expect_code(0).expect_nothing_to_do();
    }
}

#[test]
fn another_recording_at_a_moved_place_is_noticed() {
    let mini = Mini::packed();
    move_corpus(&mini, false);
    let recording = |id: &str| mini.path(&format!("moved/corpus/recordings/{id}.flac"));
    // Two recordings change places: every content is still there.
    fs::rename(recording("367-130732-0006"), mini.path("aside")).unwrap();
    fs::rename(recording("367-130732-0000"), recording("367-130732-0006")).unwrap();
    fs::rename(mini.path("aside"), recording("367-130732-0000")).unwrap();
    let before = mini.tree();
    mini.run(&["--stop-stage", "3"]).expect_code(0);
    let rewritten = Tree::stages(&mini.tree().written_since(&before));
    assert_eq!(rewritten, ["0-prep", "1-embed", "2-tokens", "3-pack"]);
}

#[test]
fn an_interrupted_training_goes_on_when_the_corpus_has_moved() {
    let mini = Mini::packed();
    let training = Training::start(&mini, &ENDLESS).listening();
    training.ctl(&["save"]).expect_code(0);
    training.kill();
    move_corpus(&mini, false);
    mini.run(&[&ENDLESS[..], &["--stop-stage", "3"]].concat()).expect_code(0);
    let dry = mini.run(&[&ENDLESS[..], &["--stage", "4", "--stop-stage", "4", "--dry-run"]].concat()).expect_code(0);
    let dry = dry.expect_verdict("4-train", Verdict::WouldRun);
    assert!(!dry.text().contains("refused"), "{}", dry.text());
}

#[test]
fn a_recipe_folder_that_moved_is_up_to_date() {
    let mini = Mini::finished();
    let moved = tempfile::tempdir().unwrap();
    let copied =
        std::process::Command::new("cp").arg("-r").arg(mini.path(".")).arg(moved.path().join("there")).status();
    assert!(copied.unwrap().success());
    fs::remove_dir_all(mini.path("data")).unwrap();
    let there = moved.path().join("there");
    crate::support::flowmill(&there, &["run", "."]).expect_code(0).expect_nothing_to_do();
    let absolute = there.to_string_lossy().into_owned();
    let elsewhere = std::env::temp_dir();
    let exp = there.join("exp/mini").to_string_lossy().into_owned();
    let run = ["run", &absolute, "--exp", &exp];
    crate::support::flowmill(&elsewhere, &run).expect_code(0).expect_nothing_to_do();
}
