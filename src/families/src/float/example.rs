//! Examples: a window of a clip.

use flowmill_family::{BoxError, TrainSettings};
use flowmill_networks::float::{Batch, DropoutConfig, FloatConfig, Window};
use flowmill_nn::random::RngKey;

use super::rows::Clip;
use super::{Float, Sampling};

/// A window with the clip that it is from.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The window.
    pub window: Window,
    /// The clip.
    pub clip: Clip,
}

/// A batch of windows with the options that its loss reads.
#[derive(Debug, Clone)]
pub struct ExampleBatch {
    /// The windows.
    pub batch: Batch,
    /// The windows one by one, for sampling in validations.
    pub windows: Vec<Window>,
    /// The shares of conditions that are left out.
    pub dropout: DropoutConfig,
    /// The sampling of validations.
    pub sampling: Sampling,
    /// The direction of the mouth; empty if it is not known.
    pub mouth: Vec<f32>,
}

/// Cuts a random window from a clip. A clip that is shorter than the window is taken as a whole. Previous frames that the clip does not
/// have are missing, as all are at the beginning of a clip.
pub fn window(clip: &Clip, config: &FloatConfig, sample: u64, rng_key: RngKey) -> Window {
    let length = clip.frames.min(config.num_frames);
    let places = u32::try_from(clip.frames - length).unwrap_or(u32::MAX - 1) + 1;
    let first = rng_key.purpose("window").below_at(0, places) as usize;
    window_at(clip, config, sample, first)
}

/// Cuts the window whose current frames start at `first`.
fn window_at(clip: &Clip, config: &FloatConfig, sample: u64, first: usize) -> Window {
    let FloatConfig { num_prev_frames: previous, num_frames, dim_w, .. } = *config;
    let last = clip.frames.min(first + num_frames);
    let missing = previous.saturating_sub(first);
    let from = first - (previous - missing);
    let cut = |values: &[f32], width: usize| {
        let mut part = vec![0.0; missing * width];
        part.extend_from_slice(&values[from * width..last * width]);
        part
    };
    Window {
        motion: cut(&clip.motion, dim_w),
        audio: cut(&clip.speech, config.audio_width()),
        missing,
        reference: clip.reference.clone(),
        emotion: clip.emotion.clone(),
        sample,
    }
}

/// Makes a batch.
///
/// # Errors
/// Returns an error for a window that does not match the model.
pub fn collate(settings: &TrainSettings<Float>, examples: Vec<Example>) -> Result<ExampleBatch, BoxError> {
    let windows: Vec<Window> = examples.into_iter().map(|example| example.window).collect();
    let options = &settings.options;
    Ok(ExampleBatch {
        batch: Batch::collate(&windows, &settings.config)?,
        windows,
        dropout: options.dropout.clone(),
        sampling: options.sampling,
        mouth: options.mouth.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> FloatConfig {
        FloatConfig {
            dim_w: 2,
            dim_a: 1,
            audio_features: 0,
            num_prev_frames: 3,
            num_frames: 5,
            ..FloatConfig::default()
        }
    }

    fn clip(frames: usize) -> Clip {
        Clip {
            motion: (0..2 * frames).map(|value| value as f32 + 1.0).collect(),
            speech: (0..frames).map(|value| value as f32 + 1.0).collect(),
            reference: vec![0.5; 2],
            emotion: vec![0.0; 7],
            portrait: None,
            frames,
        }
    }

    #[test]
    fn a_window_has_its_previous_frames_as_far_as_the_clip_has_them() {
        let window = window_at(&clip(12), &config(), 4, 6);
        assert_eq!(
            (window.audio, window.missing, window.sample),
            (vec![4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0], 0, 4)
        );
        let window = window_at(&clip(12), &config(), 0, 1);
        assert_eq!((window.audio, window.missing), (vec![0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2));
        assert_eq!((window.motion.len(), &window.motion[..6]), (16, &[0.0, 0.0, 0.0, 0.0, 1.0, 2.0][..]));
    }

    #[test]
    fn windows_of_clips_of_any_length_fit_the_model() {
        for frames in 1..20 {
            for sample in 0..20 {
                let window = window(&clip(frames), &config(), sample, RngKey::new(1).sample(sample));
                Batch::collate(std::slice::from_ref(&window), &config()).unwrap();
                assert_eq!(window.audio.len(), 3 + frames.min(5));
            }
        }
        let firsts = (0..200).map(|sample| window(&clip(7), &config(), sample, RngKey::new(1).sample(sample)).audio[3]);
        let firsts: std::collections::BTreeSet<u32> = firsts.map(|first| first as u32).collect();
        assert_eq!(firsts, [1, 2, 3].into());
    }
}
