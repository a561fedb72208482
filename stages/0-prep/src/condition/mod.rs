//! Conditions over the columns of rows (`prep.where`): `duration BETWEEN 1 AND 20 AND lang = 'en'`, with the words of SQL.
//!
//! A condition is a list of terms that `AND` joins. A term about columns of the data is checked when these are read, so
//! that no recording is opened in vain; one about a measured column (`duration`, `sample_rate`, `channels`) when the
//! recording was opened. A rejection names the first term that does not hold. A missing value is neither equal nor
//! different, as in SQL: the row is rejected unless the term asks for it (`lang IS NULL`).

mod expression;
mod parse;

use std::fmt;

use flowmill_corpus::UtteranceRow;

use expression::{Expression, Value, added};

/// Columns of rows, with their other names.
const COLUMNS: [(Column, &[&str]); 12] = [
    (Column::Id, &["id", "utt"]),
    (Column::Speaker, &["speaker", "spk", "group"]),
    (Column::Text, &["text"]),
    (Column::Language, &["lang", "language"]),
    (Column::Split, &["split"]),
    (Column::Audio, &["audio", "wav"]),
    (Column::Start, &["start"]),
    (Column::End, &["end"]),
    (Column::Channel, &["channel"]),
    (Column::Duration, &["duration"]),
    (Column::SampleRate, &["sample_rate"]),
    (Column::Channels, &["channels"]),
];

/// A column of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    Id,
    Speaker,
    Text,
    Language,
    Split,
    Audio,
    Start,
    End,
    Channel,
    Duration,
    SampleRate,
    Channels,
    /// A column of `prep.columns`.
    Added(String),
}

/// A term of a condition, with its words.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    words: String,
    expression: Expression,
    is_measured: bool,
}

/// A condition over rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    terms: Vec<Term>,
}

/// The time at which terms are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// When index files were read.
    Read,
    /// When recordings were opened.
    Measured,
    /// All terms at once, where no recording is opened.
    Both,
}

/// A condition that cannot be understood, with the position in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionError {
    at: usize,
    problem: String,
}

impl fmt::Display for ConditionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.at + 1, self.problem)
    }
}

impl Condition {
    /// Parses a condition; `added` are the names of the columns that `prep.columns` adds.
    ///
    /// # Errors
    /// The part that is not understood, and its place.
    pub fn parse(text: &str, added: &[&str]) -> Result<Self, ConditionError> {
        let terms = parse::terms(text, &|name| column(name, added))?;
        let term = |(words, expression): (String, Expression)| {
            let mut columns = Vec::new();
            expression.columns(&mut columns);
            let is_measured = columns.iter().any(|column| column.is_measured());
            if is_measured && columns.contains(&&Column::Split) {
                let problem =
                    "`split` and a measured column are in one term; write them in terms that AND joins".to_owned();
                return Err(ConditionError { at: 0, problem });
            }
            Ok(Term { words, is_measured, expression })
        };
        Ok(Self { terms: terms.into_iter().map(term).collect::<Result<_, _>>()? })
    }

    /// Returns the words of the terms that are checked at this time.
    pub fn words(&self, stage: Stage) -> Vec<&str> {
        self.terms(stage).map(|term| term.words.as_str()).collect()
    }

    fn terms(&self, stage: Stage) -> impl Iterator<Item = &Term> {
        self.terms.iter().filter(move |term| match stage {
            Stage::Read => !term.is_measured,
            Stage::Measured => term.is_measured,
            Stage::Both => true,
        })
    }

    /// Returns the reason for rejecting a row, if any. The part before the colon is the same for all rows that one term
    /// rejects.
    pub fn refuse(&self, row: &UtteranceRow<'_>, stage: Stage) -> Option<String> {
        let term = self.terms(stage).find(|term| term.expression.holds(row) != Some(true))?;
        let mut columns = Vec::new();
        term.expression.columns(&mut columns);
        columns.dedup();
        let shown: Vec<String> =
            columns.iter().map(|column| format!("{} is {}", column.name(), column.of(row))).collect();
        Some(format!("not where {}: {}", term.words.replace(": ", ":"), shown.join(", ")))
    }
}

/// Returns the column with this name.
fn column(name: &str, added: &[&str]) -> Result<Column, String> {
    if added.contains(&name) {
        return Ok(Column::Added(name.to_owned()));
    }
    let own = COLUMNS.iter().find(|(_, names)| names.contains(&name)).map(|(column, _)| column.clone());
    own.ok_or_else(|| {
        let own = COLUMNS.iter().filter_map(|(_, names)| names.first().copied());
        let names: Vec<&str> = own.chain(added.iter().copied()).collect();
        format!("`{name}` is no column; there are {} (prep.columns adds others)", names.join(", "))
    })
}

impl Column {
    /// Returns whether it is known only when the recording was opened.
    fn is_measured(&self) -> bool {
        matches!(self, Self::Duration | Self::SampleRate | Self::Channels)
    }

    /// Returns its name.
    fn name(&self) -> &str {
        match self {
            Self::Added(name) => name,
            own => COLUMNS.iter().find(|(column, _)| column == own).and_then(|(_, names)| names.first()).unwrap_or(&""),
        }
    }

    /// Returns its value in a row.
    fn of<'a>(&self, row: &UtteranceRow<'a>) -> Value<'a> {
        let text = |text: &'a str| if text.is_empty() { Value::Missing } else { Value::Text(text) };
        let number = |number: Option<f64>| number.map_or(Value::Missing, Value::Number);
        match self {
            Self::Id => text(row.utt),
            Self::Speaker => text(row.spk),
            Self::Text => text(row.text),
            Self::Language => row.lang.map_or(Value::Missing, text),
            Self::Split => row.split.map_or(Value::Missing, text),
            Self::Audio => text(row.wav),
            Self::Start => number(row.start),
            Self::End => number(row.end),
            Self::Channel => number(row.channel.map(f64::from)),
            Self::Duration => number(row.duration),
            Self::SampleRate => number(row.sample_rate.map(f64::from)),
            Self::Channels => number(row.channels.map(f64::from)),
            Self::Added(name) => row.extra.map_or(Value::Missing, |extra| added(extra, name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flowmill_corpus::{Array, Extra};

    use super::*;

    fn refused(condition: &str, row: &UtteranceRow<'_>) -> Option<String> {
        Condition::parse(condition, &["snr", "note"]).unwrap().refuse(row, Stage::Both)
    }

    #[test]
    fn rows_are_kept_where_every_term_holds() {
        let columns = BTreeMap::from([("snr".into(), Array::scalar(12.5f64)), ("note".into(), Array::text("17"))]);
        let extra = Extra { columns, ..Extra::default() };
        let row = UtteranceRow {
            utt: "a-1",
            spk: "anna",
            text: "It's 5 % more",
            lang: Some("en"),
            duration: Some(2.5),
            extra: Some(&extra),
            ..UtteranceRow::default()
        };
        for holds in [
            "duration BETWEEN 1 AND 20 AND lang = 'en'",
            "duration between 2.5 and 2.5",
            "NOT (lang IN ('de', 'fr')) and speaker != 'ben'",
            "lang IN ('de', 'en') OR nothing",
            "text LIKE 'It''s 5 _ %' AND id LIKE 'a%1' AND id NOT LIKE 'b%'",
            "snr > 12 AND snr <= 12.5 AND note >= 17",
            "split IS NULL AND lang IS NOT NULL",
            "duration NOT BETWEEN 3 AND 4 AND -1 < start OR true_start IS NULL OR id = 'a-1'",
            "\"lang\" == 'en'",
        ] {
            let holds = holds.replace("nothing", "split = 'x'").replace("true_start", "start");
            assert_eq!(refused(&holds, &row), None, "{holds}");
        }
        for (not, term) in [
            ("lang = 'en' AND duration > 3", "not where duration > 3: duration is 2.5"),
            ("split = 'train'", "not where split = 'train': split is missing"),
            ("NOT split = 'train'", "not where NOT split = 'train': split is missing"),
            ("note = 'x' OR snr < 3", "not where note = 'x' OR snr < 3: note is `17`, snr is 12.5"),
        ] {
            assert_eq!(refused(not, &row).as_deref(), Some(term));
        }
    }

    #[test]
    fn terms_are_checked_as_soon_as_their_columns_are_known() {
        let condition = Condition::parse("lang = 'en' AND (duration > 1 OR channels = 2)", &[]).unwrap();
        assert_eq!(condition.words(Stage::Read), ["lang = 'en'"]);
        assert_eq!(condition.words(Stage::Measured), ["(duration > 1 OR channels = 2)"]);
    }

    #[test]
    fn mistakes_are_placed() {
        let deep = format!("{}id = 1{}", "(".repeat(1000), ")".repeat(1000));
        for (text, at, word) in [
            ("", 0, "column"),
            ("lang = ", 7, "ends"),
            ("lang 'en'", 5, "="),
            ("langs = 'en'", 0, "`langs`"),
            ("lang = 'en", 7, "'"),
            ("lang = 'en' duration", 12, "AND"),
            ("(lang = 'en'", 12, ")"),
            ("duration BETWEEN 1", 18, "AND"),
            ("lang ~ 'en'", 5, "~"),
            ("split = 'a' OR duration > 1", 0, "`split`"),
            (deep.as_str(), 64, "deep"),
        ] {
            let error = Condition::parse(text, &[]).unwrap_err();
            assert!(error.at == at && error.problem.contains(word), "{text}: {error}");
        }
    }
}
