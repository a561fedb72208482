//! CLIP's tokenizer of captions: byte-pair encoding of words (Sennrich et al., ACL 2016), in the files of the package transformers
//! (`CLIPTokenizer`): `vocab.json` and `merges.txt`. It can also be fitted to a few captions.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Value, json};

use crate::FileError;

/// The end of a word in its last symbol.
const END_OF_WORD: &str = "</w>";
/// The token before a text.
const BEGIN: &str = "<|startoftext|>";
/// The token after a text, which also pads it.
const END: &str = "<|endoftext|>";
/// Endings that are words of their own.
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
/// The first line of `merges.txt`.
const VERSION: &str = "#version: 0.2";
/// The largest file that is read, in bytes.
const LARGEST_FILE: u64 = 16 << 20;

/// A byte-pair encoding of words with the tokens of CLIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipTokenizer {
    merges: Vec<(String, String)>,
    ranks: HashMap<(String, String), usize>,
    vocabulary: HashMap<String, u32>,
    begin: u32,
    end: u32,
}

/// Returns the character that stands for each byte in vocabularies: printable ones for themselves, others from U+0100 on.
fn byte_characters() -> [char; 256] {
    let mut next = 256;
    std::array::from_fn(|byte| {
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let code = if printable { byte as u32 } else { next };
        next += u32::from(!printable);
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
    })
}

/// Returns the byte symbols in the order of the public vocabulary: printable ones first.
fn alphabet() -> Vec<String> {
    let characters = byte_characters();
    let (others, printable): (Vec<char>, Vec<char>) =
        characters.into_iter().partition(|character| *character >= '\u{100}');
    printable.into_iter().chain(others).map(String::from).collect()
}

/// Splits a text into words: contractions, runs of letters, single digits, and runs of other characters.
fn words(text: &str) -> Vec<String> {
    /// The kind of characters that form a word.
    #[derive(PartialEq, Clone, Copy)]
    enum Kind {
        Space,
        Letter,
        Digit,
        Other,
    }
    let kind = |character: char| match character {
        _ if character.is_whitespace() => Kind::Space,
        _ if character.is_alphabetic() => Kind::Letter,
        _ if character.is_numeric() => Kind::Digit,
        _ => Kind::Other,
    };
    let text = text.to_lowercase();
    let mut rest = text.as_str();
    let mut words = Vec::new();
    while let Some(first) = rest.chars().next() {
        let own = kind(first);
        let contraction = CONTRACTIONS.iter().find(|ending| rest.starts_with(**ending));
        let length = match own {
            _ if contraction.is_some() => contraction.map_or(0, |ending| ending.len()),
            Kind::Digit => first.len_utf8(),
            _ => rest.find(|character| kind(character) != own).unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at(length);
        if own != Kind::Space {
            words.push(word.to_owned());
        }
        rest = after;
    }
    words
}

/// Returns the symbols of a word before anything is joined.
fn symbols(word: &str, characters: &[char; 256]) -> Vec<String> {
    let mut symbols: Vec<String> = word.bytes().map(|byte| String::from(characters[usize::from(byte)])).collect();
    if let Some(last) = symbols.last_mut() {
        last.push_str(END_OF_WORD);
    }
    symbols
}

/// Joins every occurrence of a pair, from left to right.
fn join(symbols: &mut Vec<String>, (left, right): (&str, &str)) {
    let mut at = 0;
    while at + 1 < symbols.len() {
        if symbols[at] == left && symbols[at + 1] == right {
            let second = symbols.remove(at + 1);
            symbols[at].push_str(&second);
        }
        at += 1;
    }
}

impl ClipTokenizer {
    /// Creates a tokenizer that joins these pairs, each written as two symbols with a space between them.
    ///
    /// # Errors
    /// Returns the pair that is none.
    pub fn new(merges: &[String]) -> Result<Self, String> {
        let pair = |merge: &String| {
            let pair = merge.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty());
            let (left, right) = pair.ok_or_else(|| format!("`{}` is not a pair of symbols", merge.escape_debug()))?;
            Ok((left.to_owned(), right.to_owned()))
        };
        let merges = merges.iter().map(pair).collect::<Result<Vec<_>, String>>()?;
        let alphabet = alphabet();
        let tokens = alphabet.iter().cloned().chain(alphabet.iter().map(|symbol| format!("{symbol}{END_OF_WORD}")));
        let tokens = tokens.chain(merges.iter().map(|(left, right)| format!("{left}{right}")));
        let mut vocabulary = HashMap::new();
        for token in tokens.chain([BEGIN, END].map(str::to_owned)) {
            let next = vocabulary.len() as u32;
            vocabulary.entry(token).or_insert(next);
        }
        Ok(Self::with(merges, vocabulary))
    }

    fn with(merges: Vec<(String, String)>, vocabulary: HashMap<String, u32>) -> Self {
        let ranks = merges.iter().cloned().enumerate().map(|(rank, pair)| (pair, rank)).collect();
        let number = |token: &str| vocabulary.get(token).copied().unwrap_or(0);
        Self { begin: number(BEGIN), end: number(END), merges, ranks, vocabulary }
    }

    /// Reads `vocab.json` and `merges.txt` of a folder.
    ///
    /// # Errors
    /// [`FileError`] names the file.
    pub fn open(folder: &Path) -> Result<Self, FileError> {
        let read = |name: &str| {
            let path = folder.join(name);
            let io = |source| FileError::Io { path: path.clone(), source };
            let size = std::fs::metadata(&path).map_err(io)?.len();
            if size > LARGEST_FILE {
                return Err(FileError::Format { path, problem: format!("it is larger than {LARGEST_FILE} bytes") });
            }
            let text = std::fs::read_to_string(&path).map_err(io)?;
            Ok((path, text))
        };
        let (path, text) = read("vocab.json")?;
        let format = |problem: String| FileError::Format { path: path.clone(), problem };
        let vocabulary: HashMap<String, u32> =
            serde_json::from_str(&text).map_err(|error| format(format!("this is no vocabulary: {error}")))?;
        let lacking =
            alphabet().into_iter().chain([BEGIN, END].map(str::to_owned)).find(|token| !vocabulary.contains_key(token));
        if let Some(token) = lacking {
            return Err(format(format!("the vocabulary lacks the token `{}`", token.escape_debug())));
        }
        let (path, text) = read("merges.txt")?;
        let lines = text.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty());
        let pair = |line: &str| {
            let (left, right) = line.split_once(' ')?;
            Some((left.to_owned(), right.to_owned()))
        };
        let merges = lines.map(pair).collect::<Option<Vec<_>>>();
        let problem =
            || FileError::Format { path: path.clone(), problem: "a line is not a pair of symbols".to_owned() };
        Ok(Self::with(merges.ok_or_else(problem)?, vocabulary))
    }

    /// Fits the pairs to join to captions: the most frequent pair first, among equally frequent ones the first by its letters, until every
    /// word is one token or there are `most` pairs.
    pub fn fit<'a>(captions: impl IntoIterator<Item = &'a str>, most: usize) -> Vec<String> {
        let characters = byte_characters();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for word in captions.into_iter().flat_map(words) {
            *counts.entry(word).or_default() += 1;
        }
        let mut split: Vec<(Vec<String>, usize)> =
            counts.iter().map(|(word, count)| (symbols(word, &characters), *count)).collect();
        let mut merges = Vec::new();
        while merges.len() < most {
            let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
            for (symbols, count) in &split {
                for pair in symbols.windows(2) {
                    *pairs.entry((&pair[0], &pair[1])).or_default() += count;
                }
            }
            let best = pairs.into_iter().min_by_key(|(pair, count)| (std::cmp::Reverse(*count), *pair));
            let Some((left, right)) = best.map(|((left, right), _)| (left.to_owned(), right.to_owned())) else { break };
            split.iter_mut().for_each(|(symbols, _)| join(symbols, (&left, &right)));
            merges.push(format!("{left} {right}"));
        }
        merges
    }

    /// Number of tokens.
    pub fn size(&self) -> usize {
        self.vocabulary.values().max().map_or(0, |highest| *highest as usize + 1)
    }

    /// Returns the token after a text.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Returns the tokens of a text between begin and end, cut or padded with ends to `length`.
    pub fn encode(&self, text: &str, length: usize) -> Vec<u32> {
        let characters = byte_characters();
        let mut tokens = vec![self.begin];
        for word in words(text) {
            let mut symbols = symbols(&word, &characters);
            let rank = |pair: &[String]| self.ranks.get(&(pair[0].clone(), pair[1].clone())).copied();
            while let Some(best) = symbols.windows(2).filter_map(rank).min() {
                let (left, right) = &self.merges[best];
                join(&mut symbols, (left, right));
            }
            tokens.extend(symbols.iter().map(|symbol| self.vocabulary.get(symbol).copied().unwrap_or(self.end)));
        }
        tokens.truncate(length.saturating_sub(1));
        tokens.resize(length, self.end);
        tokens
    }

    /// Returns the content of its files by name, for texts of `length` tokens.
    pub fn files(&self, length: usize) -> Vec<(&'static str, String)> {
        let by_number: BTreeMap<u32, &String> =
            self.vocabulary.iter().map(|(token, number)| (*number, token)).collect();
        let vocabulary: serde_json::Map<String, Value> =
            by_number.into_iter().map(|(number, token)| (token.clone(), json!(number))).collect();
        let merges = self.merges.iter().map(|(left, right)| format!("{left} {right}"));
        let merges: Vec<String> = std::iter::once(VERSION.to_owned()).chain(merges).collect();
        let settings = json!({
            "tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": true, "errors": "replace",
            "add_prefix_space": false, "bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END,
        });
        let special = json!({ "bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END });
        vec![
            ("vocab.json", format!("{}\n", Value::Object(vocabulary))),
            ("merges.txt", merges.join("\n") + "\n"),
            ("tokenizer_config.json", format!("{settings:#}\n")),
            ("special_tokens_map.json", format!("{special:#}\n")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_public_tokenizer() {
        assert_eq!(words("A cat's  red-2 42%!"), ["a", "cat", "'s", "red", "-", "2", "4", "2", "%!"]);
        assert!(words(" \n").is_empty());
    }

    #[test]
    fn tokens_are_those_of_the_public_tokenizer() {
        let merges = ["a t</w>", "c at</w>", "r e", "re d</w>", "2 4</w>"].map(str::to_owned);
        let tokenizer = ClipTokenizer::new(&merges).unwrap();
        for (text, expected) in [
            // What transformers 5.24 (`CLIPTokenizer`) makes of the same vocabulary and merges.
            (
                "A cat's  red-2 42%! na\u{ef}ve",
                &[320, 513, 6, 338, 515, 268, 273, 275, 273, 4, 256, 77, 64, 127, 107, 85, 324][..],
            ),
            (
                "re-read the CAT at 24: it's Red",
                &[81, 324, 268, 514, 64, 323, 83, 71, 324, 513, 512, 273, 275, 281, 72, 339, 6, 338, 515],
            ),
            ("", &[]),
            ("\tcat\n", &[513]),
        ] {
            let padded = [&[517], expected, &[518; 40]].concat();
            assert_eq!(tokenizer.encode(text, 40), padded[..40], "{text}");
        }
    }

    #[test]
    fn fitted_captions_have_a_token_per_word() {
        let captions = ["a yellow cat", "a yellow dog", "two cats, one dog"];
        let merges = ClipTokenizer::fit(captions, 1000);
        let tokenizer = ClipTokenizer::new(&merges).unwrap();
        assert_eq!(tokenizer.size(), 512 + merges.len() + 2);
        let tokens = tokenizer.encode("a yellow cat", 8);
        assert_eq!((tokens.len(), tokens[0], &tokens[4..]), (8, tokenizer.begin, &[tokenizer.end; 4][..]));
        // Unknown words fall apart into bytes; long captions are cut.
        assert_eq!(tokenizer.encode("zebra", 4), [&tokenizer.encode("zebra", 99)[..3], &[tokenizer.end]].concat());
        assert!(ClipTokenizer::fit(captions, 3).len() == 3 && ClipTokenizer::new(&["ab".to_owned()]).is_err());
    }

    #[test]
    fn files_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = ClipTokenizer::new(&ClipTokenizer::fit(["ein Käse, 2 cats"], 9)).unwrap();
        for (name, content) in tokenizer.files(16) {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        assert_eq!(ClipTokenizer::open(folder.path()).unwrap(), tokenizer);
        std::fs::write(folder.path().join("vocab.json"), "{}").unwrap();
        assert!(matches!(ClipTokenizer::open(folder.path()), Err(FileError::Format { .. })));
        std::fs::remove_file(folder.path().join("vocab.json")).unwrap();
        assert!(matches!(ClipTokenizer::open(folder.path()), Err(FileError::Io { .. })));
    }
}
