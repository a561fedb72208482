//! Imports of values that other tools extracted: embeddings and tokens in files of `torch.save` and `pickle.dump`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::mini::{golden, repository};
use crate::support::{Mini, flowmill, parquet};

/// A value of a pickle.
pub enum Value {
    Floats(Vec<f64>),
    Ints(Vec<f64>),
    Text(&'static str),
}

/// A dictionary as `pickle.dump` writes it, protocol 2.
fn pickle(entries: &[(String, Value)]) -> Vec<u8> {
    let mut bytes = vec![0x80, 2, b'}', b'('];
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.push(b'X');
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    for (id, value) in entries {
        text(&mut bytes, id);
        match value {
            Value::Text(value) => text(&mut bytes, value),
            Value::Floats(values) => {
                bytes.extend(b"](");
                values.iter().for_each(|value| bytes.extend([b"G".as_slice(), &value.to_be_bytes()].concat()));
                bytes.push(b'e');
            }
            Value::Ints(values) => {
                bytes.extend(b"](");
                let int = |value: &f64| [b"J".as_slice(), &(*value as i32).to_le_bytes()].concat();
                values.iter().for_each(|value| bytes.extend(int(value)));
                bytes.push(b'e');
            }
        }
    }
    bytes.extend(b"u.");
    bytes
}

pub fn save(path: &Path, entries: &[(String, Value)]) {
    fs::write(path, pickle(entries)).unwrap();
}

/// A table's lists by their ids.
pub fn table(path: &Path, id: &str, column: &str) -> Vec<(String, Vec<f64>)> {
    parquet::texts(path, id).into_iter().zip(parquet::lists(path, column)).collect()
}

/// Writes the outputs of stages 1 and 2 of a finished run as files to import, in its recipe's folder.
pub fn export(mini: &Mini) {
    let both = |stage: &str, column: &str| {
        let of = |split: &str| {
            let folder = mini.exp(&format!("{stage}/{split}"));
            let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            files.iter().flat_map(|file| table(file, "utt", column)).collect::<Vec<_>>()
        };
        [of("train"), of("dev")].concat()
    };
    let floats = |rows: Vec<(String, Vec<f64>)>| rows.into_iter().map(|(id, row)| (id, Value::Floats(row))).collect();
    let embeddings: Vec<_> = floats(both("1-embed", "utt_embedding"));
    save(&mini.path("utt2embedding.pt"), &embeddings);
    let speakers: Vec<_> = floats(table(&mini.exp("1-embed/spk2embedding.parquet"), "spk", "spk_embedding"));
    save(&mini.path("spk2embedding.pt"), &speakers);
    let mut tokens: Vec<_> =
        both("2-tokens", "speech_token").into_iter().map(|(id, row)| (id, Value::Ints(row))).collect();
    tokens.push(("of-no-one".into(), Value::Ints(vec![1.0, 2.0])));
    save(&mini.path("utt2speech_token.pt"), &tokens);
}

/// The tokens of a run that was stopped after stage 2, and a copy to import such into.
fn extracted() -> (Mini, Vec<(String, Vec<f64>)>) {
    let mini = Mini::new();
    mini.run(&["--stop-stage", "2"]).expect_code(0);
    let of = |split: &str| {
        let mut files: Vec<_> = fs::read_dir(mini.exp(&format!("2-tokens/{split}"))).unwrap().collect();
        files.sort_by_key(|entry| entry.as_ref().unwrap().path());
        files.iter().flat_map(|entry| table(&entry.as_ref().unwrap().path(), "utt", "speech_token")).collect::<Vec<_>>()
    };
    let rows = [of("train"), of("dev")].concat();
    (mini, rows)
}

fn save_tokens(path: &Path, rows: &[(String, Vec<f64>)]) {
    save(path, &rows.iter().map(|(id, row)| (id.clone(), Value::Ints(row.clone()))).collect::<Vec<_>>());
}

const EMBED: &str =
    "embed.extractor={kind: import, embeddings: utt2embedding.pt, speakers: spk2embedding.pt, dimensions: 32}";
const TOKENS: &str = "tokens.extractor={kind: import, tokens: utt2speech_token.pt, vocabulary: 16}";

#[test]
fn imported_values_train_the_very_model_that_extracted_ones_do() {
    let plain = Mini::finished();
    let imported = Mini::new();
    export(&plain);
    for file in ["utt2embedding.pt", "spk2embedding.pt", "utt2speech_token.pt"] {
        fs::copy(plain.path(file), imported.path(file)).unwrap();
    }
    let arguments = ["--set", EMBED, "--set", TOKENS];
    let outcome = imported.run(&arguments).expect_code(0);
    outcome.expect_words(&["1 imported ids", "first: of-no-one"]);
    for file in [
        "1-embed/train/part-00000.parquet",
        "1-embed/spk2embedding.parquet",
        "2-tokens/dev/part-00000.parquet",
        "3-pack/train/shard-00000.parquet",
        "6-export/model.safetensors",
    ] {
        assert_eq!(fs::read(plain.exp(file)).unwrap(), fs::read(imported.exp(file)).unwrap(), "{file}");
    }
    imported.run(&arguments).expect_code(0).expect_up_to_date();
    // The exported model cannot listen, and says so.
    let (model, wav) = (imported.exp("6-export"), imported.recording("1688-142285-0002"));
    let arguments = ["synth", "--model", model.to_str().unwrap(), "--wav", wav.to_str().unwrap()];
    flowmill(imported.folder(), &arguments).expect_code(1).expect_words(&["imported from"]);
}

#[test]
fn the_files_of_the_public_recipes_are_read_as_torch_wrote_them() {
    let folder = tempfile::tempdir().unwrap();
    let (data, pt) = (repository().join("data/libri6"), golden("pt"));
    let recipe = |tokens: &str| {
        format!(
            "name: public\nmax_rejected: 1.0\nprep: {{data: {}, split: {{fractions: {{}}}}}}\n\
             embed: {{extractor: {{kind: import, embeddings: {pt}/utt2embedding.pt, speakers: {pt}/spk2embedding.pt}}}}\n\
             tokens: {{extractor: {{kind: import, {tokens}}}}}\n",
            data.canonicalize().unwrap().display(),
            pt = pt.display()
        )
    };
    let run = |tokens: &str| {
        fs::write(folder.path().join("recipe.yaml"), recipe(tokens)).unwrap();
        flowmill(folder.path(), &["run", ".", "--stop-stage", "2"]).expect_code(0);
        let exp = folder.path().join("exp/public");
        let tokens = table(&exp.join("2-tokens/train/part-00000.parquet"), "utt", "speech_token");
        (table(&exp.join("1-embed/train/part-00000.parquet"), "utt", "utt_embedding"), tokens)
    };
    let (embeddings, tokens) = run(&format!("tokens: {}/utt2speech_token.pt", pt.display()));
    assert_eq!(embeddings.iter().map(|(id, row)| (id.as_str(), row.len())).next(), Some(("1688-142285-0000", 192)));
    assert_eq!((embeddings.len(), tokens.len()), (3, 3));
    assert!((embeddings[0].1[1] - -1.152_360_200_881_958).abs() < 1e-12);
    assert_eq!((tokens[0].1.len(), &tokens[0].1[..3]), (40, [5474.0, 1704.0, 479.0].as_slice()));
    let (_, dual) = run(&format!("tokens: {}/utt2speech_token_dual.pt, dual: {{}}", pt.display()));
    assert_eq!(dual[0].1, [1.0, 2.0, 1030.0, 1031.0, 1032.0]);
    let rejected = folder.path().join("exp/public/1-embed/rejected.parquet");
    let reasons: BTreeMap<String, String> =
        parquet::texts(&rejected, "id").into_iter().zip(parquet::texts(&rejected, "reason")).collect();
    assert_eq!(reasons.len(), 57);
    assert!(reasons["3331-159605-0000"].contains("utt2embedding.pt"), "{reasons:?}");
}

#[test]
fn what_cannot_be_imported_is_named() {
    let mini = Mini::new();
    let entry = |value: Value| vec![("1688-142285-0002".to_owned(), value)];
    let stage = |file: &str, entries: Vec<(String, Value)>, setting: &str, stop: &str, words: &[&str]| {
        save(&mini.path(file), &entries);
        mini.run(&["--stop-stage", stop, "--set", setting, "--set", "max_rejected=1.0"])
            .expect_code(1)
            .expect_words(words);
    };
    let embed = "embed.extractor={kind: import, embeddings: e.pt, dimensions: 3}";
    let tokens = "tokens.extractor={kind: import, tokens: t.pt, vocabulary: 16}";
    let dual = "tokens.extractor={kind: import, tokens: t.pt, dual: {linguistic: 4, semantic: 8}}";
    let named = "`1688-142285-0002`";
    stage("e.pt", entry(Value::Floats(vec![1.0, 2.0])), embed, "1", &[named, "2 values"]);
    stage("e.pt", entry(Value::Floats(vec![1.0, f64::NAN, 2.0])), embed, "1", &[named, "NaN"]);
    stage("e.pt", entry(Value::Floats(vec![1.0, 1e300, 2.0])), embed, "1", &[named, "value 1 "]);
    stage("e.pt", entry(Value::Text("cat")), embed, "1", &[named, "numbers"]);
    stage("t.pt", entry(Value::Ints(vec![1.0, 16.0])), tokens, "2", &[named, "token 16 at 1"]);
    stage("t.pt", entry(Value::Floats(vec![1.5])), tokens, "2", &[named, "integers"]);
    stage("t.pt", entry(Value::Ints(vec![1.0, 2.0, 5.0])), dual, "2", &[named, "3 tokens"]);
    stage("t.pt", entry(Value::Ints(vec![1.0, 2.0, 5.0, 6.0, 3.0])), dual, "2", &[named, "token 3 at position 4"]);
    fs::write(mini.path("t.pt"), b"\x80\x02cos\nsystem\nq\x00.").unwrap();
    let malicious = mini.run(&["--stop-stage", "2", "--set", tokens, "--set", "max_rejected=1.0"]).expect_code(1);
    malicious.expect_words(&["t.pt", "os.system"]);
    let check = |setting: &str| mini.run(&["--set", setting, "--dry-run"]).expect_code(2);
    check("embed.extractor={kind: import, embeddings: nowhere.pt}")
        .expect_words(&["embed.extractor.embeddings", "nowhere.pt"]);
    check("embed.extractor={kind: import, tokens: t.pt}").expect_words(&["embed.extractor.kind"]);
    check("tokens.extractor={kind: import}").expect_words(&["tokens.extractor.kind"]);
}

#[test]
fn tokens_of_another_length_than_the_mel_are_rejected_by_stage_3() {
    let (mini, rows) = extracted();
    let file = mini.path("utt2speech_token.pt");
    let packed = |mini: &Mini, more: &[&str]| mini.run(&[&["--stop-stage", "3", "--set", TOKENS], more].concat());
    let reasons = || parquet::texts(&mini.exp("3-pack/rejected.parquet"), "reason");
    let mut shortened = rows.clone();
    let (id, tokens) = &mut shortened[0];
    let (id, whole) = (id.clone(), tokens.len());
    tokens.truncate(whole - 25);
    save_tokens(&file, &shortened);
    for store in ["float16", "none"] {
        let store = format!("pack.mel.store={store}");
        packed(&mini, &["--set", &store, "--set", "max_rejected=0.2"]).expect_code(0);
        assert_eq!(parquet::texts(&mini.exp("3-pack/rejected.parquet"), "id"), [id.as_str()]);
        let reason = reasons().remove(0);
        let values = [format!("{} tokens", whole - 25), "2.00 per token".to_owned(), "25.00 tokens".to_owned()];
        assert!(values.iter().all(|value| reason.contains(value)), "{values:?}: {reason}");
    }
    packed(&mini, &["--set", "max_rejected=0.05"])
        .expect_error("rejected", 1)
        .expect_words(&["max_rejected", id.as_str()]);
    // Twice as many, half as many: not a row is of this rate.
    let doubled: Vec<_> = rows.iter().map(|(id, row)| (id.clone(), [row.clone(), row.clone()].concat())).collect();
    save_tokens(&file, &doubled);
    packed(&mini, &[]).expect_error("rejected", 1);
    let halved: Vec<_> = rows.iter().map(|(id, row)| (id.clone(), row[..row.len() / 2].to_vec())).collect();
    save_tokens(&file, &halved);
    packed(&mini, &[]).expect_error("rejected", 1);
    // At the rate that they are of they may be packed, but not by a recipe whose model is of another.
    let slow = "tokens.extractor={kind: import, tokens: utt2speech_token.pt, vocabulary: 16, rate: 12.5}";
    mini.run(&["--dry-run", "--set", slow]).expect_code(2).expect_words(&[
        "train.model.token_mel_ratio",
        "12.50 tokens",
        "4.00 per token",
    ]);
    mini.run(&["--stop-stage", "3", "--set", slow]).expect_code(0);
}

#[test]
fn files_of_several_splits_are_one() {
    let (mini, rows) = extracted();
    let setting = |files: &str| format!("tokens.extractor={{kind: import, tokens: {files}, vocabulary: 16}}");
    let run = |files: &str| mini.run(&["--stop-stage", "2", "--set", &setting(files)]);
    save_tokens(&mini.path("train.pt"), &rows[..10]);
    save_tokens(&mini.path("dev.pt"), &rows[9..]);
    let table = |mini: &Mini| fs::read(mini.exp("2-tokens/dev/part-00000.parquet")).unwrap();
    let before = table(&mini);
    run("[train.pt, dev.pt]").expect_code(0);
    assert_eq!(before, table(&mini), "what both have alike is no contradiction");
    let mut other = rows[9..].to_vec();
    other[0].1[0] = 15.0 - other[0].1[0];
    save_tokens(&mini.path("dev.pt"), &other);
    let id = format!("`{}`", other[0].0);
    run("[train.pt, dev.pt]").expect_code(1).expect_words(&[&id, "train.pt", "dev.pt"]);
    // The second file counts among what the stage is made of.
    other[0] = rows[9].clone();
    other[1].1[0] = 15.0 - other[1].1[0];
    save_tokens(&mini.path("dev.pt"), &other);
    run("[train.pt, dev.pt]").expect_code(0).expect_words(&["dev.pt"]);
    assert_ne!(before, table(&mini));
    run("train.pt").expect_error("rejected", 1).expect_words(&["2 ×"]);
    run("[train.pt, nowhere.pt]").expect_code(2).expect_words(&["nowhere.pt"]);
}

#[test]
fn embeddings_of_nothing_but_zeros_are_told_of() {
    let mini = Mini::new();
    let ids = fs::read_to_string(mini.path("data/utt2spk")).unwrap();
    let entry = |line: &str| (line.split(' ').next().unwrap().to_owned(), Value::Floats(vec![0.0, 0.0]));
    save(&mini.path("e.pt"), &ids.lines().map(entry).collect::<Vec<_>>());
    mini.run(&["--stop-stage", "1", "--set", "embed.extractor={kind: import, embeddings: e.pt, dimensions: 2}"])
        .expect_words(&["12 utterances", "zero"]);
}

#[test]
fn ids_of_step_audios_language_model_are_counted_from_zero() {
    let mini = Mini::new();
    let ids = fs::read_to_string(mini.path("data/utt2spk")).unwrap();
    let entries = |tokens: &[f64]| {
        let entry = |line: &str| (line.split(' ').next().unwrap().to_owned(), Value::Ints(tokens.to_vec()));
        ids.lines().map(entry).collect::<Vec<_>>()
    };
    let dual = "tokens.extractor={kind: import, tokens: t.pt, dual: {linguistic: 4, semantic: 8}}";
    // The recipe's model is of one codebook.
    let recipe = fs::read_to_string(mini.path("recipe.yaml")).unwrap();
    fs::write(mini.path("recipe.yaml"), recipe.split("train:\n").next().unwrap()).unwrap();
    let run = |tokens: &[f64]| {
        save(&mini.path("t.pt"), &entries(tokens));
        mini.run(&["--stop-stage", "2", "--set", dual])
    };
    run(&[65_536.0, 65_539.0, 65_540.0, 65_545.0, 65_547.0]).expect_code(0);
    let rows = table(&mini.exp("2-tokens/dev/part-00000.parquet"), "utt", "speech_token");
    assert_eq!(rows[0].1, [0.0, 3.0, 4.0, 9.0, 11.0]);
    run(&[65_536.0, 3.0, 65_540.0, 65_545.0, 65_547.0]).expect_code(1).expect_words(&["4 of 5 tokens"]);
}

/// Writes `FOLDER/utt2embedding.pt` and `FOLDER/spk2embedding.pt` for the utterances of a list: as embedding of every speaker `value`.
fn save_split(mini: &Mini, list: &str, folder: &str, value: f64) {
    let ids = fs::read_to_string(mini.path(&format!("lists/{list}"))).unwrap();
    let ids: Vec<&str> = ids.split_whitespace().collect();
    let embedding = |value: f64| Value::Floats([vec![value; 31], vec![1.0]].concat());
    fs::create_dir_all(mini.path(folder)).unwrap();
    let utterances: Vec<_> = ids.iter().map(|id| ((*id).to_owned(), embedding(0.25))).collect();
    save(&mini.path(&format!("{folder}/utt2embedding.pt")), &utterances);
    let speakers: std::collections::BTreeSet<&str> = ids.iter().map(|id| id.split('-').next().unwrap()).collect();
    let speakers: Vec<_> = speakers.into_iter().map(|id| (id.to_owned(), embedding(value))).collect();
    save(&mini.path(&format!("{folder}/spk2embedding.pt")), &speakers);
}

#[test]
fn a_speaker_of_two_splits_has_the_embedding_of_the_rows_split() {
    let mini = Mini::new();
    save_split(&mini, "train", "data/train", 1.0);
    save_split(&mini, "dev", "data/dev", 2.0);
    let run = |speakers: &str, embeddings: &str, stop: &str| {
        let setting =
            format!("embed.extractor={{kind: import, embeddings: {embeddings}, speakers: {speakers}, dimensions: 32}}");
        mini.run(&["--stop-stage", stop, "--set", &setting])
    };
    let packed = |split: &str| {
        let rows = parquet::lists(&mini.exp(&format!("3-pack/{split}/shard-00000.parquet")), "spk_embedding");
        assert!(!rows.is_empty());
        rows.into_iter().map(|row| row[0]).collect::<Vec<f64>>()
    };
    let expect = || {
        assert!(packed("train").iter().all(|value| *value == 1.0), "{:?}", packed("train"));
        assert!(packed("dev").iter().all(|value| *value == 2.0), "{:?}", packed("dev"));
    };
    let both = "[data/train/utt2embedding.pt, data/dev/utt2embedding.pt]";
    // As the folders say, in whatever order; and as the recipe says.
    let told = run("[data/dev/spk2embedding.pt, data/train/spk2embedding.pt]", both, "pack").expect_code(0);
    told.expect_words(&["embeddings", "split"]);
    expect();
    let shown = flowmill(mini.folder(), &["inspect", mini.exp("1-embed/spk2embedding.parquet").to_str().unwrap()]);
    shown.expect_code(0).expect_words(&["split", "spk_embedding"]);
    fs::rename(mini.path("data/dev/spk2embedding.pt"), mini.path("a.pt")).unwrap();
    fs::rename(mini.path("data/train/spk2embedding.pt"), mini.path("b.pt")).unwrap();
    run("{dev: a.pt, train: b.pt}", both, "pack").expect_code(0);
    expect();
    // One file of all utterances, and nothing that tells which speakers' file is whose.
    save_split(&mini, "train", "all", 0.0);
    let ids = ["train", "dev"].map(|list| fs::read_to_string(mini.path(&format!("lists/{list}"))).unwrap()).concat();
    fs::write(mini.path("lists/all"), ids).unwrap();
    save_split(&mini, "all", "all", 0.0);
    let refused = run("[a.pt, b.pt]", "all/utt2embedding.pt", "embed").expect_code(1);
    refused.expect_words(&["a.pt", "b.pt", "speakers: {train: FILE"]);
    fs::rename(mini.path("a.pt"), mini.path("spk2embedding_dev.pt")).unwrap();
    fs::rename(mini.path("b.pt"), mini.path("spk2embedding_train.pt")).unwrap();
    run("[spk2embedding_dev.pt, spk2embedding_train.pt]", "all/utt2embedding.pt", "pack").expect_code(0);
    expect();
    // A split without a file of its own.
    let missing = run("{dev: spk2embedding_dev.pt}", both, "embed").expect_error("rejected", 1);
    missing.expect_words(&["10 × "]);
    run("a.pt", "{train: a.pt}", "embed").expect_code(2).expect_words(&["embed.extractor.embeddings"]);
}
