//! Training on several ranks, here as threads: the same training whatever their number.

mod support;

use std::path::Path;

use flowmill_collective::{Collective, threads};
use flowmill_train::optimizer::OptimizerName;
use flowmill_train::{DataSource, Summary, TrainConfig, TrainError};
use support::{FolderStore, OPTIMIZERS, Recorder, Samples, assert_same_tree, config, network, run, weights};

type Weights = std::collections::BTreeMap<String, Vec<f32>>;
/// The result of a training, with the weights of rank 0.
type Trained = Result<(Summary, Weights), TrainError>;

/// Trains on `size` ranks; returns the results of rank 0, what it observed, and the errors of the others.
fn run_on(
    size: usize,
    folder: &Path,
    config: &TrainConfig,
    data: &Samples,
    noise: f32,
    mut observer: Recorder,
) -> (Trained, Recorder, Vec<Option<TrainError>>) {
    std::thread::scope(|scope| {
        let mut ranks = threads::group(size).into_iter();
        let first = ranks.next().unwrap();
        let others: Vec<_> = ranks
            .map(|rank| {
                scope.spawn(move || {
                    // Other weights, which those of rank 0 replace.
                    let (task, mut parameters) = network(noise);
                    let id = parameters.find("output.bias").unwrap();
                    let zero = parameters.tensor(id).zeros_like().unwrap();
                    parameters.set(id, zero).unwrap();
                    let followed = flowmill_train::follow(&task, &mut parameters, data, config, &rank);
                    followed.map(|()| weights(&parameters))
                })
            })
            .collect();
        let (task, mut parameters) = network(noise);
        let store = FolderStore(folder.join("checkpoints"));
        let place = (folder, &store as &dyn flowmill_train::CheckpointStore);
        let trained = flowmill_train::train_with(&task, &mut parameters, data, config, place, &mut observer, &first);
        let own = weights(&parameters);
        let others: Vec<_> = others.into_iter().map(|thread| thread.join().unwrap()).collect();
        if trained.is_ok() {
            for other in others.iter().flatten() {
                assert!(*other == own, "all ranks have the same weights, bit for bit");
            }
        }
        assert_eq!(first.size(), size);
        (trained.map(|summary| (summary, own)), observer, others.into_iter().map(Result::err).collect())
    })
}

fn weights_of(size: usize, config: &TrainConfig, data: &Samples, noise: f32) -> Weights {
    let folder = tempfile::tempdir().unwrap();
    run_on(size, folder.path(), config, data, noise, Recorder::default()).0.unwrap().1
}

/// The largest difference relative to the largest weight.
fn distance(one: &Weights, other: &Weights) -> f32 {
    let values = |weights: &Weights| weights.values().flatten().copied().collect::<Vec<f32>>();
    let (one, other) = (values(one), values(other));
    let largest = one.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    one.iter().zip(&other).fold(0f32, |most, (one, other)| most.max((one - other).abs())) / largest
}

#[test]
fn any_number_of_ranks_trains_the_same_model_within_rounding() {
    let data = Samples::new(46, &[7, 3, 5, 1]);
    for accum_grad in [1, 2, 3, 4, 6] {
        let config = TrainConfig { accum_grad, ema_decay: Some(0.9), ..config(24) };
        let alone = weights_of(1, &config, &data, 0.0);
        for size in 2..=4 {
            let found = distance(&alone, &weights_of(size, &config, &data, 0.0));
            assert!(found < 2e-6, "{accum_grad} batches, {size} ranks: {found}");
        }
    }
}

#[test]
fn whole_batches_keep_their_random_draws() {
    let (data, config) = (Samples::new(46, &[7, 3, 5]), TrainConfig { accum_grad: 4, ..config(24) });
    let alone = weights_of(1, &config, &data, 0.3);
    assert!(distance(&alone, &weights_of(1, &config, &data, 0.0)) > 1e-3, "the draws matter");
    for size in [2, 4] {
        let found = distance(&alone, &weights_of(size, &config, &data, 0.3));
        assert!(found < 2e-6, "{size} ranks: {found}");
    }
}

#[test]
fn every_optimizer_works_on_ranks() {
    let data = Samples::new(46, &[7, 3]);
    for name in OPTIMIZERS {
        let mut config = TrainConfig { accum_grad: 2, ..config(12) };
        config.optim.name = name;
        config.optim.lr = if name == OptimizerName::Prodigy { 1.0 } else { 0.02 };
        let found = distance(&weights_of(1, &config, &data, 0.0), &weights_of(2, &config, &data, 0.0));
        assert!(found < 1e-4, "{name:?}: {found}");
    }
}

#[test]
fn one_rank_writes_what_training_without_ranks_writes() {
    let (data, config) = (Samples::new(30, &[4, 7]), config(23));
    let (plain, ranks) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(plain.path(), &config, &data, 0.2, &mut Recorder::default()).unwrap();
    run_on(1, ranks.path(), &config, &data, 0.2, Recorder::default()).0.unwrap();
    assert_same_tree(plain.path(), ranks.path());
}

#[test]
fn two_runs_write_the_same_bytes_also_when_one_is_interrupted() {
    let (data, config) = (Samples::new(30, &[4, 7, 3]), TrainConfig { accum_grad: 3, ..config(23) });
    for size in [2, 3] {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run_on(size, one.path(), &config, &data, 0.2, Recorder::default()).0.unwrap();
        for steps in [3, 9, 1] {
            let observer = Recorder::interrupting_after(steps);
            let (trained, _, errors) = run_on(size, two.path(), &config, &data, 0.2, observer);
            assert!(trained.unwrap().0.interrupted && errors.iter().all(Option::is_none));
        }
        let (trained, ..) = run_on(size, two.path(), &config, &data, 0.2, Recorder::default());
        assert_eq!(trained.unwrap().0.resumed_from, Some(13));
        assert_same_tree(one.path(), two.path());
    }
}

#[test]
fn a_checkpoint_of_any_number_of_ranks_continues_on_any_other() {
    let data = Samples::new(46, &[7, 3, 5]);
    let config = TrainConfig { accum_grad: 4, ema_decay: Some(0.9), ..config(24) };
    let alone = weights_of(1, &config, &data, 0.2);
    for before in 1..=4 {
        for after in 1..=4 {
            let folder = tempfile::tempdir().unwrap();
            let observer = Recorder::interrupting_after(11);
            // Whole batches, so that the draws are the same.
            let noise = if before == 3 || after == 3 { 0.0 } else { 0.2 };
            let expected = if noise == 0.0 { weights_of(1, &config, &data, noise) } else { alone.clone() };
            run_on(before, folder.path(), &config, &data, noise, observer).0.unwrap();
            let resumed = run_on(after, folder.path(), &config, &data, noise, Recorder::default()).0.unwrap();
            assert_eq!(resumed.0.resumed_from, Some(11));
            let found = distance(&expected, &resumed.1);
            assert!(found < 2e-6, "{before} ranks, then {after}: {found}");
        }
    }
}

#[test]
fn metrics_and_validation_are_those_of_one_rank() {
    let (data, config) = (Samples::new(46, &[7, 3]), TrainConfig { accum_grad: 2, ..config(12) });
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let one = run_on(1, folders[0].path(), &config, &data, 0.0, Recorder::default()).1;
    let two = run_on(2, folders[1].path(), &config, &data, 0.0, Recorder::default()).1;
    assert_eq!(one.steps.len(), two.steps.len());
    let near = |a: f64, b: f64| (a - b).abs() < 1e-5 * a.abs().max(1e-3);
    for (one, two) in one.steps.iter().zip(&two.steps) {
        assert!(near(one.loss, two.loss) && near(one.grad_norm, two.grad_norm), "{one:?} {two:?}");
        assert_eq!((one.step, one.epoch, one.weight, one.items), (two.step, two.epoch, two.weight, two.items));
        assert_eq!(one.parts[0].0, two.parts[0].0);
    }
    assert_eq!(one.steps[0].loss.to_bits(), two.steps[0].loss.to_bits(), "the same weights and the same order");
    assert_eq!(one.validations.len(), two.validations.len());
    assert!(one.validations.iter().zip(&two.validations).all(|(one, two)| one.0 == two.0 && near(one.1, two.1)));
}

#[test]
fn a_step_that_is_not_finite_on_one_rank_is_skipped_on_all() {
    let mut data = Samples::new(40, &[4, 4]);
    // Not in the first step, which must be sound.
    data.poison = Some(data.batches(0).unwrap()[2][0]);
    let config = TrainConfig { accum_grad: 2, max_steps: Some(5), ..config(5) };
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let one = run_on(1, folders[0].path(), &config, &data, 0.0, Recorder::default()).0.unwrap();
    let two = run_on(2, folders[1].path(), &config, &data, 0.0, Recorder::default()).0.unwrap();
    assert_eq!((one.0.skipped, two.0.skipped), (1, 1));
    assert!(distance(&one.1, &two.1) < 2e-6);
    let dump = |folder: &Path| {
        let dump = flowmill_train::Dump::read(&folder.join("skipped/step-000002.json")).unwrap();
        let batches: Vec<_> = dump.batches.into_iter().map(|batch| (batch.index, batch.ids)).collect();
        (dump.step, dump.epoch, batches)
    };
    assert_eq!(dump(folders[0].path()), dump(folders[1].path()), "the dump has the batches of all ranks");
}

#[test]
fn a_run_that_diverges_ends_on_all_ranks_with_its_own_error() {
    let mut data = Samples::new(18, &[18]);
    data.poison = Some(17);
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { max_skipped_in_a_row: 2, ..config(15) };
    let (trained, _, errors) = run_on(2, folder.path(), &config, &data, 0.0, Recorder::default());
    assert!(matches!(trained, Err(TrainError::Coverage { .. } | TrainError::Diverged { .. })), "{trained:?}");
    assert!(matches!(errors[0], Some(TrainError::OtherRank { rank: 0, .. })), "{errors:?}");
}

#[test]
fn the_error_of_one_rank_ends_all_with_its_number() {
    let data = Samples::new(40, &[4, 4]);
    let config = TrainConfig { accum_grad: 2, ..config(15) };
    let folder = tempfile::tempdir().unwrap();
    // Rank 1 has other data.
    let mut other = Samples::new(40, &[4, 4]);
    other.seed = 10;
    let (leader, follower) = std::thread::scope(|scope| {
        let mut ranks = threads::group(2).into_iter();
        let (first, second) = (ranks.next().unwrap(), ranks.next().unwrap());
        let (config, other) = (&config, &other);
        let follower = scope.spawn(move || {
            let (task, mut parameters) = network(0.0);
            flowmill_train::follow(&task, &mut parameters, other, config, &second)
        });
        let (task, mut parameters) = network(0.0);
        let store = FolderStore(folder.path().join("checkpoints"));
        let place = (folder.path(), &store as &dyn flowmill_train::CheckpointStore);
        let mut observer = Recorder::default();
        let trained = flowmill_train::train_with(&task, &mut parameters, &data, config, place, &mut observer, &first);
        (trained, follower.join().unwrap())
    });
    assert!(matches!(leader, Err(TrainError::OtherRank { rank: 1, .. })), "{leader:?}");
    assert!(matches!(follower, Err(TrainError::OtherRank { rank: 1, .. })), "{follower:?}");
}

#[test]
fn a_rank_that_cannot_join_ends_the_training_with_its_reason() {
    let (data, config, folder) = (Samples::new(40, &[4]), config(5), tempfile::tempdir().unwrap());
    let trained = std::thread::scope(|scope| {
        let mut ranks = threads::group(2).into_iter();
        let (first, second) = (ranks.next().unwrap(), ranks.next().unwrap());
        scope.spawn(move || flowmill_train::cannot_follow(&second, "no recipe"));
        let (task, mut parameters) = network(0.0);
        let store = FolderStore(folder.path().join("checkpoints"));
        let place = (folder.path(), &store as &dyn flowmill_train::CheckpointStore);
        flowmill_train::train_with(&task, &mut parameters, &data, &config, place, &mut Recorder::default(), &first)
    });
    let Err(TrainError::OtherRank { rank, message }) = trained else { panic!("{trained:?}") };
    assert_eq!((rank, &*message), (1, "no recipe"));
}
