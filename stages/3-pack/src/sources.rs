//! What the stages before left, cut into the stretches that become shards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flowmill_corpus::table::RecordingRow;
use flowmill_corpus::{Utterance, table};
use flowmill_runner::{PlanContext, StageError};
use flowmill_stage_prep::contents::Contents;
use rayon::prelude::*;

/// The columns of stage 0's tables that shards hold or are made by, paths aside.
const COLUMNS: &[&str] = &["utt", "spk", "text", "lang", "start", "end", "channel", "decoder"];

/// One table of stage 0 with those of stages 1 and 2 that belong to it.
#[derive(Clone, Debug)]
struct Tables {
    rows: PathBuf,
    embeddings: PathBuf,
    tokens: PathBuf,
    /// The recordings of its rows.
    recordings: Vec<RecordingRow>,
}

/// Rows `from..to` of one set of tables.
#[derive(Clone, Debug)]
struct Piece {
    tables: Tables,
    from: usize,
    to: usize,
}

/// The rows of one shard, wherever they are.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// The split.
    pub split: String,
    /// Its place among the split's shards.
    pub number: usize,
    pieces: Vec<Piece>,
    speakers: PathBuf,
}

/// A row with what the stages before made of it; `None` where they set it aside.
pub struct Joined {
    /// The row of stage 0.
    pub utterance: Utterance,
    /// Its tokens, of stage 2.
    pub tokens: Option<Vec<i64>>,
    /// Its embedding, of stage 1.
    pub utt_embedding: Option<Vec<f32>>,
    /// Its speaker's embedding, of stage 1.
    pub spk_embedding: Option<Vec<f32>>,
}

/// The stretches of all splits, `size` rows of stage 0 each.
///
/// # Errors
/// When an earlier stage is not finished or a table cannot be read.
pub fn stretches(context: &PlanContext, size: usize) -> Result<Vec<Stretch>, StageError> {
    let mut splits: BTreeMap<String, Vec<Tables>> = BTreeMap::new();
    for (split, tables) in all_tables(context)? {
        splits.entry(split).or_default().push(tables);
    }
    let speakers = context.stage_dir(1).join("spk2embedding.parquet");
    let mut stretches = Vec::new();
    for (split, mut tables) in splits {
        tables.sort_by(|a, b| a.rows.cmp(&b.rows));
        for (number, pieces) in cut(&tables, size).into_iter().enumerate() {
            stretches.push(Stretch { split: split.clone(), number, pieces, speakers: speakers.clone() });
        }
    }
    Ok(stretches)
}

/// The tables of stage 0 that hold rows (`SPLIT/part-00000.parquet`), with their split and their companions.
fn all_tables(context: &PlanContext) -> Result<Vec<(String, Tables)>, StageError> {
    let (prep, embed, tokens) = (context.stage_dir(0), context.stage_dir(1), context.stage_dir(2));
    let mut names = Vec::new();
    for path in context.receipts(0)?.iter().flat_map(|receipt| receipt.outputs()) {
        let Ok(name) = path.strip_prefix(&prep).map(Path::to_path_buf) else { continue };
        let split = name.parent().and_then(Path::to_str).filter(|split| !split.contains('/')).map(str::to_owned);
        let is_part = name.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("part-"));
        if let (Some(split), true) = (split, is_part) {
            names.push((split, name));
        }
    }
    names
        .into_par_iter()
        .map(|(split, name)| {
            let rows = prep.join(&name);
            let recordings = table::read_recordings(&rows).map_err(StageError::other)?;
            Ok((split, Tables { rows, embeddings: embed.join(&name), tokens: tokens.join(&name), recordings }))
        })
        .collect()
}

/// Cuts the rows of tables, one after the other, into stretches of `size`.
fn cut(tables: &[Tables], size: usize) -> Vec<Vec<Piece>> {
    let mut stretches = Vec::new();
    let mut pieces = Vec::new();
    let mut room = size;
    for tables in tables {
        let mut from = 0;
        while from < tables.recordings.len() {
            let to = (from + room).min(tables.recordings.len());
            pieces.push(Piece { tables: tables.clone(), from, to });
            room -= to - from;
            from = to;
            if room == 0 {
                stretches.push(std::mem::take(&mut pieces));
                room = size;
            }
        }
    }
    if !pieces.is_empty() {
        stretches.push(pieces);
    }
    stretches
}

impl Stretch {
    /// `SPLIT/shard-00000`: the part's key, and the stem of its outputs.
    pub fn key(&self) -> String {
        format!("{}/shard-{:05}", self.split, self.number)
    }

    /// How many rows of stage 0 it spans.
    pub fn rows(&self) -> u64 {
        self.pieces.iter().map(|piece| (piece.to - piece.from) as u64).sum()
    }

    /// The tables of stages 1 and 2 that it reads.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let mut inputs = vec![self.speakers.clone()];
        for Piece { tables, .. } in &self.pieces {
            inputs.extend([tables.embeddings.clone(), tables.tokens.clone()]);
        }
        inputs
    }

    /// What its rows are, wherever they and their recordings lie; `root` is the recipe's folder.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn contents(&self, root: &Path) -> Result<Contents, StageError> {
        let mut contents = Contents::new(root);
        for Piece { tables, from, to } in &self.pieces {
            contents.add(&tables.rows, COLUMNS, Some(*from..*to))?;
        }
        Ok(contents)
    }

    /// The recordings of its rows.
    pub fn recordings(&self) -> Vec<RecordingRow> {
        self.pieces
            .iter()
            .flat_map(|Piece { tables, from, to }| tables.recordings[*from..*to].iter().cloned())
            .collect()
    }

    /// Which rows of which tables it spans, for the part's configuration.
    pub fn describe(&self) -> Vec<[usize; 2]> {
        self.pieces.iter().map(|piece| [piece.from, piece.to]).collect()
    }

    /// Its rows, in stage 0's order.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn read(&self) -> Result<Vec<Joined>, StageError> {
        let speakers = lookup(table::read_embeddings(&self.speakers, "spk", "spk_embedding"))?;
        let mut rows = Vec::new();
        for Piece { tables, from, to } in &self.pieces {
            let mut tokens = lookup(table::read_tokens(&tables.tokens, "utt", "speech_token"))?;
            let mut embeddings = lookup(table::read_embeddings(&tables.embeddings, "utt", "utt_embedding"))?;
            // A speaker whose embedding depends on the split has it in the row.
            let own = table::read_optional_embeddings(&tables.embeddings, "utt", "spk_embedding");
            let own: BTreeMap<String, Vec<f32>> = own.map_err(StageError::other)?.into_iter().collect();
            let utterances = table::read_utterances(&tables.rows).map_err(StageError::other)?;
            rows.extend(utterances.into_iter().take(*to).skip(*from).map(|utterance| Joined {
                tokens: tokens.remove(&utterance.utt),
                utt_embedding: embeddings.remove(&utterance.utt),
                spk_embedding: own.get(&utterance.utt).or_else(|| speakers.get(&utterance.spk)).cloned(),
                utterance,
            }));
        }
        Ok(rows)
    }
}

/// The rows of a table by their ids.
fn lookup<T>(rows: Result<Vec<(String, T)>, flowmill_corpus::CorpusError>) -> Result<BTreeMap<String, T>, StageError> {
    Ok(rows.map_err(StageError::other)?.into_iter().collect())
}
