//! What is settled before the first step.

use flowmill_nn::Parameters;

use crate::{DataSource, TrainConfig, TrainError, loader};

/// Steps of the whole run, counted on the data's own batches.
pub(crate) fn steps<D: DataSource>(data: &D, config: &TrainConfig) -> Result<u64, TrainError> {
    let limit = config.max_steps.unwrap_or(u64::MAX);
    let Some(epochs) = config.max_epochs else {
        return Ok(limit);
    };
    let mut steps = 0;
    for epoch in 0..epochs {
        if steps >= limit {
            break;
        }
        steps += loader::plan(data, epoch)?.len().div_ceil(config.accum_grad) as u64;
    }
    Ok(steps.min(limit))
}

/// Gives every trainable parameter memory of its own, which updates then change in place.
pub(crate) fn own_weights(parameters: &mut Parameters) -> Result<(), TrainError> {
    for id in parameters.trainable_ids().collect::<Vec<_>>() {
        let copied = parameters.tensor(id).copy().map_err(Into::into).and_then(|copy| parameters.set(id, copy));
        copied.map_err(TrainError::tensor(format!("preparing {}", parameters.name(id))))?;
    }
    Ok(())
}

/// What a checkpoint must have been made with to be continued: settings, and names, shapes and trainability of parameters.
/// How far loading runs ahead and what is computed twice change nothing and may differ.
pub(crate) fn identity(config: &TrainConfig, parameters: &Parameters) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(
        format!("{:?}", TrainConfig { prefetch: 0, gradient_checkpointing: false, ..config.clone() }).as_bytes(),
    );
    for id in parameters.ids() {
        let (name, dims) = (parameters.name(id), parameters.tensor(id).dims());
        hasher.update(format!("\n{name} {dims:?} {}", parameters.trainable(id)).as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
