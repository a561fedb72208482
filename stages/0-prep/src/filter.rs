//! The filters of utterances.

use flowmill_corpus::UtteranceRow;

use crate::PrepConfig;

/// Returns the reason for rejecting an utterance's text, if any. Reading has already checked whether a text is
/// required. The part before the colon is the same for all reasons of one kind.
pub fn text(config: &PrepConfig, text: &str) -> Option<String> {
    let (least, most) = (config.min_text, config.max_text);
    match text.chars().count() {
        0 => None,
        count if count < least => Some(format!("text too short: {count} characters, at least {least}")),
        count if count > most => Some(format!("text too long: {count} characters, at most {most}")),
        _ => None,
    }
}

/// Returns the reason for rejecting an utterance's duration, if any. An unknown duration is accepted.
pub fn duration(config: &PrepConfig, seconds: Option<f64>) -> Option<String> {
    let (least, most) = (config.min_duration, config.max_duration);
    match seconds? {
        seconds if seconds < least => Some(format!("too short: {seconds:.3} s, at least {least} s")),
        seconds if seconds > most => Some(format!("too long: {seconds:.3} s, at most {most} s")),
        _ => None,
    }
}

/// Applies both filters to a row whose recording is not opened.
pub fn unprobed(config: &PrepConfig, row: &UtteranceRow<'_>) -> Option<String> {
    text(config, row.text).or_else(|| duration(config, row.duration))
}
