//! Recordings that are arrays of samples (`.npy`, `.pth`), read as WAV.
//!
//! An array does not say its sampling rate, so a source writes it behind the name: `KEY.wav.npy~16000`.

use std::path::Path;

use flowmill_weights::{Archive, ElementType, RawTensor};

/// Extensions of arrays.
pub(crate) const EXTENSIONS: [&str; 3] = ["npy", "pth", "pt"];
/// The most channels of a recording. A longer axis is that of samples.
const MAX_CHANNELS: usize = 8;
/// The size of the header of a WAV file of floats.
const HEADER: usize = 44;

/// Returns the ending of a name that gives an array its sampling rate.
pub(crate) fn ending(rate: u32) -> String {
    format!("~{rate}")
}

/// Returns the sampling rate of the array that a name stands for; `None` for other names.
pub(crate) fn rate(name: &str) -> Option<u32> {
    let (name, rate) = name.rsplit_once('~')?;
    let is_array = EXTENSIONS.iter().any(|extension| name.to_ascii_lowercase().ends_with(&format!(".{extension}")));
    rate.parse().ok().filter(|rate| is_array && *rate > 0)
}

/// Returns an array of samples as a WAV file of floats. Integers of 16 bits are full scale at 32768.
///
/// # Errors
/// The reason if the bytes are no recording.
pub(crate) fn to_wav(bytes: &[u8], name: &str, rate: u32) -> Result<Vec<u8>, String> {
    let mut archive = Archive::from_bytes(bytes, Path::new(name)).map_err(|error| error.to_string())?;
    if archive.tensors.len() != 1 {
        return Err(format!("{name} has {} arrays; one is expected", archive.tensors.len()));
    }
    let array = archive.load(0).map_err(|error| error.to_string())?;
    let (channels, by_channel) = layout(array.shape())
        .ok_or_else(|| format!("{name} has the shape {:?}, which is not that of samples", array.shape()))?;
    let samples = samples(&array)
        .ok_or_else(|| format!("{name} has elements of type {}, which are not samples", array.element().name()))?;
    wav(&samples, channels, by_channel, rate).ok_or_else(|| format!("{name} is too long for a WAV file"))
}

/// Returns the number of channels, and whether the samples of a channel follow each other.
fn layout(shape: &[usize]) -> Option<(usize, bool)> {
    match *shape {
        [_] => Some((1, true)),
        [channels @ 1..=MAX_CHANNELS, _] => Some((channels, true)),
        [_, channels @ 1..=MAX_CHANNELS] => Some((channels, false)),
        _ => None,
    }
}

fn samples(array: &RawTensor) -> Option<Vec<f32>> {
    let data = array.data();
    let (pairs, _) = data.as_chunks::<2>();
    let (fours, _) = data.as_chunks::<4>();
    let (eights, _) = data.as_chunks::<8>();
    Some(match array.element() {
        ElementType::F32 => fours.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        ElementType::F64 => eights.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
        ElementType::F16 => pairs.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect(),
        ElementType::BF16 => pairs.iter().map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32()).collect(),
        ElementType::I16 => pairs.iter().map(|bytes| f32::from(i16::from_le_bytes(*bytes)) / 32768.0).collect(),
        _ => return None,
    })
}

/// Writes samples as a WAV file of 32-bit floats; `None` if they do not fit in one.
fn wav(samples: &[f32], channels: usize, by_channel: bool, rate: u32) -> Option<Vec<u8>> {
    let data = u32::try_from(samples.len().checked_mul(4)?).ok()?;
    let riff = data.checked_add(HEADER as u32 - 8)?;
    let block = 4 * channels as u32;
    let mut out = Vec::with_capacity(HEADER + data as usize);
    out.extend_from_slice(b"RIFF");
    out.extend_from_slice(&riff.to_le_bytes());
    out.extend_from_slice(b"WAVEfmt ");
    out.extend_from_slice(&16u32.to_le_bytes());
    // Floats.
    out.extend_from_slice(&3u16.to_le_bytes());
    out.extend_from_slice(&(channels as u16).to_le_bytes());
    out.extend_from_slice(&rate.to_le_bytes());
    out.extend_from_slice(&rate.saturating_mul(block).to_le_bytes());
    out.extend_from_slice(&(block as u16).to_le_bytes());
    out.extend_from_slice(&32u16.to_le_bytes());
    out.extend_from_slice(b"data");
    out.extend_from_slice(&data.to_le_bytes());
    let frames = samples.len() / channels;
    for frame in 0..frames {
        for channel in 0..channels {
            let at = if by_channel { channel * frames + frame } else { frame * channels + channel };
            out.extend_from_slice(&samples[at].to_le_bytes());
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a NumPy file of little-endian elements.
    fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        let header = format!("{header:<117}\n");
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend_from_slice(&(header.len() as u16).to_le_bytes());
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(data);
        out
    }

    #[test]
    fn arrays_are_recordings() {
        assert_eq!((rate("k.wav.npy~16000"), rate("k.wav~16000"), rate("k.npy")), (Some(16_000), None, None));
        let floats: Vec<u8> = [0.5f32, -0.25, 0.125, 1.5].iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let mono = to_wav(&npy("<f4", "(4,)", &floats), "a.npy", 16_000).unwrap();
        assert_eq!(&mono[HEADER..], floats);
        let info = flowmill_audio::probe_bytes(&mono, "a.wav").unwrap();
        assert_eq!((info.sample_rate, info.channels, info.seconds()), (16_000, 1, 4.0 / 16_000.0));
        let stereo = to_wav(&npy("<f4", "(2, 2)", &floats), "a.npy", 8000).unwrap();
        assert_eq!(&stereo[HEADER + 4..HEADER + 8], 0.125f32.to_le_bytes());
        let short: Vec<u8> = [16_384i16, -32_768].iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let wav = to_wav(&npy("<i2", "(2,)", &short), "a.npy", 8000).unwrap();
        assert_eq!(&wav[HEADER..], [0.5f32.to_le_bytes(), (-1.0f32).to_le_bytes()].concat());
        assert!(to_wav(&npy("<i8", "(1,)", &[0; 8]), "a.npy", 8000).is_err());
        assert!(to_wav(&npy("<f4", "(9, 9)", &[0; 324]), "a.npy", 8000).unwrap_err().contains("[9, 9]"));
        assert!(to_wav(b"\x93NUMPY", "a.npy", 8000).is_err());
    }
}
