//! Replay of a skipped step from its dump.

use std::collections::BTreeMap;
use std::path::Path;

use flowmill_nn::Parameters;

use crate::identity::Identity;
use crate::optimizer::{freeze, gradient_norms};
use crate::skipped::{Dump, DumpedBatch, Figure, describe, hexadecimal_checksum, named_norms};
use crate::{DataSource, DumpFault, Task, TrainConfig, TrainError, loader, pass};

/// A replayed step.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// The dump of the step.
    pub dump: Dump,
    /// The batches with their losses now.
    pub batches: Vec<DumpedBatch>,
    /// Norm of the whole gradient now.
    pub gradient_norm: Figure,
    /// Norms of the parameters' gradients now.
    pub gradient_norms: BTreeMap<String, Option<Figure>>,
    /// True if the settings and the model are those of the dumped run.
    pub same_run: bool,
}

impl Replay {
    /// Returns whether every figure equals the one in the dump.
    pub fn is_equal(&self) -> bool {
        self.batches == self.dump.batches
            && self.gradient_norm == self.dump.gradient_norm
            && self.gradient_norms == self.dump.gradient_norms
    }
}

/// Replays the step of a dump: the same batches, with the same draws, on the weights next to the dump. Nothing is written;
/// `parameters` are those weights afterwards.
///
/// # Errors
/// When the dump or its weights cannot be read or are damaged, or the data now have other batches.
pub fn replay<T, D>(
    task: &T,
    parameters: &mut Parameters,
    data: &D,
    config: &TrainConfig,
    path: &Path,
) -> Result<Replay, TrainError>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    config.check()?;
    freeze(&config.optim, parameters)?;
    let dump = Dump::read(path)?;
    load_weights(&dump, path, parameters)?;
    let plan = loader::plan(data, dump.epoch)?;
    let mut batches = Vec::new();
    for wanted in &dump.batches {
        let items = usize::try_from(wanted.index).ok().and_then(|index| plan.get(index)).cloned().unwrap_or_default();
        let ids: Vec<&str> = items.iter().map(|&item| data.id(item)).collect();
        if ids != wanted.ids {
            let fault = DumpFault::OtherUtterances { index: wanted.index, epoch: dump.epoch };
            return Err(TrainError::Dump { path: path.to_owned(), fault });
        }
        batches.push(loader::load(data, dump.seed, (dump.epoch, wanted.index), &items)?);
    }
    let as_then = TrainConfig { seed: dump.seed, ..config.clone() };
    let pass = pass::forward_backward(task, parameters, &as_then, dump.loss_scale, &batches)?;
    let norms = gradient_norms(parameters, &pass.gradients, 1.0 / pass.divisor)?;
    Ok(Replay {
        batches: describe(data, batches.iter().map(|batch| (batch.index, &*batch.items)), &pass.losses),
        gradient_norm: Figure::new(norms.total),
        gradient_norms: named_norms(&norms, parameters),
        same_run: dump.run == Identity::of(config, parameters).hash(),
        dump,
    })
}

/// Sets the parameters to the weights next to the dump.
fn load_weights(dump: &Dump, path: &Path, parameters: &mut Parameters) -> Result<(), TrainError> {
    let refuse = |fault| TrainError::Dump { path: path.to_owned(), fault };
    let Some(kept) = &dump.weights else { return Err(refuse(DumpFault::NoWeights)) };
    let file = path.with_file_name(&kept.file);
    if kept.file.contains('/') || !file.exists() {
        return Err(refuse(DumpFault::WeightsGone { file: kept.file.clone() }));
    }
    if hexadecimal_checksum(&file)? != kept.blake3 {
        return Err(refuse(DumpFault::Checksum { file: kept.file.clone() }));
    }
    let read = flowmill_weights::read(&file).map_err(TrainError::weights(format!("reading {}", file.display())))?;
    let report = parameters.load(&read.tensors).map_err(TrainError::tensor("setting the weights"))?;
    if report.is_exact() { Ok(()) } else { Err(refuse(DumpFault::OtherModel { report: report.to_string() })) }
}
