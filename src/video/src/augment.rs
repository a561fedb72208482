//! Random changes of frames before motion is measured in them. The caller draws the numbers, so that a row always gets the same ones.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clip::Frame;
use crate::error::VideoError;

/// Settings of random changes. A row has one flip and one change of color for all its frames.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentOptions {
    /// Probability that the frames of a row are mirrored left to right.
    pub flip: f64,
    /// Largest relative change of brightness, contrast and saturation: 0.1 draws factors from 0.9 to 1.1.
    pub color_jitter: f64,
    /// Standard deviation of noise that is added to each color of each pixel, in levels of 0 to 255.
    pub noise: f64,
    /// Seed of the draws, which also depend on the row's id.
    pub seed: u64,
}

impl AugmentOptions {
    /// Returns whether frames stay as they are.
    pub fn is_none(&self) -> bool {
        self.flip == 0.0 && self.color_jitter == 0.0 && self.noise == 0.0
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`VideoError::Config`] with the key of the first wrong value.
    pub fn check(&self) -> Result<(), VideoError> {
        let wrong = |field, value: f64, expected| Err(VideoError::Config { field, value: value.to_string(), expected });
        if !(0.0..=1.0).contains(&self.flip) {
            return wrong("augment.flip", self.flip, "0 to 1");
        }
        if !(0.0..1.0).contains(&self.color_jitter) {
            return wrong("augment.color_jitter", self.color_jitter, "0 to less than 1");
        }
        if !(0.0..=128.0).contains(&self.noise) {
            return wrong("augment.noise", self.noise, "0 to 128");
        }
        Ok(())
    }

    /// Returns the changes of a row from four numbers that were drawn uniformly from [0, 1).
    pub fn draw(&self, uniforms: [f32; 4]) -> Augmentation {
        let [flip, brightness, contrast, saturation] = uniforms.map(f64::from);
        let factor = |uniform: f64| (1.0 + self.color_jitter * (2.0 * uniform - 1.0)) as f32;
        Augmentation {
            flip: flip < self.flip,
            brightness: factor(brightness),
            contrast: factor(contrast),
            saturation: factor(saturation),
            noise: self.noise as f32,
        }
    }
}

/// Changes of the frames of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmentation {
    /// True to mirror left to right.
    pub flip: bool,
    /// Factor of all colors.
    pub brightness: f32,
    /// Factor of the distance to the picture's mean.
    pub contrast: f32,
    /// Factor of the distance to gray.
    pub saturation: f32,
    /// Standard deviation of the noise, in levels.
    pub noise: f32,
}

impl Augmentation {
    /// Changes a frame. `normals` gives numbers from the standard normal distribution and is only asked if there is noise.
    pub fn apply(&self, frame: &mut Frame, mut normals: impl FnMut() -> f32) {
        if self.flip {
            for row in frame.rgb.chunks_exact_mut((frame.width as usize * 3).max(1)) {
                row.as_chunks_mut::<3>().0.reverse();
            }
        }
        if (self.brightness, self.contrast, self.saturation, self.noise) == (1.0, 1.0, 1.0, 0.0) {
            return;
        }
        let gray = |[r, g, b]: [f32; 3]| 0.299 * r + 0.587 * g + 0.114 * b;
        let [red, green, blue] = frame.mean().map(|mean| mean as f32);
        let mean = gray([red, green, blue]) * self.brightness;
        for pixel in frame.rgb.as_chunks_mut::<3>().0 {
            let mut values = pixel.map(|value| f32::from(value) * self.brightness);
            values = values.map(|value| mean + (value - mean) * self.contrast);
            let middle = gray(values);
            values = values.map(|value| middle + (value - middle) * self.saturation);
            if self.noise > 0.0 {
                values.iter_mut().for_each(|value| *value += self.noise * normals());
            }
            *pixel = values.map(|value| (value + 0.5).clamp(0.0, 255.0) as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flip_mirrors_and_color_changes_are_as_drawn() {
        let mut frame = Frame { width: 2, height: 1, rgb: vec![10, 20, 30, 100, 100, 100] };
        let options = AugmentOptions { flip: 1.0, ..AugmentOptions::default() };
        options.draw([0.5; 4]).apply(&mut frame, || 0.0);
        assert_eq!(frame.rgb, [100, 100, 100, 10, 20, 30]);
        let brighter = AugmentOptions { color_jitter: 0.2, ..AugmentOptions::default() };
        let mut gray = Frame::filled(2, 2, [100; 3]);
        brighter.draw([0.0, 1.0, 0.5, 0.5]).apply(&mut gray, || 0.0);
        assert_eq!(gray, Frame::filled(2, 2, [120; 3]));
        let mut noisy = Frame::filled(1, 1, [100; 3]);
        AugmentOptions { noise: 2.0, ..AugmentOptions::default() }.draw([0.9; 4]).apply(&mut noisy, || 1.5);
        assert_eq!(noisy.rgb, [103; 3]);
        assert!(AugmentOptions { flip: 1.5, ..AugmentOptions::default() }.check().is_err());
    }
}
