//! A rank that follows rank 0.

use std::thread;

use flowmill_collective::Collective;
use flowmill_nn::Parameters;

use super::start::{Changing, begin};
use super::{Order, Ranks, gradient, validate};
use crate::ema::Ema;
use crate::loader::{Ahead, Loader};
use crate::optimizer::{Optimizer, Update, gradient_norms};
use crate::{DataSource, Task, TrainConfig, TrainError, process_memory, setup};

/// Trains with the other ranks as rank 0 orders, until the run has ended. Reads no checkpoint and writes nothing.
///
/// # Errors
/// Errors of this rank, which all ranks receive; errors of the others.
pub fn follow<T, D>(
    task: &T,
    parameters: &mut Parameters,
    data: &D,
    config: &TrainConfig,
    engine: &dyn Collective,
) -> Result<(), TrainError>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    let ranks = Ranks::new(engine);
    let followed =
        Follower::start(task, parameters, data, config, ranks).and_then(|(follower, from)| follower.run(from));
    ranks.announce(followed)
}

/// Ends a training that the other ranks have begun and this one cannot join; they receive the reason.
pub fn cannot_follow(engine: &dyn Collective, reason: &str) {
    Ranks::new(engine).fail(reason);
}

/// A follower between two orders.
struct Follower<'a, T, D> {
    task: &'a T,
    parameters: &'a mut Parameters,
    data: &'a D,
    config: &'a TrainConfig,
    optimizer: Box<dyn Optimizer + 'a>,
    ema: Option<Ema>,
    ranks: Ranks<'a>,
}

impl<'a, T, D> Follower<'a, T, D>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    /// Takes over the state of rank 0; returns the position in the data.
    fn start(
        task: &'a T,
        parameters: &'a mut Parameters,
        data: &'a D,
        config: &'a TrainConfig,
        ranks: Ranks<'a>,
    ) -> Result<(Self, (u64, u64)), TrainError> {
        config.check()?;
        let (mut optimizer, mut ema) = setup::trained(config, parameters, ranks)?;
        let changing = Changing { parameters, optimizer: &mut *optimizer, ema: ema.as_mut(), stored: None };
        let from = begin(changing, data, (0, 0), ranks)?;
        Ok((Self { task, parameters, data, config, optimizer, ema, ranks }, from))
    }

    fn run(mut self, from: (u64, u64)) -> Result<(), TrainError> {
        let (data, config, ranks) = (self.data, self.config, self.ranks);
        thread::scope(|scope| {
            let ahead = Ahead { prefetch: config.prefetch, workers: config.num_workers };
            let share = ranks.share(config.accum_grad);
            let loader = Loader::start(scope, data, config.seed, from, config.max_epochs, (ahead, share));
            loop {
                match ranks.next_order()? {
                    Order::Step { rate, scale, measure } => {
                        let group = loader.group(config.accum_grad)?;
                        if group.planned.is_empty() {
                            // The data are at their end, which rank 0 sees too.
                            continue;
                        }
                        let (rate, scale) = (f64::from_bits(rate), f64::from_bits(scale));
                        let pass = gradient(self.task, self.parameters, config, scale, &group.own, ranks)?;
                        let norms = gradient_norms(self.parameters, &pass.gradients, 1.0 / pass.divisor)?;
                        // As rank 0 decides by the same numbers, which also tells what is wrong.
                        if pass.means.loss.is_finite() && norms.total.is_finite() {
                            let update = Update { measure, ..Update::clipped(config, &norms, pass.divisor, rate) };
                            self.optimizer.step(self.parameters, &pass.gradients, update)?;
                            self.ema.as_mut().map_or(Ok(()), |ema| ema.update(self.parameters))?;
                        }
                    }
                    Order::Validate => {
                        self.averaged(|follower| {
                            validate(follower.task, follower.parameters, data, config.seed, ranks).map(drop)
                        })?;
                    }
                    Order::State => drop(self.optimizer.gathered_state()?),
                    Order::End => break,
                }
            }
            Ok(())
        })?;
        ranks.exchange(&process_memory::peak()).map(drop)
    }

    /// Calls `with` with the averaged weights in place, if there are any.
    fn averaged(&mut self, with: impl FnOnce(&Self) -> Result<(), TrainError>) -> Result<(), TrainError> {
        if let Some(ema) = &mut self.ema {
            ema.swap(self.parameters)?;
        }
        let result = with(self);
        if let Some(ema) = &mut self.ema {
            ema.swap(self.parameters)?;
        }
        result
    }
}
