//! One embedding per speaker.

use std::collections::BTreeMap;

/// Sums of embeddings by speaker.
#[derive(Default)]
pub(crate) struct Means {
    sums: BTreeMap<String, (Vec<f64>, u64)>,
}

impl Means {
    /// Adds one utterance's embedding.
    pub(crate) fn add(&mut self, spk: String, embedding: &[f32]) {
        let (sum, count) = self.sums.entry(spk).or_default();
        sum.resize(embedding.len().max(sum.len()), 0.0);
        sum.iter_mut().zip(embedding).for_each(|(sum, value)| *sum += f64::from(*value));
        *count += 1;
    }

    /// The plain mean of every speaker, as CosyVoice's recipe takes it; sorted by speaker.
    pub(crate) fn finish(self) -> Vec<(String, Vec<f32>)> {
        let mean = |(sum, count): (Vec<f64>, u64)| sum.into_iter().map(|sum| (sum / count as f64) as f32).collect();
        self.sums.into_iter().map(|(spk, sums)| (spk, mean(sums))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_speaker_has_the_mean_of_their_own() {
        let mut means = Means::default();
        means.add("b".into(), &[1.0, 0.0]);
        means.add("a".into(), &[0.5, 0.5]);
        means.add("b".into(), &[0.0, 1.0]);
        let expected = vec![("a".to_owned(), vec![0.5, 0.5]), ("b".to_owned(), vec![0.5, 0.5])];
        assert_eq!(means.finish(), expected);
    }
}
