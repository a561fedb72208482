//! Statistics of how evenly units are used.

/// The number of occurrences of each unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    counts: Vec<u64>,
}

impl Usage {
    /// Counts units below `vocabulary`; others are ignored.
    pub fn of(units: impl IntoIterator<Item = usize>, vocabulary: usize) -> Self {
        let mut usage = Self { counts: vec![0; vocabulary] };
        usage.add(units);
        usage
    }

    /// Counts more units.
    pub fn add(&mut self, units: impl IntoIterator<Item = usize>) {
        for unit in units {
            if let Some(count) = self.counts.get_mut(unit) {
                *count += 1;
            }
        }
    }

    /// Returns the number of all units.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the number of different units that occur.
    pub fn used(&self) -> usize {
        self.counts.iter().filter(|count| **count > 0).count()
    }

    /// The exponential of the entropy of the units: how many equally frequent units would be as hard to guess.
    pub fn perplexity(&self) -> f64 {
        let total = self.total() as f64;
        let term = |&count: &u64| {
            let share = count as f64 / total;
            -share * share.ln()
        };
        self.counts.iter().filter(|count| **count > 0).map(term).sum::<f64>().exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_use_of_n_units_has_the_perplexity_n() {
        let usage = Usage::of([0, 1, 2, 3, 0, 1, 2, 3, 9], 6);
        assert_eq!((usage.total(), usage.used()), (8, 4));
        assert!((usage.perplexity() - 4.0).abs() < 1e-12);
        assert!((Usage::of([2, 2], 3).perplexity() - 1.0).abs() < 1e-12);
    }
}
