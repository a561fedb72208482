//! Published front-ends through the program: their weights from every kind of file, and what is said when they cannot be used.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use rustix::fs::inotify;

use crate::support::mini::{golden, repository};
use crate::support::{Mini, Outcome, parquet};

/// The first two stages with a CAM++ encoder whose weights are at `weights`, relative to the recipe.
fn embed(mini: &Mini, weights: &str, size: usize) -> Outcome {
    let extractor = format!("embed.extractor={{kind: campplus, weights: {weights}, embedding_size: {size}}}");
    let model = format!("train.model.spk_embed_dim={size}");
    mini.run(&["--stop-stage", "1", "--set", &extractor, "--set", &model])
}

/// Reads all embeddings by utterance.
fn embeddings(mini: &Mini) -> BTreeMap<String, Vec<f32>> {
    let parts = mini
        .tree()
        .0
        .into_keys()
        .filter(|path| path.starts_with("1-embed") && path.to_string_lossy().contains("part-"));
    let parts = parts.filter(|path| path.extension().is_some_and(|ending| ending == "parquet"));
    let rows = parts.flat_map(|path| {
        let path = mini.exp("").join(path);
        flowmill_corpus::table::read_embeddings(&path, "utt", "utt_embedding").unwrap()
    });
    rows.collect()
}

/// The golden weights as a state dict.
fn state_dict() -> Vec<(String, Tensor)> {
    let tensors = flowmill_weights::read(&golden("campplus.safetensors")).unwrap().tensors;
    tensors.into_iter().filter_map(|(name, tensor)| Some((name.strip_prefix("param.")?.to_owned(), tensor))).collect()
}

fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    found.iter().zip(expected).fold(0.0f32, |error, (a, b)| error.max((a - b).abs())) / (largest + 1e-6)
}

#[test]
fn a_graph_a_torch_file_and_safetensors_give_the_same_embeddings() {
    let mini = Mini::new();
    fs::copy(golden("campplus_small.onnx"), mini.path("campplus.onnx")).unwrap();
    flowmill_weights::write(&mini.path("campplus.safetensors"), &state_dict(), &BTreeMap::new()).unwrap();
    flowmill_weights::write_torch(&mini.path("campplus.bin"), &state_dict(), &[]).unwrap();
    embed(&mini, "campplus.onnx", 24).expect_code(0);
    let graph = embeddings(&mini);
    assert_eq!(graph.len(), 12);
    embed(&mini, "campplus.onnx", 24).expect_code(0).expect_nothing_to_do();
    for other in ["campplus.safetensors", "campplus.bin"] {
        embed(&mini, other, 24).expect_code(0);
        for (utt, embedding) in embeddings(&mini) {
            let error = relative_error(&graph[&utt], &embedding);
            assert!(embedding.len() == 24 && error <= 2e-5, "{other}, {utt}: {error:.1e}");
        }
    }
}

#[test]
fn a_network_runs_on_the_device_that_its_section_or_the_training_names() {
    let mini = Mini::new();
    fs::copy(golden("campplus_small.onnx"), mini.path("campplus.onnx")).unwrap();
    let run = |device: &str| {
        let extractor = "embed.extractor={kind: campplus, weights: campplus.onnx, embedding_size: 24}";
        let changes = ["--set", extractor, "--set", "train.model.spk_embed_dim=24", "--set", device];
        mini.run(&[&["--stop-stage", "1"][..], &changes].concat())
    };
    // A number that no machine has a device of.
    run("embed.device=\"cuda:63\"").expect_code(2).expect_words(&["embed.device", "cuda:63"]);
    run("train.device=\"cuda:63\"").expect_code(2).expect_words(&["train.device", "cuda:63"]);
    run("embed.device=\"gpu\"").expect_code(2).expect_words(&["embed.device"]);
    assert!(!mini.path("exp").exists(), "something was written");
    run("embed.device=cpu").expect_code(0);
    run("embed.device=auto").expect_code(0).expect_nothing_to_do();
    // The command line goes before what the section says.
    let changes = [
        "--set",
        "embed.extractor={kind: campplus, weights: campplus.onnx, embedding_size: 24}",
        "--set",
        "train.model.spk_embed_dim=24",
    ];
    let named = |device: &str| {
        mini.run(
            &[&["--stop-stage", "1", "--force", "--set", "embed.device=\"cuda:63\"", "--device", device][..], &changes]
                .concat(),
        )
    };
    named("cpu").expect_code(0);
    named("cuda:62").expect_code(2).expect_words(&["embed.device", "cuda:62"]);
    // What is no network needs no device.
    mini.run(&["--stop-stage", "1", "--set", "train.device=\"cuda:63\""]).expect_code(0);
}

#[test]
fn other_weights_run_again_and_random_ones_say_so() {
    let mini = Mini::new();
    let path = mini.path("campplus.safetensors");
    flowmill_weights::write(&path, &state_dict(), &BTreeMap::new()).unwrap();
    embed(&mini, "campplus.safetensors", 24).expect_code(0);
    let before = embeddings(&mini);
    let mut changed = state_dict();
    let (_, tensor) = changed.iter_mut().find(|(name, _)| name == "xvector.dense.linear.weight").unwrap();
    *tensor = (&*tensor * 2.0).unwrap();
    flowmill_weights::write(&path, &changed, &BTreeMap::new()).unwrap();
    embed(&mini, "campplus.safetensors", 24).expect_code(0);
    assert!(embeddings(&mini).iter().all(|(utt, embedding)| *embedding != before[utt]));
    embed(&mini, "random", 192).expect_code(0).expect_words(&["RANDOM"]);
    assert!(embeddings(&mini).values().all(|embedding| embedding.len() == 192));
}

#[test]
fn weights_that_cannot_be_used_end_in_one_clear_error() {
    let mini = Mini::new();
    let whole = fs::read(golden("campplus_small.onnx")).unwrap();
    fs::write(mini.path("cut.onnx"), &whole[..whole.len() / 2]).unwrap();
    fs::copy(golden("features.safetensors"), mini.path("other.safetensors")).unwrap();
    fs::write(mini.path("text.onnx"), "these are no weights").unwrap();
    fs::copy(golden("campplus_small.onnx"), mini.path("small.onnx")).unwrap();
    let mut shorter = state_dict();
    shorter.retain(|(name, _)| !name.starts_with("xvector.block3.tdnnd16."));
    flowmill_weights::write(&mini.path("shorter.safetensors"), &shorter, &BTreeMap::new()).unwrap();
    for (file, words) in [
        ("cut.onnx", ["cut.onnx", "whole ONNX"]),
        ("other.safetensors", ["other.safetensors", "CAM++"]),
        ("shorter.safetensors", ["shorter.safetensors", "tdnnd16"]),
        ("text.onnx", ["text.onnx", ""]),
        ("absent.onnx", ["absent.onnx", ""]),
        ("small.onnx", ["24 values", "embedding_size: 192"]),
    ] {
        let outcome = embed(&mini, file, 192).expect_code(1).expect_words(&words);
        let named = |line: &str| line.matches(&format!("{file}: ")).count();
        assert!(outcome.stderr.lines().all(|line| named(line) <= 1), "named twice: {}", outcome.stderr);
    }
    // A mean over another axis than time, and an attribute that its operation does not have.
    for (from, to, words) in [
        (&b"axes@\xff\xff"[..], &b"axes@\xfe\xff"[..], ["ReduceMean", "axes"]),
        (b"perm", b"perk", ["Transpose", "perk"]),
    ] {
        let mut graph = whole.clone();
        let at = graph.windows(from.len()).position(|window| window == from).expect("the graph has this attribute");
        graph[at..at + to.len()].copy_from_slice(to);
        fs::write(mini.path("changed.onnx"), graph).unwrap();
        let refused = embed(&mini, "changed.onnx", 24).expect_code(1).expect_no_panic();
        refused.expect_words(&["changed.onnx"]).expect_words(&words);
    }
    embed(&mini, "''", 192).expect_code(2).expect_words(&["embed.extractor.weights", "campplus.onnx"]);
}

/// Counts how often files are opened for reading, by their names, while a command runs on one thread.
fn opened(files: &[PathBuf], run: impl FnOnce()) -> BTreeMap<PathBuf, usize> {
    // Without waiting: the watch keeps what happened until it is read.
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let flags = inotify::WatchFlags::OPEN | inotify::WatchFlags::CLOSE_NOWRITE;
    let watched: BTreeMap<i32, &PathBuf> =
        files.iter().map(|file| (inotify::add_watch(&watch, file, flags).unwrap(), file)).collect();
    run();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let mut counts: BTreeMap<PathBuf, usize> = files.iter().map(|file| (file.clone(), 0)).collect();
    while let Ok(event) = events.next() {
        if event.events().contains(inotify::ReadFlags::OPEN) {
            *counts.get_mut(watched[&event.wd()]).unwrap() += 1;
        }
    }
    counts
}

#[test]
fn extractors_are_loaded_once_per_run_however_many_parts_there_are() {
    let mini = Mini::new();
    fs::copy(golden("campplus_small.onnx"), mini.path("campplus.onnx")).unwrap();
    fs::copy(golden("s3_tokenizer_v1_small.onnx"), mini.path("s3.onnx")).unwrap();
    let run = |part_size: usize| {
        let part_size = format!("prep.part_size={part_size}");
        let sets = [
            &part_size,
            "embed.extractor={kind: campplus, weights: campplus.onnx, embedding_size: 24}",
            "tokens.extractor={kind: s3-tokenizer, version: v1, weights: s3.onnx}",
            "train.model={family: cosyvoice2-flow, spk_embed_dim: 24}",
        ];
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let arguments: Vec<&str> = ["--stop-stage", "2", "--jobs", "1"].into_iter().chain(sets).collect();
        mini.run(&arguments).expect_code(0)
    };
    run(100);
    // What the weights became; the weights themselves, which have not changed, are not even opened again to be loaded.
    let files = ["1-embed/extractor.safetensors", "2-tokens/codebook.safetensors"].map(|file| mini.exp(file));
    let weights = ["campplus.onnx", "s3.onnx"].map(|file| mini.path(file));
    let files = [&files[..], &weights].concat();
    let mut counts = Vec::new();
    // One part of every split, one for every row, and one of every split again.
    for (part_size, parts) in [(1, 12), (100, 2)] {
        counts.push(opened(&files, || drop(run(part_size))));
        for stage in ["1-embed", "2-tokens"] {
            let tables = mini.tree().0.into_keys().filter(|path| path.starts_with(stage));
            let tables = tables.filter(|path| path.to_string_lossy().contains("part-"));
            let tables = tables.filter(|path| path.extension().is_some_and(|ending| ending == "parquet"));
            assert_eq!(tables.count(), parts, "{stage}");
        }
    }
    assert_eq!(counts[0], counts[1], "parts of one row, and parts of 100");
    assert!(files[..2].iter().all(|file| counts[0][file] > 0), "{counts:?}");
}

#[test]
fn the_doctor_knows_whether_weights_are_there() {
    let mini = Mini::new();
    let recipe = fs::read_to_string(mini.path("recipe.yaml")).unwrap();
    let with =
        recipe.replace("{kind: statistics, n_mels: 8}", "{kind: campplus, weights: campplus.onnx, embedding_size: 24}");
    assert_ne!(recipe, with);
    fs::write(mini.path("recipe.yaml"), with.replace("spk_embed_dim: 32", "spk_embed_dim: 24")).unwrap();
    mini.flowmill("doctor", &[]).expect_code(1).expect_words(&["embed.extractor.weights", "campplus.onnx"]);
    fs::copy(golden("campplus_small.onnx"), mini.path("campplus.onnx")).unwrap();
    let shown = mini.flowmill("doctor", &[]).expect_words(&["embed.extractor.weights", "campplus.onnx"]);
    assert!(!shown.text().contains("does not exist"), "{}", shown.text());
}

#[test]
fn a_recording_without_enough_frames_is_rejected_with_its_length() {
    let mini = Mini::new();
    let id = "tiny";
    fs::copy(repository().join("tests/data/formats/broken/ten_ms.wav"), mini.path("data/audio/tiny.wav")).unwrap();
    append(&mini.path("data/wav.scp"), &format!("{id} audio/tiny.wav\n"));
    append(&mini.path("data/utt2spk"), &format!("{id} {id}\n"));
    append(&mini.path("data/text"), &format!("{id} A\n"));
    append(&mini.path("lists/train"), &format!("{id}\n"));
    let filter = "prep.min_duration=0";
    let extractor = "embed.extractor={kind: campplus, weights: random}";
    let model = "train.model.spk_embed_dim=192";
    mini.run(&["--stop-stage", "1", "--set", filter, "--set", extractor, "--set", model, "--set", "max_rejected=1"]);
    let rejected = mini.files_ending("rejected.parquet");
    let of_stage = rejected.iter().find(|path| path.starts_with("1-embed")).expect("rejected rows of stage 1");
    let reasons = parquet::texts(&mini.exp("").join(of_stage), "reason");
    assert!(reasons.iter().any(|reason| reason.contains("campplus") && reason.contains("0.010 s")), "{reasons:?}");
}

fn append(path: &Path, line: &str) {
    let mut text = fs::read_to_string(path).unwrap();
    text.push_str(line);
    fs::write(path, text).unwrap();
}
