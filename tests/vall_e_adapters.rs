//! Adapters of VALL-E through the binary: in the form of the public trainer, its export and its checkpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::support::mini::repository;
use crate::support::{Mini, Outcome, flowmill};
use crate::vall_e::mini;

/// Settings for trainings that are only started.
const SHORT: [&str; 6] = ["--set", "train.sample_every=0", "--set", "train.max_steps=4", "--set", "train.save_every=2"];
/// Adapters as the public trainer's configuration has them.
const LORAS: &str = "train.loras=[{name: mine, rank: 2, alpha: 4, training: true}]";

/// The shapes of the tensors of a file, by name.
fn shapes(path: &Path) -> BTreeMap<String, Vec<usize>> {
    let read = candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
    read.into_iter().map(|(name, tensor)| (name, tensor.dims().to_vec())).collect()
}

#[test]
fn adapters_are_trained_exported_and_used_in_the_public_form() {
    let mini = mini();
    mini.run(&SHORT).expect_code(0);
    let on_base = ["--set", "train.init_from=exp/mini/6-export", "--set", LORAS, "--exp", "exp/adapted"];
    let adapted = [&SHORT[..], &on_base].concat();
    mini.run(&adapted).expect_code(0).expect_words(&["adapters of rank 2 on 6 linear layers"]);
    let export = mini.path("exp/adapted/6-export");
    let public = shapes(&export.join("lora.sft"));
    let modules: BTreeSet<&str> = public.keys().map(|name| name.rsplit_once('.').unwrap().0).collect();
    let expected =
        ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.o_proj", "self_attn.q_proj", "self_attn.v_proj"];
    assert_eq!(modules, expected.map(|module| format!("model.layers.0.{module}")).iter().map(String::as_str).collect());
    let query = |half: &str| public[&format!("model.layers.0.self_attn.q_proj.lora_{half}")].clone();
    assert_eq!((query("A"), query("B")), (vec![2, 16], vec![16, 2]));
    let peft = shapes(&export.join("adapter_model.safetensors"));
    assert_eq!(peft.len(), public.len());
    // The recipe as it is shown is a recipe.
    let shown = flowmill(mini.folder(), &[&["recipe", "show", "."][..], &on_base].concat()).expect_code(0).stdout;
    fs::write(mini.path("shown.yaml"), shown).unwrap();
    flowmill(mini.folder(), &["recipe", "check", "shown.yaml"]).expect_code(0);

    // The merged model, and the base with the adapter in each form, speak alike.
    let prompt = mini.recording("1688-142285-0002").display().to_string();
    let speak = |model: &str, lora: Option<&str>| {
        let more = lora.map(|lora| vec!["--lora", lora]).unwrap_or_default();
        let spoken = flowmill(
            mini.folder(),
            &[&["speak", "--model", model, "--prompt", &prompt, "--text", "good morning", "--out", "a.wav"], &more[..]]
                .concat(),
        );
        spoken.expect_code(0);
        fs::read(mini.path("a.wav")).unwrap()
    };
    let merged = speak("exp/adapted/6-export", None);
    for adapter in ["6-export", "6-export/lora.sft", "6-export/adapter_model.safetensors"] {
        assert!(speak("exp/mini/6-export", Some(&format!("exp/adapted/{adapter}"))) == merged, "{adapter}");
    }
    speak("exp/mini/6-export", Some("exp/adapted/4-train/checkpoints/step-000004"));

    // Further training starts from each of them.
    let go_on = |path: &str| {
        let loras = format!("train.loras=[{{name: mine, rank: 2, alpha: 4, training: true, path: {path}}}]");
        let from = ["--overfit", "1", "--steps", "1", "--set", "train.init_from=exp/mini/6-export", "--set", &loras];
        mini.flowmill("train", &from)
    };
    fs::create_dir(mini.path("theirs")).unwrap();
    fs::copy(export.join("lora.sft"), mini.path("theirs/lora.sft")).unwrap();
    for adapter in ["theirs", "theirs/lora.sft", "exp/adapted/6-export", "exp/adapted/4-train/checkpoints/step-000004"]
    {
        go_on(adapter).expect_code(0).expect_words(&["continuing from the adapter"]);
    }
    bad_adapters(&mini, &go_on);
}

/// Checks that adapters that cannot be trained or used end in one clear error.
fn bad_adapters(mini: &Mini, go_on: &dyn Fn(&str) -> Outcome) {
    go_on("nowhere").expect_code(2).expect_words(&["train.lora.init_from", "nowhere"]);
    let check = |sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        flowmill(mini.folder(), &[&["recipe", "check", "."][..], &sets].concat()).expect_error("recipe", 2)
    };
    let base = "train.init_from=exp/mini/6-export";
    check(&[LORAS]).expect_words(&["train.loras", "train.init_from"]);
    check(&["train.lora={rank: 2}"]).expect_words(&["train.lora", "train.init_from"]);
    check(&[base, LORAS, "train.lora={rank: 3}"]).expect_words(&["train.lora"]);
    check(&[base, "train.loras=[{rank: 0}]"]).expect_words(&["train.loras[0].rank"]);
    check(&[base, "train.loras=[{rank: 2}, {rank: 3}]"]).expect_words(&["train.loras[1].training"]);
    check(&[base, "train.loras=[{embeddings: true}]"]).expect_words(&["embeddings"]);
    let prompt = mini.recording("1688-142285-0002").display().to_string();
    let speak = |lora: &str| {
        let arguments = ["speak", "--model", "exp/mini/6-export", "--lora", lora, "--prompt", &prompt, "--text", "one"];
        flowmill(mini.folder(), &arguments).expect_code(1)
    };
    speak("nowhere").expect_words(&["nowhere"]);
    speak("exp/mini/6-export/model.safetensors").expect_words(&["is not the A or B of an adapter"]);
    let wide =
        [&SHORT[..], &["--exp", "exp/wide", "--set", "train.model.layers=2", "--stop-stage", "average"]].concat();
    mini.run(&wide).expect_code(0);
    let more = ["--exp", "exp/more", "--set", "train.model.layers=2", "--set", "train.init_from=exp/wide/5-average"];
    mini.run(&[&SHORT[..], &more, &["--set", LORAS, "--stop-stage", "train"]].concat()).expect_code(0);
    speak("exp/more/4-train/checkpoints/step-000004").expect_words(&["model.layers.1", "is missing"]);
}

#[test]
fn adapters_and_checkpoints_of_the_public_trainer_are_read() {
    let mini = mini();
    let file = |name: &str| repository().join("tests/data/vall_e").join(name).display().to_string();
    let base = format!("train.init_from={}", file("fp32.sft"));
    let go_on = |name: &str, alpha: u32| {
        let loras = format!("train.loras=[{{rank: 2, alpha: {alpha}, path: {}}}]", file(name));
        let more = ["--overfit", "1", "--steps", "1", "--set", "train.model.dim=8", "--set", &base, "--set", &loras];
        mini.flowmill("train", &more)
    };
    for name in ["lora.sft", "lora.pth", "adapting.pth"] {
        go_on(name, 4).expect_code(0).expect_words(&["of 6 layers"]);
    }
    // A pickle has the settings as an object that is not read, so those of the recipe count.
    go_on("lora.sft", 8).expect_code(1).expect_words(&["alpha: 4"]);
    go_on("lora.pth", 8).expect_code(0);
    go_on("fp32.sft", 4).expect_code(1).expect_words(&["is not the A or B of an adapter"]);
}
