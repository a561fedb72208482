//! JSON files that know their own hash, so that damage is seen and never read as content.

use serde::Serialize;
use serde::de::DeserializeOwned;

const HEAD: &[u8] = b"{\"blake3\":\"";
const MIDDLE: &[u8] = b"\",\n\"content\":";
const TAIL: &[u8] = b"}\n";
const HEX: usize = 64;

/// The bytes of a file that holds `content` and the hash of it.
pub(crate) fn seal<T: Serialize>(content: &T) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::to_vec_pretty(content)?;
    let hash = blake3::hash(&body).to_hex();
    Ok([HEAD, hash.as_bytes(), MIDDLE, &body, TAIL].concat())
}

/// The content of such a file, or what is wrong with it.
pub(crate) fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let body = body(bytes).ok_or("it is damaged: its own hash differs")?;
    serde_json::from_slice(body).map_err(|e| format!("it is not understood: {e}"))
}

fn body(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(HEAD)?;
    let (hash, rest) = rest.split_at_checked(HEX)?;
    let body = rest.strip_prefix(MIDDLE)?.strip_suffix(TAIL)?;
    (blake3::hash(body).to_hex().as_bytes() == hash).then_some(body)
}
