//! Tokenizers of language models, from files or made of words.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenizers::pre_tokenizers::whitespace::Whitespace;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer};

use super::sentencepiece;

/// Largest size of a tokenizer's file, in bytes.
const LARGEST: u64 = 256 << 20;

/// Names of the symbol at the beginning of a text, in the order in which they are looked for.
const BEGIN: [&str; 3] = ["<s>", "<|begin_of_text|>", "<|startoftext|>"];
/// Names of the symbol at the end of a text.
const END: [&str; 4] = ["</s>", "<|end_of_text|>", "<|endoftext|>", "<|eot_id|>"];

/// The files of a tokenizer in a model's folder, in the order in which they are looked for.
const FILES: [&str; 2] = ["tokenizer.json", "tokenizer.model"];

/// A tokenizer with its special symbols.
pub struct PromptTokenizer {
    tokenizer: Tokenizer,
    begin: u32,
    end: u32,
}

impl PromptTokenizer {
    /// Reads a tokenizer from the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// The reason why it cannot be used.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| format!("is no tokenizer: {error}"))?;
        // A file may cut or pad texts, which would hide what was cut.
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        tokenizer.with_padding(None);
        let find = |names: &[&str]| names.iter().find_map(|name| tokenizer.token_to_id(name));
        let begin = find(&BEGIN).ok_or_else(|| format!("has no symbol for the beginning ({})", BEGIN.join(", ")))?;
        let end = find(&END).ok_or_else(|| format!("has no symbol for the end ({})", END.join(", ")))?;
        Ok(Self { tokenizer, begin, end })
    }

    /// Returns the number of different ids: each is less than this.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Returns the id that fills texts up: that of the end.
    pub fn padding(&self) -> u32 {
        self.end
    }

    /// Returns the ids of a text: the symbol of the beginning, then the text. No symbol of the end follows.
    ///
    /// # Errors
    /// The reason why the text has no ids.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|error| error.to_string())?;
        Ok(std::iter::once(self.begin).chain(encoding.get_ids().iter().copied()).collect())
    }
}

/// Returns the file of a tokenizer that a path names: itself, or one of [`FILES`] in a folder.
pub(super) fn file_of(path: &Path) -> PathBuf {
    let inside = FILES.iter().map(|name| path.join(name)).find(|file| file.is_file());
    inside.unwrap_or_else(|| path.to_owned())
}

/// Reads a `tokenizer.json` or a `tokenizer.model` as the content of a `tokenizer.json`.
///
/// # Errors
/// The reason why it cannot be read; the file's name is not in the message.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    File::open(path).map_err(unreadable)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("is larger than {LARGEST} bytes; it is no tokenizer"));
    }
    let json = match bytes.trim_ascii_start().first() {
        Some(b'{') => bytes,
        _ => {
            let json = sentencepiece::to_json(&bytes);
            json.map_err(|problem| format!("is neither a tokenizer.json nor a tokenizer.model: {problem}"))?
                .to_string()
                .into_bytes()
        }
    };
    PromptTokenizer::from_json(&json)?;
    Ok(json)
}

/// Returns the `tokenizer.json` of a tokenizer of whole words in lower case and single marks; these words have ids from 3 on.
pub(super) fn of_words<'a>(words: impl Iterator<Item = &'a str>) -> Value {
    let symbols = ["<unk>", BEGIN[0], END[0]];
    let vocabulary: serde_json::Map<String, Value> =
        symbols.into_iter().chain(words).enumerate().map(|(id, word)| (word.to_owned(), id.into())).collect();
    let special = |(id, content): (usize, &str)| {
        json!({
            "id": id, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    let specials: Vec<Value> = symbols.into_iter().enumerate().map(special).collect();
    json!({
        "version": "1.0",
        "added_tokens": specials,
        "normalizer": { "type": "Lowercase" },
        "pre_tokenizer": { "type": "Whitespace" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": symbols[0] },
    })
}

/// Returns the words and marks of a text as the tokenizer of [`of_words`] divides it.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut text = PreTokenizedString::from(text.to_lowercase());
    // It fails for no text: the pattern is constant.
    if Whitespace.pre_tokenize(&mut text).is_err() {
        return Vec::new();
    }
    let splits = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
    splits.into_iter().map(|(word, ..)| word.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids by sentencepiece 0.2.3 and tokenizers 0.23.3, see `tests/golden/README.md`.
    #[test]
    fn ids_are_those_of_sentencepiece_and_tokenizers() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizers");
        let expected: Value = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
        for (name, file, with_begin) in [
            ("bpe", "bpe.model", false),
            ("unigram", "unigram.model", false),
            ("tokenizer.json", "tokenizer.json", true),
        ] {
            let tokenizer = PromptTokenizer::from_json(&read(&folder.join(file)).unwrap()).unwrap();
            assert_eq!(tokenizer.vocabulary() as u64, expected[name]["vocab_size"].as_u64().unwrap(), "{name}");
            for (text, ids) in
                expected["texts"].as_array().unwrap().iter().zip(expected[name]["ids"].as_array().unwrap())
            {
                let ids: Vec<u32> = ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
                let expected = if with_begin { ids } else { [vec![1], ids].concat() };
                assert_eq!(tokenizer.encode(text.as_str().unwrap()).unwrap(), expected, "{name}: {text}");
            }
        }
    }

    #[test]
    fn words_are_divided_as_the_tokenizer_divides_them() {
        let text = "### Human: A person's \"1. naïve cat_9 2. dogs\". ###Assistant: ";
        let found = words(text);
        assert_eq!(found[..6], ["###", "human", ":", "a", "person", "'"]);
        let unique: std::collections::BTreeSet<&str> = found.iter().map(String::as_str).collect();
        let tokenizer = PromptTokenizer::from_json(of_words(unique.iter().copied()).to_string().as_bytes()).unwrap();
        let ids = tokenizer.encode(text).unwrap();
        let expected: Vec<u32> =
            found.iter().map(|word| 3 + unique.iter().position(|own| own == word).unwrap() as u32).collect();
        assert_eq!(ids[0], 1, "begins with <s>");
        assert_eq!(ids[1..], expected);
        assert_eq!(tokenizer.encode("zebra").unwrap(), [1, 0]);
        assert_eq!((tokenizer.vocabulary(), tokenizer.padding()), (unique.len() + 3, 2));
    }
}
