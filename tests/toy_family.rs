//! A family that is written here and registered with one line goes through all seven stages, and is used: stages and contract know no family
//! by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use flowmill_corpus::shard::{RowSizes, ShardIndex, speech};
use flowmill_corpus::{ColumnSpec, Row};
use flowmill_extract::{Media, State, extractors};
use flowmill_family::{
    BoxError, Card, Columns, ExtractorFiles, Family, FittedExtractor, HubMetadata, Image, Input, KeyError, Loaded,
    Loss, Made, Model, NoOptions, Output, Provided, Registry, Report, Request, Scored, Scorer, Synthesis, Synthesizer,
    TrainSettings,
};
use flowmill_nn::init::Builder;
use flowmill_nn::layers::Linear;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Ragged, Value};
use flowmill_runner::{Experiment, Recipe, RecipeError, Reporter, RunOptions, Stage, StageState};
use flowmill_stage_export::{Export, Synth, SynthOptions};
use flowmill_stage_train::TrainStage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::support::mini::Mini;

/// A linear map from the first values of an embedding to a number.
#[derive(Debug, Clone, Default, PartialEq)]
struct Toy;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ToyConfig {
    width: usize,
}

impl Default for ToyConfig {
    fn default() -> Self {
        Self { width: 2 }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ToyExport {
    offset: f64,
}

#[derive(Clone, Serialize, Deserialize)]
struct ToyDescription {
    rows: u64,
}

struct ToyModel(Linear);

/// The number that belongs to an embedding.
fn target(embedding: &[f32]) -> f32 {
    2.0 * embedding[0] - embedding[1] + 0.5
}

impl ToyModel {
    fn predict(&self, parameters: &Parameters, inputs: &[f32]) -> Result<f32, BoxError> {
        let input = Value::from_vec(inputs.to_vec(), &[1, inputs.len()])?;
        Ok(self.0.forward(&Context::inference(parameters), &input)?.scalar()?)
    }
}

/// A number as a picture: one gray pixel.
fn pixel(name: &str, number: f32) -> Made {
    let gray = (128.0 + 20.0 * number).clamp(0.0, 255.0) as u8;
    let output = Output::Images(vec![Image { width: 1, height: 1, rgb: vec![gray; 3] }]);
    Made { name: name.to_owned(), title: name.to_owned(), output, real: None }
}

impl Family for Toy {
    const NAME: &'static str = "toy-linear";
    const COST_UNIT: &'static str = "rows";
    const SHARD_COLUMNS: Option<&'static [&'static str]> = Some(&[speech::UTT_EMBEDDING]);
    const EXTRACTORS: &'static [FittedExtractor] = &[FittedExtractor { stage: 1, file: "embedding.safetensors" }];

    type Config = ToyConfig;
    type TrainOptions = NoOptions;
    type ExportOptions = ToyExport;
    type SynthOptions = NoOptions;
    type Description = ToyDescription;
    type Reader = ();
    type Example = (Vec<f32>, f32);
    type Batch = [Tensor; 2];
    type Model = ToyModel;

    fn check(settings: &TrainSettings<Self>) -> Result<(), KeyError> {
        match settings.config.width {
            2..=64 => Ok(()),
            width => Err(KeyError::new("train.model.width", format!("{width} is not in 2..=64"))),
        }
    }

    fn check_columns(settings: &TrainSettings<Self>, columns: &Columns) -> Result<(), KeyError> {
        match columns.get("utt_embedding") {
            Some(Provided::Embedding { dimensions }) if *dimensions < settings.config.width => {
                Err(KeyError::new("train.model.width", format!("is more than the {dimensions} values of stage 1")))
            }
            _ => Ok(()),
        }
    }

    fn check_export(_: &ToyConfig, options: &ToyExport) -> Result<(), KeyError> {
        if options.offset < 0.0 { Err(KeyError::new("export.offset", "is negative")) } else { Ok(()) }
    }

    fn columns(_: &TrainSettings<Self>, _: &ShardIndex) -> Result<Vec<ColumnSpec>, BoxError> {
        Ok(vec![speech::utt_embedding()])
    }

    fn reader(_: &TrainSettings<Self>, _: &Path, _: &ShardIndex) -> Result<(), BoxError> {
        Ok(())
    }

    fn cost(_: &TrainSettings<Self>, _: &RowSizes<'_>) -> u32 {
        1
    }

    fn example(
        settings: &TrainSettings<Self>,
        (): &(),
        row: &Row,
        _: u64,
        _: RngKey,
    ) -> Result<(Vec<f32>, f32), BoxError> {
        let embedding = row.values::<f32>(speech::UTT_EMBEDDING)?;
        Ok((embedding[..settings.config.width].to_vec(), target(embedding)))
    }

    fn collate(
        settings: &TrainSettings<Self>,
        examples: Vec<(Vec<f32>, f32)>,
        device: &Device,
    ) -> Result<[Tensor; 2], BoxError> {
        let (inputs, targets): (Vec<Vec<f32>>, Vec<f32>) = examples.into_iter().unzip();
        let rows = targets.len();
        let inputs = Tensor::from_vec(inputs.concat(), (rows, settings.config.width), device)?;
        Ok([inputs, Tensor::from_vec(targets, (rows, 1), device)?])
    }

    fn build(config: &ToyConfig, seed: u64) -> Result<(ToyModel, Parameters), BoxError> {
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, RngKey::new(seed));
        let linear = Linear::new(builder.scope("linear"), config.width, 1)?;
        Ok((ToyModel(linear), parameters))
    }

    fn describe(_: &TrainSettings<Self>, index: &ShardIndex) -> Result<ToyDescription, BoxError> {
        Ok(ToyDescription { rows: index.rows })
    }

    fn export(
        _: &ToyConfig,
        weights: &Path,
        file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>,
    ) -> Result<(), BoxError> {
        fs::copy(weights, file("toy.bin")?)?;
        Ok(())
    }

    fn scorer(loaded: Loaded<Self>, options: ToyExport, _: u64) -> Result<Box<dyn Scorer>, BoxError> {
        Ok(Box::new(ToyScorer { loaded, options, seen: Vec::new(), errors: Vec::new() }))
    }

    fn synthesizer(loaded: Loaded<Self>, _: NoOptions, _: u64) -> Result<Box<dyn Synthesizer>, BoxError> {
        Ok(Box::new(ToySynthesizer(loaded)))
    }

    fn card(loaded: &Loaded<Self>, scores: &serde_json::Value) -> Result<Card, BoxError> {
        let (kind, does) = ("linear map".to_owned(), format!("It was made of {} rows.", loaded.description.rows));
        let hub = HubMetadata { pipeline_tag: None, tags: &["toy"] };
        Ok(Card { kind, does, scores: format!("error {}\n", scores["error"]), public_code: String::new(), hub })
    }
}

impl Model<Toy> for ToyModel {
    fn loss(&self, context: &Context<'_>, [inputs, targets]: &[Tensor; 2], _: RngKey) -> Result<Loss, BoxError> {
        let rows = inputs.dims()[0];
        let output = self.0.forward(context, &Value::plain(inputs.clone())?)?;
        let total = output.mean_square_error(&Value::plain(targets.clone())?, &Ragged::packed(&[rows]))?;
        Ok(Loss { total, parts: Vec::new(), weight: rows as f64 })
    }

    fn preview(
        &self,
        context: &Context<'_>,
        examples: &[(String, (Vec<f32>, f32))],
        _: &ToyDescription,
        _: &ExtractorFiles,
        _: RngKey,
    ) -> Result<Vec<Made>, BoxError> {
        examples.iter().map(|(id, (inputs, _))| Ok(pixel(id, self.predict(context.parameters(), inputs)?))).collect()
    }
}

struct ToyScorer {
    loaded: Loaded<Toy>,
    options: ToyExport,
    /// Targets that were trained on.
    seen: Vec<f32>,
    /// Errors of the model and of the mean.
    errors: Vec<[f32; 2]>,
}

impl Scorer for ToyScorer {
    fn columns(&self) -> Vec<ColumnSpec> {
        vec![speech::utt_embedding()]
    }

    fn learn(&mut self, row: &Row) -> Result<(), BoxError> {
        self.seen.push(target(row.values(speech::UTT_EMBEDDING)?));
        Ok(())
    }

    fn score(&mut self, rows: &[Arc<Row>], _: &dyn Fn() -> bool) -> Result<Vec<Scored>, BoxError> {
        let mean = self.seen.iter().sum::<f32>() / self.seen.len() as f32;
        let mut scored = Vec::new();
        for row in rows {
            let embedding = row.values::<f32>(speech::UTT_EMBEDDING)?;
            let (inputs, wanted) = (&embedding[..self.loaded.config.width], target(embedding));
            let made = self.loaded.model.predict(&self.loaded.parameters, inputs)?;
            self.errors.push([(made - wanted).powi(2), (mean - wanted).powi(2)]);
            scored.push(Ok(vec![pixel(&row.id, made)]));
        }
        Ok(scored)
    }

    fn finish(self: Box<Self>, split: &str) -> Report {
        let rows = self.errors.len();
        let mean = |of: usize| f64::from(self.errors.iter().map(|errors| errors[of]).sum::<f32>() / rows as f32);
        let (error, trivial) = (mean(0) + self.options.offset, mean(1));
        Report {
            scores: json!({ "split": split, "error": error, "trivial": trivial }),
            lines: vec![format!("error {error}, of the mean {trivial}")],
            facts: vec![("error", error)],
            rows: rows as u64,
        }
    }
}

struct ToySynthesizer(Loaded<Toy>);

impl Synthesizer for ToySynthesizer {
    fn run(&self, request: &Request) -> Result<Synthesis, BoxError> {
        let [Input::Audio(path)] = request.inputs.as_slice() else { return Err("a recording is needed".into()) };
        let Loaded { folder, device, model, parameters, config, .. } = &self.0;
        let extractor = extractors::registry().open(&State::load(&folder.join("embedding.safetensors"))?, device)?;
        let audio = flowmill_audio::Decoder::with_ffmpeg().decode_file(path)?;
        let media = Media::audio(move || Ok::<_, flowmill_audio::AudioError>(audio.clone()));
        let values = extractor.extract(&media)?;
        let embedding = values.as_embedding().ok_or("no embedding")?;
        let made = model.predict(parameters, &embedding[..config.width])?;
        let error = (made - target(embedding)).abs();
        Ok(Synthesis { made: pixel(&request.name, made), figures: vec![format!("{error:.3}")] })
    }
}

/// The registry of all families, and this one.
fn registry() -> Registry {
    flowmill_families::registry().with::<Toy>()
}

fn stages() -> Vec<Box<dyn Stage>> {
    vec![
        Box::new(flowmill_stage_prep::Prep),
        Box::new(flowmill_stage_embed::Embed::new(extractors::registry())),
        Box::new(flowmill_stage_tokens::Tokens::new(extractors::registry())),
        Box::new(flowmill_stage_pack::Pack::new(extractors::registry()).with_families(registry())),
        Box::new(TrainStage::new(registry())),
        Box::new(flowmill_stage_average::AverageStage),
        Box::new(Export::new(registry())),
    ]
}

fn recipe(mini: &Mini, sets: &[&str]) -> Result<Recipe, RecipeError> {
    let own = ["train.model={family: toy-linear}", "export={}", "train.optim.lr=0.05", "train.max_steps=300"];
    let steps = ["train.validate_every=100", "train.save_every=100", "train.sample_every=150"];
    let sets: Vec<String> = [&own[..], &steps, sets].concat().iter().map(|&set| set.to_owned()).collect();
    Recipe::for_stages(mini.folder(), &sets, &stages())
}

#[test]
fn a_registered_family_goes_through_all_seven_stages() {
    let mini = Mini::new();
    let recipe = recipe(&mini, &[]).unwrap();
    let experiment = Experiment::of_recipe(&recipe);
    let run = || {
        let reporter = Reporter::to_writers(std::io::sink(), std::io::sink());
        flowmill_runner::run(&stages(), &recipe, &experiment, &RunOptions::default(), &reporter)
    };
    run().unwrap();
    let status = flowmill_runner::status(&stages(), &recipe, &experiment).unwrap();
    assert_eq!(status.iter().filter(|stage| stage.state == StageState::Done).count(), 7);

    let read = |name: &str| fs::read_to_string(mini.exp(name)).unwrap();
    let json = |name: &str| serde_json::from_str::<serde_json::Value>(&read(name)).unwrap();
    let config = json("6-export/config.json");
    assert_eq!((&config["family"], &config["model"]["width"]), (&"toy-linear".into(), &2.into()));
    let scores = json("6-export/scores.json");
    let (error, trivial) = (scores["error"].as_f64().unwrap(), scores["trivial"].as_f64().unwrap());
    assert!(error < 1e-2 && error < trivial / 10.0, "{scores}");
    assert!(read("6-export/README.md").contains("A linear map of 3 parameters"));
    assert_eq!(
        fs::read(mini.exp("6-export/toy.bin")).unwrap(),
        fs::read(mini.exp("6-export/model.safetensors")).unwrap()
    );
    let pictures = |folder: &str| fs::read_dir(mini.exp(folder)).unwrap().count();
    assert_eq!(pictures("4-train/samples/step-000150"), 2);
    assert!(pictures("6-export/samples") > 0);

    // The exported folder is enough to use the model.
    let recording = fs::read_dir(mini.path("data/audio")).unwrap().next().unwrap().unwrap().path();
    let folder = mini.exp("6-export");
    let options = || SynthOptions { options: json!({}), ..SynthOptions::default() };
    let synth = Synth::open(&registry(), &folder, options()).unwrap();
    let request = Request { inputs: vec![Input::Audio(recording)], name: "made".to_owned() };
    let made = synth.run(&request, mini.folder()).unwrap();
    assert!(made.figures[0].parse::<f64>().unwrap() < 0.2, "{made:?}");
    assert_eq!(made.files, [mini.path("made.png")]);
    // Options of another family, and programs without this one, refuse it.
    let steps = SynthOptions { options: json!({ "steps": 3 }), ..SynthOptions::default() };
    assert!(Synth::open(&registry(), &folder, steps).is_err());
    assert!(Synth::open(&flowmill_families::registry(), &folder, options()).is_err());
}

#[test]
fn settings_of_a_registered_family_are_checked_with_their_keys() {
    let mini = Mini::new();
    for (set, key) in [
        ("train.model={family: toy-linear, width: 1}", "train.model.width"),
        ("train.model={family: toy-linear, width: 33}", "train.model.width"),
        ("train.model={family: toy-linear, widht: 3}", "train.model.widht"),
        ("train.model={family: toy-linaer}", "train.model.family"),
        ("train.speaker_embedding=speaker", "train.speaker_embedding"),
        ("export.offset=-1", "export.offset"),
        ("export.n_timesteps=4", "export.n_timesteps"),
    ] {
        let recipe = recipe(&mini, &[set]).unwrap();
        let checked = stages().iter().try_for_each(|stage| stage.check(&recipe));
        let error = checked.expect_err(set).to_string();
        assert!(error.contains(&format!("{key}:")), "{set}: {error}");
    }
}
