//! The model card: a description of the model and its scores.

use std::fmt::Write as _;

use flowmill_family::{Card, HubMetadata};
use flowmill_networks::float::FloatConfig;

use super::scores::Scores;

/// Returns the card of a model.
pub fn card(config: &FloatConfig, scores: &Scores) -> Card {
    Card {
        kind: "flow matching transformer of facial motion (FLOAT)".to_owned(),
        does: format!(
            "It moves a portrait as if it spoke a recording: {} channels of motion per frame at 25 frames per second, from {} speech \
             features per frame.",
            config.dim_w,
            config.audio_width(),
        ),
        scores: scores_section(scores),
        public_code: "\nUse it with `flowmill talk --model THIS_FOLDER --portrait FACE.png --audio VOICE.wav --out OUT.mp4`.\n\n`fmt.pth` has \
                      the weights under the names of the public checkpoint.\n"
            .to_owned(),
        hub: HubMetadata { pipeline_tag: Some("image-to-video"), tags: &["flow-matching", "talking-head"] },
    }
}

/// Formats the scores as a Markdown section.
fn scores_section(scores: &Scores) -> String {
    let mut section = format!("## Scores on `{}` ({} clips)\n\n| score | |\n|---|---|\n", scores.split, scores.clips);
    for (name, value) in rows(scores) {
        // Writing to a String cannot fail.
        let _ = writeln!(section, "| {name} | {value} |");
    }
    section
}

/// Formats the scores as lines for a terminal.
pub fn lines(scores: &Scores) -> Vec<String> {
    let title = format!("scores on {} ({} clips)", scores.split, scores.clips);
    std::iter::once(title)
        .chain(rows(scores).into_iter().map(|(name, value)| format!("  {name:<48} {value}")))
        .collect()
}

fn rows(scores: &Scores) -> Vec<(String, String)> {
    let number = |value: f64| format!("{value:.3}");
    let mut rows: Vec<(String, String)> = [
        ("distance to the real motion", scores.distance.generated),
        ("  trivial: the mean motion", scores.distance.mean),
        ("  trivial: the first motion, repeated", scores.distance.last),
        ("  trivial: with the speech of other clips", scores.distance.other_speech),
    ]
    .map(|(name, value)| (name.to_owned(), number(value)))
    .to_vec();
    if let Some(mouth) = scores.mouth {
        rows.push(("mouth opening: correlation with the real clip".to_owned(), number(mouth.generated)));
        rows.push(("  with the speech of other clips".to_owned(), number(mouth.other_speech)));
    }
    rows.extend(scores.movement.map(|share| ("movement, share of the real one".to_owned(), number(share))));
    rows
}
