//! Packed shards as a source, and in a mixture: their recordings, embeddings and tokens are taken as they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::parquet::{CosyVoiceRow, cosyvoice_rows, write_cosyvoice};
use crate::support::{Mini, flowmill, parquet};

/// The shards that stage 3 made, of both splits.
fn shards_of(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["train", "dev"]
        .iter()
        .flat_map(|split| fs::read_dir(folder.join(split)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .collect();
    found.sort();
    found
}

/// The rows of a packed miniature.
fn rows(mini: &Mini) -> Vec<CosyVoiceRow> {
    shards_of(&mini.exp("3-pack")).iter().flat_map(|shard| cosyvoice_rows(shard)).collect()
}

/// A packed miniature whose rows are shards of CosyVoice, and nothing else: `shards/parquet_00000000N.tar` and `shards/data.list`.
fn cosyvoice(change: impl Fn(&mut Vec<CosyVoiceRow>)) -> Mini {
    let mini = Mini::packed();
    let mut rows = rows(&mini);
    change(&mut rows);
    let mut list = String::new();
    for (number, rows) in rows.chunks(5).enumerate() {
        let name = format!("parquet_{number:09}.tar");
        write_cosyvoice(&mini.path(&format!("shards/{name}")), rows);
        // Paths of the machine that packed them.
        list += &format!("/nfs/of/others/{name}\r\n");
    }
    fs::write(mini.path("shards/data.list"), list).unwrap();
    for gone in ["data", "exp"] {
        fs::remove_dir_all(mini.path(gone)).unwrap();
    }
    mini
}

/// A recipe over that of the miniature whose extractors have weights that are nowhere.
fn write_recipe(mini: &Mini, name: &str, data: &str, more: &str) {
    let recipe = format!(
        "base: recipe.yaml\nname: {name}\nprep:\n  data: {data}\nembed:\n  extractor: {{kind: campplus, weights: nowhere.onnx}}\n\
         tokens:\n  extractor: {{kind: s3-tokenizer, version: v2, weights: nowhere.onnx}}\n{more}"
    );
    fs::write(mini.path(&format!("{name}.yaml")), recipe).unwrap();
}

/// A column of lists by the ids of rows, of all shards of a folder.
fn by_id(folder: &Path, column: &str) -> BTreeMap<String, Vec<f64>> {
    let of = |shard: &PathBuf| {
        parquet::texts(shard, "utt").into_iter().zip(parquet::lists(shard, column)).collect::<Vec<_>>()
    };
    shards_of(folder).iter().flat_map(of).collect()
}

#[test]
fn shards_of_cosyvoice_are_trained_on_without_extracting() {
    let mini = cosyvoice(|_| {});
    for (name, data) in [("folder", "shards"), ("list", "[{dir: shards/data.list, format: shards}]")] {
        write_recipe(&mini, name, data, "");
        let outcome = flowmill(mini.folder(), &["run", &format!("{name}.yaml")]).expect_code(0);
        outcome.expect_words(&["speech_token: i64 [token]", "utt_embedding: f32 [value 32]"]);
        let exp = mini.path("exp").join(name);
        let wavs = parquet::texts(&exp.join("0-prep/train/part-00000.parquet"), "wav");
        assert!(wavs.iter().all(|wav| wav.starts_with("shards/parquet_00000000")), "{wavs:?}");
        // Stages 1 and 2 made nothing but the description of the columns.
        for stage in ["1-embed", "2-tokens"] {
            assert!(!exp.join(stage).join("train").exists() && !exp.join(stage).join("spk2embedding.parquet").exists());
        }
        let sources: Vec<CosyVoiceRow> =
            (0..3).flat_map(|number| cosyvoice_rows(&mini.path(&format!("shards/parquet_{number:09}.tar")))).collect();
        let [own, speakers, tokens] =
            ["utt_embedding", "spk_embedding", "speech_token"].map(|column| by_id(&exp.join("3-pack"), column));
        assert_eq!(tokens.len(), sources.len());
        for row in sources {
            assert_eq!(Some(&own[&row.utt]), row.utt_embedding.as_ref());
            assert_eq!(Some(&speakers[&row.utt]), row.spk_embedding.as_ref());
            let ids: Vec<i64> = tokens[&row.utt].iter().map(|id| *id as i64).collect();
            assert_eq!(Some(&ids), row.speech_token.as_ref());
        }
        assert!(exp.join("6-export/model.safetensors").exists());
        flowmill(mini.folder(), &["run", &format!("{name}.yaml")]).expect_code(0).expect_up_to_date();
    }
}

#[test]
fn own_shards_are_known_and_keep_their_splits() {
    let mini = Mini::packed();
    let again = "prep:\n  data: exp/mini/3-pack\n  split: {by: corpus, lists: null}\n";
    for (format, extension) in [("parquet", "parquet"), ("webdataset", "tar")] {
        mini.run(&["--stop-stage", "3", "--set", &format!("pack.format={format}")]).expect_code(0);
        fs::write(mini.path("again.yaml"), format!("base: recipe.yaml\nname: again-{format}\n{again}")).unwrap();
        let outcome = flowmill(mini.folder(), &["run", "again.yaml", "--stop-stage", "3"]).expect_code(0);
        outcome.expect_words(&["packed shards", "format: shards"]);
        let exp = mini.path(&format!("exp/again-{format}"));
        let wavs = parquet::texts(&exp.join("0-prep/dev/part-00000.parquet"), "wav");
        assert!(wavs.iter().all(|wav| wav.contains(&format!("3-pack/dev/shard-00000.{extension}#"))), "{wavs:?}");
        assert!(!exp.join("2-tokens/train").exists());
    }
    // The same rows whatever the container.
    for column in ["utt_embedding", "spk_embedding", "speech_token"] {
        let of = |name: &str| by_id(&mini.path(name), column);
        assert_eq!(of("exp/again-parquet/3-pack"), of("exp/again-webdataset/3-pack"), "{column}");
    }
}

#[test]
fn columns_that_do_not_fit_the_model_are_refused_before_anything_runs() {
    let mini = cosyvoice(|_| {});
    write_recipe(&mini, "small", "shards", "");
    let foreign = flowmill(
        mini.folder(),
        &[
            "run",
            "small.yaml",
            "--set",
            "prep.data=[{dir: shards, format: huggingface}]",
            "--set",
            "tokens.extractor={kind: packed, columns: [{name: speech_token, values: \"i64 [token]\", rate: 25}]}",
        ],
    );
    foreign.expect_code(2).expect_words(&["tokens.extractor.kind", "format: shards"]);
    for (setting, words) in [
        ("train.model.vocab_size=4", &["vocab_size", "too small"][..]),
        ("train.model.spk_embed_dim=192", &["spk_embed_dim", "32 values"]),
        ("train.model.token_mel_ratio=4", &["token_mel_ratio"]),
        ("prep.speed_perturb=[0.9]", &["speed_perturb", "packed shards"]),
    ] {
        let outcome = flowmill(mini.folder(), &["run", "small.yaml", "--set", setting]);
        outcome.expect_code(2).expect_words(words);
        assert!(!mini.path("exp/small/0-prep").exists(), "{setting}");
    }
    let wider = cosyvoice(|rows| {
        rows[7].utt_embedding = Some(vec![0.5; 16]);
        rows[7].spk_embedding = Some(vec![0.5; 16]);
    });
    write_recipe(&wider, "small", "shards", "");
    let outcome = flowmill(wider.folder(), &["run", "small.yaml"]);
    outcome.expect_code(2).expect_words(&["prep.data", "utt_embedding", "different sizes"]);
}

#[test]
fn rows_that_lack_a_column_or_do_not_fit_are_rejected_one_by_one() {
    let mini = cosyvoice(|rows| {
        rows[1].speech_token = None;
        rows[2].utt_embedding.as_mut().unwrap()[3] = f64::NAN;
        rows[3].speech_token.as_mut().unwrap().truncate(3);
        rows[6].audio_data = b"no recording".to_vec();
        rows[8].speech_token.as_mut().unwrap()[0] = -1;
    });
    write_recipe(&mini, "bad", "shards", "max_rejected: 0.6\n");
    flowmill(mini.folder(), &["run", "bad.yaml", "--stop-stage", "3"]).expect_code(0);
    let reasons = |stage: &str| -> BTreeMap<String, String> {
        let table = mini.path(&format!("exp/bad/{stage}/rejected.parquet"));
        parquet::texts(&table, "id").into_iter().zip(parquet::texts(&table, "reason")).collect()
    };
    let packed: Vec<String> = reasons("3-pack").into_values().collect();
    assert_eq!((packed.len(), reasons("0-prep").len()), (4, 1), "{packed:?}");
    for words in ["no `speech_token`", "not finite", "do not match: 3 tokens", "negative token"] {
        assert_eq!(packed.iter().filter(|reason| reason.contains(words)).count(), 1, "{words}: {packed:?}");
    }
}

#[test]
fn a_damaged_shard_is_one_rejection() {
    let mini = cosyvoice(|_| {});
    let first = mini.path("shards/parquet_000000000.tar");
    let whole = fs::read(&first).unwrap();
    fs::write(&first, &whole[..whole.len() / 2]).unwrap();
    write_recipe(&mini, "cut", "shards", "max_rejected: 0.6\n");
    flowmill(
        mini.folder(),
        &["run", "cut.yaml", "--stop-stage", "3", "--set", "prep.split={by: fraction, lists: null, fractions: {}}"],
    )
    .expect_code(0);
    let rejected = parquet::texts(&mini.path("exp/cut/0-prep/rejected.parquet"), "id");
    assert_eq!(rejected, ["shards/parquet_000000000.tar"]);
    fs::remove_file(&first).unwrap();
    let list = "prep.data=[{dir: shards/data.list, format: shards}]";
    let outcome = flowmill(mini.folder(), &["run", "cut.yaml", "--set", list]).expect_code(2);
    outcome.expect_words(&["prep.data", "1 of its 3", "parquet_000000000.tar"]);
}

#[test]
fn a_mixture_takes_shards_without_an_index() {
    let mini = Mini::packed();
    let mut others = rows(&mini);
    others.iter_mut().for_each(|row| row.utt = format!("other-{}", row.utt));
    others[2].speech_token = None;
    others[4].utt_embedding.as_mut().unwrap()[0] = f64::INFINITY;
    write_cosyvoice(&mini.path("foreign/parquet_000000000.tar"), &others[..6]);
    write_cosyvoice(&mini.path("foreign/parquet_000000001.parquet"), &others[6..]);
    fs::write(mini.path("foreign/data.list"), "parquet_000000000.tar\nfoo/parquet_000000001.parquet\n").unwrap();
    let mixture = "train.mixture=[{weight: 1}, {index: foreign/data.list, weight: 3}]";
    mini.run(&["--set", mixture]).expect_code(1).expect_words(&["2 of 12 rows rejected", "speech_token"]);
    // A folder of splits is not a corpus.
    let splits = "train.mixture=[{weight: 1}, {index: exp/mini/3-pack}]";
    mini.run(&["--set", splits]).expect_code(2).expect_words(&["mixture[1].index", "3-pack"]);
    let kept = ["--set", mixture, "--set", "max_rejected=0.2"];
    // Too many tokens for the model are an error before anything runs.
    let small = ["--set", "train.model.vocab_size=4", "--set", "tokens.extractor.k=4"];
    mini.run(&[&kept[..], &small].concat()).expect_code(2).expect_words(&["mixture[1].index", "vocab_size"]);
    let outcome = mini.run(&kept).expect_code(0);
    outcome.expect_words(&["foreign/data.list", "10 rows"]);
    let index: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(mini.exp("4-train/corpora/1/index.json")).unwrap()).unwrap();
    assert_eq!(index["rows"], 10);
    assert_eq!(index["shards"][0]["kept"], serde_json::json!([0, 1, 3, 5]));
    let reasons = parquet::texts(&mini.exp("4-train/rejected.parquet"), "reason");
    assert!(reasons.iter().any(|reason| reason.contains("speech_token")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("not finite")), "{reasons:?}");
    mini.run(&kept).expect_code(0).expect_up_to_date();
    // A folder of shards and a single shard are corpora too; a changed shard is another corpus.
    mini.forget_training();
    let folder = "train.mixture=[{index: foreign}, {index: foreign/parquet_000000001.parquet}]";
    mini.run(&["--set", folder, "--set", "max_rejected=0.2", "--stop-stage", "train"]).expect_code(0);
    let mut changed = fs::read(mini.path("foreign/parquet_000000001.parquet")).unwrap();
    let middle = changed.len() / 3;
    changed[middle] ^= 0xff;
    fs::write(mini.path("foreign/parquet_000000001.parquet"), changed).unwrap();
    let outcome = mini.run(&["--set", folder, "--set", "max_rejected=0.2", "--stop-stage", "train"]);
    outcome.expect_code(2).expect_words(&["corpora/1/index.json changed", "--force"]);
}

#[test]
fn instructions_reach_the_shards() {
    let mini = Mini::new();
    let ids = fs::read_to_string(mini.path("data/text")).unwrap();
    let id = ids.split_whitespace().next().unwrap();
    fs::write(mini.path("data/instruct"), format!("{id} Speak slowly.<|endofprompt|>\n")).unwrap();
    let instructed = |folder: &Path| -> BTreeMap<String, String> {
        let of = |shard: &PathBuf| {
            parquet::texts(shard, "utt").into_iter().zip(parquet::texts(shard, "instruct")).collect::<Vec<_>>()
        };
        shards_of(folder).iter().flat_map(of).filter(|(_, text)| !text.is_empty()).collect()
    };
    let expected = BTreeMap::from([(id.to_owned(), "Speak slowly.<|endofprompt|>".to_owned())]);
    mini.run(&["--stop-stage", "3"]).expect_code(0);
    assert_eq!(instructed(&mini.exp("3-pack")), expected);
    // And from shards of CosyVoice 3.
    let mut rows = rows(&mini);
    rows.iter_mut().filter(|row| row.utt == id).for_each(|row| row.instruct = Some(expected[id].clone()));
    write_cosyvoice(&mini.path("shards/parquet_000000000.tar"), &rows);
    write_recipe(&mini, "v3", "shards", "");
    flowmill(mini.folder(), &["run", "v3.yaml", "--stop-stage", "3"]).expect_code(0);
    assert_eq!(instructed(&mini.path("exp/v3/3-pack")), expected);
}
