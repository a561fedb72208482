//! The grammar of conditions.

use super::expression::{Comparison, Expression, Operand};
use super::{Column, ConditionError};

/// The deepest nesting of parentheses and `NOT`.
const DEEPEST: usize = 64;

/// A word of a condition.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A name or a keyword.
    Word(String),
    /// A name in double quotes.
    Quoted(String),
    Number(f64),
    Text(String),
    Sign(&'static str),
}

/// Signs, longer ones first.
const SIGNS: [&str; 12] = ["==", "!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ",", "-"];

struct Parser<'a> {
    /// The words with the positions of their first and behind their last characters.
    tokens: Vec<(Token, usize, usize)>,
    at: usize,
    end: usize,
    depth: usize,
    column: &'a dyn Fn(&str) -> Result<Column, String>,
}

/// Parses a condition into the terms that `AND` joins, each with its words.
pub(super) fn terms(
    text: &str,
    column: &dyn Fn(&str) -> Result<Column, String>,
) -> Result<Vec<(String, Expression)>, ConditionError> {
    let characters: Vec<char> = text.chars().collect();
    let tokens = tokens(&characters)?;
    let mut parser = Parser { tokens, at: 0, end: characters.len(), depth: 0, column };
    let mut parts = Vec::new();
    let whole = parser.any(&mut Some(&mut parts))?;
    if parser.at < parser.tokens.len() {
        return Err(parser.error("AND or OR is expected here"));
    }
    let words = |from: usize, to: usize| characters[from..to].iter().collect::<String>();
    match whole {
        // Only terms at the top were noted.
        Expression::And(all) if all.len() == parts.len() => {
            Ok(all.into_iter().zip(parts).map(|(term, (from, to))| (words(from, to), term)).collect())
        }
        one => Ok(vec![(text.trim().to_owned(), one)]),
    }
}

/// Splits a condition into words.
fn tokens(characters: &[char]) -> Result<Vec<(Token, usize, usize)>, ConditionError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = characters.get(at) {
        let from = at;
        let run = |from: usize, is: &dyn Fn(char) -> bool| {
            characters[from..].iter().position(|c| !is(*c)).map_or(characters.len(), |length| from + length)
        };
        let token = if c.is_whitespace() {
            at += 1;
            continue;
        } else if c == '\'' || c == '"' {
            let (text, behind) = quoted(characters, at)
                .ok_or_else(|| ConditionError { at, problem: format!("a text begins with {c} and does not end") })?;
            at = behind;
            if c == '"' { Token::Quoted(text) } else { Token::Text(text) }
        } else if c.is_ascii_digit() || (c == '.' && characters.get(at + 1).is_some_and(char::is_ascii_digit)) {
            at = run(at, &|c| c.is_ascii_alphanumeric() || c == '.');
            // The sign of an exponent.
            if matches!(characters[at - 1], 'e' | 'E') && characters.get(at).is_some_and(|c| matches!(c, '+' | '-')) {
                at = run(at + 1, &|c| c.is_ascii_digit());
            }
            let text: String = characters[from..at].iter().collect();
            let problem = || ConditionError { at: from, problem: format!("`{text}` is no number") };
            Token::Number(text.parse().map_err(|_| problem())?)
        } else if c.is_alphabetic() || c == '_' {
            at = run(at, &|c| c.is_alphanumeric() || c == '_');
            Token::Word(characters[from..at].iter().collect())
        } else {
            let is_here = |sign: &&&str| sign.chars().enumerate().all(|(n, c)| characters.get(from + n) == Some(&c));
            let sign = SIGNS.iter().find(is_here).copied();
            let sign = sign.ok_or_else(|| ConditionError { at, problem: format!("`{c}` has no meaning here") })?;
            at += sign.len();
            Token::Sign(sign)
        };
        tokens.push((token, from, at));
    }
    Ok(tokens)
}

/// Returns the text in quotes that begins at a position, and the position behind it. Two quotes stand for one.
fn quoted(characters: &[char], from: usize) -> Option<(String, usize)> {
    let quote = characters[from];
    let (mut text, mut at) = (String::new(), from + 1);
    loop {
        let c = *characters.get(at)?;
        if c != quote {
            text.push(c);
            at += 1;
        } else if characters.get(at + 1) == Some(&quote) {
            text.push(quote);
            at += 2;
        } else {
            return Some((text, at + 1));
        }
    }
}

/// The stretches of the terms at the top.
type Parts<'p> = Option<&'p mut Vec<(usize, usize)>>;

impl Parser<'_> {
    fn error(&self, problem: &str) -> ConditionError {
        match self.tokens.get(self.at) {
            Some((_, at, _)) => ConditionError { at: *at, problem: problem.to_owned() },
            None => ConditionError { at: self.end, problem: format!("it ends, but {problem}") },
        }
    }

    /// Takes a keyword, in upper or lower case.
    fn takes(&mut self, keyword: &str) -> bool {
        let found =
            matches!(self.tokens.get(self.at), Some((Token::Word(word), ..)) if word.eq_ignore_ascii_case(keyword));
        self.at += usize::from(found);
        found
    }

    fn takes_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some((Token::Sign(own), ..)) if *own == sign);
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, sign: &str) -> Result<(), ConditionError> {
        if self.takes_sign(sign) { Ok(()) } else { Err(self.error(&format!("`{sign}` is expected here"))) }
    }

    /// `A OR B`.
    fn any(&mut self, parts: &mut Parts<'_>) -> Result<Expression, ConditionError> {
        let mut all = vec![self.all(parts)?];
        while self.takes("OR") {
            all.push(self.all(&mut None)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::Or(all) })
    }

    /// `A AND B`.
    fn all(&mut self, parts: &mut Parts<'_>) -> Result<Expression, ConditionError> {
        let mut all = Vec::new();
        loop {
            let first = self.at;
            all.push(self.one()?);
            if let Some(parts) = parts {
                let from = self.tokens.get(first).map_or(0, |token| token.1);
                let to = self.tokens.get(self.at - 1).map_or(self.end, |token| token.2);
                parts.push((from, to));
            }
            if !self.takes("AND") {
                break;
            }
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::And(all) })
    }

    /// `NOT A`, `(A)`, or a comparison.
    fn one(&mut self) -> Result<Expression, ConditionError> {
        if self.depth == DEEPEST {
            return Err(self.error("it is nested too deep"));
        }
        self.depth += 1;
        let one = if self.takes("NOT") {
            Expression::Not(Box::new(self.one()?))
        } else if self.takes_sign("(") {
            let inner = self.any(&mut None)?;
            self.sign(")")?;
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(one)
    }

    fn comparison(&mut self) -> Result<Expression, ConditionError> {
        let left = self.operand()?;
        if self.takes("IS") {
            let is_not = self.takes("NOT");
            if !self.takes("NULL") {
                return Err(self.error("NULL is expected here"));
            }
            return Ok(negated(Expression::IsMissing(left), is_not));
        }
        let is_not = self.takes("NOT");
        if self.takes("BETWEEN") {
            let low = self.operand()?;
            if !self.takes("AND") {
                return Err(self.error("AND is expected here: `BETWEEN 1 AND 20`"));
            }
            let high = self.operand()?;
            let both = [(Comparison::AtLeast, low), (Comparison::AtMost, high)];
            let both = both.map(|(comparison, bound)| Expression::Compare(left.clone(), comparison, bound));
            return Ok(negated(Expression::And(both.into()), is_not));
        }
        if self.takes("IN") {
            self.sign("(")?;
            let mut list = vec![self.operand()?];
            while self.takes_sign(",") {
                list.push(self.operand()?);
            }
            self.sign(")")?;
            return Ok(negated(Expression::In(left, list), is_not));
        }
        if self.takes("LIKE") {
            let Some((Token::Text(pattern), ..)) = self.tokens.get(self.at).cloned() else {
                return Err(self.error("a text in single quotes is expected here"));
            };
            self.at += 1;
            return Ok(negated(Expression::Like(left, pattern), is_not));
        }
        if is_not {
            return Err(self.error("BETWEEN, IN or LIKE is expected here"));
        }
        let comparisons = [
            ("=", Comparison::Equal),
            ("==", Comparison::Equal),
            ("!=", Comparison::Different),
            ("<>", Comparison::Different),
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let Some((_, comparison)) = comparisons.into_iter().find(|(sign, _)| self.takes_sign(sign)) else {
            return Err(self.error("a comparison is expected here: =, !=, <, <=, >, >=, BETWEEN, IN, LIKE or IS NULL"));
        };
        Ok(Expression::Compare(left, comparison, self.operand()?))
    }

    fn operand(&mut self) -> Result<Operand, ConditionError> {
        let is_negative = self.takes_sign("-");
        let Some((token, at, _)) = self.tokens.get(self.at).cloned() else {
            return Err(self.error("a column, a number or a text is expected here"));
        };
        let operand = match token {
            Token::Number(number) => Operand::Number(if is_negative { -number } else { number }),
            _ if is_negative => return Err(self.error("a number is expected here")),
            Token::Text(text) => Operand::Text(text),
            Token::Word(name) | Token::Quoted(name) => {
                Operand::Column((self.column)(&name).map_err(|problem| ConditionError { at, problem })?)
            }
            Token::Sign(_) => return Err(self.error("a column, a number or a text in single quotes is expected here")),
        };
        self.at += 1;
        Ok(operand)
    }
}

fn negated(expression: Expression, is_not: bool) -> Expression {
    if is_not { Expression::Not(Box::new(expression)) } else { expression }
}
