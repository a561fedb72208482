//! Stopping, killing, damaging and resuming change nothing in weights, checkpoints or metrics.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use flowmill_nn::random::Draw;
use flowmill_train::optimizer::GroupConfig;
use flowmill_train::{Interval, KeepConfig, TrainConfig, TrainError};
use support::{Recorder, Samples, assert_same_tree, config, run, tree};

const STEPS: u64 = 47;

/// Mid-epoch, mid-accumulation, with groups of parameters, a moving average, a skipped step and metrics between lines.
fn hard_config() -> TrainConfig {
    let group = |pattern: &str, lr_multiple, frozen| {
        let (pattern, weight_decay) = (pattern.to_owned(), Some(0.1));
        GroupConfig { pattern, lr_multiple, weight_decay, frozen, ..GroupConfig::default() }
    };
    let mut config =
        TrainConfig { accum_grad: 2, ema_decay: Some(0.9), save_every: Interval::Steps(5), ..config(STEPS) };
    config.optim.groups = vec![group("output.bias", 1.0, true), group("output.*", 2.0, false)];
    config
}

fn hard_data() -> Samples {
    let mut data = Samples::new(43, &[4, 7, 3]);
    data.poison = Some(flowmill_train::DataSource::batches(&data, 0).unwrap()[5][0]);
    data
}

fn undisturbed(folder: &Path) {
    run(folder, &hard_config(), &hard_data(), 0.1, &mut Recorder::default()).unwrap();
}

#[test]
fn a_run_interrupted_again_and_again_ends_in_the_same_bytes() {
    let (whole, pieces) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    undisturbed(whole.path());
    for piece in [1, 2, 3, 4, 1, 6, 5, 7, 3, 100] {
        let mut observer = Recorder::interrupting_after(piece);
        let (summary, _) = run(pieces.path(), &hard_config(), &hard_data(), 0.1, &mut observer).unwrap();
        assert_eq!(summary.interrupted, summary.steps < STEPS);
    }
    assert_same_tree(whole.path(), pieces.path());
    let names: Vec<_> = tree(whole.path()).into_keys().filter(|path| path.ends_with("model.safetensors")).collect();
    assert!((2..=3).contains(&names.len()), "the last two and the best: {names:?}");
}

#[test]
fn a_finished_run_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (first, weights) = run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut Recorder::default()).unwrap();
    let before = tree(folder.path());
    let mut observer = Recorder::default();
    let (second, again) = run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut observer).unwrap();
    assert!(observer.steps.is_empty());
    assert_eq!(weights, again);
    assert_eq!(before, tree(folder.path()));
    assert_eq!(second.resumed_from, Some(STEPS));
    assert_eq!((first.loss, first.validation, first.best), (second.loss, second.validation, second.best));
}

#[test]
fn threads_do_not_change_the_bytes() {
    let folders: Vec<_> = [1, 3]
        .into_iter()
        .map(|threads| {
            let folder = tempfile::tempdir().unwrap();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| undisturbed(folder.path()));
            folder
        })
        .collect();
    assert_same_tree(folders[0].path(), folders[1].path());
}

/// The state of every optimiser is kept whole: stopped in the middle, the run ends in the same bytes.
#[test]
fn every_optimiser_resumes_exactly() {
    use flowmill_train::optimizer::OptimizerName::{Adafactor, Adam, Muon, Prodigy, Sgd};
    for name in [Adam, Sgd, Adafactor, Prodigy, Muon] {
        let mut config = hard_config();
        config.optim.name = name;
        config.optim.lr = if name == Prodigy { 1.0 } else { 1e-3 };
        config.grad_clip_value = Some(0.05);
        config.log_groups = true;
        let (whole, pieces) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run(whole.path(), &config, &hard_data(), 0.1, &mut Recorder::default()).unwrap();
        for piece in [3, 1, 9, 20, 100] {
            run(pieces.path(), &config, &hard_data(), 0.1, &mut Recorder::interrupting_after(piece)).unwrap();
        }
        assert_same_tree(whole.path(), pieces.path());
    }
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so() {
    let whole = tempfile::tempdir().unwrap();
    undisturbed(whole.path());
    type Way = (&'static str, fn(&Path));
    let ways: [Way; 3] = [
        ("flipped", damage),
        ("cut off", |path| std::fs::write(path, &std::fs::read(path).unwrap()[1..]).unwrap()),
        ("missing", |path| std::fs::remove_file(path).unwrap()),
    ];
    let files = ["model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json", "checksums.b3"];
    for (file, (how, damage)) in files.into_iter().flat_map(|file| ways.map(|way| (file, way))) {
        let folder = tempfile::tempdir().unwrap();
        let mut observer = Recorder::interrupting_after(22);
        run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut observer).unwrap();
        damage(&folder.path().join("checkpoints/step-000022").join(file));
        let mut observer = Recorder::default();
        let (summary, _) = run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut observer).unwrap();
        assert_eq!(summary.resumed_from, Some(20), "{file} {how}");
        let loud = |text: &String| text.contains("WARNING") && text.contains("step-000022");
        assert!(observer.messages.iter().any(loud), "{file} {how}: {:?}", observer.messages);
        assert_same_tree(whole.path(), folder.path());
    }
}

#[test]
fn with_every_checkpoint_damaged_training_starts_over_and_says_so() {
    let (whole, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    undisturbed(whole.path());
    let mut observer = Recorder::interrupting_after(7);
    run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut observer).unwrap();
    for step in ["step-000005", "step-000007"] {
        std::fs::remove_file(folder.path().join("checkpoints").join(step).join("model.safetensors")).unwrap();
    }
    let mut observer = Recorder::default();
    let (summary, _) = run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut observer).unwrap();
    assert_eq!(summary.resumed_from, None);
    assert!(observer.messages.iter().any(|text| text.contains("from the beginning")), "{:?}", observer.messages);
    assert_same_tree(whole.path(), folder.path());
}

#[test]
fn metrics_that_a_checkpoint_needs_and_does_not_find_are_damage_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut observer = Recorder::interrupting_after(22);
    run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut observer).unwrap();
    let metrics = folder.path().join("metrics.jsonl");
    let bytes = std::fs::read(&metrics).unwrap();
    std::fs::write(&metrics, &bytes[..bytes.len() - 1]).unwrap();
    let mut observer = Recorder::default();
    let (summary, _) = run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut observer).unwrap();
    assert!(summary.resumed_from < Some(22));
    let whole = tempfile::tempdir().unwrap();
    undisturbed(whole.path());
    assert_same_tree(whole.path(), folder.path());
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut Recorder::default()).unwrap();
    let other = TrainConfig { keep: KeepConfig { last: 9, ..KeepConfig::default() }, ..hard_config() };
    let before = tree(folder.path());
    let error = run(folder.path(), &other, &hard_data(), 0.1, &mut Recorder::default()).unwrap_err();
    assert!(matches!(error, TrainError::OtherRun { .. }), "{error}");
    assert_eq!(before, tree(folder.path()), "nothing is lost");
}

const CHILD_FOLDER: &str = "FLOWMILL_TRAIN_TEST_FOLDER";

/// The run of the killed child: slowed down so that a kill can fall anywhere.
#[test]
#[ignore = "started as a child process by killed_anywhere_…"]
fn child() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else {
        return;
    };
    let mut data = hard_data();
    data.delay = Duration::from_millis(5);
    run(Path::new(&folder), &hard_config(), &data, 0.1, &mut Recorder::default()).unwrap();
}

#[test]
fn killed_anywhere_and_resumed_it_ends_in_the_same_bytes() {
    let seed = std::env::var("FLOWMILL_TEST_SEED").map_or(20_261_120, |text| text.parse().unwrap());
    println!("FLOWMILL_TEST_SEED={seed}");
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    undisturbed(whole.path());
    let draw = Draw::new(seed).purpose("kill");
    let (mut kills, mut done) = (0, false);
    while !done {
        let arguments = ["--exact", "child", "--ignored", "--quiet"];
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments).env(CHILD_FOLDER, killed.path()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        // Later tries get more time, so that the run ends.
        let patience = 30 + 4 * kills + draw.below_at(kills, 120) as u64;
        std::thread::sleep(Duration::from_millis(patience));
        done = child.try_wait().unwrap().is_some();
        if !done {
            child.kill().unwrap();
            kills += 1;
        }
        let succeeded = child.wait().unwrap().success();
        assert!(succeeded || !done);
        // It may have come to its end just before the kill.
        done = succeeded;
    }
    println!("{kills} kills");
    assert!(kills >= 3, "only {kills} kills: the child is too fast for this test");
    assert_same_tree(whole.path(), killed.path());
}
