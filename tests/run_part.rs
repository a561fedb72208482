//! Several processes on one experiment: each does a part under a lock of its own, and a run finishes the stages.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::errno::failing;
use crate::support::flowmill::{finish, host, outcome};
use crate::support::gated::{Gated, PIPES, wait_until};
use crate::support::training::Training;
use crate::support::{Mini, Outcome, Tree};

const ENOLCK: i32 = 37;

/// Does a part and waits for its end.
fn run_part(mini: &Mini, stage: &str, key: &str, more: &[&str]) -> Outcome {
    mini.flowmill("run-part", &[&[stage, key], more].concat())
}

/// Starts a process on a part, whose output can be read later.
fn start(mini: &Mini, stage: &str, key: &str, more: &[&str]) -> Child {
    let mut command = mini.command("run-part", &[&[stage, key], more].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The keys of the parts that can be done.
fn parts(mini: &Mini, stage: &str, more: &[&str]) -> Vec<String> {
    let printed = mini.flowmill("parts", &[&[stage], more].concat()).expect_code(0);
    printed.stdout.lines().map(str::to_owned).collect()
}

/// Returns the output of `parts --json`.
fn parts_json(mini: &Mini, stage: &str, more: &[&str]) -> Value {
    let printed = mini.flowmill("parts", &[&[stage, "--json"], more].concat()).expect_code(0);
    serde_json::from_str(&printed.stdout).unwrap()
}

/// Finishes one stage.
fn close(mini: &Mini, stage: &str, more: &[&str]) -> Outcome {
    mini.run(&[&["--stage", stage, "--stop-stage", stage], more].concat())
}

/// The files of an experiment without what waits for a later run.
fn results(mini: &Mini) -> BTreeMap<PathBuf, blake3::Hash> {
    let waits = |path: &Path| path.components().any(|name| name.as_os_str() == ".staging");
    let tree = mini.tree();
    let contents = tree.contents().into_iter().filter(|(path, _)| !waits(path));
    contents.map(|(path, hash)| (path.to_owned(), hash)).collect()
}

#[test]
fn four_processes_do_stages_0_to_3_as_one_run_does() {
    let set = ["--set", "prep.part_size=2", "--set", "pack.utterances_per_shard=2"];
    let mini = Mini::new();
    let mut phases = Vec::new();
    for stage in ["0", "1", "2", "3"] {
        loop {
            let keys = parts(&mini, stage, &set);
            if keys.is_empty() {
                break;
            }
            assert!(phases.len() < 40, "no end: {keys:?}");
            phases.push(keys.len());
            scope(|scope| {
                for process in 0..4 {
                    let (keys, mini, set) = (&keys, &mini, &set);
                    scope.spawn(move || {
                        for at in 0..keys.len() {
                            let key = &keys[(at + process * keys.len() / 4) % keys.len()];
                            let done = run_part(mini, stage, key, set).expect_no_panic();
                            if done.code != Some(0) {
                                done.expect_error("part-locked", 1);
                            }
                        }
                    });
                }
            });
        }
        close(&mini, stage, &set).expect_code(0).expect_nothing_to_do();
    }
    println!("parts of each phase: {phases:?}");
    assert!(phases.iter().filter(|parts| **parts >= 4).count() >= 4, "{phases:?}");
    let alone = Mini::new();
    alone.run(&[&set[..], &["--stop-stage", "3"]].concat()).expect_code(0);
    mini.tree().expect_same_bytes(&alone.tree(), "four processes against one run");
    let status = mini.flowmill("status", &[&set[..], &["--json"]].concat()).expect_code(0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert!(status["stages"].as_array().unwrap().iter().take(4).all(|stage| stage["state"] == "done"), "{status}");
}

/// Starts a process on a part of stage 0 and waits until it is in the middle of it.
fn start_gated(gated: &Gated, key: &str) -> Child {
    let before = gated.reached();
    // One thread, which stops at the first recording.
    let process = start(&gated.mini, "0", key, &[&PIPES[..], &["--jobs", "1"]].concat());
    wait_until("a process is in the middle of its part", || gated.reached() > before);
    process
}

#[test]
fn a_part_is_done_by_one_process_at_a_time_and_by_another_when_that_is_killed() {
    let gated = Gated::new();
    let mini = &gated.mini;
    assert_eq!(parts(mini, "0", &PIPES), ["read"]);
    run_part(mini, "0", "read", &PIPES).expect_code(0).expect_words(&["0-prep/read: done", "12 rows in"]);
    run_part(mini, "0", "read", &PIPES).expect_code(0).expect_words(&["0-prep/read: up to date"]);
    let keys = parts(mini, "0", &PIPES);
    assert!(keys.len() >= 3, "{keys:?}");
    let (mut first, second) = (start_gated(&gated, &keys[0]), start_gated(&gated, &keys[1]));

    // Both are in the middle of their parts.
    let by = format!("process {}", first.id());
    run_part(mini, "0", &keys[0], &PIPES).expect_error("part-locked", 1).expect_words(&[&by, "run-part", &keys[0]]);
    close(mini, "0", &PIPES).expect_error("locked", 1).expect_words(&["run-part"]);
    mini.flowmill("clean", &["--yes"]).expect_error("locked", 1);
    let open = parts_json(mini, "0", &PIPES);
    let running = |at: usize| open["parts"][at]["running"]["pid"].as_u64();
    assert_eq!((running(0), running(1), running(2)), (Some(first.id().into()), Some(second.id().into()), None));
    assert_eq!((&open["phase"], &open["parts"][0]["reasons"][0]), (&"probe".into(), &"never run".into()));
    assert!(mini.flowmill("status", &["--json"]).expect_code(0).stdout.contains("run-part"));

    // What cannot be done now.
    let unknown = run_part(mini, "0", "train/part-99999", &PIPES).expect_error("no-such-part", 2);
    unknown.expect_words(&["train/part-99999", &keys[0], &keys[2], "probe"]);
    run_part(mini, "0", "no key%", &PIPES).expect_error("usage", 2);
    run_part(mini, "1", "fit", &PIPES).expect_error("not-finished", 2).expect_words(&["0-prep"]);
    mini.flowmill("parts", &["1"]).expect_error("not-finished", 2);

    first.kill().unwrap();
    first.wait().unwrap();
    let third = start_gated(&gated, &keys[0]);
    let run = mini.command("run", &[&["--stop-stage", "0", "--wait"], &PIPES[..]].concat());
    let run = { run }.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    sleep(Duration::from_millis(300));
    assert!(!mini.exp("0-prep/receipts").join(format!("{}.json", keys[2])).exists(), "the run waits");
    gated.open();
    finish(third).expect_code(0).expect_words(&["the last run died", &by, ": done"]);
    finish(second).expect_code(0).expect_words(&[": done"]);
    // It does what is left, and finishes the stage.
    finish(run)
        .expect_code(0)
        .expect_words(&["waiting for another run", &format!("probe: {} of {}", keys.len() - 2, keys.len())]);

    let alone = mini.path("exp/alone");
    mini.run(&[&["--stop-stage", "0", "--exp", alone.to_str().unwrap()], &PIPES[..]].concat()).expect_code(0);
    mini.tree().expect_same_bytes(&Tree::of(&alone), "after a kill");
    let journal = fs::read_to_string(mini.exp("journal.jsonl")).unwrap();
    assert_eq!(journal.matches("\"outcome\":\"died\"").count(), 1, "{journal}");
}

#[test]
fn a_run_finds_the_lock_of_a_part_whose_process_died() {
    let gated = Gated::new();
    let mini = &gated.mini;
    run_part(mini, "0", "read", &PIPES).expect_code(0);
    let key = parts(mini, "0", &PIPES).remove(0);
    let mut process = start_gated(&gated, &key);
    let lock = mini.exp(&format!(".lock-part-0-prep%{}", key.replace('/', "%")));
    assert!(lock.exists());
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(lock.exists(), "nobody has removed it");
    assert!(mini.status()["running"].is_null());
    gated.open();
    close(mini, "0", &PIPES).expect_code(0).expect_words(&["the last run died", "run-part"]);
    assert!(!lock.exists());
}

#[test]
fn without_locks_files_stand_for_those_of_parts() {
    let mini = Mini::new();
    let part = |key: &str, more: &[&str]| {
        failing(mini.command("run-part", &[&["0", key], more].concat()), mini.folder(), &[("flock", ENOLCK)])
    };
    let run = |more: &[&str]| {
        failing(mini.command("run", &[&["--stop-stage", "0"], more].concat()), mini.folder(), &[("flock", ENOLCK)])
    };
    let Some(done) = part("read", &[]) else { return };
    done.expect_code(0).expect_words(&["flock"]);
    let key = parts(&mini, "0", &[]).remove(0);
    let name = format!("0-prep%{}", key.replace('/', "%"));
    let (lock, stand_in) = (mini.exp(&format!(".lock-part-{name}")), mini.exp(&format!(".lock-holder-part-{name}")));
    let host = host();
    for (pid, on, free) in
        [(1, "elsewhere", false), (std::process::id(), host.as_str(), false), (u32::MAX / 2, host.as_str(), true)]
    {
        let holder =
            format!(r#"{{"pid":{pid},"host":"{on}","command":"flowmill run-part","start":"2024-01-01T00:00:00Z"}}"#);
        fs::write(&lock, "").unwrap();
        fs::write(&stand_in, &holder).unwrap();
        if free {
            part(&key, &[]).unwrap().expect_code(0).expect_words(&["the last run died", ": done"]);
        } else {
            let who = format!("process {pid} on {on}");
            let file = stand_in.to_str().unwrap();
            part(&key, &[]).unwrap().expect_error("part-locked", 1).expect_words(&[&who, file]);
            run(&[]).unwrap().expect_error("locked", 1).expect_words(&[&who, file]);
            assert_eq!(fs::read_to_string(&stand_in).unwrap(), holder);
        }
    }
    assert!(!lock.exists() && !stand_in.exists(), "they go with the process");
    // A run excludes parts in the same way.
    let holder = r#"{"pid":1,"host":"elsewhere","command":"flowmill run","start":"2024-01-01T00:00:00Z"}"#;
    fs::write(mini.exp(".lock"), holder).unwrap();
    fs::write(mini.exp(".lock-holder"), holder).unwrap();
    part(&key, &[]).unwrap().expect_error("locked", 1).expect_words(&["process 1 on elsewhere"]);
    fs::remove_file(mini.exp(".lock-holder")).unwrap();
    run(&[]).unwrap().expect_code(0);
    let alone = Mini::new();
    alone.run(&["--stop-stage", "0"]).expect_code(0);
    mini.tree().expect_same_bytes(&alone.tree(), "without locks");
}

/// Does a part while files may not grow beyond a number of blocks of 512 bytes.
fn run_part_on_a_full_disk(mini: &Mini, key: &str, set: &[&str]) -> Outcome {
    let part = mini.command("run-part", &[&["3", key], set].concat());
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 2; exec \"$0\" \"$@\""]).arg(part.get_program()).args(part.get_args());
    command.current_dir(mini.folder()).env("NO_COLOR", "1").stdin(Stdio::null());
    let began = Instant::now();
    outcome(command.output().unwrap(), began.elapsed())
}

#[test]
fn parts_of_a_finished_stage_replace_its_result_as_a_whole_or_not_at_all() {
    let set = ["--set", "pack.utterances_per_shard=2"];
    let mini = Mini::packed();
    let before = results(&mini);
    let keys = parts(&mini, "3", &set);
    assert!(keys.len() >= 4, "{keys:?}");
    run_part_on_a_full_disk(&mini, &keys[1], &set).expect_error("disk-full", 1).expect_words(&[&keys[1]]);
    assert_eq!(results(&mini), before);
    assert_eq!(parts(&mini, "3", &set), keys);

    for key in &keys {
        run_part(&mini, "3", key, &set).expect_code(0).expect_words(&["done, and waits for the run"]);
        assert_eq!(results(&mini), before, "{key}");
    }
    run_part(&mini, "3", &keys[0], &set).expect_code(0).expect_words(&["done, and waits for the run"]);
    assert!(parts(&mini, "3", &set).is_empty());
    assert_eq!(parts_json(&mini, "3", &set)["waits_for_run"], true);
    let index = run_part(&mini, "3", "train/index", &set).expect_error("no-such-part", 2);
    index.expect_words(&["--stage 3-pack --stop-stage 3-pack"]);
    assert_eq!(results(&mini), before);
    // With the old setting nothing has changed.
    run_part(&mini, "3", &keys[0], &[]).expect_code(0).expect_words(&["up to date"]);

    let closed = close(&mini, "3", &set).expect_code(0);
    assert!(!closed.text().contains("  pack:"), "the shards are there: {}", closed.text());
    let alone = mini.copy_experiment("mini", "alone");
    fs::remove_dir_all(alone.join("3-pack")).unwrap();
    mini.run(&[&["--stop-stage", "3", "--exp", alone.to_str().unwrap()], &set[..]].concat()).expect_code(0);
    mini.tree().expect_same_bytes(&Tree::of(&alone), "after the result was replaced");
}

#[test]
fn rows_that_are_rejected_beyond_the_limit_fail_the_next_phase_and_the_run() {
    let mini = Mini::new();
    let text = fs::read_to_string(mini.path("data/text")).unwrap();
    let emptied: String = text
        .lines()
        .enumerate()
        .map(|(at, line)| match line.split_once(' ') {
            Some((id, _)) if at < 3 => format!("{id}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    fs::write(mini.path("data/text"), emptied).unwrap();
    run_part(&mini, "0", "read", &[]).expect_code(0).expect_words(&["3 rejected"]);
    let key = parts(&mini, "0", &[]).remove(0);
    run_part(&mini, "0", &key, &[]).expect_error("rejected", 1).expect_words(&["3 of 12"]);
    close(&mini, "0", &[]).expect_error("rejected", 1).expect_words(&["3 of 12"]);
    let allow = ["--set", "max_rejected=0.3"];
    run_part(&mini, "0", &key, &allow).expect_code(0);
    close(&mini, "0", &allow).expect_code(0).expect_words(&["9 out, 3 rejected"]);
    let alone = Mini::new();
    fs::copy(mini.path("data/text"), alone.path("data/text")).unwrap();
    close(&alone, "0", &allow).expect_code(0);
    mini.tree().expect_same_bytes(&alone.tree(), "with rejected rows");
}

#[test]
fn a_training_that_is_killed_is_continued_by_another_process() {
    let mini = Mini::packed();
    assert_eq!(parts(&mini, "4", &[]), ["train"]);
    let training = Training::of(&mini, start(&mini, "4", "train", &[])).listening();
    close(&mini, "4", &[]).expect_error("locked", 1).expect_words(&["run-part"]);
    run_part(&mini, "4", "train", &[]).expect_error("part-locked", 1);
    training.kill();
    run_part(&mini, "4", "train", &[]).expect_code(0).expect_words(&["the last run died", "4-train/train: done"]);
    close(&mini, "4", &[]).expect_code(0).expect_nothing_to_do();
    let alone = Mini::packed();
    alone.run(&["--stop-stage", "4"]).expect_code(0);
    mini.tree().expect_same_bytes(&alone.tree(), "a training in parts against a run");
}
