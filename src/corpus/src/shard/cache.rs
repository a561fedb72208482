//! A bounded cache of decoded rows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::Row;

/// Rows by number. When they exceed a budget, the least recently used are dropped first.
#[derive(Debug)]
pub(super) struct RowCache {
    budget: usize,
    bytes: usize,
    clock: u64,
    rows: HashMap<u32, (u64, Arc<Row>)>,
    by_use: BTreeMap<u64, u32>,
}

impl RowCache {
    /// Creates a cache for rows of at most `budget` bytes.
    pub(super) fn new(budget: usize) -> Self {
        Self { budget, bytes: 0, clock: 0, rows: HashMap::new(), by_use: BTreeMap::new() }
    }

    /// Returns the largest size in bytes.
    pub(super) fn budget(&self) -> usize {
        self.budget
    }

    /// Returns the present size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the cached rows, in no particular order.
    pub(super) fn rows(&self) -> impl Iterator<Item = u32> {
        self.rows.keys().copied()
    }

    /// Returns a row, if it is cached.
    pub(super) fn get(&mut self, item: u32) -> Option<Arc<Row>> {
        self.clock += 1;
        let (used, row) = self.rows.get_mut(&item)?;
        self.by_use.remove(used);
        *used = self.clock;
        self.by_use.insert(self.clock, item);
        Some(row.clone())
    }

    /// Adds a row, dropping others if necessary. A row that exceeds the whole budget is not added.
    pub(super) fn put(&mut self, item: u32, row: &Arc<Row>) {
        if row.size() > self.budget || self.rows.contains_key(&item) {
            return;
        }
        self.clock += 1;
        self.bytes += row.size();
        self.rows.insert(item, (self.clock, row.clone()));
        self.by_use.insert(self.clock, item);
        while self.bytes > self.budget {
            let Some((_, oldest)) = self.by_use.pop_first() else { return };
            if let Some((_, row)) = self.rows.remove(&oldest) {
                self.bytes -= row.size();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_row_goes_first() {
        let row = Arc::new(Row { id: "x".repeat(1000), ..Row::default() });
        let mut cache = RowCache::new(row.size() * 2);
        cache.put(1, &row);
        cache.put(2, &row);
        assert!(cache.get(1).is_some());
        cache.put(3, &row);
        assert!(cache.get(2).is_none() && cache.get(1).is_some() && cache.get(3).is_some());
        assert_eq!(cache.bytes, row.size() * 2);
    }
}
