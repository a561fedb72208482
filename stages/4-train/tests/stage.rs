//! The training stage through the runner.

mod support;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flowmill_runner::{ReasonKind, RunError, RunOptions};
use serde_json::Value;
use support::{Toy, tree};

fn json(toy: &Toy, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(toy.stage().join(file)).unwrap()).unwrap()
}

fn lines(toy: &Toy) -> Vec<Value> {
    let text = std::fs::read_to_string(toy.stage().join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Checks that these settings are refused because work would be lost to this change alone.
#[track_caller]
fn refused_for(toy: &Toy, overrides: &[&str], change: &str) {
    let error = toy.run(overrides, &RunOptions::default()).0.unwrap_err();
    assert!(matches!(&error, RunError::WouldLose { changes, .. } if changes == &[change]), "{error}");
}

#[test]
fn it_trains_and_leaves_checkpoints_metrics_and_configuration() {
    let toy = Toy::new();
    assert_eq!(toy.ran(&[]), 1);
    let names: Vec<PathBuf> = tree(&toy.stage()).into_keys().collect();
    let has = |name: &str| names.iter().any(|path| path.ends_with(name));
    for name in ["config.json", "metrics.jsonl", "events.out.tfevents.0000000000.flowmill"] {
        assert!(has(name), "{name} in {names:?}");
    }
    assert!(has("checkpoints/step-000024/model.safetensors") && has("checkpoints/step-000020/state.json"), "{names:?}");
    let config = json(&toy, "config.json");
    assert_eq!(config["family"], "cosyvoice2-flow");
    assert_eq!(config["model"]["vocab_size"], 10);
    assert_eq!(config["model"]["mel_normalisation"]["deviation"][0], 1.5);
    assert_eq!(config["mel"]["config"]["hop_length"], 480);
    let validations: Vec<f64> = lines(&toy).iter().filter_map(|line| line["validation"]["loss"].as_f64()).collect();
    assert!(validations.last() < validations.first(), "{validations:?}");

    let before = tree(&toy.stage());
    assert_eq!(toy.ran(&[]), 0);
    assert_eq!(before, tree(&toy.stage()));
}

#[test]
fn two_runs_on_different_numbers_of_threads_leave_the_same_bytes() {
    let (one, two) = (Toy::new(), Toy::new());
    one.run(&[], &RunOptions { jobs: 1, ..RunOptions::default() }).0.unwrap();
    two.run(&[], &RunOptions { jobs: 3, ..RunOptions::default() }).0.unwrap();
    assert!(tree(&one.stage()) == tree(&two.stage()));
}

#[test]
fn an_interrupted_run_goes_on_and_ends_in_the_same_bytes() {
    let (whole, pieces) = (Toy::new(), Toy::new());
    whole.ran(&[]);
    let (mut interrupted, mut resumed) = (0, 0);
    for piece in 1.. {
        let options = RunOptions::default();
        let interrupt = options.interrupt.clone();
        let done = AtomicBool::new(false);
        let (ran, said) = std::thread::scope(|scope| {
            scope.spawn(|| {
                let started = std::time::Instant::now();
                while !done.load(Ordering::Relaxed) && started.elapsed() < Duration::from_millis(20 + 15 * piece) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                interrupt.set();
            });
            let ran = pieces.run(&[], &options);
            done.store(true, Ordering::Relaxed);
            ran
        });
        match ran {
            Ok(summary) => {
                resumed += summary.stages[1].reasons.iter().filter(|why| why.kind == ReasonKind::Continues).count();
                break;
            }
            Err(RunError::Interrupted) => interrupted += 1,
            Err(error) => panic!("{error}\n{said}"),
        }
    }
    assert!(interrupted > 0 && resumed > 0, "{interrupted} interruptions, {resumed} times resumed");
    assert!(tree(&whole.stage()) == tree(&pieces.stage()));
}

#[test]
fn without_a_validation_split_it_trains_and_validates_nothing() {
    let toy = Toy::new();
    assert_eq!(toy.ran(&["toy.dev=0", "train.validation_split=null", "train.max_steps=4"]), 1);
    assert!(lines(&toy).iter().all(|line| line.get("validation").is_none()));
}

#[test]
fn data_that_the_model_cannot_take_is_named() {
    for (overrides, expected) in [
        (&["toy.token_offset=1"][..], "train.model.vocab_size"),
        (&["train.model.output_size=9"], "train.model.output_size to 8"),
        (&["train.model.spk_embed_dim=5"], "train.model.spk_embed_dim"),
        (&["train.model.token_mel_ratio=1"], "train.model.token_mel_ratio"),
        (&["train.train_split=nowhere"], "train.train_split"),
        (&["train.validation_split=nowhere"], "train.validation_split"),
        (&["toy.dev=0"], "train.validation_split: null"),
    ] {
        let (ran, _) = Toy::new().run(overrides, &RunOptions::default());
        let error = ran.unwrap_err().to_string();
        assert!(error.contains(expected), "{overrides:?}: {error}");
    }
}

#[test]
fn recipes_that_cannot_be_are_refused_before_anything_runs() {
    for (set, expected) in [
        ("train.optim.lr=0", "train.optim.lr"),
        ("train.batch.max_frames_in_batch=0", "train.batch.max_frames_in_batch"),
        ("train.validation_split=train", "train.validation_split"),
        ("train.train_split=../x", "train.train_split"),
        ("train.accum_grad=0", "train.accum_grad"),
        ("train.model.estimator.channels=[]", "train.model.estimator.channels"),
        ("train.model.estimator.num_head=2", "train.model.estimator.num_head"),
        ("train.model.vocab_size=many", "train.model.vocab_size"),
        ("train.model.vocabulary=10", "train.model.vocabulary"),
        ("train.model.family=tacotron", "train.model.family"),
        ("train.schedule.name=sawtooth", "train.schedule.name"),
        ("train.optim.learning_rate=1", "train.optim.learning_rate"),
        ("train.batch.batch_size=0", "train.batch.batch_size"),
        ("train.batch={batch_size: 4, max_utterances_in_batch: 3}", "train.batch.batch_size"),
        ("train.batch.bucket_frames=0", "train.batch.bucket_frames"),
        ("train.curriculum=[]", "train.curriculum"),
        ("train.curriculum=[{order: sorted}, {order: shuffled}]", "train.curriculum[0].epochs"),
        ("train.curriculum=[{epochs: 1, order: random}, {order: shuffled}]", "by_speaker"),
        ("train.mixture=[{weight: 0}]", "train.mixture[0].weight"),
        ("train.mixture=[{weight: 1}, {index: nowhere}]", "train.mixture[1].index"),
        ("train.mixture=[{weight: 1}, {weight: 2}]", "train.mixture[1]"),
        ("train.validate_every={epoch: 1}", "train.validate_every"),
        ("train.save_every=often", "{epochs: 1}"),
        ("train.early_stopping={patience: 0}", "train.early_stopping.patience"),
        ("train.max_seconds=0", "train.max_seconds"),
        ("train.num_workers=0", "train.num_workers"),
    ] {
        let toy = Toy::new();
        let error = toy.run(&[set], &RunOptions::default()).0.unwrap_err();
        assert!(error.to_string().contains(expected), "{set}: {error}");
        assert!(!toy.stage().exists());
    }
}

#[test]
fn how_far_loading_runs_ahead_is_no_reason_to_train_again() {
    let toy = Toy::new();
    toy.ran(&["train.max_steps=4"]);
    for set in ["train.prefetch=1", "train.num_workers=7", "train.max_seconds=100"] {
        assert_eq!(toy.ran(&["train.max_steps=4", set]), 0, "{set}");
    }
    refused_for(&toy, &["train.max_steps=4", "train.optim.lr=0.002"], "train.optim.lr: 0.003 → 0.002");
}

#[test]
fn curricula_and_batches_of_a_fixed_size_change_what_is_trained_on_and_nothing_else_does() {
    let orders = ["sorted", "bucketed", "by_speaker", "shuffled"];
    let mut metrics = Vec::new();
    for order in orders {
        let toy = Toy::new();
        let curriculum = format!("train.curriculum=[{{epochs: 1, order: {order}}}, {{order: shuffled}}]");
        let settings = [
            &curriculum,
            "train.batch={batch_size: 3, bucket_frames: 8, sort_size: 1}",
            "train.max_steps=8",
            "train.accum_grad=1",
        ];
        toy.ran(&settings);
        metrics.push(lines(&toy).iter().map(|line| line["loss"].to_string()).collect::<Vec<_>>());
        let again = Toy::new();
        again.ran(&[&settings[..], &["train.num_workers=5", "train.prefetch=0"]].concat());
        assert!(tree(&toy.stage().join("checkpoints")) == tree(&again.stage().join("checkpoints")), "{order}");
    }
    metrics.sort();
    metrics.dedup();
    assert_eq!(metrics.len(), orders.len(), "every order is another");
}

#[test]
fn corpora_are_mixed_by_weight() {
    let (toy, other, plain) = (Toy::new(), Toy::new(), Toy::new());
    other.ran(&["train.max_steps=1"]);
    let index = other.stage().with_file_name("3-pack").join("train");
    let mixture =
        |weight: u32| format!("train.mixture=[{{weight: 1}}, {{index: {}, weight: {weight}}}]", index.display());
    toy.ran(&[&mixture(3), "train.max_steps=8"]);
    plain.ran(&["train.max_steps=8"]);
    let receipt = json(&toy, "receipts/train.json").to_string();
    assert!(receipt.contains("\"train_utterances\":28"), "{receipt}");
    assert_ne!(lines(&toy)[0]["loss"], lines(&plain)[0]["loss"]);
    assert_eq!(toy.ran(&[&mixture(3), "train.max_steps=8"]), 0);
    refused_for(&toy, &[&mixture(2), "train.max_steps=8"], "train.mixture[1].weight: 3 → 2");

    let path = index.join("index.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"hop_length\": 480", "\"hop_length\": 240")).unwrap();
    let forced = RunOptions { force: true, ..RunOptions::default() };
    let error = toy.run(&[&mixture(2), "train.max_steps=8"], &forced).0.unwrap_err().to_string();
    assert!(error.contains("train.mixture") && error.contains("mel"), "{error}");
}

#[test]
fn training_that_does_not_improve_ends_early_and_the_receipt_says_so() {
    let toy = Toy::new();
    toy.ran(&["train.early_stopping={patience: 2, min_delta: 1e6}"]);
    assert!(json(&toy, "receipts/train.json").to_string().contains("\"stopped_early\":true"));
    assert!(lines(&toy).iter().all(|line| line["step"].as_u64() <= Some(8)), "validations at 4, 6 and 8");
    let blind = ["toy.dev=0", "train.validation_split=null", "train.early_stopping={patience: 2}"];
    let (ran, _) = Toy::new().run(&blind, &RunOptions::default());
    let error = ran.unwrap_err().to_string();
    assert!(error.contains("train.early_stopping") && error.contains("validation_split"), "{error}");
}
