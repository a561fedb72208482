//! `flowmill train --overfit`, and training that starts from the weights of a file.

use std::fs;
use std::path::Path;

use crate::support::{Mini, Outcome, flowmill};

/// The mini recipe's model is too narrow to learn a batch by heart: the noise has more values than it has channels.
const WIDE: [&str; 4] = ["--set", "train.model.estimator.channels=[96]", "--set", "train.optim.lr=2e-3"];

/// The losses that were printed, by step.
fn losses(outcome: &Outcome) -> Vec<f64> {
    let steps = outcome.stdout.lines().filter(|line| line.starts_with("step "));
    steps.map(|line| line.split_whitespace().nth(3).unwrap().parse().unwrap()).collect()
}

fn tried(mini: &Mini, arguments: &[&str]) -> Outcome {
    mini.flowmill("train", &[&["--overfit", "1"], arguments].concat())
}

#[test]
fn a_repeated_batch_loses_nine_tenths_of_its_loss() {
    let mini = Mini::new();
    let outcome = tried(&mini, &WIDE).expect_code(0);
    let outcome = outcome.expect_words(&["0-prep", "3-pack", "1 batch", "trainable"]);
    let losses = losses(&outcome);
    assert!(losses.len() > 5 && losses.len() < 1000, "{losses:?}");
    assert!(losses.last().unwrap() <= &(0.1 * losses[0]), "{losses:?}");
    assert!(losses[losses.len() - 2] > 0.1 * losses[0], "it stops as soon as that is reached");
    assert!(!mini.exp("4-train").exists(), "nothing is trained");
}

#[test]
fn one_step_changes_every_trainable_parameter_and_leaves_nothing() {
    let mini = Mini::packed();
    let before = mini.tree();
    let journal = fs::read(mini.exp("journal.jsonl")).unwrap();
    let once = tried(&mini, &["--steps", "1"]).expect_code(0).expect_words(&["all 148 trainable"]);
    let again = tried(&mini, &["--steps", "1", "--jobs", "1"]).expect_code(0);
    assert_eq!(once.stdout, again.stdout, "the same draws every time, whatever the threads");
    assert_eq!(losses(&once).len(), 1);
    assert!(!once.stdout.contains("0-prep"), "what is up to date is left alone: {}", once.stdout);
    assert!(before == mini.tree() && journal == fs::read(mini.exp("journal.jsonl")).unwrap());

    let two =
        mini.flowmill("train", &["--overfit", "2", "--steps", "6", "--set", "train.batch.max_frames_in_batch=400"]);
    let losses = losses(&two.expect_code(0).expect_words(&["2 batches"]));
    assert!(losses.len() == 6 && losses[4] < losses[0] && losses[5] < losses[1], "{losses:?}");
}

#[test]
fn what_cannot_learn_is_an_error() {
    let mini = Mini::packed();
    let still = tried(&mini, &["--steps", "2", "--set", "train.optim.lr=1e-30"]).expect_code(1);
    still.expect_words(&["of 148 trainable", "encoder.embed.out.0.weight", "more", "90 %"]);
    let huge = tried(&mini, &["--steps", "50", "--set", "train.optim.lr=1e30"]).expect_code(1);
    huge.expect_words(&["error: step 2: "]);
    tried(&mini, &["--set", "train.model.vocab_size=3"]).expect_code(2).expect_words(&["train.model.vocab_size"]);
    mini.flowmill("train", &[]).expect_code(2).expect_words(&["--overfit"]);
    mini.flowmill("train", &["--overfit", "0"]).expect_code(2);
    mini.flowmill("train", &["--overfit", "5", "--steps", "4"]).expect_code(2).expect_words(&["--steps"]);
}

/// Changes the header of a safetensors file.
fn edit(from: &Path, to: &Path, change: impl FnOnce(&mut serde_json::Value, &mut Vec<u8>)) {
    let bytes = fs::read(from).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut data = bytes[8 + length..].to_vec();
    change(&mut header, &mut data);
    let header = header.to_string();
    let mut edited = (header.len() as u64).to_le_bytes().to_vec();
    edited.extend(header.as_bytes());
    edited.extend(data);
    fs::write(to, edited).unwrap();
}

#[test]
fn training_starts_from_a_file_and_again_when_it_changes() {
    let mini = Mini::finished();
    let random = losses(&tried(&mini, &["--steps", "1"]).expect_code(0))[0];
    let trained = tried(&mini, &["--steps", "1", "--set", "train.init_from=exp/mini/5-average"]).expect_code(0);
    trained.expect_words(&["148 tensors", "model.safetensors"]);

    // As PyTorch would write it.
    let convert = |weights: &str| {
        let weights = mini.exp(weights);
        flowmill(mini.folder(), &["convert", weights.to_str().unwrap(), "start.pt"]).expect_code(0);
    };
    convert("5-average/model.safetensors");
    let given = ["--set", "train.init_from=start.pt", "--exp", "exp/tuned"];
    let run = |arguments: &[&str]| mini.run(&[arguments, &given, &["--stop-stage", "train"]].concat()).expect_code(0);
    run(&[]).expect_words(&["148 tensors", "start.pt"]);
    let first = |exp: &str| {
        let metrics = fs::read_to_string(mini.path(exp).join("4-train/metrics.jsonl")).unwrap();
        let line: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
        line["loss"].as_f64().unwrap()
    };
    assert!(first("exp/tuned") < 0.9 * first("exp/mini"), "{} {}", first("exp/tuned"), first("exp/mini"));
    assert!(first("exp/tuned") < 0.9 * random);
    run(&[]).expect_up_to_date();

    convert("4-train/checkpoints/step-000008/model.safetensors");
    run(&["--dry-run"]).expect_words(&["4-train", "start.pt"]);
}

/// The dimensions of `tests/golden/pt/cosyvoice2_flow_full.pt` but for the speaker embeddings, which stage 1 makes wider.
const PUBLIC: &str = "\
name: public
base: recipe.yaml
pack:
  mel: {overrides: {n_mels: 16}}
train:
  init_from: flow.pt
  init_partial: true
  normalise_mel: false
  model:
    vocab_size: 50
    input_size: 32
    output_size: 16
    spk_embed_dim: 32
    encoder: {attention_heads: 4, linear_units: 64, num_blocks: 2, num_up_blocks: 4, static_chunk_size: 4}
    estimator: {channels: [32], attention_head_dim: 8, n_blocks: 1, num_mid_blocks: 2, num_heads: 4, static_chunk_size: 8}
  optim: {lr: 1e-5}
  max_steps: 3
";

#[test]
fn a_public_checkpoint_is_tuned() {
    let mini = Mini::new();
    let public = crate::support::mini::golden("pt/cosyvoice2_flow_full.pt");
    fs::copy(public, mini.path("flow.pt")).unwrap();
    fs::write(mini.path("public.yaml"), PUBLIC).unwrap();
    let said = flowmill(mini.folder(), &["run", "public.yaml", "--stop-stage", "train"]).expect_code(0);
    let said = said.expect_words(&["flow.pt: 248 tensors", "; 1 of ", "4-train: done"]);
    said.expect_words(&["spk_embed_affine_layer.weight: model [16, 32], file [16, 24]"]);
    let cut = fs::read(mini.path("flow.pt")).unwrap();
    fs::write(mini.path("flow.pt"), &cut[..cut.len() / 2]).unwrap();
    let again = ["run", "public.yaml", "--stage", "train", "--stop-stage", "train", "--force"];
    let refused = flowmill(mini.folder(), &again).expect_code(1);
    refused.expect_words(&["train.init_from: ", "flow.pt: "]);
}

#[test]
fn weights_that_do_not_fit_are_one_clear_error() {
    let mini = Mini::finished();
    let good = mini.exp("5-average/model.safetensors");
    let shape = |header: &mut serde_json::Value, _: &mut Vec<u8>| {
        header["encoder_proj.weight"]["shape"].as_array_mut().unwrap().reverse();
    };
    let rename = |header: &mut serde_json::Value, _: &mut Vec<u8>| {
        let entry = header.as_object_mut().unwrap().remove("encoder_proj.bias").unwrap();
        header["other.bias"] = entry;
    };
    let poison = |header: &mut serde_json::Value, data: &mut Vec<u8>| {
        let start = header["encoder_proj.bias"]["data_offsets"][0].as_u64().unwrap() as usize;
        data[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    edit(&good, &mini.path("shape.safetensors"), shape);
    edit(&good, &mini.path("renamed.safetensors"), rename);
    edit(&good, &mini.path("nan.safetensors"), poison);
    let integers = |header: &mut serde_json::Value, _: &mut Vec<u8>| {
        let tensors = header.as_object_mut().unwrap().values_mut();
        tensors.filter_map(|tensor| tensor.get_mut("dtype")).for_each(|dtype| *dtype = "I32".into());
    };
    let integer = |header: &mut serde_json::Value, _: &mut Vec<u8>| header["encoder_proj.bias"]["dtype"] = "I32".into();
    edit(&good, &mini.path("integers.safetensors"), integers);
    edit(&good, &mini.path("integer.safetensors"), integer);
    edit(&good, &mini.path("truncated.safetensors"), |_, data| data.truncate(100));
    fs::copy(crate::support::mini::golden("features.safetensors"), mini.path("other.safetensors")).unwrap();
    let cases: [(&str, &[&str]); 7] = [
        ("shape", &["encoder_proj.weight: model [80, 16], file [16, 80]", "train.init_partial: true"]),
        ("renamed", &["1 missing in the file (encoder_proj.bias)", "1 not in the model (other.bias)"]),
        ("integers", &["148 of integers"]),
        ("integer", &["147 tensors", "1 of integers", "(encoder_proj.bias)"]),
        ("nan", &["encoder_proj.bias", "NaN"]),
        ("truncated", &["not a whole safetensors file"]),
        ("other", &["another model"]),
    ];
    let set = |name: &str| format!("train.init_from={name}.safetensors");
    mini.forget_training();
    for (name, words) in cases {
        let outcome = mini.run(&["--set", &set(name)]).expect_code(1).expect_words(words);
        let errors = outcome.stderr.lines().filter(|line| line.contains("train.init_from: "));
        assert_eq!(errors.count(), 1, "{name}: {}", outcome.stderr);
        tried(&mini, &["--set", &set(name)]).expect_code(1).expect_words(words);
    }
    for name in ["shape", "renamed"] {
        let partial = ["--steps", "1", "--set", &set(name), "--set", "train.init_partial=true"];
        tried(&mini, &partial).expect_code(0).expect_words(&["147 tensors", "encoder_proj"]);
    }
    let nothing = ["--steps", "1", "--set", &set("other"), "--set", "train.init_partial=true"];
    tried(&mini, &nothing).expect_code(1).expect_words(&["another model"]);
}

#[test]
fn a_start_that_is_not_there_is_refused_before_anything_runs() {
    let mini = Mini::new();
    for (set, words) in [
        (&["train.init_from=nowhere.pt"][..], &["train.init_from", "nowhere.pt"][..]),
        (&["train.init_from=data"], &["train.init_from", "data", "model.safetensors"]),
        (&["train.init_partial=true"], &["train.init_partial", "`init_from` is not set"]),
        (
            &["train.init_from=recipe.yaml", "train.token_embedding=codebook"],
            &["train.token_embedding", "codebook", "train.token_embedding: random"],
        ),
    ] {
        let arguments: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        mini.run(&arguments).expect_code(2).expect_words(words);
        assert!(!mini.exp("").exists());
    }
    let path = mini.folder().to_str().unwrap();
    flowmill(mini.folder(), &["recipe", "check", path, "--set", "train.init_from=null"]).expect_code(0);
}
