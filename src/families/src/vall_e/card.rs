//! The model card: a description of the model and its scores.

use std::fmt::Write as _;

use flowmill_family::{Card, HubMetadata};
use flowmill_networks::vall_e::VallEConfig;

use super::Description;
use super::scores::Scores;

/// Returns the card of a model.
pub fn card(config: &VallEConfig, description: &Description, scores: &Scores) -> Card {
    Card {
        kind: "codec language model (VALL-E)".to_owned(),
        does: format!(
            "It speaks phonemes ({}) in the voice of a prompt of {} to {} s, as codes of {} levels x {} that the codec in this \
             folder decodes.",
            description.languages.join(", "),
            description.prompt_seconds[0],
            description.prompt_seconds[1],
            config.levels,
            config.audio_tokens,
        ),
        scores: scores_section(scores),
        public_code: "\nSpeak with `flowmill speak --model THIS_FOLDER --text \"...\" --prompt voice.wav --out speech.wav`.\n\nThe weights have \
                      the names of the public implementation (version 5). `fp32.sft` is the file that it loads.\n"
            .to_owned(),
        hub: HubMetadata { pipeline_tag: Some("text-to-speech"), tags: &["codec-language-model", "voice-cloning"] },
    }
}

/// Formats the scores as a Markdown section.
fn scores_section(scores: &Scores) -> String {
    let mut section =
        format!("## Scores on `{}` ({} utterances)\n\n| score | |\n|---|---|\n", scores.split, scores.utterances);
    for (name, value) in rows(scores) {
        // Writing to a String cannot fail.
        let _ = writeln!(section, "| {name} | {value} |");
    }
    section
}

/// Formats the scores as lines for a terminal.
pub fn lines(scores: &Scores) -> Vec<String> {
    let title = format!(
        "scores on {} ({} utterances, spoken in voices of training recordings)",
        scores.split, scores.utterances
    );
    std::iter::once(title)
        .chain(rows(scores).into_iter().map(|(name, value)| format!("  {name:<56} {value}")))
        .collect()
}

/// Formats a share.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn rows(scores: &Scores) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    if let Some(recognition) = &scores.recognition {
        rows.extend([
            (format!("recognized among {} texts", recognition.texts), percent(recognition.generated)),
            ("  the real recordings".to_owned(), percent(recognition.real)),
            ("  the real recordings after the codec".to_owned(), percent(recognition.codec)),
            ("  guessing".to_owned(), percent(recognition.chance)),
        ]);
    }
    if let Some(voice) = &scores.voice {
        let three = |own: f64, others: f64, nearest: f64| {
            format!("{own:.3} / {others:.3}, the right one is nearest: {}", percent(nearest))
        };
        rows.extend([
            (
                "voice: similarity to the right speaker / to others".to_owned(),
                three(voice.own, voice.others, voice.nearest),
            ),
            ("  of the real recordings".to_owned(), three(voice.real_own, voice.real_others, voice.real_nearest)),
        ]);
    }
    if let Some(distance) = &scores.distance_db {
        rows.extend([
            ("aligned log-mel distance to the real recording".to_owned(), format!("{:.2} dB", distance.generated)),
            ("  of the real recording after the codec".to_owned(), format!("{:.2} dB", distance.codec)),
            ("  trivial: of the prompt".to_owned(), format!("{:.2} dB", distance.prompt)),
        ]);
    }
    rows.push(("frames, generated / real".to_owned(), format!("{} / {}", scores.frames, scores.real_frames)));
    if scores.empty > 0 {
        rows.push(("utterances that ended at once".to_owned(), scores.empty.to_string()));
    }
    rows
}
