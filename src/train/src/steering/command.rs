//! Commands in the form that people write: `save`, `lr 1e-4`, `eval@5000`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Positive;

/// Every command with its argument, for messages.
const FORMS: [&str; 8] = ["save", "quit", "lr RATE", "eval", "sample", "export", "status", "loss-scale SCALE"];

/// A command to a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Command {
    /// Saves a checkpoint.
    Save,
    /// Saves a checkpoint and stops, so that the run can be continued later.
    Quit,
    /// Sets the full learning rate, which the schedule scales.
    Lr(Positive),
    /// Validates.
    Eval,
    /// Generates a few validation utterances.
    Sample,
    /// Exports the weights as a model that can be loaded.
    Export,
    /// Reports the progress of the training.
    Status,
    /// Sets the scale of the loss in half precision.
    LossScale(Positive),
}

/// A command with the step when it is due. Stored in the form that people write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Order {
    /// The command.
    pub command: Command,
    /// The number of steps after which it is due; immediately if absent.
    pub at: Option<u64>,
}

/// Reason why a line is not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The line is empty.
    #[error("an empty line is not a command (known: {})", FORMS.join(", "))]
    Empty,
    /// No command has this name.
    #[error("there is no command `{name}`{} (known: {})", did_you_mean(.name), FORMS.join(", "))]
    Unknown {
        /// The name that was written.
        name: String,
    },
    /// The argument is missing or invalid.
    #[error("`{name}` needs {needs}, such as `{example}`{}", .found.as_ref().map_or(String::new(), |found| format!("; `{found}` is not one")))]
    Argument {
        /// The command.
        name: &'static str,
        /// The argument that it needs.
        needs: &'static str,
        /// An example.
        example: &'static str,
        /// The argument that was written instead.
        found: Option<String>,
    },
    /// The line continues after the command.
    #[error("`{name}` takes no further arguments; remove `{rest}`")]
    Rest {
        /// The command.
        name: String,
        /// The superfluous text.
        rest: String,
    },
    /// The text after `@` is not a step.
    #[error("`@{written}` is not a step; write `{meant}` for after step {}", step_of(.meant))]
    Step {
        /// The text after `@`.
        written: String,
        /// The correct form.
        meant: String,
    },
}

impl FromStr for Order {
    type Err = CommandError;

    fn from_str(line: &str) -> Result<Self, CommandError> {
        let (line, at) = match line.rsplit_once('@') {
            Some((command, step)) => (command, Some(parse_step(command, step.trim())?)),
            None => (line, None),
        };
        let mut words = line.split_whitespace();
        let name = words.next().ok_or(CommandError::Empty)?;
        let rest: Vec<&str> = words.collect();
        Ok(Self { command: Command::parse(name, &rest)?, at })
    }
}

impl Command {
    fn parse(name: &str, rest: &[&str]) -> Result<Self, CommandError> {
        let command = match name.to_lowercase().replace('_', "-").as_str() {
            "save" => Self::Save,
            "quit" => Self::Quit,
            "eval" => Self::Eval,
            "sample" => Self::Sample,
            "export" => Self::Export,
            "status" => Self::Status,
            "lr" => return argument("lr", "a positive rate", "lr 1e-4", rest, |text| text.parse().ok().map(Self::Lr)),
            "loss-scale" => {
                let needs = "a positive number";
                return argument("loss-scale", needs, "loss-scale 65536", rest, |text| {
                    text.parse().ok().map(Self::LossScale)
                });
            }
            _ => return Err(CommandError::Unknown { name: name.to_owned() }),
        };
        match rest {
            [] => Ok(command),
            rest => Err(CommandError::Rest { name: command.to_string(), rest: rest.join(" ") }),
        }
    }
}

fn argument(
    name: &'static str,
    needs: &'static str,
    example: &'static str,
    rest: &[&str],
    parse: impl Fn(&str) -> Option<Command>,
) -> Result<Command, CommandError> {
    let wrong = |found: Option<&&str>| CommandError::Argument {
        name,
        needs,
        example,
        found: found.map(|found| (*found).to_owned()),
    };
    match rest {
        [written] => parse(written).ok_or_else(|| wrong(Some(written))),
        [] => Err(wrong(None)),
        [_, rest @ ..] => Err(CommandError::Rest { name: name.to_owned(), rest: rest.join(" ") }),
    }
}

fn parse_step(command: &str, written: &str) -> Result<u64, CommandError> {
    let wrong = |_| CommandError::Step { written: written.to_owned(), meant: meant(command, written) };
    written.parse().map_err(wrong)
}

/// Returns the command in its correct form if its argument was written after the step (`lr@60 1e-4`), otherwise an example.
fn meant(command: &str, written: &str) -> String {
    let order = written.split_once(char::is_whitespace).and_then(|(step, argument)| {
        let order = format!("{} {}@{step}", command.trim(), argument.trim());
        order.parse::<Order>().ok().map(|_| order)
    });
    order.unwrap_or("save@5000".to_owned())
}

/// Returns the text after the `@`.
fn step_of(order: &str) -> &str {
    order.rsplit_once('@').map_or("", |(_, step)| step)
}

/// Returns `; did you mean "save"?` if a similar name exists.
fn did_you_mean(written: &str) -> String {
    let names = FORMS.iter().filter_map(|form| form.split(' ').next());
    let near = names.map(|name| (strsim::damerau_levenshtein(&written.to_lowercase(), name), name));
    match near.filter(|(distance, name)| *distance <= 1 + name.len() / 4).min() {
        Some((_, name)) => format!("; did you mean `{name}`?"),
        None => String::new(),
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Save => f.write_str("save"),
            Self::Quit => f.write_str("quit"),
            Self::Lr(rate) => write!(f, "lr {rate}"),
            Self::Eval => f.write_str("eval"),
            Self::Sample => f.write_str("sample"),
            Self::Export => f.write_str("export"),
            Self::Status => f.write_str("status"),
            Self::LossScale(scale) => write!(f, "loss-scale {scale}"),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(step) => write!(f, "{}@{step}", self.command),
            None => self.command.fmt(f),
        }
    }
}

impl Serialize for Order {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(line: &str) -> Order {
        line.parse().unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn every_form_is_understood_and_written_back() {
        for line in ["save", "quit", "lr 0.0001", "eval", "sample", "export", "status", "loss-scale 65536", "save@5000"]
        {
            assert_eq!(order(line).to_string(), line);
        }
        assert_eq!(order("  LR   1e-4 @ 12 "), order("lr 0.0001@12"));
        assert_eq!(order("loss_scale 2"), order("loss-scale 2"), "as others write it");
    }

    #[test]
    fn what_is_no_command_explains_itself() {
        use CommandError::{Argument, Empty, Rest, Step, Unknown};
        let rate = |found: Option<&str>| {
            let found = found.map(str::to_owned);
            Argument { name: "lr", needs: "a positive rate", example: "lr 1e-4", found }
        };
        let scale = |found: &str| {
            let (needs, found) = ("a positive number", Some(found.to_owned()));
            Argument { name: "loss-scale", needs, example: "loss-scale 65536", found }
        };
        let unknown = |name: &str| Unknown { name: name.to_owned() };
        let rest = |name: &str, rest: &str| Rest { name: name.to_owned(), rest: rest.to_owned() };
        let step = |written: &str, meant: &str| Step { written: written.to_owned(), meant: meant.to_owned() };
        for (line, expected) in [
            ("", Empty),
            ("  ", Empty),
            ("sav", unknown("sav")),
            ("dance", unknown("dance")),
            ("lr", rate(None)),
            ("lr x", rate(Some("x"))),
            ("lr -1", rate(Some("-1"))),
            ("lr inf", rate(Some("inf"))),
            ("lr 1e-4 5", rest("lr", "5")),
            ("save now", rest("save", "now")),
            ("loss-scale 0", scale("0")),
            ("save@soon", step("soon", "save@5000")),
            ("save@", step("", "save@5000")),
            ("lr@60 1e-4", step("60 1e-4", "lr 1e-4@60")),
            ("loss_scale@7  2", step("7  2", "loss_scale 2@7")),
            ("lr@60 x", step("60 x", "save@5000")),
            ("lr@x@60 1", step("60 1", "save@5000")),
            ("@5", Empty),
        ] {
            assert_eq!(line.parse::<Order>().unwrap_err(), expected, "{line}");
        }
        let near = unknown("sav").to_string();
        assert!(near.contains("did you mean `save`?") && FORMS.iter().all(|form| near.contains(form)), "{near}");
        assert!(!unknown("dance").to_string().contains("did you mean"));
    }
}
