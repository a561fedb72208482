//! Reruns: which parts run again, and the reason that is given.

mod toy;

use std::fs;

use toy::{Toy, only, options, times, tree};

const ALL: [&str; 6] = [
    "0-read/lines/part-00000",
    "0-read/lines/part-00001",
    "1-join/all",
    "1-join/copy/lines/part-00000",
    "1-join/copy/lines/part-00001",
    "2-learn/model",
];

fn contains(said: &str, words: &str) {
    assert!(said.contains(words), "not said: {words}\n{said}");
}

#[test]
fn the_first_run_runs_everything_and_the_second_nothing() {
    let toy = Toy::new(2);
    let (ran, said) = toy.ran(&[]);
    assert_eq!(ran, ALL);
    contains(&said, "0-read: Read the lines\n");
    contains(&said, "0-read: 6 rows in, 6 out, 0 rejected, ");
    contains(&said, "1-join: 6 rows in, 6 out, 0 rejected, ");
    let (before, when) = (tree(&toy.exp()), times(&toy.exp()));
    let started = std::time::Instant::now();
    let (ran, said) = toy.ran(&[]);
    assert!(started.elapsed().as_secs_f64() < 0.5);
    assert!(ran.is_empty());
    contains(&said, "0-read: up to date, 6 rows in, 6 out, 0 rejected\n");
    contains(&said, "nothing to do: all 3 stages are up to date");
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
    let (ran, said) = toy.ran(&[]);
    let expected = ["0-read/lines/part-00001", "1-join/all", "1-join/copy/lines/part-00001", "2-learn/model"];
    assert_eq!(ran, expected);
    contains(&said, "lines: 1 of 2 parts, because input data/file-00001.txt changed\n");
    contains(&said, "copy: 1 of 2 parts, because input 0-read/lines/part-00001.txt changed\n");
    contains(&said, "steps: 1 part, because input 1-join/all/text.txt changed\n");
}

#[test]
fn a_change_that_leads_to_the_same_output_stops_there() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    let (ran, said) = toy.ran(&["join.separator=\"\\n\""]);
    assert_eq!(ran, ["1-join/all"]);
    contains(&said, "join: 1 part, because join.separator: null → \"\\n\"\n");
    contains(&said, "2-learn: up to date\n");
}

#[test]
fn a_changed_field_is_named_with_both_values() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    let (ran, said) = toy.ran(&["learn.optim.learning_rate=5e-4"]);
    assert_eq!(ran, ["2-learn/model"]);
    contains(&said, "because learn.optim.learning_rate: 0.001 → 0.0005\n");
    let (_, said) = toy.ran(&["seed=2", "learn.optim.learning_rate=5e-4"]);
    contains(&said, "because seed: 1 → 2\n");
}

#[test]
fn a_new_version_runs_all_of_its_stage() {
    let mut toy = Toy::new(2);
    toy.ran(&[]);
    toy.bent.read_version = 1;
    let (ran, said) = toy.ran(&[]);
    assert_eq!(ran, ALL[..2]);
    contains(&said, "because stage version 1 → 2\n");
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
    let (ran, said) = toy.ran(&[]);
    assert_eq!(ran, ["0-read/lines/part-00001"]);
    contains(&said, "because output 0-read/lines/part-00001.txt differs from its receipt\n");
    assert_eq!(tree(&toy.exp()), whole);
    fs::remove_file(&output).unwrap();
    let (ran, said) = toy.ran(&[]);
    assert_eq!(ran, ["0-read/lines/part-00001"]);
    contains(&said, "because output 0-read/lines/part-00001.txt is missing\n");
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
        let (ran, said) = toy.ran(&[]);
        assert_eq!(ran, ["1-join/all"]);
        contains(&said, "because the receipt cannot be used: it is damaged");
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
    contains(&said, "0-read: removed 1 part no longer planned: lines/part-00002\n");
    contains(&said, "1-join: removed 1 part no longer planned: copy/lines/part-00002\n");
    let fresh = Toy::new(2);
    fresh.ran(&[]);
    assert_eq!(tree(&toy.exp()), tree(&fresh.exp()));
}

#[test]
fn a_new_input_file_is_a_new_part() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    toy.write("data/file-00002.txt", "first 2\nsecond line 2\nx\n");
    let (ran, said) = toy.ran(&[]);
    assert_eq!(ran, ["0-read/lines/part-00002", "1-join/all", "1-join/copy/lines/part-00002", "2-learn/model"]);
    contains(&said, "because input 1-join/copy/lines/part-00002.txt is new\n");
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
    let (result, said) = toy.run_with(&[], &force);
    assert_eq!(result.unwrap().stages[0].ran, 3);
    contains(&said, "because --force\n");
    assert_eq!(tree(&toy.exp()), whole);
}

#[test]
fn a_stage_whose_predecessor_is_not_there_says_which_to_run() {
    let toy = Toy::new(2);
    let (result, _) = toy.run_with(&[], &only("1-join", "2"));
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "1-join needs 0-read, which has never run; run it first: --stage 0");
    assert_eq!(error.exit_code(), 2);
    toy.ran(&[]);
    fs::remove_file(toy.exp().join("0-read/lines/part-00000.txt")).unwrap();
    let error = toy.run_with(&[], &only("1", "2")).0.unwrap_err();
    let expected = "1-join needs 0-read, which is damaged (output 0-read/lines/part-00000.txt is missing)";
    contains(&error.to_string(), expected);
}

#[test]
fn stages_that_do_not_exist_or_stand_the_wrong_way_round_are_usage_errors() {
    let toy = Toy::new(1);
    let error = toy.run_with(&[], &only("7", "7")).0.unwrap_err();
    assert_eq!(error.to_string(), "there is no stage `7` (known: 0-read, 1-join, 2-learn)");
    assert_eq!(error.exit_code(), 2);
    let error = toy.run_with(&[], &only("learn", "read")).0.unwrap_err();
    assert_eq!(error.to_string(), "the first stage, 2-learn, comes after the last one, 0-read");
}

#[test]
fn a_dry_run_says_what_would_run_and_touches_nothing() {
    let toy = Toy::new(2);
    let mut dry = options();
    dry.dry_run = true;
    let (result, said) = toy.run_with(&[], &dry);
    assert_eq!(result.unwrap().stages[0].ran, 2);
    assert!(!toy.path("exp").exists());
    contains(&said, "0-read: would run: 2 of 2 parts: never run\n");
    contains(&said, "1-join: compared when 0-read is done\n");
    toy.ran(&[]);
    let (before, when) = (tree(&toy.path("exp")), times(&toy.path("exp")));
    let (_, said) = toy.run_with(&["learn.steps=7"], &dry);
    contains(&said, "1-join: up to date\n2-learn: would run: 1 of 1 part: learn.steps: 6 → 7\n");
    assert_eq!(tree(&toy.path("exp")), before);
    assert_eq!(times(&toy.path("exp")), when);
}
