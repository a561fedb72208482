//! The scores in words, for people who have not seen them before.

use flowmill_family::ExplainedScore;

use super::scores::Scores;

/// Explains the scores, the most important one first.
pub fn of(scores: &Scores) -> Vec<ExplainedScore> {
    let line = |name: &str, value: f64, meaning: &str| ExplainedScore {
        name: name.to_owned(),
        value: format!("{value:.3}"),
        meaning: meaning.to_owned(),
    };
    let mut lines = Vec::new();
    if let Some(mouth) = scores.mouth {
        lines.extend([
            line(
                "mouth",
                mouth.generated,
                "How well the generated mouth opens and closes with the real one: the correlation over time, 1 at best, 0 for none.",
            ),
            line(
                "mouth, other speech",
                mouth.other_speech,
                "The same if the model hears other clips: what silence and habit explain. The score above must be higher.",
            ),
        ]);
    }
    lines.extend([
        line(
            "distance",
            scores.distance.generated,
            "Distance of the generated motion to the real one; lower is better. 1 is about the usual movement.",
        ),
        line(
            "distance, mean",
            scores.distance.mean,
            "The same for a face that does not move at all: a trivial answer to beat.",
        ),
        line(
            "distance, first",
            scores.distance.last,
            "The same for the first frame of the real clip, held: a trivial answer to beat.",
        ),
        line(
            "distance, other speech",
            scores.distance.other_speech,
            "The same for what the model makes of the speech of other clips: a trivial answer to beat.",
        ),
    ]);
    if let Some(movement) = scores.movement {
        let meaning =
            "How much the generated face moves, compared with the real one. Motion that is near to the mean is small.";
        lines.push(line("movement", movement, meaning));
    }
    lines
}
