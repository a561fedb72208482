//! Phonemes of texts as columns of stage 1. They depend on the texts, and other extractors do not.

use std::fs;

use crate::support::{Mini, Tree, parquet};

const PHONEMES: [&str; 4] = ["--set", "embed.extractor={kind: phonemes, language: en}", "--stop-stage", "1"];

fn shorten_a_text(mini: &Mini) {
    let path = mini.path("data/text");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("ME SO SILLY"));
    fs::write(path, text.replace("ME SO SILLY", "ME SILLY")).unwrap();
}

/// Runs again and returns the stages in which a file was written.
#[track_caller]
fn stages_rewritten(mini: &Mini, arguments: &[&str]) -> Vec<String> {
    let before = mini.tree();
    mini.run(arguments).expect_code(0);
    Tree::stages(&mini.tree().written_since(&before))
}

#[test]
fn a_changed_text_changes_nothing_that_listens() {
    let mini = Mini::new();
    mini.run(&["--stop-stage", "2"]).expect_code(0);
    shorten_a_text(&mini);
    assert_eq!(stages_rewritten(&mini, &["--stop-stage", "2"]), ["0-prep"]);
}

#[test]
fn phonemes_depend_on_texts_alone() {
    let mini = Mini::new();
    mini.run(&PHONEMES).expect_code(0);
    let table = mini.exp("1-embed/train/part-00000.parquet");
    let row = |column: &str| {
        let place = parquet::texts(&table, "utt").iter().position(|utt| utt == "1688-142285-0002").unwrap();
        parquet::texts(&table, column)[place].clone()
    };
    assert_eq!(row("phonemes"), "you don't mean that you thought me so silly");
    assert_eq!((row("language"), row("spk")), ("en".to_owned(), "1688".to_owned()));
    mini.run(&PHONEMES).expect_code(0).expect_up_to_date();
    fs::copy(mini.recording("367-130732-0000"), mini.recording("367-130732-0006")).unwrap();
    assert_eq!(stages_rewritten(&mini, &PHONEMES), ["0-prep"]);
    shorten_a_text(&mini);
    assert_eq!(stages_rewritten(&mini, &PHONEMES), ["0-prep", "1-embed"]);
    assert_eq!(row("phonemes"), "you don't mean that you thought me silly");
}

#[test]
fn rows_without_a_language_are_rejected() {
    let mini = Mini::new();
    let arguments = ["--set", "embed.extractor={kind: phonemes}", "--stop-stage", "1"];
    mini.run(&arguments).expect_code(1).expect_words(&["`language: en`"]);
}
