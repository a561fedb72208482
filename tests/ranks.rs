//! Training on several processes through the binary: `cargo test --release --workspace --features mpi --test ranks`.
//!
//! Needs the program `mpirun`; `scripts/check_ranks` installs it if it can. What does not need MPI is in `tests/launchers.rs`.

#![allow(dead_code, unused_imports, reason = "the helpers are those of all whole-program tests")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getuid, kill_process};
use safetensors::SafeTensors;
use serde_json::Value;
use support::flowmill::{Outcome, outcome};
use support::random::Random;
use support::training::{ENDLESS, PATIENCE, Training, metrics};
use support::{Mini, Tree, flowmill};

/// Within this time a dead rank must have ended the others.
const SOON: Duration = Duration::from_secs(10);

/// The settings of all these trainings: everything that has a state. Six batches of a step are whole ones on 2 and on 3 ranks. Batches that
/// are cut have other padding, which the encoder of this flow sees.
const SETTINGS: [&str; 4] =
    ["train.accum_grad=6", "train.ema_decay=0.9", "train.max_steps=12", "train.batch.max_frames_in_batch=600"];

/// Copies of one packed experiment.
struct Copies {
    mini: Mini,
}

impl Copies {
    fn new() -> Self {
        Self { mini: Mini::packed() }
    }

    fn copy(&self, name: &str) -> PathBuf {
        self.mini.copy_experiment("mini", name)
    }

    /// The arguments of a training on `ranks` processes, without a launcher if there is one.
    fn arguments(name: &str, ranks: usize, further: &[&str]) -> Vec<String> {
        let mut arguments = ["--stop-stage", "train", "--jobs", "1", "--exp"].map(str::to_owned).to_vec();
        arguments.push(format!("exp/{name}"));
        if ranks > 1 {
            arguments.extend(["--nproc".to_owned(), ranks.to_string()]);
        }
        let sets = SETTINGS.iter().chain(further);
        arguments.extend(sets.flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        arguments
    }

    fn command(&self, name: &str, ranks: usize, further: &[&str]) -> Command {
        let arguments = Self::arguments(name, ranks, further);
        self.mini.command("run", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Trains in a copy of its own, to the end.
    fn train(&self, name: &str, ranks: usize, further: &[&str]) -> PathBuf {
        let folder = self.copy(name);
        self.go_on(name, ranks, further).expect_code(0);
        folder
    }

    fn go_on(&self, name: &str, ranks: usize, further: &[&str]) -> Outcome {
        let started = Instant::now();
        let output = self.command(name, ranks, further).output().unwrap();
        outcome(output, started.elapsed()).expect_no_panic()
    }
}

/// Weights of the newest checkpoint.
fn weights(experiment: &Path) -> BTreeMap<String, Vec<f32>> {
    let checkpoints = fs::read_dir(experiment.join("4-train/checkpoints")).unwrap();
    let newest = checkpoints.map(|entry| entry.unwrap().path()).max().unwrap();
    let bytes = fs::read(newest.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    file.tensors().into_iter().map(|(name, tensor)| (name, values(tensor.data()))).collect()
}

/// The largest difference of weights.
fn distance(one: &Path, other: &Path) -> f32 {
    let (one, other) = (weights(one), weights(other));
    assert!(one.keys().eq(other.keys()));
    let pairs = one.values().flatten().zip(other.values().flatten());
    pairs.fold(0f32, |most, (one, other)| most.max((one - other).abs()))
}

#[test]
fn two_and_three_ranks_train_like_one() {
    let copies = Copies::new();
    // SGD: the update is proportional to the gradient, so that rounding stays rounding.
    let sgd = ["train.optim.name=sgd", "train.optim.lr=0.05"];
    let one = copies.train("one", 1, &sgd);
    let line = |experiment: &Path| metrics(&experiment.join("4-train/metrics.jsonl"));
    for ranks in [2, 3] {
        let many = copies.train(&format!("on-{ranks}"), ranks, &sgd);
        let found = distance(&one, &many);
        assert!(found < 1e-5, "{ranks} ranks: {found}");
        let (one, many) = (line(&one), line(&many));
        assert_eq!(one.len(), many.len());
        for (one, many) in one.iter().zip(&many) {
            for key in ["loss", "grad_norm"] {
                let (Some(a), Some(b)) = (one[key].as_f64(), many[key].as_f64()) else { continue };
                assert!((a - b).abs() <= 1e-4 * a.abs(), "{key}: {one} {many}");
            }
            assert_eq!((&one["step"], &one["epoch"], &one["lr"]), (&many["step"], &many["epoch"], &many["lr"]));
        }
    }
}

#[test]
fn two_runs_give_the_same_bytes_and_so_does_a_divided_optimizer() {
    let copies = Copies::new();
    let once = copies.train("once", 2, &[]);
    let twice = copies.train("twice", 2, &[]);
    Tree::of(&once).expect_same_bytes(&Tree::of(&twice), "two runs on two ranks");
    let divided = copies.train("divided", 2, &["train.zero=1"]);
    Tree::of(&once.join("4-train/checkpoints"))
        .expect_same_bytes(&Tree::of(&divided.join("4-train/checkpoints")), "zero 0 and 1");
}

#[test]
fn a_stopped_run_on_several_ranks_continues() {
    let copies = Copies::new();
    let folder = copies.copy("stopped");
    let further = ["train.max_seconds=1", "train.max_steps=100000"];
    copies.go_on("stopped", 2, &further).expect_code(130);
    assert!(!checkpoints(&folder).is_empty(), "it has saved");
    copies.go_on("stopped", 3, &further).expect_code(130).expect_resumed();
}

/// The checkpoints of a training that is not done.
fn checkpoints(experiment: &Path) -> Vec<PathBuf> {
    let state = experiment.join("4-train/.staging/train/state");
    let entries = fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-")))
        .collect();
    found.sort();
    found
}

/// The processes below one, by their number of ranks: `(rank, process)`.
fn ranks_below(launcher: u32) -> Vec<(usize, i32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let rank = variables.find_map(|variable| variable.strip_prefix("OMPI_COMM_WORLD_RANK=")?.parse().ok());
        if let Some(rank) = rank
            && descends_from(pid, launcher)
        {
            found.push((rank, pid));
        }
    }
    found.sort_unstable();
    found
}

/// Returns whether a process was started by another one, or by one that it has started.
fn descends_from(pid: i32, ancestor: u32) -> bool {
    let mut pid = pid;
    while pid > 1 {
        if u32::try_from(pid) == Ok(ancestor) {
            return true;
        }
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
        // The name, in parentheses, may contain anything.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        pid = after.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()).unwrap_or(0);
    }
    false
}

/// Trains on ranks and kills one of them after a while; returns whether it was still running then.
fn kill_one(copies: &Copies, name: &str, ranks: usize, further: &[&str], victim: usize, delay: Duration) -> bool {
    let mut run = copies.command(name, ranks, further);
    let mut process = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while process.try_wait().unwrap().is_none() && started.elapsed() < delay {
        sleep(Duration::from_millis(2));
    }
    let found = ranks_below(process.id()).into_iter().find(|(rank, _)| *rank == victim);
    let Some((_, pid)) = found else {
        // Not started yet, or done.
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return false;
    };
    let _ended = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
    let killed = Instant::now();
    let output = process.wait_with_output().unwrap();
    if output.status.success() {
        return false;
    }
    assert!(killed.elapsed() < SOON, "the others ended after {:?}", killed.elapsed());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(&format!("rank {victim}")), "{told}");
    true
}

/// Kills random ranks at random instants, each training as often as it takes to end.
fn killed(kills: usize) {
    let mut random = Random::announced("killed ranks");
    let copies = Copies::new();
    let further = ["train.max_steps=60", "train.save_every=5", "train.log_every=3"];
    let (ranks, started) = (2, Instant::now());
    let whole = copies.train("whole", ranks, &further);
    let took = started.elapsed();
    let (mut done, mut number) = (0, 0);
    while done < kills {
        let name = format!("killed-{number}");
        number += 1;
        let folder = copies.copy(&name);
        while done < kills {
            let delay = took.mul_f64(random.unit());
            let victim = (random.unit() * ranks as f64) as usize;
            if !kill_one(&copies, &name, ranks, &further, victim, delay) {
                break;
            }
            done += 1;
        }
        copies.go_on(&name, ranks, &further).expect_code(0);
        Tree::of(&whole).expect_same_bytes(&Tree::of(&folder), "killed and continued");
    }
}

#[test]
fn a_killed_rank_ends_the_others_and_the_next_run_continues_bit_for_bit() {
    killed(2);
}

#[test]
#[ignore = "minutes: 20 kills"]
fn twenty_kills() {
    killed(20);
}

/// Trains some steps on one number of ranks and the rest on another, for all pairs of `numbers`.
fn resumed_on_others(numbers: &[usize], batches: usize) {
    let copies = Copies::new();
    let batches = format!("train.accum_grad={batches}");
    let sgd = ["train.optim.name=sgd", "train.optim.lr=0.05", batches.as_str()];
    let alone = copies.train("alone", 1, &sgd);
    for &before in numbers {
        for &after in numbers {
            let name = format!("{before}-{after}");
            let folder = copies.copy(&name);
            copies.go_on(&name, before, &[&sgd[..], &["train.max_steps=8"]].concat()).expect_code(0);
            // A longer end extends the training.
            copies.go_on(&name, after, &sgd).expect_code(0).expect_resumed_from(8);
            let found = distance(&alone, &folder);
            assert!(found < 1e-5, "{before} ranks, then {after}: {found}");
        }
    }
}

#[test]
fn a_checkpoint_of_one_rank_continues_on_two_and_back() {
    resumed_on_others(&[1, 2], 6);
}

#[test]
#[ignore = "minutes: 16 pairs"]
fn a_checkpoint_of_any_number_of_ranks_continues_on_any_other() {
    resumed_on_others(&[1, 2, 3, 4], 12);
}

#[test]
fn commands_reach_a_training_on_ranks() {
    let mini = Mini::packed();
    let arguments = [&ENDLESS[..], &["--nproc", "2", "--jobs", "1"]].concat();
    let training = Training::start(&mini, &arguments).listening();
    training.ctl(&["status"]).expect_code(0).expect_words(&["of 10000000", "loss"]);
    training.ctl(&["eval"]).expect_code(0).expect_words(&["validation loss"]);
    training.ctl(&["lr", "1e-4"]).expect_code(0);
    training.ctl(&["save"]).expect_code(0).expect_words(&["saved step-"]);
    training.ctl(&["quit"]).expect_code(0);
    training.wait().expect_code(130);
}

#[test]
fn a_signal_to_the_launching_process_saves_and_stops() {
    let mini = Mini::packed();
    let arguments = [&ENDLESS[..], &["--nproc", "2", "--jobs", "1"]].concat();
    let training = Training::start(&mini, &arguments).listening();
    training.ctl(&["status"]).expect_code(0);
    let pid = Pid::from_raw(i32::try_from(training.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    training.wait().expect_code(130);
    assert_eq!(checkpoints(&mini.exp("")).len(), 1, "it has saved");
}

#[test]
fn the_error_of_one_rank_ends_all_once_and_with_its_number() {
    let copies = Copies::new();
    copies.copy("torn");
    let arguments = |seed: &str| {
        let mut arguments = vec!["-n".to_owned(), "1".to_owned(), env!("CARGO_BIN_EXE_flowmill").to_owned()];
        arguments.extend(["run".to_owned(), ".".to_owned()]);
        let seed = format!("seed={seed}");
        arguments.extend(Copies::arguments("torn", 1, &[seed.as_str()]));
        arguments
    };
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--bind-to", "none"]);
    if getuid().is_root() {
        command.arg("--allow-run-as-root");
    }
    let started = Instant::now();
    command.args(arguments("7")).arg(":").args(arguments("8")).current_dir(copies.mini.folder());
    let found = outcome(command.output().unwrap(), started.elapsed()).expect_no_panic();
    assert_eq!(found.code, Some(1), "{}", found.text());
    assert_eq!(found.text().matches("rank 1 failed").count(), 1, "{}", found.text());
}
