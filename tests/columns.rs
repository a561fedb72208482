//! Rows of other media than recordings, references between rows, and columns of any shape: from a manifest through stages 0 and 3.

use std::fs;
use std::path::PathBuf;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type};

use crate::support::corpus::{Corpus, wav};
use crate::support::{Outcome, flowmill, parquet};

/// Bytes that begin as a PNG does; nothing decodes them.
fn png(number: u8) -> Vec<u8> {
    [b"\x89PNG\r\n\x1a\n".as_slice(), &vec![number; 40 + usize::from(number)]].concat()
}

const COLUMNS: &str = "
  media: [images]
  references: [history]
  columns:
    score: f64
    age: i32 (optional)
    caption: text
    latents: f32 [frame, channel 2]
    codes: i64 [level 2, frame]
";

/// Runs the stages up to packing on a manifest `m.jsonl`.
fn run(corpus: &Corpus, prep: &str, pack: &str) -> Outcome {
    let recipe = format!(
        "name: c\nmax_rejected: 0.95\nprep:\n  data: [{{dir: m.jsonl, format: manifest}}]\n  split: {{fractions: {{}}}}{prep}\npack: {pack}\ntokens: {{extractor: {{kind: kmeans, k: 4, iterations: 2}}}}\n"
    );
    corpus.write("recipe.yaml", recipe);
    flowmill(corpus.folder.path(), &["run", ".", "--stop-stage", "3"])
}

fn shard(corpus: &Corpus, name: &str) -> PathBuf {
    corpus.path(&format!("exp/c/3-pack/train/{name}"))
}

/// A row with all columns; `more` are further fields.
fn row(id: &str, images: &str, frames: usize, more: &str) -> String {
    let latents: Vec<String> = (0..frames).map(|frame| format!("[{frame}.5, -{frame}]")).collect();
    let level = |level: usize| {
        let codes: Vec<String> = (0..frames).map(|frame| (100 * level + frame).to_string()).collect();
        format!("[{}]", codes.join(", "))
    };
    format!(
        r#"{{"id": "{id}", "group": "anna", "images": {images}, "score": 0.1, "caption": "a {id}", "latents": [{}], "codes": [{}, {}]{more}}}"#,
        latents.join(", "),
        level(0),
        level(1)
    )
}

#[test]
fn pictures_references_and_columns_go_from_a_manifest_into_shards() {
    let corpus = Corpus::new();
    (1..4).for_each(|number| corpus.write(&format!("pics/{number}.png"), png(number)));
    let rows = [
        row("a", r#"["pics/1.png", {"path": "pics/2.png"}]"#, 3, r#", "age": 7, "unread": {}"#),
        row("b", r#""pics/3.png""#, 1, r#", "history": ["a", "c"]"#),
        row("c", "[\"pics/1.png\"]", 2, ""),
    ];
    corpus.write("m.jsonl", rows.join("\n"));
    let pack = "{columns: [score, age, caption, latents, codes, history, image_data]}";
    run(&corpus, COLUMNS, pack).expect_code(0);
    let path = shard(&corpus, "shard-00000.parquet");
    assert_eq!(parquet::texts(&path, "utt"), ["a", "b", "c"]);
    assert_eq!(parquet::texts(&path, "spk"), ["anna"; 3]);
    assert_eq!(parquet::numbers(&path, "score"), [0.1; 3]);
    assert_eq!(parquet::texts(&path, "caption"), ["a a", "a b", "a c"]);
    assert_eq!(
        parquet::lists(&path, "latents"),
        [vec![0.5, 0.0, 1.5, -1.0, 2.5, -2.0], vec![0.5, 0.0], vec![0.5, 0.0, 1.5, -1.0]]
    );
    assert_eq!(parquet::numbers(&path, "latents_frames"), [3.0, 1.0, 2.0]);
    assert_eq!(parquet::numbers(&path, "latents_channels"), [2.0; 3]);
    assert_eq!(parquet::lists(&path, "codes")[0], [0.0, 1.0, 2.0, 100.0, 101.0, 102.0]);
    let batch = parquet::read(&path).remove(0);
    assert!(batch.column_by_name("mel").is_none() && batch.column_by_name("audio_data").is_none());
    let column = |name: &str| batch.column_by_name(name).unwrap().clone();
    let age = column("age");
    assert_eq!((age.as_primitive::<Int32Type>().value(0), age.null_count()), (7, 2));
    assert!(column("score").as_primitive_opt::<Float64Type>().is_some());
    assert!(column("latents").as_list::<i32>().values().as_primitive_opt::<Float32Type>().is_some());
    assert!(column("codes").as_list::<i32>().values().as_primitive_opt::<Int64Type>().is_some());
    let history = column("history");
    let history = history.as_list::<i32>();
    assert!(history.is_null(0) && history.is_null(2));
    assert_eq!(history.value(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "c"]);
    let pictures = column("image_data");
    let pictures: Vec<Vec<Vec<u8>>> = (0..3)
        .map(|at| {
            let list = pictures.as_list::<i32>().value(at);
            list.as_binary::<i32>().iter().flatten().map(<[u8]>::to_vec).collect()
        })
        .collect();
    assert_eq!(pictures, [vec![png(1), png(2)], vec![png(3)], vec![png(1)]]);
    let index: serde_json::Value = serde_json::from_slice(&fs::read(shard(&corpus, "index.json")).unwrap()).unwrap();
    assert_eq!(index["shards"][0]["axes"]["frame"], serde_json::json!([3, 1, 2]));
    flowmill(corpus.folder.path(), &["inspect", path.to_str().unwrap()]).expect_code(0).expect_words(&[
        "latents",
        "[frame, channel]",
        "codes",
        "[level, frame]",
    ]);
    // Nothing to do again; another picture is one part of stages 0 and 3 again.
    run(&corpus, COLUMNS, pack).expect_code(0).expect_nothing_to_do();
    corpus.write("pics/3.png", png(9));
    run(&corpus, COLUMNS, pack).expect_code(0);
    let batch = parquet::read(&path).remove(0);
    let pictures = batch.column_by_name("image_data").unwrap().as_list::<i32>().value(1);
    assert_eq!(pictures.as_binary::<i32>().value(0), png(9));
    // The same values as arrays of NumPy's.
    run(&corpus, COLUMNS, &pack.replace('{', "{format: webdataset, ")).expect_code(0);
    let tar = fs::read(shard(&corpus, "shard-00000.tar")).unwrap();
    let holds = |what: &[u8]| tar.windows(what.len()).any(|window| window == what);
    assert!(holds(b"a.latents.npy") && holds(b"a.image_data.1.bin") && holds(b"'shape': (3, 2)"));
}

#[test]
fn rows_that_do_not_fit_are_rejected_by_row_and_column() {
    let corpus = Corpus::new();
    (1..3).for_each(|number| corpus.write(&format!("{number}.png"), png(number)));
    corpus.write("empty.png", "");
    corpus.write("page.png", "<!DOCTYPE html><title>403</title>");
    corpus.write("text.png", "words");
    let one = r#"["1.png"]"#;
    let good = row("good", one, 2, "");
    let rows = [
        row("chain", one, 1, r#", "history": "dangling""#),
        row("dangling", one, 1, r#", "history": ["good", "nowhere"]"#),
        row("empty", r#"["1.png", "empty.png"]"#, 1, ""),
        good.clone(),
        row("gone", r#"["gone.png"]"#, 1, ""),
        row("no-medium", "null", 1, ""),
        row("page", r#"["page.png"]"#, 1, ""),
        good.replace(r#""good""#, r#""shape""#)
            .replace("[0.5, -0]", "[0.5, -0, 3]")
            .replace("[1.5, -1]", "[1.5, -1, 3]"),
        good.replace(r#""good""#, r#""type""#).replace("0.1", r#""much""#),
        good.replace(r#""good""#, r#""without""#).replace(r#""caption""#, r#""other""#),
        row("text", r#"["text.png"]"#, 1, ""),
    ];
    corpus.write("m.jsonl", rows.join("\n"));
    run(&corpus, COLUMNS, "{columns: [score, latents, image_data]}").expect_code(0);
    assert_eq!(corpus.ids(), ["good"]);
    assert_eq!(corpus.rejected().len(), 10);
    for (id, words) in [
        ("chain", &["reference", "`history`", "dangling"][..]),
        ("dangling", &["reference", "`history`", "nowhere"]),
        ("empty", &["empty file", "picture", "empty.png"]),
        ("gone", &["unreadable picture", "gone.png"]),
        ("no-medium", &["images"]),
        ("page", &["page", "page.png"]),
        ("shape", &["`latents`", "m.jsonl:8"]),
        ("type", &["`score`", "m.jsonl:9"]),
        ("without", &["`caption`", "m.jsonl:10"]),
        ("text", &["unusable picture", "text.png"]),
    ] {
        let reason = corpus.reason(id);
        assert!(words.iter().all(|word| reason.contains(word)), "{id}: {reason}");
    }
    assert_eq!(parquet::texts(&shard(&corpus, "shard-00000.parquet"), "utt"), ["good"]);
}

#[test]
fn columns_that_nothing_gives_name_their_key() {
    let corpus = Corpus::new();
    corpus.write("1.png", png(1));
    corpus.write("m.jsonl", row("a", r#"["1.png"]"#, 1, ""));
    run(&corpus, COLUMNS, "{columns: [nothing]}").expect_code(2).expect_words(&["pack.columns", "`nothing`"]);
    for (prep, key) in [
        ("\n  columns: {score: float}", "prep.columns"),
        ("\n  columns: {mel: 'f32 [frame, bin]'}", "prep.columns"),
        ("\n  references: [utt]", "prep.references"),
        ("\n  media: []", "prep.media"),
        ("\n  media: [pictures]", "prep.media"),
    ] {
        run(&corpus, prep, "{}").expect_code(2).expect_words(&[key]);
    }
}

#[test]
fn columns_of_speech_go_with_what_the_flows_need() {
    let corpus = Corpus::new();
    // Fields that nobody asked for are not looked at, whatever they are.
    for id in ["a", "b"] {
        corpus.write(&format!("{id}.wav"), wav());
    }
    corpus.write(
        "m.jsonl",
        "{\"wav\": \"a.wav\", \"text\": \"A\", \"video\": \"https://x/y\", \"images\": 5, \"mos\": 4.5}\n{\"wav\": \"b.wav\", \"text\": \"B\", \"mos\": 1}\n",
    );
    let source = "{dir: m.jsonl, format: manifest}";
    corpus.prepare(source, "").expect_code(0);
    assert_eq!(corpus.ids(), ["a", "b"]);
    assert!(!corpus.path("exp/c/0-prep/train/columns-00000.parquet").exists());
    run(&corpus, "\n  columns: {mos: f32}", "{columns: [text, mos, audio_data, duration]}").expect_code(0);
    let path = shard(&corpus, "shard-00000.parquet");
    assert_eq!(parquet::numbers(&path, "mos"), [4.5, 1.0]);
    assert_eq!(parquet::texts(&path, "text"), ["A", "B"]);
    assert_eq!(parquet::binaries(&path, "audio_data"), [wav(), wav()]);
    assert_eq!(parquet::numbers(&path, "duration"), [0.5, 0.5]);
}
