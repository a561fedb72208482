//! Preparations before the first step.

use flowmill_nn::Parameters;

use crate::ema::Ema;
use crate::optimizer::{self, Optimizer};
use crate::ranks::{self, Ranks};
use crate::schedule::{Horizon, Per};
use crate::{DataSource, TrainConfig, TrainError, loader};

/// Returns the length of the whole run, counted on the data's own batches; `known` is the number of steps, if it was counted before.
pub(crate) fn horizon<D: DataSource>(
    data: &D,
    config: &TrainConfig,
    known: Option<u64>,
) -> Result<Horizon, TrainError> {
    let limit = config.max_steps.unwrap_or(u64::MAX);
    let steps = known.or_else(|| config.max_epochs.is_none().then_some(limit));
    if let (Some(steps), Per::Step) = (steps, config.schedule.per) {
        // The number of passes is not used, and planning all of them would take time.
        return Ok(Horizon { steps, epochs: 0 });
    }
    let mut horizon = Horizon { steps: 0, epochs: 0 };
    while horizon.steps < limit && config.max_epochs.is_none_or(|epochs| horizon.epochs < epochs) {
        horizon.steps += loader::plan(data, horizon.epochs)?.len().div_ceil(config.accum_grad) as u64;
        horizon.epochs += 1;
    }
    Ok(Horizon { steps: horizon.steps.min(limit), ..horizon })
}

/// Gives every trainable parameter its own memory, which updates then change in place.
pub(crate) fn own_weights(parameters: &mut Parameters) -> Result<(), TrainError> {
    for id in parameters.trainable_ids().collect::<Vec<_>>() {
        let copied = parameters.tensor(id).copy().map_err(Into::into).and_then(|copy| parameters.set(id, copy));
        copied.map_err(TrainError::tensor(format!("preparing {}", parameters.name(id))))?;
    }
    Ok(())
}

/// Prepares parameters that are trained: freezes those that the settings freeze, gives the others their own memory, and builds the
/// optimizer of this rank and the moving average.
pub(crate) fn trained<'a>(
    config: &TrainConfig,
    parameters: &mut Parameters,
    ranks: Ranks<'a>,
) -> Result<(Box<dyn Optimizer + 'a>, Option<Ema>), TrainError> {
    optimizer::freeze(&config.optim, parameters)?;
    own_weights(parameters)?;
    let optimizer = ranks::build(config, parameters, ranks)?;
    let ema = config.ema_decay.map(|decay| Ema::new(decay, parameters)).transpose()?;
    Ok((optimizer, ema))
}

/// Fails if early stopping is set but validation loss is never measured.
pub(crate) fn check_validation<D: DataSource>(data: &D, config: &TrainConfig) -> Result<(), TrainError> {
    if config.early_stopping.is_some() && data.validation().is_empty() {
        let reason = "needs a validation split with utterances, because it uses the validation loss".to_owned();
        return Err(TrainError::Config { key: "early_stopping", reason });
    }
    Ok(())
}
