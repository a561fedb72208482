//! Reruns: which parts run again, and the reason that is given.

mod toy;

use std::fs;

use flowmill_runner::{ReasonKind, RunError, RunSummary};
use toy::{Toy, only, options, ran_because, times, tree};

const ALL: [&str; 6] = [
    "0-read/lines/part-00000",
    "0-read/lines/part-00001",
    "1-join/all",
    "1-join/copy/lines/part-00000",
    "1-join/copy/lines/part-00001",
    "2-learn/model",
];

/// Rows in, rows out and rejected rows of each stage.
fn rows(summary: &RunSummary) -> Vec<(u64, u64, u64)> {
    summary.stages.iter().map(|stage| (stage.rows_in, stage.rows_out, stage.rejected)).collect()
}

#[test]
fn the_first_run_runs_everything_and_the_second_nothing() {
    let toy = Toy::new(2);
    let (result, said) = toy.run(&[]);
    let first = result.unwrap();
    let ran: Vec<usize> = first.stages.iter().map(|stage| stage.ran_keys.len()).collect();
    assert_eq!(ran, [2, 3, 1]);
    assert_eq!(rows(&first)[..2], [(6, 6, 0), (6, 6, 0)]);
    ran_because(&first, "0-read", ReasonKind::NeverRun, &[]);
    assert!(said.contains("Read the lines"), "the title of a stage is shown: {said}");
    let (before, when) = (tree(&toy.exp()), times(&toy.exp()));
    let started = std::time::Instant::now();
    let (ran, second) = toy.ran_with_summary(&[]);
    assert!(started.elapsed().as_secs_f64() < 0.5);
    assert!(ran.is_empty() && second.stages.iter().all(|stage| stage.reasons.is_empty()), "{second:?}");
    assert_eq!(rows(&second), rows(&first));
    assert_eq!(tree(&toy.exp()), before);
    assert_eq!(times(&toy.exp()), when);
}

#[test]
fn two_runs_in_different_places_leave_the_same_bytes() {
    let (one, two) = (Toy::new(3), Toy::new(3));
    one.ran(&[]);
    let mut options = options();
    options.jobs = 1;
    two.run_with(&[], &options).0.unwrap();
    assert_eq!(tree(&one.exp()), tree(&two.exp()));
    let names: Vec<String> = tree(&one.exp()).into_iter().map(|(name, _)| name).collect();
    assert!(names.iter().all(|name| !name.contains("staging") && !name.contains("tmp")), "{names:?}");
}

#[test]
fn a_touched_input_runs_nothing_and_a_changed_one_its_own_parts() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    let input = toy.path("data/file-00001.txt");
    let text = fs::read_to_string(&input).unwrap();
    fs::write(&input, &text).unwrap();
    assert!(toy.ran(&[]).0.is_empty());
    fs::write(&input, text.replace("second", "SECOND")).unwrap();
    let (ran, summary) = toy.ran_with_summary(&[]);
    let expected = ["0-read/lines/part-00001", "1-join/all", "1-join/copy/lines/part-00001", "2-learn/model"];
    assert_eq!(ran, expected);
    ran_because(&summary, "0-read", ReasonKind::InputChanged, &["data/file-00001.txt"]);
    ran_because(&summary, "1-join", ReasonKind::InputChanged, &["0-read/lines/part-00001.txt"]);
    ran_because(&summary, "2-learn", ReasonKind::InputChanged, &["1-join/all/text.txt"]);
}

#[test]
fn a_change_that_leads_to_the_same_output_stops_there() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    let (ran, summary) = toy.ran_with_summary(&["join.separator=\"\\n\""]);
    assert_eq!(ran, ["1-join/all"]);
    ran_because(&summary, "1-join", ReasonKind::Field, &["join.separator", "null", "\"\\n\""]);
}

#[test]
fn a_changed_field_is_named_with_both_values() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    let (ran, summary) = toy.ran_with_summary(&["learn.optim.learning_rate=5e-4"]);
    assert_eq!(ran, ["2-learn/model"]);
    ran_because(&summary, "2-learn", ReasonKind::Field, &["learn.optim.learning_rate", "0.001", "0.0005"]);
    let (_, summary) = toy.ran_with_summary(&["seed=2", "learn.optim.learning_rate=5e-4"]);
    ran_because(&summary, "2-learn", ReasonKind::Field, &["seed", "1", "2"]);
}

#[test]
fn a_new_version_runs_all_of_its_stage() {
    let mut toy = Toy::new(2);
    toy.ran(&[]);
    toy.bent.read_version = 1;
    let (ran, summary) = toy.ran_with_summary(&[]);
    assert_eq!(ran, ALL[..2]);
    ran_because(&summary, "0-read", ReasonKind::Version, &["1", "2"]);
}

#[test]
fn a_damaged_output_runs_its_part_again_and_heals() {
    let toy = Toy::new(3);
    toy.ran(&[]);
    let whole = tree(&toy.exp());
    let output = toy.exp().join("0-read/lines/part-00001.txt");
    let mut bytes = fs::read(&output).unwrap();
    bytes[3] ^= 1;
    fs::write(&output, bytes).unwrap();
    let (ran, summary) = toy.ran_with_summary(&[]);
    assert_eq!(ran, ["0-read/lines/part-00001"]);
    ran_because(&summary, "0-read", ReasonKind::OutputDiffers, &["0-read/lines/part-00001.txt"]);
    assert_eq!(tree(&toy.exp()), whole);
    fs::remove_file(&output).unwrap();
    let (ran, summary) = toy.ran_with_summary(&[]);
    assert_eq!(ran, ["0-read/lines/part-00001"]);
    ran_because(&summary, "0-read", ReasonKind::OutputMissing, &["0-read/lines/part-00001.txt"]);
    assert_eq!(tree(&toy.exp()), whole);
}

#[test]
fn damage_behind_unchanged_times_is_found_by_verify() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    let whole = tree(&toy.exp());
    // A cache with a wrong hash simulates a change that size, times and inode do not show.
    let output = toy.exp().join("1-join/all/text.txt");
    fs::write(&output, fs::read_to_string(&output).unwrap().replace("first", "FIRST")).unwrap();
    let mut verify = options();
    verify.verify = true;
    let (result, _) = toy.run_with(&[], &verify);
    assert_eq!(result.unwrap().stages[1].ran_keys, ["all"]);
    assert_eq!(tree(&toy.exp()), whole);
}

#[test]
fn a_damaged_receipt_runs_its_part_again() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    let whole = tree(&toy.exp());
    let receipt = toy.exp().join("1-join/receipts/all.json");
    for damage in [&b"{"[..], b"", b"\xff\xfe", b"{\"blake3\":\"0\",\n\"content\":{}}\n"] {
        fs::write(&receipt, damage).unwrap();
        let (ran, summary) = toy.ran_with_summary(&[]);
        assert_eq!(ran, ["1-join/all"]);
        ran_because(&summary, "1-join", ReasonKind::ReceiptDamaged, &[]);
        assert_eq!(tree(&toy.exp()), whole);
    }
    let text = fs::read_to_string(&receipt).unwrap().replace("\"files\": 2", "\"files\": 3");
    fs::write(&receipt, text).unwrap();
    assert_eq!(toy.ran(&[]).0, ["1-join/all"], "one digit changed");
}

#[test]
fn a_damaged_cache_or_summary_costs_nothing_but_time() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    let whole = tree(&toy.exp());
    fs::write(toy.exp().join(".cache/content"), b"nonsense").unwrap();
    fs::write(toy.exp().join("0-read/stage.json"), b"nonsense").unwrap();
    assert!(toy.ran(&[]).0.is_empty());
    assert_eq!(tree(&toy.exp()), whole);
    fs::remove_dir_all(toy.exp().join(".cache")).unwrap();
    assert!(toy.ran(&[]).0.is_empty());
}

#[test]
fn parts_no_longer_planned_are_removed_and_parts_that_moved_keep_their_files() {
    let toy = Toy::new(3);
    toy.ran(&[]);
    fs::remove_file(toy.path("data/file-00002.txt")).unwrap();
    let (_, said) = toy.ran(&[]);
    for removed in [" lines/part-00002\n", " copy/lines/part-00002\n"] {
        assert!(said.contains(removed), "{removed}: {said}");
    }
    let fresh = Toy::new(2);
    fresh.ran(&[]);
    assert_eq!(tree(&toy.exp()), tree(&fresh.exp()));
}

#[test]
fn a_new_input_file_is_a_new_part() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    toy.write("data/file-00002.txt", "first 2\nsecond line 2\nx\n");
    let (ran, summary) = toy.ran_with_summary(&[]);
    assert_eq!(ran, ["0-read/lines/part-00002", "1-join/all", "1-join/copy/lines/part-00002", "2-learn/model"]);
    ran_because(&summary, "1-join", ReasonKind::InputAdded, &["1-join/copy/lines/part-00002.txt"]);
    let fresh = Toy::new(3);
    fresh.ran(&[]);
    assert_eq!(tree(&toy.exp()), tree(&fresh.exp()));
}

#[test]
fn force_runs_the_selected_stages_and_changes_no_byte() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    let whole = tree(&toy.exp());
    let mut force = only("join", "1");
    force.force = true;
    let summary = toy.run_with(&[], &force).0.unwrap();
    assert_eq!(summary.stages[0].ran, 3);
    ran_because(&summary, "1-join", ReasonKind::Forced, &[]);
    assert_eq!(tree(&toy.exp()), whole);
}

#[test]
fn a_stage_whose_predecessor_is_not_there_says_which_to_run() {
    let toy = Toy::new(2);
    let (result, _) = toy.run_with(&[], &only("1-join", "2"));
    let error = result.unwrap_err();
    let RunError::NotFinished { stage, missing, number: 0, .. } = &error else { panic!("{error}") };
    assert_eq!((stage.as_str(), missing.as_str(), error.exit_code()), ("1-join", "0-read", 2));
    toy.ran(&[]);
    fs::remove_file(toy.exp().join("0-read/lines/part-00000.txt")).unwrap();
    let error = toy.run_with(&[], &only("1", "2")).0.unwrap_err();
    let RunError::NotFinished { stage, missing, number: 0, why } = &error else { panic!("{error}") };
    assert_eq!((stage.as_str(), missing.as_str()), ("1-join", "0-read"));
    assert!(why.contains("0-read/lines/part-00000.txt"), "the missing file is named: {why}");
}

#[test]
fn stages_that_do_not_exist_or_stand_the_wrong_way_round_are_usage_errors() {
    let toy = Toy::new(1);
    let error = toy.run_with(&[], &only("7", "7")).0.unwrap_err();
    let RunError::Usage(text) = &error else { panic!("{error}") };
    assert!(["`7`", "0-read", "1-join", "2-learn"].iter().all(|name| text.contains(name)), "{text}");
    assert_eq!(error.exit_code(), 2);
    let error = toy.run_with(&[], &only("learn", "read")).0.unwrap_err();
    let RunError::Usage(text) = &error else { panic!("{error}") };
    assert!(["2-learn", "0-read"].iter().all(|name| text.contains(name)), "{text}");
}

#[test]
fn a_dry_run_says_what_would_run_and_touches_nothing() {
    let toy = Toy::new(2);
    let mut dry = options();
    dry.dry_run = true;
    let summary = toy.run_with(&[], &dry).0.unwrap();
    assert_eq!((summary.stages[0].ran, summary.stages[0].parts), (2, 2));
    assert!(!toy.path("exp").exists());
    ran_because(&summary, "0-read", ReasonKind::NeverRun, &[]);
    let waiting = &summary.stages[1];
    assert_eq!((waiting.ran, waiting.parts, waiting.reasons.len()), (0, 0, 0), "compared when 0-read is done");
    toy.ran(&[]);
    let (before, when) = (tree(&toy.path("exp")), times(&toy.path("exp")));
    let (result, said) = toy.run_with(&["learn.steps=7"], &dry);
    let summary = result.unwrap();
    assert_eq!(summary.stages.iter().map(|stage| stage.ran).collect::<Vec<_>>(), [0, 0, 1]);
    ran_because(&summary, "2-learn", ReasonKind::Field, &["learn.steps", "6", "7"]);
    assert_eq!(said.lines().count(), 3, "a line for each stage: {said}");
    assert_eq!(tree(&toy.path("exp")), before);
    assert_eq!(times(&toy.path("exp")), when);
}
