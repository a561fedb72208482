//! The symbols that the network reads: phonemes as numbers between a begin and an end.
//!
//! The public models have a vocabulary of 256 numbers in the JSON of Hugging Face's `tokenizers`: byte-pair encoding over characters, where
//! several symbols may share a number. Without that file every byte of the text is a symbol.
//!
//! The merges are those of the library: of all neighbors that a rule joins, the pair of the earliest rule is joined first, of equal ones the
//! leftmost (Sennrich, Haddow, Birch, "Neural machine translation of rare words with subword units", ACL 2016). Rules apply to numbers, not to
//! symbols, so a symbol that shares a number is joined like its namesake.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::FileError;

/// The number before a text of bytes. Neither it nor [`BYTES_END`] is a byte of text.
const BYTES_BEGIN: u32 = 1;
/// The number after a text of bytes.
const BYTES_END: u32 = 2;
/// The largest file that is read: a hundred times the public one.
const LARGEST_FILE: u64 = 8 << 20;

/// The reason why a text has no numbers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The text has a character without a symbol, and the vocabulary has no symbol for unknown ones.
    #[error("the vocabulary has no symbol for `{}`, and none for unknown ones", symbol.escape_debug())]
    Unknown {
        /// The character.
        symbol: char,
    },
    /// The text has a control character that is the number of begin or end.
    #[error("the text has the control character U+{:04X}", u32::from(*symbol))]
    Control {
        /// The character.
        symbol: char,
    },
}

/// The symbols of phonemes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhonemeTokenizer(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// UTF-8.
    Bytes,
    /// Byte-pair encoding of a file.
    Pairs(Box<Pairs>),
}

impl PhonemeTokenizer {
    /// The symbols that need no file: the bytes of a text in UTF-8, between 1 and 2.
    pub fn bytes() -> Self {
        Self(Form::Bytes)
    }

    /// Reads the vocabulary of a file of Hugging Face's `tokenizers`.
    ///
    /// # Errors
    /// [`FileError::Io`]; [`FileError::Format`] also for settings that are not those of a plain byte-pair encoding.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let io = |source| FileError::Io { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(io)?.len();
        if size > LARGEST_FILE {
            let problem = format!("a vocabulary of {size} bytes; at most {LARGEST_FILE} are read");
            return Err(FileError::Format { path: path.to_owned(), problem });
        }
        Self::from_json(&std::fs::read(path).map_err(io)?, path)
    }

    /// Like [`open`](Self::open), from memory; `path` is used in messages.
    ///
    /// # Errors
    /// [`FileError::Format`].
    pub fn from_json(json: &[u8], path: &Path) -> Result<Self, FileError> {
        let format = |problem: String| FileError::Format { path: path.to_owned(), problem };
        let file: File = serde_json::from_slice(json)
            .map_err(|error| format(format!("no vocabulary of Hugging Face's tokenizers: {error}")))?;
        Pairs::of(file).map(|pairs| Self(Form::Pairs(Box::new(pairs)))).map_err(format)
    }

    /// Returns the numbers of a text with those of begin and end. A character that the vocabulary does not have becomes the number of unknown ones.
    ///
    /// # Errors
    /// [`TokenizerError::Unknown`] and [`TokenizerError::Control`].
    pub fn encode(&self, phonemes: &str) -> Result<Vec<u32>, TokenizerError> {
        match &self.0 {
            Form::Bytes => {
                let reserved = |symbol: char| [0, BYTES_BEGIN, BYTES_END].contains(&u32::from(symbol));
                if let Some(symbol) = phonemes.chars().find(|symbol| reserved(*symbol)) {
                    return Err(TokenizerError::Control { symbol });
                }
                let bytes = phonemes.bytes().map(u32::from);
                Ok([BYTES_BEGIN].into_iter().chain(bytes).chain([BYTES_END]).collect())
            }
            Form::Pairs(pairs) => pairs.encode(phonemes),
        }
    }

    /// Returns the text of numbers, without begin, end and numbers of no symbol. Where several symbols share a number, it is the longest
    /// that a rule makes, or else the first of the file.
    pub fn decode(&self, ids: &[u32]) -> String {
        match &self.0 {
            Form::Bytes => {
                let bytes = ids.iter().filter(|id| ![0, BYTES_BEGIN, BYTES_END].contains(*id));
                let bytes: Vec<u8> = bytes.filter_map(|id| u8::try_from(*id).ok()).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Form::Pairs(pairs) => ids.iter().filter_map(|id| pairs.symbols.get(id)).map(String::as_str).collect(),
        }
    }

    /// Returns the characters of a text that the vocabulary does not have.
    pub fn unknown(&self, phonemes: &str) -> BTreeSet<char> {
        match &self.0 {
            Form::Bytes => BTreeSet::new(),
            Form::Pairs(pairs) => phonemes.chars().filter(|symbol| !pairs.characters.contains_key(symbol)).collect(),
        }
    }

    /// Returns the size of the vocabulary: every number is below it.
    pub fn size(&self) -> usize {
        match &self.0 {
            Form::Bytes => 256,
            Form::Pairs(pairs) => pairs.size,
        }
    }
}

/// A file of `tokenizers`, as far as it is read.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: Model,
}

/// A token that is found in the text before anything is split.
#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

/// The encoding.
#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: serde_json::Map<String, Value>,
    merges: Vec<Value>,
    unk_token: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// Byte-pair encoding over characters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pairs {
    characters: HashMap<char, u32>,
    unknown: Option<u32>,
    /// The rank of a rule and the number that it gives, by the numbers of the pair.
    rules: HashMap<(u32, u32), (u32, u32)>,
    /// Texts that are a number as a whole, the longest first.
    whole: Vec<(String, u32)>,
    before: Vec<u32>,
    after: Vec<u32>,
    symbols: HashMap<u32, String>,
    size: usize,
}

impl Pairs {
    /// Checks the settings of a file and takes its tables.
    fn of(file: File) -> Result<Self, String> {
        let File { added_tokens, normalizer, pre_tokenizer, post_processor, model } = file;
        for (name, value) in [("normalizer", normalizer), ("pre_tokenizer", pre_tokenizer)] {
            if !value.is_null() {
                return Err(format!("its `{name}` is not read; the vocabulary of phonemes has none"));
            }
        }
        model.check()?;
        let number = |(symbol, id): (&String, &Value)| {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            id.map(|id| (symbol.clone(), id))
                .ok_or_else(|| format!("the number of `{}` is none", symbol.escape_debug()))
        };
        let in_order: Vec<(String, u32)> = model.vocab.iter().map(number).collect::<Result<_, _>>()?;
        let vocabulary: HashMap<&str, u32> = in_order.iter().map(|(symbol, id)| (symbol.as_str(), *id)).collect();
        let id = |symbol: &str| {
            let id = vocabulary.get(symbol).copied();
            id.ok_or_else(|| format!("`{}` of its merges has no number", symbol.escape_debug()))
        };
        let (mut rules, mut symbols) = (HashMap::new(), HashMap::new());
        for (rank, rule) in model.merges.iter().enumerate() {
            let (left, right) = pair(rule).ok_or_else(|| format!("rule {rank} of its merges is no pair"))?;
            let (joined, rank) = (format!("{left}{right}"), u32::try_from(rank).map_err(|error| error.to_string())?);
            let new = id(&joined)?;
            // The later of two rules for the same numbers counts, as in the library.
            rules.insert((id(left)?, id(right)?), (rank, new));
            let known: &mut String = symbols.entry(new).or_default();
            if joined.len() > known.len() {
                *known = joined;
            }
        }
        for (symbol, id) in &in_order {
            symbols.entry(*id).or_insert_with(|| symbol.clone());
        }
        let unknown = model.unk_token.as_deref().map(id).transpose()?;
        let mut whole = Vec::new();
        for token in added_tokens {
            let id = vocabulary.get(token.content.as_str()).copied().unwrap_or(token.id);
            if token.single_word || token.lstrip || token.rstrip || token.content.is_empty() {
                let name = token.content.escape_debug();
                return Err(format!("the added token `{name}` takes blanks or words around it, which is not read"));
            }
            symbols.remove(&id);
            whole.push((token.content, id));
        }
        whole.sort_by_key(|(content, _)| Reverse(content.len()));
        let (before, after) = frame(&post_processor)?;
        let ids = in_order.iter().map(|(_, id)| id).chain(whole.iter().map(|(_, id)| id)).chain(&before).chain(&after);
        let size = ids.max().map_or(0, |id| *id as usize + 1);
        let single = |(symbol, id): (&str, u32)| {
            let mut letters = symbol.chars();
            letters.next().filter(|_| letters.next().is_none()).map(|letter| (letter, id))
        };
        let characters = vocabulary.into_iter().filter_map(single).collect();
        Ok(Self { characters, unknown, rules, whole, before, after, symbols, size })
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.before.clone();
        let (mut rest, mut from) = (text, 0);
        while from < rest.len() {
            let found = self.whole.iter().find(|(content, _)| rest[from..].starts_with(content.as_str()));
            if let Some((content, id)) = found {
                self.join(&rest[..from], &mut ids)?;
                ids.push(*id);
                (rest, from) = (&rest[from + content.len()..], 0);
            } else {
                from += rest[from..].chars().next().map_or(1, char::len_utf8);
            }
        }
        self.join(rest, &mut ids)?;
        ids.extend(&self.after);
        Ok(ids)
    }

    /// Adds the numbers of a text without whole tokens.
    fn join(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let number = |symbol: char| {
            let id = self.characters.get(&symbol).copied().or(self.unknown);
            id.ok_or(TokenizerError::Unknown { symbol })
        };
        let mut word: Vec<Link> = Vec::with_capacity(text.len());
        for symbol in text.chars() {
            let at = word.len();
            word.push(Link { id: Some(number(symbol)?), previous: at.checked_sub(1), next: at + 1 });
        }
        let mut queue = BinaryHeap::new();
        let rule = |word: &[Link], at: usize| {
            let (left, next) = (word.get(at)?.id?, word[at].next);
            self.rules.get(&(left, word.get(next)?.id?)).copied()
        };
        for at in 0..word.len() {
            queue.extend(rule(&word, at).map(|(rank, new)| Reverse((rank, at, new))));
        }
        while let Some(Reverse((_, at, new))) = queue.pop() {
            // A neighbor may have been joined since.
            if rule(&word, at).is_none_or(|(_, id)| id != new) {
                continue;
            }
            let right = word[at].next;
            let next = word[right].next;
            word[right].id = None;
            word[at] = Link { id: Some(new), next, ..word[at] };
            if let Some(link) = word.get_mut(next) {
                link.previous = Some(at);
            }
            for at in word[at].previous.into_iter().chain([at]) {
                queue.extend(rule(&word, at).map(|(rank, new)| Reverse((rank, at, new))));
            }
        }
        ids.extend(word.iter().filter_map(|link| link.id));
        Ok(())
    }
}

/// A symbol of a word while its neighbors are joined.
#[derive(Clone, Copy)]
struct Link {
    /// The number; `None` once it is part of the symbol to its left.
    id: Option<u32>,
    previous: Option<usize>,
    next: usize,
}

impl Model {
    /// Refuses settings that change the encoding.
    fn check(&self) -> Result<(), String> {
        if let Some(kind) = self.kind.as_deref().filter(|kind| *kind != "BPE") {
            return Err(format!("its model is `{}`; byte-pair encoding (BPE) is read", kind.escape_debug()));
        }
        let is_set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        let settings = [
            ("dropout", self.dropout.is_some_and(|rate| rate != 0.0)),
            ("continuing_subword_prefix", is_set(&self.continuing_subword_prefix)),
            ("end_of_word_suffix", is_set(&self.end_of_word_suffix)),
            ("fuse_unk", self.fuse_unk),
            ("byte_fallback", self.byte_fallback),
            ("ignore_merges", self.ignore_merges),
        ];
        match settings.into_iter().find(|(_, set)| *set) {
            Some((name, _)) => {
                Err(format!("its setting `model.{name}` is not read; the vocabulary of phonemes does not set it"))
            }
            None => Ok(()),
        }
    }
}

/// Returns the pair of a rule: `"a b"`, or `["a", "b"]` in newer files.
fn pair(rule: &Value) -> Option<(&str, &str)> {
    match rule {
        Value::String(text) => text.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.contains(' ')),
        Value::Array(parts) => match parts.as_slice() {
            [Value::String(left), Value::String(right)] => Some((left, right)),
            _ => None,
        },
        _ => None,
    }
}

/// Returns the numbers before and after a text: those of the special tokens of a `TemplateProcessing`.
fn frame(processor: &Value) -> Result<(Vec<u32>, Vec<u32>), String> {
    let wrong = || "its `post_processor` is no template that puts a begin and an end around one sequence".to_owned();
    let template = processor.get("single").and_then(Value::as_array).ok_or_else(wrong)?;
    let (mut before, mut after, mut seen) = (Vec::new(), Vec::new(), false);
    for part in template {
        if part.get("Sequence").is_some() && !std::mem::replace(&mut seen, true) {
            continue;
        }
        let name = part.pointer("/SpecialToken/id").and_then(Value::as_str).ok_or_else(wrong)?;
        let ids = processor.get("special_tokens").and_then(|tokens| tokens.get(name)?.get("ids")?.as_array());
        let side = if seen { &mut after } else { &mut before };
        for id in ids.ok_or_else(wrong)? {
            side.push(id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong)?);
        }
    }
    if before.is_empty() || after.is_empty() || !seen { Err(wrong()) } else { Ok((before, after)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The phonemes of "Once again, excellent work.".
    const SENTENCE: &str = "wˈʌns ɐɡˈɛn, ˈɛksələnt wˈɜːk.";

    /// A vocabulary with the symbols of the sentence under the numbers of the public one.
    fn vocabulary() -> Value {
        let symbols = [
            ("<unk>", 0),
            ("<bos>", 1),
            ("</eos>", 2),
            ("<mask>", 3),
            (" ", 4),
            ("ᵝ", 4),
            (",", 9),
            (".", 11),
            ("k", 25),
            ("l", 26),
            ("n", 28),
            ("s", 33),
            ("t", 34),
            ("w", 37),
            ("ɐ", 48),
            ("ə", 52),
            ("ɛ", 54),
            ("ɜ", 55),
            ("ɡ", 57),
            ("ʌ", 67),
            ("ˈ", 72),
            ("ː", 74),
            ("ˈɛ", 83),
            ("ən", 94),
            ("ˈʌ", 96),
            ("ɜː", 106),
            ("əl", 111),
            ("ˈɜː", 115),
            ("ˈɛn", 123),
            ("ənt", 139),
            ("ˈʌn", 161),
            ("ks", 171),
            ("1", 211),
            ("wˈʌn", 211),
        ];
        let vocab: serde_json::Map<String, Value> =
            symbols.into_iter().map(|(symbol, id)| (symbol.to_owned(), json!(id))).collect();
        let added = ["<unk>", "<bos>", "</eos>", "<mask>"].iter().enumerate().map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "special": true})
        });
        let special = |name: &str, id: u32| json!({"id": name, "ids": [id], "tokens": [name]});
        json!({
            "version": "1.0",
            "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": null,
            "pre_tokenizer": null,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": "<eos>", "type_id": 0}}],
                "special_tokens": {"<bos>": special("<bos>", 1), "<eos>": special("<eos>", 2)},
            },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
                "merges": ["ˈ ɛ", "ə n", "ˈ ʌ", "ɜ ː", "ə l", "ˈ ɜː", "ˈɛ n", "ən t", "ˈʌ n", "k s", "w ˈʌn"],
            },
        })
    }

    fn read(json: &Value) -> Result<PhonemeTokenizer, FileError> {
        PhonemeTokenizer::from_json(json.to_string().as_bytes(), Path::new("tokenizer.json"))
    }

    #[test]
    fn the_public_example_has_its_numbers() {
        let tokenizer = read(&vocabulary()).unwrap();
        let ids = [1, 211, 33, 4, 48, 57, 123, 9, 4, 83, 171, 111, 139, 4, 37, 115, 25, 11, 2];
        assert_eq!(tokenizer.encode(SENTENCE).unwrap(), ids);
        assert_eq!((tokenizer.decode(&ids).as_str(), tokenizer.size()), (SENTENCE, 212));
        assert_eq!(tokenizer.encode("").unwrap(), [1, 2]);
    }

    #[test]
    fn unknown_characters_and_tokens_in_the_text_have_their_numbers() {
        let tokenizer = read(&vocabulary()).unwrap();
        // A number each, and a symbol that shares the number of another.
        assert_eq!(tokenizer.encode("語語ᵝn").unwrap(), [1, 0, 0, 4, 28, 2]);
        assert_eq!(tokenizer.unknown("k語n"), BTreeSet::from(['語']));
        assert_eq!(tokenizer.encode("n</eos>k<mask>s").unwrap(), [1, 28, 2, 25, 3, 33, 2]);
        // Symbols on different sides of a token are not joined.
        assert_eq!(tokenizer.encode("k<unk>s").unwrap(), [1, 25, 0, 33, 2]);
        let mut without = vocabulary();
        without["model"]["unk_token"] = Value::Null;
        assert!(matches!(read(&without).unwrap().encode("語"), Err(TokenizerError::Unknown { symbol: '語' })));
    }

    #[test]
    fn earlier_rules_join_first_and_the_leftmost_of_equal_ones() {
        let mut json = vocabulary();
        json["model"]["vocab"] = json!({"<unk>": 0, "a": 5, "aa": 6, "b": 7, "ab": 8, "aaa": 9});
        json["model"]["merges"] = json!([["a", "b"], ["a", "a"], ["aa", "a"]]);
        let tokenizer = read(&json).unwrap();
        assert_eq!(tokenizer.encode("aab").unwrap(), [1, 5, 8, 2]);
        assert_eq!(tokenizer.encode("aaa").unwrap(), [1, 9, 2]);
        assert_eq!(tokenizer.encode("aaaa").unwrap(), [1, 6, 6, 2]);
        assert_eq!(tokenizer.encode("aaaab").unwrap(), [1, 9, 8, 2]);
    }

    #[test]
    fn bytes_need_no_file() {
        let tokenizer = PhonemeTokenizer::bytes();
        assert_eq!(tokenizer.encode("aˈ").unwrap(), [1, 97, 203, 136, 2]);
        assert_eq!((tokenizer.decode(&[1, 97, 203, 136, 2]).as_str(), tokenizer.size()), ("aˈ", 256));
        assert!(matches!(tokenizer.encode("a\u{2}"), Err(TokenizerError::Control { symbol: '\u{2}' })));
    }

    #[test]
    fn other_files_are_refused() {
        let with = |pointer: &str, value: Value| {
            let mut json = vocabulary();
            *json.pointer_mut(pointer).unwrap() = value;
            json
        };
        for bad in [
            json!({}),
            json!({"model": {"type": "BPE"}}),
            with("/normalizer", json!({"type": "NFC"})),
            with("/pre_tokenizer", json!({"type": "Whitespace"})),
            with("/post_processor", Value::Null),
            with("/post_processor/single", json!([{"Sequence": {"id": "A"}}])),
            with("/model/type", json!("WordPiece")),
            with("/model/byte_fallback", json!(true)),
            with("/model/dropout", json!(0.1)),
            with("/model/merges", json!(["ˈ x"])),
            with("/model/merges", json!(["a b c"])),
            with("/model/vocab/k", json!(-1)),
            with("/model/vocab/k", json!(1u64 << 40)),
            with("/added_tokens/0/lstrip", json!(true)),
        ] {
            assert!(matches!(read(&bad), Err(FileError::Format { .. })), "{bad}");
        }
        assert!(matches!(PhonemeTokenizer::open(Path::new("/no/such/file")), Err(FileError::Io { .. })));
    }
}
