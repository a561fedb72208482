//! Distribution of batches to several ranks.

/// Returns the batches of rank number `rank` of `ranks`: every `ranks`-th, starting at its own number, so that all
/// ranks together process the batches in the order of a single rank. If the last round is incomplete, later ranks get
/// no batch from it.
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
