//! Shards as WebDataset tar files: the same rows as in Parquet, as members that any tool can take out.
//!
//! A row is `KEY.json` (id, speaker, text, language, embeddings, tokens, strings of other columns), the recording's own bytes as
//! `KEY.flac` or whatever it is, and every other column one behind the other: numbers as `KEY.NAME.npy` (such as `KEY.mel.npy`), bytes as
//! `KEY.NAME.0.bin`, `KEY.NAME.1.bin` …. The key is the utterance's id, with `%`, `.`, `/` and the like written
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
/// Behind the key and the name of a column of numbers.
const NPY: &str = ".npy";
/// Behind the key, the name of a column of bytes, and the number of a value.
const BIN: &str = ".bin";

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
