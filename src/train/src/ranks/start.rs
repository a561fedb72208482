//! The common start of all ranks: rank 0 gives the others its place in the run and its weights.

use std::collections::BTreeMap;

use candle_core::Tensor;
use flowmill_nn::{NnError, ParameterId, Parameters, host};
use serde::{Deserialize, Serialize};

use super::Ranks;
use crate::ema::Ema;
use crate::loader;
use crate::optimizer::Optimizer;
use crate::{DataSource, TrainError};

/// The description of a training on one rank: the parts that all ranks must agree on, and those that rank 0 gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Start {
    /// Passes over the data done, and batches of the next pass.
    position: (u64, u64),
    /// Updates that the optimizer has done.
    updates: u64,
    /// Names and shapes of the optimizer's state that rank 0 gives.
    state: Vec<(String, Vec<usize>)>,
    /// Digest of the order of the first epoch to come.
    data: String,
    /// Names and sizes of the parameters, and how many of them are trained.
    parameters: String,
}

/// The parts of a training that change.
pub(crate) struct Changing<'a> {
    pub(crate) parameters: &'a mut Parameters,
    pub(crate) optimizer: &'a mut dyn Optimizer,
    pub(crate) ema: Option<&'a mut Ema>,
    /// The whole state of the optimizer, if that of rank 0 is only a part of it: of the checkpoint that it has resumed from, or nothing.
    pub(crate) stored: Option<Vec<(String, Tensor)>>,
}

/// Begins on all ranks: checks that they have the same data and the same model, and gives all the weights, averages and optimizer state
/// of rank 0. `position` is that of rank 0, which is returned on all; the others may give any.
pub(crate) fn begin<D: DataSource>(
    changing: Changing<'_>,
    data: &D,
    position: (u64, u64),
    ranks: Ranks<'_>,
) -> Result<(u64, u64), TrainError> {
    if ranks.is_alone() {
        return Ok(position);
    }
    let Changing { parameters, optimizer, ema, stored } = changing;
    let state = stored.unwrap_or_else(|| optimizer.state());
    let own = Start {
        position,
        updates: optimizer.updates(),
        state: state.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect(),
        data: digest(data)?,
        parameters: described(parameters),
    };
    let all = ranks.exchange(&own)?;
    let Some(first) = all.first() else { return Ok(position) };
    for (rank, other) in all.iter().enumerate() {
        let differs = match other {
            _ if other.data != first.data => "other training data",
            _ if other.parameters != first.parameters => "another model",
            _ => continue,
        };
        let message = format!("it has {differs} than rank 0: all ranks must read the same recipe and the same files");
        return Err(TrainError::OtherRank { rank, message });
    }
    // Frozen weights too: those of a resumed run come from its checkpoint.
    let all = parameters.ids().filter(|id| !parameters.is_mapped(*id)).collect();
    spread(parameters, all, ranks)?;
    if let Some(ema) = ema {
        // The averages travel in the place of the weights.
        ema.swap(parameters)?;
        let trained = parameters.trainable_ids().collect();
        spread(parameters, trained, ranks)?;
        ema.swap(parameters)?;
    }
    if first.updates > 0 || !first.state.is_empty() {
        give_state(optimizer, first, state, ranks)?;
    }
    Ok(first.position)
}

/// Gives all ranks what they need of the optimizer's state of rank 0.
fn give_state(
    optimizer: &mut dyn Optimizer,
    first: &Start,
    state: Vec<(String, Tensor)>,
    ranks: Ranks<'_>,
) -> Result<(), TrainError> {
    let leads = ranks.engine.rank() == 0;
    let own: BTreeMap<String, Tensor> = optimizer.state().into_iter().collect();
    let (mut given, mut stored) = (state.into_iter(), BTreeMap::new());
    for (name, dims) in &first.state {
        let what = format!("copying {name} to all ranks");
        let of_leader = given.next();
        let values = ranks.elements_of(0, of_leader.as_ref().map(|(_, tensor)| tensor), dims, &what)?;
        if let Some(present) = own.get(name).filter(|_| !leads) {
            let tensor = host::tensor(values, dims).and_then(|tensor| Ok(tensor.to_device(present.device())?));
            stored.insert(name.clone(), tensor.map_err(|error: NnError| TrainError::tensor(what)(error))?);
        }
    }
    if leads {
        return Ok(());
    }
    optimizer
        .restore(first.updates, &mut stored)
        .map_err(|reason| TrainError::OtherRank { rank: 0, message: format!("its optimizer is another one: {reason}") })
}

/// Gives all ranks these weights of rank 0.
fn spread(parameters: &mut Parameters, which: Vec<ParameterId>, ranks: Ranks<'_>) -> Result<(), TrainError> {
    for id in which {
        let what = format!("copying {} to all ranks", parameters.name(id));
        let copied = copied(parameters.tensor(id), ranks, &what)?;
        if ranks.engine.rank() > 0 {
            parameters.set(id, copied).map_err(TrainError::tensor(what))?;
        }
    }
    Ok(())
}

/// Returns the tensor of rank 0, on the device of this rank's.
fn copied(own: &Tensor, ranks: Ranks<'_>, what: &str) -> Result<Tensor, TrainError> {
    let values = ranks.elements_of(0, Some(own), own.dims(), what)?;
    let copied = host::tensor(values, own.dims()).and_then(|tensor| Ok(tensor.to_device(own.device())?));
    copied.map_err(|error: NnError| TrainError::tensor(what)(error))
}

/// Returns a digest of the first epoch's order, with the names of the items.
fn digest<D: DataSource>(data: &D) -> Result<String, TrainError> {
    let mut hasher = blake3::Hasher::new();
    for batch in loader::plan(data, 0)? {
        batch.iter().for_each(|&item| {
            hasher.update(data.id(item).as_bytes());
            hasher.update(&[0]);
        });
        hasher.update(&[1]);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn described(parameters: &Parameters) -> String {
    let mut hasher = blake3::Hasher::new();
    for id in parameters.ids() {
        let (name, dims) = (parameters.name(id), parameters.tensor(id).dims());
        hasher.update(format!("{name} {dims:?} {}\n", parameters.trainable(id)).as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
