//! Damage to a training's files costs only itself: checkpoints are moved aside or made again, logs are cut or skipped, records are made
//! again from the checkpoints, and nothing that is sound is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::random::Random;
use crate::support::training::{ENDLESS, Training};
use crate::support::{Mini, Outcome, Tree};

/// Every stage's own settings, and a training that leaves every kind of file.
const SETTINGS: [&str; 8] = [
    "--set",
    "train.max_steps=24",
    "--set",
    "train.sample_every=8",
    "--set",
    "train.wandb={project: speech}",
    "--set",
    "train.sample_count=1",
];

fn run(mini: &Mini, name: &str, more: &[&str]) -> Outcome {
    let exp = format!("exp/{name}");
    mini.run(&[&["--stop-stage", "train", "--exp", &exp], &SETTINGS[..], more].concat())
}

/// The weights and optimizers of all checkpoints below a folder, by the name of the checkpoint; those moved aside too.
fn checkpoints(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in Tree::of(folder).0.into_keys() {
        if path.ends_with("model.safetensors") || path.ends_with("optimizer.safetensors") {
            found.insert(path.to_string_lossy().into_owned(), fs::read(folder.join(&path)).unwrap());
        }
    }
    found
}

/// The weights of a finished training and their description.
fn results(exp: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let train = exp.join("4-train");
    let is_result = |path: &PathBuf| {
        path.starts_with("checkpoints") && path.ends_with("model.safetensors")
            || path.ends_with("optimizer.safetensors")
            || path == Path::new("config.json")
    };
    let names =
        Tree::of(&train).0.into_keys().filter(is_result).filter(|path| !path.to_string_lossy().contains("damaged"));
    names.map(|path| (path.clone(), fs::read(train.join(path)).unwrap())).collect()
}

#[test]
fn a_flipped_bit_in_any_file_of_a_finished_training_costs_only_that_file() {
    let mini = Mini::packed();
    run(&mini, "mini", &[]).expect_code(0);
    let whole = results(&mini.exp(""));
    let names: Vec<PathBuf> = Tree::of(&mini.exp("4-train")).0.into_keys().collect();
    assert!(names.len() >= 15, "{names:?}");
    let mut random = Random::announced("a flipped bit of a finished training");
    for name in names {
        let exp = mini.copy_experiment("mini", "flipped");
        random.flip_bit(&exp.join("4-train").join(&name));
        let text = run(&mini, "flipped", &[]).expect_code(0).text();
        assert!(!text.contains("refused"), "{}: {text}", name.display());
        // A checkpoint before the newest one is not made again: it is kept as it is.
        let mut expected = whole.clone();
        let aside = |step: &str| exp.join(format!("4-train/damaged-{step}")).is_dir();
        expected.retain(|path, _| {
            let step = path.iter().nth(1).unwrap_or_default().to_string_lossy().into_owned();
            !aside(&step) || step == "step-000024"
        });
        assert!(expected.len() + 2 >= whole.len(), "{}: {text}", name.display());
        assert!(results(&exp) == expected, "{}: {text}", name.display());
        run(&mini, "flipped", &[]).expect_code(0).expect_nothing_to_do();
    }
}

#[test]
fn a_flipped_bit_in_any_file_of_an_interrupted_training_costs_only_that_file() {
    let mini = Mini::packed();
    mini.copy_experiment("mini", "straight");
    let settings = ["--set", "train.save_every=4", "--set", "train.keep.last=3"];
    let training = Training::start(&mini, &[&ENDLESS[..], &SETTINGS[2..], &settings].concat()).listening();
    let folder = mini.exp("4-train/.staging/train/state");
    while !folder.join("step-000008").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for command in [&["lr", "5e-4"][..], &["quit"]] {
        training.ctl(command).expect_code(0);
    }
    training.wait().expect_code(130);
    let reached = |folder: &Path| -> u64 {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).max().unwrap()
    };
    let step = reached(&folder);
    let end = format!("train.max_steps={}", step + 4);
    let finish = |name: &str| run(&mini, name, &[&settings[..], &["--set", &end]].concat());
    let straight = mini.copy_experiment("mini", "whole");
    finish("whole").expect_code(0);
    let last = format!("4-train/checkpoints/step-{:06}", step + 4);
    let weights = |exp: &Path| {
        ["model.safetensors", "optimizer.safetensors"].map(|file| fs::read(exp.join(&last).join(file)).unwrap())
    };
    let staging = mini.exp("4-train/.staging");
    let names: Vec<PathBuf> = Tree::of(&staging).0.into_keys().collect();
    assert!(names.len() >= 12, "{names:?}");
    let mut random = Random::announced("a flipped bit of an interrupted training");
    for name in names {
        let exp = mini.copy_experiment("mini", "flipped");
        let before = checkpoints(&exp.join("4-train"));
        random.flip_bit(&exp.join("4-train/.staging").join(&name));
        let outcome = finish("flipped").expect_code(0);
        let text = outcome.text();
        // A command that is lost takes its effect with it, and says so.
        if !name.ends_with("commands.jsonl") {
            assert!(weights(&exp) == weights(&straight), "{}: {text}", name.display());
        }
        let kept = checkpoints(&exp.join("4-train"));
        assert!(kept.len() >= before.len().min(4), "{}: {text}", name.display());
        assert!(outcome.has_resumed(), "{}: {text}", name.display());
    }
}

/// A kind of damage to a record: its name and the function that does it.
type Way = (&'static str, fn(&Path));

/// Ways to lose a record.
fn ways() -> [Way; 4] {
    [
        ("gone", |path| fs::remove_file(path).unwrap()),
        ("empty", |path| fs::write(path, "").unwrap()),
        ("cut", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("changed", |path| {
            let text = fs::read_to_string(path).unwrap();
            fs::write(path, text.replacen("\"accum_grad\": 1", "\"accum_grad\": 2", 1)).unwrap();
        }),
    ]
}

#[test]
fn a_lost_record_is_made_again_from_the_checkpoints() {
    let mini = Mini::packed();
    mini.copy_experiment("mini", "interrupted");
    mini.run(&["--stop-stage", "train"]).expect_code(0);
    let whole = mini.tree();
    for (about, way) in ways() {
        way(&mini.exp("4-train/receipts/train.json"));
        // The seed decides the draws, the size of batches is known to the checkpoints too.
        for (setting, field) in [
            ("seed=8", "seed: 7"),
            ("train.optim.lr=2e-3", "train.optim.lr: 0.001"),
            ("train.batch.max_frames_in_batch=900", "train.batch.max_frames_in_batch: 1200"),
            ("train.model.encoder.dropout_rate=0.2", "train.model.encoder.dropout_rate: 0.1"),
        ] {
            let before = mini.tree();
            let refused = mini.run(&["--stop-stage", "train", "--set", setting]).expect_code(2);
            refused.expect_words(&[field, "--force --stage 4-train"]);
            assert_eq!(before, mini.tree(), "{about} {setting}");
        }
        let said = mini.run(&["--stop-stage", "train"]).expect_code(0).text();
        assert_eq!(said.matches("WARNING: ").count(), 1, "{about}: {said}");
        Tree::expect_same_bytes(&mini.tree(), &whole, about);
        mini.run(&["--stop-stage", "train"]).expect_code(0).expect_nothing_to_do();
    }
    // It can still be extended, and gone back in.
    mini.copy_experiment("mini", "extended");
    let more = ["--set", "train.max_steps=20"];
    mini.run(&[&["--stop-stage", "train"], &more[..]].concat()).expect_code(0);
    fs::remove_file(mini.path("exp/extended/4-train/receipts/train.json")).unwrap();
    fs::remove_file(mini.path("exp/extended/4-train/stage.json")).unwrap();
    mini.run(&[&["--stop-stage", "train", "--exp", "exp/extended"], &more[..]].concat()).expect_code(0);
    let extended = Tree::of(&mini.path("exp/extended/4-train"));
    extended.expect_same_bytes(&Tree::of(&mini.exp("4-train")), "extended without a receipt");
    fs::write(mini.exp("4-train/receipts/train.json"), "{}").unwrap();
    mini.flowmill("train", &["--rollback", "16"]).expect_code(0).expect_words(&["rolled-back-step-000020"]);
    let said = mini.run(&[&["--stop-stage", "train"], &more[..]].concat()).expect_code(0);
    said.expect_resumed_from(16);
    Tree::of(&mini.exp("4-train/checkpoints"))
        .expect_same_bytes(&Tree::of(&mini.path("exp/extended/4-train/checkpoints")), "gone back without a receipt");
}

#[test]
fn an_interrupted_training_without_its_record_goes_on_bit_for_bit() {
    let mini = Mini::packed();
    mini.copy_experiment("mini", "straight");
    let training = Training::start(&mini, &ENDLESS).listening();
    training.ctl(&["save"]).expect_code(0);
    training.ctl(&["quit"]).expect_code(0);
    training.wait().expect_code(130);
    let state = mini.exp("4-train/.staging/train/state");
    let names = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let step: u64 = names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).max().unwrap();
    let end = format!("train.max_steps={}", step + 3);
    let arguments = |name: &str| {
        let exp = format!("exp/{name}");
        [&["--stop-stage", "train", "--exp", &exp], &ENDLESS[2..], &["--set", &end]]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let finish = |name: &str, more: &[&str]| {
        let arguments = arguments(name);
        mini.run(&[&arguments.iter().map(String::as_str).collect::<Vec<_>>()[..], more].concat())
    };
    finish("straight", &[]).expect_code(0);
    for (about, way) in ways() {
        let exp = mini.copy_experiment("mini", "damaged");
        way(&exp.join("4-train/.staging/train/fingerprint.json"));
        let before = Tree::of(&exp);
        finish("damaged", &["--set", "seed=9"]).expect_code(2).expect_words(&["seed: 7"]);
        finish("damaged", &["--set", "train.batch.max_frames_in_batch=900"]).expect_code(2);
        let dry = finish("damaged", &["--dry-run"]).expect_code(0);
        assert!(!dry.text().contains("refused"), "{about}: {}", dry.text());
        assert_eq!(before, Tree::of(&exp), "{about}");
        let said = finish("damaged", &[]).expect_code(0).expect_resumed_from(step).text();
        assert_eq!(said.matches("WARNING: 4-train/train: interrupted").count(), 1, "{about}: {said}");
        let weights = |exp: &Path| {
            fs::read(exp.join(format!("4-train/checkpoints/step-{:06}/model.safetensors", step + 3))).unwrap()
        };
        assert!(weights(&exp) == weights(&mini.path("exp/straight")), "{about}");
    }
    // A checkpoint of an earlier version knows the settings of the loop alone.
    let exp = mini.copy_experiment("mini", "older");
    let checkpoint = exp.join(format!("4-train/.staging/train/state/step-{step:06}"));
    let mut old: Value = serde_json::from_slice(&fs::read(checkpoint.join("state.json")).unwrap()).unwrap();
    (old["format"], _) = (2.into(), old.as_object_mut().unwrap().remove("record").unwrap());
    fs::write(checkpoint.join("state.json"), format!("{old:#}\n")).unwrap();
    let sum = blake3::hash(&fs::read(checkpoint.join("state.json")).unwrap()).to_hex();
    let sums = fs::read_to_string(checkpoint.join("checksums.b3")).unwrap();
    let line =
        |line: &str| if line.ends_with("state.json") { format!("{sum}  state.json\n") } else { format!("{line}\n") };
    fs::write(checkpoint.join("checksums.b3"), sums.lines().map(line).collect::<String>()).unwrap();
    fs::remove_file(exp.join("4-train/.staging/train/fingerprint.json")).unwrap();
    finish("older", &["--set", "train.optim.lr=5e-3"]).expect_code(2).expect_words(&["train.optim.lr: 0.001"]);
    finish("older", &[]).expect_code(0).expect_resumed_from(step);
}

#[test]
fn a_file_in_the_place_of_a_checkpoint_is_moved_aside() {
    let mini = Mini::packed();
    let training = Training::start(&mini, &ENDLESS).listening();
    training.ctl(&["quit"]).expect_code(0);
    training.wait().expect_code(130);
    let state = mini.exp("4-train/.staging/train/state");
    fs::write(state.join("step-9999999"), "no folder").unwrap();
    let stop = ["--stop-stage", "train", "--set", "train.max_seconds=1"];
    let said = mini.run(&[&stop[..], &ENDLESS].concat()).expect_code(130).expect_resumed();
    said.expect_words(&["damaged-step-9999999"]);
    assert_eq!(fs::read_to_string(mini.exp("4-train/damaged-step-9999999")).unwrap(), "no folder");
}

#[test]
fn going_back_to_a_damaged_checkpoint_names_the_others_and_leaves_nothing_behind() {
    let mini = Mini::packed();
    let settings = ["--stop-stage", "train", "--set", "train.keep.last=9"];
    mini.run(&settings).expect_code(0);
    let weights = mini.exp("4-train/checkpoints/step-000004/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[1..]).unwrap();
    let before = mini.tree();
    let refused = mini.flowmill("train", &["--rollback", "4"]).expect_code(1);
    refused.expect_words(&["step-000004", "step-000008", "step-000012"]);
    assert_eq!(before, mini.tree());
    assert!(!mini.exp("4-train/.staging").exists());
    fs::write(&weights, whole).unwrap();
    mini.flowmill("train", &["--rollback", "4"]).expect_code(0);
    let refused = mini.flowmill("train", &["--rollback", "12"]).expect_code(2);
    refused.expect_words(&["rolled-back-step-000008", "rolled-back-step-000012", ".staging/train/state"]);
    // What it says can be done.
    fs::rename(mini.exp("4-train/rolled-back-step-000012"), mini.exp("4-train/.staging/train/state/step-000012"))
        .unwrap();
    mini.run(&settings).expect_code(0).expect_resumed_from(12);
}
