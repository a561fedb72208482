//! AU files (Sun, NeXT): a short header, then PCM, float, mu-law or A-law samples, usually the highest byte first.

use super::pcm::{self, Encoding};
use super::{Decoded, MAX_SAMPLES, check_format, over_range, within};
use crate::audio::{Audio, DecodeWarning};
use crate::error::Fault;

/// The first bytes of AU files, with the highest and with the lowest byte first; and those of DEC's variant.
pub(super) const SIGNATURES: [&[u8; 4]; 4] = [b".snd", b"dns.", b".sd\0", b"\0ds."];
const CONTAINER: &str = "AU";
/// The size field of a file that was written to a pipe.
const UNKNOWN_SIZE: u32 = u32::MAX;

/// Decodes a whole AU file.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Fault> {
    let malformed = |problem: &str| Fault::Malformed { container: CONTAINER.into(), problem: problem.into() };
    let (header, _) = bytes.split_first_chunk::<24>().ok_or_else(|| malformed("the file ends inside its header"))?;
    let (words, _) = header.as_chunks::<4>();
    let big_endian = words[0][0] == b'.';
    let [_, start, size, encoding, sample_rate, channels] = [0, 1, 2, 3, 4, 5].map(|at| match big_endian {
        true => u32::from_be_bytes(words[at]),
        false => u32::from_le_bytes(words[at]),
    });
    check_format(u64::from(sample_rate), u64::from(channels))?;
    let encoding = match encoding {
        1 => Encoding::MuLaw,
        2 => Encoding::Signed8,
        3 => Encoding::Signed16,
        4 => Encoding::Signed24,
        5 => Encoding::Signed32,
        6 => Encoding::Float32,
        7 => Encoding::Float64,
        27 => Encoding::ALaw,
        23 | 25 | 26 => return Err(unsupported("G.72x ADPCM")),
        24 => return Err(unsupported("G.722")),
        other => return Err(unsupported(&format!("a codec with the AU number {other}"))),
    };
    let data = bytes.get(start as usize..).filter(|_| start >= 24);
    let data = data.ok_or_else(|| malformed("its audio starts after the end of the file"))?;
    let frame_bytes = encoding.bytes() * channels as usize;
    let (mut warnings, mut data) = (Vec::new(), data);
    let claimed = size as usize;
    if size == UNKNOWN_SIZE || (size == 0 && !data.is_empty()) {
        warnings.push(DecodeWarning::StreamedSize);
    } else if claimed > data.len() {
        let [claimed, frames] = [claimed, data.len()].map(|bytes| (bytes / frame_bytes) as u64);
        warnings.push(DecodeWarning::Truncated { claimed_frames: Some(claimed), frames });
    } else if claimed < data.len() {
        warnings.push(DecodeWarning::TrailingBytes { bytes: (data.len() - claimed) as u64 });
        data = &data[..claimed];
    }
    let rest = (data.len() % frame_bytes) as u64;
    warnings.extend((rest > 0).then_some(DecodeWarning::PartialFrame { bytes: rest }));
    within("the number of samples", (data.len() / encoding.bytes()) as u64, MAX_SAMPLES)?;
    let samples = pcm::to_planar(data, encoding, big_endian, channels as usize);
    if encoding.is_float() {
        warnings.extend(over_range(&samples));
    }
    Ok(Decoded {
        audio: Audio { samples, sample_rate, warnings },
        codec: encoding.name(big_endian),
        container: "au".into(),
    })
}

fn unsupported(codec: &str) -> Fault {
    Fault::UnsupportedCodec { container: CONTAINER.into(), codec: codec.into() }
}
