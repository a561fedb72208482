//! `status` and `clean`.

mod toy;

use std::fs;

use flowmill_runner::{Experiment, ReasonKind, Reporter, StageRange, StageState, StageStatus, clean, status};
use toy::{Toy, only, times, tree};

fn look(toy: &Toy, set: &[&str]) -> Vec<StageStatus> {
    let recipe = toy.recipe(set).unwrap();
    status(&toy.stages(), &recipe, &Experiment::of_recipe(&recipe)).unwrap()
}

fn states(all: &[StageStatus]) -> Vec<StageState> {
    all.iter().map(|stage| stage.state).collect()
}

fn reasons(stage: &StageStatus) -> Vec<(ReasonKind, usize)> {
    stage.reasons.iter().map(|count| (count.kind, count.parts)).collect()
}

/// The words of the first reason name all of `values`.
fn names(stage: &StageStatus, values: &[&str]) -> bool {
    values.iter().all(|value| stage.reasons[0].reason.contains(value))
}

#[test]
fn every_stage_is_shown_with_its_state_rows_and_reasons() {
    use StageState::{Done, Never, Stale, Waiting};
    let toy = Toy::new(2);
    let all = look(&toy, &[]);
    assert_eq!(states(&all), [Never, Never, Never]);
    assert_eq!(reasons(&all[0]), [(ReasonKind::NeverRun, 2)]);
    assert_eq!(reasons(&all[1]), [(ReasonKind::Waits, 0)]);
    assert!(names(&all[1], &["0-read"]));
    assert!(!toy.exp().exists(), "status writes nothing");

    toy.ran(&["read.min_length=2"]);
    let (before, when) = (tree(&toy.exp()), times(&toy.exp()));
    let all = look(&toy, &["read.min_length=2"]);
    assert_eq!(states(&all), [Done, Done, Done]);
    assert_eq!((all[0].rows_in, all[0].rows_out, all[0].rejected), (Some(6), Some(4), Some(2)));
    assert_eq!((all[2].rows_in, all[2].parts, all[2].to_run), (None, 1, 0));
    assert!(all[0].age.unwrap().as_secs() < 60 && all[0].reasons.is_empty());

    let all = look(&toy, &["read.min_length=1"]);
    assert_eq!(states(&all), [Stale, Waiting, Waiting]);
    assert_eq!(reasons(&all[0]), [(ReasonKind::Field, 2)]);
    assert!(names(&all[0], &["read.min_length", "2", "1"]));

    let all = look(&toy, &["read.min_length=2", "learn.steps=7"]);
    assert_eq!(states(&all), [Done, Done, Stale]);
    assert_eq!(reasons(&all[2]), [(ReasonKind::Field, 1)]);
    assert!(names(&all[2], &["learn.steps", "6", "7"]));
    assert_eq!((tree(&toy.exp()), times(&toy.exp())), (before, when));
}

#[test]
fn a_stage_that_failed_half_way_is_partial() {
    let mut toy = Toy::new(3);
    toy.bent.fail_in = Some("lines/part-00002");
    toy.run(&[]).0.unwrap_err();
    let all = look(&toy, &[]);
    assert_eq!(all[0].state, StageState::Partial);
    assert_eq!((all[0].parts, all[0].to_run), (3, 1));
    assert!(all[0].age.is_some());
}

#[test]
fn a_stage_that_cannot_plan_on_damaged_ground_waits() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    fs::remove_file(toy.exp().join("0-read/receipts/lines/part-00000.json")).unwrap();
    assert_eq!(states(&look(&toy, &[])), [StageState::Stale, StageState::Waiting, StageState::Waiting]);
    toy.ran(&[]);
    assert_eq!(states(&look(&toy, &[])), [StageState::Done; 3]);
}

#[test]
fn clean_removes_the_selected_stages_and_the_next_run_makes_them_again() {
    let toy = Toy::new(2);
    toy.ran(&[]);
    let whole = tree(&toy.exp());
    let experiment = Experiment::at(toy.exp()).unwrap();
    let range: StageRange = only("1", "learn").stages;
    let doomed = clean(&toy.stages(), &experiment, &range, true, "clean", &Reporter::quiet()).unwrap();
    assert_eq!(doomed, [toy.exp().join("1-join"), toy.exp().join("2-learn")]);
    assert_eq!(tree(&toy.exp()), whole, "only said so");
    clean(&toy.stages(), &experiment, &range, false, "clean", &Reporter::quiet()).unwrap();
    assert!(toy.exp().join("0-read").exists() && !toy.exp().join("1-join").exists());
    let (ran, _) = toy.ran(&[]);
    assert_eq!(ran.len(), 4);
    assert_eq!(tree(&toy.exp()), whole);
}
