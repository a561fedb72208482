//! Steering a training while it runs: by `flowmill ctl`, at a terminal, by signals, and by what must not be read as a command.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::training::{ENDLESS, PATIENCE, Training, metrics};
use crate::support::{Mini, Tree, flowmill};

/// The step that an answer begins with.
fn step(answer: &str) -> u64 {
    let rest = answer.strip_prefix("step ").unwrap_or_else(|| panic!("{answer}"));
    rest.split(':').next().unwrap().parse().unwrap_or_else(|_| panic!("{answer}"))
}

fn checkpoint(mini: &Mini, step: u64) -> std::path::PathBuf {
    mini.exp(&format!("4-train/.staging/train/state/step-{step:06}"))
}

/// Waits until the metrics of a running training have this number of lines.
fn wait_for_lines(mini: &Mini, lines: usize) {
    let path = mini.exp("4-train/.staging/train/state/metrics.jsonl");
    let began = std::time::Instant::now();
    while fs::read_to_string(&path).map_or(0, |text| text.lines().count()) < lines {
        assert!(began.elapsed() < PATIENCE, "it does not come to {lines} lines");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[test]
fn every_command_is_acknowledged_and_a_bad_one_kills_nothing() {
    let mini = Mini::packed();
    let training = Training::start(&mini, &ENDLESS).listening();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&training.socket()), mode(training.socket().parent().unwrap())), (0o600, 0o700));

    let status = training.ctl(&["status"]).expect_code(0).expect_words(&["of 10000000", "loss", "lr 1.000e-3", "left"]);
    let first = step(&status.stdout);
    let saved = training.ctl(&["save"]).expect_code(0).expect_words(&["saved step-"]);
    let saved = step(&saved.stdout);
    assert!(saved > first);
    assert!(checkpoint(&mini, saved).join("state.json").exists());
    training.ctl(&["eval"]).expect_code(0).expect_words(&["loss ", ", cfm "]);

    let sampled = training.ctl(&["sample"]).expect_code(0).expect_words(&["wrote "]);
    let samples = mini.exp(&format!("on-command/samples/step-{:06}", step(&sampled.stdout)));
    assert_eq!(fs::read_dir(samples).unwrap().count(), 4, "two utterances to hear and to see");
    let exported = training.ctl(&["export"]).expect_code(0).expect_words(&["wrote "]);
    let model = mini.exp(&format!("on-command/export/step-{:06}", step(&exported.stdout)));
    let (model, sound) = (model.to_str().unwrap(), mini.recording("1688-142285-0002"));
    let synth = ["synth", "--model", model, "--wav", sound.to_str().unwrap(), "--steps", "2"];
    flowmill(mini.folder(), &synth).expect_code(0).expect_words(&["1688-142285-0002.wav"]);

    training.ctl(&["sav"]).expect_code(2).expect_words(&["`save`"]);
    training.ctl(&["lr", "fast"]).expect_code(2).expect_words(&["`fast`", "lr 1e-4"]);
    training.ctl(&["lr@60", "1e-4"]).expect_code(2).expect_words(&["`lr 1e-4@60`"]);
    training.ctl(&["save@1"]).expect_code(1).expect_words(&["step 1 "]);
    training.ctl(&["save@10000001"]).expect_code(1).expect_words(&["10000000"]);
    training.ctl(&["loss-scale", "1024"]).expect_code(1).expect_words(&["fp32"]);
    // Past the client's own check.
    let mut raw = std::os::unix::net::UnixStream::connect(training.socket()).unwrap();
    raw.write_all(b"rm -rf \x1b[31m\nlr\n").unwrap();
    raw.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = String::new();
    raw.read_to_string(&mut answers).unwrap();
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|answer| answer["done"] == false), "{answers:?}");

    let changed = training.ctl(&["lr", "1e-4"]).expect_code(0).expect_words(&["0.0001"]);
    let changed = step(&changed.stdout);
    training.ctl(&["status"]).expect_code(0).expect_words(&["lr 1.000e-4"]);
    let later = changed + 40;
    let noted = training.ctl(&[&format!("save@{later}")]).expect_code(0);
    noted.expect_words(&["`save`", &format!("step {later}")]);
    while step(&training.ctl(&["status"]).stdout) <= later {}
    assert!(checkpoint(&mini, later).exists());

    let quit = training.ctl(&["quit"]).expect_code(0).expect_words(&["saved step-"]);
    let quit = step(&quit.stdout);
    let ended = training.wait().expect_code(130);
    ended.expect_words(&["lr 1e-4: step", "rm -rf \\u{1b}[31m: ", "`rm`", &format!("save@{later}: ")]);
    assert!(checkpoint(&mini, quit).exists() && !mini.exp(".control").exists());
    let state: Value = serde_json::from_slice(&fs::read(checkpoint(&mini, quit).join("state.json")).unwrap()).unwrap();
    assert_eq!((&state["lr"], &state["scheduled"]), (&Value::from("0.0001"), &Value::from(false)));
    let lines = metrics(&mini.exp("4-train/.staging/train/state/metrics.jsonl"));
    let said = lines.iter().find(|line| line["command"] == "lr 0.0001").expect("a line about the change");
    assert_eq!(said["step"], changed);
    let trained = lines.iter().filter(|line| line["loss"].is_number());
    for line in trained {
        let expected = if line["step"].as_u64().unwrap() > changed { 1e-4 } else { 1e-3 };
        assert_eq!(line["lr"], expected, "{line}");
    }

    let again = Training::start(&mini, &ENDLESS).listening();
    let status = again.ctl(&["status"]).expect_code(0).expect_words(&["lr 1.000e-4"]);
    assert!(step(&status.stdout) > quit, "it goes on");
    again.ctl(&["quit"]).expect_code(0);
    again.wait().expect_code(130).expect_resumed();
}

#[test]
fn what_was_saved_by_command_stays_until_the_schedule_saves_again() {
    let settings = ["--set", "train.max_steps=600", "--set", "train.save_every=550", "--set", "train.validate_every=0"];
    let mini = Mini::packed();
    Training::start(&mini, &settings).wait().expect_code(0);
    let expected = Tree::of(&mini.exp("4-train"));
    fs::remove_dir_all(mini.exp("4-train")).unwrap();

    let first = Training::start(&mini, &settings).listening();
    for command in ["save@511", "save@512", "save@513", "quit@514", "quit@580"] {
        first.ctl(&[command]).expect_code(0);
    }
    first.wait().expect_code(130);
    let there = |steps: &[u64]| steps.iter().all(|step| checkpoint(&mini, *step).join("state.json").exists());
    assert!(there(&[511, 512, 513, 514]));
    Training::start(&mini, &settings).wait().expect_code(130).expect_resumed_from(514);
    assert!(there(&[550, 580]));
    assert!([511, 512, 513, 514].iter().all(|step| !checkpoint(&mini, *step).exists()));
    Training::start(&mini, &settings).wait().expect_code(0);
    Tree::of(&mini.exp("4-train")).expect_same_bytes(&expected, "with checkpoints by command");
}

#[test]
fn a_changed_rate_is_followed_again_after_a_kill_to_the_same_bytes() {
    let settings = ["--set", "train.max_steps=300", "--set", "train.save_every=25", "--set", "train.validate_every=0"];
    let mini = Mini::packed();
    let command = ["lr", "1e-5@200"];
    let whole = Training::start(&mini, &settings).listening();
    whole.ctl(&command).expect_code(0);
    whole.wait().expect_code(0);
    let expected = mini.tree();
    let kept = fs::read_to_string(mini.exp("4-train/commands.jsonl")).unwrap();
    assert_eq!(kept, "{\"step\":200,\"lr\":\"1e-5\"}\n");
    let rates: Vec<f64> =
        metrics(&mini.exp("4-train/metrics.jsonl")).iter().filter_map(|line| line["lr"].as_f64()).collect();
    assert_eq!(rates.iter().filter(|rate| **rate == 1e-5).count(), 100);

    fs::remove_dir_all(mini.exp("4-train")).unwrap();
    let killed = Training::start(&mini, &settings).listening();
    killed.ctl(&command).expect_code(0);
    killed.kill();
    let again = Training::start(&mini, &settings);
    again.wait().expect_code(0);
    mini.tree().expect_same_bytes(&expected, "killed after the command and resumed");
}

#[test]
fn commands_put_off_are_carried_out_once_by_whichever_process_gets_there() {
    let settings = ["--set", "train.max_steps=600", "--set", "train.save_every=25", "--set", "train.validate_every=0"];
    let mini = Mini::packed();
    Training::start(&mini, &settings).wait().expect_code(0);
    let expected = Tree::of(&mini.exp("4-train"));

    fs::remove_dir_all(mini.exp("4-train")).unwrap();
    let killed = Training::start(&mini, &settings).listening();
    let commands = ["save@510", "export@511", "sample@512", "eval@525", "status@526", "quit@540", "save@555"];
    for command in commands {
        killed.ctl(&[command]).expect_code(0).expect_words(&["after step"]);
    }
    killed.kill();

    let again = Training::start(&mini, &settings).wait().expect_code(130);
    let found = format!(": {}", commands.join(", "));
    again.expect_words(&[
        &found,
        "save@510: step 510: saved step-000510",
        "export@511: step 511: wrote",
        "sample@512: step 512: wrote",
        "eval@525: step 525: ",
        "status@526: step 526: of 600",
        "quit@540: step 540: saved step-000540",
    ]);
    assert!(checkpoint(&mini, 540).exists() && !checkpoint(&mini, 555).exists());
    for made in ["export/step-000511/model.safetensors", "samples/step-000512"] {
        assert!(mini.exp("on-command").join(made).exists(), "{made}");
    }

    fs::remove_dir_all(mini.exp("on-command")).unwrap();
    let last = Training::start(&mini, &settings).wait().expect_code(0);
    let last = last.expect_words(&[": save@555\n", "save@555: step 555: saved"]);
    assert!(!last.text().contains("quit@") && !mini.exp("on-command").exists(), "{}", last.text());
    Tree::of(&mini.exp("4-train")).expect_same_bytes(&expected, "with commands, a kill and a stop");
}

#[test]
fn the_loss_scale_of_half_precision_is_set_and_kept() {
    let mini = Mini::packed();
    let settings = [&ENDLESS[..], &["--set", "train.precision=fp16"]].concat();
    let training = Training::start(&mini, &settings).listening();
    training.ctl(&["loss-scale", "0.25"]).expect_code(1).expect_words(&["0.25", "1"]);
    training.ctl(&["loss-scale", "1024"]).expect_code(0).expect_words(&["1024", "65536"]);
    training.ctl(&["quit"]).expect_code(0);
    training.wait().expect_code(130);
    let state = mini.exp("4-train/.staging/train/state");
    let kept = fs::read_to_string(state.join("commands.jsonl")).unwrap();
    assert!(kept.ends_with(",\"loss_scale\":\"1024\"}\n"), "{kept}");
    let lines = metrics(&state.join("metrics.jsonl"));
    assert!(lines.iter().any(|line| line["command"] == "loss-scale 1024"));
    assert_eq!(lines.iter().rev().find(|line| line["loss"].is_number()).unwrap()["loss_scale"], 1024.0);
}

/// Samples, histograms and a Weights & Biases run, all at once: killed, resumed, and the same bytes.
#[test]
fn everything_to_watch_is_the_same_after_a_kill() {
    let settings: Vec<&str> = [
        "train.max_steps=120",
        "train.save_every=7",
        "train.validate_every=5",
        "train.sample_every=9",
        "train.sample_count=1",
        "train.log_gradients=4",
        "train.ema_decay=0.9",
        "train.wandb.project=speech",
    ]
    .into_iter()
    .flat_map(|set| ["--set", set])
    .collect();
    let mini = Mini::packed();
    Training::start(&mini, &settings).wait().expect_code(0);
    let expected = mini.tree();
    let runs = mini.files_ending(".wandb");
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(&fs::read(mini.exp(runs[0].to_str().unwrap())).unwrap()[..7], b":W&B\xe1\xbe\0");
    assert_eq!(mini.files_ending(".wav").len(), 13, "after steps 9, 18 … 117");
    for _ in 0..3 {
        fs::remove_dir_all(mini.exp("4-train")).unwrap();
        for steps in [13, 45] {
            let killed = Training::start(&mini, &settings).listening();
            wait_for_lines(&mini, steps);
            killed.kill();
        }
        Training::start(&mini, &settings).wait().expect_code(0);
        mini.tree().expect_same_bytes(&expected, "killed twice and resumed");
    }
    let refused = |set: &str, words: &[&str]| {
        mini.run(&["--set", set]).expect_code(2).expect_words(words);
    };
    refused("train.wandb.project=a/b", &["train.wandb.project", "without /"]);
    refused("train.wandb={name: x}", &["project"]);
    refused("train.sample_count=0", &["train.sample_count", "between 1 and"]);
}

#[test]
fn what_is_no_terminal_is_never_read_as_commands() {
    let mini = Mini::packed();
    let short = ["--set", "train.max_steps=30"];
    let mut piped = Training::start_with(&mini, &short, Stdio::piped());
    piped.process().stdin.take().unwrap().write_all(b"quit\nquit\n").unwrap();
    piped.wait().expect_code(0).expect_words(&["4-train: done"]);

    // Closed, not even /dev/null.
    fs::remove_dir_all(mini.exp("4-train")).unwrap();
    let binary = env!("CARGO_BIN_EXE_flowmill");
    let closed = format!("exec '{binary}' run . --stop-stage train --set train.max_steps=30 <&-");
    let output = Command::new("sh").args(["-c", &closed]).current_dir(mini.folder()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_typed_on_a_terminal_is_a_command() {
    let mini = Mini::packed();
    let binary = env!("CARGO_BIN_EXE_flowmill");
    let line = format!("'{binary}' run . --stop-stage train {}", ENDLESS.join(" "));
    // `script` gives it a terminal, types what it is given, and passes on what is shown.
    let mut script = Command::new("script");
    script.env("TERM", "xterm");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(mini.folder());
    let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let began = std::time::Instant::now();
    while !mini.exp(".control/socket").exists() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let mut keys = script.stdin.take().unwrap();
    keys.write_all(b"statsu\n\nlr 3e-4\n").unwrap();
    // Long enough for the figures under the bar.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    keys.write_all(b"quit\n").unwrap();
    let output = script.wait_with_output().unwrap();
    drop(keys);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{shown}");
    let figures = ["loss ", "lr 3.00e-4", "gradient ", "samples/s", "frames/s", "data wait", " MB", "steps, ", " left"];
    let said = ["did you mean `status`?", "0.0003"];
    for words in figures.iter().chain(&said) {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

#[test]
fn a_signal_stops_a_steered_run_in_good_order() {
    let mini = Mini::packed();
    let mut training = Training::start(&mini, &ENDLESS).listening();
    training.ctl(&["lr", "2e-4"]).expect_code(0);
    let id = Pid::from_child(training.process());
    kill_process(id, Signal::TERM).unwrap();
    training.wait().expect_code(130);
    assert!(!mini.exp(".control").exists());
    let refused = flowmill(mini.folder(), &["ctl", ".", "status"]).expect_code(1);
    refused.expect_words(&["training"]);
    flowmill(mini.folder(), &["ctl", "nowhere", "status"]).expect_code(2).expect_words(&["nowhere"]);
    flowmill(mini.folder(), &["ctl", "."]).expect_code(2);
}
