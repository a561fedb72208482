//! Adapters through the whole program: trained on a frozen base, exported as PEFT reads them, and merged.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use candle_core::Tensor;
use serde_json::Value;

use crate::support::random::Random;
use crate::support::{Mini, Tree, flowmill};

/// Attention projections of the encoder and of the estimator, and both layers of one feed-forward block.
const LORA: &str = "train.lora={rank: 2, alpha: 6, dropout: 0.1, targets: ['*.linear_q', '*.to_v', 'encoder.encoders.0.feed_forward.*']}";

fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap().into_iter().collect()
}

fn elements(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Computes `W + scale · B A`, one element after the other.
fn merged(weight: &Tensor, down: &Tensor, up: &Tensor, scale: f32) -> Vec<f32> {
    let (weight, down, up) = (elements(weight), down.to_vec2::<f32>().unwrap(), up.to_vec2::<f32>().unwrap());
    let inputs = down[0].len();
    let product = |row: &[f32], column: usize| row.iter().zip(&down).map(|(b, a)| b * a[column]).sum::<f32>();
    let at = |index: usize| weight[index] + scale * product(&up[index / inputs], index % inputs);
    (0..weight.len()).map(at).collect()
}

#[test]
fn adapters_are_trained_exported_and_merged() {
    let mini = Mini::finished();
    let arguments = ["--exp", "exp/adapted", "--set", "train.init_from=exp/mini/6-export", "--set", LORA];
    let said = mini.run(&[&arguments[..], &["--set", "train.ema_decay=0.9"]].concat()).expect_code(0);
    said.expect_words(&["148 tensors", "rank 2", "7 of 7 stages"]);

    let adapted = mini.path("exp/adapted");
    let base = tensors(&mini.exp("6-export/model.safetensors"));
    let beside = tensors(&adapted.join("4-train/base.safetensors"));
    assert_eq!(beside.len(), base.len());
    for (name, tensor) in &base {
        assert_eq!(elements(tensor), elements(&beside[name]), "{name} is frozen");
    }
    for file in ["model.safetensors", "ema.safetensors"] {
        let trained = tensors(&adapted.join("4-train/checkpoints/step-000012").join(file));
        assert!(
            trained.keys().all(|name| name.contains(".lora_")),
            "a checkpoint has what is trained, and nothing again and again"
        );
    }

    let averaged = tensors(&adapted.join("5-average/model.safetensors"));
    let merged_model = tensors(&adapted.join("6-export/model.safetensors"));
    let adapters = tensors(&adapted.join("6-export/adapter_model.safetensors"));
    assert_eq!(merged_model.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
    assert_eq!(adapters.len(), averaged.len());
    let mut changed = 0;
    for (name, base) in &base {
        let half = |half: &str| {
            let module = name.strip_suffix(".weight")?;
            adapters.get(&format!("base_model.model.{module}.lora_{half}.weight"))
        };
        let (Some(down), Some(up)) = (half("A"), half("B")) else {
            assert_eq!(elements(base), elements(&merged_model[name]), "{name}");
            continue;
        };
        assert_eq!((down.dim(0).unwrap(), up.dim(1).unwrap()), (2, 2));
        let expected = merged(base, down, up, 3.0);
        let found = elements(&merged_model[name]);
        assert!(expected.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
        assert!(elements(up).iter().any(|value| *value != 0.0), "{name} has learned something");
        changed += 1;
    }
    assert_eq!(2 * changed, adapters.len());

    let described: Value =
        serde_json::from_str(&fs::read_to_string(adapted.join("6-export/adapter_config.json")).unwrap()).unwrap();
    assert_eq!(described["peft_type"], "LORA");
    assert_eq!((described["r"].as_u64(), described["lora_alpha"].as_f64()), (Some(2), Some(6.0)));
    let modules: Vec<&str> =
        described["target_modules"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    assert_eq!(modules.len(), changed);
    assert!(modules.contains(&"encoder.encoders.0.feed_forward.w_1"), "{modules:?}");

    // The same with blocks computed again, dropout included.
    let again = ["--exp", "exp/again", "--set", "train.init_from=exp/mini/6-export", "--set", LORA, "--jobs", "1"];
    let again = [&again[..], &["--set", "train.ema_decay=0.9", "--set", "train.gradient_checkpointing=true"]].concat();
    mini.run(&[&again[..], &["--stop-stage", "average"]].concat()).expect_code(0);
    let weights = |exp: &str| fs::read(mini.path(exp).join("5-average/model.safetensors")).unwrap();
    assert!(weights("exp/adapted") == weights("exp/again"));

    // What was trained is what is used: further training starts from the merged weights, not from the adapters' folder.
    let from =
        |path: &str| ["--steps".to_owned(), "1".to_owned(), "--set".to_owned(), format!("train.init_from={path}")];
    let tried = |path: &str| {
        let from = from(path);
        let from: Vec<&str> = from.iter().map(String::as_str).collect();
        mini.flowmill("train", &[&["--overfit", "1"], &from[..]].concat())
    };
    tried("exp/adapted/6-export").expect_code(0).expect_words(&["148 tensors"]);
    tried("exp/adapted/5-average").expect_code(1).expect_words(&["adapters", "train.lora.init_from"]);
    mini.run(&[&arguments[..], &["--set", "train.ema_decay=0.9"]].concat()).expect_code(0).expect_up_to_date();
}

#[test]
fn adapters_on_weights_that_are_not_there_are_refused() {
    let mini = Mini::new();
    mini.run(&["--set", LORA]).expect_code(2).expect_words(&["train.lora", "train.init_from"]);
    assert!(!mini.exp("").exists());
    for (lora, words) in [
        ("{rank: 0, targets: ['*']}", ["lora.rank", "1"]),
        ("{targets: []}", ["lora.targets", "*"]),
        ("{dropout: 1, targets: ['*']}", ["lora.dropout", "1"]),
        ("{alpha: -1, targets: ['*']}", ["lora.alpha", "positive"]),
        ("{rnk: 3, targets: ['*']}", ["rnk", "rank"]),
    ] {
        let set = format!("train.lora={lora}");
        mini.run(&["--set", &set, "--set", "train.init_from=recipe.yaml"]).expect_code(2).expect_words(&words);
    }

    mini.run(&["--stop-stage", "average"]).expect_code(0);
    let tried = |sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        mini.flowmill("train", &[&["--overfit", "1", "--steps", "2"], &sets[..]].concat())
    };
    let base = "train.init_from=exp/mini/5-average";
    let unknown = tried(&[base, "train.lora={targets: ['*.query']}"]).expect_code(1);
    unknown.expect_words(&["lora.targets", "`*.query`", "encoder.embed.out.0"]);
    let wide = tried(&[base, "train.lora={rank: 400, targets: ['encoder_proj']}"]).expect_code(1);
    wide.expect_words(&["lora.rank", "encoder_proj.weight", "rank 400"]);
    let table = tried(&[base, "train.lora={targets: ['input_embedding']}"]).expect_code(1);
    table.expect_words(&["lora.targets", "`input_embedding`"]);

    // Weights of another shape are left out of a partial start: nothing would train them, with an adapter or beside one.
    let narrow = "train.model.encoder.linear_units=24";
    let partial = "train.init_partial=true";
    let refused = tried(&[base, partial, narrow, "train.lora={rank: 2, targets: ['*.w_1', '*.linear_q']}"]);
    refused.expect_code(1).expect_words(&["train.lora", "w_1.weight"]);
    let beside = tried(&[base, partial, narrow, "train.lora={rank: 2, targets: ['*.linear_q']}"]).expect_code(1);
    beside.expect_words(&["train.lora: 6 tensors", "encoder.encoders.0.feed_forward.w_1.bias", "and 1 more"]);
    tried(&[base, partial, "train.lora={rank: 2, targets: ['*.linear_q']}"]).expect_code(0);
    let groups =
        tried(&[base, "train.lora={rank: 2, targets: ['*.linear_q']}", "train.optim.groups=[{pattern: 'encoder.*'}]"]);
    groups.expect_code(0);
    let table = "train.optim.groups=[{pattern: 'input_embedding.*'}]";
    let groups = tried(&[base, "train.lora={rank: 2, targets: ['*.linear_q']}", table]).expect_code(1);
    groups.expect_words(&["optim.groups: []", "`input_embedding.*`"]);
    let codebook = tried(&[base, "train.token_embedding=codebook"]).expect_code(2);
    codebook.expect_words(&["train.token_embedding", "token_embedding: random"]);
}

/// The arguments that adapters are trained with here.
const ON_MINI: [&str; 4] = ["--set", "train.init_from=exp/mini/6-export", "--set", LORA];

/// Copies the experiment, so that stages before training need not be done again.
fn copy(mini: &Mini, name: &str) {
    let to = mini.copy_experiment("mini", name);
    // What is trained there is another training than the finished one.
    ["4-train", "5-average", "6-export"].iter().for_each(|stage| fs::remove_dir_all(to.join(stage)).unwrap());
}

#[test]
fn killed_while_adapters_are_trained_the_files_are_those_of_an_undisturbed_run() {
    let mut random = Random::announced("adapters");
    let mini = Mini::finished();
    let more = ["train.max_steps=80", "train.save_every=5", "train.ema_decay=0.9", "train.accum_grad=2"];
    let more: Vec<&str> = more.into_iter().flat_map(|set| ["--set", set]).collect();
    let arguments = |exp: &'static str| [&["--stop-stage", "train", "--exp", exp][..], &ON_MINI, &more].concat();
    copy(&mini, "whole");
    let took = mini.run(&arguments("exp/whole")).expect_code(0).took;
    let expected = Tree::of(&mini.path("exp/whole/4-train"));
    let (mut landed, mut trainings) = (0, 0);
    while landed < 4 {
        trainings += 1;
        assert!(trainings <= 30, "only {landed} kills hit a running process");
        copy(&mini, "killed");
        let mut process = mini.command("run", &arguments("exp/killed"));
        let mut process = process.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_secs_f64(took.as_secs_f64() * random.unit()));
        landed += usize::from(process.try_wait().unwrap().is_none());
        // The process is this test's own child; on this system `kill` sends SIGKILL.
        let _already_gone = process.kill();
        process.wait().unwrap();
        mini.run(&arguments("exp/killed")).expect_code(0);
        Tree::of(&mini.path("exp/killed/4-train")).expect_same_bytes(&expected, "killed and resumed");
        fs::remove_dir_all(mini.path("exp/killed")).unwrap();
    }
}

#[test]
fn an_adapter_goes_on_from_an_adapter() {
    let mini = Mini::finished();
    mini.run(&[&["--exp", "exp/first"][..], &ON_MINI].concat()).expect_code(0);
    let first = mini.path("exp/first/6-export");
    let set = |lora: &str| format!("train.lora={{rank: 2, alpha: 6, {lora}}}");
    let targets = "targets: ['*.linear_q', '*.to_v', 'encoder.encoders.0.feed_forward.*']";
    let base = ["--set", "train.init_from=exp/mini/6-export", "--set"];

    // So slowly that the first step shows what it went on from.
    let still = ["--set", "train.max_steps=1", "--set", "train.optim.lr=1e-12", "--stop-stage", "train"];
    let second = set(&format!("{targets}, init_from: exp/first/6-export"));
    let said = mini.run(&[&["--exp", "exp/second"][..], &base, &[&second], &still].concat()).expect_code(0);
    said.expect_words(&["`exp/mini/6-export`", "rank 2"]);
    let there = tensors(&first.join("adapter_model.safetensors"));
    let here = tensors(&mini.path("exp/second/4-train/checkpoints/step-000001/model.safetensors"));
    assert_eq!(there.len(), here.len());
    for (name, tensor) in &here {
        let before = elements(&there[&format!("base_model.model.{name}")]);
        assert!(before.iter().zip(elements(tensor)).all(|(a, b)| (a - b).abs() < 1e-9), "{name}");
    }
    // A checkpoint of adapters is not validated on another base.
    let eval = |base: &str| {
        let from = format!("train.init_from={base}");
        mini.flowmill("train", &["--eval", "--exp", "exp/first", "--set", &from, "--set", LORA])
    };
    eval("exp/mini/6-export").expect_code(0).expect_words(&["loss"]);
    eval("exp/mini/4-train/checkpoints/step-000012").expect_code(1).expect_words(&["train.init_from"]);

    let tried = |lora: &str| {
        mini.flowmill(
            "train",
            &[&["--overfit", "1", "--steps", "2"][..], &base, &[&format!("train.lora={lora}")]].concat(),
        )
    };
    let from = "init_from: exp/first/6-export";
    tried(&format!("{{rank: 2, alpha: 6, {targets}, {from}/adapter_model.safetensors}}")).expect_code(0);
    for (lora, words) in [
        (format!("{{rank: 4, alpha: 6, {targets}, {from}}}"), ["rank 2", "rank: 2"]),
        (format!("{{rank: 2, alpha: 4, {targets}, {from}}}"), ["3", "alpha: 6"]),
        (format!("{{rank: 2, alpha: 6, targets: ['*.linear_q'], {from}}}"), ["targets", "feed_forward.w_1"]),
        (format!("{{rank: 2, alpha: 6, targets: ['*'], {from}}}"), ["adapter", "attn1.to_k"]),
    ] {
        tried(&lora).expect_code(1).expect_words(&["lora.init_from"]).expect_words(&words);
    }
    let nowhere = format!("{{rank: 2, alpha: 6, {targets}, init_from: exp/mini/6-export}}");
    tried(&nowhere).expect_code(2).expect_words(&["train.lora.init_from", "adapter_model.safetensors"]);

    // As older versions of PEFT wrote it, and what is more than a product of two matrices.
    let other = mini.path("other");
    fs::create_dir(&other).unwrap();
    let (safe, pickled) = (first.join("adapter_model.safetensors"), other.join("adapter_model.pt"));
    flowmill(mini.folder(), &["convert", safe.to_str().unwrap(), pickled.to_str().unwrap()]).expect_code(0);
    fs::rename(pickled, other.join("adapter_model.bin")).unwrap();
    let described = fs::read_to_string(first.join("adapter_config.json")).unwrap();
    fs::write(other.join("adapter_config.json"), &described).unwrap();
    let other_lora = format!("{{rank: 2, alpha: 6, {targets}, init_from: other}}");
    tried(&other_lora).expect_code(0).expect_words(&["from the adapter"]);
    for (from, to, words) in [
        ("\"bias\": \"none\"", "\"bias\": \"all\"", "bias"),
        ("\"r\": 2", "\"r\": 2, \"use_dora\": true", "use_dora"),
        ("\"r\": 2", "\"r\": 2, \"use_rslora\": true", "set alpha: 8.48"),
        ("\"r\": 2", "\"r\": 2, \"modules_to_save\": [\"out\"]", "out"),
        ("\"LORA\"", "\"IA3\"", "IA3"),
    ] {
        assert!(described.contains(from), "{described}");
        fs::write(other.join("adapter_config.json"), described.replace(from, to)).unwrap();
        tried(&other_lora).expect_code(1).expect_words(&[words]);
    }
}

#[test]
fn adapters_can_be_exported_apart_from_the_weights() {
    let mini = Mini::finished();
    let exp = ["--exp", "exp/adapted"];
    mini.run(&[&exp[..], &ON_MINI].concat()).expect_code(0);
    let path = |file: &str| mini.path("exp/adapted/6-export").join(file);
    let read = |file: &str| fs::read(path(file)).unwrap();
    let merged = (read("model.safetensors"), read("adapter_model.safetensors"), read("scores.json"));
    let sound = mini.recording("1688-142285-0002");
    let synth = |out: &str| {
        let arguments = [
            "synth",
            "--model",
            "exp/adapted/6-export",
            "--wav",
            sound.to_str().unwrap(),
            "--out",
            out,
            "--steps",
            "2",
        ];
        flowmill(mini.folder(), &arguments).expect_code(0);
        fs::read(mini.path(out).join("1688-142285-0002.wav")).unwrap()
    };
    let heard = synth("merged");

    let apart = ["--set", "export.merge_adapters=false"];
    mini.run(&[&exp[..], &ON_MINI, &apart].concat()).expect_code(0).expect_words(&["1 of 7 stages"]);
    assert!(read("model.safetensors") == fs::read(mini.path("exp/adapted/4-train/base.safetensors")).unwrap());
    assert_ne!(read("model.safetensors"), merged.0);
    assert_eq!((read("adapter_model.safetensors"), read("scores.json")), (merged.1, merged.2), "the model is the same");
    assert_eq!(synth("apart"), heard);

    let tried = |lora: &str| {
        let from = ["--overfit", "1", "--steps", "2", "--set", "train.init_from=exp/adapted/6-export", "--set", lora];
        mini.flowmill("train", &from)
    };
    tried(LORA).expect_code(1).expect_words(&["train.lora.init_from"]);
    tried(&LORA.replace('}', ", init_from: exp/adapted/6-export}")).expect_code(0).expect_words(&["from the adapter"]);
}
