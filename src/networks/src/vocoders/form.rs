//! The mels that a vocoder decodes.

use flowmill_audio::features::{Features, MelConfig, MelScale};

use super::{Result, VocoderError};

/// The mels that a vocoder decodes. What neither its weights nor its configuration tell is `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct MelForm {
    /// Sampling rate, in hertz.
    pub sample_rate: u32,
    /// Samples from one frame to the next.
    pub hop_length: usize,
    /// Number of mel bands.
    pub n_mels: usize,
    /// Length of the Fourier transform, in samples.
    pub n_fft: Option<usize>,
    /// Length of the window, in samples.
    pub win_length: Option<usize>,
    /// Lower edge of the lowest band, in hertz.
    pub fmin: Option<f32>,
    /// Upper edge of the highest band, in hertz.
    pub fmax: Option<f32>,
    /// The mel scale.
    pub mel_scale: Option<MelScale>,
}

impl MelForm {
    /// Returns an error that names all differences from the mel of a model.
    ///
    /// # Errors
    /// [`VocoderError::Mel`].
    pub fn check(&self, mel: &MelConfig) -> Result<()> {
        let needed = [
            ("sampling rate", Some(f64::from(self.sample_rate)), f64::from(mel.sample_rate), " Hz"),
            ("mel bands", Some(self.n_mels as f64), mel.n_mels as f64, ""),
            ("hop", Some(self.hop_length as f64), mel.hop_length as f64, " samples"),
            ("Fourier transform", self.n_fft.map(|length| length as f64), mel.n_fft as f64, " samples"),
            ("window", self.win_length.map(|length| length as f64), mel.win_length as f64, " samples"),
            ("lowest frequency", self.fmin.map(f64::from), f64::from(mel.fmin), " Hz"),
            ("highest frequency", self.fmax.map(f64::from), f64::from(mel.fmax), " Hz"),
        ];
        let differing = needed.into_iter().filter_map(|(what, needed, found, unit)| {
            let needed = needed.filter(|needed| *needed != found)?;
            Some(format!("{what} {needed}{unit} instead of {found}{unit}"))
        });
        let mut differences: Vec<String> = differing.collect();
        if let Some(scale) = self.mel_scale.filter(|scale| *scale != mel.mel_scale) {
            differences.push(format!("mel scale {} instead of {}", scale_name(scale), scale_name(mel.mel_scale)));
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(VocoderError::Mel(format!("the vocoder needs another mel than the model's: {}", differences.join(", "))))
    }

    /// Returns an error if features have another number of bands or values that are not finite.
    ///
    /// # Errors
    /// [`VocoderError::Mel`].
    pub(super) fn check_features(&self, mel: &Features) -> Result<()> {
        let complete = mel.frames.checked_mul(mel.bins) == Some(mel.data.len());
        if mel.bins != self.n_mels || !complete {
            let reason = format!("a mel of {} bands, but the vocoder needs {}", mel.bins, self.n_mels);
            return Err(VocoderError::Mel(reason));
        }
        if mel.data.iter().any(|value| !value.is_finite()) {
            return Err(VocoderError::Mel("the mel has a value that is not finite".to_owned()));
        }
        Ok(())
    }
}

fn scale_name(scale: MelScale) -> &'static str {
    match scale {
        MelScale::Slaney => "slaney",
        MelScale::Htk => "htk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_differences_are_named() {
        let mel = MelConfig::cosyvoice2();
        let mut form = MelForm {
            sample_rate: 24_000,
            hop_length: 480,
            n_mels: 80,
            n_fft: None,
            win_length: None,
            fmin: Some(0.0),
            fmax: None,
            mel_scale: None,
        };
        form.check(&mel).unwrap();
        (form.sample_rate, form.n_fft, form.mel_scale) = (22_050, Some(1024), Some(MelScale::Htk));
        let error = form.check(&mel).unwrap_err().to_string();
        for words in ["22050 Hz instead of 24000 Hz", "1024 samples instead of 1920", "htk instead of slaney"] {
            assert!(error.contains(words), "{error}");
        }
        let features = Features::new(vec![0.0; 40], 2, 20).unwrap();
        assert!(form.check_features(&features).unwrap_err().to_string().contains("20 bands"));
        let features = Features::new(vec![f32::NAN; 80], 1, 80).unwrap();
        assert!(form.check_features(&features).is_err());
    }
}
