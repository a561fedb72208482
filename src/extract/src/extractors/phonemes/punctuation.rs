//! Splitting of a text at its punctuation. A program phonemizes the words in between, and the punctuation is put back afterwards.
//!
//! The marks and the rule are those of the library `phonemizer` with `preserve_punctuation`, which the public VALL-E trainer uses.

/// The marks that are kept.
const MARKS: &str = ";:,.!?¡¿—…\"«»“”(){}[]";

/// A stretch of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'t> {
    /// Words without marks and without blanks around them.
    Words(&'t str),
    /// Marks with the blanks around them.
    Marks(&'t str),
}

impl<'t> Piece<'t> {
    /// The stretch itself.
    pub fn text(&self) -> &'t str {
        match self {
            Self::Words(text) | Self::Marks(text) => text,
        }
    }
}

/// Splits a text into words and marks. Concatenated, the pieces are the text. A point or a comma between two digits is no mark, so that a
/// decimal number stays whole.
pub fn split(text: &str) -> Vec<Piece<'_>> {
    let letters: Vec<(usize, char)> = text.char_indices().collect();
    let is_digit = |at: Option<usize>| at.and_then(|at| letters.get(at)).is_some_and(|(_, c)| c.is_ascii_digit());
    let is_mark = |at: usize| {
        let mark = letters[at].1;
        let in_number = matches!(mark, '.' | ',') && is_digit(at.checked_sub(1)) && is_digit(Some(at + 1));
        MARKS.contains(mark) && !in_number
    };
    let position = |at: usize| letters.get(at).map_or(text.len(), |(position, _)| *position);
    let (mut pieces, mut words_from, mut at) = (Vec::new(), 0, 0);
    while at < letters.len() {
        if !letters[at].1.is_whitespace() && !is_mark(at) {
            at += 1;
            continue;
        }
        let run = at;
        let mut marks = 0;
        while at < letters.len() && (letters[at].1.is_whitespace() || is_mark(at)) {
            marks += usize::from(is_mark(at));
            at += 1;
        }
        if marks > 0 {
            if words_from < run {
                pieces.push(Piece::Words(&text[position(words_from)..position(run)]));
            }
            pieces.push(Piece::Marks(&text[position(run)..position(at)]));
            words_from = at;
        }
    }
    if words_from < letters.len() {
        pieces.push(Piece::Words(&text[position(words_from)..]));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use Piece::{Marks, Words};

    #[test]
    fn words_and_marks_alternate() {
        assert_eq!(
            split("Hello -- world (this is) a \"test\"... ok?!"),
            [
                Words("Hello -- world"),
                Marks(" ("),
                Words("this is"),
                Marks(") "),
                Words("a"),
                Marks(" \""),
                Words("test"),
                Marks("\"... "),
                Words("ok"),
                Marks("?!"),
            ]
        );
        assert_eq!(
            split("Dr. 3.5, or 1,"),
            [Words("Dr"), Marks(". "), Words("3.5"), Marks(", "), Words("or 1"), Marks(",")]
        );
        assert_eq!(split("« hi » there"), [Marks("« "), Words("hi"), Marks(" » "), Words("there")]);
        assert_eq!(split("one two"), [Words("one two")]);
        assert_eq!(split("?!"), [Marks("?!")]);
        assert_eq!(split(""), []);
    }

    #[test]
    fn the_pieces_are_the_text() {
        for text in ["a.b", "  , a", "…日本、語。", "1.", ".1", "x [y] {z}", "¿qué?"] {
            assert_eq!(split(text).iter().map(Piece::text).collect::<String>(), text);
        }
    }
}
