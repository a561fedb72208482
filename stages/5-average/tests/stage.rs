//! The averaging stage through the runner, on checkpoints made by a stand-in for training.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use flowmill_runner::{
    Experiment, Part, PartReport, PartWork, Phase, PlanContext, Recipe, RecipeError, Reporter, RunError, RunOptions,
    Stage, StageError, run,
};
use flowmill_stage_average::{AverageStage, RECORD, WEIGHTS};
use flowmill_train::checkpoint::{EMA_FILE, MODEL_FILE, STATE_FILE, State, name};
use flowmill_train::{Identity, Limits};
use serde_json::{Value, json};

/// Writes checkpoints whose only weight is their step, with the scores in the recipe.
struct ToyTrain;

impl Stage for ToyTrain {
    fn number(&self) -> u8 {
        4
    }

    fn name(&self) -> &'static str {
        "train"
    }

    fn title(&self) -> &'static str {
        "train"
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        self.show(recipe).map(drop)
    }

    fn show(&self, recipe: &Recipe) -> Result<Value, RecipeError> {
        recipe.section::<BTreeMap<String, Value>>("train").map(|section| json!(section))
    }

    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        let settings = self.show(context.recipe())?;
        let scored = settings.get("scored").and_then(Value::as_bool).unwrap_or(true);
        let ema = settings.get("ema").and_then(Value::as_bool).unwrap_or(false);
        let work = move |work: &PartWork| {
            [0.5, 0.1, 0.4, 0.3]
                .into_iter()
                .zip(1..)
                .try_for_each(|(loss, step)| checkpoint(work, step, loss, scored, ema))?;
            Ok(PartReport::summary())
        };
        Ok((phase == 0).then(|| Phase::new("train", vec![Part::new("all").config(settings).work(work)])))
    }
}

fn checkpoint(work: &PartWork, step: u64, loss: f64, scored: bool, ema: bool) -> Result<(), StageError> {
    let file = |file: &str| work.output(&format!("checkpoints/{}/{file}", name(step)));
    let write = |file: &str, value: f32| -> Result<(), StageError> {
        let tensor = Tensor::new(&[value, -value], &Device::Cpu).map_err(StageError::other)?;
        flowmill_weights::write(
            &work.output(&format!("checkpoints/{}/{file}", name(step)))?,
            &[("a".to_owned(), tensor)],
            &BTreeMap::new(),
        )
        .map_err(StageError::other)
    };
    write(MODEL_FILE, step as f32)?;
    if ema {
        write(EMA_FILE, step as f32 + 100.0)?;
    }
    let limits = Limits { max_steps: Some(4), max_epochs: None };
    let state = State { step, validation: scored.then_some(loss), ..State::new(Identity::default(), limits, 4) };
    let state = json!(state).to_string();
    std::fs::write(file(STATE_FILE)?, &state)?;
    // A state is accepted only with its checksum.
    let checksum = format!("{}  {STATE_FILE}\n", blake3::hash(state.as_bytes()).to_hex());
    std::fs::write(file("checksums.b3")?, checksum)?;
    Ok(())
}

struct Toy(tempfile::TempDir);

impl Toy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("recipe.yaml"), "name: toy\n").unwrap();
        Self(folder)
    }

    fn run(&self, overrides: &[&str]) -> Result<(), RunError> {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        let recipe = Recipe::load(&self.0.path().join("recipe.yaml"), &overrides, &["train", "average"])?;
        let stages: Vec<Box<dyn Stage>> = vec![Box::new(ToyTrain), Box::new(AverageStage)];
        run(&stages, &recipe, &Experiment::of_recipe(&recipe), &RunOptions::default(), &Reporter::quiet()).map(drop)
    }

    fn output(&self, file: &str) -> PathBuf {
        self.0.path().join("exp/toy/5-average").join(file)
    }

    fn mean(&self) -> Vec<f32> {
        flowmill_weights::read(&self.output(WEIGHTS)).unwrap().tensors["a"].to_vec1().unwrap()
    }

    fn record(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.output(RECORD)).unwrap()).unwrap()
    }
}

#[test]
fn the_best_are_averaged_and_recorded() {
    let toy = Toy::new();
    toy.run(&["average.count=2"]).unwrap();
    assert_eq!(toy.mean(), [3.0, -3.0], "steps 2 and 4 have the lowest losses");
    let record = toy.record();
    assert_eq!((&record["which"], &record["count"]), (&json!("best"), &json!(2)));
    assert_eq!(record["checkpoints"][0], json!({ "step": 2, "validation_loss": 0.1, "weights": MODEL_FILE }));

    toy.run(&["average.count=2", "average.which=last"]).unwrap();
    assert_eq!(toy.mean(), [3.5, -3.5], "another choice averages again");
}

#[test]
fn fewer_checkpoints_than_asked_for_are_all_taken() {
    let toy = Toy::new();
    toy.run(&[]).unwrap();
    assert_eq!(toy.mean(), [2.5, -2.5]);
    assert_eq!(toy.record()["count"], 4);
}

#[test]
fn the_moving_average_is_taken_where_training_kept_one() {
    let toy = Toy::new();
    toy.run(&["train.ema=true", "average.count=1"]).unwrap();
    assert_eq!(toy.mean(), [102.0, -102.0]);
    assert_eq!(toy.record()["checkpoints"][0]["weights"], EMA_FILE);
}

#[test]
fn without_validation_the_last_are_averaged() {
    let toy = Toy::new();
    toy.run(&["train.scored=false", "average.count=2"]).unwrap();
    assert_eq!((&toy.record()["which"], &toy.record()["count"]), (&"last".into(), &2.into()));
}

#[test]
fn what_cannot_be_averaged_is_refused() {
    for (set, key) in [
        ("average.count=0", "average.count"),
        ("average.which=some", "average.which"),
        ("average.cuont=1", "average.cuont"),
    ] {
        let error = Toy::new().run(&[set]).unwrap_err().to_string();
        assert!(error.contains(key), "{set}: {error}");
    }
}
