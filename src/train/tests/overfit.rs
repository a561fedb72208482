//! Trying settings out on a few batches.

mod support;

use candle_core::{Device, Tensor};
use flowmill_nn::Parameters;
use flowmill_train::{Overfit, OverfitOptions, TrainError, overfit};
use support::{Recorder, Regression, Samples, config, network};

fn run(
    (task, mut parameters): (Regression, Parameters),
    batches: usize,
    steps: u64,
    observer: &mut Recorder,
) -> Result<Overfit, TrainError> {
    let mut config = config(3);
    config.optim.lr = 0.02;
    let options = OverfitOptions { batches, steps, enough: None };
    overfit(&task, &mut parameters, &Samples::new(40, &[4, 6]), &config, options, observer)
}

#[test]
fn the_loss_of_repeated_batches_falls_and_every_parameter_changes() {
    for batches in [1, 3] {
        let mut observer = Recorder::default();
        // With noise on the inputs: the loss can vanish only because the draws are repeated too.
        let made = run(network(0.3), batches, 400 * batches as u64, &mut observer).unwrap();
        assert!(made.fall() > 0.9, "{batches}: {made:?}");
        assert_eq!((made.batches, made.parameters, made.interrupted), (batches, 4, false));
        assert!(made.unchanged.is_empty(), "{:?}", made.unchanged);
        let losses: Vec<f64> = observer.steps.iter().map(|progress| progress.loss).collect();
        assert_eq!(made.first, losses[..batches].iter().sum::<f64>() / batches as f64);
        assert_eq!(made.last, losses[losses.len() - batches..].iter().sum::<f64>() / batches as f64);
        assert!(observer.steps.iter().all(|progress| progress.rate == 0.02), "no warm-up");
    }
}

#[test]
fn there_may_be_fewer_batches_than_wanted() {
    let made = run(network(0.0), 100, 16, &mut Recorder::default()).unwrap();
    assert_eq!((made.batches, made.steps), (8, 16));
}

#[test]
fn it_stops_when_the_loss_has_fallen_enough() {
    let (task, mut parameters) = network(0.3);
    let options = OverfitOptions { batches: 2, steps: 10_000, enough: Some(0.9) };
    let mut observer = Recorder::default();
    let made = overfit(&task, &mut parameters, &Samples::new(40, &[4, 6]), &config(3), options, &mut observer).unwrap();
    assert!(made.fall() >= 0.9 && made.steps < 10_000, "{made:?}");
    let losses: Vec<f64> = observer.steps.iter().map(|progress| progress.loss).collect();
    let before = (losses[losses.len() - 3] + losses[losses.len() - 2]) / (losses[0] + losses[1]);
    assert!(before > 0.1, "it could have stopped a step before: {before}");
}

#[test]
fn what_does_not_change_is_named() {
    let (task, mut parameters) = network(0.0);
    // Nothing arrives before it: squared units at zero have no slope.
    for name in ["hidden.weight", "hidden.bias"] {
        let id = parameters.find(name).unwrap();
        parameters.set(id, parameters.tensor(id).zeros_like().unwrap()).unwrap();
    }
    let mut observer = Recorder::default();
    let made = run((task, parameters), 1, 5, &mut observer).unwrap();
    assert_eq!(made.unchanged, ["hidden.weight", "hidden.bias", "output.weight"]);
    assert!(observer.messages.iter().any(|message| message.contains("hidden.weight")), "{:?}", observer.messages);
}

#[test]
fn a_loss_that_is_not_finite_and_a_parameter_without_a_gradient_are_errors() {
    let (task, mut parameters) = network(0.0);
    let huge = Tensor::full(1e30f32, (1, support::HIDDEN), &Device::Cpu).unwrap();
    parameters.set(parameters.find("output.weight").unwrap(), huge).unwrap();
    let error = run((task, parameters), 1, 5, &mut Recorder::default()).unwrap_err();
    assert!(matches!(error, TrainError::Coverage { .. } | TrainError::NotFinite { .. }), "{error}");

    let (task, mut parameters) = network(0.0);
    parameters.add("forgotten", Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
    let error = run((task, parameters), 1, 5, &mut Recorder::default()).unwrap_err();
    assert!(matches!(&error, TrainError::Coverage { missing, .. } if missing == &["forgotten"]), "{error}");
}
