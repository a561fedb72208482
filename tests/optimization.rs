//! Every optimizer and every schedule from recipe keys, through the program.

use std::fs;

use serde_json::Value;

use crate::support::Mini;
use crate::support::training::metrics;

/// Trains from the start with `settings` and returns the lines of its metrics.
fn train(mini: &Mini, settings: &[&str]) -> Vec<Value> {
    if mini.exp("4-train").exists() {
        mini.forget_training();
    }
    let sets: Vec<&str> = settings.iter().flat_map(|set| ["--set", set]).collect();
    mini.run(&[&["--stop-stage", "train", "--quiet"], &sets[..]].concat()).expect_code(0);
    metrics(&mini.exp("4-train/metrics.jsonl"))
}

/// Trains with `settings` and gives the lines of the metrics that have losses.
fn trained(mini: &Mini, settings: &[&str]) -> Vec<Value> {
    let lines = train(mini, settings);
    lines.into_iter().filter(|line| line.get("loss").is_some()).collect()
}

fn rates(lines: &[Value]) -> Vec<f64> {
    lines.iter().map(|line| line["lr"].as_f64().unwrap()).collect()
}

/// Each with all of its settings, the same bytes on one thread and on two.
#[test]
fn every_optimizer_trains() {
    let mini = Mini::packed();
    let mut seen = Vec::new();
    for optim in [
        "{name: adam, lr: 1e-3, betas: [0.9, 0.99], eps: 1e-9, weight_decay: 0.01}",
        "{name: adamw, lr: 1e-3, weight_decay: 0.01, decay_matrices_only: true}",
        "{name: sgd, lr: 1e-2, momentum: 0.9, nesterov: true, dampening: 0, weight_decay: 1e-4}",
        "{name: adafactor, lr: 1e-2, decay_rate: -0.8, eps: 1e-7, parameter_eps: 1e-3, clip_threshold: 1}",
        "{name: prodigy, lr: 1, beta3: 0.99, d0: 1e-4, d_coef: 1, growth_rate: 2, bias_correction: true, safeguard_warmup: true}",
        "{name: muon, lr: 1e-3, momentum: 0.95, nesterov: true, ns_steps: 5, adjust_lr: match_rms_adamw, rest_lr_multiple: 0.5, \
         groups: [{pattern: 'input_embedding.*', muon: false}, {pattern: '*.bias', lr_multiple: 2, weight_decay: 0}]}",
    ] {
        let optim = format!("train.optim={optim}");
        let settings = [optim.as_str(), "train.grad_clip_value=0.5", "train.max_steps=6"];
        let lines = trained(&mini, &settings);
        assert!(lines.iter().all(|line| line["skipped"] == 0 && line["loss"].as_f64().unwrap() < 10.0), "{lines:?}");
        let weights =
            |mini: &Mini| fs::read(mini.exp("4-train/checkpoints/step-000006/optimizer.safetensors")).unwrap();
        let state = weights(&mini);
        let sets: Vec<&str> = settings.iter().flat_map(|set| ["--set", set]).collect();
        let once_more = ["--stop-stage", "train", "--quiet", "--force", "--stage", "train", "--jobs", "1"];
        mini.run(&[&once_more[..], &sets[..]].concat()).expect_code(0);
        assert!(state == weights(&mini), "{optim}: another number of threads, other bytes");
        assert!(!seen.contains(&state), "{optim} is like another one");
        seen.push(state);
    }
}

#[test]
fn every_schedule_gives_its_rates() {
    let mini = Mini::packed();
    let close = |found: &[f64], expected: &[f64], what: &str| {
        let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-9);
        assert!(near && found.len() >= expected.len(), "{what}: {found:?}, not {expected:?}");
    };
    let half = |step: f64| 0.5 * (1.0 + (std::f64::consts::PI * step).cos());
    let cases: [(&str, Vec<f64>); 10] = [
        ("{name: constant}", vec![1.0; 6]),
        ("{name: warmup_constant, warmup_steps: 4}", vec![0.0, 0.25, 0.5, 0.75, 1.0, 1.0]),
        ("{name: warmup_lr, warmup_steps: 4}", vec![0.25, 0.5, 0.75, 1.0, (0.8f64).sqrt()]),
        ("{name: warmup_inverse_sqrt, warmup_steps: 2, timescale: 3}", vec![0.0, 0.5, 1.0, (0.75f64).sqrt()]),
        ("{name: noam, warmup_steps: 4, model_width: 16}", vec![0.25 / 8.0, 0.5 / 8.0, 0.75 / 8.0, 1.0 / 8.0]),
        (
            "{name: noam_hold_annealing, warmup_steps: 1, hold_steps: 2, decay_rate: 1, final_lr: 0.0004}",
            vec![0.5, 1.0, 1.0, 1.0, 0.5, 0.4],
        ),
        ("{name: cosine, final_ratio: 0}", vec![1.0, half(1.0 / 6.0), half(2.0 / 6.0), 0.5]),
        ("{name: warmup_cosine, warmup_steps: 2, final_lr: 0.0001}", vec![0.1, 0.55, 1.0, 0.1 + 0.9 * half(0.25)]),
        ("{name: warmup_linear, warmup_steps: 2}", vec![0.0, 0.5, 1.0, 0.75, 0.5, 0.25]),
        ("{name: one_cycle, rise: 0.5, div_factor: 4, final_div_factor: 10}", vec![0.25, 0.625, 1.0]),
    ];
    for (schedule, expected) in cases {
        let schedule = format!("train.schedule={schedule}");
        let settings = [schedule.as_str(), "train.max_steps=6", "train.optim={lr: 1e-3}"];
        let found: Vec<f64> = rates(&trained(&mini, &settings)).iter().map(|rate| rate / 1e-3).collect();
        close(&found, &expected, &schedule);
    }
    let by_epoch = "train.schedule={name: warmup_linear, per: epoch, warmup_steps: 1}";
    let lines = trained(&mini, &[by_epoch, "train.max_steps=null", "train.max_epochs=3", "train.optim={lr: 1e-3}"]);
    for line in &lines {
        let expected = [0.0, 1e-3, 0.5e-3][line["epoch"].as_u64().unwrap() as usize];
        assert!((line["lr"].as_f64().unwrap() - expected).abs() < 1e-12, "{line}");
    }
    assert!(lines.len() >= 3);
}

#[test]
fn settings_of_another_optimizer_or_schedule_are_refused_with_their_line() {
    let mini = Mini::new();
    for (laid_over, key, words) in [
        ("{optim: {momentum: 0.9}}", "train.optim.momentum", "sgd, muon"),
        (
            "{optim: {name: sgd, betas: [0.9, 0.99]}}",
            "train.optim.betas",
            "optim.name is sgd: leave it out, or set optim.betas: null",
        ),
        ("{optim: {name: prodigy, ns_steps: 3}}", "train.optim.ns_steps", "muon"),
        ("{optim: {name: adam, eps: 0}}", "train.optim.eps", "positive"),
        ("{optim: {name: muon, adjust_lr: other}}", "train.optim.adjust_lr", "match_rms_adamw"),
        ("{optim: {name: adan}}", "train.optim.name", "adamw"),
        ("{optim: {groups: [{pattern: '*', muon: true}]}}", "train.optim.groups", "name: muon"),
        ("{schedule: {name: cosine, hold_steps: 3}}", "train.schedule.hold_steps", "schedule.name"),
        (
            "{schedule: {name: cosine, warmup_steps: 5}}",
            "train.schedule.warmup_steps",
            "warmup_cosine, warmup_linear; schedule.name is cosine",
        ),
        (
            "{schedule: {name: constant, warmup_steps: 0}}",
            "train.schedule.warmup_steps",
            "set schedule.warmup_steps: null",
        ),
        (
            "{schedule: {name: one_cycle, final_ratio: 0.1}}",
            "train.schedule.final_ratio",
            "cosine, warmup_cosine, noam_hold_annealing",
        ),
        ("{schedule: {name: cosine, final_lr: 1}}", "train.schedule.final_lr", "optim.lr"),
        ("{schedule: {per: week}}", "train.schedule.per", "epoch"),
        ("{prefetch: 1000000000000}", "train.prefetch", "0 to 1024"),
        ("{grad_clip_value: 0}", "train.grad_clip_value", "positive"),
        ("{optim: {learning_rate: 1}}", "train.optim.learning_rate", "lr"),
    ] {
        fs::write(mini.path("laid.yaml"), format!("name: laid\nbase: recipe.yaml\ntrain: {laid_over}\n")).unwrap();
        let said = crate::support::flowmill(mini.folder(), &["recipe", "check", "laid.yaml"]).expect_code(2);
        said.expect_words(&["laid.yaml:3", key, words]);
    }
}

/// A variant of a recipe takes another shape or optimizer by taking back what only the base's has.
#[test]
fn null_takes_back_what_a_base_recipe_gives() {
    let mini = Mini::new();
    let base = "name: below\nbase: recipe.yaml\ntrain:\n  optim: {betas: [0.9, 0.95], groups: [{pattern: 'encoder.*', frozen: true}]}\n  \
                schedule: {name: warmup_cosine, warmup_steps: 3, final_ratio: 0.5}\n";
    fs::write(mini.path("below.yaml"), base).unwrap();
    let shown = |command: &str, train: &str| {
        let laid = format!("name: laid\nbase: below.yaml\ntrain: {train}\n");
        fs::write(mini.path("laid.yaml"), laid).unwrap();
        crate::support::flowmill(mini.folder(), &["recipe", command, "laid.yaml"])
    };
    let refused = shown("check", "{schedule: {name: constant}}").expect_code(2);
    refused.expect_words(&["below.yaml:5", "train.schedule.warmup_steps", "schedule.warmup_steps: null"]);
    let all = "{optim: {name: adafactor, betas: null, groups: null}, mixture: null, schedule: {name: constant, warmup_steps: null, \
               final_ratio: null}}";
    shown("check", all).expect_code(0);
    let shown = shown("show", all).expect_code(0).expect_words(&["name: constant", "adafactor"]);
    for taken_back in ["betas", "pattern", "warmup_steps", "final_ratio"] {
        assert!(!shown.stdout.contains(taken_back), "{taken_back}: {}", shown.stdout);
    }
}

/// Averages of the weights are validated, and are in the checkpoint next to the weights.
#[test]
fn the_moving_average_is_validated_and_kept() {
    let mini = Mini::packed();
    let validations = |settings: &[&str]| {
        let lines = train(&mini, settings);
        let losses = |of: &str| lines.iter().filter_map(|line| line.pointer(of)?.as_f64()).collect::<Vec<f64>>();
        (losses("/loss"), losses("/validation/loss"))
    };
    let fast = "train.optim.lr=5e-3";
    let (plain, plain_validated) = validations(&[fast]);
    let (none, none_validated) = validations(&[fast, "train.ema_decay=0"]);
    let (slow, slow_validated) = validations(&[fast, "train.ema_decay=0.999999"]);
    assert_eq!((&plain, &plain), (&none, &slow), "an average does not disturb training");
    let near = plain_validated.iter().zip(&none_validated).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(near, "an average that forgets at once is the weights: {plain_validated:?} {none_validated:?}");
    assert!(slow_validated.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 1e-3), "{slow_validated:?}");
    assert!((plain_validated[0] - plain_validated.last().unwrap()).abs() > 1e-2, "{plain_validated:?}");
    let checkpoint = mini.exp("4-train/checkpoints/step-000012");
    let [weights, average] =
        ["model.safetensors", "ema.safetensors"].map(|file| fs::read(checkpoint.join(file)).unwrap());
    assert!(weights.len() == average.len() && weights != average);
}
