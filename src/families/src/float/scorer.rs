//! The scorer: generates the motion of held-out clips from their speech, and compares it with the real motion and with trivial answers.

use std::sync::Arc;

use candle_core::Device;
use flowmill_audio::decode_bytes;
use flowmill_corpus::shard::speech;
use flowmill_corpus::{ColumnSpec, Row};
use flowmill_family::{Audio, BoxError, Loaded, Made, Report, Scored, Scorer};
use flowmill_networks::float::{FloatConfig, MotionRequest};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters};
use serde_json::json;

use super::contact_sheet::{Faces, Sheet};
use super::measures::{distance, held, mean, mouth_correlation, opening};
use super::network::Network;
use super::rendering::Rendering;
use super::rows::{self, Clip};
use super::scores::{ClipScores, Distances, MouthCorrelations, Scores};
use super::{Description, ExportOptions, Float, MOTION_EXTRACTOR, card};

/// Other clips whose speech a clip is generated with.
const OTHERS: usize = 3;

/// Generates held-out clips and scores them.
pub struct MotionScorer {
    config: FloatConfig,
    description: Description,
    network: Network,
    parameters: Parameters,
    rendering: Rendering,
    options: ExportOptions,
    rng_key: RngKey,
    /// Sum of the motion of all training frames, and their number.
    sums: Vec<f64>,
    frames: u64,
    /// The speech of some training clips.
    speech: Vec<Vec<f32>>,
    scores: Vec<ClipScores>,
}

/// A clip and all motion that was generated for it.
struct Generated<'a> {
    row: &'a Row,
    clip: &'a Clip,
    own: &'a [f32],
    others: &'a [Vec<f32>],
}

impl MotionScorer {
    /// Prepares scoring a model.
    ///
    /// # Errors
    /// Returns an error if the folder lacks the extractor of motion.
    pub fn new(loaded: Loaded<Float>, options: ExportOptions, seed: u64) -> Result<Self, BoxError> {
        let Loaded { config, description, model, parameters, folder, .. } = loaded;
        Ok(Self {
            rendering: Rendering::open(&folder.join(MOTION_EXTRACTOR), &Device::Cpu)?,
            sums: vec![0.0; config.dim_w],
            config,
            description,
            network: model,
            parameters,
            options,
            rng_key: RngKey::new(seed).purpose("scores"),
            frames: 0,
            speech: Vec::new(),
            scores: Vec::new(),
        })
    }

    /// Generates the motion of clips. The `number`-th request of the split always gets the same noise.
    fn generate(&self, requests: &[MotionRequest], number: u64) -> Result<Vec<Vec<f32>>, BoxError> {
        let context = Context::inference(&self.parameters);
        Ok(self.options.motion.sample(&self.network.0, &context, requests, &self.rng_key.epoch(number))?)
    }

    /// Returns the mean motion of the training clips.
    fn mean_motion(&self) -> Vec<f32> {
        self.sums.iter().map(|sum| (sum / self.frames.max(1) as f64) as f32).collect()
    }

    fn compare(&self, generated: &Generated<'_>) -> ClipScores {
        let Generated { row, clip, own, others } = *generated;
        let (real, channels) = (&clip.motion, self.config.dim_w);
        let away = |motion: &[f32]| distance(motion, real).unwrap_or(0.0);
        let correlated = |motion: &[f32]| mouth_correlation(motion, real, channels, &self.description.mouth);
        let first = real.get(..channels).unwrap_or_default();
        let others_away = mean(others.iter().map(|motion| away(motion))).unwrap_or(f64::INFINITY);
        let other_speech = mean(others.iter().filter_map(|motion| correlated(motion)));
        let mouth = correlated(own)
            .zip(other_speech)
            .map(|(generated, other_speech)| MouthCorrelations { generated, other_speech });
        ClipScores {
            clip: row.id.clone(),
            frames: clip.frames,
            distance: Distances {
                generated: away(own),
                mean: away(&held(&self.mean_motion(), clip.frames)),
                last: away(&held(first, clip.frames)),
                other_speech: others_away,
            },
            mouth,
            movement: spread(own, channels).zip(spread(real, channels)).map(|(own, real)| own / real),
        }
    }

    /// Returns the video and the contact sheet of a clip.
    fn show(&self, generated: &Generated<'_>) -> Result<Vec<Made>, BoxError> {
        let Generated { row, clip, own, .. } = *generated;
        let frames = |motion: &[f32]| self.rendering.frames(clip.portrait.as_ref(), motion);
        let (real, faces) = (frames(&clip.motion)?, frames(own)?);
        let audio = recording(row);
        let open = |motion: &[f32]| opening(motion, self.config.dim_w, &self.description.mouth);
        let envelope =
            audio.as_ref().map(|audio| envelope(audio, self.description.fps, clip.frames)).unwrap_or_default();
        let sheet = Sheet {
            title: &row.id,
            fps: f64::from(self.description.fps),
            faces: Faces::of(real.as_deref(), faces.as_deref()),
            openings: [&open(&clip.motion), &open(own)],
            envelope: &envelope,
        };
        let mut made = vec![sheet.made(&row.id)?];
        let video = |name: &str, frames| self.rendering.video(name, frames, self.description.fps, audio.clone());
        made.extend(faces.map(|frames| video(&row.id, frames)));
        made.extend(real.map(|frames| video(&format!("{}.real", row.id), frames)));
        Ok(made)
    }
}

/// Returns the root of the mean squared deviation of a motion from its own mean; `None` if it does not move.
fn spread(motion: &[f32], channels: usize) -> Option<f64> {
    let frames = motion.len() / channels.max(1);
    let mut squares = 0.0;
    for channel in 0..channels {
        let values = || motion.iter().skip(channel).step_by(channels).map(|value| f64::from(*value));
        let mean = values().sum::<f64>() / frames.max(1) as f64;
        squares += values().map(|value| (value - mean).powi(2)).sum::<f64>();
    }
    let spread = (squares / motion.len().max(1) as f64).sqrt();
    (spread > 0.0).then_some(spread)
}

/// Returns the sound of a row; none if it has no recording that can be decoded, since sound is only added to samples.
fn recording(row: &Row) -> Option<Audio> {
    let bytes = row.bytes(speech::AUDIO_DATA).ok()?;
    let audio = decode_bytes(bytes, row.text(speech::WAV).unwrap_or(&row.id)).ok()?;
    let sample_rate = audio.sample_rate;
    Some(Audio { samples: audio.into_mono(), sample_rate })
}

/// Returns the root mean square of the sound of each frame.
fn envelope(audio: &Audio, fps: u16, frames: usize) -> Vec<f64> {
    let per_frame = f64::from(audio.sample_rate) / f64::from(fps.max(1));
    let level = |frame: usize| {
        let [from, to] = [frame, frame + 1].map(|frame| ((frame as f64 * per_frame) as usize).min(audio.samples.len()));
        let samples = &audio.samples[from..to];
        (samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len().max(1) as f64).sqrt()
    };
    (0..frames).map(level).collect()
}

/// Returns speech of a number of frames: the beginning, or the whole with its last frame repeated.
fn fitted(speech: &[f32], width: usize, frames: usize) -> Vec<f32> {
    let mut fitted = speech[..speech.len().min(frames * width)].to_vec();
    while fitted.len() < frames * width && fitted.len() >= width {
        fitted.extend_from_within(fitted.len() - width..);
    }
    fitted
}

impl Scorer for MotionScorer {
    fn columns(&self) -> Vec<ColumnSpec> {
        let recording = speech::recording().into_iter();
        let wanted = [speech::WAV, speech::AUDIO_DATA];
        let recording = recording.filter(|column| wanted.contains(&column.name.as_str())).map(ColumnSpec::optional);
        rows::columns(&self.config).into_iter().chain(recording).collect()
    }

    fn learn(&mut self, row: &Row) -> Result<(), BoxError> {
        let clip = Clip::of(row, &self.config).map_err(|fault| format!("clip {}: {fault}", row.id))?;
        for frame in clip.motion.chunks_exact(self.config.dim_w) {
            self.sums.iter_mut().zip(frame).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        self.frames += clip.frames as u64;
        if self.speech.len() < OTHERS {
            self.speech.push(clip.speech);
        }
        Ok(())
    }

    fn score(&mut self, rows: &[Arc<Row>], interrupted: &dyn Fn() -> bool) -> Result<Vec<Scored>, BoxError> {
        let clips: Vec<Result<Clip, String>> =
            rows.iter().map(|row| Clip::of(row, &self.config).map_err(|fault| fault.to_string())).collect();
        let width = self.config.audio_width();
        let mut scored = Vec::new();
        for (at, (row, clip)) in rows.iter().zip(&clips).enumerate() {
            if interrupted() {
                break;
            }
            let clip = match clip {
                Ok(clip) => clip,
                Err(reason) => {
                    scored.push(Err(reason.clone()));
                    continue;
                }
            };
            // Held-out speech of others first, in the order of the split; a single clip is compared with speech of the training.
            let after = (1..rows.len()).map(|step| (at + step) % rows.len());
            let others = after.filter(|other| rows[*other].group != row.group || rows.len() <= OTHERS);
            let others = others.filter_map(|other| clips[other].as_ref().ok()).map(|clip| &clip.speech);
            let request = |speech: &[f32]| MotionRequest {
                audio: fitted(speech, width, clip.frames),
                reference: clip.reference.clone(),
                emotion: clip.emotion.clone(),
            };
            let others: Vec<MotionRequest> =
                others.chain(&self.speech).take(OTHERS).map(|speech| request(speech)).collect();
            let number = self.scores.len() as u64;
            let own = self.generate(&[request(&clip.speech)], number)?.pop().unwrap_or_default();
            let others = self.generate(&others, number)?;
            let generated = Generated { row, clip, own: &own, others: &others };
            self.scores.push(self.compare(&generated));
            scored.push(self.show(&generated).map_err(|error| error.to_string()));
        }
        Ok(scored)
    }

    fn finish(self: Box<Self>, split: &str) -> Report {
        let scores = Scores::of(split, self.scores);
        let mut facts = vec![
            ("distance", scores.distance.generated),
            ("distance_mean", scores.distance.mean),
            ("distance_last", scores.distance.last),
            ("distance_other_speech", scores.distance.other_speech),
        ];
        if let Some(mouth) = scores.mouth {
            facts.extend([("mouth", mouth.generated), ("mouth_other_speech", mouth.other_speech)]);
        }
        Report { scores: json!(scores), lines: card::lines(&scores), facts, rows: scores.clips as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_of_another_clip_is_cut_or_continued() {
        assert_eq!(fitted(&[1.0, 2.0, 3.0, 4.0], 2, 1), [1.0, 2.0]);
        assert_eq!(fitted(&[1.0, 2.0, 3.0, 4.0], 2, 4), [1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 3.0, 4.0]);
        assert!(fitted(&[], 2, 4).is_empty());
    }

    #[test]
    fn an_envelope_has_a_level_per_frame() {
        let samples = (0..30).map(|at| if at < 10 { 0.5 } else { 0.0 }).collect();
        assert_eq!(envelope(&Audio { samples, sample_rate: 250 }, 25, 4), [0.5, 0.0, 0.0, 0.0]);
        assert_eq!(spread(&[1.0, 0.0, 3.0, 0.0], 2), Some((0.5f64).sqrt()));
        assert_eq!(spread(&[1.0, 1.0], 1), None);
    }
}
