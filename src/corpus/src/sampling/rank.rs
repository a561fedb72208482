//! Batches for several ranks.

/// The batches of rank number `rank` of `ranks`: every `ranks`-th, beginning with its own, so that all ranks together go through the
/// batches in the order that a single one would. Of the last round, when it is not complete, later ranks get nothing.
pub fn rank_share<T: Clone>(batches: &[T], rank: usize, ranks: usize) -> Vec<T> {
    batches.iter().skip(rank).step_by(ranks.max(1)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_together_have_every_batch_once_in_its_place() {
        let batches: Vec<u32> = (0..23).collect();
        for ranks in [1, 2, 4, 30] {
            let shares: Vec<Vec<u32>> = (0..ranks).map(|rank| rank_share(&batches, rank, ranks)).collect();
            let dealt: Vec<u32> = (0..23).map(|index| shares[index % ranks][index / ranks]).collect();
            assert_eq!(dealt, batches, "{ranks} ranks");
            assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), 23);
        }
    }
}
