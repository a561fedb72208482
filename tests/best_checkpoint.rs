//! The best step that is reported has a checkpoint, and all that report it agree.

use std::fs;

use serde_json::Value;

use crate::support::training::{ENDLESS, Training, metrics};
use crate::support::{Mini, flowmill, json};

/// Validated often, saved seldom, at a rate that lets the loss go up and down.
const NOISY: [&str; 10] = [
    "--set",
    "train.max_steps=60",
    "--set",
    "train.validate_every=2",
    "--set",
    "train.save_every=50",
    "--set",
    "train.keep={last: 1, best: 1}",
    "--set",
    "average={which: best, count: 1}",
];

/// The step and loss of the lowest validation.
fn lowest(mini: &Mini) -> (u64, f64) {
    let lines = metrics(&mini.exp("4-train/metrics.jsonl"));
    let validations =
        lines.iter().filter_map(|line| Some((line["step"].as_u64()?, line["validation"]["loss"].as_f64()?)));
    validations.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
}

#[test]
fn the_best_step_is_that_of_the_checkpoint_the_average_the_card_and_the_report() {
    let mut between = 0;
    for rate in ["3e-2", "1e-2", "5e-3"] {
        let mini = Mini::packed();
        let rate = format!("train.optim.lr={rate}");
        mini.run(&[&NOISY[..], &["--set", &rate]].concat()).expect_code(0);
        let (step, loss) = lowest(&mini);
        between += usize::from(![50, 60].contains(&step));
        let facts = &json(&mini.exp("4-train/stage.json"))["content"]["facts"];
        assert!(facts.to_string().contains(&format!("\"best_step\":{step}")), "{facts}");
        let state = json(&mini.exp(&format!("4-train/checkpoints/step-{step:06}/state.json")));
        assert_eq!((state["validation"].as_f64(), state["best"]["step"].as_u64()), (Some(loss), Some(step)));
        let average = json(&mini.exp("5-average/average.json"));
        assert_eq!((&average["which"], &average["checkpoints"][0]["step"]), (&"best".into(), &step.into()));
        let card = fs::read_to_string(mini.exp("6-export/README.md")).unwrap();
        assert!(card.contains(&format!("steps {step}.")), "{card}");
        flowmill(mini.folder(), &["report", "exp/mini", "--out", "report.html"]).expect_code(0);
        let page = fs::read_to_string(mini.path("report.html")).unwrap();
        assert!(page.contains(&format!("steps {step}.")), "step {step}");
        let mut kept: Vec<String> = fs::read_dir(mini.exp("4-train/checkpoints"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        kept.sort();
        let mut expected = vec![format!("step-{step:06}"), "step-000060".to_owned()];
        expected.dedup();
        assert_eq!(kept, expected);
    }
    assert!(between > 0, "none was best between two checkpoints of the schedule: nothing was tested");
}

#[test]
fn the_best_step_that_ctl_tells_of_is_on_the_disk() {
    let mini = Mini::packed();
    let validating = [&ENDLESS[..], &["--set", "train.validate_every=3", "--set", "train.keep.best=1"]].concat();
    let training = Training::start(&mini, &validating).listening();
    let told = loop {
        let status = training.ctl(&["status"]).expect_code(0).stdout;
        if status.contains("best validation") {
            break status;
        }
    };
    assert!(!told.contains("keep.best"), "{told}");
    training.ctl(&["quit"]).expect_code(0);
    training.wait().expect_code(130);
    let folder = mini.exp("4-train/.staging/train/state");
    let mut states: Vec<Value> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("state.json"))
        .filter(|path| path.exists())
        .map(|path| json(&path))
        .collect();
    states.sort_by_key(|state| state["step"].as_u64());
    let best = states.last().unwrap()["best"].clone();
    let kept = states.iter().find(|state| state["step"] == best["step"]).expect("the best step has a checkpoint");
    assert_eq!(kept["validation"], best["loss"]);
}

#[test]
fn without_best_ones_to_keep_that_is_said_at_the_start() {
    let mini = Mini::packed();
    let none = [&NOISY[..], &["--set", "train.keep={last: 1, best: 0}", "--stop-stage", "train"]].concat();
    mini.run(&none).expect_code(0).expect_words(&["WARNING: train.keep.best"]);
    assert_eq!(fs::read_dir(mini.exp("4-train/checkpoints")).unwrap().count(), 1);
}
