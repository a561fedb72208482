//! Extractors that are written here and registered with one line each go through their stage, and stage 3 packs their columns: stages, the
//! schema of the recipe and its checks know no extractor by name.

use std::fs;
use std::path::Path;

use candle_core::Device;
use flowmill_corpus::shard::ShardReader;
use flowmill_corpus::{Array, ColumnSpec, DType, Role, Row};
use flowmill_extract::{
    Column, ConfigError, ExtractError, Extracted, Extractor, Kind, Media, Registry, State, StateError, extractors,
};
use flowmill_runner::{Experiment, Recipe, RecipeError, Reporter, RunOptions, Stage, StageState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::support::corpus::Corpus;
use crate::support::mini::Mini;

/// The level of a recording frame by frame, and its peak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Contour {
    /// Samples of a frame at 8 kHz.
    frame: usize,
}

impl Default for Contour {
    fn default() -> Self {
        Self { frame: 400 }
    }
}

impl Contour {
    fn of(&self, samples: &[f32]) -> (Vec<f32>, f64) {
        let level = |frame: &[f32]| frame.iter().map(|sample| sample.abs()).sum::<f32>() / frame.len() as f32;
        let crossings = |frame: &[f32]| frame.windows(2).filter(|pair| pair[0] * pair[1] < 0.0).count() as f32;
        let contour = samples.chunks_exact(self.frame).flat_map(|frame| [level(frame), crossings(frame)]).collect();
        (contour, samples.iter().fold(0.0, |peak: f32, sample| peak.max(sample.abs())).into())
    }
}

impl Kind for Contour {
    const NAME: &'static str = "toy-contour";
    const ABOUT: &'static str = "Level and zero crossings of every frame, and the peak.";

    fn columns(&self) -> Vec<Column> {
        let contour = ColumnSpec::new("contour", DType::F32).axis("frame").fixed_axis("value", 2);
        vec![contour.into(), ColumnSpec::new("peak", DType::F64).into()]
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(state.settings_as::<Self>(Self::NAME)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.frame > 0 { Ok(()) } else { Err(ConfigError::new("frame", "0: at least 1")) }
    }
}

impl Extractor for Contour {
    fn kind(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        Kind::columns(self)
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let (contour, peak) = self.of(&media.as_audio(Self::NAME)?.mono_at(8_000)?);
        let contour = Array::new(vec![contour.len() / 2, 2], contour);
        let contour = contour.map_err(|error| ExtractError::Media(error.to_string()))?;
        Ok(Extracted::new(vec![contour, Array::scalar(peak)]))
    }
}

/// The sizes of a row's pictures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Sizes {}

impl Kind for Sizes {
    const NAME: &'static str = "toy-sizes";
    const ABOUT: &'static str = "The sizes of pictures.";
    const MEDIA: &'static [Role] = &[Role::Images];

    fn columns(&self) -> Vec<Column> {
        vec![ColumnSpec::new("sizes", DType::I64).axis("image").into()]
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(state.settings_as::<Self>(Self::NAME)?))
    }
}

impl Extractor for Sizes {
    fn kind(&self) -> &'static str {
        Self::NAME
    }

    fn columns(&self) -> Vec<Column> {
        Kind::columns(self)
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let files = media.files(Self::NAME, Role::Images)?;
        let sizes: Vec<i64> = files.iter().map(|file| file.len() as i64).collect();
        Ok(Array::vector(sizes).into())
    }
}

/// The registry of all extractors, and these.
fn registry() -> Registry {
    extractors::registry().with::<Contour>().with::<Sizes>()
}

/// Stages 0 to 3.
fn stages() -> Vec<Box<dyn Stage>> {
    vec![
        Box::new(flowmill_stage_prep::Prep),
        Box::new(flowmill_stage_embed::Embed::new(registry())),
        Box::new(flowmill_stage_tokens::Tokens::new(registry())),
        Box::new(flowmill_stage_pack::Pack::new(registry())),
    ]
}

/// Runs the stages of a recipe in `folder`; the states that they are in then.
fn run(folder: &Path, sets: &[&str]) -> Vec<StageState> {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    let recipe = Recipe::for_stages(folder, &sets, &stages()).unwrap();
    let experiment = Experiment::of_recipe(&recipe);
    let reporter = Reporter::to_writers(std::io::sink(), std::io::sink());
    flowmill_runner::run(&stages(), &recipe, &experiment, &RunOptions::default(), &reporter).unwrap();
    let status = flowmill_runner::status(&stages(), &recipe, &experiment).unwrap();
    status.into_iter().map(|stage| stage.state).collect()
}

/// The rows of a table with these columns.
fn rows(path: &Path, columns: &[ColumnSpec]) -> Vec<Row> {
    let table = ShardReader::open(path).unwrap();
    table.iter(columns).unwrap().collect::<Result<_, _>>().unwrap()
}

/// A miniature recipe without a training, which has the stages of this file.
fn mini() -> Mini {
    let mini = Mini::new();
    let recipe = fs::read_to_string(mini.path("recipe.yaml")).unwrap();
    let end = recipe.find("\ntrain:").unwrap();
    fs::write(mini.path("recipe.yaml"), &recipe[..end]).unwrap();
    mini
}

#[test]
fn a_registered_extractor_gives_columns_of_its_own_shape_which_shards_hold() {
    let mini = mini();
    let sets = ["embed.extractor={kind: toy-contour, frame: 200}", "pack.columns=[contour, peak]"];
    assert_eq!(run(mini.folder(), &sets), [StageState::Done; 4]);

    let columns: Vec<ColumnSpec> = Kind::columns(&Contour::default()).into_iter().map(|column| column.spec).collect();
    let (mut extracted, mut packed) = (Vec::new(), Vec::new());
    for split in ["train", "dev"] {
        for file in fs::read_dir(mini.exp(&format!("1-embed/{split}"))).unwrap() {
            extracted.extend(rows(&file.unwrap().path(), &columns));
        }
        let shards = fs::read_dir(mini.exp(&format!("3-pack/{split}"))).unwrap().map(|file| file.unwrap().path());
        for shard in shards.filter(|path| path.extension().is_some_and(|ending| ending == "parquet")) {
            let (found, _) = ShardReader::open(&shard).unwrap().columns();
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found[2..], ["contour: f32 [frame, value]", "peak: f64 []"]);
            packed.extend(rows(&shard, &columns));
        }
    }
    assert_eq!(extracted.len(), 12);
    for rows in [&mut extracted, &mut packed] {
        rows.sort_by(|one, other| one.id.cmp(&other.id));
    }
    assert_eq!(extracted, packed);
    for row in &packed {
        let audio = flowmill_audio::decode_file(mini.recording(&row.id)).unwrap();
        let rate = audio.sample_rate;
        let samples = flowmill_audio::resample(&audio.into_mono(), rate, 8_000).unwrap();
        let (contour, peak) = Contour { frame: 200 }.of(&samples);
        assert_eq!(row.column("contour").unwrap().shape(), [samples.len() / 200, 2]);
        assert_eq!((row.values::<f32>("contour").unwrap(), *row.value::<f64>("peak").unwrap()), (&contour[..], peak));
    }
    let index: Value = serde_json::from_slice(&fs::read(mini.exp("3-pack/train/index.json")).unwrap()).unwrap();
    assert_eq!(index["extractors"]["contour"]["kind"], "toy-contour");
    // Other frames are the fit and the rows again, and nothing when nothing changed.
    let changed = ["embed.extractor={kind: toy-contour, frame: 100}", "pack.columns=[contour, peak]"];
    run(mini.folder(), &changed);
    let path = mini.exp("1-embed/dev/part-00000.parquet");
    let again = rows(&path, &columns);
    let first = packed.iter().find(|row| row.id == again[0].id).unwrap();
    assert!(again[0].values::<f32>("contour").unwrap().len() > first.values::<f32>("contour").unwrap().len());
}

#[test]
fn a_registered_extractor_reads_pictures() {
    let corpus = Corpus::new();
    let picture = |bytes: usize| [b"\x89PNG\r\n\x1a\n".as_slice(), &vec![7; bytes]].concat();
    for bytes in [10, 20, 30] {
        corpus.write(&format!("{bytes}.png"), picture(bytes));
    }
    let manifest = [
        r#"{"id": "a", "group": "g", "images": ["10.png", "30.png"]}"#,
        r#"{"id": "b", "group": "g", "images": ["20.png"]}"#,
        r#"{"id": "c", "group": "g"}"#,
    ];
    corpus.write("m.jsonl", manifest.join("\n"));
    let recipe = "name: c\nmax_rejected: 0.5\nprep:\n  data: [{dir: m.jsonl, format: manifest}]\n  media: [images]\n  \
                  split: {fractions: {}}\nembed: {extractor: {kind: toy-sizes}}\npack: {columns: [sizes]}\n";
    corpus.write("recipe.yaml", recipe);
    run(corpus.folder.path(), &[]);
    let columns = [Kind::columns(&Sizes::default()).remove(0).spec];
    let sizes = || {
        let rows = rows(&corpus.path("exp/c/3-pack/train/shard-00000.parquet"), &columns);
        let size = |row: &Row| (row.id.clone(), row.values::<i64>("sizes").unwrap().to_vec());
        rows.iter().map(size).collect::<Vec<_>>()
    };
    assert_eq!(sizes(), [("a".to_owned(), vec![18, 38]), ("b".to_owned(), vec![28])]);
    // Another picture is another input.
    corpus.write("20.png", picture(21));
    run(corpus.folder.path(), &[]);
    assert_eq!(sizes()[1].1, [29]);
}

#[test]
fn settings_of_a_registered_extractor_are_checked_with_their_keys() {
    let mini = mini();
    for (set, key) in [
        ("embed.extractor={kind: toy-contour, frame: 0}", "embed.extractor.frame"),
        ("embed.extractor={kind: toy-contour, frames: 9}", "embed.extractor.frames"),
        ("tokens.extractor={kind: toy-contuor}", "tokens.extractor.kind"),
        ("embed.extractor={frame: 9}", "embed.extractor"),
    ] {
        let check = || -> Result<(), RecipeError> {
            let recipe = Recipe::for_stages(mini.folder(), &[set.to_owned()], &stages())?;
            stages().iter().try_for_each(|stage| stage.check(&recipe))
        };
        assert_eq!(check().unwrap_err().key(), key, "{set}");
    }
    // The schema of the recipe, which editors and the reference read, has it in both sections.
    let schema = flowmill_runner::schema(&stages());
    for section in ["embed", "tokens"] {
        let text = schema["properties"][section].to_string();
        assert!(text.contains("toy-contour") && text.contains("Samples of a frame at 8 kHz."), "{section}");
    }
}
