//! The memory plan: the choice of the largest batch, extrapolation from a part of it that would not fit, and that nothing is written.

mod support;

use flowmill_train::{BatchCost, DataSource, MemoryPlan, Source, TrainConfig, TrainError, plan_memory};
use support::{Recorder, Samples, config, network};

fn plan(data: &Samples, config: &TrainConfig, usable: Option<u64>) -> (MemoryPlan, Vec<String>) {
    let (task, mut parameters) = network(0.0);
    let mut observer = Recorder::default();
    let plan = plan_memory(&task, &mut parameters, data, config, usable, &mut observer).unwrap();
    (plan, observer.messages)
}

#[test]
fn the_largest_batch_of_all_epochs_that_the_run_reaches_is_run() {
    // Batches of 3, 4 and 9 in turn: the third is the largest.
    let data = Samples::new(32, &[3, 4, 9]);
    let (found, messages) = plan(&data, &config(100), None);
    let cost = BatchCost { valid: 9, padded: 9, unit: "items" };
    assert_eq!((found.batch.index, found.batch.items, found.batch.cost), (2, 9, cost));
    assert_eq!(found.batch.epochs, 100_u64.div_ceil(data.batches(0).unwrap().len() as u64));
    assert_eq!(found.source, Source::Measured);
    assert!(messages.iter().any(|text| text.contains("2 of epoch 0") && text.contains("9 utterances")), "{messages:?}");
    let (found, _) = plan(&data, &config(2), None);
    assert_eq!((found.batch.index, found.batch.items), (1, 4), "two steps do not reach the third batch");
    let accumulated = TrainConfig { accum_grad: 2, ..config(2) };
    let (found, _) = plan(&data, &accumulated, None);
    assert_eq!(found.batch.items, 9, "two steps of two batches do");
}

#[test]
fn kinds_have_their_sizes_and_add_up() {
    let data = Samples::new(32, &[8]);
    let all =
        TrainConfig { accum_grad: 2, ema_decay: Some(0.9), precision: flowmill_nn::Precision::Bf16, ..config(10) };
    let (found, _) = plan(&data, &all, Some(u64::MAX));
    let size = |kind: &str| found.kinds.iter().find(|(name, _)| *name == kind).unwrap().1;
    let weights = 4 * network(0.0).1.element_count(false) as u64;
    assert_eq!((size("weights"), size("rounded weights"), size("moving average")), (weights, weights, weights));
    assert_eq!((size("gradients"), size("optimizer state")), (weights, 2 * weights));
    assert_eq!(found.kinds.iter().map(|(_, bytes)| bytes).sum::<u64>(), found.peak);
}

#[test]
fn what_would_not_fit_is_estimated_from_a_part() {
    for sizes in [&[16][..], &[1]] {
        let (found, _) = plan(&Samples::new(32, sizes), &config(10), Some(1 << 20));
        assert_eq!(found.source, Source::Estimated, "a megabyte is too little for any program");
        assert!(found.peak > 1 << 20);
    }
}

#[test]
fn what_cannot_be_trained_cannot_be_planned() {
    let (task, mut parameters) = network(0.0);
    let wrong = TrainConfig { log_every: 0, ..config(3) };
    let error = plan_memory(&task, &mut parameters, &Samples::new(9, &[3]), &wrong, None, &mut Recorder::default());
    assert!(matches!(error, Err(TrainError::Config { key: "log_every", .. })));
}
