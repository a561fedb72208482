//! A stage replaces a good result only by a good one.

mod toy;

use std::fs;

use flowmill_runner::{RunError, RunOptions};
use toy::{Toy, interrupted, only, options, tree};

/// Returns the files of an experiment without those that a failed attempt leaves for the next one.
fn results(toy: &Toy) -> Vec<(String, Vec<u8>)> {
    tree(&toy.exp()).into_iter().filter(|(name, _)| !name.contains(".staging")).collect()
}

fn kept(error: &RunError) -> &RunError {
    match error {
        RunError::Kept { source, stage, .. } if stage == "0-read" => source,
        other => panic!("{other}"),
    }
}

/// Returns a finished toy whose next run makes all parts of `0-read` again.
fn outdated() -> Toy {
    let mut toy = Toy::new(3);
    toy.ran(&[]);
    toy.bent.read_version = 1;
    toy
}

#[test]
fn a_part_that_fails_or_panics_leaves_the_last_result_and_what_is_done_is_kept() {
    let fresh = |toy: &Toy| {
        let mut fresh = Toy::new(3);
        fresh.bent.read_version = toy.bent.read_version;
        fresh.ran(&[]);
        tree(&fresh.exp())
    };
    for panics in [false, true] {
        let mut toy = outdated();
        let before = results(&toy);
        let broken = Some("lines/part-00002");
        if panics {
            toy.bent.panic_in = broken
        } else {
            toy.bent.fail_in = broken
        }
        let one = RunOptions { jobs: 1, ..options() };
        let error = toy.run_with(&[], &one).0.unwrap_err();
        assert_eq!(matches!(kept(&error), RunError::Panic { .. }), panics, "{error}");
        assert_eq!(results(&toy), before);
        // Later stages use the result that was put back.
        toy.run_with(&[], &only("join", "learn")).0.unwrap();
        assert_eq!(results(&toy), before);
        (toy.bent.panic_in, toy.bent.fail_in) = (None, None);
        let (ran, _) = toy.ran(&[]);
        assert_eq!(ran, ["0-read/lines/part-00002"], "the others were done");
        assert_eq!(tree(&toy.exp()), fresh(&toy));
    }
}

#[test]
fn what_is_done_is_forgotten_when_it_is_not_wanted_any_more() {
    let mut toy = outdated();
    let before = tree(&toy.exp());
    toy.bent.fail_in = Some("lines/part-00002");
    toy.run(&[]).0.unwrap_err();
    (toy.bent.fail_in, toy.bent.read_version) = (None, 0);
    assert!(toy.ran(&[]).0.is_empty());
    assert_eq!(tree(&toy.exp()), before);
}

#[test]
fn inputs_that_are_gone_refuse_and_parts_that_are_planned_no_longer_do_not() {
    let toy = Toy::new(3);
    toy.ran(&[]);
    // The stage lists its folder, so the file is no longer planned: this is different data.
    fs::remove_file(toy.path("data/file-00002.txt")).unwrap();
    toy.ran(&[]);
    // Two files of one part: it is still planned, and one of its files is missing.
    let toy = Toy::new(2);
    let per_part = ["read.per_part=2"];
    toy.ran(&per_part);
    let before = tree(&toy.exp());
    let link = toy.path("data/file-00001.txt");
    fs::rename(&link, toy.path("elsewhere.txt")).unwrap();
    std::os::unix::fs::symlink(toy.path("not-mounted/file-00001.txt"), &link).unwrap();
    let error = toy.run(&per_part).0.unwrap_err();
    assert!(matches!(kept(&error), RunError::InputsGone { gone, .. } if gone.len() == 1), "{error}");
    assert!(matches!(&error, RunError::Kept { next: Some(1), .. }), "{error}");
    assert_eq!(tree(&toy.exp()), before);
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn an_interrupted_replacement_goes_on_or_is_taken_back() {
    let toy = outdated();
    let before = tree(&toy.exp());
    let error = toy.run_with(&[], &interrupted()).0.unwrap_err();
    assert_eq!((error.exit_code(), tree(&toy.exp())), (130, before));
}
