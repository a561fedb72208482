//! Adapters through the whole program: trained on a frozen base, exported as PEFT reads them, and merged.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::Tensor;
use serde_json::Value;

use crate::support::Mini;

/// Attention projections of the encoder and of the estimator, and both layers of one feed-forward block.
const LORA: &str = "train.lora={rank: 2, alpha: 6, dropout: 0.1, targets: ['*.linear_q', '*.to_v', 'encoder.encoders.0.feed_forward.*']}";

fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap().into_iter().collect()
}

fn elements(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// `W + scale · B A`, one element after the other.
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
    said.expect_words(&["148 tensors matched", "adapters of rank 2", "7 of 7 stages ran"]);

    let adapted = mini.path("exp/adapted");
    let base = tensors(&mini.exp("6-export/model.safetensors"));
    let trained = tensors(&adapted.join("4-train/checkpoints/step-000012/model.safetensors"));
    for (name, tensor) in &base {
        assert_eq!(elements(tensor), elements(&trained[name]), "{name} is frozen");
    }
    assert!(trained.len() > base.len());

    let averaged = tensors(&adapted.join("5-average/model.safetensors"));
    let merged_model = tensors(&adapted.join("6-export/model.safetensors"));
    let adapters = tensors(&adapted.join("6-export/adapter_model.safetensors"));
    assert_eq!(merged_model.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
    assert_eq!(adapters.len(), averaged.len() - base.len());
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
    tried("exp/adapted/6-export").expect_code(0).expect_words(&["148 tensors matched"]);
    tried("exp/adapted/5-average").expect_code(1).expect_words(&["holds adapters", "exported model"]);
    mini.run(&[&arguments[..], &["--set", "train.ema_decay=0.9"]].concat())
        .expect_code(0)
        .expect_words(&["up to date"]);
}

#[test]
fn adapters_on_weights_that_are_not_there_are_refused() {
    let mini = Mini::new();
    mini.run(&["--set", LORA]).expect_code(2).expect_words(&["train.lora", "train.init_from"]);
    assert!(!mini.exp("").exists());
    for (lora, words) in [
        ("{rank: 0, targets: ['*']}", ["lora.rank", "at least 1"]),
        ("{targets: []}", ["lora.targets", "names no layer"]),
        ("{dropout: 1, targets: ['*']}", ["lora.dropout", "less than 1"]),
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
    table.expect_words(&["no linear layer is called `input_embedding`"]);

    // One weight of another shape is left out of a partial start, and exactly that one cannot have an adapter.
    let narrow = "train.model.encoder.linear_units=24";
    let partial = "train.init_partial=true";
    let refused = tried(&[base, partial, narrow, "train.lora={rank: 2, targets: ['*.w_1', '*.linear_q']}"]);
    refused.expect_code(1).expect_words(&["train.lora", "w_1.weight", "random numbers"]);
    tried(&[base, partial, narrow, "train.lora={rank: 2, targets: ['*.linear_q']}"]).expect_code(0);
}
