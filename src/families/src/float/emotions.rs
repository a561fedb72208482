//! The emotions that the condition of a model has probabilities of.

use flowmill_corpus::Row;

use super::rows::RowFault;

/// The emotions, in the order of the public classifier.
pub const EMOTIONS: [&str; 7] = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"];
/// The column with the probability of each emotion, `f32 [class]`.
pub const EMOTION: &str = "emotion";
/// The column with the name of an emotion.
pub const EMOTION_LABEL: &str = "emotion_label";

/// Returns the condition for an emotion by its name; none for a name that is not an emotion.
pub fn by_name(name: &str) -> Option<Vec<f32>> {
    let place = EMOTIONS.iter().position(|own| own.eq_ignore_ascii_case(name.trim()))?;
    Some((0..EMOTIONS.len()).map(|at| f32::from(u8::from(at == place))).collect())
}

/// Returns the condition of a row: its probabilities, or its label. A row without both has zeros, the value of a condition that is left out.
///
/// # Errors
/// [`RowFault::Emotion`] for an unknown label, [`RowFault::Emotions`] for another number of probabilities.
pub fn of(row: &Row) -> Result<Vec<f32>, RowFault> {
    if row.columns.contains_key(EMOTION) {
        let probabilities = row.values::<f32>(EMOTION)?;
        return match probabilities.len() == EMOTIONS.len() && probabilities.iter().all(|value| value.is_finite()) {
            true => Ok(probabilities.to_vec()),
            false => Err(RowFault::Emotions { found: probabilities.len() }),
        };
    }
    match row.columns.contains_key(EMOTION_LABEL) {
        false => Ok(vec![0.0; EMOTIONS.len()]),
        true => {
            let label = row.text(EMOTION_LABEL)?;
            by_name(label).ok_or_else(|| RowFault::Emotion { label: label.to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use flowmill_corpus::Array;

    use super::*;

    fn row(name: &str, value: Array) -> Row {
        Row { columns: [(name.to_owned(), value)].into(), ..Row::default() }
    }

    #[test]
    fn a_condition_is_of_probabilities_or_of_a_label() {
        assert_eq!(of(&Row::default()).unwrap(), [0.0; 7]);
        assert_eq!(of(&row(EMOTION_LABEL, Array::text("Happy"))).unwrap(), [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(of(&row(EMOTION, Array::vector(vec![0.5f32; 7]))).unwrap(), [0.5; 7]);
        assert!(matches!(of(&row(EMOTION_LABEL, Array::text("bored"))), Err(RowFault::Emotion { .. })));
        assert!(matches!(of(&row(EMOTION, Array::vector(vec![0.5f32; 6]))), Err(RowFault::Emotions { found: 6 })));
    }
}
