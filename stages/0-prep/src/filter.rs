//! Which utterances are kept.

use flowmill_corpus::UtteranceRow;

use crate::PrepConfig;

/// Why an utterance's text is refused, if it is; reading has judged already whether there must be one. The part before the colon is
/// the same for all of its kind.
pub fn text(config: &PrepConfig, text: &str) -> Option<String> {
    let (least, most) = (config.min_text, config.max_text);
    match text.chars().count() {
        0 => None,
        count if count < least => Some(format!("text too short: {count} characters, at least {least}")),
        count if count > most => Some(format!("text too long: {count} characters, at most {most}")),
        _ => None,
    }
}

/// Why an utterance's duration is refused, if it is; an unknown one is not.
pub fn duration(config: &PrepConfig, seconds: Option<f64>) -> Option<String> {
    let (least, most) = (config.min_duration, config.max_duration);
    match seconds? {
        seconds if seconds < least => Some(format!("too short: {seconds:.3} s, at least {least} s")),
        seconds if seconds > most => Some(format!("too long: {seconds:.3} s, at most {most} s")),
        _ => None,
    }
}

/// Both filters on a row whose recording has not been opened.
pub fn unprobed(config: &PrepConfig, row: &UtteranceRow<'_>) -> Option<String> {
    text(config, row.text).or_else(|| duration(config, row.duration))
}
