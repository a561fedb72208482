//! RIFF headers of WAV files: RIFF, big-endian RIFX, RF64/BW64, including wrong sizes that programs write.

use std::io::{Read, Seek, SeekFrom};

use super::check_format;
use super::wav_layout::{self, Claims};
use crate::audio::DecodeWarning;
use crate::error::Fault;

/// The fields of a WAV file's header, and the place of the audio.
#[derive(Debug, Clone)]
pub(super) struct WavHeader {
    /// Format tag; for the extensible format that of its sub-format.
    pub(super) tag: u16,
    pub(super) big_endian: bool,
    pub(super) channels: u16,
    pub(super) sample_rate: u32,
    /// Bytes per frame, or per block of frames for block codecs.
    pub(super) block_align: u16,
    pub(super) bits_per_sample: u16,
    /// Frames per block, for codecs whose format chunk states it.
    pub(super) frames_per_block: Option<u16>,
    /// Start of the audio, in bytes.
    pub(super) data_start: u64,
    /// The number of bytes of audio that the first data chunk really contains.
    pub(super) data_bytes: u64,
    /// Start and length of further data chunks.
    pub(super) more: Vec<(u64, u64)>,
    /// The number of bytes that the header promises, if that is more.
    pub(super) promised_bytes: Option<u64>,
    pub(super) warnings: Vec<DecodeWarning>,
}

impl WavHeader {
    /// The number of bytes of audio in all data chunks.
    pub(super) fn all_bytes(&self) -> u64 {
        self.more.iter().fold(self.data_bytes, |sum, (_, bytes)| sum + bytes)
    }

    /// A warning if there are several data chunks.
    pub(super) fn chunk_warning(&self) -> Option<DecodeWarning> {
        let count = 1 + self.more.len() as u64;
        (count > 1).then_some(DecodeWarning::SeveralDataChunks { count })
    }
}

pub(super) const TAG_PCM: u16 = 0x0001;
pub(super) const TAG_ADPCM_MS: u16 = 0x0002;
pub(super) const TAG_FLOAT: u16 = 0x0003;
pub(super) const TAG_ALAW: u16 = 0x0006;
pub(super) const TAG_MULAW: u16 = 0x0007;
pub(super) const TAG_ADPCM_IMA: u16 = 0x0011;
pub(super) const TAG_MP3: u16 = 0x0055;
const TAG_EXTENSIBLE: u16 = 0xfffe;

/// Largest number of chunks examined; real files have a handful.
const MAX_CHUNKS: usize = 1000;
const UNKNOWN_SIZE: u32 = u32::MAX;
/// Number of bytes examined at each place if fields contradict each other.
const EXCERPT_BYTES: u64 = 1 << 16;

/// Returns whether a size is one that programs write when the size is unknown: the largest signed or unsigned number, minus the
/// headers and rounding to whole frames or blocks.
fn is_open_end(size: u32) -> bool {
    const ROUNDING: u32 = 1 << 16;
    (0x8000_0000 - ROUNDING..=0x8000_0000).contains(&size) || size >= u32::MAX - ROUNDING
}

/// Reads the header from a source of `length` bytes.
pub(super) fn read_header(source: &mut (impl Read + Seek), length: u64) -> Result<WavHeader, Fault> {
    let mut reader = Reader { source, big_endian: false, length };
    reader.big_endian = reader.bytes::<12>(0, "the RIFF header")?.starts_with(b"RIFX");
    let mut format = None;
    let mut data_bytes_64 = None;
    let mut at = 12;
    for _ in 0..MAX_CHUNKS {
        if at + 8 > length {
            break;
        }
        let (id, size) = reader.chunk(at)?;
        match &id {
            b"fmt " => format = Some(reader.format(at + 8, size)?),
            b"ds64" => data_bytes_64 = Some(u64::from_le_bytes(reader.bytes(at + 16, "the ds64 chunk")?)),
            b"data" => {
                let format = format.ok_or_else(|| malformed("the data chunk comes before any fmt chunk"))?;
                return reader.with_data(format, at + 8, size, data_bytes_64);
            }
            _ => {}
        }
        at = after_chunk(at, size);
    }
    Err(malformed(if format.is_none() { "there is no fmt chunk" } else { "there is no data chunk" }))
}

fn after_chunk(at: u64, size: u32) -> u64 {
    at + 8 + u64::from(size) + u64::from(size & 1)
}

fn malformed(problem: impl Into<String>) -> Fault {
    Fault::Malformed { container: "wav".into(), problem: problem.into() }
}

struct Format {
    tag: u16,
    channels: u16,
    sample_rate: u32,
    byte_rate: u32,
    block_align: u16,
    bits_per_sample: u16,
    frames_per_block: Option<u16>,
}

struct Reader<'a, S> {
    source: &'a mut S,
    big_endian: bool,
    length: u64,
}

impl<S: Read + Seek> Reader<'_, S> {
    fn bytes<const N: usize>(&mut self, at: u64, what: &str) -> Result<[u8; N], Fault> {
        if at.checked_add(N as u64).is_none_or(|end| end > self.length) {
            return Err(malformed(format!("the file ends inside {what}")));
        }
        let mut bytes = [0; N];
        self.source.seek(SeekFrom::Start(at))?;
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u16(&self, bytes: [u8; 2]) -> u16 {
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn chunk(&mut self, at: u64) -> Result<([u8; 4], u32), Fault> {
        let [a, b, c, d, size @ ..] = self.bytes::<8>(at, "a chunk header")?;
        Ok(([a, b, c, d], self.u32(size)))
    }

    fn format(&mut self, at: u64, size: u32) -> Result<Format, Fault> {
        if size < 16 {
            return Err(malformed(format!("the fmt chunk has {size} bytes; it needs 16")));
        }
        let [t0, t1, c0, c1, r0, r1, r2, r3, y0, y1, y2, y3, a0, a1, b0, b1] = self.bytes::<16>(at, "the fmt chunk")?;
        let mut format = Format {
            tag: self.u16([t0, t1]),
            channels: self.u16([c0, c1]),
            sample_rate: self.u32([r0, r1, r2, r3]),
            byte_rate: self.u32([y0, y1, y2, y3]),
            block_align: self.u16([a0, a1]),
            bits_per_sample: self.u16([b0, b1]),
            frames_per_block: None,
        };
        if format.tag == TAG_EXTENSIBLE && size >= 40 {
            let sub_format = self.bytes(at + 24, "the fmt chunk")?;
            format.tag = self.u16(sub_format);
        }
        if matches!(format.tag, TAG_ADPCM_MS | TAG_ADPCM_IMA) && size >= 20 {
            let frames = self.bytes(at + 18, "the fmt chunk")?;
            format.frames_per_block = Some(self.u16(frames));
        }
        check_format(u64::from(format.sample_rate), u64::from(format.channels))?;
        Ok(format)
    }

    fn with_data(&mut self, format: Format, start: u64, size: u32, size_64: Option<u64>) -> Result<WavHeader, Fault> {
        let there = self.length - start;
        let mut warnings = Vec::new();
        let promised = match (size, size_64) {
            (UNKNOWN_SIZE, Some(size)) => size,
            (size, _) => u64::from(size),
        };
        let open_end = size_64.is_none() && is_open_end(size) && promised > there;
        let streamed = open_end || (size == 0 && self.junk_follows(start)?);
        let data_bytes = if streamed { there } else { promised.min(there) };
        let mut more = Vec::new();
        if streamed && there > 0 {
            warnings.push(DecodeWarning::StreamedSize);
        } else if promised < there {
            let following = self.following(start + promised + (promised & 1))?;
            let bytes = following.unaccounted;
            warnings.extend((bytes > 0).then_some(DecodeWarning::TrailingBytes { bytes }));
            more = following.data;
        }
        let mut format = format;
        if wav_layout::applies(format.tag) {
            warnings.extend(self.settle(&mut format, start, data_bytes)?);
        }
        if !data_bytes.is_multiple_of(u64::from(format.block_align.max(1))) && !more.is_empty() {
            // If the data ends with a part of a frame, later chunks cannot be appended to it.
            let bytes = more.iter().map(|(_, bytes)| bytes).sum();
            warnings.push(DecodeWarning::TrailingBytes { bytes });
            more.clear();
        }
        Ok(WavHeader {
            tag: format.tag,
            big_endian: self.big_endian,
            channels: format.channels,
            sample_rate: format.sample_rate,
            block_align: format.block_align,
            bits_per_sample: format.bits_per_sample,
            frames_per_block: format.frames_per_block,
            data_start: start,
            data_bytes,
            more,
            promised_bytes: (!streamed && promised > there).then_some(promised),
            warnings,
        })
    }

    /// Corrects the format if its fields contradict each other.
    fn settle(&mut self, format: &mut Format, start: u64, data_bytes: u64) -> Result<Option<DecodeWarning>, Fault> {
        let claims = Claims {
            tag: format.tag,
            channels: format.channels,
            bits: format.bits_per_sample,
            block_align: format.block_align,
            byte_rate: format.byte_rate,
            sample_rate: format.sample_rate,
            big_endian: self.big_endian,
        };
        if !claims.contradict() {
            return Ok(None);
        }
        let excerpts = self.excerpts(start, data_bytes, claims.common_frame())?;
        let settled = claims.settle(&excerpts).ok_or_else(|| {
            malformed(format!(
                "its header contradicts itself ({claims}) and the samples are noise however they are read; make the \
                 file anew from its source, or give the samples a right header (sox -t raw)"
            ))
        })?;
        format.channels = settled.channels;
        format.block_align = settled.frame() as u16;
        if settled.bytes != claims.stated().bytes {
            format.bits_per_sample = 8 * settled.bytes;
        }
        check_format(u64::from(format.sample_rate), u64::from(format.channels))?;
        Ok(claims.mended(settled))
    }

    /// Reads samples from three places, or all of them if there are few; every excerpt starts at a multiple of `unit`.
    fn excerpts(&mut self, start: u64, bytes: u64, unit: u64) -> Result<Vec<Vec<u8>>, Fault> {
        let places = if bytes < 4 * EXCERPT_BYTES {
            vec![(0, bytes)]
        } else {
            [1, 2, 3].map(|part| (bytes / 4 * part, EXCERPT_BYTES)).to_vec()
        };
        let mut excerpts = Vec::new();
        for (at, length) in places {
            let mut excerpt = Vec::new();
            self.source.seek(SeekFrom::Start(start + at - at % unit))?;
            self.source.by_ref().take(length).read_to_end(&mut excerpt)?;
            excerpts.push(excerpt);
        }
        Ok(excerpts)
    }

    /// Returns whether the bytes from `at` on are not a chain of chunks.
    fn junk_follows(&mut self, at: u64) -> Result<bool, Fault> {
        Ok(self.following(at)?.unaccounted > 0)
    }

    /// Examines the chunks from `at` on.
    fn following(&mut self, mut at: u64) -> Result<Following, Fault> {
        let mut data = Vec::new();
        for _ in 0..MAX_CHUNKS {
            if at >= self.length {
                return Ok(Following { unaccounted: 0, data });
            }
            let left = self.length - at;
            if left < 8 {
                return Ok(Following { unaccounted: left, data });
            }
            let (id, size) = self.chunk(at)?;
            if !id.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') || u64::from(size) > left - 8 {
                return Ok(Following { unaccounted: left, data });
            }
            if &id == b"data" && size > 0 {
                data.push((at + 8, u64::from(size)));
            }
            at = after_chunk(at, size);
        }
        Ok(Following { unaccounted: self.length.saturating_sub(at), data })
    }
}

/// The chunks after the first data chunk.
struct Following {
    /// Number of bytes that do not belong to a well-formed chain of chunks that ends with the file.
    unaccounted: u64,
    /// Start and length of further data chunks.
    data: Vec<(u64, u64)>,
}
