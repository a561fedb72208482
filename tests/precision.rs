//! Number formats, the loss scale, gradient checkpointing and the memory plan, on the miniature recipe.

use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::support::random::Random;
use crate::support::training::metrics;
use crate::support::{Mini, Outcome, Tree};

const DROPOUT: [&str; 2] = ["--set", "train.model.encoder.dropout_rate=0.1"];
/// Overflows at first, and again whenever the scale has grown.
const LIVELY: [&str; 6] = [
    "--set",
    "train.precision=fp16",
    "--set",
    "train.loss_scale.initial=16777216",
    "--set",
    "train.loss_scale.window=3",
];

fn train(mini: &Mini, arguments: &[&str]) -> Outcome {
    mini.run(&[&["--stop-stage", "train"], arguments].concat())
}

/// The lines of training steps.
fn steps(mini: &Mini) -> Vec<Value> {
    let lines = metrics(&mini.exp("4-train/metrics.jsonl"));
    lines.into_iter().filter(|line| line.get("lr").is_some()).collect()
}

fn last_validation(mini: &Mini) -> f64 {
    let text = std::fs::read_to_string(mini.exp("4-train/metrics.jsonl")).unwrap();
    let line = text.lines().rfind(|line| line.contains("validation")).unwrap();
    serde_json::from_str::<Value>(line).unwrap()["validation"]["loss"].as_f64().unwrap()
}

#[test]
fn checkpointed_blocks_leave_the_same_files_and_are_no_reason_to_train_again() {
    let (plain, checkpointed) = (Mini::packed(), Mini::packed());
    train(&plain, &DROPOUT).expect_code(0);
    let on = ["--set", "train.gradient_checkpointing=true"];
    train(&checkpointed, &[&DROPOUT[..], &on].concat()).expect_code(0);
    let tree = |mini: &Mini| Tree::of(&mini.exp("4-train"));
    tree(&plain).expect_same_bytes(&tree(&checkpointed), "with and without gradient_checkpointing");
    train(&plain, &[&DROPOUT[..], &on].concat()).expect_code(0).expect_up_to_date();
}

#[test]
fn every_format_learns_and_half_precision_tells_its_scale() {
    let mini = Mini::packed();
    train(&mini, &[]).expect_code(0);
    let exact = last_validation(&mini);
    assert!(steps(&mini)[0].get("loss_scale").is_none());
    for precision in ["bf16", "fp16"] {
        mini.forget_training();
        train(&mini, &["--set", &format!("train.precision={precision}")]).expect_code(0);
        let loss = last_validation(&mini);
        assert!((loss - exact).abs() < 0.05 * exact && loss != exact, "{precision}: {loss} rather than {exact}");
    }
    let line = steps(&mini).pop().unwrap();
    assert!(line["loss_scale"].as_f64().unwrap() >= 1.0 && line["overflows"].is_u64(), "{line}");

    mini.forget_training();
    let outcome = train(&mini, &LIVELY).expect_code(0).expect_words(&["fp16", "skipped_steps 0"]);
    assert!(outcome.text().contains("the scale is now"), "{}", outcome.text());
    let lines = steps(&mini);
    let overflows = lines.last().unwrap()["overflows"].as_u64().unwrap();
    assert!(overflows >= 2 && overflows < lines.len() as u64, "{overflows}");
}

#[test]
fn products_by_the_instruction_for_bf16_train_to_nearly_the_same_losses() {
    let losses = |by_instruction: &str| {
        let mini = Mini::packed();
        let arguments = ["--stop-stage", "train", "--set", "train.precision=bf16"];
        let output = mini.command("run", &arguments).env("FLOWMILL_BF16_PRODUCTS", by_instruction).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        steps(&mini).iter().map(|line| line["loss"].as_f64().unwrap()).collect::<Vec<f64>>()
    };
    let (without, with) = (losses("no"), losses("yes"));
    assert_eq!(with, losses("yes"), "the same bytes each time");
    for (without, with) in without.iter().zip(&with) {
        assert!((without - with).abs() < 0.01 * without, "{without} and {with}");
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw") {
        assert_ne!(without, with, "the instruction sums up in another order");
    }
}

#[test]
fn killed_while_the_scale_moves_the_files_are_those_of_an_undisturbed_run() {
    let mut random = Random::announced("precision");
    let arguments = [&LIVELY[..], &DROPOUT, &["--set", "train.ema_decay=0.9", "--set", "train.accum_grad=2"]].concat();
    let arguments = [&arguments[..], &["--set", "train.save_every=2"]].concat();
    let undisturbed = Mini::packed();
    let took = train(&undisturbed, &arguments).expect_code(0).took;
    let expected = Tree::of(&undisturbed.exp("4-train"));
    let mut landed = 0;
    for _ in 0..30 {
        if landed >= 3 {
            break;
        }
        let mini = Mini::packed();
        let all = [&["--stop-stage", "train"], &arguments[..]].concat();
        let mut process = mini.command("run", &all).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_secs_f64(took.as_secs_f64() * random.unit()));
        landed += usize::from(process.try_wait().unwrap().is_none());
        // The process is this test's own child; on this system `kill` sends SIGKILL.
        let _already_gone = process.kill();
        process.wait().unwrap();
        train(&mini, &arguments).expect_code(0);
        Tree::of(&mini.exp("4-train")).expect_same_bytes(&expected, "killed and resumed");
    }
    assert!(landed >= 3, "only {landed} kills hit a running process");
}

#[test]
fn at_the_floor_training_stops_and_says_what_to_do() {
    let mini = Mini::packed();
    let floor = ["--set", "train.loss_scale.floor=16777216"];
    let stopped = train(&mini, &[&LIVELY[..], &floor].concat()).expect_code(1);
    stopped.expect_words(&["16777216", "precision: bf16", "train"]);
}

#[test]
fn settings_that_cannot_be_used_are_refused_by_name() {
    let mini = Mini::new();
    for (set, words) in [
        (&["train.precision=fp8"][..], &["train.precision", "fp8"][..]),
        (&["train.precision=bf16", "train.loss_scale.initial=1024"], &["train.loss_scale", "precision: fp16"]),
        (&["train.precision=fp16", "train.loss_scale.min=2"], &["train.loss_scale", "min"]),
        (&["train.precision=fp16", "train.loss_scale.floor=0"], &["train.loss_scale.floor", "positive"]),
        (&["train.precision=fp16", "train.loss_scale.initial=0.5"], &["train.loss_scale.initial", "floor 1"]),
        (&["train.precision=fp16", "train.loss_scale.window=0"], &["train.loss_scale.window", "1"]),
        (&["train.precision=fp16", "train.loss_scale.hysteresis=0"], &["train.loss_scale.hysteresis"]),
        (&["train.precision=fp16", "train.loss_scale.ceiling=100"], &["train.loss_scale.initial", "ceiling 100"]),
        (&["train.gradient_checkpointing=1"], &["train.gradient_checkpointing"]),
    ] {
        let arguments: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        mini.run(&arguments).expect_code(2).expect_words(words);
    }
    let path = mini.folder().to_str().unwrap();
    let show = ["recipe", "show", path, "--set", "train.precision=fp16", "--set", "train.loss_scale.dynamic=false"];
    crate::support::flowmill(mini.folder(), &show).expect_code(0).expect_words(&["hysteresis: 2", "dynamic: false"]);
}

#[test]
fn half_precision_can_be_tried_out() {
    let mini = Mini::packed();
    let wide = ["--set", "train.model.estimator.channels=[96]", "--set", "train.optim.lr=2e-3"];
    let tried =
        mini.flowmill("train", &[&["--overfit", "1", "--steps", "30"], &LIVELY[..], &wide].concat()).expect_code(0);
    tried.expect_words(&["fp16", "trainable"]);
}

/// The figure of a line of the plan, in bytes.
fn figure(outcome: &Outcome, name: &str) -> f64 {
    let line = outcome.stdout.lines().find(|line| line.trim_start().starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {}", outcome.stdout));
    let mut words = line.trim_start()[name.len()..].split_whitespace();
    let (number, unit) = (words.next().unwrap().parse::<f64>().unwrap(), words.next().unwrap());
    number
        * ["B", "kB", "MB", "GB"]
            .iter()
            .position(|known| *known == unit)
            .map_or(f64::NAN, |power| 1000f64.powi(power as i32))
}

#[test]
fn the_plan_measures_the_largest_batch_and_leaves_nothing() {
    let mini = Mini::packed();
    let before = mini.tree();
    let plan = |arguments: &[&str]| {
        mini.flowmill("train", &[&["--plan-memory", "--jobs", "1"], arguments].concat()).expect_code(0)
    };
    let wide = ["--set", "train.model.estimator.channels=[128]", "--set", "train.batch.max_frames_in_batch=4000"];
    let plain = plan(&wide).expect_words(&["utterances", "frames", "measured", "usable"]);
    assert!(before == mini.tree(), "nothing is written");
    let [peak, weights] = ["peak", "weights"].map(|name| figure(&plain, name));
    assert!(peak > 4.0 * weights && weights > 1e6, "{}", plain.stdout);
    assert!(
        (figure(&plain, "optimizer state") - 2.0 * weights).abs() < 0.05 * weights,
        "two moments: {}",
        plain.stdout
    );
    let kinds = [
        "weights",
        "gradients",
        "optimizer state",
        "program, data, waiting batches",
        "activations, work space",
        "utterances still to be read and kept",
    ];
    let sum: f64 = kinds.iter().map(|kind| figure(&plain, kind)).sum();
    assert!((sum - peak).abs() < 0.02 * peak, "the kinds add up: {}", plain.stdout);

    let checkpointed = plan(&[&wide[..], &["--set", "train.gradient_checkpointing=true"]].concat());
    let activations = |outcome: &Outcome| figure(outcome, "activations, work space");
    assert!(activations(&checkpointed) < activations(&plain), "{}{}", plain.stdout, checkpointed.stdout);
    let rounded = plan(&[&wide[..], &["--set", "train.precision=bf16", "--set", "train.ema_decay=0.9"]].concat());
    assert!(figure(&rounded, "rounded weights") == weights && figure(&rounded, "moving average") > 0.0);
    mini.flowmill("train", &["--plan-memory", "--overfit", "1"]).expect_code(2);
}

/// The peak memory of a process until it ended, in bytes.
fn peak_of(mut process: Child) -> f64 {
    let (status, mut peak) = (format!("/proc/{}/status", process.id()), 0.0);
    while process.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kilobytes) = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()) {
            peak = 1024.0 * kilobytes;
        }
        sleep(Duration::from_millis(2));
    }
    assert!(process.wait().unwrap().success());
    peak
}

/// Margin of a training above its plan: runs differ as their threads take turns, …
const MARGIN: f64 = 0.05;
/// … and `run` itself takes some bytes in addition to the training, to hash files and to keep receipts.
const RUNNER: f64 = 4e6;

#[test]
fn training_takes_no_more_memory_than_the_plan_says() {
    let mini = Mini::packed();
    for more in ["train.gradient_checkpointing=false", "train.gradient_checkpointing=true"] {
        let sets = ["train.model.estimator.channels=[128]", "train.max_steps=60", "train.save_every=20", more];
        let sets: Vec<&str> = sets.into_iter().flat_map(|set| ["--set", set]).chain(["--jobs", "2"]).collect();
        let plan = mini.flowmill("train", &[&["--plan-memory"], &sets[..]].concat()).expect_code(0);
        let mut training = mini.command("run", &[&["--stop-stage", "train"], &sets[..]].concat());
        let took = peak_of(training.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let planned = figure(&plan, "peak");
        println!("{more}: planned {planned}, took {took}");
        assert!(took < (1.0 + MARGIN) * planned + RUNNER, "{took} bytes, not {planned}: {}", plan.stdout);
        assert!(planned < 1.3 * took, "{took} bytes, not {planned}: {}", plan.stdout);
        std::fs::remove_dir_all(mini.exp("4-train")).unwrap();
    }
}
