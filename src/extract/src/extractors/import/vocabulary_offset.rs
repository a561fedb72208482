//! Ids of a language model's vocabulary, as Step-Audio's tokenizer hands them out for its prompts, counted from zero again.
//!
//! Its `wav2token` gives the mixed sequence with 65536 added to every id, the linguistic stream likewise, and the semantic stream with
//! 65536 and the size of the linguistic codebook; its own vocoder takes 65536 off again. No codebook reaches as far, so that a
//! stream whose ids all lie there cannot be anything else.

use crate::dual_codebook::DualCodebook;

/// The first speech token in Step-Audio's vocabulary.
const BEGIN: i64 = 65_536;

/// Returns a mixed sequence of two codebooks counted from zero.
///
/// # Errors
/// When it is none.
pub fn mixed_sequence(tokens: Vec<i64>, codebook: DualCodebook) -> Result<Vec<i64>, String> {
    let tokens = from_zero(tokens, 0, codebook)?;
    codebook.check(&tokens).map_err(|problem| problem.to_string())?;
    Ok(tokens)
}

/// Returns the mixed sequence of the linguistic stream `vq02` and the semantic stream `vq06`.
///
/// # Errors
/// When a stream has a token outside of its codebook.
pub fn mixed_streams(linguistic: Vec<i64>, semantic: Vec<i64>, codebook: DualCodebook) -> Result<Vec<i64>, String> {
    let stream = |name: &str, tokens: Vec<i64>, begins_at: usize| -> Result<Vec<u32>, String> {
        let tokens = from_zero(tokens, begins_at, codebook).map_err(|problem| format!("`{name}`: {problem}"))?;
        let number = |token: i64| u32::try_from(token).map_err(|_| format!("`{name}` has {token}, which is no token"));
        tokens.into_iter().map(number).collect()
    };
    let (linguistic, semantic) = (stream("vq02", linguistic, 0)?, stream("vq06", semantic, codebook.linguistic)?);
    codebook.mix(&linguistic, &semantic).map_err(|problem| problem.to_string())
}

/// A stream counted from zero; `begins_at` is where it lies among the tokens of the mixed sequence.
///
/// # Errors
/// When only some of its ids lie in the language model's vocabulary.
fn from_zero(tokens: Vec<i64>, begins_at: usize, codebook: DualCodebook) -> Result<Vec<i64>, String> {
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
