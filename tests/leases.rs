//! Processes of several machines on a file system without locks: leases replace them.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::scope;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::errno::failing_on;
use crate::support::flowmill::{finish, outcome};
use crate::support::gated::{Gated, PIPES, wait_at_most, wait_until};
use crate::support::{Mini, Outcome, Tree};

/// There are no locks.
const NO_LOCKS: [(&str, i32); 1] = [("flock", 37)];
/// Longer than a lease holds without a renewal.
const EXPIRED: Duration = Duration::from_secs(100);
/// Longer than a holder takes to renew its lease.
const BEAT: Duration = Duration::from_secs(20);

/// A command on a part of stage 0 on a machine.
fn command(mini: &Mini, host: &str, name: &str, more: &[&str]) -> Option<Command> {
    failing_on(host, &mini.command(name, more), &NO_LOCKS)
}

fn run(mini: &Mini, host: &str, name: &str, more: &[&str]) -> Outcome {
    let started = Instant::now();
    outcome(command(mini, host, name, more).unwrap().output().unwrap(), started.elapsed()).expect_no_panic()
}

/// The files of the leases of parts.
fn leases(mini: &Mini) -> Vec<PathBuf> {
    let entries = fs::read_dir(mini.exp("")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut leases: Vec<PathBuf> =
        entries.filter(|path| path.to_string_lossy().contains(".lock-holder-part-")).collect();
    leases.sort();
    leases
}

fn renewed(lease: &PathBuf) -> SystemTime {
    fs::metadata(lease).unwrap().modified().unwrap()
}

/// Makes a lease as old as if its holder had not renewed it for long.
fn expire(lease: &PathBuf) {
    OpenOptions::new().write(true).open(lease).unwrap().set_modified(SystemTime::now() - EXPIRED).unwrap();
}

/// The process of a lease. A launcher has replaced itself by it, so it has the number of the child.
fn signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).unwrap();
}

/// A process in the middle of a part on another machine.
fn start(gated: &Gated, host: &str, key: &str) -> Child {
    let before = gated.reached();
    let mut command = command(&gated.mini, host, "run-part", &["0", key, PIPES[0], PIPES[1], "--jobs", "1"]).unwrap();
    let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("a process is in the middle of its part", || gated.reached() > before);
    process
}

/// A recipe of which the first phase is done, and a part of the next one; none where machines cannot be played.
fn begun() -> Option<(Gated, String)> {
    let gated = Gated::new();
    command(&gated.mini, "node1", "run-part", &[])?;
    run(&gated.mini, "node1", "run-part", &["0", "read", PIPES[0], PIPES[1]]).expect_code(0);
    let open = gated.mini.flowmill("parts", &["0", PIPES[0], PIPES[1]]).expect_code(0);
    let key = open.stdout.lines().next().unwrap().to_owned();
    Some((gated, key))
}

/// Checks that the stage has the bytes of a run on one machine.
fn expect_whole(mini: &Mini) {
    mini.run(&["--stop-stage", "0", PIPES[0], PIPES[1]]).expect_code(0);
    let alone = mini.path("exp/alone");
    mini.run(&["--stop-stage", "0", "--exp", alone.to_str().unwrap(), PIPES[0], PIPES[1]]).expect_code(0);
    mini.tree().expect_same_bytes(&Tree::of(&alone), "with leases");
}

#[test]
fn a_killed_process_of_another_machine_loses_its_part_when_its_lease_expires() {
    let Some((gated, key)) = begun() else { return };
    let mini = &gated.mini;
    let part = ["0", key.as_str(), PIPES[0], PIPES[1]];
    let mut process = start(&gated, "node1", &key);
    let lease = leases(mini).remove(0);
    let refused = |outcome: Outcome| drop(outcome.expect_error("part-locked", 1).expect_words(&["on node1", "90 s"]));
    refused(run(mini, "node2", "run-part", &part));
    run(mini, "node2", "run", &["--stop-stage", "0", PIPES[0], PIPES[1]]).expect_error("locked", 1);
    // It shows that it lives.
    let before = renewed(&lease);
    wait_at_most(BEAT, "the lease is renewed", || renewed(&lease) != before);
    process.kill().unwrap();
    process.wait().unwrap();
    refused(run(mini, "node2", "run-part", &part));
    gated.open();
    expire(&lease);
    run(mini, "node2", "run-part", &part).expect_code(0).expect_words(&["the last run died", "on node1", ": done"]);
    assert!(leases(mini).is_empty());
    expect_whole(mini);
}

#[test]
fn a_process_that_was_suspended_and_lost_its_lease_ends_itself() {
    let Some((gated, key)) = begun() else { return };
    let mini = &gated.mini;
    let suspended = start(&gated, "node1", &key);
    let lease = leases(mini).remove(0);
    signal(&suspended, Signal::STOP);
    expire(&lease);
    let other = start(&gated, "node2", &key);
    assert!(!lease.exists() && leases(mini).len() == 1, "another has the next one: {:?}", leases(mini));
    signal(&suspended, Signal::CONT);
    let ended = finish(suspended).expect_error("locked", 1);
    ended.expect_words(&["is lost", "another process has taken its place"]);
    assert_eq!(leases(mini).len(), 1, "it has not touched that of the other");
    gated.open();
    finish(other).expect_code(0).expect_words(&[": done"]);
    expect_whole(mini);
}

#[test]
fn processes_of_three_machines_without_locks_do_stages_0_to_2_as_one_run_does() {
    let set = ["--set", "prep.part_size=2"];
    let mini = Mini::new();
    if command(&mini, "node0", "run-part", &[]).is_none() {
        return;
    }
    for stage in ["0", "1", "2"] {
        loop {
            let open = mini.flowmill("parts", &[&[stage], &set[..]].concat()).expect_code(0);
            let keys: Vec<&str> = open.stdout.lines().collect();
            if keys.is_empty() {
                break;
            }
            scope(|scope| {
                for process in 0..6 {
                    let (keys, mini, set) = (&keys, &mini, &set);
                    scope.spawn(move || {
                        for at in 0..keys.len() {
                            let key = keys[(at + process * keys.len() / 6) % keys.len()];
                            let done = run(
                                mini,
                                &format!("node{}", process % 3),
                                "run-part",
                                &[&[stage, key], &set[..]].concat(),
                            );
                            if done.code != Some(0) {
                                done.expect_error("part-locked", 1);
                            }
                        }
                    });
                }
            });
        }
        run(&mini, "node0", "run", &["--stage", stage, "--stop-stage", stage, set[0], set[1]])
            .expect_code(0)
            .expect_nothing_to_do();
    }
    let alone = Mini::new();
    alone.run(&[&set[..], &["--stop-stage", "2"]].concat()).expect_code(0);
    mini.tree().expect_same_bytes(&alone.tree(), "three machines against one");
}
