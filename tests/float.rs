//! FLOAT through the binary: motion and speech features of clips, training, export, scores, talking, and the recipes of `recipes/float`.

use std::fs;
use std::path::Path;

use flowmill_image::{Limits, Raster};

use crate::support::corpus::Corpus;
use crate::support::mini::repository;
use crate::support::training::metrics;
use crate::support::{Outcome, flowmill, json, muxers};
use serde_json::Value;

const RECIPE: &str = "
name: c
seed: 7
prep:
  data: [{dir: d, format: ravdess}]
  split: {by: list, lists: {train: train.list, dev: dev.list}}
embed:
  extractor: {kind: pca-motion, components: 3, frames: {size: 16, crop: center}}
tokens:
  extractor: {kind: mel-windows, n_mels: 4, context: 1}
train:
  model:
    {family: float, dim_w: 3, dim_a: 4, audio_features: 12, dim_h: 16, fmt_depth: 1, num_heads: 2, num_prev_frames: 3, num_frames: 10}
  batch: {max_frames_in_batch: 100}
  optim: {lr: 1e-3}
  schedule: {name: constant}
  max_steps: 12
  validate_every: 4
  save_every: 4
  log_every: 1
  sample_every: 12
  keep: {last: 2, best: 2}
average: {count: 2}
export: {motion: {nfe: 4}}
";

/// Three clips of the GRID corpus under names of RAVDESS: two to train on, one held out.
fn corpus() -> Corpus {
    let corpus = Corpus::new();
    for (actor, (clip, emotion)) in (1..).zip([("bbaf2n", 3), ("brbk7n", 4), ("lbax4n", 5)]) {
        let video = fs::read(repository().join("data/grid11/clips").join(format!("{clip}.mp4"))).unwrap();
        corpus.write(&format!("d/01-01-{emotion:02}-01-01-01-{actor:02}.mp4"), video);
    }
    corpus.write("train.list", "01-01-03-01-01-01-01\n01-01-04-01-01-01-02\n");
    corpus.write("dev.list", "01-01-05-01-01-01-03\n");
    corpus.write("recipe.yaml", RECIPE);
    corpus
}

fn run(corpus: &Corpus, more: &[&str]) -> Outcome {
    flowmill(corpus.folder.path(), &[&["run", "."], more].concat())
}

fn exported(corpus: &Corpus, name: &str) -> std::path::PathBuf {
    corpus.path(&format!("exp/c/6-export/{name}"))
}

#[test]
fn a_face_goes_through_all_stages_and_talks() {
    let corpus = corpus();
    run(&corpus, &[]).expect_code(0);
    let lines = metrics(&corpus.path("exp/c/4-train/metrics.jsonl"));
    let parts = |line: &Value| [line["parts"].clone(), line["validation"]["parts"].clone()];
    let has = |name: &str| lines.iter().flat_map(parts).any(|parts| parts[name].is_number());
    for name in ["loss.current", "loss.previous", "distance", "distance.still", "mouth"] {
        assert!(has(name), "{name}");
    }
    let samples = corpus.path("exp/c/4-train/samples/step-000012");
    let mut names: Vec<_> = fs::read_dir(samples).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["01-01-05-01-01-01-03.mp4", "01-01-05-01-01-01-03.png"]);
    let scores = json(&exported(&corpus, "scores.json"));
    for of in ["generated", "mean", "last", "other_speech"] {
        assert!(scores["distance"][of].as_f64() > Some(0.0), "{scores}");
    }
    assert!(scores["mouth"]["generated"].is_number(), "{scores}");
    assert_eq!((&scores["clips"], &scores["each"][0]["frames"]), (&1.into(), &75.into()));
    let config = json(&exported(&corpus, "config.json"));
    assert_eq!(
        (&config["family"], &config["fps"], &config["sampling"]["nfe"]),
        (&"float".into(), &25.into(), &4.into())
    );
    assert_eq!(config["mouth"].as_array().map(Vec::len), Some(3));
    for name in ["01-01-05-01-01-01-03.mp4", "01-01-05-01-01-01-03.real.mp4", "01-01-05-01-01-01-03.png"] {
        assert!(exported(&corpus, "samples").join(name).exists(), "{name}");
    }
    public_names(&exported(&corpus, "fmt.pth"));
    talks(&corpus);
    bad_input(&corpus);
}

/// Checks the weights under their public names.
fn public_names(path: &Path) {
    let listed = flowmill(path.parent().unwrap(), &["inspect", &path.display().to_string(), "--full"]).expect_code(0);
    listed.expect_words(&[
        "fmt.blocks.0.attn.qkv.weight",
        "fmt.decoder.linear.weight",
        "audio_encoder.audio_projection.0.weight",
    ]);
}

/// Makes videos of a portrait: the sheet of a clip is a picture like any other, cropped to its center.
fn talk(corpus: &Corpus, more: &[&str]) -> Outcome {
    let model = corpus.path("exp/c/6-export").display().to_string();
    let (portrait, voice) =
        (corpus.path("face.png").display().to_string(), corpus.path("voice.wav").display().to_string());
    let own = ["talk", "--model", &model, "--portrait", &portrait, "--audio", &voice];
    flowmill(corpus.folder.path(), &[&own, more].concat())
}

/// Writes a portrait, and a voice: a second of a tone, which has 25 frames.
fn portrait_and_voice(corpus: &Corpus) {
    fs::copy(exported(corpus, "samples/01-01-05-01-01-01-03.png"), corpus.path("face.png")).unwrap();
    let tone = (0..16_000).flat_map(|at| (((f64::from(at) * 0.2).sin() * 8000.0) as i16).to_le_bytes()).collect();
    fs::write(corpus.path("voice.wav"), muxers::wav(1, 1, 16_000, 2, 16, &[(b"data", tone)])).unwrap();
}

fn talks(corpus: &Corpus) {
    portrait_and_voice(corpus);
    talk(corpus, &["--out", "a.mp4", "--frames", "frames"])
        .expect_code(0)
        .expect_words(&["25 frames", "real-time factor"]);
    assert_eq!(fs::read_dir(corpus.path("frames")).unwrap().count(), 25);
    talk(corpus, &["--out", "b.mp4"]).expect_code(0);
    talk(corpus, &["--out", "c.mp4", "--seed", "1", "--emotion", "happy", "--nfe", "2", "--audio-guidance", "1.5"])
        .expect_code(0);
    let video = |name: &str| fs::read(corpus.path(name)).unwrap();
    assert!(video("a.mp4") == video("b.mp4"), "the same seed gives the same video");
    assert!(video("a.mp4") != video("c.mp4"));
    let shown = flowmill(corpus.folder.path(), &["inspect", "a.mp4"]).expect_code(0);
    shown.expect_words(&["25", "16"]);
    // Silence is a voice too.
    fs::write(corpus.path("voice.wav"), muxers::wav(1, 1, 8000, 2, 16, &[(b"data", vec![0; 16_000])])).unwrap();
    talk(corpus, &["--out", "silent.mp4"]).expect_code(0);
    // A JPEG file is known by its content.
    fs::copy(repository().join("data/photos/img/cat_portrait.jpg"), corpus.path("face.png")).unwrap();
    talk(corpus, &["--out", "cat.mp4"]).expect_code(0);
}

/// Checks that bad input ends in one clear error.
fn bad_input(corpus: &Corpus) {
    talk(corpus, &["--out", "a.wav"]).expect_code(2);
    talk(corpus, &["--emotion", "bored"]).expect_code(1).expect_words(&["bored", "happy"]);
    talk(corpus, &["--emotion", "auto"]).expect_code(1).expect_words(&["auto"]);
    talk(corpus, &["--nfe", "0"]).expect_code(1).expect_words(&["nfe"]);
    fs::write(corpus.path("face.png"), "no picture").unwrap();
    talk(corpus, &[]).expect_code(1).expect_words(&["face.png", "PNG"]);
    fs::remove_file(corpus.path("face.png")).unwrap();
    talk(corpus, &[]).expect_code(1).expect_words(&["face.png"]);
    assert!(!corpus.path("talk.mp4").exists());
}

#[test]
fn only_the_part_of_a_face_that_moves_changes() {
    let corpus = corpus();
    run(&corpus, &["--set", "embed.extractor.region=[0.2, 0.5, 0.8, 1.0]", "--set", "train.sample_every=0"])
        .expect_code(0);
    portrait_and_voice(&corpus);
    talk(&corpus, &["--out", "a.mp4", "--frames", "frames"]).expect_code(0);
    let frames: Vec<Raster> = fs::read_dir(corpus.path("frames"))
        .unwrap()
        .map(|file| flowmill_image::read(&file.unwrap().path(), &Limits::default()).unwrap())
        .collect();
    assert_eq!((frames.len(), frames[0].width(), frames[0].height()), (25, 16, 16));
    let changes = |row: usize, column: usize| {
        let pixel = |frame: &Raster| frame.pixels()[3 * (16 * row + column)..][..3].to_vec();
        frames.iter().any(|frame| pixel(frame) != pixel(&frames[0]))
    };
    for (row, column) in (0..16).flat_map(|row| (0..16).map(move |column| (row, column))) {
        let inside = row >= 8 && (3..13).contains(&column);
        assert!(inside || !changes(row, column), "row {row}, column {column}");
    }
    assert!(changes(12, 8));
}

/// The claim of the small recipe: for talkers of whom no clip is trained on, it is better than every trivial answer.
#[test]
fn the_small_recipe_is_nearer_to_new_talkers_than_every_trivial_answer() {
    let folder = tempfile::tempdir().unwrap();
    let exp = folder.path().join("exp").display().to_string();
    flowmill(&repository(), &["run", "recipes/float/smoke.yaml", "--exp", &exp]).expect_code(0);
    let scores = json(&folder.path().join("exp/6-export/scores.json"));
    let distance = |of: &str| scores["distance"][of].as_f64().unwrap();
    for trivial in ["mean", "last", "other_speech"] {
        assert!(distance("generated") < distance(trivial), "{scores}");
    }
    let mouth = |of: &str| scores["mouth"][of].as_f64().unwrap();
    assert!(mouth("generated") > mouth("other_speech") + 0.2, "{scores}");
}

#[test]
fn a_training_does_not_depend_on_loader_threads_and_resumes() {
    let corpus = corpus();
    let train = |name: &str, more: &[&str]| {
        let name = format!("name={name}");
        run(&corpus, &[&["--set", &name, "--stop-stage", "train", "--set", "train.sample_every=0"], more].concat())
            .expect_code(0);
    };
    train("one", &["--set", "train.num_workers=1", "--set", "train.prefetch=0"]);
    train("many", &["--set", "train.num_workers=4", "--set", "train.prefetch=8"]);
    train("resumed", &["--set", "train.max_steps=8"]);
    train("resumed", &[]);
    let weights = |name: &str| {
        fs::read(corpus.path(&format!("exp/{name}/4-train/checkpoints/step-000012/model.safetensors"))).unwrap()
    };
    assert!(weights("one") == weights("many"), "windows are a function of seed, epoch and batch");
    assert!(weights("one") == weights("resumed"));
}

#[test]
fn clips_that_cannot_be_used_are_rejected_and_short_ones_are_trained_on() {
    let corpus = corpus();
    corpus.write("d/01-01-06-01-01-01-04.mp4", "a text");
    let silent = fs::read(repository().join("src/video/tests/data/silent.mp4")).unwrap();
    corpus.write("d/01-01-07-01-01-01-05.mp4", silent);
    corpus.write(
        "train.list",
        "01-01-03-01-01-01-01\n01-01-04-01-01-01-02\n01-01-06-01-01-01-04\n01-01-07-01-01-01-05\n",
    );
    // Windows of 200 frames, of which no clip has as many.
    let long = ["--set", "train.model.num_frames=200", "--set", "max_rejected=1", "--stop-stage", "train"];
    run(&corpus, &long).expect_code(0);
    corpus.expect_rejected("01-01-06-01-01-01-04", "unusable video", &["does not begin like"]);
}

#[test]
fn settings_that_cannot_work_are_refused_by_their_key() {
    let corpus = corpus();
    for (set, key) in [
        ("train.model.dim_w=4", "train.model.dim_w"),
        ("train.model.audio_features=13", "train.model.audio_features"),
        ("train.model.num_heads=3", "train.model.num_heads"),
        ("train.model.dim_e=6", "train.model.dim_e"),
        ("train.model.depth=3", "train.model.depth"),
        ("train.dropout.audio=2", "train.dropout.audio"),
        ("train.sampling.nfe=0", "train.sampling.nfe"),
        ("export.motion.noise=-1", "export.motion.noise"),
        ("export.n_timesteps=3", "export.n_timesteps"),
        ("embed.extractor.mouth=[0.5, 0.5, 0.4, 0.9]", "embed.extractor.mouth"),
        ("embed.extractor.region=[0.2, 0.5, 0.8, 1.5]", "embed.extractor.region"),
        ("embed.extractor.region=[0.8, 0.5, 0.2, 1.0]", "embed.extractor.region"),
        ("embed.extractor.region=[0.2, 0.0, 0.8, 0.5]", "embed.extractor.mouth"),
        ("embed.extractor.components=0", "embed.extractor.components"),
        ("embed.extractor.frames.size=3", "embed.extractor.frames"),
        ("embed.extractor={kind: statistics}", "embed.extractor.kind"),
        ("tokens.extractor={kind: kmeans}", "tokens.extractor.kind"),
        ("tokens.extractor.fps=30", "tokens.extractor.fps"),
    ] {
        let arguments = ["recipe", "check", ".", "--set", set];
        flowmill(corpus.folder.path(), &arguments).expect_error("recipe", 2).expect_words(&[key]);
    }
}

#[test]
fn every_recipe_is_well_formed() {
    let folder = repository().join("recipes/float");
    for name in ["recipe.yaml", "smoke.yaml"] {
        let data = "prep.data=[{dir: ../../data/grid11/clips, format: clips}]";
        flowmill(&folder, &["recipe", "check", name, "--set", data]).expect_code(0);
    }
}
