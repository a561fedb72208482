//! Weights of the public VALL-E trainer through the binary: its exports, its checkpoints and those of DeepSpeed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device};

use crate::support::mini::repository;
use crate::support::{Outcome, flowmill};
use crate::vall_e::mini;

/// The files with the same weights; `tests/data/vall_e/README.md` says what else is in them.
const FILES: [&str; 4] = ["fp32.sft", "mp_rank_00_model_states.pt", "state.pth", "model.pth"];

fn file(name: &str) -> String {
    repository().join("tests/data/vall_e").join(name).display().to_string()
}

/// The elements of the tensors of a file in single precision, by name.
fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let read = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let elements =
        |tensor: candle_core::Tensor| tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    read.into_iter().map(|(name, tensor)| (name, elements(tensor))).collect()
}

/// The loss of the first step.
fn first_loss(outcome: &Outcome) -> String {
    let line = outcome.stdout.lines().find(|line| line.starts_with("step 1 ")).unwrap();
    line.split_whitespace().nth(3).unwrap().to_owned()
}

#[test]
fn every_file_of_the_public_trainer_starts_the_same_training() {
    let mini = mini();
    let expected = tensors(Path::new(&file("fp32.sft")));
    let mut losses = Vec::new();
    for name in FILES {
        let from = format!("train.init_from={}", file(name));
        let more = ["--overfit", "1", "--steps", "1", "--set", "train.model.dim=8", "--set", &from];
        let tried = mini.flowmill("train", &more).expect_code(0);
        losses.push(first_loss(&tried));
        flowmill(mini.folder(), &["convert", &file(name), "converted.sft"]).expect_code(0);
        assert!(tensors(&mini.path("converted.sft")) == expected, "{name}");
    }
    assert!(losses.iter().all(|loss| *loss == losses[0]), "{losses:?}");
    // The folder of an export, and that of a checkpoint of DeepSpeed.
    for name in &FILES[..2] {
        let folder = mini.path(&format!("of-{name}"));
        fs::create_dir(&folder).unwrap();
        fs::copy(file(name), folder.join(name)).unwrap();
        let from = format!("train.init_from=of-{name}");
        let more = ["--overfit", "1", "--steps", "1", "--set", "train.model.dim=8", "--set", &from];
        assert_eq!(first_loss(&mini.flowmill("train", &more).expect_code(0)), losses[0], "{name}");
    }
    let other = format!("train.init_from={}", file("fp32.sft"));
    let more = ["--overfit", "1", "--steps", "1", "--set", &other];
    mini.flowmill("train", &more).expect_code(1).expect_words(&["train.init_from", "of another shape"]);
}

#[test]
fn weights_leave_under_the_names_and_with_the_values_with_which_they_came() {
    let mini = mini();
    let from = format!("train.init_from={}", file("mp_rank_00_model_states.pt"));
    // So slowly that no weight changes.
    let still = ["train.optim.lr=1e-30", "train.optim.weight_decay=0", "train.max_steps=1", "train.sample_every=0"];
    let sets: Vec<&str> = still.iter().chain(&["train.model.dim=8", &from]).flat_map(|set| ["--set", set]).collect();
    mini.run(&sets).expect_code(0);
    assert!(tensors(&mini.exp("6-export/fp32.sft")) == tensors(Path::new(&file("fp32.sft"))));
}
