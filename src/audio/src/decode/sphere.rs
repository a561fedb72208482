//! NIST SPHERE files: a header in text, then PCM, mu-law or A-law samples.

use super::pcm::{self, Encoding};
use super::{Decoded, MAX_SAMPLES, check_format, within};
use crate::audio::{Audio, DecodeWarning};
use crate::error::Fault;

/// The first bytes of SPHERE files.
pub(super) const SIGNATURE: &[u8] = b"NIST_1A\n";
const CONTAINER: &str = "NIST SPHERE";
/// Largest accepted header; real ones have 1024 bytes.
const MAX_HEADER_BYTES: usize = 1 << 20;

/// Decodes a whole SPHERE file.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Fault> {
    let length =
        header_length(bytes).ok_or_else(|| malformed("its first lines do not state the length of its header"))?;
    let text = bytes.get(..length).ok_or_else(|| malformed("the file ends inside its header"))?;
    let fields = Fields::parse(text);
    let sample_rate = fields.number("sample_rate")?.ok_or_else(|| malformed("its header has no sample_rate"))?;
    let channels = fields.number("channel_count")?.unwrap_or(1);
    check_format(sample_rate, channels)?;
    let data = &bytes[length..];
    let (encoding, big_endian) = fields.encoding(data)?;
    if channels > 1 && fields.text("channels_interleaved").is_some_and(|value| value.eq_ignore_ascii_case("false")) {
        return Err(unsupported("channels that are not interleaved"));
    }
    let frame_bytes = encoding.bytes() * channels as usize;
    let there = data.len() / frame_bytes;
    within("the number of samples", there as u64 * channels, MAX_SAMPLES)?;
    let claimed = fields.number("sample_count")?.filter(|count| *count > 0);
    let frames = claimed.map_or(there, |claimed| usize::try_from(claimed).unwrap_or(there).min(there));
    let mut warnings = Vec::new();
    match claimed {
        Some(claimed) if claimed > there as u64 => {
            warnings.push(DecodeWarning::Truncated { claimed_frames: Some(claimed), frames: there as u64 });
        }
        Some(_) if data.len() > frames * frame_bytes => {
            warnings.push(DecodeWarning::TrailingBytes { bytes: (data.len() - frames * frame_bytes) as u64 });
        }
        None if !data.len().is_multiple_of(frame_bytes) => {
            warnings.push(DecodeWarning::PartialFrame { bytes: (data.len() % frame_bytes) as u64 });
        }
        _ => {}
    }
    let samples = pcm::to_planar(&data[..frames * frame_bytes], encoding, big_endian, channels as usize);
    Ok(Decoded {
        audio: Audio { samples, sample_rate: sample_rate as u32, warnings },
        codec: encoding.name(big_endian),
        container: "sphere".into(),
    })
}

fn malformed(problem: &str) -> Fault {
    Fault::Malformed { container: CONTAINER.into(), problem: problem.into() }
}

fn unsupported(codec: impl Into<String>) -> Fault {
    Fault::UnsupportedCodec { container: CONTAINER.into(), codec: codec.into() }
}

/// The second line is the header's length in bytes.
fn header_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.get(SIGNATURE.len()..)?.get(..8)?;
    let length: usize = std::str::from_utf8(line).ok()?.trim().parse().ok()?;
    (SIGNATURE.len() + 8..=MAX_HEADER_BYTES).contains(&length).then_some(length)
}

/// The fields of a header, as `name -type value`.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn parse(header: &[u8]) -> Self {
        let text = String::from_utf8_lossy(header);
        let lines = text.lines().skip(2).take_while(|line| line.trim() != "end_head");
        let field = |line: &str| {
            let (name, rest) = line.trim().split_once(char::is_whitespace)?;
            let (_kind, value) = rest.trim_start().split_once(char::is_whitespace)?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        Self(lines.filter_map(field).collect())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &'static str) -> Result<Option<u64>, Fault> {
        let Some(text) = self.text(name) else { return Ok(None) };
        // Some writers append a fraction to the rate.
        let number = text.parse::<f64>().ok().filter(|value| *value >= 0.0 && value.fract() == 0.0 && *value < 1e15);
        number.map(|value| Some(value as u64)).ok_or_else(|| malformed(&format!("its header says {name} = {text:?}")))
    }

    /// Returns the encoding of samples, and whether the highest byte comes first.
    fn encoding(&self, data: &[u8]) -> Result<(Encoding, bool), Fault> {
        let coding = self.text("sample_coding").unwrap_or("pcm").to_ascii_lowercase();
        let bytes = self.number("sample_n_bytes")?;
        if coding.contains("shorten") || data.starts_with(b"ajkg") {
            return Err(unsupported("Shorten"));
        }
        if coding.contains("wavpack") {
            return Err(unsupported("WavPack"));
        }
        let order = self.text("sample_byte_format").unwrap_or_default();
        match (coding.as_str(), bytes) {
            ("ulaw" | "mu-law" | "mulaw", None | Some(1)) => Ok((Encoding::MuLaw, false)),
            ("alaw" | "a-law", None | Some(1)) => Ok((Encoding::ALaw, false)),
            ("pcm", Some(1)) => Ok((Encoding::Signed8, false)),
            ("pcm", Some(count @ 2..=4)) => {
                let encoding = [Encoding::Signed16, Encoding::Signed24, Encoding::Signed32][count as usize - 2];
                // "01", "012" and "0123" mean that the lowest byte comes first; some writers put "01" for any size.
                match order {
                    "01" | "012" | "0123" => Ok((encoding, false)),
                    "10" | "210" | "3210" => Ok((encoding, true)),
                    _ => Err(malformed(&format!("its header says sample_byte_format = {order:?}, expected 01 or 10"))),
                }
            }
            ("pcm", _) => Err(malformed("its header has no sample_n_bytes of 1 to 4")),
            _ => Err(unsupported(coding)),
        }
    }
}
