//! Running an extractor over rows, and fitting one on rows.
//!
//! Rows are worked on in parallel, a few at a time so that memory stays bounded, and their results are handed on in row
//! order, so that nothing depends on the number of threads. While the results of some are handed on, the next are worked on.

use std::path::PathBuf;

use rayon::prelude::*;

use crate::{ExtractError, Extracted, Extractor, Fit, Fitted, Media, Scope, State, StateError};

/// Number of rows per thread in flight: enough to even out long and short recordings.
const ROWS_PER_THREAD: usize = 16;

/// The events that the driver reports to its caller while it runs.
pub trait RowEvents: Sync {
    /// A row cannot be used, and why.
    fn reject(&self, id: &str, reason: &ExtractError);
    /// Reports that `rows` more rows are done, used or rejected.
    fn advance(&self, rows: u64);
    /// Returns true if the driver has to stop.
    fn interrupted(&self) -> bool;
    /// Returns the number of threads to keep busy at the moment.
    fn threads(&self) -> usize;
}

/// The run was asked to stop, or a result could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RowWork {
    /// [`RowEvents::interrupted`] said so.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A state did not fit.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The run was asked to stop between rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Does `work` for every row in parallel and gives the results to `take` in row order. Rows that fail are rejected.
///
/// # Errors
/// [`RowWork::Interrupted`] between rows, or what `take` says.
pub fn for_each_row<'r, R: Sync, T: Send>(
    rows: &'r [R],
    events: &dyn RowEvents,
    id: impl Fn(&R) -> &str + Sync,
    work: impl Fn(&R) -> Result<T, ExtractError> + Sync,
    mut take: impl FnMut(&'r R, T) -> Result<(), StateError> + Send,
) -> Result<(), RowWork> {
    let mut hand_on = |done: Vec<(&'r R, Option<Result<T, ExtractError>>)>| -> Result<(), RowWork> {
        for (row, result) in done {
            match result.ok_or(Interrupted)? {
                Ok(value) => take(row, value)?,
                Err(reason) => events.reject(id(row), &reason),
            }
        }
        Ok(())
    };
    let (mut rows, mut done) = (rows, Vec::new());
    while !rows.is_empty() {
        let (now, later) = rows.split_at(rows.len().min(ROWS_PER_THREAD * events.threads().max(1)));
        // Single rows, for recordings differ in length.
        let work = || now.par_iter().with_max_len(1).map(|row| (row, one(row, events, &work))).collect();
        let (next, handed_on) = rayon::join(work, || hand_on(std::mem::take(&mut done)));
        handed_on?;
        (rows, done) = (later, next);
    }
    hand_on(done)
}

fn one<R, T>(
    row: &R,
    events: &dyn RowEvents,
    work: &(impl Fn(&R) -> Result<T, ExtractError> + Sync),
) -> Option<Result<T, ExtractError>> {
    if events.interrupted() {
        return None;
    }
    let result = work(row);
    events.advance(1);
    Some(result)
}

/// Extracts every row; gives the usable rows with their values, in row order.
///
/// # Errors
/// [`RowWork::Interrupted`].
pub fn apply<'r, R: Sync>(
    extractor: &dyn Extractor,
    rows: &'r [R],
    events: &dyn RowEvents,
    id: impl Fn(&R) -> &str + Sync,
    media: impl Fn(&R) -> Media + Sync,
) -> Result<Vec<(&'r R, Extracted)>, RowWork> {
    let mut values = Vec::with_capacity(rows.len());
    let columns = extractor.columns();
    let checked = |value: Extracted| value.check(extractor.kind(), &columns).map(|()| value);
    if extractor.rows_per_batch() > 1 {
        apply_batches(extractor, rows, events, media, |row, value| match value.and_then(checked) {
            Ok(value) => values.push((row, value)),
            Err(reason) => events.reject(id(row), &reason),
        })?;
        return Ok(values);
    }
    let work = |row: &R| extractor.extract(&media(row)).and_then(checked);
    for_each_row(rows, events, id, work, |row, value| {
        values.push((row, value));
        Ok(())
    })?;
    Ok(values)
}

/// Does what [`apply`] does, several rows at a time. Their number does not depend on the number of threads, so neither do the values.
fn apply_batches<'r, R: Sync>(
    extractor: &dyn Extractor,
    rows: &'r [R],
    events: &dyn RowEvents,
    media: impl Fn(&R) -> Media + Sync,
    mut take: impl FnMut(&'r R, Result<Extracted, ExtractError>),
) -> Result<(), Interrupted> {
    for rows in rows.chunks(extractor.rows_per_batch()) {
        if events.interrupted() {
            return Err(Interrupted);
        }
        let batch: Vec<Media> = rows.iter().map(&media).collect();
        rows.iter().zip(extractor.extract_batch(&batch)).for_each(|(row, value)| take(row, value));
        events.advance(rows.len() as u64);
    }
    Ok(())
}

/// Measures every row and accumulates the usable ones in row order; gives the state of these rows and their number.
///
/// # Errors
/// [`RowWork::Interrupted`], or a state that does not fit.
pub fn fit_rows<R: Sync>(
    fit: &dyn Fit,
    rows: &[R],
    events: &dyn RowEvents,
    id: impl Fn(&R) -> &str + Sync,
    media: impl Fn(&R) -> Media + Sync,
) -> Result<(State, u64), RowWork> {
    let mut accumulator = fit.accumulator(Scope::Part);
    let mut used = 0;
    let work = |row: &R| fit.measure(&media(row));
    for_each_row(rows, events, &id, work, |row, measured| {
        used += 1;
        accumulator.add(id(row), &measured)
    })?;
    Ok((accumulator.into_state(), used))
}

/// Reads the states of all parts in order, merges them and finishes the fit.
///
/// # Errors
/// When a file is not a state of this extractor, or there is too little to fit on.
pub fn fit_parts(fit: &dyn Fit, files: &[PathBuf]) -> Result<Fitted, StateError> {
    let mut accumulator = fit.accumulator(Scope::Whole);
    for file in files {
        accumulator.absorb(&State::load(file)?)?;
    }
    fit.finish(&accumulator.into_state())
}
