//! VALL-E through the binary: training with prompts, export, scores, speaking, and the recipes of `recipes/vall-e`.

use std::fs;

use crate::support::mini::repository;
use crate::support::muxers;
use crate::support::training::metrics;
use crate::support::{Mini, Outcome, flowmill, json};

const RECIPE: &str = "
name: mini
seed: 7
prep:
  data: data
  split: {by: list, lists: {train: lists/train, dev: lists/dev}}
  part_size: 4
embed:
  extractor: {kind: phonemes, language: en}
tokens:
  extractor: {kind: rvq-kmeans, levels: 3, k: 16, iterations: 5, sample_rate: 8000, hop_length: 256, n_mels: 24, griffin_lim_iterations: 2}
pack: {utterances_per_shard: 4}
train:
  model: {family: vall-e, dim: 16, heads: 2, layers: 1, ffn_multiple: 2, levels: 3, audio_tokens: 16, languages: 1}
  languages: [en]
  tasks: {tts: 1, tts-c: 0.5, stt: 0.5, len: 0.5}
  prompt_seconds: [0.5, 1.5]
  batch: {max_frames_in_batch: 400}
  optim: {lr: 1e-3}
  schedule: {name: constant}
  max_steps: 12
  validate_every: 4
  save_every: 4
  log_every: 1
  sample_every: 12
  keep: {last: 2, best: 2}
average: {count: 2}
export: {speech: {max_frames: 20}}
";

/// Copies the miniature corpus and gives it a recipe of this family.
pub fn mini() -> Mini {
    let mini = Mini::new();
    fs::write(mini.path("recipe.yaml"), RECIPE).unwrap();
    mini
}

#[test]
fn a_codec_language_model_goes_through_all_stages_and_speaks() {
    let mini = mini();
    mini.run(&[]).expect_code(0);
    let lines = metrics(&mini.exp("4-train/metrics.jsonl"));
    let names: Vec<String> =
        lines.iter().flat_map(|line| line["parts"].as_object()).flatten().map(|(name, _)| name.clone()).collect();
    for name in
        ["accuracy", "top10", "loss.0", "accuracy.0", "top10.0", "loss.2", "loss.nar-len", "loss.stt", "loss.len"]
    {
        assert!(names.iter().any(|own| own == name), "{name} in {names:?}");
    }
    for line in lines.iter().filter(|line| line["parts"].is_object()) {
        let parts = line["parts"].as_object().unwrap();
        assert!(parts.values().all(|part| part.is_f64() || part.is_u64()), "absent parts are left out: {line}");
        assert!(parts["accuracy"].as_f64() <= parts["top10"].as_f64(), "{line}");
    }
    let samples: Vec<_> = mini.files_ending(".wav").into_iter().map(|path| path.display().to_string()).collect();
    for part in ["output", "target"] {
        // Each speaker has a single utterance in the validation split, so there is no prompt.
        let wanted = |path: &String| path.starts_with("4-train/samples/step-000012/") && path.contains(part);
        assert!(samples.iter().any(wanted), "{part}: {samples:?}");
    }
    let scores = json(&mini.exp("6-export/scores.json"));
    assert!(
        scores["utterances"].as_u64() > Some(0) && scores["recognition"].is_null(),
        "sentences are no closed set: {scores}"
    );
    assert!(scores["voice"]["own"].is_number() && scores["distance_db"]["codec"].is_number(), "{scores}");
    let config = json(&mini.exp("6-export/config.json"));
    assert_eq!((&config["family"], &config["tokenizer"]), (&"vall-e".into(), &"bytes".into()));
    assert_eq!(config["sampling"]["max_frames"], 20);
    let model = mini.exp("6-export");
    assert_eq!(fs::read(model.join("fp32.sft")).unwrap(), fs::read(model.join("model.safetensors")).unwrap());

    let prompt = mini.recording("1688-142285-0002").display().to_string();
    let model = model.display().to_string();
    let speak =
        |more: &[&str]| flowmill(mini.folder(), &[&["speak", "--model", &model, "--prompt", &prompt], more].concat());
    let wav = |name: &str| fs::read(mini.path(name)).unwrap();
    speak(&["--text", "good morning", "--out", "a.wav"]).expect_code(0).expect_words(&["real-time factor"]);
    speak(&["--text", "good morning", "--out", "b.wav"]).expect_code(0);
    assert_eq!(wav("a.wav"), wav("b.wav"), "the same seed gives the same sound");
    speak(&["--text", "good morning", "--out", "c.wav", "--path", "nar-len", "--steps", "3", "--max-seconds", "0.5"])
        .expect_code(0);
    fs::write(mini.path("lines.tsv"), format!("one\tgood morning\ntwo\tgood evening\t{prompt}\n")).unwrap();
    speak(&["--lines", "lines.tsv", "--out", "spoken"]).expect_code(0);
    assert!(!wav("spoken/one.wav").is_empty() && !wav("spoken/two.wav").is_empty());
    speak(&["--task", "stt"]).expect_code(0);
    bad_input(&mini, &speak);
}

/// Checks that bad input ends in one clear error.
fn bad_input(mini: &Mini, speak: &dyn Fn(&[&str]) -> Outcome) {
    speak(&["--text", " "]).expect_code(2);
    speak(&["--text", "!?"]).expect_code(1);
    speak(&["--text", "one", "--steps", "3"]).expect_code(1).expect_words(&["nar-len"]);
    speak(&["--text", "one", "--language", "xx"]).expect_code(1).expect_words(&["language", "xx"]);
    speak(&["--text", "one", "--top-p", "0"]).expect_code(1).expect_words(&["top_p"]);
    speak(&["--text", "one", "--out", "a.mp3"]).expect_code(2);
    fs::write(mini.path("bad.tsv"), "one\n").unwrap();
    speak(&["--lines", "bad.tsv"]).expect_code(2).expect_words(&["line 1"]);
    let silent = mini.path("silent.wav");
    fs::write(&silent, muxers::wav(1, 1, 8000, 2, 16, &[(b"data", vec![0; 32_000])])).unwrap();
    let model = mini.exp("6-export").display().to_string();
    let silent = silent.display().to_string();
    let silence = ["speak", "--model", &model, "--text", "one", "--prompt", &silent];
    flowmill(mini.folder(), &silence).expect_code(1).expect_words(&["silent"]);
    let synth = ["synth", "--model", &model, "--wav", &silent];
    flowmill(mini.folder(), &synth).expect_code(1).expect_words(&["flowmill speak"]);
}

#[test]
fn a_training_does_not_depend_on_loader_threads_and_resumes() {
    let mini = mini();
    let train = |name: &str, more: &[&str]| {
        let name = format!("name={name}");
        mini.run(&[&["--set", &name, "--stop-stage", "train", "--set", "train.sample_every=0"], more].concat())
            .expect_code(0);
    };
    train("one", &["--set", "train.num_workers=1", "--set", "train.prefetch=0"]);
    train("many", &["--set", "train.num_workers=4", "--set", "train.prefetch=8"]);
    train("resumed", &["--set", "train.max_steps=8"]);
    train("resumed", &[]);
    let weights = |name: &str| {
        fs::read(mini.path(&format!("exp/{name}/4-train/checkpoints/step-000012/model.safetensors"))).unwrap()
    };
    assert!(weights("one") == weights("many"), "prompts and levels are a function of seed, epoch and batch");
    assert!(weights("one") == weights("resumed"));
}

#[test]
fn a_speaker_with_one_utterance_gives_a_warning() {
    let mini = mini();
    let train = fs::read_to_string(mini.path("lists/train")).unwrap();
    let single = train.lines().find(|id| id.starts_with("367-")).unwrap();
    let kept: Vec<&str> = train.lines().filter(|id| !id.starts_with("367-") || *id == single).collect();
    fs::write(mini.path("lists/train"), kept.join("\n")).unwrap();
    let outcome = mini.run(&["--stop-stage", "train", "--set", "prep.split.rest=other"]).expect_code(0);
    outcome.expect_words(&["1 of 4 speakers", "without a prompt"]);
}

#[test]
fn settings_that_cannot_work_are_refused_by_their_key() {
    let mini = mini();
    for (set, key) in [
        ("train.model.levels=4", "train.model.levels"),
        ("train.model.audio_tokens=8", "train.model.audio_tokens"),
        ("train.model.heads=3", "train.model.heads"),
        ("train.model.lyers=3", "train.model.lyers"),
        ("train.tasks.ns=1", "train.tasks.ns"),
        ("train.model.size=tiny", "train.model.size"),
        ("train.similar_prompts.probability=2", "train.similar_prompts.probability"),
        ("train.draws.level_weights=[1]", "train.draws.level_weights"),
        ("train.prompt_seconds=[3, 1]", "train.prompt_seconds"),
        ("train.languages=[en, de]", "train.languages"),
        ("train.normalise_mel=false", "train.normalise_mel"),
        ("export.speech.max_frames=0", "export.speech.max_frames"),
        ("export.n_timesteps=3", "export.n_timesteps"),
        ("tokens.extractor={kind: kmeans}", "tokens.extractor.kind"),
        ("embed.extractor={kind: statistics}", "embed.extractor.kind"),
    ] {
        let arguments = ["recipe", "check", ".", "--set", set];
        flowmill(mini.folder(), &arguments).expect_error("recipe", 2).expect_words(&[key]);
    }
    let missing = mini.run(&["--set", "train.tokenizer=nowhere.json"]);
    assert_ne!(missing.code, Some(0));
    missing.expect_words(&["nowhere.json"]);
}

#[test]
fn every_recipe_is_well_formed() {
    let folder = repository().join("recipes/vall-e");
    for name in ["recipe.yaml", "smoke.yaml"] {
        flowmill(&folder, &["recipe", "check", name, "--set", "prep.data=../../data/fsdd300"]).expect_code(0);
    }
}
