//! Shards as WebDataset tar files: the same rows as in Parquet, as members that any tool can extract.
//!
//! A row is `KEY.json` (id, speaker, text, language, embeddings, tokens, strings of other columns), the recording's
//! own bytes with its extension, such as `KEY.flac`, and every other column in order: numbers as `KEY.NAME.npy` (such
//! as `KEY.mel.npy`), bytes as `KEY.NAME.0.bin`, `KEY.NAME.1.bin` …. The key is the utterance's id, with `%`, `.`,
//! `/` and similar characters written like `%2E`, because in WebDataset a key ends at its first dot. The JSON has the
//! unchanged id. There are no times and no owners: the same rows give the same bytes.

mod npy;
mod reader;
mod sidecar;
mod writer;

pub use reader::TarShardReader;
pub use writer::TarShardWriter;

/// The extension of the row's JSON, after the key.
const JSON: &str = "json";
/// The extension of a column of numbers, after the key and the column's name.
const NPY: &str = ".npy";
/// The extension of a value of a column of bytes, after the key, the column's name and the number of the value.
const BIN: &str = ".bin";

/// Returns the key of an utterance's id.
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
