//! `flowmill init`: what a folder is, and a recipe for it that runs.

use std::fs;

use crate::support::corpus::{Corpus, wav};
use crate::support::parquet::{cosyvoice_rows, write_cosyvoice};
use crate::support::{Mini, Outcome, flowmill};

/// Runs `flowmill init` in a folder.
fn init(corpus: &Corpus, arguments: &[&str]) -> Outcome {
    flowmill(corpus.folder.path(), &[&["init"], arguments].concat())
}

/// A corpus as LJSpeech unpacks, `wavs/` and `metadata.csv`, below a folder.
fn ljspeech(corpus: &Corpus, folder: &str) {
    for id in ["LJ001-0001", "LJ001-0002"] {
        corpus.write(&format!("{folder}/wavs/{id}.wav"), wav());
    }
    corpus.write(&format!("{folder}/metadata.csv"), "LJ001-0001|One|one\nLJ001-0002|Two|two\nLJ001-0003||\n");
}

#[test]
fn a_recipe_is_written_for_what_a_folder_is_and_never_over_another() {
    let corpus = Corpus::new();
    ljspeech(&corpus, "data of mine/LJSpeech-1.1");
    let outcome = init(&corpus, &["data of mine"]).expect_code(0);
    outcome.expect_words(&[
        "LJSpeech",
        "format: ljspeech",
        "1 that are rejected",
        "pcm_s16le, 8000 Hz, 1 channel (2)",
        "1.0 s",
        "0-prep",
    ]);
    let recipe = fs::read_to_string(corpus.path("recipe.yaml")).unwrap();
    assert!(recipe.contains(r#"- {dir: "data of mine/LJSpeech-1.1", format: ljspeech}"#), "{recipe}");
    let before = recipe;
    init(&corpus, &["data of mine"]).expect_code(2).expect_words(&["recipe.yaml", "not overwritten"]);
    assert_eq!(fs::read_to_string(corpus.path("recipe.yaml")).unwrap(), before);
    flowmill(
        corpus.folder.path(),
        &["run", "recipe.yaml", "--stop-stage", "0", "--set", "prep.split.fractions={}", "--set", "max_rejected=0.9"],
    )
    .expect_code(0)
    .expect_rows(3, 2, 1);
    // The folder itself too, without `init`.
    corpus.prepare("{dir: data of mine, format: ljspeech}", "max_rejected: 0.9").expect_code(0).expect_rows(3, 2, 1);
}

#[test]
fn every_family_has_a_recipe_that_is_valid_but_for_its_weights() {
    let mini = Mini::new();
    for family in ["cosyvoice2-flow", "cosyvoice3-flow", "sfm-flow", "step-audio-flow", "vall-e"] {
        let out = format!("{family}/recipe.yaml");
        flowmill(mini.folder(), &["init", "data", "--family", family, "--out", &out]).expect_code(0).expect_words(&[
            family,
            "12 with a transcript",
            "would run",
            "0-prep: would run",
        ]);
        flowmill(mini.folder(), &["recipe", "check", &out]).expect_code(0);
        let recipe = fs::read_to_string(mini.path(&out)).unwrap();
        assert!(recipe.contains(&format!("family: {family}")) && !recipe.contains("base:"), "{recipe}");
        flowmill(mini.folder(), &["run", &out, "--stop-stage", "0"]).expect_code(0);
    }
    flowmill(mini.folder(), &["init", "data", "--family", "stable-diffusion", "--out", "x.yaml"]).expect_code(2);
    flowmill(mini.folder(), &["init", "data", "--family", "none", "--out", "x.yaml"])
        .expect_code(2)
        .expect_words(&["vall-e"]);
    assert!(!mini.path("x.yaml").exists());
}

#[test]
fn data_without_the_media_of_a_family_are_told() {
    let mini = Mini::new();
    for (family, media) in [("float", "video"), ("pmg", "images")] {
        let out = format!("{family}/recipe.yaml");
        let outcome = flowmill(mini.folder(), &["init", "data", "--family", family, "--out", &out]).expect_code(0);
        let outcome = outcome.expect_words(&["to do", &format!("{family} needs {media}"), "the rows have audio only"]);
        assert!(!outcome.stdout.contains("would run"), "{}", outcome.stdout);
    }
}

#[test]
fn splits_of_the_data_and_folders_of_splits_are_kept() {
    let corpus = Corpus::new();
    for (split, ids) in [("train", ["a", "b"]), ("dev", ["c", "d"]), ("test", ["e", "f"])] {
        let lines = |of: &dyn Fn(&str) -> String| ids.iter().map(|id| of(id)).collect::<String>();
        ids.iter().for_each(|id| corpus.write(&format!("kaldi/{split}/{id}.wav"), wav()));
        corpus.write(&format!("kaldi/{split}/wav.scp"), lines(&|id| format!("{id} {id}.wav\r\n")));
        corpus.write(&format!("kaldi/{split}/text"), lines(&|id| format!("{id} words\n")));
        corpus.write(&format!("kaldi/{split}/utt2spk"), lines(&|id| format!("{id} {id}\n")));
        ids.iter().for_each(|id| corpus.write(&format!("lines/{split}/{id}.wav"), wav()));
        let row = |id: &str| format!("{{\"audio\": \"{id}.wav\", \"text\": \"words\", \"language\": \"en\"}}\n");
        corpus.write(&format!("lines/{split}/rows.jsonl"), format!("\u{feff}{}", lines(&row)));
    }
    init(&corpus, &["kaldi", "--out", "kaldi.yaml"]).expect_code(0).expect_words(&["train (2)", "dev (2)"]);
    let recipe = fs::read_to_string(corpus.path("kaldi.yaml")).unwrap();
    assert!(
        recipe.contains("split: {by: given}") && recipe.contains(r#"{dir: "kaldi/dev", format: kaldi, split: dev}"#),
        "{recipe}"
    );
    init(&corpus, &["lines", "--out", "lines.yaml"]).expect_code(0).expect_words(&["en (6)", "test (2)"]);
    assert!(fs::read_to_string(corpus.path("lines.yaml")).unwrap().contains("split: {by: corpus}"));
    for name in ["kaldi", "lines"] {
        flowmill(corpus.folder.path(), &["run", &format!("{name}.yaml"), "--stop-stage", "0"])
            .expect_code(0)
            .expect_rows(6, 6, 0);
        assert!(corpus.path(&format!("exp/{name}/0-prep/dev/part-00000.parquet")).exists());
    }
}

#[test]
fn packed_shards_need_no_weights() {
    let mini = Mini::packed();
    let rows = cosyvoice_rows(&mini.exp("3-pack/train/shard-00000.parquet"));
    write_cosyvoice(&mini.path("shards/parquet_000000000.tar"), &rows);
    let outcome = flowmill(mini.folder(), &["init", "shards", "--out", "made.yaml"]);
    // The embeddings of the miniature are not of the width of the published model.
    outcome.expect_code(0).expect_words(&["packed shards", "spk_embed_dim", "32 values"]);
    let fits = ["--set", "train.model.spk_embed_dim=32", "--set", "prep.min_duration=0", "--set", "pack.min_tokens=1"];
    flowmill(mini.folder(), &[&["run", "made.yaml", "--stop-stage", "3"], &fits[..]].concat()).expect_code(0);
}

#[test]
fn folders_that_are_no_corpus_or_several_are_refused() {
    let corpus = Corpus::new();
    fs::create_dir(corpus.path("empty")).unwrap();
    corpus.write("odd/notes.md", "nothing");
    ljspeech(&corpus, "both/lj");
    corpus.write("both/k/wav.scp", "a a.wav\n");
    ljspeech(&corpus, "twice/one");
    ljspeech(&corpus, "twice/two");
    corpus.write("lost/wav.scp", "a a.wav\n");
    for (folder, words) in [
        ("empty", &["empty"][..]),
        ("odd", &["no known layout", "wav.scp", "metadata.csv"]),
        ("both", &["several corpora", "k (kaldi)", "lj (ljspeech)"]),
        ("twice", &["several corpora", "one (ljspeech)"]),
        ("nowhere", &["there is no folder"]),
    ] {
        init(&corpus, &[folder]).expect_code(2).expect_words(words);
        assert!(!corpus.path("recipe.yaml").exists(), "{folder}");
    }
}
