//! The last save of a training waits until the disk takes it, and says what would be lost.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::disk_full::{SmallDisk, fill};
use crate::support::training::{ENDLESS, PATIENCE, Training};
use crate::support::{Mini, Tree};

/// A training that saves at its end only.
const ONE_SAVE: [&str; 8] = [
    "--set",
    "train.max_steps=600",
    "--set",
    "train.save_every=0",
    "--set",
    "train.validate_every=0",
    "--set",
    "train.log_every=100",
];

/// Starts a training that can write no file larger than a few kB.
fn limited<'a>(mini: &'a Mini, arguments: &[&str]) -> Training<'a> {
    let run = mini.command("run", &[&["--stop-stage", "train"], arguments].concat());
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -S -f 16; exec \"$0\" \"$@\""]).arg(run.get_program()).args(run.get_args());
    shell.current_dir(mini.folder()).env("NO_COLOR", "1").stdin(Stdio::null());
    Training::of(mini, shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Takes the limit away.
fn lift(training: &Training) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    let id = Pid::from_raw(training.id().try_into().unwrap());
    prlimit(id, Resource::Fsize, Rlimit { current: maximum, maximum }).unwrap();
}

/// Waits until the training has come to its last save, which it cannot do.
fn until_it_waits(training: &Training) {
    let began = Instant::now();
    loop {
        let answer = training.ctl(&["status"]);
        if answer.text().contains("waits until it can save") {
            answer.expect_code(1);
            return;
        }
        assert!(began.elapsed() < PATIENCE, "it does not wait: {}", answer.text());
        sleep(Duration::from_millis(20));
    }
}

fn signal(training: &mut Training, signal: Signal) {
    kill_process(Pid::from_child(training.process()), signal).unwrap();
}

/// Returns true if the training still runs after it could have ended.
fn goes_on(training: &mut Training) -> bool {
    sleep(Duration::from_millis(700));
    training.process().try_wait().unwrap().is_none()
}

/// Returns the files of such a training.
fn undisturbed() -> Tree {
    let mini = Mini::packed();
    Training::start(&mini, &ONE_SAVE).wait().expect_code(0);
    Tree::of(&mini.exp("4-train"))
}

#[test]
fn a_full_disk_at_the_end_is_waited_for_and_what_can_be_freed_is_named() {
    let expected = undisturbed();
    let mini = Mini::new();
    let exp = mini.path("exp");
    let _disk = match SmallDisk::mount(&exp, "20m") {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: a small disk cannot be mounted here ({reason})"),
    };
    mini.run(&["--stop-stage", "pack", "--quiet"]).expect_code(0);
    let mut training = Training::start(&mini, &ONE_SAVE).listening();
    training.ctl(&["sample"]).expect_code(0);
    fill(&exp.join("ballast"));
    until_it_waits(&training);
    signal(&mut training, Signal::INT);
    assert!(goes_on(&mut training), "one Ctrl-C only says what would be lost");
    fs::remove_file(exp.join("ballast")).unwrap();
    let ended = training.wait();
    let made = mini.exp("on-command").display().to_string();
    let words = ["steps 1 to 600", "No space left on device", &made];
    let ended = ended.expect_no_panic().expect_words(&words);
    assert!(matches!(ended.code, Some(0 | 130)), "{:?}: {}", ended.code, ended.text());
    mini.run(&[&["--stop-stage", "train"], &ONE_SAVE[..]].concat()).expect_code(0);
    Tree::of(&mini.exp("4-train")).expect_same_bytes(&expected, "after the wait");
}

#[test]
fn a_limit_on_file_sizes_is_waited_for_too() {
    let expected = undisturbed();
    let mini = Mini::packed();
    let training = limited(&mini, &ONE_SAVE).listening();
    until_it_waits(&training);
    lift(&training);
    training.wait().expect_code(0).expect_words(&["steps 1 to 600", "File too large"]);
    Tree::of(&mini.exp("4-train")).expect_same_bytes(&expected, "after the wait");
}

#[test]
fn an_interrupted_training_that_cannot_save_says_what_a_second_signal_would_cost() {
    for (first, second) in [(Signal::INT, Signal::INT), (Signal::TERM, Signal::INT), (Signal::USR1, Signal::TERM)] {
        let mini = Mini::packed();
        let mut training = limited(&mini, &ENDLESS).listening();
        training.ctl(&["status"]).expect_code(0);
        signal(&mut training, first);
        until_it_waits(&training);
        signal(&mut training, second);
        assert!(goes_on(&mut training), "the next one only says what would be lost");
        signal(&mut training, second);
        let ended = training.wait().expect_code(130);
        ended.expect_words(&["steps 1 to"]);
    }
}

#[test]
fn an_interrupted_training_that_can_save_at_last_goes_on_from_there() {
    let mini = Mini::packed();
    let mut training = limited(&mini, &ENDLESS).listening();
    training.ctl(&["status"]).expect_code(0);
    signal(&mut training, Signal::INT);
    until_it_waits(&training);
    lift(&training);
    training.wait().expect_code(130);
    let again = Training::start(&mini, &ENDLESS).listening();
    again.ctl(&["quit"]).expect_code(0);
    again.wait().expect_code(130).expect_resumed();
}

#[test]
fn who_asked_for_quiet_is_told_too() {
    let mini = Mini::packed();
    let training = limited(&mini, &[&ONE_SAVE[..], &["--quiet"]].concat()).listening();
    until_it_waits(&training);
    lift(&training);
    let ended = training.wait().expect_code(0);
    assert!(ended.stderr.contains("steps 1 to 600"), "{}", ended.stderr);
}
