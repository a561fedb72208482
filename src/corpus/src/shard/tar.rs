//! Shards as WebDataset tar files: the same rows as in Parquet, as members that any tool can take out.
//!
//! A row is `KEY.json` (id, speaker, text, language, embeddings, tokens), the recording's own bytes as `KEY.flac` or whatever it is,
//! and `KEY.mel.npy` when a mel is stored, one behind the other. The key is the utterance's id, with `%`, `.`, `/` and the like written
//! as `%2E`, because WebDataset takes a key to end at its first dot; the JSON has the id as it is. No times, no owners: the same rows
//! give the same bytes.

mod npy;
mod reader;
mod sidecar;
mod writer;

pub(super) use reader::TarShardReader;
pub use writer::TarShardWriter;

/// Behind the key: the row in words and numbers.
const JSON: &str = "json";
/// Behind the key: the training mel.
const MEL: &str = "mel.npy";

/// An utterance's id as a key.
fn key(utt: &str) -> String {
    let mut key = String::with_capacity(utt.len());
    for c in utt.chars() {
        if matches!(c, '%' | '.' | '/' | '\\') || c.is_control() {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| key.push_str(&format!("%{byte:02X}")));
        } else {
            key.push(c);
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_no_dot_and_no_folder() {
        assert_eq!(key("1688-142285-0000"), "1688-142285-0000");
        assert_eq!(key("../a.b/50%"), "%2E%2E%2Fa%2Eb%2F50%25");
        assert_eq!(key("ü \u{85}"), "ü %C2%85");
    }
}
