//! Files of speech tokens and speaker embeddings that another program extracted, outside of a corpus: what `flowmill synth` reads.
//!
//! | file | content |
//! |---|---|
//! | `torch.save`, `pickle.dump` (`utt2speech_token.pt`, `utt2embedding.pt`, `spk2info.pt`) | a dictionary from ids to lists or tensors, or one list or tensor |
//! | Parquet (shards of CosyVoice and Flowmill, tables of stages 1 and 2), tar shards | a row for each id, in the columns of [`speech`](crate::shard::speech) |
//! | JSON | a list, an object from ids to lists, or a list of objects |
//! | JSON lines | a list or an object on each line |
//! | `.npy`, `.safetensors` | an array; arrays by their ids |
//!
//! The content of a file decides its format. Nothing in a pickle is executed. A value that cannot be used is the problem of its own id, and the
//! others are read.

mod embedding;
mod table;
mod tokens;
mod value;

use std::path::Path;

pub use embedding::{is_embedding_file, read_embedding};
pub use tokens::{ExtractedRow, LINGUISTIC_TOKEN, SEMANTIC_TOKEN, read_tokens};

use crate::CorpusError;

/// The largest number of ids in a message.
const LISTED: usize = 8;

/// Returns the error of an id that a file does not have, with those that it has.
fn unknown_id<'a>(path: &Path, id: &str, ids: impl ExactSizeIterator<Item = &'a str>) -> CorpusError {
    CorpusError::structure(path, format!("has no `{id}`; {}", listed(ids)))
}

/// Lists ids, the first ones of many.
fn listed<'a>(ids: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = ids.len();
    let names: Vec<String> = ids.take(LISTED).map(|id| format!("`{id}`")).collect();
    match count {
        0 => "it has no ids".to_owned(),
        _ if count <= LISTED => format!("its ids: {}", names.join(", ")),
        _ => format!("its {count} ids begin with {}", names.join(", ")),
    }
}
