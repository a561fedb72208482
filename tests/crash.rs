//! `kill -9` at random instants: the next run continues, and the final tree is that of an undisturbed run. Between kills logs are deleted
//! and cut and rights taken away, which costs no weights.
//!
//! The comparison excludes files about runs and not about results; see [`crate::support::tree::EXCLUDED`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::disturbance::{Disturbance, Person, checkpoints, results};
use crate::support::flowmill::{Outcome, command, outcome};
use crate::support::mini::repository;
use crate::support::random::Random;
use crate::support::{Mini, Tree, flowmill};

/// Number of kills that must hit a running process unless `FLOWMILL_TEST_KILLS` says otherwise.
const KILLS: usize = 40;
/// The most kills of one experiment whose logs are disturbed.
const KILLS_OF_ONE: usize = 10;
/// Number of recoveries of which one is killed again.
const AGAIN: u64 = 4;

/// Returns the number of kills.
fn kills() -> usize {
    std::env::var("FLOWMILL_TEST_KILLS").map_or(KILLS, |text| text.parse().expect("a whole number"))
}

/// A recipe run into a folder of its own, so that the recipe's own folder is not touched.
struct Experiment<'a> {
    recipe: PathBuf,
    folder: TempDir,
    person: Option<&'a Person>,
}

impl Experiment<'static> {
    fn new(recipe: &Path) -> Self {
        Self { recipe: recipe.to_owned(), folder: tempfile::tempdir().unwrap(), person: None }
    }
}

impl<'a> Experiment<'a> {
    /// Creates an experiment whose recipe is run by a person to whom permissions apply.
    fn of(person: &'a Person, recipe: &Path) -> Self {
        let experiment = Experiment { person: Some(person), ..Experiment::new(recipe) };
        person.give(experiment.folder.path());
        experiment
    }

    fn exp(&self) -> PathBuf {
        self.folder.path().join("exp")
    }

    fn arguments<'s>(&'s self, name: &'s str, flag: &'s str, exp: &'s str) -> [&'s str; 5] {
        [name, self.recipe.to_str().unwrap(), "--exp", exp, flag]
    }

    fn run(&self) -> Command {
        let exp = self.exp();
        let run = command(self.folder.path(), &self.arguments("run", "--quiet", exp.to_str().unwrap()));
        match self.person {
            Some(person) => person.command(run),
            None => run,
        }
    }

    /// Runs as far as it goes.
    fn outcome(&self) -> Outcome {
        let start = std::time::Instant::now();
        outcome(self.run().output().unwrap(), start.elapsed()).expect_no_panic()
    }

    /// Does something to the unfinished training; the log that it was done to, if it was one.
    fn disturb(&self, person: &Person, random: &mut Random) -> Option<&'static str> {
        match Disturbance::at_random(&self.exp(), person, random) {
            Disturbance::None => None,
            Disturbance::Log(log) => Some(log),
            unreadable @ Disturbance::Unreadable(_) => {
                let before = checkpoints(&self.exp());
                let refused = self.outcome();
                assert!(matches!(refused.code, Some(1 | 2)), "{:?}: {}", refused.code, refused.text());
                assert_eq!(before, checkpoints(&self.exp()), "nothing is touched: {}", refused.text());
                unreadable.restore();
                None
            }
        }
    }

    /// Runs to the end and gives the time that took.
    #[track_caller]
    fn finish(&self) -> Duration {
        let start = std::time::Instant::now();
        outcome(self.run().output().unwrap(), start.elapsed()).expect_code(0);
        start.elapsed()
    }

    /// Starts a run and kills it after `delay`; false when it was done before.
    fn kill_after(&self, delay: Duration) -> bool {
        let mut process = self.run().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(delay);
        let done = process.try_wait().unwrap().is_some();
        // The process is this test's own child; on this system `kill` sends SIGKILL.
        let _already_gone = process.kill();
        process.wait().unwrap();
        !done
    }

    /// The first stage that is not done.
    fn unfinished_stage(&self) -> String {
        let exp = self.exp();
        let found = flowmill(self.folder.path(), &self.arguments("status", "--json", exp.to_str().unwrap()));
        let status: Value = serde_json::from_str(&found.expect_code(0).stdout).unwrap();
        let stages = status["stages"].as_array().unwrap();
        let unfinished = stages.iter().find(|stage| stage["state"] != "done");
        unfinished.map_or("none".into(), |stage| stage["stage"].as_str().unwrap().to_string())
    }

    fn tree(&self) -> Tree {
        Tree::of(&self.exp())
    }
}

/// An undisturbed run: its files, and how long the faster of two took.
fn undisturbed(recipe: &Path, runs: usize) -> (Tree, Duration) {
    let mut fastest = Duration::MAX;
    let mut tree = None;
    for _ in 0..runs {
        let experiment = Experiment::new(recipe);
        fastest = fastest.min(experiment.finish());
        let files = experiment.tree();
        tree.get_or_insert_with(|| files.clone()).expect_same_bytes(&files, "two undisturbed runs");
    }
    let tree = tree.expect("at least one run");
    println!("an undisturbed run takes {:.2} s and makes {} files", fastest.as_secs_f64(), tree.0.len());
    (tree, fastest)
}

#[test]
fn killed_at_random_instants_the_final_tree_is_that_of_an_undisturbed_run() {
    let mut random = Random::announced("crash");
    let mini = Mini::new();
    let (expected, whole) = undisturbed(mini.folder(), 2);
    let mut hit = BTreeMap::<String, usize>::new();
    let mut landed = 0;
    for attempt in 0.. {
        if landed >= kills() {
            break;
        }
        assert!(attempt < 5 * kills(), "only {landed} kills hit a running process");
        let experiment = Experiment::new(mini.folder());
        let delay = whole.mul_f64(random.unit());
        let mut killed = experiment.kill_after(delay);
        if !killed {
            continue;
        }
        *hit.entry(experiment.unfinished_stage()).or_default() += 1;
        while killed {
            landed += 1;
            killed = random.bits().is_multiple_of(AGAIN) && experiment.kill_after(whole.mul_f64(random.unit()));
        }
        experiment.finish();
        let about = format!("attempt {attempt}, killed {:.3} s after the start", delay.as_secs_f64());
        experiment.tree().expect_same_bytes(&expected, &about);
    }
    println!("{landed} kills; the stage that was unfinished after the first of each: {hit:?}");
}

/// The mini recipe with a longer training that leaves every kind of log.
const LOGGED: &str = "\
base: recipe.yaml
name: mini
train:
  {max_steps: 240, save_every: 20, validate_every: 15, sample_every: 100, wandb: {project: crash}}
";

/// Kills an experiment again and again, with something done to its logs and rights in between, and compares what it ends in.
fn kill_and_disturb(person: &Person, undisturbed: &Path, recipe: &Path, whole: Duration, random: &mut Random) -> usize {
    let experiment = Experiment::of(person, recipe);
    let (mut landed, mut disturbed, mut told) = (0, BTreeSet::new(), Vec::new());
    // On a machine that has become slower no run may get to its end between two kills.
    while landed < KILLS_OF_ONE && experiment.kill_after(whole.mul_f64(0.2 + random.unit() / 2.0)) {
        landed += 1;
        let log = experiment.disturb(person, random);
        told.push(log.unwrap_or("nothing"));
        disturbed.extend(log);
    }
    experiment.finish();
    let (expected, found) = (results(undisturbed, &disturbed), results(&experiment.exp(), &disturbed));
    let names: BTreeSet<&PathBuf> = expected.keys().chain(found.keys()).collect();
    let different: Vec<_> = names.into_iter().filter(|name| expected.get(*name) != found.get(*name)).collect();
    assert!(different.is_empty(), "after {landed} kills, disturbed {told:?}: these files differ: {different:#?}");
    landed
}

#[test]
fn logs_that_are_lost_and_rights_that_are_missing_between_kills_cost_no_weights() {
    let mut random = Random::announced("crash with disturbed logs");
    let mini = Mini::new();
    let person = Person::unprivileged(mini.folder());
    fs::write(mini.path("logged.yaml"), LOGGED).unwrap();
    person.give(mini.folder());
    let recipe = mini.path("logged.yaml");
    let undisturbed = Experiment::of(&person, &recipe);
    let whole = undisturbed.finish();
    let mut landed = 0;
    // Each takes seconds; the long form on the demo makes them all.
    let wanted = kills().div_ceil(4);
    for _ in 0..5 * wanted {
        if landed >= wanted {
            return;
        }
        landed += kill_and_disturb(&person, &undisturbed.exp(), &recipe, whole, &mut random);
    }
    panic!("only {landed} kills hit a running process");
}

/// The long form, on the demo; about half an hour on two cores:
/// `cargo test --release -p flowmill-cli --test whole_program -- --ignored --nocapture demo`
#[test]
#[ignore = "the long form: about half an hour"]
fn killed_again_and_again_the_demo_ends_as_an_undisturbed_run() {
    let mut random = Random::announced("crash of the demo");
    let demo = repository().join("recipes/demo").canonicalize().unwrap();
    let person = Person::unprivileged(&demo);
    let undisturbed = Experiment::of(&person, &demo);
    let whole = undisturbed.finish();
    let mut landed = 0;
    while landed < kills() {
        landed += kill_and_disturb(&person, &undisturbed.exp(), &demo, whole, &mut random);
        println!("{landed} kills");
    }
}
