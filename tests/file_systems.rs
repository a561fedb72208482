//! File systems of clusters and laptops, which lack locks, fsync, modes, hard links or the exchange of names.

use std::fs;

use crate::support::errno::run_failing;
use crate::support::flowmill::host;
use crate::support::{Mini, Tree};

const ENOLCK: i32 = 37;
const ENOSYS: i32 = 38;
const EINVAL: i32 = 22;
const EPERM: i32 = 1;
const EIO: i32 = 5;
const EOPNOTSUPP: i32 = 95;

/// Returns the number of printed warnings that begin with `about`.
fn warnings(text: &str, about: &str) -> usize {
    text.lines().filter(|line| line.contains("warning") && line.contains(about)).count()
}

#[test]
fn without_locks_a_file_stands_for_one() {
    let mini = Mini::new();
    for error in [ENOLCK, ENOSYS, EOPNOTSUPP] {
        let Some(outcome) = run_failing(&mini, &[("flock", error)], &["--stop-stage", "0"]) else { return };
        let text = outcome.expect_code(0).text();
        assert_eq!(warnings(&text, "flock"), 1, "{text}");
        assert!(!mini.exp(".lock-holder").exists(), "it goes with the run");
    }
    let holder = |pid: u32, host: &str| {
        format!(r#"{{"pid":{pid},"host":"{host}","command":"flowmill run","start":"2024-01-01T00:00:00Z"}}"#)
    };
    let host = host();
    let host = host.as_str();
    // One of another machine is refused, whoever asks; one of a process that lives too; one of a dead process is taken over.
    for (pid, on, code) in [(1, "elsewhere", 1), (std::process::id(), host, 1), (u32::MAX / 2, host, 0)] {
        fs::write(mini.exp(".lock-holder"), holder(pid, on)).unwrap();
        let with = run_failing(&mini, &[("flock", ENOLCK)], &["--stop-stage", "0"]).unwrap().expect_code(code);
        if code == 1 {
            with.expect_words(&[&format!("process {pid} on {on}"), ".lock-holder"]);
            mini.run(&["--stop-stage", "0"]).expect_error("locked", 1).expect_words(&[".lock-holder"]);
            assert_eq!(fs::read_to_string(mini.exp(".lock-holder")).unwrap(), holder(pid, on));
        } else {
            with.expect_words(&[&format!("process {pid} on {on}")]);
        }
        // Whatever is left of it is no other run's concern.
        let _ = fs::remove_file(mini.exp(".lock-holder"));
    }
}

#[test]
fn without_fsync_modes_links_and_exchanges_the_same_files_come_out() {
    let undisturbed = Mini::finished();
    for (calls, about) in [
        (&[("fsync", EINVAL), ("flock", ENOSYS)][..], "fsync"),
        (&[("fchmod", EPERM), ("link", EPERM), ("renameat2", EINVAL)][..], ""),
        (&[("fsync", EOPNOTSUPP), ("fchmod", EOPNOTSUPP), ("link", EOPNOTSUPP), ("renameat2", ENOSYS)][..], "fsync"),
    ] {
        let mini = Mini::new();
        let Some(outcome) = run_failing(&mini, calls, &[]) else { return };
        let text = outcome.expect_code(0).text();
        assert_eq!(warnings(&text, "fsync"), usize::from(!about.is_empty()), "{calls:?}: {text}");
        Tree::expect_same_bytes(&mini.tree(), &undisturbed.tree(), &format!("{calls:?}"));
    }
}

#[test]
fn an_fsync_that_fails_is_not_one_that_is_not_there() {
    let mini = Mini::new();
    let Some(outcome) = run_failing(&mini, &[("fsync", EIO)], &["--stop-stage", "0"]) else { return };
    let outcome = outcome.expect_code(1);
    assert!(!mini.exp("0-prep/stage.json").exists(), "{}", outcome.text());
}
