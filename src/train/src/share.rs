//! The division of a step's batches among ranks.
//!
//! A step averages `accum_grad` batches of the one global order, whatever the number of ranks. If that number is a multiple of the number
//! of ranks, each rank computes whole batches; otherwise each batch is cut into one part for each rank, of about the same cost. Either way
//! the same items make a step, so the number of ranks changes a training within rounding errors only, and it may change at any step.

use std::ops::Range;

use flowmill_nn::random::RngKey;

use crate::{BatchCost, BoxError, DataSource, TrainConfig};

/// The share of a rank in every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    rank: usize,
    ranks: usize,
    /// Batches of a step.
    group: usize,
}

impl Share {
    /// Everything.
    pub(crate) fn whole() -> Self {
        Self { rank: 0, ranks: 1, group: 1 }
    }

    /// The share of one of `ranks` ranks in steps of `group` batches.
    pub(crate) fn new(rank: usize, ranks: usize, group: usize) -> Self {
        Self { rank, ranks, group }
    }

    /// Returns whether batches are cut.
    pub(crate) fn cuts(&self) -> bool {
        !self.group.is_multiple_of(self.ranks)
    }

    /// Returns the number of this rank's part of every batch, if batches are cut.
    pub(crate) fn part(&self) -> Option<u64> {
        self.cuts().then_some(self.rank as u64)
    }

    /// Returns the number of batches of the order of which this rank computes one.
    pub(crate) fn stride(&self) -> usize {
        if self.cuts() { 1 } else { self.ranks }
    }

    /// Returns the places of this rank's items in batch number `index` of an epoch; `None` if there are none.
    pub(crate) fn of<D: DataSource>(&self, data: &D, index: u64, items: &[u32]) -> Option<Range<usize>> {
        if !self.cuts() {
            // The last step of an epoch may have fewer batches, of which each rank has at most one more than another.
            let place = index % self.group as u64 % self.ranks as u64;
            return (place == self.rank as u64).then_some(0..items.len());
        }
        let costs: Vec<u64> = items.iter().map(|item| data.cost(std::slice::from_ref(item)).valid.max(1)).collect();
        let cut = cut(&costs, self.ranks, self.rank);
        (!cut.is_empty()).then_some(cut)
    }
}

/// The data as one of several ranks sees them, for a plan of its memory: of every batch that is cut, the part that costs most.
#[derive(Debug)]
pub struct DataOfRank<'a, D> {
    data: &'a D,
    ranks: usize,
    cuts: bool,
}

impl<'a, D: DataSource> DataOfRank<'a, D> {
    /// Returns the data of one of `ranks` ranks, and the settings of its steps.
    pub fn new(data: &'a D, config: &TrainConfig, ranks: usize) -> (Self, TrainConfig) {
        let share = Share::new(0, ranks.max(1), config.accum_grad);
        let cuts = share.cuts();
        let accum_grad = if cuts { config.accum_grad } else { config.accum_grad / ranks.max(1) };
        (Self { data, ranks: ranks.max(1), cuts }, TrainConfig { accum_grad, ..config.clone() })
    }

    fn part(&self, items: Vec<u32>) -> Vec<u32> {
        if !self.cuts {
            return items;
        }
        let parts = (0..self.ranks).filter_map(|rank| Share::new(rank, self.ranks, 1).of(self.data, 0, &items));
        let most = parts.max_by_key(|part| self.data.cost(&items[part.clone()]).padded);
        most.map_or(items.clone(), |part| items[part].to_vec())
    }
}

impl<D: DataSource> DataSource for DataOfRank<'_, D> {
    type Batch = D::Batch;

    fn batches(&self, epoch: u64) -> Result<Vec<Vec<u32>>, BoxError> {
        Ok(self.data.batches(epoch)?.into_iter().map(|items| self.part(items)).collect())
    }

    fn load(&self, items: &[u32], rng_key: RngKey) -> Result<Self::Batch, BoxError> {
        self.data.load(items, rng_key)
    }

    fn validation(&self) -> Vec<Vec<u32>> {
        self.data.validation()
    }

    fn cost(&self, items: &[u32]) -> BatchCost {
        self.data.cost(items)
    }

    fn still_to_keep(&self) -> u64 {
        self.data.still_to_keep()
    }

    fn id(&self, item: u32) -> &str {
        self.data.id(item)
    }
}

/// Cuts items into parts of about the same cost: an item belongs to the part in which its middle lies.
pub(crate) fn cut(costs: &[u64], parts: usize, part: usize) -> Range<usize> {
    let total: u64 = costs.iter().sum();
    let mut before = 0u64;
    let parts_of: Vec<usize> = costs
        .iter()
        .map(|cost| {
            let twice_middle = u128::from(2 * before + cost);
            before += cost;
            // Below `parts`, because the middle is below the total.
            (twice_middle * parts as u128 / (2 * u128::from(total)).max(1)) as usize
        })
        .collect();
    let start = parts_of.partition_point(|of| *of < part);
    start..parts_of.partition_point(|of| *of <= part)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Items;

    impl DataSource for Items {
        type Batch = ();

        fn batches(&self, _: u64) -> Result<Vec<Vec<u32>>, BoxError> {
            Ok(Vec::new())
        }

        fn load(&self, _: &[u32], _: RngKey) -> Result<(), BoxError> {
            Ok(())
        }

        fn validation(&self) -> Vec<Vec<u32>> {
            Vec::new()
        }

        fn id(&self, _: u32) -> &str {
            "item"
        }
    }

    #[test]
    fn every_item_has_one_rank() {
        for (ranks, group, count) in [(1, 1, 5), (2, 1, 5), (2, 4, 5), (3, 4, 1), (4, 1, 3), (4, 8, 7), (3, 2, 0)] {
            for index in 0..9 {
                let items: Vec<u32> = (0..count).collect();
                let shares = (0..ranks).map(|rank| Share::new(rank, ranks, group).of(&Items, index, &items));
                let all: Vec<usize> = shares.flatten().flatten().collect();
                assert_eq!(all, (0..count as usize).collect::<Vec<_>>(), "{ranks} {group} {count} {index}");
            }
        }
    }

    #[test]
    fn a_rank_has_the_largest_part_or_fewer_batches() {
        let config = |accum_grad| TrainConfig { accum_grad, ..TrainConfig::default() };
        let (data, settings) = DataOfRank::new(&Items, &config(1), 2);
        assert_eq!((data.part(vec![7, 8, 9]), settings.accum_grad), (vec![8, 9], 1));
        let (data, settings) = DataOfRank::new(&Items, &config(4), 2);
        assert_eq!((data.part(vec![7, 8, 9]), settings.accum_grad), (vec![7, 8, 9], 2));
    }

    #[test]
    fn whole_batches_go_round_and_cut_ones_are_balanced() {
        let of = |rank, index| Share::new(rank, 2, 4).of(&Items, index, &[1, 2, 3]).is_some();
        assert_eq!([0, 1, 2, 3, 4].map(|index| of(0, index)), [true, false, true, false, true]);
        assert_eq!((cut(&[3, 1, 1, 1], 2, 0), cut(&[3, 1, 1, 1], 2, 1)), (0..1, 1..4));
        assert_eq!((cut(&[1, 1, 1, 9], 2, 0), cut(&[1, 1, 1, 9], 2, 1)), (0..3, 3..4));
        assert_eq!((cut(&[5], 3, 0), cut(&[5], 3, 1), cut(&[5], 3, 2)), (0..0, 0..1, 1..1));
    }
}
