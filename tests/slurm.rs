//! Stages in a real Slurm of this machine alone, whose daemons `scripts/check_slurm` starts. Errors that it does not make at will are in
//! `tests/slurm_faults.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::flowmill::finish;
use crate::support::gated::{Gated, PIPES, wait_at_most, wait_until};
use crate::support::training::ENDLESS;
use crate::support::{Mini, Outcome, Tree};

/// The options of every run here.
const SLURM: [&str; 4] = ["--executor", "slurm", "--set", "slurm.poll_seconds=1"];

/// Starts a run whose output can be read later.
fn start(mini: &Mini, more: &[&str]) -> Child {
    let mut command = mini.command("run", &[&SLURM[..], more].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn run(mini: &Mini, more: &[&str]) -> Outcome {
    mini.run(&[&SLURM[..], more].concat()).expect_no_panic()
}

/// The logs of a stage: one per task that has begun.
fn logs(mini: &Mini, stage: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(mini.exp("slurm/logs").join(stage)).into_iter().flatten();
    let mut logs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    logs.sort();
    logs
}

/// The jobs that the run has in Slurm, as `status` says.
fn jobs(mini: &Mini) -> Vec<u64> {
    let status = mini.status();
    status["slurm_jobs"].as_array().unwrap().iter().filter_map(Value::as_u64).collect()
}

/// Calls a program of Slurm, which must succeed.
fn slurm(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The experiment of a run of the same recipe without Slurm.
fn alone(mini: &Mini, more: &[&str]) -> Tree {
    let folder = mini.path("exp/alone");
    mini.run(&[&["--exp", folder.to_str().unwrap()], more].concat()).expect_code(0);
    Tree::of(&folder)
}

#[test]
#[ignore = "needs Slurm: scripts/check_slurm"]
fn seven_stages_in_slurm_give_the_bytes_of_a_run() {
    let mini = Mini::new();
    let done = run(&mini, &[]).expect_code(0).expect_words(&["done: 7 of 7 stages ran", "4-train/train: done (job"]);
    println!("{}", done.text());
    mini.tree().expect_same_bytes(&alone(&mini, &[]), "in Slurm against here");
    assert!(logs(&mini, "0-prep").len() >= 4, "{:?}", logs(&mini, "0-prep"));
    assert!(jobs(&mini).is_empty() && !mini.exp("slurm/jobs.json").exists(), "no job is left");
    let left: Vec<_> = fs::read_dir(mini.exp("slurm")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["logs"], "scripts and exit codes are gone");
    let states = mini.status();
    assert!(states["stages"].as_array().unwrap().iter().all(|stage| stage["state"] == "done"), "{states}");
    run(&mini, &[]).expect_code(0).expect_nothing_to_do();
}

#[test]
#[ignore = "needs Slurm: scripts/check_slurm"]
fn a_finished_stage_is_replaced_as_a_whole() {
    let mini = Mini::packed();
    let set = ["--set", "pack.utterances_per_shard=2", "--stop-stage", "3"];
    run(&mini, &set)
        .expect_code(0)
        .expect_words(&["3-pack: the rest of the stage: 1 part to Slurm", "3-pack: done (job"]);
    mini.tree().expect_same_bytes(&alone(&mini, &set), "a replaced stage");
}

#[test]
#[ignore = "needs Slurm: scripts/check_slurm"]
fn a_run_that_is_killed_finds_its_jobs_again_and_nothing_runs_twice() {
    let gated = Gated::new();
    let mini = &gated.mini;
    let options = [&PIPES[..], &["--stop-stage", "0"]].concat();
    let mut first = start(mini, &options);
    wait_until("tasks are in the middle of their parts", || gated.reached() > 1);
    let before = jobs(mini);
    assert_eq!(before.len(), 1, "one array");
    // Nobody else may run now.
    run(mini, &options).expect_error("locked", 1).expect_words(&["--executor slurm"]);
    mini.run(&options).expect_error("locked", 1);
    mini.flowmill("clean", &["--yes"]).expect_error("locked", 1);
    first.kill().unwrap();
    first.wait().unwrap();
    // Jobs with other settings are not mixed with these.
    let other = run(mini, &[&options[..], &["--set", "prep.part_size=3"]].concat());
    other.expect_error("slurm", 1).expect_words(&[&format!("scancel {}", before[0]), "the last run died"]);
    // A run that is asked to stop leaves its jobs as well.
    let second = start(mini, &options);
    sleep(Duration::from_secs(2));
    assert_eq!(jobs(mini), before);
    kill_process(Pid::from_child(&second), Signal::INT).unwrap();
    let stay = format!("stay in Slurm (job {})", before[0]);
    finish(second).expect_code(130).expect_words(&["of an earlier run in Slurm again", &stay]);
    let third = start(mini, &options);
    gated.open();
    finish(third).expect_code(0).expect_words(&["of an earlier run in Slurm again", ": done (job"]);
    // One task for `read`, one for each part after it.
    let parts = fs::read_dir(mini.exp("0-prep/receipts/train")).unwrap().count()
        + fs::read_dir(mini.exp("0-prep/receipts/dev")).unwrap().count();
    let begun = logs(mini, "0-prep");
    let of_array = begun.iter().filter(|log| log.to_string_lossy().contains(&format!("/{}_", before[0]))).count();
    assert!(of_array >= 3 && begun.len() <= parts + 4, "{begun:?}");
    mini.tree().expect_same_bytes(&alone(mini, &options), "after a kill");
}

#[test]
#[ignore = "needs Slurm: scripts/check_slurm"]
fn a_run_that_is_killed_while_it_submits_finds_that_job_too() {
    let mini = Mini::new();
    // It submits, and then takes a while to say so.
    let programs = mini.path("programs");
    fs::create_dir(&programs).unwrap();
    let real = slurm("sh", &["-c", "command -v sbatch"]);
    let script = format!(
        "#!/bin/sh\njob=$({} \"$@\") && echo $job > {}\nsleep 20\necho $job\n",
        real.trim(),
        mini.path("submitted").display()
    );
    fs::write(programs.join("sbatch"), script).unwrap();
    fs::set_permissions(programs.join("sbatch"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut first = mini.command("run", &[&SLURM[..], &["--stop-stage", "0"]].concat());
    let mut first = first.env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the job is submitted", || mini.path("submitted").exists());
    first.kill().unwrap();
    first.wait().unwrap();
    let job = fs::read_to_string(mini.path("submitted")).unwrap();
    assert!(jobs(&mini).is_empty(), "its number is not known yet");
    let done = run(&mini, &["--stop-stage", "0"]).expect_code(0);
    done.expect_words(&[&format!("0-prep/read: done (job {}_0", job.trim())]);
    mini.tree().expect_same_bytes(&alone(&mini, &["--stop-stage", "0"]), "after a kill while submitting");
}

#[test]
#[ignore = "needs Slurm: scripts/check_slurm"]
fn only_the_part_that_failed_is_tried_again() {
    let mini = Mini::new();
    // The second task of the first array with more than one may not write files, once.
    let setup = format!(
        "if [ \"$task\" = 1 ] && mkdir {} 2>/dev/null; then ulimit -f 0; fi",
        mini.path("failed-once").display()
    );
    let set = format!("slurm.setup={setup:?}");
    let done = run(&mini, &["--stop-stage", "0", "--set", &set]).expect_code(0);
    let text = done.text();
    assert_eq!(text.matches("trying it again (1 of 2)").count(), 1, "{text}");
    let parts = text.matches(": done (job").count();
    assert_eq!(logs(&mini, "0-prep").len(), parts + 1, "one task more than parts: {text}");
    mini.tree().expect_same_bytes(&alone(&mini, &["--stop-stage", "0"]), "after a retry");
    // A part that fails always is tried as often as the recipe says, and the others are done.
    let mini = Mini::new();
    let setup =
        "case \"$5\" in train/part-00001) set -- sh -c 'echo \"error[stage]: made by the test\" >&2; exit 1' ;; esac";
    let set = format!("slurm.setup={setup:?}");
    let failed = run(&mini, &["--stop-stage", "0", "--set", "slurm.retries=1", "--set", &set]).expect_error("job", 1);
    let words =
        ["1 part of 0-prep failed", "0-prep/train/part-00001: job", "failed with exit code 1, after 2 attempts"];
    failed.expect_words(&words).expect_words(&[
        "    log: ",
        "slurm/logs/0-prep/",
        "    | error[stage]: made by the test",
    ]);
    let open = mini.flowmill("parts", &["0"]).expect_code(0);
    assert_eq!(open.stdout.lines().count(), 1, "{}", open.stdout);
    run(&mini, &["--stop-stage", "0"]).expect_code(0);
}

#[test]
#[ignore = "needs Slurm: scripts/check_slurm"]
fn a_part_that_runs_out_of_memory_gets_more() {
    let mini = Mini::new();
    let greedy = [
        "--stop-stage",
        "0",
        "--set",
        "slurm.memory=300M",
        "--set",
        // The memory is held for as long as nothing reads it: Slurm looks once a second.
        "slurm.setup=head -c 500000000 /dev/zero | tail -c 500000000 | (sleep 5; wc -c)",
    ];
    let failed = run(&mini, &greedy).expect_error("job", 1);
    failed.expect_words(&["ran out of memory (300 MB)", "raise slurm.stages.prep.memory", "memory limit"]);
    let more = [&greedy[..], &["--set", "slurm.retry_memory=4", "--set", "slurm.retries=1"]].concat();
    let done = run(&mini, &more).expect_code(0);
    done.expect_words(&["ran out of memory (300 MB); trying it again (1 of 1)"]);
}

/// Returns whether slow tests run. Prints the reason why one is slow if not.
fn slow_tests_run(reason: &str) -> bool {
    let run = std::env::var_os("FLOWMILL_TEST_SLURM_SLOW").is_some();
    if !run {
        println!("skipped: {reason}; scripts/check_slurm --slow");
    }
    run
}

#[test]
#[ignore = "needs Slurm: scripts/check_slurm --slow"]
fn a_node_that_fails() {
    if !slow_tests_run("on a busy machine, Slurm takes minutes to give a node back") {
        return;
    }
    let gated = Gated::new();
    let mini = &gated.mini;
    let options = [&PIPES[..], &["--stop-stage", "0"]].concat();
    let running = start(mini, &options);
    wait_until("a task is in the middle of its part", || gated.reached() > 0);
    let node = slurm("sinfo", &["--noheader", "--format=%N"]).trim().to_owned();
    slurm("scontrol", &["update", &format!("nodename={node}"), "state=down", "reason=test"]);
    gated.open();
    let name = format!("nodename={node}");
    wait_at_most(Duration::from_secs(300), "the node comes back", || {
        sleep(Duration::from_millis(500));
        let mut resume = Command::new("scontrol");
        resume.args(["update", &name, "state=resume"]).stderr(Stdio::null()).status().unwrap().success()
    });
    finish(running).expect_code(0).expect_words(&["was lost with its node; trying it again"]);
    mini.tree().expect_same_bytes(&alone(mini, &options), "after the failure of a node");
}

#[test]
#[ignore = "needs Slurm: scripts/check_slurm"]
fn a_job_that_is_cancelled() {
    let gated = Gated::new();
    let mini = &gated.mini;
    let options = [&PIPES[..], &["--stop-stage", "0"]].concat();
    let running = start(mini, &options);
    wait_until("a task is in the middle of its part", || gated.reached() > 0);
    let job = jobs(mini)[0].to_string();
    slurm("scancel", &[&job]);
    finish(running).expect_error("job", 1).expect_words(&["was cancelled", "the same command continues"]);
    gated.open();
    run(mini, &options).expect_code(0);
    mini.tree().expect_same_bytes(&alone(mini, &options), "after jobs were cancelled");
}

#[test]
#[ignore = "needs Slurm: scripts/check_slurm"]
fn a_training_saves_before_the_limit_and_continues_in_another_job() {
    let mini = Mini::packed();
    let options = [&ENDLESS[..], &["--stop-stage", "4"]].concat();
    let running = start(&mini, &options);
    wait_until("it listens", || mini.exp(".control/socket").exists());
    let first = jobs(&mini)[0];
    // What Slurm does itself before the limit of time; a test with a real one takes minutes (--slow).
    slurm("scancel", &["--signal=USR1", "--batch", &first.to_string()]);
    wait_until("another job trains", || {
        let jobs = jobs(&mini);
        jobs.iter().any(|job| *job != first) && mini.exp(".control/socket").exists()
    });
    mini.flowmill("ctl", &["quit"]).expect_code(0);
    let stopped = finish(running).expect_code(130);
    stopped.expect_words(&[
        "saved its work before the time limit; interrupted at step",
        "in another job",
        "was asked to stop",
        "resuming from step-",
    ]);
}

/// In a build with MPI, `scripts/check_slurm --ranks`.
#[cfg(feature = "mpi")]
#[test]
#[ignore = "needs Slurm: scripts/check_slurm"]
fn the_ranks_of_a_training_are_started_by_srun() {
    let mini = Mini::packed();
    let options = ["--stop-stage", "4", "--set", "train.accum_grad=2"];
    let ranks = ["--set", "slurm.stages.train={tasks_per_node: 2, memory: 2G}"];
    let done = run(&mini, &[&options[..], &ranks].concat()).expect_code(0);
    done.expect_words(&["4-train/train: done (job", "2 ranks"]);
    let folder = mini.copy_experiment("mini", "ranks");
    fs::remove_dir_all(folder.join("4-train")).unwrap();
    let mut command =
        mini.command("run", &[&options[..], &["--nproc", "2", "--exp", folder.to_str().unwrap()]].concat());
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    assert!(command.status().unwrap().success());
    mini.tree().expect_same_bytes(&Tree::of(&folder), "ranks of srun against those of mpirun");
}

#[test]
#[ignore = "needs Slurm: scripts/check_slurm --slow"]
fn a_real_time_limit() {
    if !slow_tests_run("it takes four minutes") {
        return;
    }
    let mini = Mini::packed();
    let limit = ["--set", "slurm.stages.train.time=2", "--set", "slurm.stages.train.save_before=60"];
    let options = [&ENDLESS[..], &limit, &["--stop-stage", "4"]].concat();
    let running = start(&mini, &options);
    wait_at_most(Duration::from_secs(300), "another job trains", || logs(&mini, "4-train").len() >= 2);
    wait_until("it listens", || mini.exp(".control/socket").exists());
    mini.flowmill("ctl", &["quit"]).expect_code(0);
    finish(running).expect_code(130).expect_words(&["saved its work before the time limit (0-00:02:00)"]);
    // A part that cannot be continued reaches its limit, and gets more time.
    let mini = Mini::new();
    let setup = format!("if mkdir {} 2>/dev/null; then sleep 100; fi", mini.path("slept").display());
    let set = format!("slurm.setup={setup:?}");
    let limit = ["--stop-stage", "0", "--set", "slurm.time=1", "--set", "slurm.retry_time=2", "--set", &set];
    let done = run(&mini, &limit).expect_code(0);
    done.expect_words(&["reached its time limit (0-00:01:00); trying it again (1 of 2)"]);
}

#[test]
#[ignore = "needs Slurm: scripts/check_slurm"]
fn what_slurm_refuses_is_told_with_its_words() {
    let mini = Mini::new();
    let refused = run(&mini, &["--set", "slurm.partition=none"]).expect_error("slurm", 1);
    refused.expect_words(&["invalid partition specified: none", "--partition=none"]);
    let refused = run(&mini, &["--set", "slurm.memory=9T"]).expect_error("slurm", 1);
    refused.expect_words(&["--mem=9437184M"]);
    assert!(jobs(&mini).is_empty());
    run(&mini, &["--stop-stage", "0"]).expect_code(0);
}
