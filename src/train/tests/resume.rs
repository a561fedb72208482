//! Stopping, killing, damaging and resuming change nothing in weights, checkpoints or metrics.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use flowmill_nn::random::RngKey;
use flowmill_train::optimizer::GroupConfig;
use flowmill_train::schedule::ScheduleName;
use flowmill_train::{Interval, KeepConfig, ScheduleConfig, TrainConfig, TrainError};
use support::{Recorder, Samples, assert_same_tree, config, run, tree};

const STEPS: u64 = 47;

/// A configuration that stops mid-epoch and mid-accumulation, with groups of parameters, a moving average, a skipped step and metrics
/// between lines.
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

/// The state of every optimizer is saved completely: a run stopped in the middle ends in the same bytes.
#[test]
fn every_optimizer_resumes_exactly() {
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
fn with_every_checkpoint_damaged_the_run_stops_and_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut observer = Recorder::interrupting_after(7);
    run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut observer).unwrap();
    let checkpoints = folder.path().join("checkpoints");
    let names = flowmill_train::checkpoint::names(&support::FolderStore(checkpoints.clone())).unwrap();
    for (file, has_weights) in [("optimizer.safetensors", true), ("model.safetensors", false)] {
        for name in &names {
            std::fs::remove_file(checkpoints.join(name).join(file)).unwrap();
        }
        let before = tree(folder.path());
        // The second attempt finds the same.
        for _ in 0..2 {
            let mut observer = Recorder::default();
            let error = run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut observer).unwrap_err();
            let TrainError::AllDamaged { damaged, weights } = &error else { panic!("{error}") };
            let expected: Vec<_> = names.iter().rev().map(|name| checkpoints.join(name)).collect();
            assert_eq!(damaged.iter().map(|(folder, _)| folder.clone()).collect::<Vec<_>>(), expected);
            let newest = expected[0].join("model.safetensors");
            assert_eq!(weights.as_ref(), has_weights.then_some(&newest));
            assert!(observer.steps.is_empty());
            assert!(before == tree(folder.path()), "{file}");
        }
    }
}

/// Compares the checkpoints of two trees, file by file; logs do not count.
fn assert_same_checkpoints(left: &Path, right: &Path, names: &[&str]) {
    for name in names {
        for file in ["model.safetensors", "optimizer.safetensors", "ema.safetensors"] {
            let read = |folder: &Path| std::fs::read(folder.join("checkpoints").join(name).join(file)).ok();
            assert!(read(left).is_some() || file == "ema.safetensors", "{name}");
            assert!(read(left) == read(right), "{name}/{file} differs");
        }
    }
}

#[test]
fn logs_that_are_gone_cut_replaced_or_not_writable_cost_one_warning_and_no_step() {
    let whole = tempfile::tempdir().unwrap();
    undisturbed(whole.path());
    type Way = (&'static str, usize, fn(&Path));
    let ways: [Way; 7] = [
        ("gone", 1, |path| std::fs::remove_file(path).unwrap()),
        ("empty", 1, |path| std::fs::write(path, "").unwrap()),
        ("cut", 1, |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() * 2 / 3]).unwrap();
        }),
        ("longer", 0, |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, [&bytes[..], b"more"].concat()).unwrap();
        }),
        ("another file", 1, |path| std::fs::write(path, vec![b'x'; 1 << 20]).unwrap()),
        ("a folder", 1, |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
        ("a link to nowhere", 1, |path| {
            std::fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("none/there", path).unwrap();
        }),
    ];
    for (log, (how, warnings, disturb)) in ["metrics.jsonl", "tensorboard/events.out.tfevents.0000000000.flowmill"]
        .into_iter()
        .flat_map(|log| ways.map(|way| (log, way)))
    {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut Recorder::interrupting_after(22)).unwrap();
        disturb(&folder.path().join(log));
        let mut observer = Recorder::default();
        let (summary, _) = run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut observer).unwrap();
        assert_eq!((summary.resumed_from, observer.steps.len() as u64), (Some(22), STEPS - 22), "{log} {how}");
        let told: Vec<&String> = observer.messages.iter().filter(|text| text.contains("WARNING")).collect();
        let name = Path::new(log).file_name().unwrap().to_str().unwrap();
        assert!(told.len() == warnings && told.iter().all(|text| text.contains(name)), "{log} {how}: {told:?}");
        assert_same_checkpoints(whole.path(), folder.path(), &["step-000045", "step-000047"]);
        if log == "metrics.jsonl" && !how.starts_with("a ") {
            let text = std::fs::read_to_string(folder.path().join(log)).unwrap();
            let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(lines.last().unwrap()["step"], STEPS, "{how}: every line is whole");
            let whole = std::fs::read_to_string(whole.path().join(log)).unwrap();
            assert!(text == whole || warnings == 1, "{how}");
        }
    }
}

#[test]
fn a_checkpoint_that_the_system_does_not_give_stops_the_run_and_stays() {
    for file in ["model.safetensors", "optimizer.safetensors", "state.json", "checksums.b3"] {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut Recorder::interrupting_after(22)).unwrap();
        let path = folder.path().join("checkpoints/step-000022").join(file);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let before = tree(folder.path());
        let error = run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut Recorder::default()).unwrap_err();
        assert!(matches!(&error, TrainError::Unreadable { path, .. } if path.ends_with(file)), "{error}");
        assert!(before == tree(folder.path()), "{file}: nothing is touched");
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let (summary, _) = run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut Recorder::default()).unwrap();
        assert_eq!(summary.resumed_from, Some(22));
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused_and_one_of_other_logs_and_retention_is_not() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut Recorder::interrupting_after(22)).unwrap();
    let mut other = hard_config();
    other.optim.lr *= 2.0;
    other.accum_grad = 3;
    let before = tree(folder.path());
    let error = run(folder.path(), &other, &hard_data(), 0.1, &mut Recorder::default()).unwrap_err();
    let TrainError::OtherRun { changes, .. } = &error else { panic!("{error}") };
    assert_eq!(changes, &["optim.lr: 0.02 → 0.04", "accum_grad: 2 → 3"]);
    assert_eq!(before, tree(folder.path()), "nothing is lost");

    let free = TrainConfig {
        keep: KeepConfig { last: 9, ..KeepConfig::default() },
        log_every: 5,
        save_every: Interval::Steps(7),
        validate_every: Interval::Steps(0),
        log_groups: true,
        skipped_weights: 0,
        prefetch: 0,
        ..hard_config()
    };
    let (summary, _) = run(folder.path(), &free, &hard_data(), 0.1, &mut Recorder::default()).unwrap();
    assert_eq!(summary.resumed_from, Some(22));
    let whole = tempfile::tempdir().unwrap();
    undisturbed(whole.path());
    assert_same_checkpoints(whole.path(), folder.path(), &["step-000047"]);
}

/// Converts a checkpoint to the first format: the settings as a hash, no end.
fn as_first_format(folder: &Path) {
    let path = folder.join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    state["format"] = 1.into();
    state["run"] = "0123456789abcdef".into();
    state.as_object_mut().unwrap().remove("limits");
    std::fs::write(&path, format!("{state:#}\n")).unwrap();
    let sums = std::fs::read_to_string(folder.join("checksums.b3")).unwrap();
    let line = |line: &str| match line.ends_with("state.json") {
        true => format!("{}  state.json\n", blake3::hash(&std::fs::read(&path).unwrap()).to_hex()),
        false => format!("{line}\n"),
    };
    std::fs::write(folder.join("checksums.b3"), sums.lines().map(line).collect::<String>()).unwrap();
}

#[test]
fn a_checkpoint_of_the_first_format_is_gone_on_from() {
    let (whole, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    undisturbed(whole.path());
    run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut Recorder::interrupting_after(22)).unwrap();
    as_first_format(&folder.path().join("checkpoints/step-000022"));
    let (summary, _) = run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut Recorder::default()).unwrap();
    assert_eq!(summary.resumed_from, Some(22));
    assert_same_checkpoints(whole.path(), folder.path(), &["step-000045", "step-000047"]);
}

#[test]
fn a_checkpoint_of_a_later_format_stops_the_run_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut Recorder::interrupting_after(22)).unwrap();
    let checkpoint = folder.path().join("checkpoints/step-000022");
    as_first_format(&checkpoint);
    let text =
        std::fs::read_to_string(checkpoint.join("state.json")).unwrap().replace("\"format\": 1", "\"format\": 99");
    std::fs::write(checkpoint.join("state.json"), text).unwrap();
    // Its checksum is valid: only the content that the program understands differs.
    let sums = std::fs::read_to_string(checkpoint.join("checksums.b3")).unwrap();
    let sum = blake3::hash(&std::fs::read(checkpoint.join("state.json")).unwrap()).to_hex();
    let line =
        |line: &str| if line.ends_with("state.json") { format!("{sum}  state.json\n") } else { format!("{line}\n") };
    std::fs::write(checkpoint.join("checksums.b3"), sums.lines().map(line).collect::<String>()).unwrap();
    let before = tree(folder.path());
    let error = run(folder.path(), &hard_config(), &hard_data(), 0.1, &mut Recorder::default()).unwrap_err();
    assert!(matches!(&error, TrainError::Checkpoint { reason, .. } if reason.contains("99")), "{error}");
    assert!(before == tree(folder.path()));
}

/// The same run with another end, on a schedule that does not depend on it.
fn without_horizon(steps: u64) -> TrainConfig {
    let mut config = TrainConfig { max_steps: Some(steps), ..hard_config() };
    config.schedule = ScheduleConfig { name: ScheduleName::WarmupLr, warmup_steps: 9, ..ScheduleConfig::default() };
    config
}

#[test]
fn a_finished_run_that_is_extended_equals_one_of_that_length() {
    let (whole, extended, disturbed) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(whole.path(), &without_horizon(47), &hard_data(), 0.1, &mut Recorder::default()).unwrap();
    run(extended.path(), &without_horizon(23), &hard_data(), 0.1, &mut Recorder::default()).unwrap();
    run(disturbed.path(), &without_horizon(23), &hard_data(), 0.1, &mut Recorder::default()).unwrap();
    let mut observer = Recorder::default();
    let (summary, _) = run(extended.path(), &without_horizon(47), &hard_data(), 0.1, &mut observer).unwrap();
    assert_eq!((summary.resumed_from, summary.steps), (Some(23), 47));
    assert!(
        observer.messages.iter().any(|text| text.contains("step 47") && text.contains("23")),
        "{:?}",
        observer.messages
    );
    // The best between two saves is kept too, so the names are those of the undisturbed run.
    let names = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder.join("checkpoints")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let kept = names(whole.path());
    assert_eq!(kept, names(extended.path()));
    assert!(kept.ends_with(&["step-000045".to_owned(), "step-000047".to_owned()]), "{kept:?}");
    let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
    assert_same_checkpoints(whole.path(), extended.path(), &kept);
    for piece in [1, 3, 7, 100] {
        run(disturbed.path(), &without_horizon(47), &hard_data(), 0.1, &mut Recorder::interrupting_after(piece))
            .unwrap();
    }
    assert_same_tree(extended.path(), disturbed.path());
}

#[test]
fn more_epochs_extend_and_fewer_than_trained_are_refused() {
    let by_epochs = |epochs| TrainConfig { max_steps: None, max_epochs: Some(epochs), ..without_horizon(1) };
    let (whole, extended) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (long, _) = run(whole.path(), &by_epochs(4), &hard_data(), 0.1, &mut Recorder::default()).unwrap();
    let (short, _) = run(extended.path(), &by_epochs(2), &hard_data(), 0.1, &mut Recorder::default()).unwrap();
    let (summary, _) = run(extended.path(), &by_epochs(4), &hard_data(), 0.1, &mut Recorder::default()).unwrap();
    assert_eq!((summary.resumed_from, summary.steps, summary.epochs), (Some(short.steps), long.steps, 4));
    assert_same_checkpoints(whole.path(), extended.path(), &[&format!("step-{:06}", long.steps)]);
    let before = tree(extended.path());
    for fewer in [by_epochs(3), without_horizon(long.steps - 1)] {
        let error = run(extended.path(), &fewer, &hard_data(), 0.1, &mut Recorder::default()).unwrap_err();
        assert!(matches!(error, TrainError::Config { key: "max_epochs" | "max_steps", .. }), "{error}");
    }
    assert!(before == tree(extended.path()));
}

#[test]
fn a_schedule_with_a_horizon_is_spread_anew_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &config(20), &Samples::new(43, &[4, 7, 3]), 0.1, &mut Recorder::default()).unwrap();
    let mut observer = Recorder::default();
    run(folder.path(), &config(40), &Samples::new(43, &[4, 7, 3]), 0.1, &mut observer).unwrap();
    let said = observer.messages.iter().any(|text| text.contains("warmup_cosine") && text.contains("40 steps"));
    assert!(said, "{:?}", observer.messages);
    assert_eq!((observer.steps[0].step, observer.steps.len()), (21, 20));
    let whole = tempfile::tempdir().unwrap();
    let mut straight = Recorder::default();
    run(whole.path(), &config(40), &Samples::new(43, &[4, 7, 3]), 0.1, &mut straight).unwrap();
    let rates = |steps: &[flowmill_train::Progress]| steps.iter().map(|step| step.rate).collect::<Vec<_>>();
    assert_eq!(
        rates(&observer.steps),
        rates(&straight.steps[20..]),
        "from there on the rates are those of the new length"
    );
}

#[test]
fn an_interrupted_run_that_is_to_end_where_it_is_gets_its_last_checkpoint_validated() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &without_horizon(47), &hard_data(), 0.1, &mut Recorder::interrupting_after(22)).unwrap();
    let mut observer = Recorder::default();
    let (summary, _) = run(folder.path(), &without_horizon(22), &hard_data(), 0.1, &mut observer).unwrap();
    assert_eq!((summary.steps, summary.interrupted, observer.steps.len()), (22, false, 0));
    assert!(summary.validation.is_some() && observer.validations.len() == 1);
}

const CHILD_FOLDER: &str = "FLOWMILL_TRAIN_TEST_FOLDER";

/// The run of the killed child, slowed down so that a kill can happen anywhere.
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
    let rng_key = RngKey::new(seed).purpose("kill");
    let (mut kills, mut done) = (0, false);
    while !done {
        let arguments = ["--exact", "child", "--ignored", "--quiet"];
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments).env(CHILD_FOLDER, killed.path()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        // Later tries get more time, so that the run ends.
        let patience = 30 + 4 * kills + rng_key.below_at(kills, 120) as u64;
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
