//! Wave64 files (Sony): WAV with chunk names of 16 bytes and sizes of 64 bits.

use super::{Decoded, wav};
use crate::error::Fault;

/// The name of the file's first chunk.
pub(super) const SIGNATURE: &[u8] = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00";
/// The end of the names of all other chunks; they begin with the four letters of the name in WAV.
const NAME_END: &[u8] = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a";
const CHUNK_HEADER: usize = 24;

/// Decodes a whole Wave64 file, by converting its format and data chunks to a WAV file.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Fault> {
    let (mut format, mut at) = (None, 40);
    while let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk::<CHUNK_HEADER>()) {
        let size = u64::from_le_bytes([
            header[16], header[17], header[18], header[19], header[20], header[21], header[22], header[23],
        ]);
        let content = &bytes[at + CHUNK_HEADER..];
        let length = usize::try_from(size).unwrap_or(usize::MAX).saturating_sub(CHUNK_HEADER);
        let here = &content[..length.min(content.len())];
        match (&header[..4], &header[4..16] == NAME_END) {
            (b"fmt ", true) => format = Some(here),
            (b"data", true) => {
                let format = format.ok_or_else(|| malformed("the data chunk comes before any fmt chunk"))?;
                let data = without_padding(format, here, length);
                return as_wav(format, data, length - (here.len() - data.len()));
            }
            _ => {}
        }
        // Chunks begin at multiples of eight bytes.
        at = match at.checked_add(length.saturating_add(CHUNK_HEADER)).map(|end| end.checked_next_multiple_of(8)) {
            Some(Some(next)) => next,
            _ => break,
        };
    }
    Err(malformed(if format.is_none() { "there is no fmt chunk" } else { "there is no data chunk" }))
}

/// Returns the samples of a data chunk. Some programs include the zeros that pad a chunk to eight bytes in its size.
fn without_padding<'a>(format: &[u8], data: &'a [u8], claimed: usize) -> &'a [u8] {
    let frame = format.get(12..14).map_or(1, |align| usize::from(u16::from_le_bytes([align[0], align[1]])).max(1));
    let (samples, rest) = data.split_at(data.len() - data.len() % frame);
    let is_padding = data.len() == claimed && rest.len() < 8 && rest.iter().all(|byte| *byte == 0);
    if is_padding { samples } else { data }
}

fn malformed(problem: &str) -> Fault {
    Fault::Malformed { container: "Wave64".into(), problem: problem.into() }
}

/// Decodes format and data as an equivalent WAV file; `claimed` is the length in the data chunk.
fn as_wav(format: &[u8], data: &[u8], claimed: usize) -> Result<Decoded, Fault> {
    let [format_length, claimed] = [format.len(), claimed].map(|length| u32::try_from(length).unwrap_or(u32::MAX - 1));
    let mut file = Vec::with_capacity(data.len() + format.len() + 64);
    file.extend_from_slice(b"RIFF\xff\xff\xff\xffWAVEfmt ");
    file.extend_from_slice(&format_length.to_le_bytes());
    file.extend_from_slice(format);
    file.resize(file.len() + (format.len() & 1), 0);
    file.extend_from_slice(b"data");
    file.extend_from_slice(&claimed.to_le_bytes());
    file.extend_from_slice(data);
    let decoded = wav::decode(&file).map_err(|fault| match fault {
        Fault::UnsupportedCodec { codec, .. } => Fault::UnsupportedCodec { container: "Wave64".into(), codec },
        Fault::Malformed { problem, .. } => Fault::Malformed { container: "Wave64".into(), problem },
        other => other,
    })?;
    Ok(Decoded { container: "w64".into(), ..decoded })
}
