//! The use of the units by the splits.

use std::collections::BTreeMap;

use flowmill_extract::extractors::kmeans::Usage;
use flowmill_extract::{Facts, ValueType};
use serde_json::{Map, Value, json};

/// Units by split.
pub(crate) struct Counts {
    vocabulary: usize,
    splits: BTreeMap<String, Usage>,
}

impl Counts {
    /// Creates an empty count of units of a vocabulary.
    pub(crate) fn new(values: ValueType) -> Self {
        let vocabulary = if let ValueType::Tokens { vocabulary, .. } = values { vocabulary } else { 0 };
        Self { vocabulary, splits: BTreeMap::new() }
    }

    /// Adds the units of one utterance.
    pub(crate) fn add(&mut self, split: &str, tokens: &[i64]) {
        let usage = self.splits.entry(split.to_owned()).or_insert_with(|| Usage::of([], self.vocabulary));
        usage.add(tokens.iter().filter_map(|&token| usize::try_from(token).ok()));
    }

    /// The figures, for a file.
    pub(crate) fn to_json(&self) -> Value {
        let figures = |(split, usage): (&String, &Usage)| {
            let figures =
                json!({"tokens": usage.total(), "used": usage.used(), "perplexity": rounded(usage.perplexity())});
            (split.clone(), figures)
        };
        let splits: Map<String, Value> = self.splits.iter().map(figures).collect();
        json!({"vocabulary": self.vocabulary, "splits": splits})
    }

    /// The figures, for a person.
    pub(crate) fn facts(&self) -> Facts {
        let split = |(split, usage): (&String, &Usage)| {
            let used = format!("{} of {}", usage.used(), self.vocabulary);
            [
                (format!("units used in {split}"), json!(used)),
                (format!("perplexity in {split}"), json!(rounded(usage.perplexity()))),
            ]
        };
        self.splits.iter().flat_map(split).collect()
    }
}

/// Rounds to one decimal place.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_counted_apart() {
        let mut counts = Counts::new(ValueType::Tokens { vocabulary: 8, rate: 25.0 });
        counts.add("train", &[0, 1, 2, 3]);
        counts.add("dev", &[5, 5]);
        counts.add("train", &[0, 1, 2, 3]);
        let json = counts.to_json();
        assert_eq!(json["splits"]["train"], json!({"tokens": 8, "used": 4, "perplexity": 4.0}));
        assert_eq!(json["splits"]["dev"], json!({"tokens": 2, "used": 1, "perplexity": 1.0}));
        assert_eq!(counts.facts()[0], ("units used in dev".to_owned(), json!("1 of 8")));
    }
}
