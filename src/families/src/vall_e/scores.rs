//! The scores of a split.

use serde::{Deserialize, Serialize};

/// Counts of recordings whose text a recognizer finds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Recognition {
    /// The number of texts that it tells apart.
    pub texts: usize,
    /// Share of the generated recordings whose text it finds.
    pub generated: f64,
    /// Share of the real held-out recordings.
    pub real: f64,
    /// Share of the real recordings after the codec: the limit of a perfect model.
    pub codec: f64,
    /// Share that guessing finds.
    pub chance: f64,
}

/// Mean similarities of voices, cosines from -1 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct VoiceSimilarity {
    /// Of the generated voice to the speaker of the prompt.
    pub own: f64,
    /// Of the generated voice to the other speakers.
    pub others: f64,
    /// Share of the generated recordings to which the speaker of the prompt is the most similar one.
    pub nearest: f64,
    /// Of the real held-out voice to its speaker.
    pub real_own: f64,
    /// Of the real held-out voice to the other speakers.
    pub real_others: f64,
    /// Share of the real held-out recordings to which their speaker is the most similar one.
    pub real_nearest: f64,
}

/// Mean distances of log-mels to the real recording along the best alignment, in dB (lower is nearer).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Distances {
    /// Of the generated recording.
    pub generated: f64,
    /// Of the real recording after the codec: the limit of a perfect model.
    pub codec: f64,
    /// Of the prompt, which is in the right voice but says something else.
    pub prompt: f64,
}

/// The scores of one utterance; what could not be measured is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UtteranceScores {
    /// The utterance's id.
    pub utt: String,
    /// The text.
    pub text: String,
    /// The text that is heard in the generated recording.
    pub heard: Option<String>,
    /// The text that is heard in the real recording.
    pub heard_real: Option<String>,
    /// The text that is heard in the real recording after the codec.
    pub heard_codec: Option<String>,
    /// Frames of the generated codes.
    pub frames: usize,
    /// Frames of the real codes.
    pub real_frames: usize,
    /// Similarity of the generated voice to the right speaker, to the others, and whether the right one is the nearest.
    pub voice: Option<(f64, f64, bool)>,
    /// The same for the real recording.
    pub real_voice: Option<(f64, f64, bool)>,
    /// Distances to the real recording.
    pub distance_db: Option<Distances>,
}

/// The scores of a split: means over utterances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The split.
    pub split: String,
    /// The number of utterances.
    pub utterances: usize,
    /// The number of utterances for which the model ended at once.
    pub empty: usize,
    /// Frames of generated codes.
    pub frames: usize,
    /// Frames of real codes.
    pub real_frames: usize,
    /// Recognition, if the texts are a small closed set.
    pub recognition: Option<Recognition>,
    /// Similarities of voices, if there are several speakers.
    pub voice: Option<VoiceSimilarity>,
    /// Distances to the real recordings.
    pub distance_db: Option<Distances>,
    /// The scores of each utterance.
    pub per_utterance: Vec<UtteranceScores>,
}

impl Scores {
    /// Computes the means; `texts` is the number of texts if they are a closed set.
    pub fn of(split: &str, texts: Option<usize>, per_utterance: Vec<UtteranceScores>) -> Self {
        let scores = || per_utterance.iter();
        let recognition = texts.map(|texts| {
            let share = |heard: fn(&UtteranceScores) -> &Option<String>| {
                mean(scores().map(|scores| f64::from(u8::from(heard(scores).as_ref() == Some(&scores.text)))))
            };
            Recognition {
                texts,
                generated: share(|scores| &scores.heard),
                real: share(|scores| &scores.heard_real),
                codec: share(|scores| &scores.heard_codec),
                chance: 1.0 / texts as f64,
            }
        });
        let voices = |voice: fn(&UtteranceScores) -> Option<(f64, f64, bool)>| {
            let voices = || scores().filter_map(voice);
            [
                mean(voices().map(|(own, ..)| own)),
                mean(voices().map(|(_, others, _)| others)),
                mean(voices().map(|(.., nearest)| f64::from(u8::from(nearest)))),
            ]
        };
        let ([own, others, nearest], [real_own, real_others, real_nearest]) =
            (voices(|scores| scores.voice), voices(|scores| scores.real_voice));
        let voice = VoiceSimilarity { own, others, nearest, real_own, real_others, real_nearest };
        let distance = |distance: fn(&Distances) -> f64| {
            mean(scores().filter_map(|scores| scores.distance_db.as_ref()).map(distance))
        };
        let distances = Distances {
            generated: distance(|distances| distances.generated),
            codec: distance(|distances| distances.codec),
            prompt: distance(|distances| distances.prompt),
        };
        Self {
            split: split.to_owned(),
            utterances: per_utterance.len(),
            empty: scores().filter(|scores| scores.frames == 0).count(),
            frames: scores().map(|scores| scores.frames).sum(),
            real_frames: scores().map(|scores| scores.real_frames).sum(),
            recognition,
            voice: scores().any(|scores| scores.voice.is_some()).then_some(voice),
            distance_db: scores().any(|scores| scores.distance_db.is_some()).then_some(distances),
            per_utterance,
        }
    }
}

/// Returns the mean of values; 0 of none.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    if count > 0.0 { sum / count } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_count_every_utterance_and_means_those_that_were_measured() {
        let heard = |text: &str, heard: Option<&str>, frames, voice| UtteranceScores {
            text: text.to_owned(),
            heard: heard.map(str::to_owned),
            heard_real: Some(text.to_owned()),
            frames,
            voice,
            ..UtteranceScores::default()
        };
        let utterances = vec![
            heard("one", Some("one"), 10, Some((0.9, 0.1, true))),
            heard("two", Some("one"), 20, Some((0.5, 0.3, false))),
            heard("two", None, 0, None),
        ];
        let scores = Scores::of("test", Some(10), utterances);
        let recognition = scores.recognition.unwrap();
        assert!((recognition.generated - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((recognition.real, recognition.codec, recognition.chance), (1.0, 0.0, 0.1));
        assert_eq!((scores.utterances, scores.empty, scores.frames), (3, 1, 30));
        let voice = scores.voice.unwrap();
        assert!((voice.own - 0.7).abs() < 1e-12 && voice.nearest == 0.5);
        assert_eq!(scores.distance_db, None);
    }
}
