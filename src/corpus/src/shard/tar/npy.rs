//! Mels as NumPy's `.npy`, version 1.0: `[frame][bin]`, half or single precision.

use half::f16;

use crate::shard::{Mel, MelStore};

const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
/// Where the header's text begins.
const TEXT: usize = MAGIC.len() + 2;
/// The content begins at a multiple of this.
const ALIGNMENT: usize = 64;

/// A mel as a file's bytes; `None` when none is stored.
pub(super) fn encode(mel: &Mel, store: MelStore) -> Option<Vec<u8>> {
    let (kind, content): (&str, Vec<u8>) = match store {
        MelStore::None => return None,
        MelStore::Float16 => ("<f2", mel.data.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()),
        MelStore::Float32 => ("<f4", mel.data.iter().flat_map(|value| value.to_le_bytes()).collect()),
    };
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({}, {}), }}", mel.frames, mel.bins);
    let length = (TEXT + text.len() + 1).next_multiple_of(ALIGNMENT) - TEXT;
    text.extend(std::iter::repeat_n(' ', length - text.len() - 1));
    text.push('\n');
    // Two numbers of at most twenty digits each: far less than 65,536 bytes.
    let length = (length as u16).to_le_bytes();
    Some([MAGIC, &length, text.as_bytes(), &content].concat())
}

/// The mel of a file that [`encode`] made.
pub(super) fn decode(bytes: &[u8]) -> Result<Mel, String> {
    let parsed = header(bytes).and_then(|(text, content)| Some((shape(text)?, text.contains("'<f2'"), content)));
    let Some(((frames, bins), half, content)) = parsed else {
        return Err("its mel is no NumPy array of two dimensions in half or single precision".into());
    };
    let data: Vec<f32> = if half {
        content.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
    } else {
        content.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    if frames.checked_mul(bins) != Some(data.len()) {
        return Err(format!("its mel of {} values cannot have {frames} frames of {bins} bins", data.len()));
    }
    Ok(Mel { data, frames, bins })
}

/// The header's text and the content.
fn header(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (text, content) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let text = std::str::from_utf8(text).ok()?;
    let known = text.contains("'<f2'") || text.contains("'<f4'");
    (known && text.contains("'fortran_order': False")).then_some((text, content))
}

/// The two numbers of `'shape': (200, 80)`.
fn shape(text: &str) -> Option<(usize, usize)> {
    let (_, shape) = text.split_once("'shape': (")?;
    let (frames, bins) = shape.split_once(')')?.0.split_once(", ")?;
    Some((frames.parse().ok()?, bins.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mels_come_back_and_damage_is_told() {
        let mel = Mel { data: (0..12).map(|value| value as f32 / 4.0).collect(), frames: 4, bins: 3 };
        for store in [MelStore::Float16, MelStore::Float32] {
            let bytes = encode(&mel, store).unwrap();
            assert_eq!((bytes.len() - if store == MelStore::Float16 { 24 } else { 48 }) % 64, 0);
            assert_eq!(decode(&bytes).unwrap(), mel);
            for cut in 0..bytes.len() {
                assert!(decode(&bytes[..cut]).is_err(), "{cut}");
            }
        }
    }
}
