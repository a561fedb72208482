//! Tests of `-v` and `RUST_LOG`: a log for whoever debugs a run, and not a byte of it without them.

use std::process::Command;

use crate::support::Mini;
use crate::support::flowmill::outcome;

/// Levels that a line of the log has after its time.
const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/// The lines of a log in what was printed, and the rest.
fn parted(text: &str) -> (Vec<&str>, Vec<&str>) {
    let is_log = |line: &&str| line.split_whitespace().nth(1).is_some_and(|level| LEVELS.contains(&level));
    text.lines().partition(is_log)
}

fn run(mut command: Command) -> (String, String) {
    let outcome = outcome(command.output().unwrap(), Default::default()).expect_code(0);
    (outcome.stdout, outcome.stderr)
}

#[test]
fn a_run_says_what_it_decides_and_why_where_it_is_asked_to_and_nothing_else_changes() {
    let mini = Mini::new();
    let (_, errors) = run(mini.command("run", &["-vv"]));
    let (log, _) = parted(&errors);
    for words in [
        "recipe loaded",
        "lock taken",
        "planned",
        "to run",
        "published",
        "loading an extractor",
        "data opened",
        "shard opened",
        "batches planned",
        "training begins",
        "saving a checkpoint",
        "validated",
        "averaging a checkpoint",
        "loading an exported model",
        "lock given up",
    ] {
        assert!(log.iter().any(|line| line.contains(words)), "{words}");
    }
    let of_training = |line: &&&str| line.contains("to run") && line.contains("4-train");
    assert_eq!(log.iter().filter(of_training).count(), 1);

    // Without flag and variable: as ever. The last line has a duration.
    let plain = run(mini.command("status", &[]));
    assert!(parted(&plain.1).0.is_empty(), "{}", plain.1);
    let (results, errors) = run(mini.command("status", &["-v"]));
    let (log, rest) = parted(&errors);
    assert_eq!((results, rest.join("\n")), (plain.0, plain.1.trim_end().to_owned()));
    assert!(!log.is_empty() && log.iter().all(|line| line.contains(" INFO ")), "{log:?}");

    let with_variable = |arguments: &[&str], directives: &str| {
        let mut command = mini.command("run", arguments);
        command.env("RUST_LOG", directives);
        run(command).1
    };
    let errors = with_variable(&["-vv"], "flowmill_runner::lockfile=info");
    let (log, _) = parted(&errors);
    assert!(log.len() == 2 && log.iter().all(|line| line.contains("flowmill_runner::lockfile")), "{log:?}");
    let errors = with_variable(&["--dry-run"], "flowmill_runner=debug");
    assert!(parted(&errors).0.iter().any(|line| line.contains("DEBUG")), "{errors}");
}
