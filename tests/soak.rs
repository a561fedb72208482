//! The soak: the demo trains for half an hour while commands, evaluations, signals and kills come at random. Its memory stays flat, and no
//! line of its metrics is lost.
//!
//! `cargo test --release --workspace --test whole_program -- --ignored --nocapture soak`; `FLOWMILL_SOAK_MINUTES` sets how long.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::flowmill::command;
use crate::support::mini::repository;
use crate::support::random::Random;
use crate::support::{Outcome, flowmill};

const MINUTES: f64 = 30.0;
/// A process has all that it keeps after so long: data, optimizer, the allocator's reserves.
const SETTLED: Duration = Duration::from_secs(45);
/// Growth of the resident memory that is allowed after that, as a share and in bytes.
const GROWTH: (f64, u64) = (0.1, 48 << 20);
/// Settings that log every step, so that a lost one shows.
const SETTINGS: [&str; 6] = [
    "train.max_steps=100000000",
    "train.save_every=40",
    "train.validate_every=60",
    "train.log_every=1",
    "train.ema_decay=0.999",
    "train.num_workers=2",
];

/// A running training, killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already, perhaps.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The demo in a folder of its own.
struct Soak {
    folder: TempDir,
    random: Random,
}

impl Soak {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), random: Random::announced("soak") }
    }

    fn exp(&self) -> PathBuf {
        self.folder.path().join("exp")
    }

    /// Returns the arguments of a command on the demo.
    fn arguments(&self, name: &str, more: &[&str]) -> Vec<String> {
        let demo = repository().join("recipes/demo").canonicalize().unwrap();
        let fixed = [name, demo.to_str().unwrap(), "--exp", self.exp().to_str().unwrap()].map(str::to_owned);
        let sets = SETTINGS.iter().flat_map(|set| ["--set", set]);
        fixed.into_iter().chain(sets.chain(more.iter().copied()).map(str::to_owned)).collect()
    }

    fn flowmill(&self, name: &str, more: &[&str]) -> Outcome {
        flowmill(self.folder.path(), &self.arguments(name, more)).expect_no_panic()
    }

    fn start(&self) -> Running {
        let arguments = self.arguments("run", &["--stop-stage", "train", "--quiet"]);
        let mut run: Command = command(self.folder.path(), &arguments);
        let process = Running(run.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap());
        let began = Instant::now();
        // A process that was killed leaves its socket behind, so that one is there says nothing.
        while self.ctl(&["status"]).code != Some(0) {
            assert!(began.elapsed() < Duration::from_secs(120), "it does not start");
            sleep(Duration::from_millis(50));
        }
        process
    }

    fn ctl(&self, words: &[&str]) -> Outcome {
        let exp = self.exp();
        flowmill(self.folder.path(), &[&["ctl", exp.to_str().unwrap()], words].concat()).expect_no_panic()
    }

    /// Returns true if there is a checkpoint; once there is one, there always is.
    fn has_saved(&self) -> bool {
        let state = fs::read_dir(self.exp().join("4-train/.staging/train/state"));
        state.is_ok_and(|mut entries| {
            entries.any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("step-"))
        })
    }

    /// Does one thing to the running training, and says what.
    fn disturb(&mut self) -> &'static str {
        let rate = format!("{:.1e}", 1e-4 + 2e-3 * self.random.unit());
        match self.random.bits() % 8 {
            0 => drop(self.ctl(&["status"]).expect_code(0)),
            1 => drop(self.ctl(&["save"]).expect_code(0)),
            2 => drop(self.ctl(&["eval"]).expect_code(0)),
            3 => drop(self.ctl(&["lr", &rate]).expect_code(0)),
            4 => drop(self.ctl(&["dance"]).expect_code(2)),
            5 => drop(self.ctl(&["save@1"]).expect_code(1)),
            6 if self.has_saved() => drop(self.flowmill("train", &["--eval"]).expect_code(0)),
            _ => return "nothing",
        }
        "a command or an evaluation"
    }
}

/// Resident bytes of a process.
fn resident(process: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The memory of one process over its life.
#[derive(Default)]
struct Memory {
    settled: Option<u64>,
    most: u64,
}

impl Memory {
    fn look(&mut self, process: &Child, age: Duration) {
        let now = resident(process);
        if age >= SETTLED {
            self.settled.get_or_insert(now);
            self.most = self.most.max(now);
        }
    }

    #[track_caller]
    fn expect_flat(&self) {
        let Some(settled) = self.settled else { return };
        println!("memory: {} MiB after {} s, {} MiB at the most", settled >> 20, SETTLED.as_secs(), self.most >> 20);
        let allowed = settled + ((settled as f64 * GROWTH.0) as u64).max(GROWTH.1);
        assert!(self.most <= allowed, "it grew from {settled} to {} bytes", self.most);
    }
}

/// Checks that every step up to the last has its line once and in order, and every validation that was due.
fn expect_whole(metrics: &str) {
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let step = |line: &Value| line["step"].as_u64().unwrap();
    let trained: Vec<u64> = lines.iter().filter(|line| line.get("lr").is_some()).map(step).collect();
    let last = trained.len() as u64;
    assert_eq!(trained, (1..=last).collect::<Vec<_>>(), "a line is missing or there twice");
    let validated: Vec<u64> = lines.iter().filter(|line| line["validation"].is_object()).map(step).collect();
    for due in (1..=last).filter(|step| step.is_multiple_of(40) || step.is_multiple_of(60)) {
        assert!(validated.contains(&due), "the validation of step {due} is missing");
    }
    println!("{last} steps and {} validations, none lost", validated.len());
}

#[test]
#[ignore = "half an hour, or FLOWMILL_SOAK_MINUTES"]
fn soak() {
    let minutes = std::env::var("FLOWMILL_SOAK_MINUTES").map_or(MINUTES, |text| text.parse().expect("a number"));
    let mut soak = Soak::new();
    soak.flowmill("run", &["--stop-stage", "pack", "--quiet"]).expect_code(0);
    let until = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let mut done = BTreeMap::<&str, usize>::new();
    while Instant::now() < until {
        let mut process = soak.start();
        let (born, mut memory) = (Instant::now(), Memory::default());
        let life = Duration::from_secs_f64(5.0 + 150.0 * soak.random.unit().powi(2));
        while born.elapsed() < life && Instant::now() < until {
            sleep(Duration::from_secs_f64(3.0 * soak.random.unit()));
            *done.entry(soak.disturb()).or_default() += 1;
            memory.look(&process.0, born.elapsed());
            assert!(process.0.try_wait().unwrap().is_none(), "it ended by itself");
        }
        memory.expect_flat();
        let signal = [Signal::KILL, Signal::KILL, Signal::TERM, Signal::USR1][(soak.random.bits() % 4) as usize];
        kill_process(Pid::from_child(&process.0), signal).unwrap();
        let code = process.0.wait().unwrap().code();
        assert_eq!(code, if signal == Signal::KILL { None } else { Some(130) });
        *done.entry(if signal == Signal::KILL { "a kill" } else { "a signal" }).or_default() += 1;
    }
    let mut process = soak.start();
    soak.ctl(&["quit"]).expect_code(0);
    assert_eq!(process.0.wait().unwrap().code(), Some(130));
    println!("{done:?}");
    expect_whole(&fs::read_to_string(soak.exp().join("4-train/.staging/train/state/metrics.jsonl")).unwrap());
}
