//! Ids of a language model's vocabulary, as Step-Audio's tokenizer hands them out for its prompts, counted from zero again.
//!
//! Its `wav2token` gives the mixed sequence with 65536 added to every id, the linguistic stream likewise, and the semantic stream with
//! 65536 and the size of the linguistic codebook; its own vocoder takes 65536 off again. No codebook reaches as far, so that a
//! stream whose ids all lie there cannot be anything else.

use crate::dual_codebook::DualCodebook;

/// The first speech token in Step-Audio's vocabulary.
const BEGIN: i64 = 65_536;

/// A stream counted from zero; `begins_at` is where it lies among the tokens of the mixed sequence.
///
/// # Errors
/// When only some of its ids lie in the language model's vocabulary.
pub fn from_zero(tokens: Vec<i64>, begins_at: usize, codebook: DualCodebook) -> Result<Vec<i64>, String> {
    let beyond = tokens.iter().filter(|&&token| token >= BEGIN).count();
    if beyond == 0 || codebook.mixed_vocabulary() as i64 > BEGIN {
        return Ok(tokens);
    }
    if beyond < tokens.len() {
        let all = tokens.len();
        return Err(format!(
            "{beyond} of {all} tokens are {BEGIN} or more, as ids of a language model's vocabulary are, the others not; take {BEGIN} off those"
        ));
    }
    Ok(tokens.into_iter().map(|token| token - BEGIN - begins_at as i64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_language_model_are_counted_from_zero() {
        let codebook = DualCodebook::default();
        let mixed = vec![65_537, 65_538, 66_566, 66_567, 66_568];
        assert_eq!(from_zero(mixed, 0, codebook).unwrap(), [1, 2, 1030, 1031, 1032]);
        assert_eq!(from_zero(vec![66_566, 66_567], 1024, codebook).unwrap(), [6, 7]);
        assert_eq!(from_zero(vec![6, 7], 1024, codebook).unwrap(), [6, 7]);
        assert!(from_zero(vec![6, 65_537], 0, codebook).unwrap_err().contains("1 of 2 tokens"));
    }
}
