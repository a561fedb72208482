//! Shallow flow matching through the binary: training, export, resynthesis, and the recipes of `recipes/sfm`.

use std::fs;

use serde_json::Value;

use crate::support::flowmill::flowmill;
use crate::support::mini::{Mini, repository};
use crate::support::training::metrics;

const MODEL: &str = "train.model={family: sfm-flow, head_dropout: 0.1, flow: {vocab_size: 16, input_size: 16, spk_embed_dim: 32, \
     encoder: {attention_heads: 2, linear_units: 32, num_blocks: 1, num_up_blocks: 1}, \
     estimator: {channels: [16], attention_head_dim: 8, n_blocks: 1, num_mid_blocks: 1, num_heads: 2}}}";
const HEAD: &str = "train.optim.groups=[{pattern: 'sfm_head.*', lr_multiple: 2.0, weight_decay: 0}]";

#[test]
fn a_shallow_flow_goes_through_all_stages() {
    let mini = Mini::new();
    let solver = ["--set", "export.solver=dopri5", "--set", "export.tolerances={rtol: 0.1, atol: 0.1}"];
    let arguments = [&["--set", MODEL, "--set", HEAD][..], &solver].concat();
    mini.run(&arguments).expect_code(0).expect_words(&["(dopri5)"]);
    let lines = metrics(&mini.exp("4-train/metrics.jsonl"));
    for line in lines.iter().filter(|line| line.get("validation").is_none()) {
        let parts = line["parts"].as_object().unwrap();
        let sum: f64 = ["coarse", "cfm", "mu", "t", "sigma"].iter().map(|part| parts[*part].as_f64().unwrap()).sum();
        let loss = line["loss"].as_f64().unwrap();
        assert!((sum - loss).abs() < 1e-3 * loss.abs(), "{line}");
    }
    assert!(lines.iter().any(|line| line["validation"]["parts"]["sigma"].is_number()), "validation has the parts too");
    let config: Value = serde_json::from_slice(&fs::read(mini.exp("6-export/config.json")).unwrap()).unwrap();
    assert_eq!((&config["family"], &config["model"]["sfm_strength"]), (&"sfm-flow".into(), &2.5.into()));
    let scores: Value = serde_json::from_slice(&fs::read(mini.exp("6-export/scores.json")).unwrap()).unwrap();
    assert!(scores["evaluations_per_sample"].as_f64().unwrap() >= 8.0, "{scores}");

    let model = mini.exp("6-export").display().to_string();
    let wav = mini.files_ending(".wav").first().map(|path| mini.exp("").join(path)).unwrap().display().to_string();
    let synth = ["synth", "--model", &model, "--wav", &wav, "--solver", "euler", "--steps", "3", "--strength", "1"];
    flowmill(mini.folder(), &synth).expect_code(0).expect_words(&[" 3 evaluations"]);
    // Steps are Euler's; without any the model is solved as it was exported, and one of an older folder by ten steps.
    let streamed = flowmill(mini.folder(), &["synth", "--model", &model, "--wav", &wav, "--streaming"]);
    streamed.expect_code(1).expect_words(&["streaming", "whole utterance"]);
    let synth = |more: &[&str]| {
        let arguments = [&["synth", "--model", &model, "--wav", &wav], more].concat();
        flowmill(mini.folder(), &arguments).expect_code(0)
    };
    synth(&["--steps", "4"]).expect_words(&[" 4 evaluations"]);
    // A flow without an input for prompts continues in windows too.
    synth(&["--steps", "4", "--window", "1"]).expect_words(&["evaluations"]);
    // Public code has a configuration with the trained sizes.
    let public = fs::read_to_string(mini.exp("6-export/train_sfm_flow.yaml")).unwrap();
    let head = "    sfm_head: !new:model.flow.sfm_head.SFMHead\n        d_hidden: ";
    assert!(public.contains("sfm_strength: 2.5\n") && public.contains(head), "{public}");
    let (own, named) = (synth(&[]).stdout, synth(&["--solver", "dopri5"]).stdout);
    assert_eq!(own, named);
    assert_eq!(config["sampling"]["solver"], "dopri5");
    let mut older = config.clone();
    older.as_object_mut().unwrap().remove("sampling");
    // Outside of its experiment, where no receipt says what the folder held.
    let copy = mini.path("older");
    fs::create_dir(&copy).unwrap();
    for name in fs::read_dir(mini.exp("6-export")).unwrap().map(|entry| entry.unwrap().file_name()) {
        let from = mini.exp("6-export").join(&name);
        if from.is_file() {
            fs::copy(from, copy.join(name)).unwrap();
        }
    }
    fs::write(copy.join("config.json"), older.to_string()).unwrap();
    let copy = copy.display().to_string();
    let euler = flowmill(mini.folder(), &["synth", "--model", &copy, "--wav", &wav]).expect_code(0);
    let euler = euler.expect_words(&[" 10 evaluations"]);
    assert_ne!(euler.stdout, own);
}

/// The public state dict: no projection of the speaker, and an estimator of mel, coarse mel and speaker.
#[test]
fn a_flow_that_takes_the_speaker_as_it_is_has_the_public_weights() {
    let mini = Mini::new();
    let speaker = ["--set", MODEL, "--set", "train.model.flow.conditions=speaker"];
    let full_attention = ["--set", "train.model.flow.encoder.static_chunk_size=0"];
    mini.run(&[&speaker[..], &full_attention].concat()).expect_code(0);
    let shown = flowmill(mini.folder(), &["inspect", "exp/mini/6-export/flow.pt"]).expect_code(0);
    // 80 bins twice and 32 speaker values.
    let line = |name: &str| shown.stdout.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert!(line("decoder.estimator.time_mlp.linear_1.weight").contains("192"), "{}", shown.stdout);
    assert!(line("decoder.estimator.down_blocks.0.0.res_conv.weight").contains("192"), "{}", shown.stdout);
    assert!(!shown.stdout.contains("spk_embed_affine_layer"), "{}", shown.stdout);
    let config: Value = serde_json::from_slice(&fs::read(mini.exp("6-export/config.json")).unwrap()).unwrap();
    assert_eq!(config["model"]["flow"]["conditions"], "speaker");
    let again = ["--set", "train.init_from=exp/mini/6-export/flow.pt", "--set", "name=again"];
    let tuned = mini.run(&[&again[..], &speaker, &["--stop-stage", "train"]].concat()).expect_code(0);
    assert!(tuned.text().contains("tensors matched\n"), "all fit, so nothing follows: {}", tuned.text());
    fs::remove_dir_all(mini.path("exp/again/4-train")).unwrap();
    let other = mini.run(&[&again[..], &["--set", MODEL, "--stop-stage", "train"]].concat()).expect_code(1);
    other.expect_words(&["(spk_embed_affine_layer", "[64, 320]", "[64, 192]"]);
}

#[test]
fn what_cannot_be_is_said() {
    let mini = Mini::new();
    let group = "train.optim.groups=[{pattern: 'sfm_haed.*', lr_multiple: 2.0}]";
    let outcome = mini.run(&["--set", MODEL, "--set", group]).expect_code(1);
    outcome.expect_words(&["optim.groups", "`sfm_haed.*`", "sfm_head.*"]);
    for (set, words) in [
        ("train.optim.groups=[{pattern: 'sfm_head.*', lr_multiple: 0}]", "lr_multiple"),
        ("train.model={family: sfm-flow, sfm_strength: 0}", "train.model.sfm_strength"),
        ("train.model={family: sfm-flow, flow: {vocab_size: 0}}", "train.model.flow.vocab_size"),
        ("train.model={family: sfm-flow, flow: {vocab_size: 3}}", "train.model.flow.vocab_size"),
        ("train.model={family: sfm-flow, vocab_size: 16}", "vocab_size"),
        (
            "train.model={family: sfm-flow, flow: {conditions: speaker, spk_embed_dim: 191}}",
            "train.model.flow.spk_embed_dim",
        ),
        ("train.model={family: sfm-flow, flow: {conditions: prompt}}", "conditions"),
        ("export.tolerances={rtol: 0}", "rtol"),
        ("export.solver=heun", "heun"),
    ] {
        let arguments = ["recipe", "check", ".", "--set", set];
        flowmill(mini.folder(), &arguments).expect_error("recipe", 2).expect_words(&[words]);
    }
    let strength = ["--set", "export.sfm_strength=2"];
    mini.run(&strength).expect_error("recipe", 2).expect_words(&["export.sfm_strength"]);
}

#[test]
fn every_recipe_is_well_formed() {
    let folder = repository().join("recipes/sfm");
    let mut recipes = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // model.yaml is what the others have in common, without data.
        if name.ends_with(".yaml") && name != "model.yaml" {
            let arguments = ["recipe", "check", &name, "--set", "prep.data=../../data/libri6"];
            flowmill(&folder, &arguments).expect_code(0);
            recipes += 1;
        }
    }
    assert_eq!(recipes, 5);
    let arguments = ["recipe", "show", "standard.yaml", "--set", "prep.data=../../data/libri6"];
    flowmill(&folder, &arguments).expect_code(0).expect_words(&["conditions: speaker", "static_chunk_size: 0"]);
}
