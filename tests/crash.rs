//! `kill -9` at random instants: the next run goes on, and the final tree is that of an undisturbed run.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::random::Random;
use crate::support::{Mini, Tree};

/// How many times the test kills unless `FLOWMILL_TEST_KILLS` says otherwise.
const KILLS: usize = 40;
/// One in so many recoveries is killed again.
const AGAIN: u64 = 4;

/// How many times to kill.
fn kills() -> usize {
    std::env::var("FLOWMILL_TEST_KILLS").map_or(KILLS, |text| text.parse().expect("a whole number"))
}

/// Starts a run, kills it after `delay`; false when it was done before.
fn run_and_kill(mini: &Mini, delay: Duration) -> bool {
    let mut process = mini.command("run", &["--quiet"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    sleep(delay);
    let done = process.try_wait().unwrap().is_some();
    // The process is this test's own child; on this system `kill` sends SIGKILL.
    let _already_gone = process.kill();
    process.wait().unwrap();
    !done
}

/// The stage whose work is unfinished, for the summary of the test.
fn interrupted_stage(mini: &Mini) -> String {
    let status = mini.status();
    let stages = status["stages"].as_array().cloned().unwrap_or_default();
    let unfinished = stages.iter().find(|stage| stage["state"] != "done");
    unfinished.map_or("none".into(), |stage| stage["stage"].as_str().unwrap_or("?").to_string())
}

#[test]
fn killed_at_random_instants_the_final_tree_is_that_of_an_undisturbed_run() {
    let mut random = Random::announced("crash");
    let undisturbed = Mini::new();
    let start = Instant::now();
    undisturbed.run(&["--quiet"]).expect_code(0);
    let whole = start.elapsed();
    let expected = undisturbed.tree();
    println!("an undisturbed run takes {:.2} s and makes {} files", whole.as_secs_f64(), expected.0.len());
    let mut where_killed = std::collections::BTreeMap::<String, usize>::new();
    for index in 0..kills() {
        let mini = Mini::new();
        let delay = whole.mul_f64(random.unit());
        let mut landed = run_and_kill(&mini, delay);
        if landed {
            *where_killed.entry(interrupted_stage(&mini)).or_default() += 1;
        }
        while landed && random.bits() % AGAIN == 0 {
            landed = run_and_kill(&mini, whole.mul_f64(random.unit()));
        }
        mini.run(&["--quiet"]).expect_code(0);
        let about = format!("kill {index}, {:.3} s after the start", delay.as_secs_f64());
        Tree::expect_same_bytes(&mini.tree(), &expected, &about);
    }
    println!("unfinished stage after the first kill: {where_killed:?}");
}
