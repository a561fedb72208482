//! Values, comparisons and what follows from them.

use std::cmp::Ordering;
use std::fmt;

use flowmill_corpus::{ArrayData, Extra, UtteranceRow};

use super::Column;

/// A value of a row, or a constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Missing,
    Number(f64),
    Text(&'a str),
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Different,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Column(Column),
    Number(f64),
    Text(String),
}

/// An expression that holds, does not hold, or is unknown.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Compare(Operand, Comparison, Operand),
    In(Operand, Vec<Operand>),
    Like(Operand, String),
    IsMissing(Operand),
}

/// Returns the value of a column of `prep.columns`, if it is a single number or text.
pub(super) fn added<'a>(extra: &'a Extra, name: &str) -> Value<'a> {
    let Some(array) = extra.columns.get(name).filter(|array| array.shape().is_empty()) else { return Value::Missing };
    let number = match array.data() {
        ArrayData::Text(values) => return values.first().map_or(Value::Missing, |text| Value::Text(text)),
        ArrayData::F16(values) => values.first().map(|value| f64::from(*value)),
        ArrayData::F32(values) => values.first().map(|value| f64::from(*value)),
        ArrayData::F64(values) => values.first().copied(),
        ArrayData::I32(values) => values.first().map(|value| f64::from(*value)),
        ArrayData::I64(values) => values.first().map(|value| *value as f64),
        ArrayData::U8(values) => values.first().map(|value| f64::from(*value)),
        ArrayData::Bytes(_) => None,
    };
    number.map_or(Value::Missing, Value::Number)
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "`{}`", text.chars().take(60).collect::<String>()),
        }
    }
}

impl Value<'_> {
    /// Compares two values. A text is compared with a number as a number, if it is one.
    fn compare(self, other: Self) -> Option<Ordering> {
        let parsed = |text: &str| text.trim().parse::<f64>().ok();
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.partial_cmp(&b),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Number(b)) => parsed(a)?.partial_cmp(&b),
            (Self::Number(a), Self::Text(b)) => a.partial_cmp(&parsed(b)?),
            (Self::Missing, _) | (_, Self::Missing) => None,
        }
    }
}

impl Operand {
    fn of<'a>(&'a self, row: &UtteranceRow<'a>) -> Value<'a> {
        match self {
            Self::Column(column) => column.of(row),
            Self::Number(number) => Value::Number(*number),
            Self::Text(text) => Value::Text(text),
        }
    }
}

impl Expression {
    /// Returns whether it holds for a row; `None` if a missing value leaves that open.
    pub(super) fn holds(&self, row: &UtteranceRow<'_>) -> Option<bool> {
        match self {
            Self::Not(inner) => inner.holds(row).map(|holds| !holds),
            // One that does not hold decides, whatever is open.
            Self::And(all) => decide(all, row, false),
            Self::Or(any) => decide(any, row, true),
            Self::Compare(left, comparison, right) => {
                let order = left.of(row).compare(right.of(row))?;
                Some(match comparison {
                    Comparison::Equal => order.is_eq(),
                    Comparison::Different => order.is_ne(),
                    Comparison::Less => order.is_lt(),
                    Comparison::AtMost => order.is_le(),
                    Comparison::Greater => order.is_gt(),
                    Comparison::AtLeast => order.is_ge(),
                })
            }
            Self::In(value, list) => {
                let value = value.of(row);
                if value == Value::Missing {
                    return None;
                }
                Some(list.iter().any(|one| value.compare(one.of(row)).is_some_and(Ordering::is_eq)))
            }
            Self::Like(value, pattern) => match value.of(row) {
                Value::Missing => None,
                Value::Text(text) => Some(is_like(text, pattern)),
                Value::Number(number) => Some(is_like(&number.to_string(), pattern)),
            },
            Self::IsMissing(value) => Some(value.of(row) == Value::Missing),
        }
    }

    /// Collects its columns.
    pub(super) fn columns<'a>(&'a self, columns: &mut Vec<&'a Column>) {
        let mut of = |operand: &'a Operand| {
            if let Operand::Column(column) = operand
                && !columns.contains(&column)
            {
                columns.push(column);
            }
        };
        match self {
            Self::Not(inner) => inner.columns(columns),
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.columns(columns)),
            Self::Compare(left, _, right) => {
                of(left);
                of(right);
            }
            Self::In(value, list) => {
                of(value);
                list.iter().for_each(of);
            }
            Self::Like(value, _) | Self::IsMissing(value) => of(value),
        }
    }
}

/// Returns whether one of several expressions is `wanted`, or all are the opposite; `None` if that is open.
fn decide(expressions: &[Expression], row: &UtteranceRow<'_>, wanted: bool) -> Option<bool> {
    let mut known = true;
    for expression in expressions {
        match expression.holds(row) {
            Some(holds) if holds == wanted => return Some(wanted),
            Some(_) => {}
            None => known = false,
        }
    }
    known.then_some(!wanted)
}

/// Returns whether a text matches a pattern, in which `%` is any text and `_` any character.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut at, mut in_pattern) = (0, 0);
    // The last `%`, and where in the text it was tried.
    let mut star = None;
    while at < text.len() {
        match pattern.get(in_pattern) {
            Some('%') => {
                star = Some((in_pattern, at));
                in_pattern += 1;
            }
            Some(c) if *c == '_' || *c == text[at] => {
                at += 1;
                in_pattern += 1;
            }
            _ => match star {
                Some((place, tried)) => {
                    star = Some((place, tried + 1));
                    (at, in_pattern) = (tried + 1, place + 1);
                }
                None => return false,
            },
        }
    }
    pattern[in_pattern..].iter().all(|c| *c == '%')
}
