//! Corpora whose features were made by different extractors: unit 17 of one codebook is another sound than unit 17 of
//! another.

use flowmill_corpus::shard::MadeBy;
use flowmill_extract::extractors::{import, packed};

use crate::leakage::Indexed;

/// Warns of splits whose columns were made in another way than those of the first split.
pub fn warn(splits: &[Indexed<'_>], tell: &dyn Fn(String)) {
    let Some((first, others)) = splits.split_first() else { return };
    for other in others {
        for (column, theirs) in &other.index.extractors {
            let Some(how) = first.index.extractors.get(column).and_then(|ours| difference(ours, theirs)) else {
                continue;
            };
            let (ours, theirs) = (first.path.display(), other.path.display());
            tell(format!(
                "WARNING: {column} of {theirs} was made {how} than that of {ours}: equal numbers have different meanings. Prepare \
                 both corpora in one recipe, or with the same weights"
            ));
        }
    }
}

/// Describes the difference between the origins of two columns.
fn difference(ours: &MadeBy, theirs: &MadeBy) -> Option<String> {
    if ours.kind != theirs.kind {
        return Some(format!("by another extractor ({}, not {})", theirs.kind, ours.kind));
    }
    // Imported files differ from corpus to corpus, whatever their origin.
    let apart = ours.blake3 != theirs.blake3 && ![import::KIND, packed::KIND].contains(&ours.kind.as_str());
    apart.then(|| format!("by a {} with other settings or weights, or fitted on other speech,", ours.kind))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use flowmill_corpus::shard::ShardIndex;

    use super::*;

    fn index(kind: &str, blake3: &str) -> ShardIndex {
        let made_by = MadeBy { kind: kind.to_owned(), blake3: blake3.to_owned() };
        let index = ShardIndex::new("train", serde_json::Value::Null, Vec::new());
        index.made_by([("speech_token".to_owned(), made_by)].into())
    }

    fn told(ours: &ShardIndex, theirs: &ShardIndex) -> Vec<String> {
        let said = RefCell::new(Vec::new());
        let splits = [(ours, "a/index.json"), (theirs, "b/index.json")];
        let splits = splits.map(|(index, path)| Indexed { path: Path::new(path), index });
        warn(&splits, &|line| said.borrow_mut().push(line));
        said.into_inner()
    }

    #[test]
    fn columns_of_other_extractors_are_told() {
        let ours = index("kmeans", "1");
        assert_eq!(told(&ours, &ours), Vec::<String>::new());
        let fitted_apart = told(&ours, &index("kmeans", "2"));
        let named =
            |told: &[String], values: &[&str]| told.len() == 1 && values.iter().all(|value| told[0].contains(value));
        assert!(named(&fitted_apart, &["speech_token of b/index.json", "kmeans", "a/index.json"]), "{fitted_apart:?}");
        let other = told(&ours, &index("s3-tokenizer", "3"));
        assert!(
            named(&other, &["speech_token of b/index.json", "s3-tokenizer", "kmeans", "a/index.json"]),
            "{other:?}"
        );
    }

    #[test]
    fn imports_and_indexes_that_do_not_say_are_left_in_peace() {
        assert_eq!(told(&index("import", "1"), &index("import", "2")), Vec::<String>::new());
        let silent = ShardIndex::new("train", serde_json::Value::Null, Vec::new());
        assert_eq!(told(&index("kmeans", "1"), &silent), Vec::<String>::new());
        assert_eq!(told(&silent, &index("kmeans", "1")), Vec::<String>::new());
    }
}
