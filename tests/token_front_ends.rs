//! The tokenizers of published systems as stage 2, with the small models of the golden files as their weights.

use std::fs;

use crate::support::mini::{golden, golden_tensors as extract};
use crate::support::{Mini, parquet};

/// A recipe whose stage 2 uses this extractor, and whose stage 4 names a model that could be trained on its tokens.
fn with_extractor(extractor: &str) -> Mini {
    let mini = Mini::new();
    let recipe = fs::read_to_string(mini.path("recipe.yaml")).unwrap();
    let (before, rest) = recipe.split_once("{kind: kmeans, k: 16, iterations: 5}").unwrap();
    let (between, rest) =
        rest.split_once("    family: cosyvoice2-flow\n    vocab_size: 16\n    input_size: 16\n").unwrap();
    let (_dimensions, after) = rest.split_once("  batch:").unwrap();
    let family = match extractor.contains("step-audio-dual") {
        true => "step-audio-flow",
        false => "cosyvoice2-flow",
    };
    let model = format!("    family: {family}\n    spk_embed_dim: 32\n  batch:");
    fs::write(mini.path("recipe.yaml"), [before, extractor, between, &model, after].concat()).unwrap();
    mini
}

const TRAIN: [&str; 2] = ["2-tokens/train/part-00000.parquet", "2-tokens/dev/part-00000.parquet"];

/// The tokens of all utterances, one after another.
fn tokens(mini: &Mini) -> Vec<f64> {
    TRAIN.iter().flat_map(|table| parquet::lists(&mini.exp(table), "speech_token").concat()).collect()
}

fn codebook(mini: &Mini) -> String {
    fs::read_to_string(mini.exp("2-tokens/codebook.json")).unwrap()
}

fn run(mini: &Mini) -> Vec<f64> {
    mini.run(&["--stop-stage", "2"]).expect_code(0);
    tokens(mini)
}

#[test]
fn s3_tokens_are_the_same_from_an_onnx_export_and_from_named_tensors() {
    for (version, heads, file, graph) in [
        ("v1", 4, "s3_tokenizer_v1_25hz.safetensors", "s3_tokenizer_v1_small.onnx"),
        ("v2", 1, "s3_tokenizer_v2_25hz.safetensors", "s3_tokenizer_v2_small.onnx"),
        ("v3", 1, "s3_tokenizer_v3_25hz.safetensors", "s3_tokenizer_v3_small.onnx"),
    ] {
        let recipe = |weights: &str| {
            with_extractor(&format!("{{kind: s3-tokenizer, version: {version}, weights: {weights}, heads: {heads}}}"))
        };
        // The graph of version 2 has the epsilon of s3tokenizer 0.2.0.
        let named = match version {
            "v2" => recipe("s3.safetensors, layer_norm_epsilon: {attn_ln: 1e-6}"),
            _ => recipe("s3.safetensors"),
        };
        extract(file, "param.", &named.path("s3.safetensors"));
        let exported = recipe("s3.onnx");
        fs::copy(golden(graph), exported.path("s3.onnx")).unwrap();
        let (named, exported) = (run(&named), run(&exported));
        assert!(named.len() > 100, "{} tokens", named.len());
        assert_eq!(named, exported, "{version}");
    }
}

/// Replaces the bytes behind an attribute's name in a graph, at its first place.
fn patch(graph: &mut [u8], attribute: &str, from: &[u8], to: &[u8]) {
    let behind = [attribute.as_bytes(), from].concat();
    let at = graph.windows(behind.len()).position(|window| window == behind).expect("the graph has this attribute");
    graph[at + attribute.len()..][..to.len()].copy_from_slice(to);
}

/// An attribute that is a float, as the wire format has it behind the attribute's name.
fn float(value: f32) -> Vec<u8> {
    [&[0x15][..], &value.to_le_bytes()].concat()
}

#[test]
fn the_epsilon_of_a_graph_is_read_and_that_of_named_tensors_is_a_setting() {
    let graph = fs::read(golden("s3_tokenizer_v2_small_e5.onnx")).unwrap();
    let exported = |epsilon: f32| {
        let mini = with_extractor("{kind: s3-tokenizer, version: v2, weights: s3.onnx}");
        let mut graph = graph.clone();
        patch(&mut graph, "epsilon", &float(1e-5), &float(epsilon));
        fs::write(mini.path("s3.onnx"), graph).unwrap();
        run(&mini)
    };
    let named = |setting: &str| {
        let mini =
            with_extractor(&format!("{{kind: s3-tokenizer, version: v2, weights: s3.safetensors, heads: 1{setting}}}"));
        extract("s3_tokenizer_v2_25hz_e5.safetensors", "param.", &mini.path("s3.safetensors"));
        run(&mini)
    };
    let (usual, wide) = (exported(1e-5), exported(1e-2));
    assert_ne!(usual, wide);
    assert_eq!(usual, named(""), "the default is that of the current package");
    assert_eq!(usual, named(", layer_norm_epsilon: 1e-5"));
    assert_eq!(wide, named(", layer_norm_epsilon: {attn_ln: 1e-2}"));
}

#[test]
fn a_graph_that_contradicts_the_network_or_the_recipe_is_refused() {
    let graph = fs::read(golden("s3_tokenizer_v2_small_e5.onnx")).unwrap();
    let refused = |setting: &str, patches: &dyn Fn(&mut Vec<u8>), words: &[&str]| {
        let mini = with_extractor(&format!("{{kind: s3-tokenizer, version: v2, weights: s3.onnx{setting}}}"));
        let mut graph = graph.clone();
        patches(&mut graph);
        fs::write(mini.path("s3.onnx"), graph).unwrap();
        mini.run(&["--stop-stage", "2"]).expect_code(1).expect_no_panic().expect_words(words);
    };
    let same = |_: &mut Vec<u8>| {};
    refused(", layer_norm_epsilon: 1e-6", &same, &["layer_norm_epsilon", "s3.onnx"]);
    refused(", heads: 2", &same, &["heads"]);
    refused("", &|graph| patch(graph, "strides", &[0x40, 2], &[0x40, 1]), &["strides"]);
    refused("", &|graph| patch(graph, "pads", &[0x40, 1, 0x40, 1], &[0x40, 2, 0x40, 0]), &["pads"]);
    // An attribute that its operation does not have, also where the operation has no weights.
    for (name, unknown) in [("epsilon", "epsilom"), ("perm", "perk")] {
        let renamed = |graph: &mut Vec<u8>| {
            let at = graph.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
            graph[at..at + name.len()].copy_from_slice(unknown.as_bytes());
        };
        refused("", &renamed, &[unknown]);
    }
}

#[test]
fn a_recording_has_a_token_for_every_40_ms_it_begins() {
    for extractor in [
        "{kind: kmeans, k: 16, iterations: 2}",
        "{kind: s3-tokenizer, version: v1, weights: random}",
        "{kind: s3-tokenizer, version: v2, weights: random}",
    ] {
        let mini = with_extractor(extractor);
        mini.run(&["--stop-stage", "2"]).expect_code(0);
        for split in ["train", "dev"] {
            let rows = mini.exp(&format!("0-prep/{split}/part-00000.parquet"));
            let samples = parquet::numbers(&rows, "duration").into_iter().zip(parquet::numbers(&rows, "sample_rate"));
            let expected: Vec<usize> = samples
                .map(|(seconds, rate)| ((seconds * rate).round() as usize * 25).div_ceil(rate as usize))
                .collect();
            let tokens = parquet::lists(&mini.exp(&format!("2-tokens/{split}/part-00000.parquet")), "speech_token");
            assert_eq!(tokens.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{extractor}");
        }
    }
}

#[test]
fn a_changed_weight_file_runs_the_tokens_again() {
    let mini = with_extractor("{kind: s3-tokenizer, version: v1, weights: s3.onnx, heads: 4}");
    fs::copy(golden("s3_tokenizer_v1_small.onnx"), mini.path("s3.onnx")).unwrap();
    let first = run(&mini);
    mini.run(&["--stop-stage", "2"]).expect_code(0).expect_nothing_to_do();
    extract("s3_tokenizer_v1_25hz.safetensors", "param.", &mini.path("s3.onnx"));
    mini.run(&["--stop-stage", "2"]).expect_code(0).expect_words(&["s3.onnx"]);
    assert_eq!(tokens(&mini), first, "the same weights in another format");
}

#[test]
fn step_audio_tokens_are_groups_of_two_and_three() {
    let linguistic = "{weights: paraformer.safetensors, centres: centres.safetensors, cmvn: none, heads: 4}";
    let mini = with_extractor(&format!(
        "{{kind: step-audio-dual, linguistic: {linguistic}, semantic: {{weights: s3.onnx, heads: 4}}}}"
    ));
    extract("linguistic_tokenizer.safetensors", "param.", &mini.path("paraformer.safetensors"));
    extract("linguistic_tokenizer.safetensors", "in.kmeans", &mini.path("centres.safetensors"));
    fs::copy(golden("s3_tokenizer_v1_small.onnx"), mini.path("s3.onnx")).unwrap();
    let tokens = run(&mini);
    assert!(tokens.len() > 100 && tokens.len().is_multiple_of(5));
    for group in tokens.chunks(5) {
        // The small models have 32 centres and 64 entries.
        assert!(group[..2].iter().all(|token| (0.0..32.0).contains(token)), "{group:?}");
        assert!(group[2..].iter().all(|token| (1024.0..1024.0 + 64.0).contains(token)), "{group:?}");
    }
    mini.flowmill("doctor", &[]).expect_code(0).expect_words(&[
        "paraformer.safetensors",
        "centres.safetensors",
        "s3.onnx",
    ]);
    let trimmed = with_extractor(&format!(
        "{{kind: step-audio-dual, prepare: {{trim: true}}, linguistic: {linguistic}, semantic: {{weights: s3.onnx, heads: 4}}}}"
    ));
    for file in ["paraformer.safetensors", "centres.safetensors", "s3.onnx"] {
        fs::copy(mini.path(file), trimmed.path(file)).unwrap();
    }
    assert_ne!(run(&trimmed).len(), tokens.len(), "trimming changes what there is to hear");
}

#[test]
fn linguistic_tokens_come_every_60_milliseconds() {
    let mini = with_extractor(
        "{kind: paraformer-units, weights: paraformer.safetensors, centres: centres.safetensors, cmvn: none}",
    );
    extract("linguistic_tokenizer.safetensors", "param.", &mini.path("paraformer.safetensors"));
    extract("linguistic_tokenizer.safetensors", "in.kmeans", &mini.path("centres.safetensors"));
    let linguistic = run(&mini);
    let s3 = run(&with_extractor("{kind: s3-tokenizer, weights: random}"));
    // 16.7 tokens a second to 25, the ends of recordings aside.
    let ratio = s3.len() as f64 / linguistic.len() as f64;
    assert!((1.4..1.6).contains(&ratio), "{ratio}");
    assert!(linguistic.iter().all(|token| (0.0..32.0).contains(token)));
}

#[test]
fn random_weights_say_so() {
    let extractor = "{kind: step-audio-dual, linguistic: {weights: random}, semantic: {weights: random}}";
    let mini = with_extractor(extractor);
    let doctor = with_extractor("{kind: s3-tokenizer, weights: random}").flowmill("doctor", &[]);
    doctor.expect_code(0).expect_words(&["warn", "tokens.extractor.weights: random"]);
    let beside = "{kind: step-audio-dual, linguistic: {weights: random, centres: nowhere.npy, cmvn: none}, semantic: {weights: random}}";
    let doctor = with_extractor(beside).flowmill("doctor", &[]).expect_code(0);
    assert!(!doctor.text().contains("nowhere.npy"), "nothing reads it: {}", doctor.text());
    mini.run(&["--stop-stage", "2"]).expect_code(0).expect_words(&["RANDOM"]);
    assert!(codebook(&mini).contains("RANDOM"));
    assert_eq!(tokens(&mini), run(&with_extractor(extractor)), "the seed decides");
}

/// Runs a recipe whose weight file has this content; it must fail with these words.
#[track_caller]
fn expect_refusal(version: &str, content: &[u8], words: &[&str]) {
    let mini = with_extractor(&format!("{{kind: s3-tokenizer, version: {version}, weights: s3.bin, heads: 4}}"));
    fs::write(mini.path("s3.bin"), content).unwrap();
    let outcome = mini.run(&["--stop-stage", "2"]).expect_code(1).expect_no_panic().expect_words(&["s3.bin"]);
    outcome.expect_words(words);
}

#[test]
fn bad_weights_are_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole");
    extract("s3_tokenizer_v1_25hz.safetensors", "param.", &path);
    let whole = fs::read(&path).unwrap();
    expect_refusal("v1", &whole[..whole.len() / 2], &["not a whole safetensors file"]);
    expect_refusal("v2", &whole, &["v1", "version: v2"]);
    let mut not_a_number = whole.clone();
    let end = not_a_number.len();
    not_a_number[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    expect_refusal("v1", &not_a_number, &["NaN"]);
    extract("linguistic_tokenizer.safetensors", "param.", &path);
    expect_refusal("v1", &fs::read(&path).unwrap(), &["S3", "after_norm.bias"]);
    let other_graph = fs::read(golden("campplus_small.onnx")).unwrap();
    expect_refusal("v1", &other_graph, &["S3"]);
    let text = String::from_utf8_lossy(&whole).into_owned();
    assert!(text.contains("encoder.conv1.bias"));
    let mut renamed = whole.clone();
    let at = whole.windows(18).position(|window| window == b"encoder.conv1.bias").unwrap();
    renamed[at..at + 18].copy_from_slice(b"encoder.conv1.bean");
    expect_refusal("v1", &renamed, &["`encoder.conv1.bias`", "`encoder.conv1.bean`"]);
}
