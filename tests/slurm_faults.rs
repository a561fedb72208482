//! Stages in Slurm where it fails in ways that a real one does not at will: a small stand-in for its programs, which runs nothing.
//!
//! All else is tested with a real Slurm (`tests/slurm.rs`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use crate::support::flowmill::outcome;
use crate::support::gated::wait_until;
use crate::support::{Mini, Outcome};

/// Programs in a folder of their own, before all others.
struct Programs {
    folder: PathBuf,
}

impl Programs {
    fn new(mini: &Mini) -> Self {
        let folder = mini.path("programs");
        fs::create_dir(&folder).unwrap();
        Self { folder }
    }

    fn write(&self, name: &str, lines: &str) -> &Self {
        let program = self.folder.join(name);
        fs::write(&program, format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// A stand-in that numbers its jobs from 1, of which every task is in a state that `squeue` prints.
    fn of_state(mini: &Mini, state: &str) -> Self {
        let programs = Self::new(mini);
        let count = mini.path("jobs").display().to_string();
        programs.write("sbatch", &format!("echo >> {count}; wc -l < {count}"));
        programs.write("squeue", &format!("job=$(wc -l < {count}); echo \"${{job}}_0|{state}|None\""));
        programs.write("sacct", "exit 1");
        programs
    }
}

fn run(mini: &Mini, path: &str, more: &[&str]) -> Outcome {
    let arguments = [&["--executor", "slurm", "--set", "slurm.poll_seconds=0.1", "--stop-stage", "0"], more].concat();
    let mut command = mini.command("run", &arguments);
    let started = Instant::now();
    outcome(command.env("PATH", path).output().unwrap(), started.elapsed()).expect_no_panic()
}

fn with(programs: &Programs) -> String {
    format!("{}:{}", programs.folder.display(), std::env::var("PATH").unwrap())
}

/// The number of jobs that were submitted.
fn submitted(mini: &Mini) -> usize {
    fs::read_to_string(mini.path("jobs")).map_or(0, |text| text.lines().count())
}

#[test]
fn programs_that_are_missing_are_named() {
    let mini = Mini::new();
    run(&mini, "/nowhere", &[]).expect_error("slurm", 1).expect_words(&["`sbatch` was not found", "login node"]);
    run(&mini, "/nowhere", &["--force"]).expect_error("usage", 2);
    run(&mini, "/nowhere", &["--nproc", "2"]).expect_code(2);
    assert_eq!(mini.status()["slurm_jobs"], serde_json::json!([]));
    assert!(!mini.exp(".lock-slurm").exists());
}

#[test]
fn every_way_to_fail_is_told_with_the_log_and_what_to_do() {
    let cases: [(&str, usize, &[&str]); 6] = [
        ("PREEMPTED", 3, &["was preempted, after 3 attempts"]),
        ("NODE_FAIL", 3, &["was lost with its node, after 3 attempts"]),
        ("BOOT_FAIL", 3, &["was lost with its node"]),
        ("TIMEOUT", 1, &["reached its time limit (0-00:10:00)", "raise slurm.stages.prep.time"]),
        ("OUT_OF_MEMORY", 1, &["ran out of memory (2048 MB)", "raise slurm.stages.prep.memory"]),
        ("CANCELLED by 7", 1, &["was cancelled", "the same command continues"]),
    ];
    for (state, jobs, words) in cases {
        let mini = Mini::new();
        let programs = Programs::of_state(&mini, state);
        let limits = ["--set", "slurm.time=10", "--set", "slurm.memory=2G"];
        let failed = run(&mini, &with(&programs), &limits).expect_error("job", 1);
        failed.expect_words(words).expect_words(&["0-prep/read", "slurm/logs/0-prep/", "_0.log"]);
        assert_eq!(submitted(&mini), jobs, "{state}");
    }
}

#[test]
fn a_job_that_slurm_forgets_is_a_failure_unless_its_part_is_done() {
    let mini = Mini::new();
    let programs = Programs::of_state(&mini, "RUNNING");
    programs.write("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1");
    let failed = run(&mini, &with(&programs), &["--set", "slurm.retries=0"]).expect_error("job", 1);
    failed.expect_words(&["ended in a way that Slurm does not tell", "scontrol show job"]);
    assert_eq!(submitted(&mini), 1);
}

#[test]
fn a_run_here_takes_over_only_when_the_run_in_slurm_has_died() {
    let mini = Mini::new();
    let programs = Programs::of_state(&mini, "RUNNING");
    let mut command = mini.command("run", &["--executor", "slurm", "--stop-stage", "0"]);
    let mut running = command.env("PATH", with(&programs)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("its job is known", || mini.status()["slurm_jobs"] == serde_json::json!([1]));
    let status = mini.flowmill("status", &[]).expect_code(0);
    status.expect_words(&["running now: ", "--executor slurm", "in Slurm: ", "squeue --jobs=1"]);
    mini.run(&["--stop-stage", "0"]).expect_error("locked", 1).expect_words(&["--executor slurm"]);
    // Its tasks may.
    mini.flowmill("run-part", &["0", "read"]).expect_code(0);
    running.kill().unwrap();
    running.wait().unwrap();
    mini.run(&["--stop-stage", "0"]).expect_code(0).expect_words(&["the last run died", "--executor slurm"]);
    assert!(!mini.exp(".lock-slurm").exists());
    // The job of a part that is done already is followed to its end.
    programs.write("squeue", "echo '1_0|COMPLETED|None'");
    run(&mini, &with(&programs), &[]).expect_code(0).expect_nothing_to_do();
    assert_eq!(mini.status()["slurm_jobs"], serde_json::json!([]));
}

#[test]
fn a_daemon_that_does_not_answer_is_asked_again() {
    let mini = Mini::new();
    let programs = Programs::of_state(&mini, "PREEMPTED");
    let once = |name: &str, then: &str| {
        let marker = mini.path(name).display().to_string();
        format!(
            "if mkdir {marker} 2>/dev/null; then echo \"$0: error: Unable to contact slurm controller (connect failure)\" >&2; exit 1; fi\n{then}"
        )
    };
    let read = |name: &str| {
        let text = fs::read_to_string(programs.folder.join(name)).unwrap();
        text.lines().skip(1).collect::<Vec<_>>().join("\n")
    };
    let (sbatch, squeue) = (once("asked-sbatch", &read("sbatch")), once("asked-squeue", &read("squeue")));
    programs.write("sbatch", &sbatch).write("squeue", &squeue);
    let failed = run(&mini, &with(&programs), &["--set", "slurm.retries=0"]).expect_error("job", 1);
    failed.expect_words(&["Unable to contact slurm controller", "trying again", "was preempted"]);
    // With another error it is told at once.
    programs.write(
        "sbatch",
        "echo 'sbatch: error: Invalid account or account/partition combination specified' >&2; exit 1",
    );
    let refused = run(&mini, &with(&programs), &["--set", "slurm.account=nobody"]).expect_error("slurm", 1);
    refused.expect_words(&["Invalid account", "--account=nobody", "Correct `slurm` in the recipe"]);
}

#[test]
fn the_options_of_a_job_are_those_of_its_stage() {
    let mini = Mini::new();
    let programs = Programs::new(&mini);
    let (words, script) = (mini.path("words"), mini.path("script"));
    let keep = |path: &Path| path.display().to_string();
    programs.write(
        "sbatch",
        &format!(
            "for word; do echo \"$word\"; done > {}; cp \"$word\" {}; echo 'sbatch: error: no' >&2; exit 1",
            keep(&words),
            keep(&script)
        ),
    );
    let set = [
        "--set",
        "slurm.partition=cpu",
        "--set",
        "slurm.account=speech",
        "--set",
        "slurm.time=90",
        "--set",
        "slurm.flags=[--exclusive]",
        "--set",
        "slurm.stages.prep.partition=fast",
        "--set",
        "slurm.stages.prep.memory=3G",
        "--set",
        "slurm.stages.prep.cores=5",
        "--set",
        "slurm.setup=module load flowmill",
        "--set",
        "prep.part_size=3",
    ];
    run(&mini, &with(&programs), &set).expect_error("slurm", 1);
    let words = fs::read_to_string(words).unwrap();
    let expected = [
        "--parsable",
        "--array=0-0",
        "--partition=fast",
        "--account=speech",
        "--time=0-01:30:00",
        "--mem=3072M",
        "--cpus-per-task=5",
    ];
    for word in expected.into_iter().chain(["--exclusive", "--no-requeue"]) {
        assert!(words.lines().any(|line| line == word), "{word}: {words}");
    }
    assert!(!words.contains("--signal"), "only a training saves: {words}");
    let script = fs::read_to_string(script).unwrap();
    for line in ["module load flowmill", "prep.part_size=3", "--jobs 5", "run-part"] {
        assert!(script.contains(line), "{line}: {script}");
    }
    for (set, key) in [
        ("slurm.time=soon", "slurm.time"),
        ("slurm.memory=much", "slurm.memory"),
        ("slurm.nodes=2", "slurm.stages.train.nodes"),
        ("slurm.stages.prep.nodes=2", "slurm.stages.prep"),
        ("slurm.stages.sing.time=1", "slurm.stages.sing"),
        ("slurm.retry_memory=0.5", "slurm.retry_memory"),
        ("slurm.partitoin=x", "partition"),
        ("slurm.poll_seconds=0", "slurm.poll_seconds"),
        ("slurm.flags=[exclusive]", "slurm.flags"),
        ("slurm.stages.train.time=1", "save_before"),
    ] {
        run(&mini, "/nowhere", &["--set", set]).expect_error("recipe", 2).expect_words(&[key]);
    }
}
