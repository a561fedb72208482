//! One run per experiment: the second says who holds it, and may wait.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::Mini;
use crate::support::flowmill::finish;

/// Starts a run whose output can be read later.
fn start(mini: &Mini) -> Child {
    mini.command("run", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until somebody holds the experiment.
fn wait_until_held(mini: &Mini) {
    let start = Instant::now();
    while mini.status()["running"].is_null() {
        assert!(start.elapsed() < Duration::from_secs(30), "nobody took the experiment");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_second_run_says_who_holds_the_experiment() {
    let mini = Mini::new();
    let first = start(&mini);
    wait_until_held(&mini);
    let holder = format!("process {}", first.id());
    let second = mini.run(&[]).expect_error("locked", 1).expect_words(&[&holder, "flowmill run ."]);
    assert!(second.took < Duration::from_secs(5), "it waited {:?}", second.took);
    mini.flowmill("clean", &["--yes"]).expect_no_panic();
    finish(first).expect_code(0);
    mini.run(&[]).expect_code(0).expect_nothing_to_do();
}

#[test]
fn a_second_run_waits_when_told_to() {
    let mini = Mini::new();
    let first = start(&mini);
    wait_until_held(&mini);
    let holder = format!("process {}", first.id());
    mini.run(&["--wait"]).expect_code(0).expect_nothing_to_do().expect_words(&[&holder]);
    finish(first).expect_code(0);
}

#[test]
fn interrupted_it_ends_with_130_and_the_next_run_carries_on() {
    let mini = Mini::new();
    let process = start(&mini);
    wait_until_held(&mini);
    let id = Pid::from_raw(process.id().try_into().unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
    finish(process).expect_code(130).expect_words(&["interrupted"]);
    mini.run(&[]).expect_code(0);
    let undisturbed = Mini::finished();
    mini.tree().expect_same_bytes(&undisturbed.tree(), "after an interruption");
}
