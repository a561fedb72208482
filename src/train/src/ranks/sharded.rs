//! An optimizer whose state is divided among the ranks: ZeRO stage 1 (Rajbhandari et al., arXiv 1910.02054).
//!
//! Each rank owns a range of the parameters, keeps the state of these only, and updates them; then all ranks copy the new weights of each
//! other. The sums and updates are those of an optimizer that is not divided, so the results are the same bit for bit.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::Tensor;
use flowmill_nn::{Gradients, NnError, ParameterId, Parameters, host};
use serde::{Deserialize, Serialize};

use super::{BUCKET, Ranks};
use crate::optimizer::{Change, Changes, Optimizer, OptimizerName, Update};
use crate::share::cut;
use crate::{TrainConfig, TrainError};

/// The optimizer of one rank.
pub(crate) struct Sharded<'a> {
    inner: Box<dyn Optimizer>,
    /// The trainable parameters, and which of them each rank owns.
    ids: Vec<ParameterId>,
    owned: Vec<Range<usize>>,
    ranks: Ranks<'a>,
}

/// A tensor of the state of one rank.
#[derive(Debug, Serialize, Deserialize)]
struct Named {
    name: String,
    dims: Vec<usize>,
}

/// Builds the optimizer of a rank: of all parameters, or of its share if the settings say so.
pub(crate) fn build<'a>(
    config: &TrainConfig,
    parameters: &Parameters,
    ranks: Ranks<'a>,
) -> Result<Box<dyn Optimizer + 'a>, TrainError> {
    if config.zero == 0 || ranks.is_alone() {
        return config.optim.build(parameters);
    }
    let ids: Vec<ParameterId> = parameters.trainable_ids().collect();
    let costs: Vec<u64> = ids.iter().map(|id| parameters.tensor(*id).elem_count().max(1) as u64).collect();
    let size = ranks.engine.size();
    let owned: Vec<Range<usize>> = (0..size).map(|rank| cut(&costs, size, rank)).collect();
    // The copy shares the tensors; to it, the parameters of other ranks are frozen.
    let mut own = parameters.clone();
    let range = &owned[ranks.engine.rank()];
    ids.iter()
        .enumerate()
        .filter(|(place, _)| !range.contains(place))
        .for_each(|(_, id)| own.set_trainable(*id, false));
    let inner = config.optim.build(&own)?;
    Ok(Box::new(Sharded { inner, ids, owned, ranks }))
}

/// Fails if the state of an optimizer cannot be divided.
pub(crate) fn check(config: &TrainConfig) -> Result<(), TrainError> {
    let fail = |reason: &str| Err(TrainError::Config { key: "zero", reason: reason.to_owned() });
    match (config.zero, config.optim.name) {
        (0, _) => Ok(()),
        (1, OptimizerName::Prodigy) => {
            fail("must be 0 for prodigy, whose estimate is a sum over the state of all parameters")
        }
        (1, _) => Ok(()),
        (2 | 3, _) => fail(
            "may be 0 or 1: gradients and weights are whole on every rank (docs/DISTRIBUTED.md says why); use 1, \
             and gradient_checkpointing or adapters (lora) for less memory",
        ),
        _ => fail("must be 0 or 1"),
    }
}

impl Sharded<'_> {
    /// Gives all ranks the weights that each rank has updated.
    fn spread(&self, parameters: &mut Parameters, gradients: &Gradients) -> Result<(), TrainError> {
        for (owner, range) in self.owned.iter().enumerate() {
            let mut bucket = Vec::new();
            let mut inside: Vec<(ParameterId, Range<usize>)> = Vec::new();
            let changed: Vec<ParameterId> =
                self.ids[range.clone()].iter().copied().filter(|id| gradients.get(*id).is_some()).collect();
            for (at, &id) in changed.iter().enumerate() {
                let failed = || TrainError::tensor(format!("copying {} between ranks", parameters.name(id)));
                let start = bucket.len();
                if owner == self.ranks.engine.rank() {
                    bucket.extend(host::read(parameters.tensor(id)).map_err(failed())?);
                } else {
                    bucket.resize(start + parameters.tensor(id).elem_count(), 0.0);
                }
                inside.push((id, start..bucket.len()));
                if bucket.len() < BUCKET && at + 1 < changed.len() {
                    continue;
                }
                self.ranks.broadcast(owner, &mut bucket)?;
                for (id, range) in inside.drain(..).filter(|_| owner != self.ranks.engine.rank()) {
                    let failed = TrainError::tensor(format!("copying {} between ranks", parameters.name(id)));
                    store(parameters, id, &bucket[range]).map_err(failed)?;
                }
                bucket.clear();
            }
        }
        Ok(())
    }

    /// Returns the changes of all ranks, in order of the parameters.
    fn gathered(&self, own: Changes) -> Result<Changes, TrainError> {
        let bits: Vec<(usize, u64, u64)> =
            own.0.iter().map(|(id, change)| (id.index(), change.weights.to_bits(), change.update.to_bits())).collect();
        let all = self.ranks.exchange(&bits)?.concat();
        let change = |(index, weights, update): (usize, u64, u64)| {
            let id = self.ids.iter().copied().find(|id| id.index() == index)?;
            Some((id, Change { weights: f64::from_bits(weights), update: f64::from_bits(update) }))
        };
        Ok(Changes(all.into_iter().filter_map(change).collect()))
    }
}

/// Sets the weights of a parameter, in place on the CPU.
fn store(parameters: &mut Parameters, id: ParameterId, values: &[f32]) -> Result<(), NnError> {
    let weights = parameters.tensor(id);
    if weights.device().is_cpu() {
        return host::modify(weights, |own| own.copy_from_slice(values));
    }
    let tensor = host::tensor(values.to_vec(), weights.dims())?;
    parameters.set(id, tensor)
}

impl Optimizer for Sharded<'_> {
    fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        update: Update,
    ) -> Result<Changes, TrainError> {
        let own = self.inner.step(parameters, gradients, update)?;
        // A rank that has failed until here gives its error.
        self.ranks.exchange(&())?;
        self.spread(parameters, gradients)?;
        if update.measure { self.gathered(own) } else { Ok(own) }
    }

    fn updates(&self) -> u64 {
        self.inner.updates()
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.inner.state()
    }

    fn gathered_state(&self) -> Result<Option<Vec<(String, Tensor)>>, TrainError> {
        let own = self.inner.state();
        let named = |(name, tensor): &(String, Tensor)| Named { name: name.clone(), dims: tensor.dims().to_vec() };
        let all = self.ranks.exchange(&own.iter().map(named).collect::<Vec<_>>())?;
        let mut state = Vec::new();
        // The ranges of the ranks are in the order of the parameters.
        for (owner, of_rank) in all.into_iter().enumerate() {
            for (at, Named { name, dims }) in of_rank.into_iter().enumerate() {
                let what = format!("collecting {name}");
                let own = own.get(at).map(|(_, tensor)| tensor);
                let values = self.ranks.elements_of(owner, own, &dims, &what)?;
                // Only rank 0 writes.
                if self.ranks.engine.rank() == 0 {
                    let tensor = host::tensor(values, &dims).map_err(TrainError::tensor(what))?;
                    state.push((name, tensor));
                }
            }
        }
        Ok(Some(state))
    }

    fn restore(&mut self, updates: u64, stored: &mut BTreeMap<String, Tensor>) -> Result<(), String> {
        self.inner.restore(updates, stored)
    }
}
