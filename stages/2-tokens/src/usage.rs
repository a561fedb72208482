//! The use of the units by the splits.

use std::collections::BTreeMap;

use flowmill_corpus::{Array, ArrayError};
use flowmill_extract::extractors::kmeans::Usage;
use flowmill_extract::{Facts, ValueType};
use serde_json::{Map, Value, json};

/// Units by split.
pub(crate) struct Counts {
    vocabulary: usize,
    /// The number of levels of codes; none for tokens.
    levels: Option<usize>,
    /// The use of each level; one of tokens.
    splits: BTreeMap<String, Vec<Usage>>,
}

impl Counts {
    /// Creates an empty count of units of a column of tokens or codes.
    pub(crate) fn new(values: ValueType) -> Self {
        let (vocabulary, levels) = match values {
            ValueType::Tokens { vocabulary, .. } => (vocabulary, None),
            ValueType::Codes { levels, vocabulary, .. } => (vocabulary, Some(levels)),
            _ => (0, None),
        };
        Self { vocabulary, levels, splits: BTreeMap::new() }
    }

    /// Adds the units of one utterance: tokens `[token]` or codes `[level, frame]`.
    ///
    /// # Errors
    /// When they are not of the column's type.
    pub(crate) fn add(&mut self, split: &str, units: &Array) -> Result<(), ArrayError> {
        let empty = || vec![Usage::of([], self.vocabulary); self.levels.unwrap_or(1)];
        let usages = self.splits.entry(split.to_owned()).or_insert_with(empty);
        match self.levels {
            None => usages.iter_mut().try_for_each(|usage| {
                usage.add(units.values::<i64>()?.iter().filter_map(|&token| usize::try_from(token).ok()));
                Ok(())
            }),
            Some(levels) => {
                let codes = units.values::<i32>()?;
                let frames = (codes.len() / levels.max(1)).max(1);
                for (usage, level) in usages.iter_mut().zip(codes.chunks_exact(frames)) {
                    usage.add(level.iter().filter_map(|&code| usize::try_from(code).ok()));
                }
                Ok(())
            }
        }
    }

    /// The figures, for a file.
    pub(crate) fn to_json(&self) -> Value {
        let level = |usage: &Usage| json!({"used": usage.used(), "perplexity": rounded(usage.perplexity())});
        let figures = |(split, usages): (&String, &Vec<Usage>)| {
            let total = usages.first().map_or(0, Usage::total);
            let figures = match (self.levels, usages.as_slice()) {
                (None, [usage]) => {
                    json!({"tokens": total, "used": usage.used(), "perplexity": rounded(usage.perplexity())})
                }
                _ => json!({"frames": total, "levels": usages.iter().map(level).collect::<Vec<_>>()}),
            };
            (split.clone(), figures)
        };
        let splits: Map<String, Value> = self.splits.iter().map(figures).collect();
        match self.levels {
            None => json!({"vocabulary": self.vocabulary, "splits": splits}),
            Some(levels) => json!({"vocabulary": self.vocabulary, "levels": levels, "splits": splits}),
        }
    }

    /// The figures, for a person.
    pub(crate) fn facts(&self) -> Facts {
        let split = |(split, usages): (&String, &Vec<Usage>)| {
            let list = |figure: fn(&Usage) -> String| usages.iter().map(figure).collect::<Vec<_>>().join(", ");
            let used = format!("{} of {}", list(|usage| usage.used().to_string()), self.vocabulary);
            let perplexity = match usages.as_slice() {
                [usage] => json!(rounded(usage.perplexity())),
                _ => json!(list(|usage| format!("{:.1}", usage.perplexity()))),
            };
            [(format!("units used in {split}"), json!(used)), (format!("perplexity in {split}"), perplexity)]
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
        for (split, tokens) in [("train", vec![0i64, 1, 2, 3]), ("dev", vec![5, 5]), ("train", vec![0, 1, 2, 3])] {
            counts.add(split, &Array::vector(tokens)).unwrap();
        }
        let json = counts.to_json();
        assert_eq!(json["splits"]["train"], json!({"tokens": 8, "used": 4, "perplexity": 4.0}));
        assert_eq!(json["splits"]["dev"], json!({"tokens": 2, "used": 1, "perplexity": 1.0}));
        assert_eq!(counts.facts()[0], ("units used in dev".to_owned(), json!("1 of 8")));
        assert!(matches!(counts.add("dev", &Array::vector(vec![1i32])), Err(ArrayError::Type { .. })));
    }

    #[test]
    fn levels_of_codes_are_counted_apart() {
        let mut counts = Counts::new(ValueType::Codes { levels: 2, vocabulary: 8, rate: 75.0 });
        let codes = Array::new(vec![2, 3], vec![0i32, 1, 0, 7, 7, 7]).unwrap();
        counts.add("train", &codes).unwrap();
        counts.add("train", &codes).unwrap();
        let json = counts.to_json();
        assert_eq!((&json["levels"], &json["splits"]["train"]["frames"]), (&json!(2), &json!(6)));
        assert_eq!(
            json["splits"]["train"]["levels"],
            json!([{"used": 2, "perplexity": 1.9}, {"used": 1, "perplexity": 1.0}])
        );
        assert_eq!(counts.facts()[0], ("units used in train".to_owned(), json!("2, 1 of 8")));
        assert!(counts.add("train", &Array::vector(vec![1i64])).is_err());
    }
}
