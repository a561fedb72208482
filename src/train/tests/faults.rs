//! A disk that cannot be written, the best step, the time limit, validation that does not improve, and the replay of skipped steps.

mod support;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowmill_train::schedule::ScheduleName;
use flowmill_train::{
    BoxError, CheckpointStore, DataSource, Dump, DumpFault, EarlyStopping, Epochs, Interval, KeepConfig,
    ScheduleConfig, TrainConfig, TrainError, evaluate, replay,
};
use support::{FolderStore, Recorder, Samples, assert_same_tree, config, network, run, tree};

/// Error numbers of the system.
const EIO: i32 = 5;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;

/// A store on a disk that fails the given attempts to save.
struct Refusing {
    store: FolderStore,
    at: Vec<usize>,
    error: fn() -> BoxError,
    attempts: Cell<usize>,
}

impl Refusing {
    fn new(folder: &Path, at: &[usize], error: fn() -> BoxError) -> Self {
        Self { store: FolderStore(folder.join("checkpoints")), at: at.to_vec(), error, attempts: Cell::new(0) }
    }
}

impl CheckpointStore for Refusing {
    fn save(&self, name: &str, write: &mut dyn FnMut(&Path) -> Result<(), TrainError>) -> Result<(), TrainError> {
        self.attempts.set(self.attempts.get() + 1);
        if self.at.contains(&self.attempts.get()) {
            return Err(TrainError::Store { name: name.to_owned(), source: (self.error)() });
        }
        self.store.save(name, write)
    }

    fn list(&self) -> Result<Vec<String>, TrainError> {
        self.store.list()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.store.path(name)
    }

    fn remove(&self, name: &str) -> Result<(), TrainError> {
        self.store.remove(name)
    }

    fn set_aside(&self, name: &str) -> Result<PathBuf, TrainError> {
        self.store.set_aside(name)
    }
}

/// Trains with saves at steps 10, 20, 30 and 40 on such a disk.
fn on_such_a_disk(
    folder: &Path,
    at: &[usize],
    error: fn() -> BoxError,
) -> (Result<(), TrainError>, Recorder, Vec<String>) {
    let (task, mut parameters) = network(0.1);
    let (store, mut observer) = (Refusing::new(folder, at, error), Recorder::default());
    let data = Samples::new(43, &[4, 7, 3]);
    let saving = TrainConfig { validate_every: Interval::Steps(0), ..config(40) };
    let trained = flowmill_train::train(&task, &mut parameters, &data, &saving, folder, &store, &mut observer);
    let mut left = store.list().unwrap();
    left.retain(|name| !name.starts_with('.'));
    left.sort();
    (trained.map(drop), observer, left)
}

fn system<const NUMBER: i32>() -> BoxError {
    Box::new(std::io::Error::from_raw_os_error(NUMBER))
}

#[test]
fn a_disk_that_refuses_keeps_the_old_checkpoint_and_the_run_goes_on() {
    for error in [system::<ENOSPC>, system::<EIO>, system::<EROFS>] {
        let folder = tempfile::tempdir().unwrap();
        let (trained, observer, left) = on_such_a_disk(folder.path(), &[2, 3], error);
        trained.unwrap();
        assert_eq!(observer.steps.len(), 40);
        assert_eq!(left, ["step-000010", "step-000040"]);
        let cause = error().to_string();
        for lost in ["step-000020", "step-000030"] {
            let told = observer.messages.iter().filter(|text| text.contains(lost) && text.contains(&cause));
            assert_eq!(told.count(), 1, "{lost}, {cause}: {:?}", observer.messages);
        }
    }
}

#[test]
fn the_last_save_waits_whatever_the_system_says_and_tells_what_would_be_lost() {
    let expected = tempfile::tempdir().unwrap();
    on_such_a_disk(expected.path(), &[], system::<EIO>).0.unwrap();
    type Kind = (fn() -> BoxError, bool, bool);
    let errors: [Kind; 6] = [
        (system::<ENOSPC>, true, false),
        (system::<EDQUOT>, true, false),
        (system::<EIO>, false, false),
        (system::<EACCES>, false, true),
        (system::<1>, false, true),
        (system::<30>, false, true),
    ];
    for (error, full, forbidden) in errors {
        let folder = tempfile::tempdir().unwrap();
        let (trained, observer, left) = on_such_a_disk(folder.path(), &[4, 5], error);
        trained.unwrap();
        assert_eq!(left.last().map(String::as_str), Some("step-000040"), "{left:?}");
        assert_same_tree(expected.path(), folder.path());
        let told: Vec<&String> = observer.messages.iter().filter(|text| text.contains("steps 31 to 40")).collect();
        // The second attempt has nothing new to report.
        assert_eq!(told.len(), 1, "{:?}", observer.messages);
        let older = folder.path().join("checkpoints/step-000020");
        assert_eq!(told[0].contains(&older.display().to_string()), full, "what can be deleted is named: {}", told[0]);
        assert_eq!(told[0].contains("chown"), forbidden, "the right to write is asked for: {}", told[0]);
        let newest = folder.path().join("checkpoints/step-000030");
        assert!(!told[0].contains(&newest.display().to_string()), "but not what the run goes on from: {}", told[0]);
    }
}

#[test]
fn what_is_no_fault_of_the_system_stays_an_error() {
    let error = || BoxError::from("a weight of another kind");
    for (at, steps) in [(2, 20), (4, 40)] {
        let folder = tempfile::tempdir().unwrap();
        let (trained, observer, _) = on_such_a_disk(folder.path(), &[at], error);
        assert!(matches!(trained, Err(TrainError::Store { .. })), "{trained:?}");
        assert_eq!(observer.steps.len(), steps);
    }
}

#[test]
fn the_best_step_has_a_checkpoint_also_between_two_of_the_schedule() {
    let mut between = 0;
    for seed in 0..4 {
        let noisy = TrainConfig {
            seed,
            schedule: ScheduleConfig { name: ScheduleName::Constant, ..ScheduleConfig::default() },
            validate_every: Interval::Steps(3),
            save_every: Interval::Steps(20),
            keep: KeepConfig { last: 1, best: 1, every: 0 },
            ..config(60)
        };
        let (whole, pieces) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (data, mut observer) = (Samples::new(43, &[4, 7, 3]), Recorder::default());
        let (summary, _) = run(whole.path(), &noisy, &data, 0.5, &mut observer).unwrap();
        let best = summary.best.unwrap();
        let lowest = observer.validations.iter().map(|(_, loss)| *loss).fold(f64::INFINITY, f64::min);
        assert!((best.loss - lowest).abs() <= 1e-6 * lowest, "{best:?} {lowest}");
        let mut left = FolderStore(whole.path().join("checkpoints")).list().unwrap();
        left.sort();
        let mut expected = vec![format!("step-{:06}", best.step), "step-000060".to_owned()];
        expected.dedup();
        assert_eq!(left, expected);
        between += usize::from(!best.step.is_multiple_of(20));
        for piece in [5, 9, 2, 14, 1, 60] {
            run(pieces.path(), &noisy, &data, 0.5, &mut Recorder::interrupting_after(piece)).unwrap();
        }
        assert_same_tree(whole.path(), pieces.path());
        // With none to keep, only the schedule saves.
        let none = TrainConfig { keep: KeepConfig { last: 9, best: 0, every: 0 }, ..noisy };
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &none, &data, 0.5, &mut Recorder::default()).unwrap();
        assert_eq!(FolderStore(folder.path().join("checkpoints")).list().unwrap().len(), 3);
    }
    assert!(between > 0, "no seed was best between two checkpoints of the schedule: nothing was tested");
}

#[test]
fn when_the_time_is_over_it_saves_and_the_next_run_goes_on() {
    let (whole, timed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut data = Samples::new(43, &[4, 7, 3]);
    run(whole.path(), &config(60), &data, 0.1, &mut Recorder::default()).unwrap();
    data.delay = Duration::from_millis(80);
    let limited = TrainConfig { max_seconds: Some(1), ..config(60) };
    let mut observer = Recorder::default();
    let (summary, _) = run(timed.path(), &limited, &data, 0.1, &mut observer).unwrap();
    assert!(summary.interrupted && (1..60).contains(&summary.steps), "{summary:?}");
    assert!(observer.messages.iter().any(|text| text.contains("max_seconds")), "{:?}", observer.messages);
    data.delay = Duration::ZERO;
    let (summary, _) = run(timed.path(), &config(60), &data, 0.1, &mut Recorder::default()).unwrap();
    assert!(!summary.interrupted && summary.resumed_from.is_some());
    assert_same_tree(whole.path(), timed.path());
}

#[test]
fn validation_that_does_not_improve_ends_the_run_wherever_it_was_interrupted() {
    let rule = EarlyStopping { patience: 3, min_delta: 1e9 };
    let stopping = TrainConfig { early_stopping: Some(rule), ..config(100) };
    let (whole, pieces) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = Samples::new(43, &[4, 7, 3]);
    let mut observer = Recorder::default();
    let (summary, _) = run(whole.path(), &stopping, &data, 0.1, &mut observer).unwrap();
    // The first one, at step 4, is the best; 8, 10 (with a checkpoint) and 12 do not improve.
    assert_eq!((summary.steps, summary.stopped_early, summary.interrupted), (12, true, false));
    assert!(tree(whole.path()).contains_key(Path::new("checkpoints/step-000012/model.safetensors")));
    let metrics = std::fs::read_to_string(whole.path().join("metrics.jsonl")).unwrap();
    assert!(metrics.lines().any(|line| line.contains("\"step\":12") && line.contains("grad_norm")), "{metrics}");
    for piece in [3, 7, 1, 100] {
        run(pieces.path(), &stopping, &data, 0.1, &mut Recorder::interrupting_after(piece)).unwrap();
    }
    assert_same_tree(whole.path(), pieces.path());
    let before = tree(whole.path());
    let mut again = Recorder::default();
    run(whole.path(), &stopping, &data, 0.1, &mut again).unwrap();
    assert!(again.steps.is_empty() && before == tree(whole.path()), "what has ended stays ended");

    // A rule that waits longer continues it, with the result of that rule from the start.
    let longer = TrainConfig { early_stopping: Some(EarlyStopping { patience: 8, min_delta: 1e9 }), ..config(100) };
    let (from_start, _) = run(pieces.path(), &longer, &data, 0.1, &mut Recorder::default()).unwrap();
    assert!(from_start.stopped_early && from_start.steps > 12, "{from_start:?}");
    let open = TrainConfig { early_stopping: None, ..config(40) };
    let (summary, _) = run(whole.path(), &open, &data, 0.1, &mut Recorder::default()).unwrap();
    assert_eq!((summary.steps, summary.stopped_early, summary.resumed_from), (40, false, Some(12)));
}

#[test]
fn validating_and_saving_by_epochs_happens_where_they_end() {
    let every = |epochs| Interval::Epochs(Epochs { epochs });
    let by_epoch = TrainConfig {
        max_steps: None,
        max_epochs: Some(4),
        accum_grad: 2,
        save_every: every(2),
        validate_every: every(1),
        ..config(1)
    };
    let folder = tempfile::tempdir().unwrap();
    let (data, mut observer) = (Samples::new(43, &[4, 7, 3]), Recorder::default());
    run(folder.path(), &by_epoch, &data, 0.1, &mut observer).unwrap();
    let steps_per_epoch = data.batches(0).unwrap().len().div_ceil(2) as u64;
    let validated: Vec<u64> = observer.validations.iter().map(|(step, _)| *step / steps_per_epoch).collect();
    assert_eq!(validated, [1, 2, 3, 4]);
    assert!(observer.validations.iter().all(|(step, _)| step.is_multiple_of(steps_per_epoch)));
    let mut saved = FolderStore(folder.path().join("checkpoints")).list().unwrap();
    saved.sort();
    assert_eq!(saved, [2, 4].map(|epochs| format!("step-{:06}", epochs * steps_per_epoch)));
}

/// Data of which one item, not in the first batches, has no finite target; a run over them, and its dump.
fn with_a_dump(folder: &Path, config: &TrainConfig) -> (Samples, PathBuf) {
    let mut data = Samples::new(40, &[5]);
    data.poison = Some(data.batches(0).unwrap()[3][2]);
    run(folder, config, &data, 0.1, &mut Recorder::default()).unwrap();
    (data, folder.join("skipped/step-000002.json"))
}

#[test]
fn a_skipped_step_is_replayed_figure_by_figure() {
    let accumulating = TrainConfig { accum_grad: 2, ..config(4) };
    let folder = tempfile::tempdir().unwrap();
    let (mut data, dump) = with_a_dump(folder.path(), &accumulating);
    let before = tree(folder.path());
    let again = |data: &Samples, config: &TrainConfig| {
        let (task, mut parameters) = network(0.1);
        replay(&task, &mut parameters, data, config, &dump)
    };
    let replayed = again(&data, &accumulating).unwrap();
    assert!(replayed.is_equal() && replayed.same_run);
    assert_eq!(replayed.batches.len(), 2);
    assert!(replayed.batches[0].loss.0.is_finite() && replayed.batches[1].loss.0.is_nan());
    assert!(before == tree(folder.path()), "nothing is written");

    data.poison = None;
    let healed = again(&data, &accumulating).unwrap();
    assert!(!healed.is_equal(), "other figures are told apart");
    assert_eq!(healed.batches[0], replayed.batches[0], "the first batch had no part in it");
    assert!(!again(&data, &TrainConfig { ema_decay: Some(0.9), ..accumulating.clone() }).unwrap().same_run);
    let refused = |data: &Samples| match again(data, &accumulating).unwrap_err() {
        TrainError::Dump { path, fault } if path == dump => fault,
        other => panic!("{other}"),
    };
    let other = refused(&Samples::new(41, &[5]));
    assert!(matches!(other, DumpFault::OtherUtterances { epoch: 0, .. }), "{other}");
    let weights = dump.with_file_name(Dump::read(&dump).unwrap().weights.unwrap().file);
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let file = weights.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(refused(&data), DumpFault::Checksum { file: file.clone() });
    std::fs::remove_file(weights).unwrap();
    assert_eq!(refused(&data), DumpFault::WeightsGone { file });
}

#[test]
fn only_the_newest_weights_stay_beside_the_dumps() {
    let mut data = Samples::new(40, &[5]);
    let first = data.batches(0).unwrap()[3][2];
    data.poison = Some(first);
    // Five epochs of eight steps: the item comes once in each.
    let left = |keep| {
        let folder = tempfile::tempdir().unwrap();
        let keeping = TrainConfig { skipped_weights: keep, ..config(40) };
        run(folder.path(), &keeping, &data, 0.1, &mut Recorder::default()).unwrap();
        let names = tree(folder.path()).into_keys().filter(|path| path.starts_with("skipped"));
        let (weights, dumps): (Vec<PathBuf>, Vec<PathBuf>) =
            names.partition(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
        let newest = dumps.last().map(|path| Dump::read(&folder.path().join(path)).unwrap()).unwrap();
        (weights, dumps.len(), newest)
    };
    let (weights, dumps, newest) = left(2);
    assert_eq!((weights.len(), dumps), (2, 5));
    let named = newest.weights.unwrap().file;
    assert!(weights[1].ends_with(&named), "{weights:?} {named}");
    assert_eq!(named, format!("weights-{:06}.safetensors", newest.step - 1));
    let (weights, dumps, newest) = left(0);
    assert_eq!((weights.len(), dumps, newest.weights), (0, 5, None));
}

#[test]
fn a_checkpoint_is_evaluated_as_training_validated_it() {
    let folder = tempfile::tempdir().unwrap();
    let averaging = TrainConfig { ema_decay: Some(0.9), ..config(30) };
    let (data, mut observer) = (Samples::new(43, &[4, 7, 3]), Recorder::default());
    run(folder.path(), &averaging, &data, 0.1, &mut observer).unwrap();
    let checkpoints = |steps: &[u64]| -> Vec<PathBuf> {
        steps.iter().map(|step| folder.path().join(format!("checkpoints/step-{step:06}"))).collect()
    };
    let evaluated = |folders: &[PathBuf], observer: &mut Recorder| {
        let (task, mut parameters) = network(0.1);
        let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        evaluate(&task, &mut parameters, &data, &folders, observer)
    };
    let before = tree(folder.path());
    let newest = evaluated(&checkpoints(&[20, 30]), &mut Recorder::default()).unwrap();
    assert_eq!((newest.step, newest.averaged), (30, true));
    assert_eq!(Some(newest.means.loss), observer.validations.last().map(|(_, loss)| *loss));
    assert!(before == tree(folder.path()), "nothing is written");

    std::fs::write(checkpoints(&[30])[0].join("model.safetensors"), "damaged").unwrap();
    let mut told = Recorder::default();
    let older = evaluated(&checkpoints(&[20, 30]), &mut told).unwrap();
    assert_eq!(older.step, 20);
    assert!(told.messages[0].contains("WARNING") && told.messages[0].contains("step-000030"), "{:?}", told.messages);
    let none = evaluated(&[], &mut Recorder::default()).unwrap_err();
    assert!(matches!(none, TrainError::NoCheckpoint));
}
