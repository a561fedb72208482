//! The settings of Vocos.

use flowmill_audio::stft::FramePosition;
use serde_json::Value;

use super::super::{Result, VocoderError};

/// The settings of the public `config.yaml` that the shapes of the weights do not tell. The defaults are those of the published models.
#[derive(Debug, Clone, PartialEq)]
pub struct VocosSettings {
    /// Sampling rate, in hertz.
    pub sample_rate: u32,
    /// Samples of a frame; by default a quarter of the Fourier transform.
    pub hop_length: Option<usize>,
    /// The position of the frames; by default centered for mels, and not for codes.
    pub padding: Option<FramePosition>,
    /// Codes of a codebook, for models of codes.
    pub codes: usize,
}

impl Default for VocosSettings {
    fn default() -> Self {
        Self { sample_rate: 24_000, hop_length: None, padding: None, codes: 1024 }
    }
}

impl VocosSettings {
    /// Reads the public configuration: sections `feature_extractor`, `backbone` and `head`, each with `class_path` and `init_args`; null
    /// for the defaults.
    ///
    /// # Errors
    /// [`VocoderError::Config`] for another class or a value of another type.
    pub fn from_config(config: &Value) -> Result<Self> {
        let mut settings = Self::default();
        for (section, classes) in [
            ("feature_extractor", &["MelSpectrogramFeatures", "EncodecFeatures"][..]),
            ("backbone", &["VocosBackbone"]),
            ("head", &["ISTFTHead"]),
        ] {
            let Some(path) = config[section].get("class_path") else { continue };
            let class = path.as_str().and_then(|path| path.rsplit('.').next()).unwrap_or_default();
            if !classes.contains(&class) {
                let known = classes.join(" or ");
                return Err(VocoderError::Config(format!("{section}.class_path is {path}, expected {known}")));
            }
        }
        let value = |section: &str, key: &str| {
            let section = &config[section];
            section.get("init_args").unwrap_or(section).get(key).filter(|value| !value.is_null()).cloned()
        };
        let wrong = |key: &str, value: &Value| VocoderError::Config(format!("{key} is {value}"));
        let size = |section: &str, key: &str| match value(section, key) {
            None => Ok(None),
            Some(found) => match found.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0) {
                Some(size) => Ok(Some(size)),
                None => Err(wrong(&format!("{section}.{key}"), &found)),
            },
        };
        if let Some(rate) = size("feature_extractor", "sample_rate")? {
            settings.sample_rate =
                u32::try_from(rate).map_err(|_| wrong("feature_extractor.sample_rate", &rate.into()))?;
        }
        settings.hop_length = size("head", "hop_length")?;
        settings.codes = size("feature_extractor", "bins")?.unwrap_or(settings.codes);
        if let Some(padding) = value("head", "padding") {
            let position = serde_json::from_value(padding.clone()).map_err(|_| wrong("head.padding", &padding))?;
            settings.padding = Some(position);
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_public_configuration_is_read() {
        assert_eq!(VocosSettings::from_config(&Value::Null).unwrap(), VocosSettings::default());
        let config = json!({
            "feature_extractor": {
                "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
                "init_args": {"sample_rate": 22050, "n_mels": 100},
            },
            "head": {"class_path": "vocos.heads.ISTFTHead", "init_args": {"hop_length": 320, "padding": "same"}},
        });
        let found = VocosSettings::from_config(&config).unwrap();
        let expected = VocosSettings {
            sample_rate: 22_050,
            hop_length: Some(320),
            padding: Some(FramePosition::Same),
            ..VocosSettings::default()
        };
        assert_eq!(found, expected);
        for wrong in [
            json!({"head": {"class_path": "vocos.heads.IMDCTSymExpHead"}}),
            json!({"head": {"padding": "left"}}),
            json!({"head": {"hop_length": 0}}),
            json!({"feature_extractor": {"sample_rate": -1}}),
            json!({"backbone": {"class_path": 3}}),
        ] {
            assert!(matches!(VocosSettings::from_config(&wrong), Err(VocoderError::Config(_))), "{wrong}");
        }
    }
}
