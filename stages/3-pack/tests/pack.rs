//! The stage through the runner, with real recordings, the real stage 0, and simple stand-ins for stages 1 and 2.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use flowmill_audio::features::{MelConfig, MelSpectrogram};
use flowmill_corpus::DType;
use flowmill_corpus::shard::{MelStatistics, MelStore, ShardIndex, ShardReader, Shards, speech};
use flowmill_corpus::table;
use flowmill_extract::extractors::registry;
use flowmill_runner::{
    Experiment, Part, PartReport, Phase, PlanContext, Recipe, RecipeError, Reporter, RunError, RunOptions, RunSummary,
    Stage, StageError, run,
};
use flowmill_stage_pack::Pack;
use flowmill_stage_prep::Prep;

/// Writes the results of stage 1 or 2 as simple functions of the row, and leaves out one utterance.
struct StandIn {
    number: u8,
    name: &'static str,
    without: &'static str,
}

impl Stage for StandIn {
    fn number(&self) -> u8 {
        self.number
    }
    fn name(&self) -> &'static str {
        self.name
    }
    fn title(&self) -> &'static str {
        "stand-in"
    }
    fn version(&self) -> u32 {
        1
    }
    fn check(&self, _: &Recipe) -> Result<(), RecipeError> {
        Ok(())
    }
    fn show(&self, _: &Recipe) -> Result<serde_json::Value, RecipeError> {
        Ok(serde_json::Value::Null)
    }
    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        if phase > 0 {
            return Ok(None);
        }
        let prep = context.stage_dir(0);
        let tables: Vec<PathBuf> = context.receipts(0)?.iter().flat_map(|r| r.outputs()).collect();
        let tables: Vec<PathBuf> = tables.into_iter().filter(|path| path.to_string_lossy().contains("part-")).collect();
        let (number, without) = (self.number, self.without);
        let all = tables.clone();
        let mut parts: Vec<Part> = tables
            .into_iter()
            .map(|path| {
                let name = path.strip_prefix(&prep).unwrap().to_str().unwrap().to_owned();
                Part::new(name.trim_end_matches(".parquet").to_owned()).input(&path).work(move |work| {
                    let rows = table::read_utterances(&path).map_err(StageError::other)?;
                    let kept: Vec<_> = rows.iter().filter(|row| row.utt != without).collect();
                    let out = work.output(&name)?;
                    if number == 1 {
                        let rows: Vec<_> = kept.iter().map(|row| (row.utt.clone(), vec![0.25f32; 192])).collect();
                        table::write_embeddings(&out, "utt", "utt_embedding", &rows).map_err(StageError::other)?;
                    } else {
                        let tokens = |seconds: f64| (0..(seconds * 25.0) as i64).collect::<Vec<i64>>();
                        let rows: Vec<_> =
                            kept.iter().map(|row| (row.utt.clone(), tokens(row.duration.unwrap()))).collect();
                        table::write_tokens(&out, "utt", "speech_token", &rows).map_err(StageError::other)?;
                    }
                    if kept.len() < rows.len() {
                        work.reject(without, "left out by the test");
                    }
                    Ok(PartReport::rows(rows.len() as u64, kept.len() as u64))
                })
            })
            .collect();
        if number == 1 {
            parts.push(Part::new("speakers").inputs(&all).work(move |work| {
                let mut speakers = BTreeSet::new();
                for path in &all {
                    speakers
                        .extend(table::read_utterances(path).map_err(StageError::other)?.into_iter().map(|r| r.spk));
                }
                let rows: Vec<_> = speakers.into_iter().map(|spk| (spk, vec![0.5f32; 192])).collect();
                let out = work.output("spk2embedding.parquet")?;
                table::write_embeddings(&out, "spk", "spk_embedding", &rows).map_err(StageError::other)?;
                Ok(PartReport::summary())
            }));
        }
        Ok(Some(Phase::new("stand in", parts)))
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn run_in(dir: &Path, sections: &str, jobs: usize) -> Result<RunSummary, RunError> {
    let data = repository().join("data");
    std::os::unix::fs::symlink(&data, dir.join("data")).ok();
    let file = dir.join("recipe.yaml");
    let lists = ["train", "dev", "test"].map(|name| format!("{name}: data/libri6/splits/{name}.list")).join(", ");
    let prep = format!("  data: data/libri6\n  part_size: 25\n  split: {{by: list, lists: {{{lists}}}}}\n");
    let prep = if sections.contains("prep:") { String::new() } else { format!("prep:\n{prep}") };
    fs::write(&file, format!("name: test\nmax_rejected: 0.5\n{prep}{sections}")).unwrap();
    let recipe = Recipe::load(&file, &[], &["prep", "embed", "tokens", "pack"])?;
    let stages: Vec<Box<dyn Stage>> = vec![
        Box::new(Prep),
        Box::new(StandIn { number: 1, name: "embed", without: "1998-15444-0003" }),
        Box::new(StandIn { number: 2, name: "tokens", without: "1688-142285-0000" }),
        Box::new(Pack::new(registry())),
    ];
    let options = RunOptions { jobs, ..RunOptions::default() };
    run(&stages, &recipe, &Experiment::of_recipe(&recipe), &options, &Reporter::quiet())
}

fn packed(dir: &Path, name: &str) -> PathBuf {
    dir.join("exp/test/3-pack").join(name)
}

/// Returns every file below a folder with its content, including receipts.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { waiting.push(path) } else { files.push((path.clone(), fs::read(&path).unwrap())) }
        }
    }
    for (path, _) in &mut files {
        *path = path.strip_prefix(folder).unwrap().to_path_buf();
    }
    files.sort();
    files
}

#[test]
fn shards_hold_what_the_stages_before_left() {
    let dir = tempfile::tempdir().unwrap();
    let summary = run_in(dir.path(), "pack: {utterances_per_shard: 20}\n", 2).unwrap();
    let pack = &summary.stages[3];
    // Of 60 rows, stage 2 dropped one of train and stage 1 another, which is counted here.
    assert_eq!((pack.rows_in, pack.rows_out, pack.rejected), (59, 58, 1));
    let index = ShardIndex::read(&packed(dir.path(), "train/index.json")).unwrap();
    assert_eq!((index.rows, index.shards.len()), (46, 3));
    assert_eq!(index.mel["definition"], "cosyvoice2");
    let shards =
        Shards::open(&packed(dir.path(), "train/index.json"), &speech::columns(MelStore::Float32), 1 << 20).unwrap();
    assert_eq!(shards.id(0), "1688-142285-0001");
    let row = shards.fetch(&[0]).unwrap().remove(0);
    let original = fs::read(repository().join("data/libri6/audio/1688/1688-142285-0001.flac")).unwrap();
    assert_eq!(row.bytes("audio_data"), Ok(original.as_slice()));
    assert_eq!(row.text("wav"), Ok("data/libri6/audio/1688/1688-142285-0001.flac"));
    assert_eq!(row.values::<f32>("utt_embedding").unwrap().len(), 192);
    assert_eq!((row.values::<f32>("spk_embedding").unwrap()[0], row.value("sample_rate")), (0.5, Ok(&16_000i32)));
    let audio = flowmill_audio::decode_bytes(&original, "").unwrap();
    let samples = flowmill_audio::resample(&audio.mono(), 16_000, 24_000).unwrap();
    let mel = MelSpectrogram::new(MelConfig::cosyvoice2()).unwrap().compute(&samples).unwrap();
    let (stored, shape) = row.matrix::<f32>("mel").unwrap();
    assert_eq!(shape, [mel.frames, 80]);
    assert_eq!(shards.sizes().next().unwrap().frames() as usize, mel.frames);
    let worst = stored.iter().zip(&mel.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 0.0 && worst < 0.005, "{worst}");
    // About 50 frames and 25 tokens per second.
    assert!((mel.frames as f64 - 2.0 * row.column("speech_token").unwrap().len() as f64).abs() < 4.0);
}

#[test]
fn utterances_of_too_few_or_too_many_tokens_are_rejected_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let summary = run_in(dir.path(), "pack: {min_tokens: 60, max_tokens: 400}\n", 2).unwrap();
    let pack = &summary.stages[3];
    assert_eq!(pack.rows_in, pack.rows_out + pack.rejected);
    let index = packed(dir.path(), "train/index.json");
    let shards = Shards::open(&index, &speech::columns(MelStore::Float32), 1 << 20).unwrap();
    let items: Vec<u32> = (0..shards.len() as u32).collect();
    let rows = shards.fetch(&items).unwrap();
    assert!(!rows.is_empty() && rows.len() < 46);
    assert!(rows.iter().all(|row| (60..=400).contains(&row.column("speech_token").unwrap().len())));
    let error = run_in(dir.path(), "pack: {min_tokens: 9, max_tokens: 8}\n", 2).unwrap_err().to_string();
    assert!(error.contains("min_tokens"), "{error}");
}

#[test]
fn lists_and_statistics_are_those_of_the_shards() {
    let dir = tempfile::tempdir().unwrap();
    run_in(dir.path(), "pack: {utterances_per_shard: 20, mel: {store: float32}}\n", 2).unwrap();
    let text = |name: &str| fs::read_to_string(packed(dir.path(), name)).unwrap();
    assert_eq!(text("train/data.list"), "shard-00000.parquet\nshard-00001.parquet\nshard-00002.parquet\n");
    assert_eq!(text("dev/utt2data.list"), "utt2parquet_000000000.json\n");
    let map: serde_json::Value = serde_json::from_str(&text("train/spk2parquet_000000000.json")).unwrap();
    assert_eq!(map["1688"], "shard-00000.parquet");
    let statistics: MelStatistics = serde_json::from_str(&text("mel_statistics.json")).unwrap();
    let (mut frames, mut sum, mut squares) = (0u64, vec![0.0f64; 80], vec![0.0f64; 80]);
    for shard in ["train/shard-00000.parquet", "train/shard-00001.parquet", "train/shard-00002.parquet"] {
        for row in ShardReader::open(&packed(dir.path(), shard)).unwrap().iter(&[speech::mel(DType::F32)]).unwrap() {
            let row = row.unwrap();
            let (mel, shape) = row.matrix::<f32>("mel").unwrap();
            frames += shape[0] as u64;
            for frame in mel.chunks(80) {
                for (bin, value) in frame.iter().enumerate() {
                    sum[bin] += f64::from(*value);
                    squares[bin] += f64::from(*value).powi(2);
                }
            }
        }
    }
    assert_eq!(statistics.frames, frames);
    for bin in 0..80 {
        let mean = sum[bin] / frames as f64;
        let std = (squares[bin] / frames as f64 - mean * mean).sqrt();
        assert!((statistics.mean[bin] - mean).abs() < 1e-9 && (statistics.std[bin] - std).abs() < 1e-7);
    }
}

#[test]
fn the_same_bytes_wherever_and_on_however_many_threads() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run_in(one.path(), "pack: {utterances_per_shard: 30}\n", 1).unwrap();
    run_in(two.path(), "pack: {utterances_per_shard: 30}\n", 3).unwrap();
    let [first, second] = [&one, &two].map(|dir| tree(&dir.path().join("exp/test/3-pack")));
    let names = |tree: &[(PathBuf, Vec<u8>)]| tree.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&first), names(&second));
    for ((name, a), (_, b)) in first.iter().zip(&second) {
        assert!(a == b, "{} differs", name.display());
    }
    assert_eq!(run_in(one.path(), "pack: {utterances_per_shard: 30}\n", 2).unwrap().stages[3].ran, 0);
}

#[test]
fn one_lost_shard_is_one_part() {
    let dir = tempfile::tempdir().unwrap();
    let pack = "pack: {utterances_per_shard: 20}\n";
    run_in(dir.path(), pack, 2).unwrap();
    let before = tree(&dir.path().join("exp/test/3-pack"));
    fs::remove_file(packed(dir.path(), "train/shard-00001.parquet")).unwrap();
    let summary = run_in(dir.path(), pack, 2).unwrap();
    assert_eq!(summary.stages[3].ran_keys, ["train/shard-00001"]);
    assert_eq!(tree(&dir.path().join("exp/test/3-pack")), before);
}

#[test]
fn pieces_of_a_recording_become_waves_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = dir.path().join("pieces");
    fs::create_dir_all(&pieces).unwrap();
    fs::write(pieces.join("wav.scp"), "rec ../data/libri6/audio/1688/1688-142285-0000.flac\n").unwrap();
    fs::write(pieces.join("segments"), "s-a rec 0.5 2.5\ns-b rec 2.5 4.0\n").unwrap();
    fs::write(pieces.join("text"), "s-a A\ns-b B\n").unwrap();
    fs::write(pieces.join("utt2spk"), "s-a s\ns-b s\n").unwrap();
    let sections = "prep: {data: pieces, split: {fractions: {}}}\npack: {mel: {store: none}}\n";
    let summary = run_in(dir.path(), sections, 2).unwrap();
    assert_eq!(summary.stages[3].rows_out, 2);
    let reader = ShardReader::open(&packed(dir.path(), "train/shard-00000.parquet")).unwrap();
    let rows: Vec<_> = reader.iter(&speech::columns(MelStore::None)).unwrap().map(Result::unwrap).collect();
    let whole = flowmill_audio::decode_file(repository().join("data/libri6/audio/1688/1688-142285-0000.flac")).unwrap();
    let piece = flowmill_audio::decode_bytes(rows[1].bytes("audio_data").unwrap(), "piece").unwrap();
    // The recording has 16 bits, so a piece of it has exactly the same samples.
    assert_eq!(piece.samples[0], whole.samples[0][40_000..64_000]);
    assert_eq!(rows[1].value("duration"), Ok(&1.5f64));
    let index = ShardIndex::read(&packed(dir.path(), "train/index.json")).unwrap();
    assert_eq!(index.shards[0].frames, [100, 75]);
    assert!(!packed(dir.path(), "mel_statistics.json").exists());
}

#[test]
fn wrong_settings_name_their_key() {
    let dir = tempfile::tempdir().unwrap();
    for (pack, key, value) in [
        ("pack: {compression_level: 40}\n", "pack.compression_level", "22"),
        ("pack: {mel: {overrides: {fmax: 20000}}}\n", "pack.mel.overrides.fmax", "fmax"),
        ("pack: {mel: {definition: cosyvoice}}\n", "pack.mel.definition", "cosyvoice2"),
        ("pack: {mel: {stor: none}}\n", "pack.mel.stor", "\"store\""),
    ] {
        let error = match run_in(dir.path(), pack, 1) {
            Err(RunError::Recipe(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(error.key() == key && error.to_string().contains(value), "{pack}: {error}");
    }
}
