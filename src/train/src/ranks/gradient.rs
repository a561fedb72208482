//! The gradient of a step over all ranks.
//!
//! Gradients are summed while the last backward pass of the step goes on. They are collected in buckets, in an order that is the same on
//! every rank; a bucket that is complete is summed on a thread of its own. After the report of the losses, which comes before that pass, a
//! rank takes part in every exchange even if it fails, because the others wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use flowmill_collective::CollectiveError;
use flowmill_nn::{Gradients, NnError, ParameterId, Parameters, host};
use serde::{Deserialize, Serialize};

use super::{BUCKET, Ranks};
use crate::loader::Loaded;
use crate::metrics::Measured;
use crate::pass::{self, BatchLoss, Completion, Pass};
use crate::{Task, TrainConfig, TrainError};

/// The measurements of a rank in a step. Numbers are bits of doubles.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    /// The weight that the rank's sum of gradients is relative to; `None` if it has no batch.
    first_weight: Option<u64>,
    /// The sum of the weights, relative to the first, times the loss scale.
    divisor: u64,
    /// The batches, or parts of them.
    batches: Vec<BatchReport>,
}

/// The loss of a batch or a part of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BatchReport {
    /// Place in the order.
    epoch: u64,
    index: u64,
    loss: u64,
    parts: Vec<(String, u64)>,
    weight: u64,
}

/// Computes the gradient of the mean loss over the batches of a step, of which each rank has its share. The result is the same on every
/// rank.
pub(crate) fn gradient<T: Task>(
    task: &T,
    parameters: &Parameters,
    config: &TrainConfig,
    loss_scale: f64,
    own: &[Loaded<T::Batch>],
    ranks: Ranks<'_>,
) -> Result<Pass, TrainError> {
    if ranks.is_alone() {
        return pass::forward_backward(task, parameters, config, loss_scale, own);
    }
    let places: Vec<(u64, u64)> = own.iter().map(|loaded| (loaded.epoch, loaded.index)).collect();
    thread::scope(|scope| {
        let (give, buckets) = channel::<Vec<f32>>();
        let (give_sum, sums) = channel();
        scope.spawn(move || {
            for mut bucket in buckets {
                let summed = ranks.sum(&mut bucket).map(|()| bucket);
                if give_sum.send(summed).is_err() {
                    return;
                }
            }
        });
        let mut exchange = Exchange::new(parameters, places, ranks, give, sums);
        let computed = pass::observed(task, parameters, config, loss_scale, own, &mut exchange);
        exchange.finish(computed)
    })
}

/// The exchange of a step, seen from one rank.
struct Exchange<'a> {
    parameters: &'a Parameters,
    /// The places of the rank's batches in the order.
    places: Vec<(u64, u64)>,
    ranks: Ranks<'a>,
    /// The parameters of each bucket.
    buckets: Vec<Vec<ParameterId>>,
    /// The bucket of each parameter.
    bucket_of: BTreeMap<ParameterId, usize>,
    /// Number of gradients that each bucket lacks.
    lacking: Vec<usize>,
    /// Number of buckets that were given to the thread, and of sums that were taken from it.
    given: usize,
    taken: usize,
    give: Sender<Vec<f32>>,
    sums: Receiver<Result<Vec<f32>, TrainError>>,
    /// Sums of buckets with a parameter that has no gradient on this rank.
    waiting: Vec<(usize, Vec<f32>)>,
    failure: Option<TrainError>,
    reports: Option<Vec<Report>>,
    /// Factor on the gradients of this rank.
    factor: f32,
    /// Divisor of the sum.
    divisor: f64,
}

impl<'a> Exchange<'a> {
    fn new(
        parameters: &'a Parameters,
        places: Vec<(u64, u64)>,
        ranks: Ranks<'a>,
        give: Sender<Vec<f32>>,
        sums: Receiver<Result<Vec<f32>, TrainError>>,
    ) -> Self {
        let buckets = buckets(parameters);
        let places_in =
            |(at, bucket): (usize, &Vec<ParameterId>)| bucket.iter().map(move |id| (*id, at)).collect::<Vec<_>>();
        Self {
            parameters,
            places,
            ranks,
            bucket_of: buckets.iter().enumerate().flat_map(places_in).collect(),
            lacking: buckets.iter().map(Vec::len).collect(),
            buckets,
            given: 0,
            taken: 0,
            give,
            sums,
            waiting: Vec::new(),
            failure: None,
            reports: None,
            factor: 1.0,
            divisor: 0.0,
        }
    }

    /// Exchanges the losses, which determine the factor on each rank's gradients.
    fn report(&mut self, batches: &[BatchLoss], divisor: f64) -> Result<(), TrainError> {
        let of_batches = self.places.iter().zip(batches).map(|((epoch, index), batch)| batch.report(*epoch, *index));
        let reports = self.ranks.exchange(&Report {
            first_weight: batches.first().map(|batch| batch.weight.to_bits()),
            divisor: divisor.to_bits(),
            batches: of_batches.collect(),
        })?;
        let weight = |report: &Report| report.first_weight.map(f64::from_bits);
        let reference = reports.iter().find_map(weight).unwrap_or(1.0);
        // A rank's gradients are relative to its first weight, the sum is relative to that of the first rank.
        let factor = |report: &Report| weight(report).unwrap_or(0.0) / reference;
        self.divisor = reports.iter().map(|report| factor(report) * f64::from_bits(report.divisor)).sum();
        self.factor = factor(&reports[self.ranks.engine.rank()]) as f32;
        self.reports = Some(reports);
        Ok(())
    }

    /// Gives the next bucket to the thread; gradients that are not there count as zero.
    fn give_next(&mut self, gradients: &Gradients) -> Result<(), NnError> {
        let mut bucket = Vec::new();
        let packed = self.buckets[self.given].iter().try_for_each(|&id| {
            let start = bucket.len();
            if let Some(gradient) = gradients.get(id) {
                let gradient = host::fetch(gradient)?;
                let values = host::slice("gradient", &gradient)?;
                let factor = self.factor;
                bucket.extend(values.iter().map(|value| value * factor));
            }
            bucket.resize(start + self.parameters.tensor(id).elem_count(), 0.0);
            Ok(())
        });
        // In any case: the other ranks wait for it.
        let size = self.buckets[self.given].iter().map(|id| self.parameters.tensor(*id).elem_count()).sum();
        bucket.resize(size, 0.0);
        self.given += 1;
        // If the thread has ended, its error arrives in place of a sum.
        drop(self.give.send(bucket));
        packed
    }

    /// Stores a sum if every parameter of its bucket has a gradient on the CPU here, otherwise keeps it. An error is left to the end.
    fn take(&mut self, summed: Result<Vec<f32>, TrainError>, gradients: &Gradients) -> Result<(), NnError> {
        let bucket = self.taken;
        self.taken += 1;
        let sum = match summed {
            Ok(sum) => sum,
            Err(error) => {
                self.failure = Some(error);
                return Ok(());
            }
        };
        let ids = &self.buckets[bucket];
        let is_here = |id: &ParameterId| gradients.get(*id).is_some_and(|gradient| gradient.device().is_cpu());
        if !ids.iter().all(is_here) {
            self.waiting.push((bucket, sum));
            return Ok(());
        }
        let mut rest = &sum[..];
        for id in ids {
            let Some(gradient) = gradients.get(*id) else { continue };
            let (values, after) = rest.split_at(gradient.elem_count());
            host::modify(gradient, |own| own.copy_from_slice(values))?;
            rest = after;
        }
        Ok(())
    }

    /// Takes part in the exchanges that are left; returns the result on all ranks.
    fn finish(mut self, computed: Result<Pass, TrainError>) -> Result<Pass, TrainError> {
        if self.places.is_empty() && computed.is_ok() {
            self.report(&[], 0.0)?;
        }
        if self.reports.is_none() {
            return computed;
        }
        let failed = |source| TrainError::tensor("summing gradients")(source);
        let nothing = Gradients::default();
        let gradients = computed.as_ref().map_or(&nothing, |pass| &pass.gradients);
        let mut problem = Ok(());
        while self.given < self.buckets.len() {
            let packed = self.give_next(gradients);
            problem = problem.and(packed.map_err(failed));
        }
        while self.taken < self.buckets.len() {
            let summed = self.sums.recv().map_err(|_| TrainError::Ranks(CollectiveError::Gone))?;
            let stored = self.take(summed, gradients);
            problem = problem.and(stored.map_err(failed));
        }
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let mut pass = computed?;
        problem?;
        let trainable: Vec<ParameterId> = self.parameters.trainable_ids().collect();
        let absent = trainable.iter().filter(|id| pass.gradients.get(**id).is_none()).map(|id| id.index());
        let absent: Vec<BTreeSet<usize>> = self.ranks.exchange(&absent.collect())?;
        let absent = absent.into_iter().reduce(|absent, other| &absent & &other).unwrap_or_default();
        for (bucket, sum) in std::mem::take(&mut self.waiting) {
            let mut rest = &sum[..];
            for id in &self.buckets[bucket] {
                let (values, after) = rest.split_at(self.parameters.tensor(*id).elem_count());
                if !absent.contains(&id.index()) {
                    store(&mut pass.gradients, self.parameters, *id, values).map_err(failed)?;
                }
                rest = after;
            }
        }
        let reports = self.reports.take().unwrap_or_default();
        let (means, losses) = merge(reports.into_iter().flat_map(|report| report.batches).collect());
        Ok(Pass { divisor: self.divisor, means, losses, ..pass })
    }
}

impl Completion for Exchange<'_> {
    fn forward_done(&mut self, batches: &[BatchLoss], divisor: f64) -> Result<(), TrainError> {
        self.report(batches, divisor)
    }

    fn arrived(&mut self, id: ParameterId, sums: &Gradients) -> Result<(), NnError> {
        if let Some(lacking) = self.bucket_of.get(&id).and_then(|bucket| self.lacking.get_mut(*bucket)) {
            *lacking = lacking.saturating_sub(1);
        }
        while self.lacking.get(self.given) == Some(&0) {
            self.give_next(sums)?;
        }
        while let Ok(summed) = self.sums.try_recv() {
            self.take(summed, sums)?;
        }
        Ok(())
    }
}

/// Divides the trainable parameters into buckets, about in the order in which their gradients arrive.
fn buckets(parameters: &Parameters) -> Vec<Vec<ParameterId>> {
    let (mut buckets, mut elements) = (Vec::new(), BUCKET);
    let ids: Vec<ParameterId> = parameters.trainable_ids().collect();
    for id in ids.into_iter().rev() {
        if elements >= BUCKET {
            buckets.push(Vec::new());
            elements = 0;
        }
        elements += parameters.tensor(id).elem_count();
        if let Some(bucket) = buckets.last_mut() {
            bucket.push(id);
        }
    }
    buckets
}

impl BatchLoss {
    /// Describes the loss of a batch at a place in the order.
    pub(super) fn report(&self, epoch: u64, index: u64) -> BatchReport {
        let parts = self.parts.iter().map(|(name, part)| (name.clone(), part.to_bits())).collect();
        BatchReport { epoch, index, loss: self.loss.to_bits(), parts, weight: self.weight.to_bits() }
    }
}

/// Returns the means over all batches, and the loss of each in the order of the batches. The order in which the ranks computed them does
/// not matter.
pub(super) fn merge(mut batches: Vec<BatchReport>) -> (Measured, Vec<f64>) {
    // Stable: the parts of a batch stay in the order of the ranks.
    batches.sort_by_key(|batch| (batch.epoch, batch.index));
    let mut means = Measured::default();
    let mut losses: Vec<((u64, u64), Measured)> = Vec::new();
    for batch in batches {
        let (loss, weight) = (f64::from_bits(batch.loss), f64::from_bits(batch.weight));
        let parts: Vec<(String, f64)> =
            batch.parts.into_iter().map(|(name, part)| (name, f64::from_bits(part))).collect();
        means.add(loss, &parts, weight);
        let place = (batch.epoch, batch.index);
        if losses.last().is_none_or(|(last, _)| *last != place) {
            losses.push((place, Measured::default()));
        }
        if let Some((_, of_batch)) = losses.last_mut() {
            of_batch.add(loss, &parts, weight);
        }
    }
    (means, losses.into_iter().map(|(_, of_batch)| of_batch.loss).collect())
}

/// Sets the gradient of a parameter, in place where there is one on the CPU.
fn store(gradients: &mut Gradients, parameters: &Parameters, id: ParameterId, values: &[f32]) -> Result<(), NnError> {
    match gradients.get(id) {
        Some(gradient) if gradient.device().is_cpu() => host::modify(gradient, |own| own.copy_from_slice(values)),
        _ => {
            let weights = parameters.tensor(id);
            let gradient = host::tensor(values.to_vec(), weights.dims())?.to_device(weights.device())?;
            gradients.set(id, gradient);
            Ok(())
        }
    }
}
