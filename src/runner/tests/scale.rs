//! The time that a thousand parts and many input files take. Run with `--ignored --nocapture` to see the figures.

mod toy;

use std::fs;
use std::time::Instant;

use flowmill_runner::{
    Experiment, Part, PartReport, Phase, PlanContext, Recipe, RecipeError, Reporter, Stage, StageError, run, status,
};
use serde_json::json;
use toy::{Toy, options};

/// A thousand parts of a thousand rows each; with inputs, each reads its share of the files.
struct Many {
    files: usize,
}

const PARTS: usize = 1000;

impl Stage for Many {
    fn number(&self) -> u8 {
        0
    }
    fn name(&self) -> &'static str {
        "read"
    }
    fn title(&self) -> &'static str {
        "Many"
    }
    fn version(&self) -> u32 {
        1
    }
    fn check(&self, _: &Recipe) -> Result<(), RecipeError> {
        Ok(())
    }
    fn show(&self, _: &Recipe) -> Result<serde_json::Value, RecipeError> {
        Ok(json!({}))
    }
    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        if phase > 0 {
            return Ok(None);
        }
        let parts = (0..PARTS).map(|part| {
            let share = self.files / PARTS;
            let files = (part * share..(part + 1) * share).map(|at| context.resolve(&file(at)));
            let key = format!("train/part-{part:05}");
            let config = json!({"rate": 24_000, "trim": {"top_db": 60.0}, "split": "train"});
            Part::new(key.clone()).config(config).inputs(files).rows(1000).work(move |work| {
                fs::write(work.output(&format!("{key}.bin"))?, part.to_string().repeat(1000))?;
                Ok(PartReport::rows(1000, 1000).fact("hours", 0.25))
            })
        });
        Ok(Some(Phase::new("parts", parts.collect())))
    }
}

fn file(at: usize) -> String {
    format!("data/{:04}/speaker-{at:07}-utterance.flac", at / 1000)
}

fn measure(files: usize) -> [f64; 3] {
    let toy = Toy::new(0);
    for at in 0..files {
        toy.write(&file(at), &format!("{at} {}", "x".repeat(200)));
    }
    let stages: Vec<Box<dyn Stage>> = vec![Box::new(Many { files })];
    let recipe = toy.recipe(&[]).unwrap();
    let experiment = Experiment::of_recipe(&recipe);
    let timed = |what: &mut dyn FnMut()| {
        let started = Instant::now();
        what();
        started.elapsed().as_secs_f64()
    };
    let first = timed(&mut || drop(run(&stages, &recipe, &experiment, &options(), &Reporter::quiet()).unwrap()));
    let second = timed(&mut || {
        let summary = run(&stages, &recipe, &experiment, &options(), &Reporter::quiet()).unwrap();
        assert_eq!(summary.stages[0].ran, 0);
    });
    let look = timed(&mut || {
        let all = status(&stages, &recipe, &experiment).unwrap();
        assert_eq!((all[0].to_run, all[0].rows_out), (0, Some(1_000_000)));
    });
    println!("{PARTS} parts, {files} input files: first run {first:.2} s, second {second:.2} s, status {look:.2} s");
    [first, second, look]
}

#[test]
fn a_thousand_parts_and_a_million_rows_are_quick_to_commit_and_to_look_at() {
    let [first, second, look] = measure(0);
    // Aims: 5 s, 0.5 s, 1 s; the bounds leave room for a busy machine.
    assert!(first < 20.0 && second < 1.0 && look < 1.0, "{first} {second} {look}");
}

#[test]
#[ignore = "makes many files; FLOWMILL_SCALE_FILES says how many"]
fn many_input_files() {
    let files = std::env::var("FLOWMILL_SCALE_FILES").ok().and_then(|text| text.parse().ok());
    measure(files.unwrap_or(1_000_000));
}
