//! Training state is a person's weeks: no fault of the surroundings, no log and no setting that changes no weights costs a checkpoint; a
//! finished training is extended rather than done again; going back keeps what is newer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::training::{ENDLESS, Training, metrics};
use crate::support::{Mini, Tree, Verdict};

/// Files of a checkpoint that must be the same byte for byte.
const EXACT: [&str; 2] = ["model.safetensors", "optimizer.safetensors"];

/// Returns `--set train.KEY=VALUE` for each setting.
fn sets(settings: &[&str]) -> Vec<String> {
    settings.iter().flat_map(|set| ["--set".to_owned(), format!("train.{set}")]).collect()
}

/// Runs `flowmill run --stop-stage train` in the experiment `exp/NAME`.
fn train(mini: &Mini, name: &str, settings: &[&str], more: &[&str]) -> crate::support::Outcome {
    let (exp, sets) = (format!("exp/{name}"), sets(settings));
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    mini.run(&[&["--stop-stage", "train", "--exp", &exp], &sets[..], more].concat())
}

/// The folder of an unfinished training.
fn state(exp: &Path) -> PathBuf {
    exp.join("4-train/.staging/train/state")
}

/// The steps of the checkpoints in a folder.
fn steps(folder: &Path) -> Vec<u64> {
    let names =
        fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut steps: Vec<u64> = names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).collect();
    steps.sort_unstable();
    steps
}

/// Compares weights and optimizer of a finished step of two experiments.
#[track_caller]
fn expect_same_weights(one: &Path, other: &Path, step: u64, about: &str) {
    for file in EXACT {
        let read = |exp: &Path| fs::read(exp.join(format!("4-train/checkpoints/step-{step:06}")).join(file)).unwrap();
        assert!(read(one) == read(other), "{about}: {file} of step {step} differs");
    }
}

/// A training in `exp/mini` that was asked to stop, and its last step.
fn interrupted(mini: &Mini, settings: &[&str], commands: &[&[&str]]) -> u64 {
    let sets = sets(settings);
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let training = Training::start(mini, &[&ENDLESS[..], &sets].concat()).listening();
    for command in commands.iter().chain(&[&["quit"][..]]) {
        training.ctl(command).expect_code(0);
    }
    training.wait().expect_code(130);
    *steps(&state(&mini.exp(""))).last().unwrap()
}

/// The settings of [`ENDLESS`] with another end.
fn until(step: u64) -> Vec<String> {
    vec![format!("max_steps={step}"), "save_every=1000000".to_owned(), "validate_every=0".to_owned()]
}

/// Returns the number of a run's warnings about logs.
fn warnings(text: &str) -> usize {
    text.matches("Logs are not needed to go on").count() + text.matches("this is only a log").count()
}

#[test]
fn logs_that_are_lost_changed_or_not_writable_cost_one_warning_and_no_weights() {
    let mini = Mini::packed();
    mini.copy_experiment("mini", "whole");
    let wandb = ["wandb={project: speech}"];
    let step = interrupted(&mini, &wandb, &[]);
    let last = step + 12;
    let settings = [until(last), wandb.map(str::to_owned).to_vec()].concat();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    train(&mini, "whole", &settings, &[]).expect_code(0);
    type Way = (&'static str, usize, fn(&Path));
    let ways: [Way; 9] = [
        ("all gone", 1, |state| {
            fs::remove_file(state.join("metrics.jsonl")).unwrap();
            fs::remove_dir_all(state.join("tensorboard")).unwrap();
            fs::remove_dir_all(state.join("wandb")).unwrap();
        }),
        ("metrics emptied", 1, |state| fs::write(state.join("metrics.jsonl"), "").unwrap()),
        ("metrics cut in a line", 1, |state| {
            let text = fs::read(state.join("metrics.jsonl")).unwrap();
            fs::write(state.join("metrics.jsonl"), &text[..text.len() - 7]).unwrap();
        }),
        ("metrics appended to", 0, |state| {
            let text = fs::read(state.join("metrics.jsonl")).unwrap();
            fs::write(state.join("metrics.jsonl"), [&text[..], b"{\"step\":"].concat()).unwrap();
        }),
        ("a folder for metrics", 1, |state| {
            fs::remove_file(state.join("metrics.jsonl")).unwrap();
            fs::create_dir(state.join("metrics.jsonl")).unwrap();
        }),
        ("a file for tensorboard", 1, |state| {
            fs::remove_dir_all(state.join("tensorboard")).unwrap();
            fs::write(state.join("tensorboard"), "").unwrap();
        }),
        ("events replaced", 1, |state| {
            let name = fs::read_dir(state.join("tensorboard")).unwrap().next().unwrap().unwrap().path();
            fs::write(name, vec![7; 1 << 20]).unwrap();
        }),
        ("wandb cut", 1, |state| {
            let run = fs::read_dir(state.join("wandb")).unwrap().next().unwrap().unwrap().path();
            let file = fs::read_dir(run).unwrap().next().unwrap().unwrap().path();
            let bytes = fs::read(&file).unwrap();
            fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
        }),
        ("wandb synced away", 1, |state| {
            let run = fs::read_dir(state.join("wandb")).unwrap().next().unwrap().unwrap().path();
            fs::remove_dir_all(run).unwrap();
        }),
    ];
    for (number, (about, told, disturb)) in ways.into_iter().enumerate() {
        let exp = mini.copy_experiment("mini", &format!("disturbed-{number}"));
        disturb(&state(&exp));
        let name = format!("disturbed-{number}");
        let ended = train(&mini, &name, &settings, &[]).expect_code(0);
        let ended = ended.expect_resumed_from(step);
        assert_eq!(warnings(&ended.text()), told, "{about}: {}", ended.text());
        assert!(!ended.text().contains("damaged"), "{about}");
        expect_same_weights(&exp, &mini.path("exp/whole"), last, about);
        let again = train(&mini, &name, &settings, &[]).expect_code(0).expect_nothing_to_do();
        assert_eq!(warnings(&again.text()), 0, "{about}");
    }
}

#[test]
fn a_command_outlives_its_file() {
    let mini = Mini::packed();
    mini.copy_experiment("mini", "whole");
    let step = interrupted(&mini, &[], &[&["lr", "3e-4"]]);
    let settings = until(step + 9);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    mini.copy_experiment("mini", "kept");
    let kept = train(&mini, "kept", &settings, &[]).expect_code(0);
    fs::remove_file(state(&mini.exp("")).join("commands.jsonl")).unwrap();
    let lost = train(&mini, "mini", &settings, &[]).expect_code(0);
    assert_eq!((warnings(&kept.text()), warnings(&lost.text())), (0, 0));
    let lines = metrics(&mini.exp("4-train/metrics.jsonl"));
    assert_eq!(lines.iter().rfind(|line| line["lr"].is_number()).unwrap()["lr"], 3e-4);
    expect_same_weights(&mini.exp(""), &mini.path("exp/kept"), step + 9, "without the file of commands");
}

/// Makes opening a file whose path ends with `ENDING` fail with `ERRNO`.
const FAILING_OPEN: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
static int fails(const char *path) {
  const char *ending = getenv("FAIL_ENDING");
  size_t a = strlen(path), b = ending ? strlen(ending) : 0;
  if (!b || a < b || strcmp(path + a - b, ending)) return 0;
  errno = atoi(getenv("FAIL_ERRNO"));
  return 1;
}
#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
    if (fails(path)) return -1; \
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode); \
  }
OPEN(open) OPEN(open64)
"#;

/// The shim, or none where there is no C compiler.
fn failing_open(folder: &Path) -> Option<PathBuf> {
    let (source, library) = (folder.join("fail.c"), folder.join("fail.so"));
    fs::write(&source, FAILING_OPEN).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    built.is_ok_and(|status| status.success()).then_some(library)
}

#[test]
fn faults_of_the_surroundings_stop_the_run_and_touch_nothing() {
    let mini = Mini::packed();
    let step = interrupted(&mini, &[], &[]);
    let arguments = [&["--stop-stage", "train"], &ENDLESS[..]].concat();
    let before = mini.tree();
    let Some(library) = failing_open(&mini.path("data")) else { return println!("skipped: there is no C compiler") };
    // EIO, ENOMEM, EACCES, EMFILE, ENOSPC, ESTALE.
    for errno in ["5", "12", "13", "24", "28", "116"] {
        for file in ["model.safetensors", "optimizer.safetensors", "checksums.b3"] {
            let mut run = mini.command("run", &arguments);
            run.env("LD_PRELOAD", &library).env("FAIL_ERRNO", errno);
            run.env("FAIL_ENDING", format!("step-{step:06}/{file}"));
            let output = run.output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(1), "{errno} {file}: {text}");
            assert!(text.contains(file) && text.contains(&format!("step-{step:06}")), "{errno} {file}: {text}");
            assert!(before.contents() == mini.tree().contents(), "{errno} {file}: {text}");
        }
    }
    let settings = until(step + 5);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    train(&mini, "mini", &settings, &[]).expect_code(0).expect_resumed_from(step);
}

#[test]
fn a_damaged_checkpoint_is_moved_aside_and_stays_there() {
    let mini = Mini::packed();
    mini.copy_experiment("mini", "whole");
    let settings = ["max_steps=60", "save_every=10", "validate_every=0", "keep.last=9"];
    let sets = sets(&["save_every=10", "keep.last=9"]);
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let state = state(&mini.exp(""));
    let training = Training::start(&mini, &[&ENDLESS[..], &sets].concat());
    while steps(&state).len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    training.kill();
    let newest = *steps(&state).last().unwrap();
    let file = state.join(format!("step-{newest:06}/model.safetensors"));
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let last = newest + 25;
    let settings = settings.map(|set| set.replace("60", &last.to_string()));
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let before = *steps(&state).iter().rev().nth(1).unwrap();
    let ended = train(&mini, "mini", &settings, &[]).expect_code(0);
    ended.expect_resumed_from(before).expect_words(&[&format!("damaged-step-{newest:06}")]);
    let aside = mini.exp(&format!("4-train/damaged-step-{newest:06}/model.safetensors"));
    assert!(fs::read(aside).unwrap() == bytes, "what was damaged is kept as it is");
    train(&mini, "whole", &settings, &[]).expect_code(0);
    expect_same_weights(&mini.exp(""), &mini.path("exp/whole"), last, "after a damaged checkpoint");
}

/// Every setting that changes no weights, with another value than the recipe's.
const FREE: [&str; 18] = [
    "keep.last=7",
    "keep.best=0",
    "log_every=3",
    "log_groups=true",
    "log_gradients=5",
    "validate_every=3",
    "save_every={epochs: 2}",
    "wandb={project: speech}",
    "sample_every=7",
    "sample_count=1",
    "prefetch=0",
    "num_workers=1",
    "max_seconds=100",
    "gradient_checkpointing=true",
    "skipped_weights=0",
    "max_skipped_in_a_row=3",
    "early_stopping={patience: 1000}",
    "max_epochs=100000",
];

#[test]
fn settings_that_change_no_weights_block_no_resume_and_cause_no_training() {
    let mini = Mini::packed();
    mini.copy_experiment("mini", "interrupted");
    train(&mini, "mini", &[], &[]).expect_code(0);
    let before = mini.tree();
    for free in FREE {
        train(&mini, "mini", &[free], &[]).expect_code(0).expect_nothing_to_do();
        let dry = train(&mini, "mini", &[free], &["--dry-run"]).expect_code(0);
        dry.expect_verdict("4-train", Verdict::UpToDate);
    }
    let sets = sets(&FREE);
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let shown = mini.flowmill("status", &[&["--json"], &sets[..]].concat()).expect_code(0).stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["stages"][4]["state"], "done", "{shown}");
    assert_eq!(before, mini.tree(), "nothing is touched");

    let endless = [&ENDLESS[..], &["--exp", "exp/interrupted"]].concat();
    let limited = [&endless[..], &["--set", "train.max_seconds=1"]].concat();
    mini.run(&[&["--stop-stage", "train"], &limited[..]].concat()).expect_code(130);
    let step = *steps(&state(&mini.path("exp/interrupted"))).last().unwrap();
    let whole = until(step + 10);
    let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
    let all: Vec<&str> =
        whole.iter().chain(&FREE[..]).copied().filter(|set| !set.starts_with("save_every={")).collect();
    train(&mini, "interrupted", &all, &[]).expect_code(0).expect_resumed_from(step);
    train(&mini, "straight", &whole, &[]).expect_code(0);
    expect_same_weights(
        &mini.path("exp/interrupted"),
        &mini.path("exp/straight"),
        step + 10,
        "with other free settings",
    );
}

#[test]
fn a_finished_training_is_extended_to_what_one_of_that_length_gives() {
    let mini = Mini::packed();
    for name in ["straight", "killed"] {
        mini.copy_experiment("mini", name);
    }
    mini.run(&[]).expect_code(0);
    let more = ["max_steps=150", "save_every=25", "validate_every=50", "keep.last=3"];
    train(&mini, "straight", &more, &[]).expect_code(0);
    train(&mini, "killed", &[], &[]).expect_code(0);
    let dry = train(&mini, "mini", &more, &["--dry-run"]).expect_code(0);
    dry.expect_verdict("4-train", Verdict::WouldRun).expect_words(&["step 12 of 12", "train.max_steps: 12 → 150"]);
    let before = fs::read_to_string(mini.exp("4-train/metrics.jsonl")).unwrap();
    let ended = train(&mini, "mini", &more, &[]).expect_code(0);
    ended.expect_resumed_from(12).expect_words(&["step 150"]);
    expect_same_weights(&mini.exp(""), &mini.path("exp/straight"), 150, "extended");
    let after = fs::read_to_string(mini.exp("4-train/metrics.jsonl")).unwrap();
    assert!(after.starts_with(&before) && after.contains("\"step\":150"), "the log is continued");
    let status = mini.flowmill("status", &["--json", "--set", "train.max_steps=150"]).expect_code(0).stdout;
    let status: Value = serde_json::from_str(&status).unwrap();
    let states: Vec<&str> = (4..6).map(|at| status["stages"][at]["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["done", "stale"], "{status}");
    mini.run(&["--set", "train.max_steps=150"]).expect_code(0);
    mini.run(&["--set", "train.max_steps=150"]).expect_code(0).expect_nothing_to_do();

    // Killed at once, and while it trains; what was finished stays until the extension is.
    let sets = sets(&more);
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let killed = mini.path("exp/killed");
    for wanted in [0, 25, 75] {
        let arguments = [&["--stop-stage", "train", "--exp", "exp/killed", "--quiet"], &sets[..]].concat();
        let mut process = mini.command("run", &arguments).spawn().unwrap();
        while process.try_wait().unwrap().is_none() && steps(&state(&killed)).last().copied().unwrap_or(0) < wanted {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let _ended = process.kill();
        process.wait().unwrap();
        if !state(&killed).exists() {
            continue;
        }
        assert!(steps(&killed.join("4-train/checkpoints")).contains(&12), "the finished training is there");
        train(&mini, "killed", &[], &[]).expect_code(0).expect_nothing_to_do();
    }
    train(&mini, "killed", &more, &[]).expect_code(0);
    let tree = |name: &str| Tree::of(&mini.path("exp").join(name).join("4-train"));
    tree("killed").expect_same_bytes(&tree("mini"), "an extension that was killed against one that was not");
}

#[test]
fn a_training_that_would_be_lost_is_refused_and_force_names_the_loss() {
    let mini = Mini::packed();
    train(&mini, "mini", &["max_steps=24"], &[]).expect_code(0);
    let before = mini.tree();
    let refused = |settings: &[&str], words: &[&str]| {
        train(&mini, "mini", settings, &[]).expect_error("would-lose", 2).expect_words(words);
        train(&mini, "mini", settings, &["--dry-run"]).expect_code(0).expect_verdict("4-train", Verdict::Refused);
        assert_eq!(before, mini.tree(), "{settings:?}");
    };
    let ways = ["--exp DIR", "train.init_from", "--force --stage 4-train"];
    refused(
        &["max_steps=24", "optim.lr=2e-3"],
        &[&["step 24 of 24", "train.optim.lr: 0.001 → 0.002"], &ways[..]].concat(),
    );
    refused(&["max_steps=48", "accum_grad=2"], &["train.accum_grad: 1 → 2"]);
    refused(&["max_steps=12"], &["train.max_steps: 24 → 12", "24 steps", "--rollback"]);
    let forced =
        train(&mini, "mini", &["max_steps=24", "optim.lr=2e-3"], &["--stage", "train", "--force"]).expect_code(0);
    forced.expect_words(&["step 24 of 24", "checkpoints, steps"]);
}

#[test]
fn a_finished_training_whose_logs_are_gone_is_finished_and_damage_costs_only_itself() {
    let mini = Mini::finished();
    fs::remove_file(mini.exp("4-train/metrics.jsonl")).unwrap();
    fs::remove_dir_all(mini.exp("4-train/tensorboard")).unwrap();
    let said = mini.run(&[]).expect_code(0).expect_nothing_to_do();
    assert_eq!(warnings(&said.text()), 1, "{}", said.text());
    mini.run(&["--stage", "average"]).expect_code(0);

    let checkpoints = mini.exp("4-train/checkpoints");
    let (all, newest) = (steps(&checkpoints), 12);
    assert_eq!(all.last(), Some(&newest));
    let file = checkpoints.join("step-000012/optimizer.safetensors");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let said = mini.run(&["--stop-stage", "train"]).expect_code(0);
    let before = all[all.len() - 2];
    said.expect_resumed_from(before).expect_words(&["step-000012"]);
    assert!(fs::read(&file).unwrap() == whole, "made again, the same");
    assert!(mini.exp("4-train/damaged-step-000012").is_dir());

    let described = mini.exp("4-train/config.json");
    let content = fs::read(&described).unwrap();
    fs::remove_file(&described).unwrap();
    mini.run(&["--stop-stage", "train"]).expect_code(0).expect_words(&["config.json"]);
    assert!(fs::read(&described).unwrap() == content);
}

#[test]
fn going_back_keeps_what_is_newer_and_trains_on_from_there() {
    let mini = Mini::packed();
    mini.copy_experiment("mini", "interrupted");
    let settings = ["max_steps=40", "save_every=10", "validate_every=0", "keep.last=9"];
    let rollback =
        |name: &str, step: &str| mini.flowmill("train", &["--rollback", step, "--exp", &format!("exp/{name}")]);
    rollback("mini", "10").expect_code(2);
    train(&mini, "mini", &settings, &[]).expect_code(0);
    let before = mini.tree();
    let whole = fs::read(mini.exp("4-train/checkpoints/step-000040/model.safetensors")).unwrap();
    rollback("mini", "15").expect_code(2).expect_words(&["step-000010", "step-000020", "step-000040"]);
    assert_eq!(before, mini.tree());
    rollback("mini", "40").expect_code(0);
    train(&mini, "mini", &settings, &[]).expect_code(0).expect_nothing_to_do();

    rollback("mini", "20").expect_code(0).expect_words(&["rolled-back-step-000030", "rolled-back-step-000040"]);
    assert!(fs::read(mini.exp("4-train/rolled-back-step-000040/model.safetensors")).unwrap() == whole);
    assert_eq!(steps(&mini.exp("4-train/checkpoints")), Vec::<u64>::new());
    let status = train(&mini, "mini", &settings, &["--dry-run"]).expect_code(0);
    status.expect_words(&["step 20 of 40"]);
    train(&mini, "mini", &settings, &[]).expect_code(0).expect_resumed_from(20);
    assert!(fs::read(mini.exp("4-train/checkpoints/step-000040/model.safetensors")).unwrap() == whole);
    let lines = metrics(&mini.exp("4-train/metrics.jsonl"));
    let logged: Vec<u64> =
        lines.iter().filter(|line| line["lr"].is_number()).map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(logged, (1..=40).collect::<Vec<_>>(), "every step once");
    rollback("mini", "20").expect_code(0).expect_words(&["rolled-back-step-000040-2"]);

    // One that was interrupted, and one that is under way.
    let sets = sets(&["save_every=10", "keep.last=9"]);
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let training = Training::start(&mini, &[&ENDLESS[..], &sets, &["--exp", "exp/interrupted"]].concat());
    let folder = state(&mini.path("exp/interrupted"));
    while steps(&folder).len() < 3 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    rollback("interrupted", "10").expect_error("locked", 1);
    training.kill();
    let newer: Vec<u64> = steps(&folder).into_iter().filter(|step| *step > 10).collect();
    rollback("interrupted", "10").expect_code(0);
    assert_eq!(steps(&folder), [10]);
    for step in newer {
        assert!(mini.path(&format!("exp/interrupted/4-train/rolled-back-step-{step:06}/state.json")).exists());
    }
    let settings = settings.map(|set| set.replace("40", "20"));
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    train(&mini, "interrupted", &settings, &[]).expect_code(0).expect_resumed_from(10);
}

/// Puts another content into a file that knows its own hash.
fn reseal(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut sealed: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut sealed["content"]);
    let body = serde_json::to_string_pretty(&sealed["content"]).unwrap();
    let hash = blake3::hash(body.as_bytes()).to_hex();
    fs::write(path, format!("{{\"blake3\":\"{hash}\",\n\"content\":{body}}}\n")).unwrap();
}

#[test]
fn trainings_of_earlier_versions_are_finished_and_go_on() {
    let mini = Mini::packed();
    mini.copy_experiment("mini", "interrupted");
    train(&mini, "mini", &[], &[]).expect_code(0);
    // Earlier versions recorded every setting, and lacked some of today's.
    let show = crate::support::flowmill(mini.folder(), &["recipe", "show", ".", "--json"]).expect_code(0).stdout;
    let mut all: Value = serde_json::from_str::<Value>(&show).unwrap()["train"].clone();
    let section = all.as_object_mut().unwrap();
    for added in ["prefetch", "num_workers", "max_seconds", "gradient_checkpointing", "grad_clip_value"] {
        section.remove(added);
    }
    section.insert("keep".to_owned(), serde_json::json!({"last": 2, "best": 2, "every": 0}));
    reseal(&mini.exp("4-train/receipts/train.json"), |content| content["config"] = all.clone());
    train(&mini, "mini", &[], &[]).expect_code(0).expect_nothing_to_do();
    train(&mini, "mini", &["keep.last=9"], &[]).expect_code(0).expect_nothing_to_do();
    train(&mini, "mini", &["optim.lr=0.5"], &[]).expect_error("would-lose", 2).expect_words(&[
        "train.optim.lr",
        "0.001",
        "0.5",
    ]);
    train(&mini, "mini", &["max_steps=20"], &[]).expect_code(0).expect_resumed_from(12);

    // A checkpoint of the first format, with a hash in the place of its settings.
    let settings = [&ENDLESS[..], &["--exp", "exp/interrupted", "--set", "train.max_seconds=1"]].concat();
    mini.run(&[&["--stop-stage", "train"], &settings[..]].concat()).expect_code(130);
    let folder = state(&mini.path("exp/interrupted"));
    let step = *steps(&folder).last().unwrap();
    let checkpoint = folder.join(format!("step-{step:06}"));
    let mut old: Value = serde_json::from_slice(&fs::read(checkpoint.join("state.json")).unwrap()).unwrap();
    old["format"] = 1.into();
    old["run"] = "0c".repeat(32).into();
    old.as_object_mut().unwrap().remove("limits");
    fs::write(checkpoint.join("state.json"), format!("{old:#}\n")).unwrap();
    let sum = blake3::hash(&fs::read(checkpoint.join("state.json")).unwrap()).to_hex();
    let sums = fs::read_to_string(checkpoint.join("checksums.b3")).unwrap();
    let sums = sums
        .lines()
        .map(|line| if line.ends_with("state.json") { format!("{sum}  state.json\n") } else { format!("{line}\n") });
    fs::write(checkpoint.join("checksums.b3"), sums.collect::<String>()).unwrap();
    all["max_steps"] = 10_000_000.into();
    all["save_every"] = 1_000_000.into();
    all["validate_every"] = 0.into();
    reseal(&mini.path("exp/interrupted/4-train/.staging/train/fingerprint.json"), |content| content["config"] = all);
    let more = until(step + 5);
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    train(&mini, "interrupted", &more, &[]).expect_code(0).expect_resumed_from(step);
    train(&mini, "straight", &more, &[]).expect_code(0);
    expect_same_weights(&mini.path("exp/interrupted"), &mini.path("exp/straight"), step + 5, "from the first format");
}

#[test]
fn early_stopping_that_ended_a_training_may_be_taken_back() {
    let mini = Mini::packed();
    let fired = ["max_steps=60", "validate_every=4", "early_stopping={patience: 1, min_delta: 1000}"];
    train(&mini, "mini", &fired, &[]).expect_code(0).expect_words(&["stopped_early true"]);
    let stopped = *steps(&mini.exp("4-train/checkpoints")).last().unwrap();
    assert!(stopped < 60);
    let same = ["max_steps=90", fired[1], fired[2]];
    let words = [&format!("step {stopped} of 60"), "train.early_stopping.patience"];
    train(&mini, "mini", &same, &[]).expect_code(0).expect_nothing_to_do().expect_words(&words);
    let open = ["max_steps=60", "early_stopping=null"];
    train(&mini, "mini", &open, &[]).expect_code(0).expect_resumed_from(stopped);
    train(&mini, "straight", &open, &[]).expect_code(0);
    expect_same_weights(&mini.exp(""), &mini.path("exp/straight"), 60, "after early stopping was taken back");
}

#[test]
fn a_folder_that_cannot_be_written_stops_the_training_before_its_first_step() {
    let mini = Mini::packed();
    let step = interrupted(&mini, &[], &[]);
    let Some(library) = failing_open(&mini.path("data")) else { return println!("skipped: there is no C compiler") };
    let before = mini.tree();
    // EPERM, EACCES, EROFS.
    for errno in ["1", "13", "30"] {
        let mut run = mini.command("run", &[&["--stop-stage", "train"], &ENDLESS[..]].concat());
        run.env("LD_PRELOAD", &library).env("FAIL_ERRNO", errno).env("FAIL_ENDING", "train/state/.writable");
        let output = run.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{errno}: {text}");
        assert!(text.contains("4-train/.staging/train/state") && text.contains("chown"), "{errno}: {text}");
        assert!(before.contents() == mini.tree().contents(), "{errno}: {text}");
    }
    let settings = until(step + 3);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    train(&mini, "mini", &settings, &[]).expect_code(0).expect_resumed_from(step);
}

#[test]
fn a_finished_training_whose_checkpoints_are_gone_is_not_done_again_in_silence() {
    let mini = Mini::packed();
    let settings = ["max_steps=40", "save_every=10", "validate_every=0", "keep.last=9"];
    train(&mini, "mini", &settings, &[]).expect_code(0);
    mini.copy_experiment("mini", "some");
    mini.copy_experiment("mini", "extended");
    let checkpoints = mini.exp("4-train/checkpoints");
    let whole = mini.path("whole");
    fs::rename(&checkpoints, &whole).unwrap();
    for emptied in ["", "4-train/checkpoints", "4-train/checkpoints/step-000010", "4-train/checkpoints/step-000040"] {
        fs::create_dir_all(mini.exp(emptied)).unwrap();
        let before = mini.tree();
        let words = ["checkpoints/step-000010", "checkpoints/step-000040", "--force --stage 4"];
        train(&mini, "mini", &settings, &[]).expect_code(2).expect_words(&words);
        train(&mini, "mini", &settings, &["--dry-run"]).expect_code(0).expect_verdict("4-train", Verdict::Refused);
        assert_eq!(before, mini.tree());
    }
    fs::remove_dir_all(&checkpoints).unwrap();
    fs::rename(&whole, &checkpoints).unwrap();
    train(&mini, "mini", &settings, &[]).expect_code(0).expect_nothing_to_do();
    fs::remove_dir_all(&checkpoints).unwrap();
    train(&mini, "mini", &settings, &["--stage", "4", "--force"]).expect_code(0);
    assert_eq!(steps(&checkpoints), [10, 20, 30, 40]);

    for (name, end) in [("some", "max_steps=40"), ("extended", "max_steps=50")] {
        let exp = mini.path("exp").join(name);
        for step in [30, 40] {
            fs::remove_dir_all(exp.join(format!("4-train/checkpoints/step-{step:06}"))).unwrap();
        }
        let settings = [&[end], &settings[1..]].concat();
        let said = train(&mini, name, &settings, &[]).expect_code(0);
        let gone = "4-train/checkpoints/step-000030, 4-train/checkpoints/step-000040 are gone";
        said.expect_resumed_from(20).expect_words(&[gone]);
        expect_same_weights(&exp, &mini.exp(""), 40, name);
    }
}

#[test]
fn with_every_checkpoint_damaged_only_force_begins_anew() {
    let mini = Mini::packed();
    let settings = ["max_steps=40", "save_every=10", "validate_every=0", "keep.last=9"];
    train(&mini, "mini", &settings, &[]).expect_code(0);
    let whole = mini.copy_experiment("mini", "whole");
    let checkpoints = mini.exp("4-train/checkpoints");
    for step in steps(&checkpoints) {
        fs::write(checkpoints.join(format!("step-{step:06}/optimizer.safetensors")), "").unwrap();
    }
    for _ in 0..2 {
        let words = [
            "step-000010",
            "step-000040",
            "damaged",
            "step-000040/model.safetensors",
            "train.init_from",
            "--force --stage 4",
        ];
        train(&mini, "mini", &settings, &[]).expect_code(1).expect_words(&words);
        assert_eq!(steps(&checkpoints), [10, 20, 30, 40]);
    }
    train(&mini, "mini", &settings, &["--stage", "4", "--force"]).expect_code(0);
    expect_same_weights(&mini.exp(""), &whole, 40, "begun anew");
    train(&mini, "mini", &settings, &[]).expect_code(0).expect_nothing_to_do();
}

#[test]
fn a_damaged_state_does_not_block_an_extension() {
    let mini = Mini::packed();
    let settings = |end: &'static str| [end, "save_every=10", "validate_every=0", "keep.last=9"];
    train(&mini, "mini", &settings("max_steps=40"), &[]).expect_code(0);
    let whole = mini.copy_experiment("mini", "whole");
    let state = mini.exp("4-train/checkpoints/step-000040/state.json");
    let text = fs::read_to_string(&state).unwrap();
    // It stays as long as it was.
    fs::write(&state, text.replacen("\"step\"", "?step?", 1)).unwrap();
    let said = train(&mini, "mini", &settings("max_steps=60"), &[]).expect_code(0);
    said.expect_resumed_from(30).expect_words(&["damaged-step-000040"]);
    train(&mini, "whole", &settings("max_steps=60"), &[]).expect_code(0);
    expect_same_weights(&mini.exp(""), &whole, 60, "after a damaged state");
}
