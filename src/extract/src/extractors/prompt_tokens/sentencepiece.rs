//! Models of SentencePiece (`tokenizer.model`), turned into a description that the `tokenizers` library reads.
//!
//! The file is a Protocol Buffers message (`sentencepiece_model.proto`): pieces with scores and types, the settings of training (of which the
//! kind of model and special ids count here) and those of normalization. BPE models have no merges: a pair of pieces merges if the whole
//! is a piece, the one with the highest score first.

use std::collections::HashMap;

use serde_json::{Value, json};

/// The blank of SentencePiece.
const BLANK: char = '▁';

/// The types of pieces.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const UNUSED: u64 = 5;
const BYTE: u64 = 6;

/// A piece of a model.
struct Piece {
    text: String,
    score: f32,
    kind: u64,
}

/// The parts of a model that matter.
struct Model {
    pieces: Vec<Piece>,
    /// 1 is a unigram model, 2 byte-pair encoding.
    kind: u64,
    byte_fallback: bool,
    charsmap: Vec<u8>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
}

/// Returns the `tokenizer.json` of a model.
///
/// # Errors
/// The reason why the bytes are no model that can be read.
pub(super) fn to_json(bytes: &[u8]) -> Result<Value, String> {
    let model = Model::parse(bytes)?;
    if model.pieces.is_empty() {
        return Err("it has no pieces; is it a model of SentencePiece?".to_owned());
    }
    let unknown = model.pieces.iter().position(|piece| piece.kind == UNKNOWN);
    let unknown = unknown.ok_or("it has no piece for unknown text")?;
    let description = match model.kind {
        1 => model.unigram(unknown),
        2 => model.byte_pairs(unknown),
        other => return Err(format!("its model type is {other}; unigram (1) and BPE (2) are read")),
    };
    let special = |(id, piece): (usize, &Piece)| {
        json!({
            "id": id, "content": piece.text, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    let specials = model.pieces.iter().enumerate().filter(|(_, piece)| [UNKNOWN, CONTROL].contains(&piece.kind));
    let specials: Vec<Value> = specials.map(special).collect();
    Ok(json!({ "version": "1.0", "added_tokens": specials, "normalizer": model.normalizer(), "model": description }))
}

impl Model {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut model = Self {
            pieces: Vec::new(),
            kind: 1,
            byte_fallback: false,
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
        };
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(piece)) => model.pieces.push(Piece::parse(piece)?),
                (2, Field::Bytes(trainer)) => {
                    for field in Fields(trainer) {
                        match field? {
                            (3, Field::Number(kind)) => model.kind = kind,
                            (35, Field::Number(fallback)) => model.byte_fallback = fallback != 0,
                            _ => {}
                        }
                    }
                }
                (3, Field::Bytes(normalizer)) => {
                    for field in Fields(normalizer) {
                        match field? {
                            (2, Field::Bytes(charsmap)) => model.charsmap = charsmap.to_vec(),
                            (3, Field::Number(prefix)) => model.add_dummy_prefix = prefix != 0,
                            (4, Field::Number(remove)) => model.remove_extra_whitespaces = remove != 0,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(model)
    }

    fn unigram(&self, unknown: usize) -> Value {
        // Control symbols are never found in a text.
        let score = |piece: &Piece| match piece.kind {
            UNKNOWN | CONTROL | UNUSED => 0.0,
            _ => f64::from(piece.score),
        };
        let vocabulary: Vec<Value> = self.pieces.iter().map(|piece| json!([piece.text, score(piece)])).collect();
        json!({ "type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": self.byte_fallback })
    }

    fn byte_pairs(&self, unknown: usize) -> Value {
        let ids: HashMap<&str, usize> =
            self.pieces.iter().enumerate().map(|(id, piece)| (piece.text.as_str(), id)).collect();
        let mut merges: Vec<(f32, &str, &str)> = Vec::new();
        let is_text = |piece: &&Piece| ![UNKNOWN, CONTROL, UNUSED, BYTE].contains(&piece.kind);
        for piece in self.pieces.iter().filter(is_text) {
            let splits = piece.text.char_indices().skip(1).map(|(at, _)| piece.text.split_at(at));
            let mut pairs: Vec<(usize, usize, &str, &str)> =
                splits.filter_map(|(left, right)| Some((*ids.get(left)?, *ids.get(right)?, left, right))).collect();
            pairs.sort_by_key(|(left, right, ..)| (*left, *right));
            merges.extend(pairs.into_iter().map(|(.., left, right)| (piece.score, left, right)));
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0));
        let merges: Vec<Value> = merges.into_iter().map(|(_, left, right)| json!([left, right])).collect();
        let vocabulary: serde_json::Map<String, Value> =
            self.pieces.iter().enumerate().map(|(id, piece)| (piece.text.clone(), id.into())).collect();
        json!({
            "type": "BPE", "dropout": null, "unk_token": self.pieces[unknown].text, "fuse_unk": true,
            "byte_fallback": self.byte_fallback, "ignore_merges": false, "vocab": vocabulary, "merges": merges,
        })
    }

    fn normalizer(&self) -> Value {
        let mut steps = Vec::new();
        if !self.charsmap.is_empty() {
            steps.push(json!({ "type": "Precompiled", "precompiled_charsmap": base64(&self.charsmap) }));
        }
        if self.remove_extra_whitespaces {
            steps.push(json!({ "type": "Strip", "strip_left": true, "strip_right": true }));
            steps.push(json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " }));
        }
        if self.add_dummy_prefix {
            steps.push(json!({ "type": "Prepend", "prepend": BLANK }));
        }
        steps.push(json!({ "type": "Replace", "pattern": { "String": " " }, "content": BLANK }));
        json!({ "type": "Sequence", "normalizers": steps })
    }
}

impl Piece {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: 1 };
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(text)) => {
                    piece.text = std::str::from_utf8(text).map_err(|_| "a piece is not UTF-8")?.to_owned();
                }
                (2, Field::Float(score)) if score.is_finite() => piece.score = score,
                (3, Field::Number(kind)) => piece.kind = kind,
                _ => {}
            }
        }
        Ok(piece)
    }
}

/// The value of a field of a message.
enum Field<'a> {
    Number(u64),
    Float(f32),
    Bytes(&'a [u8]),
    Other,
}

/// The fields of a message of Protocol Buffers, each with its number.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("it ends in the middle of a field")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("it has a number of more than 64 bits".to_owned())
    }

    fn field(&mut self) -> Result<(u64, Field<'a>), String> {
        let key = self.number()?;
        let value = match key & 7 {
            0 => Field::Number(self.number()?),
            1 => self.take(8).map(|_| Field::Other)?,
            2 => {
                let length = self.number()?;
                Field::Bytes(self.take(usize::try_from(length).map_err(|_| "a field is too long")?)?)
            }
            5 => match *self.take(4)? {
                [a, b, c, d] => Field::Float(f32::from_le_bytes([a, b, c, d])),
                _ => Field::Other,
            },
            other => return Err(format!("it has a field of the unknown type {other}")),
        };
        Ok((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Returns bytes in base64.
fn base64(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_model_is_refused() {
        for bytes in [
            &b""[..],
            b"\x0a",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"{\"model\": 1}",
            b"\x0a\x02\x0a\x05",
        ] {
            assert!(to_json(bytes).is_err(), "{bytes:?}");
        }
        // One unknown piece, of a model of words.
        let piece = b"\x0a\x07\x0a\x03unk\x18\x02";
        assert!(to_json(&[&piece[..], b"\x12\x02\x18\x03"].concat()).is_err());
        assert_eq!(to_json(piece).unwrap()["model"]["vocab"], json!([["unk", 0.0]]));
    }
}
