//! Features of a recording at three sample rates, as the public Python packages compute them.

use candle_core::{Device, Tensor};
use flowmill_audio::features::{Features, KaldiConfig, KaldiFbank, MelConfig, MelSpectrogram, WhisperLogMel};
use flowmill_audio::{TrimConfig, trim_silence};

use super::{GoldenFile, ParityError, Report, Result};

/// The largest allowed error of a log feature.
const TOLERANCE: f64 = 2e-3;

const AT_16_KHZ: &str = "in.wav_16k";
const AT_22_KHZ: &str = "in.wav_22k";
const AT_24_KHZ: &str = "in.wav_24k";

pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    file.expect_only(&[])?;
    let mut report = Report::default();
    for name in file.names().filter(|name| name.starts_with("out.")) {
        if let Some(top_db) = number(name, "out.librosa_trim_index_top") {
            let config = TrimConfig { top_db: top_db as f64, ..TrimConfig::default() };
            let (start, end) = trim_silence(&waveform(file, AT_16_KHZ)?, &config)?;
            report.exact(name, &[start as i64, end as i64], &file.integers(name)?);
        } else if let Some(found) = feature(file, name)? {
            report.log_feature(name, &found, file.floats(name, 2)?, TOLERANCE)?;
        }
    }
    Ok(report)
}

/// Returns the feature with the name of a tensor, in that tensor's layout; `None` for names of other tensors.
fn feature(file: &GoldenFile, name: &str) -> Result<Option<Tensor>> {
    let bins = || file.floats(name, 2)?.dim(1).map_err(ParityError::from);
    if let Some(n_mels) = number(name, "out.whisper_logmel") {
        let features = WhisperLogMel::new(n_mels)?.compute(&waveform(file, AT_16_KHZ)?)?;
        return bins_first(&features).map(Some);
    }
    if let Some(rest) = name.strip_prefix("out.kaldi_fbank") {
        let config = match rest.trim_start_matches(|c: char| c.is_ascii_digit()) {
            "" => KaldiConfig::default(),
            "_cmn" => KaldiConfig::campplus(),
            "_hamming_int16" => KaldiConfig::paraformer(),
            _ => return Ok(None),
        };
        let fbank = KaldiFbank::new(KaldiConfig { n_mels: bins()?, ..config })?;
        return frames_first(&fbank.compute(&waveform(file, AT_16_KHZ)?)?).map(Some);
    }
    let (input, config) = match name {
        "out.mel22k_matcha" => (AT_22_KHZ, MelConfig::matcha()),
        "out.mel24k_cosyvoice2" => (AT_24_KHZ, MelConfig::cosyvoice2()),
        "out.mel24k_step" => (AT_24_KHZ, MelConfig::step_audio()),
        _ => return Ok(None),
    };
    bins_first(&MelSpectrogram::new(config)?.compute(&waveform(file, input)?)?).map(Some)
}

/// Returns the number at the end of a name with this prefix.
fn number(name: &str, prefix: &str) -> Option<usize> {
    name.strip_prefix(prefix)?.parse().ok()
}

fn waveform(file: &GoldenFile, name: &str) -> Result<Vec<f32>> {
    Ok(file.floats(name, 1)?.to_vec1()?)
}

fn frames_first(features: &Features) -> Result<Tensor> {
    Ok(Tensor::from_slice(&features.data, (features.frames, features.bins), &Device::Cpu)?)
}

fn bins_first(features: &Features) -> Result<Tensor> {
    Ok(Tensor::from_vec(features.transposed(), (features.bins, features.frames), &Device::Cpu)?)
}
