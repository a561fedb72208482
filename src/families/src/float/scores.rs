//! The scores of a split.

use serde::{Deserialize, Serialize};

use super::measures::mean;

/// Mean distances of motion to the real motion; lower is nearer. One is about the deviation of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Distances {
    /// Of the generated motion.
    pub generated: f64,
    /// Trivial: of the mean motion of the training clips, held.
    pub mean: f64,
    /// Trivial: of the clip's own first motion, repeated.
    pub last: f64,
    /// Trivial: of the motion that the model generates for other clips' speech.
    pub other_speech: f64,
}

/// Mean correlations of the opening of the mouth with the real clip, from -1 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MouthCorrelations {
    /// Of the generated motion.
    pub generated: f64,
    /// Of the motion that the model generates for other clips' speech.
    pub other_speech: f64,
}

/// The scores of one clip.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClipScores {
    /// The clip's id.
    pub clip: String,
    /// The number of frames.
    pub frames: usize,
    /// The distances.
    pub distance: Distances,
    /// The correlations; `None` if a mouth does not move.
    pub mouth: Option<MouthCorrelations>,
    /// The deviation of the generated motion from its mean, as a share of that of the real motion.
    pub movement: Option<f64>,
}

/// The scores of a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The split.
    pub split: String,
    /// The number of clips.
    pub clips: usize,
    /// Whether the distance is below that of every trivial answer.
    pub is_nearest: bool,
    /// The mean distances.
    pub distance: Distances,
    /// The mean correlations; `None` if no clip has them.
    pub mouth: Option<MouthCorrelations>,
    /// The mean share of movement.
    pub movement: Option<f64>,
    /// The clips.
    pub each: Vec<ClipScores>,
}

impl Scores {
    /// Averages the scores of clips.
    pub fn of(split: &str, each: Vec<ClipScores>) -> Self {
        let of = |part: fn(&Distances) -> f64| mean(each.iter().map(|clip| part(&clip.distance))).unwrap_or(0.0);
        let distance = Distances {
            generated: of(|distance| distance.generated),
            mean: of(|distance| distance.mean),
            last: of(|distance| distance.last),
            other_speech: of(|distance| distance.other_speech),
        };
        let mouths = || each.iter().filter_map(|clip| clip.mouth);
        let mouth = mean(mouths().map(|mouth| mouth.generated))
            .zip(mean(mouths().map(|mouth| mouth.other_speech)))
            .map(|(generated, other_speech)| MouthCorrelations { generated, other_speech });
        let trivial = distance.mean.min(distance.last).min(distance.other_speech);
        Self {
            split: split.to_owned(),
            clips: each.len(),
            is_nearest: !each.is_empty() && distance.generated < trivial,
            distance,
            mouth,
            movement: mean(each.iter().filter_map(|clip| clip.movement)),
            each,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_must_be_nearer_than_every_trivial_answer() {
        let clip = |generated: f64, other_speech: f64, mouth| ClipScores {
            distance: Distances { generated, mean: 1.0, last: 1.5, other_speech },
            mouth,
            ..ClipScores::default()
        };
        let mouth = Some(MouthCorrelations { generated: 0.8, other_speech: 0.2 });
        let scores = Scores::of("test", vec![clip(0.8, 1.2, mouth), clip(1.0, 1.0, None)]);
        assert!(scores.is_nearest);
        assert_eq!((scores.clips, scores.mouth, scores.movement), (2, mouth, None));
        assert!((scores.distance.generated - 0.9).abs() < 1e-12 && (scores.distance.other_speech - 1.1).abs() < 1e-12);
        assert!(!Scores::of("test", vec![clip(1.1, 1.2, None)]).is_nearest);
        assert!(!Scores::of("test", vec![]).is_nearest);
    }
}
