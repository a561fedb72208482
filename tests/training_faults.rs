//! Faults of a training: signals, the end of its time, a full disk, non-finite losses; and its inspection afterwards.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::disk_full::{SmallDisk, fill};
use crate::support::training::{ENDLESS, Training, metrics};
use crate::support::{Mini, Verdict};

/// The checkpoints of a training that is not finished.
fn checkpoints(mini: &Mini) -> Vec<PathBuf> {
    let state = mini.exp("4-train/.staging/train/state");
    let entries = fs::read_dir(&state).map(|entries| entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>());
    let is_checkpoint = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("step-");
    let mut found: Vec<PathBuf> = entries.unwrap_or_default().into_iter().filter(is_checkpoint).collect();
    found.sort();
    found
}

#[test]
fn the_signal_of_slurm_saves_and_stops_even_when_it_insists() {
    let mini = Mini::packed();
    let mut training = Training::start(&mini, &ENDLESS).listening();
    training.ctl(&["status"]).expect_code(0);
    let id = Pid::from_child(training.process());
    kill_process(id, Signal::USR1).unwrap();
    // What Slurm sends when the time is over, perhaps while the checkpoint is being written.
    kill_process(id, Signal::TERM).unwrap();
    training.wait().expect_code(130).expect_words(&["interrupted"]);
    let saved = checkpoints(&mini);
    assert_eq!(saved.len(), 1, "{saved:?}");
    let again = Training::start(&mini, &ENDLESS).listening();
    again.ctl(&["quit"]).expect_code(0);
    let name = saved[0].file_name().unwrap().to_string_lossy().into_owned();
    again.wait().expect_code(130).expect_resumed().expect_words(&[&name]);
}

#[test]
fn the_time_limit_saves_and_stops_and_is_no_reason_to_begin_again() {
    let mini = Mini::packed();
    let limited = [&ENDLESS[..], &["--set", "train.max_seconds=1"]].concat();
    let ended = Training::start(&mini, &limited).wait().expect_code(130);
    ended.expect_words(&["max_seconds: 1 "]);
    assert_eq!(checkpoints(&mini).len(), 1);
    let more = [&ENDLESS[..], &["--set", "train.max_seconds=2", "--set", "train.num_workers=1"]].concat();
    Training::start(&mini, &more).wait().expect_code(130).expect_resumed();
}

/// A training that was stopped and has saved, and the name of its newest checkpoint.
fn stopped(mini: &Mini) -> String {
    let training = Training::start(mini, &ENDLESS).listening();
    training.ctl(&["quit"]).expect_code(0);
    training.wait().expect_code(130);
    checkpoints(mini).pop().unwrap().file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn other_settings_do_not_throw_an_interrupted_training_away() {
    let mini = Mini::packed();
    let name = stopped(&mini);
    let step: u64 = name[5..].parse().unwrap();
    let at = format!("interrupted at step {step} of 10000000");
    let state = |arguments: &[&str]| -> [String; 3] {
        let shown = mini.flowmill("status", &[&["--json"], &ENDLESS[..], arguments].concat()).expect_code(0).stdout;
        let stage = &serde_json::from_str::<Value>(&shown).unwrap()["stages"][4];
        let reason = &stage["reasons"][0];
        [&stage["state"], &reason["kind"], &reason["reason"]].map(|text| text.as_str().unwrap().to_owned())
    };
    let run = |arguments: &[&str]| mini.run(&[&["--stop-stage", "train"], &ENDLESS[..], arguments].concat());
    let before = mini.tree();

    let other = ["--set", "train.optim.lr=5e-4"];
    let copied = format!("copy {}", checkpoints(&mini)[0].display());
    run(&other).expect_error("would-lose", 2).expect_words(&[
        "4-train/train",
        &at,
        "train.optim.lr: 0.001 → 0.0005",
        "--exp DIR",
        "`name`",
        &copied,
        "train.init_from",
        "--force --stage 4-train",
    ]);
    let change = "train.optim.lr: 0.001 → 0.0005";
    run(&[&other[..], &["--dry-run"]].concat())
        .expect_code(0)
        .expect_verdict("4-train", Verdict::Refused)
        .expect_words(&[&at, change]);
    let [stage, kind, reason] = state(&other);
    assert_eq!([stage.as_str(), &kind], ["interrupted", "refused"]);
    assert!(reason.contains(&at) && reason.contains(change), "{reason}");

    let continues =
        |[stage, kind, reason]: [String; 3]| stage == "interrupted" && kind == "continues" && reason.contains(&at);
    run(&["--dry-run"]).expect_code(0).expect_verdict("4-train", Verdict::WouldRun).expect_words(&[&at]);
    assert!(continues(state(&[])));
    for free in
        ["max_seconds=9", "num_workers=1", "prefetch=1", "gradient_checkpointing=true", "log_every=5", "keep.last=1"]
    {
        assert!(continues(state(&["--set", &format!("train.{free}")])), "{free}");
    }
    mini.flowmill("status", &ENDLESS).expect_code(0).expect_words(&["interrupted", &at]);

    // What it reads counts as its settings do.
    let shard = mini.exp("3-pack/train/index.json");
    let content = fs::read(&shard).unwrap();
    let digests = mini.exp("3-pack/train/content.json");
    let of_content = fs::read(&digests).unwrap();
    // The same content in another file is the same.
    fs::write(&shard, [&content[..], b" "].concat()).unwrap();
    assert!(continues(state(&[])));
    fs::write(&digests, String::from_utf8_lossy(&of_content).replacen("\"mel\": \"", "\"mel\": \"0", 1)).unwrap();
    let said = mini.flowmill("status", &ENDLESS).expect_code(0);
    said.expect_words(&["interrupted", "3-pack/train/index.json"]);
    fs::write(&shard, content).unwrap();
    fs::write(&digests, of_content).unwrap();
    assert!(before.contents() == mini.tree().contents(), "nothing of all this changes anything");

    let forced = Training::start(&mini, &[&ENDLESS[..], &other, &["--stage", "train", "--force"]].concat()).listening();
    forced.ctl(&["quit"]).expect_code(0);
    let forced = forced.wait().expect_code(130).expect_words(&[&at]);
    assert!(!forced.has_resumed(), "{}", forced.text());
}

#[test]
fn a_training_that_is_asked_to_stop_says_what_it_does() {
    let mini = Mini::packed();
    // Steps so long that what is said is said before the end.
    let slow = ["train.model.estimator.channels=[128]", "train.model.estimator.num_mid_blocks=40"];
    let slow = [&ENDLESS[..], &["--set", slow[0], "--set", slow[1]]].concat();
    let mut training = Training::start(&mini, &slow).listening();
    training.ctl(&["status"]).expect_code(0);
    kill_process(Pid::from_child(training.process()), Signal::INT).unwrap();
    let ended =
        training.wait().expect_code(130).expect_words(&["saving and stopping after the present step; a second Ctrl-C"]);
    assert!(!ended.text().contains("when the running parts are done"), "{}", ended.text());
    assert_eq!(checkpoints(&mini).len(), 1);
}

#[test]
fn the_newest_checkpoint_is_evaluated_and_nothing_is_touched() {
    let mini = Mini::new();
    let refused = mini.flowmill("train", &["--eval"]).expect_code(1);
    refused.expect_words(&["0-prep", "--stop-stage pack"]);
    assert!(!mini.exp("").exists());
    mini.run(&["--stop-stage", "pack", "--quiet"]).expect_code(0);
    mini.flowmill("train", &["--eval"]).expect_code(1).expect_words(&["no sound checkpoint yet"]);
    mini.flowmill("train", &["--eval", "--steps", "3"]).expect_code(2).expect_words(&["--steps", "--eval"]);

    mini.run(&["--stop-stage", "train", "--quiet"]).expect_code(0);
    let before = mini.tree();
    let shown = mini.flowmill("train", &["--eval"]).expect_code(0).stdout;
    let shown: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    let figure = |name: &str| -> f64 {
        let line = shown.iter().find(|line| line[..line.len() - 1].join(" ") == name);
        line.and_then(|line| line.last()?.parse().ok()).unwrap_or_else(|| panic!("{name}: {shown:?}"))
    };
    let lines = metrics(&mini.exp("4-train/metrics.jsonl"));
    let last = lines.iter().rfind(|line| line["validation"].is_object()).unwrap();
    assert_eq!(figure("step"), last["step"].as_f64().unwrap());
    assert_eq!(figure("validation loss"), last["validation"]["loss"].as_f64().unwrap());
    for (name, part) in last["validation"]["parts"].as_object().unwrap() {
        assert_eq!(figure(name), part.as_f64().unwrap(), "{name}");
    }
    assert!(before == mini.tree());
}

/// A learning rate that ends in infinity.
const HUGE: [&str; 6] =
    ["--set", "train.optim.lr=1e30", "--set", "train.grad_clip=null", "--set", "train.max_skipped_in_a_row=2"];

#[test]
fn a_divergence_is_diagnosed_and_its_dump_replayed() {
    let mini = Mini::packed();
    let diverged = mini.run(&[&HUGE[..], &["--stop-stage", "train"]].concat()).expect_code(1);
    let diverged = diverged.expect_words(&["2 steps in a row", "step-000002.json"]);
    let diverged = diverged.expect_words(&["--exp DIR", "train.init_from", "--force", "flowmill ctl EXP lr RATE"]);
    let later = format!("and in {} once training is done", mini.exp("4-train/skipped/step-000002.json").display());
    let diverged = diverged.expect_words(&[&later]);
    let folder = mini.exp("4-train/.staging/train/state/skipped");
    let mut dumps: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    dumps.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    dumps.sort();
    assert_eq!(dumps.len(), 2, "{}", diverged.text());
    let before = mini.tree();
    for dump in &dumps {
        let dump = ["--replay", dump.to_str().unwrap()];
        let same = mini.flowmill("train", &[&dump[..], &HUGE].concat()).expect_code(0);
        let same = same.expect_words(&["NaN", "encoder_proj.weight"]);
        assert!(!same.stderr.contains("warning"), "{}", same.stderr);
        let other = mini.flowmill("train", &dump).expect_code(0);
        other.expect_words(&["differs from that of the dumped run"]);
    }
    assert!(before == mini.tree(), "nothing is written");

    let text = fs::read_to_string(&dumps[0]).unwrap();
    let mut dump: Value = serde_json::from_str(&text).unwrap();
    dump["gradient_norms"]["encoder_proj.bias"] = 0.5.into();
    fs::write(&dumps[0], dump.to_string()).unwrap();
    let arguments = [&["--replay", dumps[0].to_str().unwrap()][..], &HUGE].concat();
    mini.flowmill("train", &arguments).expect_code(1).expect_words(&["differs", "0.5"]);
    fs::write(&dumps[0], "{}").unwrap();
    mini.flowmill("train", &arguments).expect_code(1).expect_words(&["missing field"]);
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_checkpoints_and_nothing_else() {
    let settings = ["--set", "train.max_steps=400", "--set", "train.save_every=20", "--set", "train.validate_every=0"];
    let expected = Mini::packed();
    Training::start(&expected, &settings).wait().expect_code(0);
    let mini = Mini::new();
    let exp = mini.path("exp");
    let _disk = match SmallDisk::mount(&exp, "20m") {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: a small disk cannot be mounted here ({reason})"),
    };
    mini.run(&["--stop-stage", "pack", "--quiet"]).expect_code(0);
    let training = Training::start(&mini, &settings).listening();
    let step = || -> u64 {
        let status = training.ctl(&["status"]).expect_code(0).stdout;
        status.trim_start_matches("step ").split(':').next().unwrap().parse().unwrap_or_else(|_| panic!("{status}"))
    };
    while checkpoints(&mini).is_empty() {
        step();
    }
    fill(&exp.join("ballast"));
    let full_since = step();
    while step() < full_since + 45 {}
    let newest = checkpoints(&mini).pop().unwrap();
    let saved: u64 = newest.file_name().unwrap().to_string_lossy()[5..].parse().unwrap();
    assert!(saved <= full_since + 20, "the full disk took another checkpoint: {saved}, full since {full_since}");
    assert!(newest.join("checksums.b3").exists(), "the old one stays");
    fs::remove_file(exp.join("ballast")).unwrap();
    let ended = training.wait().expect_code(0);
    ended.expect_words(&["WARNING: the disk is full"]);
    for file in ["checkpoints/step-000400/model.safetensors", "metrics.jsonl"] {
        let read = |mini: &Mini| fs::read(mini.exp("4-train").join(file)).unwrap();
        assert!(read(&mini) == read(&expected), "{file}");
    }
}
