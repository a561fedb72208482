//! A miniature experiment: real recordings of `data/libri6`, a stage that lists them, and the stage under test on top.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use flowmill_corpus::{Utterance, table};
use flowmill_runner::{
    Experiment, Part, PartReport, PartWork, Phase, PlanContext, Recipe, RecipeError, Reporter, RunError, RunOptions,
    RunSummary, Stage, StageError, run,
};

/// Lists utterances as stage 0 does, one table per part, with something undecodable among the last split.
struct Listing;

/// The splits of the miniature experiment: name, and the utterances of every part as (speaker, number).
const SPLITS: [(&str, &[&[u32]]); 2] = [("train", &[&[2, 3], &[4]]), ("dev", &[&[8]])];

/// Three of the six readers.
const READERS: [&str; 3] = ["1688-142285", "1998-15444", "2033-164914"];

/// Rows of the experiment, the undecodable one included.
pub const ROWS: u64 = 13;

impl Stage for Listing {
    fn number(&self) -> u8 {
        0
    }

    fn name(&self) -> &'static str {
        "prep"
    }

    fn title(&self) -> &'static str {
        "listing"
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, _recipe: &Recipe) -> Result<(), RecipeError> {
        Ok(())
    }

    fn show(&self, _recipe: &Recipe) -> Result<serde_json::Value, RecipeError> {
        Ok(serde_json::json!({}))
    }

    fn plan(&self, phase: usize, _context: &PlanContext) -> Result<Option<Phase>, StageError> {
        let part = Part::new("all").work(list);
        Ok((phase == 0).then(|| Phase::new("listing", vec![part])))
    }
}

fn list(work: &PartWork) -> Result<PartReport, StageError> {
    for (split, parts) in SPLITS {
        for (number, numbers) in parts.iter().enumerate() {
            let mut rows: Vec<Utterance> =
                numbers.iter().flat_map(|number| READERS.map(|reader| utterance(reader, *number))).collect();
            if split == "dev" {
                rows.insert(1, Utterance { utt: "broken".into(), wav: "broken.wav".into(), ..rows[0].clone() });
            }
            let path = work.output(&format!("{split}/part-{number:05}.parquet"))?;
            table::write_utterances(&path, &rows).map_err(StageError::other)?;
        }
    }
    Ok(PartReport::summary())
}

/// One of the readers' utterances; the eighth ones are cut out of their recordings.
fn utterance(reader: &str, number: u32) -> Utterance {
    let spk = reader.split_once('-').unwrap().0;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/libri6/audio");
    Utterance {
        utt: format!("{reader}-{number:04}"),
        spk: spk.to_owned(),
        wav: data.join(format!("{spk}/{reader}-{number:04}.flac")).to_str().unwrap().to_owned(),
        start: (number == 8).then_some(0.5),
        end: (number == 8).then_some(2.5),
        ..Utterance::default()
    }
}

/// An experiment in a folder of its own.
pub struct Miniature {
    folder: tempfile::TempDir,
}

impl Miniature {
    pub fn new(recipe: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let recipe = format!("name: miniature\nseed: 3\nmax_rejected: 0.2\n{recipe}");
        std::fs::write(folder.path().join("recipe.yaml"), recipe).unwrap();
        std::fs::write(folder.path().join("broken.wav"), b"no sound at all, just words in a file").unwrap();
        Self { folder }
    }

    pub fn run(&self, stage: impl Stage + 'static, overrides: &[&str], jobs: usize) -> Result<RunSummary, RunError> {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        let recipe = Recipe::load(&self.folder.path().join("recipe.yaml"), &overrides, &["prep", stage.name()])?;
        let stages: Vec<Box<dyn Stage>> = vec![Box::new(Listing), Box::new(stage)];
        let options = RunOptions { jobs, ..RunOptions::default() };
        run(&stages, &recipe, &Experiment::of_recipe(&recipe), &options, &Reporter::quiet())
    }

    /// The keys of the stage's parts that ran.
    pub fn ran(&self, stage: impl Stage + 'static, overrides: &[&str]) -> Vec<String> {
        self.run(stage, overrides, 2).unwrap().stages[1].ran_keys.clone()
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join("exp/miniature").join(relative)
    }
}

/// Returns every file below a folder with its bytes.
pub fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}
