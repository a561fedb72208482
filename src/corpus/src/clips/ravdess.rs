//! Names of RAVDESS (Livingstone and Russo, "The Ryerson Audio-Visual Database of Emotional Speech and Song", PLoS ONE 13(5), 2018):
//! `MODALITY-CHANNEL-EMOTION-INTENSITY-STATEMENT-REPETITION-ACTOR`, two digits each.

use std::collections::BTreeMap;

use crate::paths::joined;
use crate::reading::Candidate;
use crate::samples::stem;
use crate::utterances::Extra;
use crate::{Array, MediaRef, Role};

/// The column with the emotion.
pub const EMOTION: &str = "emotion_label";

/// The emotions by their codes 01 to 08. Calm counts as neutral, because classifiers of speech have seven emotions.
pub const EMOTIONS: [&str; 8] = ["neutral", "neutral", "happy", "sad", "angry", "fear", "disgust", "surprise"];

/// The spoken sentences by their codes 01 and 02.
const STATEMENTS: [&str; 2] = ["Kids are talking by the door.", "Dogs are sitting by the door."];

/// Returns the row of a file.
///
/// # Errors
/// Why the name is none of RAVDESS.
pub(super) fn row(path: &str, prefix: &str) -> Result<Candidate, String> {
    let name = stem(path).rsplit('/').next().unwrap_or_default();
    let codes = codes(name).ok_or_else(|| {
        format!("bad name: {path} is not named MM-CC-EE-II-SS-RR-AA, two digits each, as files of RAVDESS are")
    })?;
    let [modality, _, emotion, _, statement, _, actor] = codes;
    let of = |list: &[&'static str], code: u8| list.get(usize::from(code).wrapping_sub(1)).copied();
    let emotion = of(&EMOTIONS, emotion)
        .ok_or_else(|| format!("bad name: {path} has the emotion {emotion:02}; there are 01 to 08"))?;
    let (has_video, has_sound) = match modality {
        1 => (true, true),
        2 => (true, false),
        3 => (false, true),
        other => return Err(format!("bad name: {path} has the modality {other:02}; there are 01 to 03")),
    };
    let place = joined(prefix, path);
    let video = has_video.then(|| (Role::Video, vec![MediaRef(place.clone())]));
    let columns = BTreeMap::from([(EMOTION.to_owned(), Array::text(emotion))]);
    Ok(Candidate {
        id: name.to_owned(),
        origin: Some(path.to_owned()),
        speaker: Some(format!("actor_{actor:02}")),
        text: of(&STATEMENTS, statement).map(str::to_owned).ok_or_else(|| format!("{path} has an unknown statement")),
        language: Some("en".to_owned()),
        wav: if has_sound { place } else { String::new() },
        start: None,
        end: None,
        duration: None,
        split: None,
        extra: Some(Box::new(Extra { media: video.into_iter().collect(), columns, ..Extra::default() })),
        place: path.to_owned(),
    })
}

/// The seven codes of a name.
fn codes(name: &str) -> Option<[u8; 7]> {
    let parts: Vec<u8> = name
        .split('-')
        .map(|part| Some(part).filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()))?.parse().ok())
        .collect::<Option<_>>()?;
    parts.try_into().ok()
}
