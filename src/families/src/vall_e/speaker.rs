//! The similarity of voices: means and deviations of cepstra, scaled by how much they differ within a speaker.

use std::collections::BTreeMap;

use flowmill_audio::features::Features;

/// A voice: mean and deviation of every cepstral coefficient except that of the loudness.
pub type Voiceprint = Vec<f64>;

/// Returns the voice in the cepstra of a recording.
pub fn voiceprint(cepstra: &Features) -> Voiceprint {
    let frames = cepstra.frames.max(1) as f64;
    let mean = |bin: usize| cepstra.rows().map(|row| f64::from(row[bin])).sum::<f64>() / frames;
    let means: Vec<f64> = (1..cepstra.bins).map(mean).collect();
    let deviation = |(bin, mean): (usize, &f64)| {
        (cepstra.rows().map(|row| (f64::from(row[bin]) - mean).powi(2)).sum::<f64>() / frames).sqrt()
    };
    let deviations: Vec<f64> = (1..).zip(&means).map(deviation).collect();
    [means, deviations].concat()
}

/// The voices of training recordings by speaker.
#[derive(Default)]
pub struct Speakers(BTreeMap<String, Vec<Voiceprint>>);

/// The mean voice of every speaker, and the scale of all.
pub struct Centers {
    center: Voiceprint,
    scale: Voiceprint,
    /// The scaled mean of every speaker.
    speakers: BTreeMap<String, Voiceprint>,
}

/// The similarities of a voice, cosines from -1 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    /// To the mean voice of the right speaker.
    pub own: f64,
    /// The mean of those to the other speakers.
    pub others: f64,
    /// True if the right speaker is the most similar one.
    pub is_nearest: bool,
}

impl Speakers {
    /// Adds a recording of a speaker.
    pub fn add(&mut self, speaker: &str, voice: Voiceprint) {
        self.0.entry(speaker.to_owned()).or_default().push(voice);
    }

    /// Returns the mean voices; `None` if there are fewer than two speakers.
    pub fn centers(&self) -> Option<Centers> {
        if self.0.len() < 2 {
            return None;
        }
        let means: BTreeMap<&String, Voiceprint> =
            self.0.iter().map(|(speaker, voices)| (speaker, mean(voices.iter()))).collect();
        let center = mean(means.values());
        let mut scale = vec![0.0; center.len()];
        let mut count = 0.0;
        for (speaker, voices) in &self.0 {
            for voice in voices {
                let differences = voice.iter().zip(&means[speaker]).map(|(value, mean)| (value - mean).powi(2));
                scale.iter_mut().zip(differences).for_each(|(sum, square)| *sum += square);
                count += 1.0;
            }
        }
        scale.iter_mut().for_each(|sum| *sum = (*sum / count).sqrt().max(1e-6));
        let scaled = |mean: Voiceprint| scaled(&mean, &center, &scale);
        let speakers = means.into_iter().map(|(speaker, mean)| (speaker.clone(), scaled(mean))).collect();
        Some(Centers { center, scale, speakers })
    }
}

impl Centers {
    /// Returns the similarity of a voice to a speaker and to the others; `None` for an unknown speaker.
    pub fn similarity(&self, speaker: &str, voice: &Voiceprint) -> Option<Similarity> {
        let voice = scaled(voice, &self.center, &self.scale);
        let own = cosine(&voice, self.speakers.get(speaker)?);
        let others = self.speakers.iter().filter(|(name, _)| *name != speaker);
        let others: Vec<f64> = others.map(|(_, center)| cosine(&voice, center)).collect();
        let is_nearest = others.iter().all(|other| *other < own);
        Some(Similarity { own, others: others.iter().sum::<f64>() / others.len().max(1) as f64, is_nearest })
    }
}

fn mean<'a>(voices: impl ExactSizeIterator<Item = &'a Voiceprint>) -> Voiceprint {
    let count = voices.len().max(1) as f64;
    let mut sum = Voiceprint::new();
    for voice in voices {
        sum.resize(voice.len(), 0.0);
        sum.iter_mut().zip(voice).for_each(|(sum, value)| *sum += value / count);
    }
    sum
}

fn scaled(voice: &Voiceprint, center: &Voiceprint, scale: &Voiceprint) -> Voiceprint {
    voice.iter().zip(center).zip(scale).map(|((value, center), scale)| (value - center) / scale).collect()
}

fn cosine(one: &Voiceprint, other: &Voiceprint) -> f64 {
    let dot = |a: &Voiceprint, b: &Voiceprint| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt().max(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voice_is_most_similar_to_its_own_speaker() {
        let mut speakers = Speakers::default();
        // The second coefficient differs within speakers, so that it counts less.
        for (speaker, voice) in [("a", [1.0, 5.0]), ("a", [1.2, -5.0]), ("b", [-1.0, 5.0]), ("b", [-1.2, -5.0])] {
            speakers.add(speaker, voice.to_vec());
        }
        let similarity = speakers.centers().unwrap().similarity("a", &vec![0.9, 3.0]).unwrap();
        assert!(similarity.is_nearest && similarity.own > 0.9 && similarity.others < -0.9, "{similarity:?}");
        assert!(speakers.centers().unwrap().similarity("c", &vec![0.0, 0.0]).is_none());
        assert!(Speakers::default().centers().is_none());
    }

    #[test]
    fn a_voiceprint_has_means_and_deviations_without_the_loudness() {
        let cepstra = Features::new(vec![9.0, 1.0, 2.0, 7.0, 3.0, 2.0], 2, 3).unwrap();
        assert_eq!(voiceprint(&cepstra), [2.0, 2.0, 1.0, 0.0]);
    }
}
