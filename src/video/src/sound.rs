//! The sound of a clip, in step with its frames.

use flowmill_audio::{Audio, AudioError, Decoder};

use crate::error::Fault;
use crate::note::ClipNote;

/// Difference in seconds between sound and picture that is not worth a note or a cut: encoders pad sound to whole packets.
const SLACK_SECONDS: f64 = 0.1;

/// Decodes the sound of a file; `None` if it has no sound track.
pub(crate) fn decode(bytes: &[u8], name: &str, decoder: Decoder) -> Result<Option<Audio>, Fault> {
    match decoder.decode(bytes, name) {
        Ok(audio) => Ok(Some(audio)),
        Err(AudioError::File { fault: flowmill_audio::Fault::FallbackFailed { problem, .. }, .. })
            if problem.contains("matches no streams") =>
        {
            Ok(None)
        }
        Err(error) => Err(Fault::Sound(error)),
    }
}

/// A decoded sound and its place on the clip's clock.
pub(crate) struct Placed {
    pub(crate) audio: Audio,
    /// Time of its first sample in seconds after the clip's start; negative if it began earlier.
    pub(crate) start: f64,
}

impl Placed {
    /// Time in seconds after the clip's start at which the sound ends.
    pub(crate) fn end(&self) -> f64 {
        self.start + self.audio.seconds()
    }

    /// Returns how many of a clip's frames begin before the sound ends; all of them if only little sound is missing.
    pub(crate) fn frames_with_sound(&self, frames: usize, fps: f64) -> usize {
        if self.end() + SLACK_SECONDS >= frames as f64 / fps {
            return frames;
        }
        ((self.end() * fps).floor().max(0.0) as usize).min(frames)
    }

    /// Returns the sound from 0 to `seconds` of the clip, with silence where there is none. `is_whole` is false for a part of a video, in
    /// which sound goes on after its end.
    pub(crate) fn in_step(self, seconds: f64, is_whole: bool, notes: &mut Vec<ClipNote>) -> Audio {
        let rate = f64::from(self.audio.sample_rate);
        let length = (seconds * rate).round().max(1.0) as usize;
        let (start, end) = (self.start, self.end());
        if start > SLACK_SECONDS / 10.0 {
            notes.push(ClipNote::LateSound { seconds: start });
        }
        if end + SLACK_SECONDS < seconds {
            notes.push(ClipNote::ShortSound { seconds: seconds - end, cut: false });
        }
        if is_whole && end > seconds + SLACK_SECONDS {
            notes.push(ClipNote::LongSound { seconds: end - seconds });
        }
        notes.extend(self.audio.warnings.iter().map(|warning| ClipNote::Sound { warning: warning.to_string() }));
        let shift = (start * rate).round() as i64;
        let (skipped, silent) = ((-shift).max(0) as usize, (shift.max(0) as usize).min(length));
        let place = |channel: Vec<f32>| {
            let mut placed = vec![0.0; silent];
            placed.extend(channel.iter().skip(skipped).take(length - silent));
            placed.resize(length, 0.0);
            placed
        };
        Audio {
            samples: self.audio.samples.into_iter().map(place).collect(),
            sample_rate: self.audio.sample_rate,
            warnings: self.audio.warnings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(start: f64, frames: usize) -> Placed {
        let audio = Audio { samples: vec![vec![1.0; frames]], sample_rate: 1000, warnings: Vec::new() };
        Placed { audio, start }
    }

    #[test]
    fn late_sound_gets_silence_and_long_sound_is_cut() {
        let mut notes = Vec::new();
        let audio = placed(0.32, 2000).in_step(2.0, true, &mut notes);
        assert_eq!((audio.frames(), audio.samples[0][319], audio.samples[0][320]), (2000, 0.0, 1.0));
        assert!(matches!(notes[..], [ClipNote::LateSound { .. }, ClipNote::LongSound { .. }]));
    }

    #[test]
    fn frames_after_the_sound_do_not_count_unless_they_are_few() {
        assert_eq!(placed(0.0, 1800).frames_with_sound(100, 25.0), 45);
        assert_eq!(placed(0.0, 3950).frames_with_sound(100, 25.0), 100);
        let mut notes = Vec::new();
        let part = placed(-1.0, 3000).in_step(1.0, false, &mut notes);
        assert_eq!((part.frames(), notes.len()), (1000, 0));
    }
}
