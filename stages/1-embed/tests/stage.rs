//! The stage under the runner, on real recordings.

mod support;

use flowmill_corpus::table::read_embeddings;
use flowmill_extract::extractors::registry;
use flowmill_stage_embed::Embed;
use support::{Miniature, ROWS, tree};

fn stage() -> Embed {
    Embed::new(registry())
}

#[test]
fn every_utterance_and_speaker_has_an_embedding_or_a_reason() {
    let miniature = Miniature::new("");
    let outcome = miniature.run(stage(), &[], 2).unwrap().stages.remove(1);
    assert_eq!((outcome.rows_in, outcome.rows_out, outcome.rejected), (ROWS, ROWS - 1, 1));
    let dev = read_embeddings(&miniature.path("1-embed/dev/part-00000.parquet"), "utt", "utt_embedding").unwrap();
    let ids: Vec<&str> = dev.iter().map(|(utt, _)| utt.as_str()).collect();
    assert_eq!(ids, ["1688-142285-0008", "1998-15444-0008", "2033-164914-0008"]);
    let speakers = read_embeddings(&miniature.path("1-embed/spk2embedding.parquet"), "spk", "spk_embedding").unwrap();
    let names: Vec<&str> = speakers.iter().map(|(spk, _)| spk.as_str()).collect();
    assert_eq!(names, ["1688", "1998", "2033"]);
    let length = |vector: &[f32]| vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    assert!(dev.iter().all(|(_, embedding)| embedding.len() == 192 && (length(embedding) - 1.0).abs() < 1e-5));
    assert!(speakers.iter().all(|(_, mean)| mean.len() == 192 && length(mean) < 1.0 && length(mean) > 0.3));
    // Rows of a split that is not fitted on are closest to their own speaker.
    for (utt, embedding) in &dev {
        let cosine = |mean: &[f32]| mean.iter().zip(embedding).map(|(a, b)| a * b).sum::<f32>() / length(mean);
        let best = speakers.iter().max_by(|a, b| cosine(&a.1).total_cmp(&cosine(&b.1))).unwrap();
        assert!(utt.starts_with(&best.0), "{utt} is taken for {}", best.0);
    }
}

#[test]
fn only_what_a_change_concerns_runs_again() {
    let miniature = Miniature::new("");
    assert_eq!(miniature.ran(stage(), &[]).len(), 2 + 1 + 3 + 1);
    assert!(miniature.ran(stage(), &[]).is_empty());
    assert!(miniature.ran(stage(), &["seed=4"]).is_empty(), "nothing is drawn");
    let again = miniature.ran(stage(), &["embed.extractor={kind: statistics, shrinkage: 0.5}"]);
    assert!(!again.iter().any(|key| key.starts_with("measure/")), "{again:?}");
    assert!(again.contains(&"fit".to_owned()) && again.contains(&"speakers".to_owned()), "{again:?}");
    let table = miniature.path("1-embed/dev/part-00000.parquet");
    let before = std::fs::read(&table).unwrap();
    std::fs::remove_file(&table).unwrap();
    let again = miniature.ran(stage(), &["embed.extractor={kind: statistics, shrinkage: 0.5}"]);
    assert_eq!(again, ["dev/part-00000"]);
    assert_eq!(std::fs::read(&table).unwrap(), before);
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let (one, three) = (Miniature::new(""), Miniature::new(""));
    one.run(stage(), &[], 1).unwrap();
    three.run(stage(), &[], 3).unwrap();
    assert_eq!(tree(&one.path("1-embed")), tree(&three.path("1-embed")));
}

#[test]
fn mistakes_in_the_recipe_are_named() {
    let message = |recipe: &str| Miniature::new(recipe).run(stage(), &[], 1).unwrap_err().to_string();
    for (recipe, words) in [
        ("embed: {extractor: {kind: statistics, shrinkage: 2}}", ["embed.extractor.shrinkage", "at most 1"]),
        ("embed: {extractor: {kind: statistics, n_mel: 40}}", ["embed.extractor.n_mel", "n_mels"]),
        ("embed: {extractor: {kind: kmeans}}", ["embed.extractor.kind", "kmeans gives tokens"]),
        ("embed: {extractor: {kind: ecapa}}", ["embed.extractor.kind", "statistics"]),
        ("embed: {extractor: {kind: campplus}}", ["embed.extractor.weights", "campplus.onnx"]),
        ("embed: {extractor: {n_mels: 40}}", ["embed.extractor", "kind"]),
        ("embed: {fit_on: trian}", ["embed.fit_on", "dev, train"]),
    ] {
        let message = message(recipe);
        assert!(message.contains("recipe.yaml:4"), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
}

#[test]
fn an_encoder_with_weights_of_its_own_measures_nothing() {
    let miniature = Miniature::new("embed: {extractor: {kind: campplus, weights: random}}");
    assert_eq!(miniature.ran(stage(), &[]).len(), 1 + 3 + 1);
    let dev = read_embeddings(&miniature.path("1-embed/dev/part-00000.parquet"), "utt", "utt_embedding").unwrap();
    assert!(dev.iter().all(|(_, embedding)| embedding.len() == 192));
    assert!(miniature.ran(stage(), &[]).is_empty());
    assert_eq!(miniature.ran(stage(), &["seed=4"]).len(), 1 + 3 + 1, "the seed draws the weights");
    let again = miniature.ran(stage(), &["embed.extractor.embedding_size=64"]);
    assert_eq!(again.len(), 1 + 3 + 1, "{again:?}");
}

#[test]
fn the_number_of_threads_changes_no_byte_of_an_encoder() {
    let recipe = "embed: {extractor: {kind: campplus, weights: random}}";
    let (one, three) = (Miniature::new(recipe), Miniature::new(recipe));
    one.run(stage(), &[], 1).unwrap();
    three.run(stage(), &[], 3).unwrap();
    assert_eq!(tree(&one.path("1-embed")), tree(&three.path("1-embed")));
}
