//! A miniature experiment: a stage that packs synthetic utterances, and the training stage after it.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use flowmill_audio::features::MelConfig;
use flowmill_corpus::shard::{MelStore, ShardEntry, ShardIndex, ShardOptions, ShardWriter, speech};
use flowmill_corpus::{Array, Row};
use flowmill_nn::random::RngKey;
use flowmill_runner::{
    Experiment, Part, PartReport, PartWork, Phase, PlanContext, Recipe, RecipeError, Reporter, RunError, RunOptions,
    RunSummary, Stage, StageError, run,
};
use flowmill_stage_train::TrainStage;
use serde_json::{Value, json};

pub const BINS: usize = 8;
pub const SPEAKER_VALUES: usize = 6;
pub const VOCABULARY: i64 = 10;

/// Packs utterances whose mel follows their tokens and speaker.
pub struct ToyPack;

impl Stage for ToyPack {
    fn number(&self) -> u8 {
        3
    }

    fn name(&self) -> &'static str {
        "pack"
    }

    fn title(&self) -> &'static str {
        "pack"
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        self.show(recipe).map(drop)
    }

    fn show(&self, recipe: &Recipe) -> Result<Value, RecipeError> {
        recipe.section::<BTreeMap<String, Value>>("toy").map(|section| json!(section))
    }

    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        let settings = self.show(context.recipe())?;
        let dev = settings.get("dev").and_then(Value::as_u64).unwrap_or(4);
        let offset = settings.get("token_offset").and_then(Value::as_i64).unwrap_or(0);
        let part = Part::new("all").config(settings).work(move |work| {
            pack_split(work, "train", 14, offset)?;
            if dev > 0 {
                pack_split(work, "dev", dev, offset)?;
            }
            let statistics = json!({ "split": "train", "frames": 1, "mean": vec![0.25; BINS], "std": vec![1.5; BINS] });
            std::fs::write(work.output("mel_statistics.json")?, statistics.to_string())?;
            Ok(PartReport::summary())
        });
        Ok((phase == 0).then(|| Phase::new("pack", vec![part])))
    }
}

fn pack_split(work: &PartWork, split: &str, count: u64, token_offset: i64) -> Result<(), StageError> {
    let path = work.output(&format!("{split}/shard-00000.parquet"))?;
    let options = ShardOptions { columns: speech::columns(MelStore::Float32), ..ShardOptions::default() };
    let mut writer = ShardWriter::create(&path, &options).map_err(StageError::other)?;
    let rows: Vec<Row> = (0..count).map(|number| utterance(split, number, token_offset)).collect();
    let frames = rows.iter().map(|row| row.columns[speech::MEL].shape()[0] as u32).collect();
    let utterances = rows.iter().map(|row| row.id.clone()).collect();
    for row in rows {
        writer.push(row).map_err(StageError::other)?;
    }
    let summary = writer.finish().map_err(StageError::other)?;
    let entry = ShardEntry {
        file: "shard-00000.parquet".to_owned(),
        rows: summary.rows,
        bytes: summary.bytes,
        blake3: summary.checksum.to_string(),
        seconds: 1.0,
        utterances,
        frames,
        ..ShardEntry::default()
    };
    let mel = json!({ "definition": "cosyvoice2", "store": "float32", "config": MelConfig { n_mels: BINS, ..MelConfig::cosyvoice2() } });
    let index = ShardIndex::new(split, mel, vec![entry]);
    index.write(&work.output(&format!("{split}/index.json"))?).map_err(StageError::other)
}

fn utterance(split: &str, number: u64, token_offset: i64) -> Row {
    let rng_key = RngKey::new(1).purpose(split).sample(number);
    let (speaker, length) = (number % 3, 12 + rng_key.below_at(0, 20) as usize);
    let embedding = RngKey::new(2).sample(speaker).normals(SPEAKER_VALUES);
    let tokens: Vec<i64> = (0..length)
        .map(|at| i64::from(rng_key.purpose("token").below_at(at as u64, VOCABULARY as u32)) + token_offset)
        .collect();
    let frames = 2 * length;
    let value = |frame: usize, bin: usize| (tokens[frame / 2] as f32 * 0.2 - embedding[bin % SPEAKER_VALUES]) * 0.8;
    let data =
        (0..frames).flat_map(|frame| (0..BINS).map(move |bin| (frame, bin))).map(|(frame, bin)| value(frame, bin));
    let columns = [
        (speech::WAV, Array::text("")),
        (speech::AUDIO_DATA, Array::scalar(Vec::<u8>::new())),
        (speech::TEXT, Array::text("")),
        (speech::DURATION, Array::scalar(0f64)),
        (speech::SAMPLE_RATE, Array::scalar(0i32)),
        (speech::UTT_EMBEDDING, Array::vector(embedding.clone())),
        (speech::SPK_EMBEDDING, Array::vector(embedding.clone())),
        (speech::SPEECH_TOKEN, Array::vector(tokens.clone())),
        (speech::MEL, Array::new(vec![frames, BINS], data.collect::<Vec<f32>>()).expect("whole frames")),
    ];
    Row {
        id: format!("{split}-{number}"),
        group: format!("speaker-{speaker}"),
        columns: columns.into_iter().map(|(name, array)| (name.to_owned(), array)).collect(),
        ..Row::default()
    }
}

/// A recipe in a folder of its own, small enough to train in a second.
pub struct Toy {
    folder: tempfile::TempDir,
}

pub const RECIPE: &str = "\
name: toy
seed: 3
train:
  model:
    family: cosyvoice2-flow
    vocab_size: 10
    input_size: 16
    output_size: 8
    spk_embed_dim: 6
    encoder: {attention_heads: 2, linear_units: 16, num_blocks: 1, num_up_blocks: 1}
    estimator: {channels: [16], attention_head_dim: 8, n_blocks: 1, num_mid_blocks: 1, num_heads: 2}
  batch: {max_frames_in_batch: 200}
  schedule: {warmup_steps: 5}
  optim: {lr: 0.003}
  accum_grad: 2
  max_steps: 24
  validate_every: 6
  save_every: 4
  log_every: 3
  keep: {last: 2, best: 2}
";

impl Toy {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("recipe.yaml"), RECIPE).unwrap();
        Self { folder }
    }

    pub fn recipe(&self, overrides: &[&str]) -> Result<Recipe, RecipeError> {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        Recipe::load(&self.folder.path().join("recipe.yaml"), &overrides, &["toy", "train"])
    }

    pub fn stage(&self) -> PathBuf {
        self.folder.path().join("exp/toy/4-train")
    }

    /// Runs both stages and returns the result and the output.
    pub fn run(&self, overrides: &[&str], options: &RunOptions) -> (Result<RunSummary, RunError>, String) {
        let recipe = match self.recipe(overrides) {
            Ok(recipe) => recipe,
            Err(error) => return (Err(error.into()), String::new()),
        };
        let stages: Vec<Box<dyn Stage>> =
            vec![Box::new(ToyPack), Box::new(TrainStage::new(flowmill_families::registry()))];
        let said = Said::default();
        let reporter = Reporter::to_writers(said.clone(), said.clone());
        let ran = run(&stages, &recipe, &Experiment::of_recipe(&recipe), options, &reporter);
        (ran, said.text())
    }

    /// Runs both stages and gives how many parts of the training ran.
    pub fn ran(&self, overrides: &[&str]) -> usize {
        let (ran, said) = self.run(overrides, &RunOptions::default());
        ran.unwrap_or_else(|error| panic!("{error}\n{said}")).stages[1].ran
    }
}

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
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
