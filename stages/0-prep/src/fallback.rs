//! The fallback program for formats that Flowmill does not decode: its selection for parts and rows.

use flowmill_audio::{Decoder, ffmpeg};
use flowmill_corpus::Utterance;
use flowmill_runner::PlanContext;
use serde_json::{Value, json};

use crate::config::{Fallback, PrepConfig};

/// The key in the configuration of parts.
const KEY: &str = "fallback";

/// The version that is recorded if the program is not installed.
const NOT_INSTALLED: &str = "ffmpeg is not installed";

/// Returns the program with its version; `None` if the recipe uses none.
pub fn installed(config: &PrepConfig) -> Option<String> {
    match config.fallback {
        Fallback::None => None,
        Fallback::Ffmpeg => {
            Some(ffmpeg::version().map_or_else(|| NOT_INSTALLED.to_owned(), |version| format!("ffmpeg {version}")))
        }
    }
}

/// Adds the program to the configuration of the part with the given key. If the part was done with a program that no
/// longer exists, it stays done, because its results are still valid.
pub fn describe(own: &mut Value, key: &str, installed: Option<&str>, context: &PlanContext) {
    let Some(installed) = installed else { return };
    let before = (installed == NOT_INSTALLED)
        .then(|| context.last_receipt(key)?.config.get(KEY)?.as_str().map(str::to_owned))
        .flatten();
    own[KEY] = json!(before.as_deref().unwrap_or(installed));
}

/// Returns the decoder for the recording of a row of stage 0.
pub fn decoder(utterance: &Utterance) -> Decoder {
    if utterance.decoder.is_some() { Decoder::with_ffmpeg() } else { Decoder::builtin() }
}
