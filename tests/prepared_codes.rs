//! Prepared codes without recordings go through stages 0 to 3: rows, phonemes, codes, shards.

use std::fs;

use flowmill_corpus::shard::ShardReader;
use flowmill_corpus::{ColumnSpec, DType, Row};

use crate::support::corpus::Corpus;
use crate::support::mini::{copy_tree, repository};
use crate::support::{Outcome, flowmill, muxers, parquet};

/// Creates a recipe's folder with the prepared data of the tests.
fn prepared(source: &str, more: &str) -> Corpus {
    let corpus = Corpus::new();
    copy_tree(&repository().join("tests/data/codes"), &corpus.path("codes"));
    let recipe = format!(
        "name: c\nmax_rejected: 1\nprep:\n  data: [{source}]\n  format: codes\n  split: {{by: fraction, fractions: \
         {{}}}}\nembed:\n  extractor: {{kind: phonemes, language: en}}\ntokens:\n  extractor: {{kind: \
         import-codes{more}}}\npack:\n  columns: [text, codes, phonemes, language]\n"
    );
    corpus.write("recipe.yaml", recipe);
    corpus
}

fn run(corpus: &Corpus) -> Outcome {
    flowmill(corpus.folder.path(), &["run", ".", "--stop-stage", "pack"])
}

/// Reads the rows of the shard: id, phonemes, and the shape of the codes.
fn packed(corpus: &Corpus) -> Vec<(String, String, Vec<usize>)> {
    let shard = ShardReader::open(&corpus.path("exp/c/3-pack/train/shard-00000.parquet")).unwrap();
    let columns = [
        ColumnSpec::new("codes", DType::I32).axis("level").axis("frame"),
        ColumnSpec::new("phonemes", DType::Text),
        ColumnSpec::new("language", DType::Text),
    ];
    let row = |row: Row| {
        assert_eq!(row.text("language").unwrap(), "en");
        (row.id.clone(), row.text("phonemes").unwrap().to_owned(), row.column("codes").unwrap().shape().to_vec())
    };
    shard.iter(&columns).unwrap().map(|read| row(read.unwrap())).collect()
}

#[test]
fn a_prepared_folder_is_packed_as_it_lies() {
    let corpus = prepared("codes/good", "");
    // A row without text has no phonemes.
    run(&corpus).expect_code(0).expect_rows(3, 2, 1);
    let rows = packed(&corpus);
    let rows: Vec<_> = rows.iter().map(|(id, text, shape)| (id.as_str(), text.as_str(), shape.as_slice())).collect();
    assert_eq!(rows, [("anna-one", "one, two.", &[8, 150][..]), ("anna-two", "two", &[8, 5])]);
    run(&corpus).expect_code(0).expect_nothing_to_do();
    fs::remove_file(corpus.path("codes/good/anna/two.enc")).unwrap();
    run(&corpus).expect_code(0);
    assert_eq!(packed(&corpus).len(), 1);
}

#[test]
fn an_hdf5_file_is_packed_as_it_lies() {
    let corpus = prepared("\"codes/data.h5#training\"", "");
    run(&corpus).expect_code(0).expect_rows(3, 3, 0);
    let shapes: Vec<_> = packed(&corpus).into_iter().map(|(_, _, shape)| shape).collect();
    assert_eq!(shapes, [[8, 3000], [8, 5], [8, 90]]);
}

#[test]
fn codes_of_another_codec_and_damaged_files_are_rejected_rows() {
    let corpus = prepared("codes/bad", ", levels: 8");
    run(&corpus).expect_code(1);
    let rejected = parquet::texts(&corpus.path("exp/c/2-tokens/rejected.parquet"), "reason").join("\n");
    for words in ["9 levels instead of 8", "is not below 1024", "all codes are zero", "[2, 8, 75]"] {
        assert!(rejected.contains(words), "{words}: {rejected}");
    }
    let corpus = prepared("codes/dac", ", levels: 9, rate: 86.1328125");
    run(&corpus).expect_code(0).expect_rows(2, 2, 0);
    let ids: Vec<_> = packed(&corpus).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids, ["carla-five", "carla-four"]);
    assert!(corpus.path("exp/c/2-tokens/usage.json").is_file());
}

#[test]
fn a_model_of_prepared_codes_speaks_if_the_weights_of_the_codec_are_given() {
    let corpus = prepared("codes/good", ", codec: encodec, weights: random");
    let train = "train:\n  model: {family: vall-e, dim: 16, heads: 2, layers: 1, ffn_multiple: 2, levels: 8, audio_tokens: 1024, \
                 languages: 1}\n  languages: [en]\n  validation_split: null\n  batch: {max_frames_in_batch: 400}\n  optim: {lr: \
                 1e-3}\n  schedule: {name: constant}\n  max_steps: 2\naverage: {which: last, count: 1}\nexport: {max_utterances: 1, speech: {max_frames: 10}}\n";
    let recipe = fs::read_to_string(corpus.path("recipe.yaml")).unwrap();
    let recipe = recipe.replace("columns: [text, codes,", "columns: [text, duration, codes,");
    corpus.write("recipe.yaml", format!("{recipe}{train}"));
    flowmill(corpus.folder.path(), &["run", "."]).expect_code(0);
    let tone = (0..24_000).flat_map(|at| (((f64::from(at) * 0.2).sin() * 8000.0) as i16).to_le_bytes()).collect();
    fs::write(corpus.path("voice.wav"), muxers::wav(1, 1, 24_000, 2, 16, &[(b"data", tone)])).unwrap();
    let model = corpus.path("exp/c/6-export").display().to_string();
    let speak = [
        "speak",
        "--model",
        &model,
        "--prompt",
        "voice.wav",
        "--text",
        "one",
        "--max-seconds",
        "0.3",
        "--out",
        "a.wav",
    ];
    flowmill(corpus.folder.path(), &speak).expect_code(0).expect_words(&["real-time factor"]);
    assert!(fs::read(corpus.path("a.wav")).unwrap().len() > 44);
}
