//! The stage under the runner, on real recordings.

mod support;

use candle_core::Device;
use flowmill_corpus::Row;
use flowmill_corpus::shard::ShardReader;
use flowmill_corpus::table::read_tokens;
use flowmill_extract::extractors::registry;
use flowmill_extract::{Column, State};
use flowmill_stage_tokens::Tokens;
use support::{Miniature, ROWS, tree};

const RECIPE: &str = "tokens: {extractor: {kind: kmeans, k: 64}}";

fn stage() -> Tokens {
    Tokens::new(registry())
}

#[test]
fn every_utterance_has_its_units_or_a_reason() {
    let miniature = Miniature::new(RECIPE);
    let outcome = miniature.run(stage(), &[], 2).unwrap().stages.remove(1);
    assert_eq!((outcome.rows_in, outcome.rows_out, outcome.rejected), (ROWS, ROWS - 1, 1));
    let dev = read_tokens(&miniature.path("2-tokens/dev/part-00000.parquet"), "utt", "speech_token").unwrap();
    let ids: Vec<&str> = dev.iter().map(|(utt, _)| utt.as_str()).collect();
    assert_eq!(ids, ["1688-142285-0008", "1998-15444-0008", "2033-164914-0008"]);
    // Two seconds are cut out of each, 25 units a second.
    assert!(dev.iter().all(|(_, tokens)| tokens.len() == 50 && tokens.iter().all(|token| (0..64).contains(token))));
    let read = |name: &str| std::fs::read_to_string(miniature.path("2-tokens").join(name)).unwrap();
    let usage: serde_json::Value = serde_json::from_str(&read("usage.json")).unwrap();
    assert_eq!(usage["splits"]["dev"]["tokens"], 150);
    assert_eq!(usage["splits"]["train"]["used"], 64);
    assert!(usage["splits"]["train"]["perplexity"].as_f64().unwrap() > 32.0, "{usage}");
    let codebook: serde_json::Value = serde_json::from_str(&read("codebook.json")).unwrap();
    assert_eq!((&codebook["settings"]["k"], &codebook["fit"]["used"]), (&64.into(), &64.into()));
}

#[test]
fn codes_have_a_row_per_level_and_their_levels_are_counted() {
    let miniature = Miniature::new("tokens: {extractor: {kind: rvq-kmeans, k: 32, levels: 3, iterations: 5}}");
    let outcome = miniature.run(stage(), &[], 2).unwrap().stages.remove(1);
    assert_eq!((outcome.rows_in, outcome.rows_out, outcome.rejected), (ROWS, ROWS - 1, 1));
    let table = ShardReader::open_table(&miniature.path("2-tokens/dev/part-00000.parquet")).unwrap();
    let column = Column::codes(3, 32, 75.0).spec;
    let rows: Vec<Row> = table.iter(std::slice::from_ref(&column)).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.len(), 3);
    for row in &rows {
        // Two seconds at 75 Hz.
        assert_eq!(row.column("codes").unwrap().shape(), [3, 150]);
        assert!(row.values::<i32>("codes").unwrap().iter().all(|code| (0..32).contains(code)));
    }
    let usage = std::fs::read_to_string(miniature.path("2-tokens/usage.json")).unwrap();
    let usage: serde_json::Value = serde_json::from_str(&usage).unwrap();
    assert_eq!(
        (&usage["vocabulary"], &usage["levels"], &usage["splits"]["dev"]["frames"]),
        (&32.into(), &3.into(), &450.into())
    );
    let levels = usage["splits"]["train"]["levels"].as_array().unwrap();
    assert!(levels.len() == 3 && levels.iter().all(|level| level["used"] == 32), "{usage}");
    // The table, the fitted state and the codes suffice to make sound.
    let state = State::load(&miniature.path("2-tokens/codebook.safetensors")).unwrap();
    let codec = registry().codec(&state, &Device::Cpu).unwrap().unwrap();
    let sound = codec.decode(rows[0].column("codes").unwrap()).unwrap();
    assert_eq!((codec.sample_rate(), sound.len()), (24_000, 48_000));
    assert!(miniature.ran(stage(), &[]).is_empty());
}

#[test]
fn only_what_a_change_concerns_runs_again() {
    let miniature = Miniature::new(RECIPE);
    assert_eq!(miniature.ran(stage(), &[]).len(), 2 + 1 + 3 + 1);
    assert!(miniature.ran(stage(), &[]).is_empty());
    let again = miniature.ran(stage(), &["tokens.extractor.k=32"]);
    assert!(again.contains(&"fit".to_owned()) && again.contains(&"usage".to_owned()), "{again:?}");
    assert!(!again.iter().any(|key| key.starts_with("measure/")), "{again:?}");
    let again = miniature.ran(stage(), &["tokens.extractor.k=32", "seed=4"]);
    assert!(again.contains(&"measure/train/part-00001".to_owned()), "the seed decides which frames are sampled");
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let (one, three) = (Miniature::new(RECIPE), Miniature::new(RECIPE));
    one.run(stage(), &[], 1).unwrap();
    three.run(stage(), &[], 3).unwrap();
    assert_eq!(tree(&one.path("2-tokens")), tree(&three.path("2-tokens")));
}

#[test]
fn mistakes_in_the_recipe_are_named() {
    let message = |recipe: &str| Miniature::new(recipe).run(stage(), &[], 1).unwrap_err().to_string();
    for (recipe, words) in [
        ("tokens: {extractor: {kind: kmeans, k: 1}}", ["tokens.extractor.k", "2 to 65536"]),
        ("tokens: {extractor: {kind: kmeans, pitch_wieght: 3}}", ["tokens.extractor.pitch_wieght", "pitch_weight"]),
        ("tokens: {extractor: {kind: statistics}}", ["tokens.extractor.kind", "statistics gives embedding"]),
        ("tokens: {fit_on: test}", ["tokens.fit_on", "dev, train"]),
    ] {
        let message = message(recipe);
        assert!(message.contains("recipe.yaml:4"), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    let too_many = message("tokens: {extractor: {kind: kmeans, k: 30000}}");
    assert!(too_many.contains("fewer than k = 30000"), "{too_many}");
}

#[test]
fn a_tokenizer_with_weights_of_its_own_measures_nothing() {
    let miniature = Miniature::new("tokens: {extractor: {kind: s3-tokenizer, version: v2, weights: random}}");
    assert_eq!(miniature.ran(stage(), &[]).len(), 1 + 3 + 1);
    let dev = read_tokens(&miniature.path("2-tokens/dev/part-00000.parquet"), "utt", "speech_token").unwrap();
    assert!(dev.iter().all(|(_, tokens)| tokens.len() == 50 && tokens.iter().all(|token| (0..6561).contains(token))));
    let codebook = std::fs::read_to_string(miniature.path("2-tokens/codebook.json")).unwrap();
    assert!(codebook.contains("RANDOM"), "{codebook}");
    assert!(miniature.ran(stage(), &[]).is_empty());
    assert_eq!(miniature.ran(stage(), &["seed=4"]).len(), 1 + 3 + 1, "the seed draws the weights");
    let again = miniature.ran(stage(), &["tokens.extractor.version=v1"]);
    assert_eq!(again.len(), 1 + 3 + 1, "{again:?}");
    assert_eq!(miniature.ran(stage(), &["tokens.extractor.version=v3"]).len(), 1 + 3 + 1, "a network of its own");
}

#[test]
fn weights_that_cannot_be_used_are_named() {
    let message = |recipe: &str| Miniature::new(recipe).run(stage(), &[], 1).unwrap_err().to_string();
    let missing = message("tokens: {extractor: {kind: s3-tokenizer}}");
    assert!(missing.contains("tokens.extractor.weights") && missing.contains("speech_tokenizer_v2.onnx"), "{missing}");
    let absent = message("tokens: {extractor: {kind: s3-tokenizer, weights: no/such.onnx}}");
    assert!(absent.contains("no/such.onnx"), "{absent}");
    let version = message("tokens: {extractor: {kind: s3-tokenizer, version: v4, weights: random}}");
    assert!(version.contains("tokens.extractor.version"), "{version}");
}
