//! Division of a batch's rows into tasks, none of which spans two items.

use super::elementwise::{add_assign_serial, rows_per_chunk};
use crate::Ragged;
use rayon::prelude::*;
use std::ops::Range;

/// Runs of rows, each within one item. They depend on the batch only, so results do not depend on the number of threads.
pub struct ItemTasks {
    tasks: Vec<(usize, Range<usize>)>,
    items: usize,
    gaps: Vec<Range<usize>>,
}

impl ItemTasks {
    /// Creates tasks of about a chunk's elements over rows of `width` elements.
    pub fn new(rows: &Ragged, width: usize) -> Self {
        let chunk = rows_per_chunk(width);
        let mut tasks = Vec::new();
        let mut gaps = Vec::new();
        let mut end = 0;
        for (item, rows) in rows.ranges().iter().enumerate() {
            let starts = rows.clone().step_by(chunk);
            tasks.extend(starts.map(|start| (item, start..rows.end.min(start + chunk))));
            gaps.push(end..rows.start);
            end = rows.end;
        }
        gaps.push(end..rows.total());
        gaps.retain(|gap| !gap.is_empty());
        Self { tasks, items: rows.len(), gaps }
    }

    /// Returns whether every row belongs to an item.
    pub fn cover_all(&self) -> bool {
        self.gaps.is_empty()
    }

    /// Zeroes the rows of no item.
    pub fn zero_gaps(&self, elements: &mut [f32], width: usize) {
        self.gaps.iter().for_each(|gap| elements[gap.start * width..gap.end * width].fill(0.0));
    }

    /// Runs `work(item, rows)` for every task in parallel.
    pub fn for_each(&self, work: impl Fn(usize, Range<usize>) + Sync) {
        self.tasks.par_iter().for_each(|(item, rows)| work(*item, rows.clone()));
    }

    /// Like [`for_each`](Self::for_each), and returns the result of each task in order.
    pub fn map<R: Send>(&self, work: impl Fn(usize, Range<usize>) -> R + Sync) -> Vec<R> {
        self.tasks.par_iter().map(|(item, rows)| work(*item, rows.clone())).collect()
    }

    /// The sum of the tasks' vectors for each item, in order: `[item, width]`.
    pub fn sum_per_item(&self, vectors: Vec<Vec<f32>>, width: usize) -> Vec<f32> {
        let mut sums = vec![0.0; self.items * width];
        for ((item, _), vector) in self.tasks.iter().zip(vectors) {
            add_assign_serial(&mut sums[item * width..(item + 1) * width], &vector);
        }
        sums
    }
}
