//! The scores in words, for people who have not seen them before.

use flowmill_family::ExplainedScore;

use super::card::percent;
use super::scores::Scores;

/// Explains the scores, the most important one first.
pub fn of(scores: &Scores) -> Vec<ExplainedScore> {
    let line = |name: &str, value: String, meaning: &str| ExplainedScore {
        name: name.to_owned(),
        value,
        meaning: meaning.to_owned(),
    };
    let mut lines = Vec::new();
    if let Some(recognition) = &scores.recognition {
        lines.extend([
            line(
                "recognized",
                percent(recognition.generated),
                "How many of the spoken texts a simple recognizer finds: that of the training recordings whose cepstra are nearest. \
                 Higher is better; the recognizer's own limit is below.",
            ),
            line("recognized, real recordings", percent(recognition.real), "The same for the real recordings of these texts: the recognizer's limit."),
            line(
                "recognized, after the codec",
                percent(recognition.codec),
                "The same for the real recordings, encoded and decoded by the codec: the limit of a perfect model.",
            ),
            line("recognized by guessing", percent(recognition.chance), "One divided by the number of texts."),
        ]);
    }
    if let Some(voice) = &scores.voice {
        lines.extend([
            line(
                "voice",
                format!("{:.3}", voice.own),
                "Similarity of the voice to the speaker of the prompt, from -1 to 1. It must be above that to the other speakers.",
            ),
            line("voice, others", format!("{:.3}", voice.others), "Similarity of the voice to the other speakers."),
            line(
                "voice, right speaker nearest",
                percent(voice.nearest),
                "How often the speaker of the prompt is the most similar one of all speakers.",
            ),
            line(
                "voice, real recordings",
                format!("{:.3} / {:.3}", voice.real_own, voice.real_others),
                "The two similarities of the real recordings.",
            ),
        ]);
    }
    if let Some(distance) = &scores.distance_db {
        lines.extend([
            line(
                "distance",
                format!("{:.2} dB", distance.generated),
                "Distance of the log-mel to that of the real recording, along the best alignment; lower is better. Two recordings of the \
                 same words differ too.",
            ),
            line("distance, codec", format!("{:.2} dB", distance.codec), "The same for the real recording after the codec."),
            line("distance, prompt", format!("{:.2} dB", distance.prompt), "The same for the prompt: the right voice with the wrong words."),
        ]);
    }
    if scores.empty > 0 {
        let meaning = "Utterances for which the model predicted the end at once.";
        lines.push(line("ended at once", scores.empty.to_string(), meaning));
    }
    lines
}
