//! Writing of 16-bit PCM WAV files.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use crate::error::AudioError;

/// Summary of a file written by [`write_wav`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WavSummary {
    /// Samples written.
    pub samples: u64,
    /// Samples outside of [-1, 1], which were clipped.
    pub clipped: u64,
}

const HEADER_BYTES: u32 = 44;

/// Writes mono `samples`, with full scale [-1, 1], as a 16-bit PCM WAV file at `sample_rate` hertz.
///
/// The scale is 32768 (as in decoders), values are rounded to nearest, values outside of the range are clipped and counted, and
/// NaN becomes 0 and counts as clipped.
///
/// # Errors
/// [`AudioError::SampleRate`] for a rate of zero, [`AudioError::Config`] if the samples do not fit into a WAV
/// file (4 GiB), [`AudioError::Write`] if the writer fails.
pub fn write_wav(writer: impl Write + Seek, samples: &[f32], sample_rate: u32) -> Result<WavSummary, AudioError> {
    if sample_rate == 0 {
        return Err(AudioError::SampleRate { rate: 0 });
    }
    let bytes = data_bytes(samples.len())?;
    let mut writer = BufWriter::new(writer);
    let clipped = write_all(&mut writer, samples, sample_rate, bytes).map_err(failed)?;
    Ok(WavSummary { samples: samples.len() as u64, clipped })
}

/// A mono WAV file of 16-bit PCM that grows. After each part it is a whole file of the samples so far.
#[derive(Debug)]
pub struct GrowingWav<W> {
    writer: W,
    sample_rate: u32,
    samples: usize,
}

impl<W: Write + Seek> GrowingWav<W> {
    /// Begins a file without samples.
    ///
    /// # Errors
    /// [`AudioError::SampleRate`] for a rate of zero, [`AudioError::Write`] if the writer fails.
    pub fn new(mut writer: W, sample_rate: u32) -> Result<Self, AudioError> {
        if sample_rate == 0 {
            return Err(AudioError::SampleRate { rate: 0 });
        }
        writer.write_all(&header(sample_rate, 0)).map_err(failed)?;
        Ok(Self { writer, sample_rate, samples: 0 })
    }

    /// Adds samples; see [`write_wav`] for their scale.
    ///
    /// # Errors
    /// [`AudioError::Config`] if they do not fit into a WAV file, [`AudioError::Write`] if the writer fails.
    pub fn push(&mut self, samples: &[f32]) -> Result<(), AudioError> {
        let count = self.samples.saturating_add(samples.len());
        let bytes = data_bytes(count)?;
        let write = |writer: &mut W, rate: u32| -> io::Result<()> {
            writer.write_all(&pcm16(samples))?;
            writer.seek(SeekFrom::Start(0))?;
            writer.write_all(&header(rate, bytes))?;
            writer.seek(SeekFrom::End(0))?;
            writer.flush()
        };
        write(&mut self.writer, self.sample_rate).map_err(failed)?;
        self.samples = count;
        Ok(())
    }
}

/// Returns samples as 16-bit PCM, little-endian; see [`write_wav`] for their scale.
pub fn pcm16(samples: &[f32]) -> Vec<u8> {
    // A float to integer cast saturates, and turns NaN into 0.
    samples.iter().flat_map(|sample| ((sample * 32768.0).round() as i16).to_le_bytes()).collect()
}

fn failed(source: io::Error) -> AudioError {
    AudioError::Write { what: "the WAV file", source }
}

fn data_bytes(samples: usize) -> Result<u32, AudioError> {
    let most = (u32::MAX - HEADER_BYTES) / 2;
    match u32::try_from(samples) {
        Ok(count) if count <= most => Ok(count * 2),
        _ => Err(AudioError::Config {
            field: "samples",
            value: samples.to_string(),
            expected: format!("at most {most} fit into a WAV file"),
        }),
    }
}

fn write_all(writer: &mut impl Write, samples: &[f32], rate: u32, bytes: u32) -> std::io::Result<u64> {
    writer.write_all(&header(rate, bytes))?;
    let mut clipped = 0;
    for part in samples.chunks(1 << 14) {
        let is_clipped = |sample: &&f32| !(-32768.0..=32767.0).contains(&(*sample * 32768.0).round());
        clipped += part.iter().filter(is_clipped).count() as u64;
        writer.write_all(&pcm16(part))?;
    }
    writer.flush()?;
    Ok(clipped)
}

fn header(rate: u32, bytes: u32) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[0..4].copy_from_slice(b"RIFF");
    header[4..8].copy_from_slice(&(bytes + HEADER_BYTES - 8).to_le_bytes());
    header[8..16].copy_from_slice(b"WAVEfmt ");
    header[16..20].copy_from_slice(&16u32.to_le_bytes());
    header[20..22].copy_from_slice(&1u16.to_le_bytes());
    header[22..24].copy_from_slice(&1u16.to_le_bytes());
    header[24..28].copy_from_slice(&rate.to_le_bytes());
    header[28..32].copy_from_slice(&rate.saturating_mul(2).to_le_bytes());
    header[32..34].copy_from_slice(&2u16.to_le_bytes());
    header[34..36].copy_from_slice(&16u16.to_le_bytes());
    header[36..40].copy_from_slice(b"data");
    header[40..44].copy_from_slice(&bytes.to_le_bytes());
    header
}
