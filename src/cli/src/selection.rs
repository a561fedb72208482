//! Which stages are meant: a number, or a name, and the range between two of them.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::failure::Failure;

/// One stage as typed: its number or its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageSelector {
    /// By number, `4`.
    Number(u8),
    /// By name, `train`.
    Name(String),
}

impl FromStr for StageSelector {
    type Err = String;

    /// Accepts `4`, `train` and the folder name `4-train`.
    fn from_str(typed: &str) -> Result<Self, Self::Err> {
        let number = typed.split_once('-').map_or(typed, |(before, _)| before);
        if let Ok(number) = number.parse() {
            return Ok(Self::Number(number));
        }
        if typed.is_empty() || !typed.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_') {
            return Err("give the number or the name of a stage".into());
        }
        Ok(Self::Name(typed.to_lowercase()))
    }
}

impl fmt::Display for StageSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(out, "{number}"),
            Self::Name(name) => write!(out, "{name}"),
        }
    }
}

/// The range of stage numbers between `first` and `last`, both included, of the `known` (number, name) pairs in order.
///
/// A side left out means the first or the last stage there is.
///
/// # Errors
/// A stage that is not known, or a range that ends before it starts.
pub fn stage_range(
    known: &[(u8, &str)],
    first: Option<&StageSelector>,
    last: Option<&StageSelector>,
) -> Result<RangeInclusive<u8>, Failure> {
    let lowest = known.first().map_or(0, |stage| stage.0);
    let highest = known.last().map_or(0, |stage| stage.0);
    let first = first.map_or(Ok(lowest), |typed| find(known, typed))?;
    let last = last.map_or(Ok(highest), |typed| find(known, typed))?;
    if first > last {
        return Err(Failure::usage(format!(
            "--stage {first} comes after --stop-stage {last}, so no stage would run"
        )));
    }
    Ok(first..=last)
}

/// The number of the stage that was typed.
fn find(known: &[(u8, &str)], typed: &StageSelector) -> Result<u8, Failure> {
    let matches = |stage: &&(u8, &str)| match typed {
        StageSelector::Number(number) => stage.0 == *number,
        StageSelector::Name(name) => stage.1 == name,
    };
    known.iter().find(matches).map(|stage| stage.0).ok_or_else(|| {
        let list: Vec<String> = known.iter().map(|(number, name)| format!("{number} {name}")).collect();
        Failure::usage(format!("there is no stage `{typed}`; the stages are {}", list.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(u8, &str); 3] = [(0, "prep"), (1, "embed"), (2, "tokens")];

    fn typed(text: &str) -> StageSelector {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_names_and_folders_select() {
        for last in ["1", "embed", "EMBED", "1-embed"] {
            let range = stage_range(&KNOWN, Some(&typed("prep")), Some(&typed(last))).unwrap();
            assert_eq!(range, 0..=1, "{last}");
        }
    }

    #[test]
    fn everything_is_the_default() {
        assert_eq!(stage_range(&KNOWN, None, None).unwrap(), 0..=2);
    }

    #[test]
    fn unknown_and_reversed_are_usage_errors() {
        let unknown = stage_range(&KNOWN, Some(&typed("7")), None).unwrap_err();
        assert_eq!(unknown.exit_code(), 2);
        assert!(unknown.to_string().contains("0 prep, 1 embed, 2 tokens"), "{unknown}");
        let reversed = stage_range(&KNOWN, Some(&typed("2")), Some(&typed("0"))).unwrap_err();
        assert_eq!(reversed.exit_code(), 2);
        assert!("".parse::<StageSelector>().is_err());
    }
}
