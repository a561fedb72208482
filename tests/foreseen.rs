//! Foreseen refusals: a run that a training would refuse stops before it repeats earlier stages; changes that training does not read do
//! not count.

use std::fs;

use crate::support::training::{ENDLESS, Training};
use crate::support::{Mini, Tree, Verdict};

/// Changes that a training refuses, and the words for their cause.
const CHANGES: [(&str, &str, &str); 5] = [
    ("seed=8", "seed: 7 → 8", "tokens"),
    ("tokens.extractor.iterations=6", "tokens.extractor.iterations: 5 → 6", "input"),
    ("train.optim.lr=2e-3", "train.optim.lr: 0.001 → 0.002", "input"),
    ("pack.mel.store=float32", "pack.mel.store: \"float16\" → \"float32\"", "input"),
    ("pack.utterances_per_shard=3", "pack.", "input 3-pack/train/index.json"),
];

fn expect_refused(mini: &Mini, settings: &[&str]) {
    for (change, cause, other) in CHANGES {
        let before = mini.tree();
        let refused = mini.run(&[settings, &["--set", change]].concat()).expect_code(2);
        let text = refused.expect_words(&[cause, "--exp DIR"]).text();
        let told = text.split("error[would-lose]: ").nth(1).unwrap();
        assert!(!told.contains(&format!("\n  {other}")), "only the cause of {change}: {text}");
        let after = mini.tree();
        // What stage 3 made anew waits there.
        let staged = |path: &std::path::PathBuf| path.to_string_lossy().contains("3-pack/.staging/");
        let written: Vec<_> = after.written_since(&before).into_iter().filter(|path| !staged(path)).collect();
        assert!(written.is_empty(), "{change}: {written:?}");
        let (then, now) = (before.contents(), after.contents());
        let kept = |(path, hash): (&&std::path::Path, _)| staged(&path.to_path_buf()) || now.get(path) == Some(hash);
        assert!(then.iter().all(kept), "{change}");
    }
    for (change, cause, _) in &CHANGES[..3] {
        let dry = mini.run(&[settings, &["--set", change, "--dry-run"]].concat()).expect_code(0);
        let dry = dry.expect_verdict("4-train", Verdict::Refused).expect_words(&[cause]);
        let later = ["2-tokens", "3-pack"].iter().any(|stage| dry.text().contains(&format!("{stage}: would run:")));
        assert!(!later, "{}", dry.text());
    }
    // Set back, everything is as it was.
    mini.run(&[settings, &["--stop-stage", "pack"]].concat()).expect_code(0).expect_nothing_to_do();
}

#[test]
fn what_a_finished_training_refuses_is_refused_first() {
    let mini = Mini::finished();
    expect_refused(&mini, &[]);
    mini.run(&[]).expect_code(0).expect_nothing_to_do();
    // Asked for, the earlier stages are made; set back, they are made as they were, and the training is what it was.
    let change = ["--set", "tokens.extractor.iterations=6"];
    mini.run(&[&["--stop-stage", "pack"], &change[..]].concat()).expect_code(0);
    mini.run(&[&["--stage", "4"], &change[..]].concat()).expect_code(2).expect_words(&["3-pack/train/index.json"]);
    mini.run(&[]).expect_code(0).expect_verdict("4-train", Verdict::UpToDate);
}

#[test]
fn what_an_interrupted_training_refuses_is_refused_first() {
    let mini = Mini::packed();
    let training = Training::start(&mini, &ENDLESS).listening();
    training.ctl(&["quit"]).expect_code(0);
    training.wait().expect_code(130);
    expect_refused(&mini, &ENDLESS);
}

#[test]
fn shards_of_other_bytes_and_the_same_content_are_the_same_data() {
    let mini = Mini::finished();
    let others = [
        ("pack.compression_level=9", "shard-00000.parquet"),
        ("pack.format=webdataset", "shard-00000.tar"),
        ("pack.list_paths=absolute", "data.list"),
    ];
    for (change, file) in others {
        let before = mini.tree();
        let said = mini.run(&["--set", change, "--stop-stage", "average"]).expect_code(0);
        said.expect_verdict("4-train", Verdict::UpToDate).expect_words(&["3-pack: 12 rows in"]);
        let rewritten = Tree::stages(&mini.tree().written_since(&before));
        assert_eq!(rewritten, ["3-pack"], "{change}");
        assert!(mini.exp("3-pack/train").join(file).exists());
    }
    // The paths of recordings are in the shards.
    fs::rename(mini.path("data/audio"), mini.path("data/recordings")).unwrap();
    let list = fs::read_to_string(mini.path("data/wav.scp")).unwrap();
    fs::write(mini.path("data/wav.scp"), list.replace("audio/", "recordings/")).unwrap();
    let shard = mini.exp("3-pack/train/shard-00000.parquet");
    mini.run(&["--stop-stage", "pack"]).expect_code(0);
    let before = fs::read(&shard).unwrap();
    mini.run(&["--stage", "pack", "--stop-stage", "pack", "--force"]).expect_code(0);
    assert!(before != fs::read(&shard).unwrap(), "other bytes");
    mini.run(&["--stop-stage", "average"]).expect_code(0).expect_nothing_to_do();
}

#[test]
fn an_interrupted_training_goes_on_with_shards_of_other_bytes() {
    let mini = Mini::packed();
    let training = Training::start(&mini, &ENDLESS).listening();
    training.ctl(&["save"]).expect_code(0);
    training.kill();
    let stop = ["--stop-stage", "train", "--set", "train.max_seconds=1", "--set", "pack.compression_level=9"];
    let said = mini.run(&[&stop[..], &ENDLESS].concat()).expect_code(130);
    said.expect_resumed().expect_words(&["3-pack: 12 rows in"]);
}

#[test]
fn settings_that_change_no_weights_make_nothing_again() {
    let mini = Mini::finished();
    for setting in [
        "keep.last=9",
        "keep.best=1",
        "log_every=3",
        "save_every=5",
        "validate_every=3",
        "log_gradients=2",
        "sample_every=4",
        "sample_count=3",
        "wandb={project: speech}",
        "prefetch=0",
        "num_workers=2",
        "max_seconds=99",
        "gradient_checkpointing=true",
        "skipped_weights=1",
        "early_stopping={patience: 99}",
    ] {
        mini.run(&["--set", &format!("train.{setting}")]).expect_code(0).expect_nothing_to_do();
    }
}

#[test]
fn an_early_stopping_that_ended_a_training_is_shown() {
    let mini = Mini::packed();
    let fired = [
        "--set",
        "train.validate_every=4",
        "--set",
        "train.early_stopping={patience: 1, min_delta: 1000}",
        "--set",
        "train.max_steps=60",
    ];
    mini.run(&[&["--stop-stage", "train"], &fired[..]].concat()).expect_code(0);
    let more = [&fired[..4], &["--set", "train.max_steps=90"]].concat();
    let words = ["stopped early at step", "train.early_stopping.patience"];
    mini.run(&[&["--stop-stage", "train", "--dry-run"], &more[..]].concat()).expect_code(0).expect_words(&words);
    let status: serde_json::Value =
        serde_json::from_str(&mini.flowmill("status", &[&["--json"], &more[..]].concat()).expect_code(0).stdout)
            .unwrap();
    let train = &status["stages"][4];
    assert_eq!(train["state"], "done");
    assert!(words.iter().all(|word| train["reasons"][0]["reason"].as_str().unwrap().contains(word)), "{train}");
}

#[test]
fn a_training_goes_on_without_the_weights_that_it_began_with() {
    let mini = Mini::new();
    let trained = Mini::finished();
    let file = mini.path("start.safetensors");
    fs::copy(trained.exp("5-average/model.safetensors"), &file).unwrap();
    mini.run(&["--stop-stage", "pack"]).expect_code(0);
    let start = ["--set", "train.init_from=start.safetensors"];
    let training = Training::start(&mini, &[&ENDLESS[..], &start].concat()).listening();
    training.ctl(&["quit"]).expect_code(0);
    training.wait().expect_code(130);
    let aside = mini.path("aside");
    fs::rename(&file, &aside).unwrap();
    let names = fs::read_dir(mini.exp("4-train/.staging/train/state")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let step: u64 = names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).max().unwrap();
    let ends = [step + 4, step + 8].map(|end| format!("train.max_steps={end}"));
    for end in &ends {
        let settings = [&["--stop-stage", "train", "--set", end], &ENDLESS[2..], &start].concat();
        mini.run(&settings).expect_code(0).expect_resumed();
        mini.run(&settings).expect_code(0).expect_nothing_to_do();
    }
    // Back again, it is still the same training; other weights are another.
    let settings = [&["--stop-stage", "train", "--set", &ends[1]], &ENDLESS[2..], &start].concat();
    fs::rename(&aside, &file).unwrap();
    mini.run(&settings).expect_code(0).expect_nothing_to_do();
    fs::write(&file, "others").unwrap();
    mini.run(&settings).expect_code(2).expect_words(&["start.safetensors"]);
}

#[test]
fn what_can_be_gone_on_with_is_named_by_all_that_is_gone() {
    let mini = Mini::packed();
    let training = Training::start(&mini, &ENDLESS).listening();
    training.ctl(&["quit"]).expect_code(0);
    training.wait().expect_code(130);
    let run = || mini.run(&[&["--stop-stage", "train"], &ENDLESS[..]].concat());
    // The list alone: stage 1 and later ones can go on.
    fs::rename(mini.path("data/wav.scp"), mini.path("list")).unwrap();
    run().expect_words(&["wav.scp", "--stage 1"]);
    // All of the data: only what reads none of it.
    fs::rename(mini.path("data"), mini.path("elsewhere")).unwrap();
    run().expect_words(&["--stage 4"]);
    fs::rename(mini.path("elsewhere"), mini.path("data")).unwrap();
    fs::rename(mini.path("list"), mini.path("data/wav.scp")).unwrap();
    fs::rename(mini.path("data/audio"), mini.path("elsewhere")).unwrap();
    run().expect_words(&["--stage 4"]);
}
