//! Makes a mel audible and visible; stage 6 does so with the exported model, this one while it is trained.

use std::io::Write;

use flowmill_audio::AudioError;
use flowmill_audio::features::{Features, MelConfig};
use flowmill_audio::spectrogram_image::{Panel, write_png};
use flowmill_audio::vocode::griffin_lim;

/// The loudest sample of a written waveform: a generated mel may ask for more than a WAV file can hold.
const PEAK: f32 = 0.98;

/// The waveform of a log-mel, no louder than full scale.
///
/// # Errors
/// When the mel does not fit its settings.
pub fn waveform(mel: &Features, config: &MelConfig, iterations: usize) -> Result<Vec<f32>, AudioError> {
    let mut samples = griffin_lim(mel, config, iterations)?;
    let loudest = samples.iter().fold(0f32, |peak, sample| peak.max(sample.abs()));
    if loudest > PEAK {
        samples.iter_mut().for_each(|sample| *sample *= PEAK / loudest);
    }
    Ok(samples)
}

/// A PNG of the generated mel under the real one.
///
/// # Errors
/// When a mel does not fit the settings, or the writer fails.
pub fn write_picture(
    writer: impl Write,
    title: &str,
    real: &Features,
    generated: &Features,
    config: &MelConfig,
) -> Result<(), AudioError> {
    let panels = [Panel { title: "real", log_mel: real }, Panel { title: "generated", log_mel: generated }];
    write_png(writer, title, &panels, config)
}

/// An utterance's id as a file name: anything but letters, digits, `-`, `_` and `.` becomes `_`.
pub fn file_name(utt: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    utt.trim_start_matches('.').chars().map(safe).collect()
}
