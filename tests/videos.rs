//! Videos through the program: folders of clips, names of RAVDESS, parts of clips in a manifest, bad files, and `inspect`.

use std::fs;

use crate::support::corpus::Corpus;
use crate::support::mini::repository;
use crate::support::{flowmill, parquet};

/// A file of the video crate's tests, or a clip of the GRID corpus.
fn video(name: &str) -> Vec<u8> {
    let of_tests = repository().join("src/video/tests/data").join(name);
    let of_grid = repository().join("data/grid11/clips").join(name);
    fs::read(if of_tests.exists() { of_tests } else { of_grid }).unwrap()
}

/// Runs stage 0 on a section `prep`.
fn prepare(corpus: &Corpus, prep: &str) -> crate::support::Outcome {
    corpus.write("recipe.yaml", format!("name: c\nmax_rejected: 1\nprep:\n{prep}"));
    flowmill(corpus.folder.path(), &["run", ".", "--stop-stage", "0"])
}

fn split(corpus: &Corpus, name: &str, column: &str) -> Vec<String> {
    let table = corpus.path(&format!("exp/c/0-prep/{name}/part-00000.parquet"));
    if table.exists() { parquet::texts(&table, column) } else { Vec::new() }
}

#[test]
fn ravdess_names_become_rows_with_emotions_by_actor() {
    let corpus = Corpus::new();
    let clips = ["bbaf2n.mp4", "brbk7n.mp4", "lbax4n.mp4"];
    for (at, clip) in clips.into_iter().enumerate() {
        let actor = at + 1;
        let name = |modality: u8, emotion: usize| {
            format!("r/Actor_{actor:02}/{modality:02}-01-{emotion:02}-01-01-01-{actor:02}.mp4")
        };
        corpus.write(&name(1, at + 3), video(clip));
        corpus.write(&name(2, at + 3), video("silent.mp4"));
    }
    corpus.write("r/Actor_01/03-01-08-01-02-01-01.wav", crate::support::corpus::wav());
    corpus.write("r/Actor_01/01-01-05-01-01-01-01.mp4", "Kids are talking by the door.");
    corpus.write("r/Actor_01/01-01-09-01-01-01-01.mp4", video("silent.mp4"));
    let prep = "  data: [{dir: r, format: ravdess}]\n  split: {unit: group, fractions: {test: 0.5}}\n";
    prepare(&corpus, prep).expect_code(0).expect_rows(9, 7, 2);
    corpus.expect_rejected("01-01-05-01-01-01-01", "unusable video", &["does not begin like MP4"]);
    corpus.expect_rejected("Actor_01-01-01-09-01-01-01-01.mp4", "bad name", &["09"]);
    let mut rows = Vec::new();
    for name in ["train", "test"] {
        let (ids, speakers) = (split(&corpus, name, "utt"), split(&corpus, name, "spk"));
        let wavs = split(&corpus, name, "wav");
        rows.extend(ids.into_iter().zip(speakers).zip(wavs).map(|((id, speaker), wav)| (name, id, speaker, wav)));
    }
    assert_eq!(rows.len(), 7);
    for (name, id, speaker, wav) in &rows {
        assert!(rows.iter().all(|(other, _, by, _)| by != speaker || other == name), "an actor is in one split");
        assert_eq!(wav.is_empty(), id.starts_with("02"), "{id}: {wav}");
    }
    let labels = |name: &str| {
        let table = corpus.path(&format!("exp/c/0-prep/{name}/columns-00000.parquet"));
        if table.exists() { parquet::texts(&table, "emotion_label") } else { Vec::new() }
    };
    let mut labels = [labels("train"), labels("test")].concat();
    labels.sort();
    assert_eq!(labels, ["angry", "angry", "happy", "happy", "sad", "sad", "surprise"]);
}

#[test]
fn a_folder_of_clips_is_read_with_its_sound() {
    let corpus = Corpus::new();
    corpus.write("d/ann/one.mp4", video("fps25.mp4"));
    corpus.write("d/ann/two.mkv", video("remuxed.mkv"));
    corpus.write("d/bob.mp4", video("silent.mp4"));
    for name in ["truncated.mp4", "odd_65x63.mp4"] {
        corpus.write(&format!("d/{name}"), video(name));
    }
    corpus.write("d/text.mp4", "a text");
    corpus.write("d/empty.mp4", "");
    let prep = "  data: [{dir: d, format: clips}]\n  split: {fractions: {}}\n";
    prepare(&corpus, prep).expect_code(0).expect_rows(7, 3, 4);
    assert_eq!(corpus.ids(), ["ann-one", "ann-two", "bob"]);
    assert_eq!(split(&corpus, "train", "spk"), ["ann", "ann", "bob"]);
    assert_eq!(split(&corpus, "train", "wav"), ["d/ann/one.mp4", "d/ann/two.mkv", ""]);
    let seconds = parquet::numbers(&corpus.table(), "duration");
    assert!((seconds[0] - 1.9).abs() < 0.1 && seconds[2] == 2.0, "{seconds:?}");
    let media = corpus.path("exp/c/0-prep/train/media-00000.parquet");
    assert_eq!(parquet::texts(&media, "video"), ["d/ann/one.mp4", "d/ann/two.mkv", "d/bob.mp4"]);
    corpus.expect_rejected("truncated", "unreadable video", &["moov"]);
    corpus.expect_rejected("odd_65x63", "unreadable video", &["H.264", "prep.fallback: ffmpeg"]);
    corpus.expect_rejected("text", "unusable video", &["text.mp4"]);
    corpus.expect_rejected("empty", "empty file instead of a video", &["empty.mp4"]);
    prepare(&corpus, prep).expect_code(0).expect_nothing_to_do();
    // Another clip is another row.
    corpus.write("d/carl.mp4", video("fps25.mp4"));
    prepare(&corpus, prep).expect_code(0).expect_rows(8, 4, 4);
}

#[test]
fn parts_of_clips_may_be_held_out_but_not_the_same_parts() {
    let corpus = Corpus::new();
    corpus.write("a.mp4", video("bbaf2n.mp4"));
    corpus.write("b.mp4", video("silent.mp4"));
    let row = |id: &str, video: &str, offset: f64, duration: f64| {
        format!("{{\"id\": \"{id}\", \"video\": \"{video}\", \"offset\": {offset}, \"duration\": {duration}}}\n")
    };
    corpus.write("train.jsonl", row("a1", "a.mp4", 0.0, 2.0) + &row("b1", "b.mp4", 0.0, 1.2));
    corpus.write(
        "test.jsonl",
        row("a2", "a.mp4", 2.0, 1.0) + &row("b2", "b.mp4", 1.0, 1.0) + &row("b3", "b.mp4", 9.0, 1.0),
    );
    let source = |name: &str| format!("{{dir: {name}.jsonl, format: manifest, split: {name}}}");
    let prep =
        format!("  data: [{}, {}]\n  media: [audio, video]\n  split: {{by: given}}\n", source("train"), source("test"));
    prepare(&corpus, &prep).expect_code(0);
    assert_eq!(
        (split(&corpus, "train", "utt"), split(&corpus, "test", "utt")),
        (vec!["a1".to_owned(), "b1".to_owned()], vec!["a2".to_owned()])
    );
    assert_eq!(split(&corpus, "train", "wav"), ["a.mp4", ""]);
    let table = corpus.path("exp/c/0-prep/test/part-00000.parquet");
    let (start, end) = (parquet::numbers(&table, "start"), parquet::numbers(&table, "end"));
    // The sound ends 5 ms before the picture.
    assert!(start == [2.0] && (end[0] - 3.0).abs() < 0.01, "{start:?} {end:?}");
    corpus.expect_rejected("b2", "in another split", &["b.mp4", "train"]);
    corpus.expect_rejected("b3", "segment outside its video", &["9"]);
}

#[test]
fn videos_are_inspected() {
    let corpus = Corpus::new();
    let shown = |name: &str| {
        corpus.write(name, video(name));
        flowmill(corpus.folder.path(), &["inspect", name])
    };
    shown("fps25.mp4").expect_code(0).expect_words(&[
        "MP4",
        "H.264",
        "64 × 64",
        "25.000 per second",
        "50",
        "2.000 s",
        "aac",
    ]);
    shown("fps2997.mp4").expect_code(0).expect_words(&["29.970 per second", "90", "3.003 s"]);
    shown("remuxed.mkv").expect_code(0).expect_words(&["Matroska", "H.264", "90"]);
    shown("silent.mp4").expect_code(0).expect_words(&["none"]);
    shown("variable709.mp4").expect_code(0).expect_words(&["variable", "26"]);
    shown("rotated.mp4").expect_code(0).expect_words(&["270 degrees"]);
    shown("late_sound.mp4").expect_code(0).expect_words(&["starts at 0.273"]);
    assert_ne!(shown("truncated.mp4").expect_no_panic().code, Some(0));
}
