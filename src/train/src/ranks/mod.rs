//! Several ranks that train one model together.
//!
//! Rank 0 leads: it runs the loop of [`crate::train()`] with its metrics, checkpoints and commands. The other ranks follow ([`follow`]):
//! between two steps they wait for an [`Order`]. In a step each rank computes the gradient of its share of the batches
//! ([`crate::share`]); the sums over the ranks ([`gradient`]) are the same on every rank, so all decide alike and change their weights
//! alike.
//!
//! Work that can fail comes before an exchange, and every exchange says whether it has failed: the error of one rank is the error of all.

mod follow;
mod gradient;
mod sharded;
mod start;
mod validate;

use candle_core::Tensor;
use flowmill_collective::{Alone, Collective};
use flowmill_nn::host;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use follow::{cannot_follow, follow};
pub(crate) use gradient::gradient;
pub(crate) use sharded::{build, check};
pub(crate) use start::{Changing, begin};
pub(crate) use validate::validate;

use crate::TrainError;
use crate::share::Share;

/// First byte of what a rank exchanges.
const DONE: u8 = 0;
/// The same if the rank has failed; its error follows.
const FAILED: u8 = 1;

/// Number of elements of parameters that go into one exchange, 16 MiB. A larger parameter has one of its own.
const BUCKET: usize = 1 << 22;
/// The largest exchange in elements; engines count in 32 bits.
const LARGEST: usize = 1 << 27;

/// The ranks of a training, seen from one of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranks<'a> {
    pub(crate) engine: &'a dyn Collective,
}

/// An order of rank 0 to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// A step. Numbers are bits of doubles, because decimal text may lose the last bit.
    Step {
        /// The learning rate.
        rate: u64,
        /// The factor on the loss.
        scale: u64,
        /// True to measure how much each parameter changes.
        measure: bool,
    },
    /// A share of the optimizer's state, for a checkpoint.
    State,
    /// A share of the validation.
    Validate,
    /// Nothing more: the run has ended.
    End,
}

impl<'a> Ranks<'a> {
    /// A single rank.
    pub(crate) fn alone() -> Ranks<'static> {
        Ranks { engine: &Alone }
    }

    pub(crate) fn new(engine: &'a dyn Collective) -> Self {
        Self { engine }
    }

    /// Returns whether there is only one.
    pub(crate) fn is_alone(&self) -> bool {
        self.engine.size() == 1
    }

    /// Returns this rank's share of steps of `group` batches.
    pub(crate) fn share(&self, group: usize) -> Share {
        Share::new(self.engine.rank(), self.engine.size(), group)
    }

    /// Exchanges a value with all ranks; returns them in the order of the ranks.
    pub(crate) fn exchange<V: Serialize + DeserializeOwned>(&self, own: &V) -> Result<Vec<V>, TrainError> {
        let mut bytes = vec![DONE];
        serde_json::to_writer(&mut bytes, own).map_err(garbled)?;
        let all = self.engine.all_gather_bytes(&bytes).map_err(TrainError::Ranks)?;
        let failed = all.iter().position(|bytes| bytes.first() != Some(&DONE));
        if let Some(rank) = failed {
            let message = String::from_utf8_lossy(all[rank].get(1..).unwrap_or_default()).into_owned();
            return Err(TrainError::OtherRank { rank, message });
        }
        all.iter().map(|bytes| serde_json::from_slice(&bytes[1..]).map_err(garbled)).collect()
    }

    /// Tells the other ranks the error of this one, so that they end too. They receive it in place of what they exchange next.
    pub(crate) fn announce<R>(&self, result: Result<R, TrainError>) -> Result<R, TrainError> {
        let Err(error) = &result else { return result };
        if !matches!(error, TrainError::OtherRank { .. } | TrainError::Ranks(_)) {
            self.fail(&error.to_string());
        }
        result
    }

    /// Gives the other ranks an error in place of what they exchange next.
    fn fail(&self, error: &str) {
        if !self.is_alone() {
            let told = [&[FAILED][..], error.as_bytes()].concat();
            // This rank reports its own error, whatever the others do.
            let _others_failed_too = self.engine.all_gather_bytes(&told);
        }
    }

    /// Replaces the values of every rank by those of rank `root`.
    pub(crate) fn broadcast(&self, root: usize, values: &mut [f32]) -> Result<(), TrainError> {
        values.chunks_mut(LARGEST).try_for_each(|part| self.engine.broadcast(root, part)).map_err(TrainError::Ranks)
    }

    /// Returns the elements of a tensor of rank `root`, which gives it in `own`; the others know its shape.
    pub(crate) fn elements_of(
        &self,
        root: usize,
        own: Option<&Tensor>,
        dims: &[usize],
        what: &str,
    ) -> Result<Vec<f32>, TrainError> {
        let mut elements = match own.filter(|_| self.engine.rank() == root) {
            Some(tensor) => host::read(tensor).map_err(TrainError::tensor(what))?,
            None => vec![0.0; dims.iter().product()],
        };
        self.broadcast(root, &mut elements)?;
        Ok(elements)
    }

    /// Replaces the values of every rank by the sum over the ranks.
    pub(crate) fn sum(&self, values: &mut [f32]) -> Result<(), TrainError> {
        values.chunks_mut(LARGEST).try_for_each(|part| self.engine.all_reduce(part)).map_err(TrainError::Ranks)
    }

    /// Gives the other ranks an order. For rank 0.
    pub(crate) fn order(&self, order: &Order) -> Result<(), TrainError> {
        if self.is_alone() { Ok(()) } else { self.exchange(&Some(order.clone())).map(drop) }
    }

    /// Waits for the next order of rank 0.
    pub(crate) fn next_order(&self) -> Result<Order, TrainError> {
        let orders = self.exchange(&None::<Order>)?;
        orders.into_iter().next().flatten().ok_or_else(|| TrainError::OtherRank {
            rank: 0,
            message: "it gave no order; all ranks must run the same program".to_owned(),
        })
    }
}

fn garbled(error: serde_json::Error) -> TrainError {
    TrainError::OtherRank {
        rank: 0,
        message: format!("unreadable exchange: {error}; all ranks must run the same program"),
    }
}
