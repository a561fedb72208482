//! Devices on the command line and in recipes: the CPU by name, and devices that are not there.

use std::fs;

use flowmill_nn::device::SUPPORTED;

use crate::support::{Mini, flowmill};

/// A number that no machine has a device of.
const ABSENT: &str = "cuda:63";

#[test]
fn the_cpu_by_name_gives_the_same_bytes_as_without_a_name() {
    if !SUPPORTED.is_empty() {
        println!("this build may take a GPU where no device is named");
        return;
    }
    let (unnamed, named) = (Mini::finished(), Mini::new());
    named.run(&["--device", "cpu"]).expect_code(0);
    unnamed.tree().expect_same_bytes(&named.tree(), "the CPU by name");
    let before = named.tree();
    named.run(&["--set", "train.device=auto"]).expect_code(0);
    assert_eq!(
        named.tree().written_since(&before),
        Vec::<std::path::PathBuf>::new(),
        "a device is no reason to run again"
    );
    let model = named.exp("6-export");
    let arguments = |device: &'static str| {
        let (model, wav) =
            (model.to_str().unwrap().to_owned(), named.recording("367-130732-0000").to_str().unwrap().to_owned());
        ["synth", "--model", &model, "--wav", &wav, "--out", device, "--device", device].map(str::to_owned)
    };
    let sound = |device| {
        flowmill(named.folder(), &arguments(device)).expect_code(0);
        let mut files = fs::read_dir(named.path(device)).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
        files.sort();
        files.into_iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(sound("cpu"), sound("auto"));
}

#[test]
fn a_device_that_is_not_there_is_refused_before_anything_runs() {
    let mini = Mini::new();
    mini.run(&["--device", ABSENT]).expect_code(2).expect_words(&["train.device", ABSENT]);
    for what in [&["--overfit", "1"][..], &["--plan-memory"], &["--eval"]] {
        let arguments = [what, &["--device", ABSENT]].concat();
        mini.flowmill("train", &arguments).expect_code(2).expect_words(&["train.device", ABSENT]);
    }
    // The model is not even looked for.
    let synth = ["synth", "--model", "nowhere", "--wav", "nothing.wav", "--device", ABSENT];
    flowmill(mini.folder(), &synth).expect_code(2).expect_words(&[ABSENT]);
    if SUPPORTED.is_empty() {
        mini.run(&["--device", "cuda:0"]).expect_code(2).expect_words(&["--features cuda"]);
        mini.run(&["--device", "metal"]).expect_code(2).expect_words(&["--features metal"]);
    }
    assert!(!mini.path("exp").exists(), "something was written");
    // What computes nothing needs no device, and the command line goes before the recipe.
    let recipe = fs::read_to_string(mini.path("recipe.yaml")).unwrap();
    fs::write(mini.path("recipe.yaml"), recipe.replace("train:\n", &format!("train:\n  device: {ABSENT}\n"))).unwrap();
    mini.flowmill("status", &[]).expect_code(0);
    mini.run(&[]).expect_code(2).expect_words(&["recipe.yaml:", "train.device", ABSENT]);
    mini.run(&["--stop-stage", "pack"]).expect_code(0);
    mini.run(&["--device", "cpu"]).expect_code(0);
    // Finished stages are not refused.
    mini.run(&[]).expect_code(0);
}

#[test]
fn a_name_of_no_device_is_refused() {
    let mini = Mini::new();
    for name in ["gpu", "cuda:", "cuda:-1", "CPU", ""] {
        mini.run(&["--device", name]).expect_code(2);
        mini.run(&["--set", &format!("train.device=\"{name}\"")]).expect_code(2).expect_words(&["train.device"]);
    }
    let recipe = fs::read_to_string(mini.path("recipe.yaml")).unwrap();
    fs::write(mini.path("recipe.yaml"), recipe.replace("  max_steps: 12\n", "  device: gpu\n  max_steps: 12\n"))
        .unwrap();
    let line = recipe.lines().position(|line| line.contains("max_steps")).unwrap() + 1;
    mini.run(&[]).expect_code(2).expect_words(&[&format!("recipe.yaml:{line}: train.device")]);
    assert!(!mini.path("exp").exists(), "something was written");
}
