//! Toy stages on real files: `read` takes lines of text files as rows, `join` puts its outputs together, `learn` is a
//! long resumable part with checkpoints.

#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flowmill_runner::{
    End, Experiment, Interrupt, Part, PartReport, PartWork, Phase, PlanContext, Reached, ReasonKind, Recipe,
    RecipeError, Reporter, Resumable, RunError, RunOptions, RunSummary, Stage, StageError, StageRange, run,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub const SECTIONS: [&str; 3] = ["read", "join", "learn"];

/// Changes that a test may make to a toy stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bent {
    pub read_version: u32,
    pub panic_in: Option<&'static str>,
    pub lose_rows: bool,
    pub fail_in: Option<&'static str>,
    /// A pause in every part, so that a kill hits it while it works.
    pub pause: Duration,
    /// The number of extra bytes that each part of `read` writes.
    pub ballast: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadConfig {
    /// A folder of text files, relative to the recipe.
    pub dir: String,
    pub upper: bool,
    /// Shorter lines are rejected.
    pub min_length: usize,
    pub per_part: usize,
}

impl Default for ReadConfig {
    fn default() -> Self {
        Self { dir: "data".to_owned(), upper: false, min_length: 1, per_part: 1 }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinConfig {
    pub separator: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct LearnConfig {
    pub steps: u64,
    pub optim: OptimConfig,
}

impl Default for LearnConfig {
    fn default() -> Self {
        Self { steps: 6, optim: OptimConfig::default() }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct OptimConfig {
    pub learning_rate: f64,
    pub name: OptimName,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimName {
    #[default]
    Adamw,
    Sgd,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self { learning_rate: 0.001, name: OptimName::Adamw }
    }
}

pub struct Read(pub Bent);
pub struct Join(pub Bent);
pub struct Learn(pub Bent);

impl Stage for Read {
    fn number(&self) -> u8 {
        0
    }
    fn name(&self) -> &'static str {
        "read"
    }
    fn title(&self) -> &'static str {
        "Read the lines"
    }
    fn version(&self) -> u32 {
        self.0.read_version + 1
    }
    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let config: ReadConfig = recipe.section("read")?;
        if !recipe.resolve(&config.dir).is_dir() {
            return Err(recipe.error("read.dir", format!("there is no folder {}", config.dir)));
        }
        Ok(())
    }
    fn show(&self, recipe: &Recipe) -> Result<serde_json::Value, RecipeError> {
        Ok(json!(recipe.section::<ReadConfig>("read")?))
    }
    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        if phase > 0 {
            return Ok(None);
        }
        let config: ReadConfig = context.recipe().section("read")?;
        let dir = context.resolve(&config.dir);
        let mut files: Vec<PathBuf> = fs::read_dir(&dir)?.map(|e| e.unwrap().path()).collect();
        files.sort();
        let parts = files.chunks(config.per_part).enumerate().map(|(at, files)| {
            let (files, config, bent) = (files.to_vec(), config.clone(), self.0);
            let key = format!("lines/part-{at:05}");
            Part::new(key.clone())
                .config(json!({"upper": config.upper, "min_length": config.min_length}))
                .inputs(files.clone())
                .rows(1)
                .work(move |work| read_part(work, &key, &files, &config, bent))
        });
        Ok(Some(Phase::new("lines", parts.collect())))
    }
}

fn read_part(
    work: &PartWork,
    key: &str,
    files: &[PathBuf],
    config: &ReadConfig,
    bent: Bent,
) -> Result<PartReport, StageError> {
    assert!(bent.panic_in != Some(work.key()), "the toy broke");
    if bent.fail_in == Some(work.key()) {
        return Err(StageError::new("the toy was told to fail"));
    }
    let (mut rows_in, mut text) = (0, Vec::new());
    for file in files {
        let content = fs::read_to_string(file).map_err(|e| StageError::file(file, e))?;
        for (at, line) in content.lines().enumerate() {
            rows_in += 1;
            if line.len() < config.min_length {
                let id = format!("{}:{}", file.file_name().unwrap().to_string_lossy(), at + 1);
                work.reject(id, format!("too short: {} characters", line.len()));
                continue;
            }
            text.push(if config.upper { line.to_uppercase() } else { line.to_owned() });
        }
        work.advance(1);
    }
    let rows_out = text.len() as u64;
    std::thread::sleep(bent.pause);
    fs::write(work.output(&format!("{key}.txt"))?, text.join("\n"))?;
    fs::write(work.output(&format!("{key}.len"))?, rows_out.to_string())?;
    if bent.ballast > 0 {
        fs::write(work.output(&format!("{key}.bin"))?, vec![7; bent.ballast])?;
    }
    let lost = u64::from(bent.lose_rows);
    Ok(PartReport::rows(rows_in, rows_out - lost).fact("characters", text.concat().len()))
}

impl Stage for Join {
    fn number(&self) -> u8 {
        1
    }
    fn name(&self) -> &'static str {
        "join"
    }
    fn title(&self) -> &'static str {
        "Join the lines"
    }
    fn version(&self) -> u32 {
        1
    }
    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        recipe.section::<JoinConfig>("join").map(drop)
    }
    fn show(&self, recipe: &Recipe) -> Result<serde_json::Value, RecipeError> {
        Ok(json!(recipe.section::<JoinConfig>("join")?))
    }
    /// First one copy per part of `read`, then all of them in one.
    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        let config: JoinConfig = context.recipe().section("join")?;
        match phase {
            0 => {
                let parts = context.receipts(0)?.into_iter().map(|receipt| {
                    let from = receipt.outputs().into_iter().find(|path| path.extension().unwrap() == "txt").unwrap();
                    let (rows, pause) = (receipt.rows_out, self.0.pause);
                    Part::new(format!("copy/{}", receipt.key)).input(from.clone()).rows(rows).work(move |work| {
                        std::thread::sleep(pause);
                        fs::copy(&from, work.output(&format!("{}.txt", work.key()))?)?;
                        Ok(PartReport::rows(rows, rows))
                    })
                });
                Ok(Some(Phase::new("copy", parts.collect())))
            }
            1 => {
                let copies: Vec<PathBuf> = context.receipts(1)?.iter().flat_map(|receipt| receipt.outputs()).collect();
                let (inputs, pause) = (copies.clone(), self.0.pause);
                let part = Part::new("all").config(json!(config)).inputs(inputs).work(move |work| {
                    std::thread::sleep(pause);
                    let texts: Result<Vec<String>, _> = copies.iter().map(fs::read_to_string).collect();
                    let separator = config.separator.unwrap_or("\n".to_owned());
                    fs::write(work.output("all/text.txt")?, texts?.join(&separator))?;
                    fs::write(work.output("all/count.json")?, json!({"files": copies.len()}).to_string())?;
                    Ok(PartReport::summary().fact("files", copies.len()))
                });
                Ok(Some(Phase::new("join", vec![part])))
            }
            _ => Ok(None),
        }
    }
}

impl Stage for Learn {
    fn number(&self) -> u8 {
        2
    }
    fn name(&self) -> &'static str {
        "learn"
    }
    fn title(&self) -> &'static str {
        "Learn them by heart"
    }
    fn version(&self) -> u32 {
        1
    }
    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        recipe.section::<LearnConfig>("learn").map(drop)
    }
    fn show(&self, recipe: &Recipe) -> Result<serde_json::Value, RecipeError> {
        Ok(json!(recipe.section::<LearnConfig>("learn")?))
    }
    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        if phase > 0 {
            return Ok(None);
        }
        let config: LearnConfig = context.recipe().section("learn")?;
        let text = context.stage_dir(1).join("all/text.txt");
        let (input, pause) = (text.clone(), self.0.pause);
        let part = Part::new("model")
            .config(json!({"learn": config, "seed": context.recipe().seed()}))
            .input(input)
            .rows(config.steps)
            .resumable(resumable())
            .work(move |work| learn(work, &text, &config, pause));
        Ok(Some(Phase::new("steps", vec![part])))
    }
}

/// Describes resumable work whose results contain no step, so that it cannot continue from them.
fn resumable() -> Resumable {
    Resumable {
        reached,
        on_stop: "stopping after the step in hand",
        recorded: std::sync::Arc::new(|then, _| then.clone()),
        record: |_, _| Ok(None),
        ends: &[],
        end: |_, _, _| Ok(End::Same),
        restored: |_| None,
    }
}

/// The newest checkpoint.
fn reached(folder: &Path) -> Result<Option<Reached>, StageError> {
    let names = fs::read_dir(folder).into_iter().flatten();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let step = names.filter_map(|name| name.strip_prefix("step-")?.parse::<u64>().ok()).max();
    let reached = |step: u64| Reached {
        at: format!("step {step}"),
        holds: format!("a checkpoint of step {step}"),
        reuse: Some("to start from it, copy it".to_owned()),
    };
    Ok(step.map(reached))
}

/// Runs the steps. Each hashes the state of the one before, and each is a checkpoint.
fn learn(work: &PartWork, text: &Path, config: &LearnConfig, pause: Duration) -> Result<PartReport, StageError> {
    let kept = work.persisted()?;
    let mut step = kept.iter().filter_map(|name| name.strip_prefix("step-")?.parse::<u64>().ok()).max().unwrap_or(0);
    let mut state = match step {
        0 => fs::read_to_string(text)?,
        _ => fs::read_to_string(work.staging_dir().join(format!("step-{step:03}/state")))?,
    };
    if step > 0 {
        work.message(format!("continuing from step {step}"));
    }
    while step < config.steps {
        if work.interrupted() {
            return Err(StageError::Interrupted);
        }
        step += 1;
        std::thread::sleep(pause);
        state = blake3::hash(format!("{state}{}", config.optim.learning_rate).as_bytes()).to_hex().to_string();
        work.persist_dir(&format!("step-{step:03}"), |dir| {
            fs::write(dir.join("state"), &state)?;
            fs::write(dir.join("again"), &state)?;
            Ok(())
        })?;
        if step > 2 {
            work.remove_persisted(&format!("step-{:03}", step - 2))?;
        }
        work.advance(1);
    }
    work.output_persisted(&format!("step-{step:03}"), "final")?;
    Ok(PartReport::summary().fact("state", &state[..8]))
}

/// A recipe in a temporary folder, with text files.
pub struct Toy {
    pub root: tempfile::TempDir,
    pub bent: Bent,
}

impl Toy {
    /// `files` files of three lines each.
    pub fn new(files: usize) -> Self {
        let toy = Self { root: tempfile::tempdir().unwrap(), bent: Bent::default() };
        toy.write("recipe.yaml", "name: toy\nseed: 1\nmax_rejected: 0.5\nlearn:\n  steps: 6\n");
        for at in 0..files {
            toy.write(&format!("data/file-{at:05}.txt"), &format!("first {at}\nsecond line {at}\nx\n"));
        }
        toy
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    pub fn exp(&self) -> PathBuf {
        self.path("exp/toy")
    }

    pub fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn stages(&self) -> Vec<Box<dyn Stage>> {
        stages(self.bent)
    }

    pub fn recipe(&self, set: &[&str]) -> Result<Recipe, RecipeError> {
        let set: Vec<String> = set.iter().map(|&s| s.to_owned()).collect();
        Recipe::load(self.root.path(), &set, &SECTIONS)
    }

    /// Runs with these options and returns the result and the output.
    pub fn run_with(&self, set: &[&str], options: &RunOptions) -> (Result<RunSummary, RunError>, String) {
        let recipe = match self.recipe(set) {
            Ok(recipe) => recipe,
            Err(error) => return (Err(error.into()), String::new()),
        };
        let said = Said::default();
        let reporter = Reporter::to_writers(said.clone(), said.clone());
        let result = run(&self.stages(), &recipe, &Experiment::of_recipe(&recipe), options, &reporter);
        (result, said.text())
    }

    pub fn run(&self, set: &[&str]) -> (Result<RunSummary, RunError>, String) {
        self.run_with(set, &options())
    }

    /// Runs, which must succeed, and returns the keys of the parts that ran and the output.
    pub fn ran(&self, set: &[&str]) -> (Vec<String>, String) {
        let (result, said) = self.run(set);
        let summary = result.unwrap_or_else(|error| panic!("{error}\n{said}"));
        (keys(&summary), said)
    }

    /// As [`Toy::ran`], with the summary of the run instead of what was said.
    pub fn ran_with_summary(&self, set: &[&str]) -> (Vec<String>, RunSummary) {
        let (result, said) = self.run(set);
        let summary = result.unwrap_or_else(|error| panic!("{error}\n{said}"));
        (keys(&summary), summary)
    }
}

/// The keys of the parts that ran, with their stages.
fn keys(summary: &RunSummary) -> Vec<String> {
    let keys = summary.stages.iter();
    keys.flat_map(|stage| stage.ran_keys.iter().map(|key| format!("{}/{key}", stage.stage))).collect()
}

/// Checks that parts of a stage ran for a reason of this kind, which names `values`.
#[track_caller]
pub fn ran_because(summary: &RunSummary, stage: &str, kind: ReasonKind, values: &[&str]) {
    let outcome = summary.stages.iter().find(|outcome| outcome.stage == stage).unwrap();
    let named = |reason: &str| values.iter().all(|value| reason.contains(value));
    assert!(
        outcome.reasons.iter().any(|found| found.kind == kind && named(&found.reason)),
        "not {kind:?} {values:?}: {:?}",
        outcome.reasons
    );
}

pub fn stages(bent: Bent) -> Vec<Box<dyn Stage>> {
    vec![Box::new(Read(bent)), Box::new(Join(bent)), Box::new(Learn(bent))]
}

pub fn options() -> RunOptions {
    RunOptions { jobs: 2, command: "toy run".to_owned(), version: "0".to_owned(), ..RunOptions::default() }
}

pub fn only(first: &str, last: &str) -> RunOptions {
    let stages = StageRange { first: Some(first.to_owned()), last: Some(last.to_owned()) };
    RunOptions { stages, ..options() }
}

pub fn interrupted() -> RunOptions {
    let interrupt = Interrupt::default();
    interrupt.set();
    RunOptions { interrupt, ..options() }
}

/// Collects the output of a reporter.
#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns every file below a folder with its bytes, except files that differ between two runs: journal, lock and
/// cache.
pub fn tree(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    walk(dir, dir, &mut files);
    files.sort();
    files
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        if [".lock", ".cache", "journal.jsonl"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            files.push((format!("{name}/"), Vec::new()));
            walk(root, &path, files);
        } else {
            files.push((name, fs::read(&path).unwrap()));
        }
    }
}

/// Returns every file's modification time.
pub fn times(dir: &Path) -> Vec<(String, std::time::SystemTime)> {
    let files = tree(dir).into_iter();
    files.map(|(name, _)| (name.clone(), fs::metadata(dir.join(&name)).unwrap().modified().unwrap())).collect()
}
