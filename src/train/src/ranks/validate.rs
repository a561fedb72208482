//! A validation whose batches are divided among the ranks.

use flowmill_nn::Parameters;

use super::Ranks;
use super::gradient::{BatchReport, merge};
use crate::metrics::Measured;
use crate::pass::validate_batch;
use crate::{DataSource, Task, TrainError};

/// Returns the mean loss over the validation batches, bit for bit that of one rank; `None` without data. With one rank that is
/// [`crate::pass::validate`].
pub(crate) fn validate<T, D>(
    task: &T,
    parameters: &Parameters,
    data: &D,
    seed: u64,
    ranks: Ranks<'_>,
) -> Result<Option<Measured>, TrainError>
where
    T: Task,
    D: DataSource<Batch = T::Batch>,
{
    let mut own: Vec<BatchReport> = Vec::new();
    for (index, items) in data.validation().iter().enumerate().skip(ranks.engine.rank()).step_by(ranks.engine.size()) {
        let batch = validate_batch(task, parameters, data, seed, (index, items))?;
        own.push(batch.report(0, index as u64));
    }
    let all = if ranks.is_alone() { vec![own] } else { ranks.exchange(&own)? };
    let (means, _) = merge(all.into_iter().flatten().collect());
    Ok((means.weight > 0.0).then_some(means))
}
