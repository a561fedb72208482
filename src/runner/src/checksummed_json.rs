//! JSON files that contain their own hash, so that damage is detected and never read as content.

use serde::Serialize;
use serde::de::DeserializeOwned;

const HEAD: &[u8] = b"{\"blake3\":\"";
const MIDDLE: &[u8] = b"\",\n\"content\":";
const TAIL: &[u8] = b"}\n";
const HEX: usize = 64;

/// Returns the bytes of a file that contains `content` and its hash.
pub(crate) fn seal<T: Serialize>(content: &T) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::to_vec_pretty(content)?;
    let hash = blake3::hash(&body).to_hex();
    Ok([HEAD, hash.as_bytes(), MIDDLE, &body, TAIL].concat())
}

/// Returns the content of such a file, or a description of the damage.
pub(crate) fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let body = body(bytes).ok_or("it is damaged: its hash does not match")?;
    serde_json::from_slice(body).map_err(|e| format!("it cannot be parsed: {e}"))
}

fn body(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(HEAD)?;
    let (hash, rest) = rest.split_at_checked(HEX)?;
    let body = rest.strip_prefix(MIDDLE)?.strip_suffix(TAIL)?;
    (blake3::hash(body).to_hex().as_bytes() == hash).then_some(body)
}
