//! The results of earlier stages, cut into the stretches that become shards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flowmill_corpus::shard::{ShardReader, speech};
use flowmill_corpus::table::RecordingRow;
use flowmill_corpus::{Array, ColumnSpec, Row, Utterance, table};
use flowmill_runner::{PlanContext, StageError};
use flowmill_stage_prep::columns::{self, Media};
use flowmill_stage_prep::contents::Contents;
use rayon::prelude::*;

use crate::wanted::Wanted;

/// The columns of stage 0's tables that shards contain or depend on, without paths.
const COLUMNS: &[&str] = &["utt", "spk", "text", "lang", "start", "end", "channel", "decoder", "speed"];

/// One table of stage 0 with the tables of stages 1 and 2 that belong to it.
#[derive(Clone, Debug)]
struct Tables {
    rows: PathBuf,
    /// The table of columns from the data.
    given: PathBuf,
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

/// The rows of one shard, which may come from several tables.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// The split.
    pub split: String,
    /// The index among the split's shards.
    pub number: usize,
    pieces: Vec<Piece>,
    speakers: PathBuf,
}

/// A row with the results of earlier stages.
pub struct Joined {
    /// The row of stage 0.
    pub utterance: Utterance,
    /// The columns of stages 0 to 2.
    pub columns: BTreeMap<String, Array>,
    /// The media except the recording.
    pub media: Media,
    /// The reason why it cannot be packed: an earlier stage has no value for it.
    pub missing: Option<String>,
}

/// Returns the stretches of all splits, `size` rows of stage 0 each.
///
/// # Errors
/// Returns an error if an earlier stage is not finished or a table cannot be read.
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

/// Returns the tables of stage 0 that contain rows (`SPLIT/part-00000.parquet`), with their split and the tables that
/// belong to them.
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
            let given = columns::columns_of(&rows);
            Ok((split, Tables { rows, given, embeddings: embed.join(&name), tokens: tokens.join(&name), recordings }))
        })
        .collect()
}

/// Cuts the rows of consecutive tables into stretches of `size`.
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
    /// Returns `SPLIT/shard-00000`: the part's key, and the stem of its outputs.
    pub fn key(&self) -> String {
        format!("{}/shard-{:05}", self.split, self.number)
    }

    /// Returns the number of rows of stage 0 that it contains.
    pub fn rows(&self) -> u64 {
        self.pieces.iter().map(|piece| (piece.to - piece.from) as u64).sum()
    }

    /// Returns the tables that it reads for these columns, without the rows of stage 0 and the locations of their
    /// media.
    pub fn inputs(&self, wanted: &Wanted) -> Vec<PathBuf> {
        let mut inputs = Vec::new();
        if has_speakers(wanted) {
            inputs.push(self.speakers.clone());
        }
        for Piece { tables, .. } in &self.pieces {
            inputs.extend((wanted.needs(0) && tables.given.exists()).then(|| tables.given.clone()));
            inputs.extend(wanted.needs(1).then(|| tables.embeddings.clone()));
            inputs.extend(wanted.needs(2).then(|| tables.tokens.clone()));
        }
        inputs
    }

    /// Returns a digest of its rows, independent of the location of rows and media; `root` is the recipe's folder.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read.
    pub fn contents(&self, root: &Path, wanted: &Wanted) -> Result<Contents, StageError> {
        let mut contents = Contents::new(root);
        for Piece { tables, from, to } in &self.pieces {
            contents.add(&tables.rows, COLUMNS, Some(*from..*to))?;
            if wanted.has_media() {
                contents.add_media(&tables.rows)?;
            }
        }
        Ok(contents)
    }

    /// Returns the recordings of its rows.
    pub fn recordings(&self) -> Vec<RecordingRow> {
        self.pieces
            .iter()
            .flat_map(|Piece { tables, from, to }| tables.recordings[*from..*to].iter().cloned())
            .collect()
    }

    /// Returns the rows of each table that it contains, for the part's configuration.
    pub fn describe(&self) -> Vec<[usize; 2]> {
        self.pieces.iter().map(|piece| [piece.from, piece.to]).collect()
    }

    /// Reads its rows with the columns of earlier stages, in stage 0's order. Rows that stage 2 rejected are left
    /// out, because they were counted there. `root` is the recipe's folder.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read, or no table has a wanted column.
    pub fn read(&self, wanted: &Wanted, root: &Path) -> Result<Vec<Joined>, StageError> {
        let speakers = match has_speakers(wanted) {
            true => table::read_embeddings(&self.speakers, "spk", speech::SPK_EMBEDDING).map_err(StageError::other)?,
            false => Vec::new(),
        };
        let speakers: BTreeMap<String, Vec<f32>> = speakers.into_iter().collect();
        let mut rows = Vec::new();
        for Piece { tables, from, to } in &self.pieces {
            let utterances = table::read_utterances(&tables.rows).map_err(StageError::other)?;
            let utterances: Vec<Utterance> = utterances.into_iter().take(*to).skip(*from).collect();
            let mut given = Given::open(tables, &utterances, wanted, root)?;
            for utterance in utterances {
                rows.extend(given.join(utterance, wanted, &speakers));
            }
        }
        Ok(rows)
    }
}

/// Returns whether the embeddings of speakers are in the table of stage 1.
fn has_speakers(wanted: &Wanted) -> bool {
    wanted.has(speech::SPK_EMBEDDING) && !wanted.is_packed(1)
}

/// The columns in the tables of earlier stages, by the ids of rows.
struct Given {
    /// The columns in the packed shards that rows come from, and each row as its shard has it.
    packed: (Vec<ColumnSpec>, BTreeMap<String, Result<Row, String>>),
    /// For each of stages 0 to 2: its columns, and the rows that have them.
    stages: Vec<(u8, Vec<ColumnSpec>, BTreeMap<String, Row>)>,
    media: BTreeMap<String, Media>,
}

impl Given {
    /// Reads the wanted columns of a set of tables, and of the shards that its rows `utterances` come from.
    fn open(tables: &Tables, utterances: &[Utterance], wanted: &Wanted, root: &Path) -> Result<Self, StageError> {
        let taken = wanted.taken_from_shards();
        let mut packed = BTreeMap::new();
        if !taken.is_empty() {
            let wavs: Vec<&str> = utterances.iter().map(|utterance| utterance.wav.as_str()).collect();
            let rows = flowmill_corpus::packed::fetch(root, &wavs, &taken).map_err(StageError::other)?;
            packed.extend(utterances.iter().map(|utterance| utterance.utt.clone()).zip(rows));
        }
        let mut stages = Vec::new();
        for (stage, path) in [(0, &tables.given), (1, &tables.embeddings), (2, &tables.tokens)] {
            let mut columns = if wanted.is_packed(stage) { Vec::new() } else { wanted.given_by(stage) };
            // Stage 0 writes no table if no row has such a column.
            if columns.is_empty() || (stage == 0 && !path.exists()) {
                continue;
            }
            // The embedding of a row's speaker is here if it depends on the split, and otherwise in the table of
            // speakers.
            let of_speaker = columns.iter_mut().filter(|column| column.name == speech::SPK_EMBEDDING);
            of_speaker.for_each(|column| column.required = false);
            let table = ShardReader::open_table(path).map_err(StageError::other)?;
            let rows = table.iter(&columns).map_err(StageError::other)?;
            let rows = rows.map(|row| row.map(|row| (row.id.clone(), row)).map_err(StageError::other));
            stages.push((stage, columns, rows.collect::<Result<_, _>>()?));
        }
        let media = if wanted.has_media() { columns::read_media(&tables.rows)? } else { BTreeMap::new() };
        Ok(Self { packed: (taken, packed), stages, media })
    }

    /// Returns a row of stage 0 with its columns; `None` if stage 2 rejected it.
    fn join(&mut self, utterance: Utterance, wanted: &Wanted, speakers: &BTreeMap<String, Vec<f32>>) -> Option<Joined> {
        let (mut columns, mut missing) = (BTreeMap::new(), None);
        for (stage, of_stage, rows) in &mut self.stages {
            match rows.remove(&utterance.utt) {
                Some(row) => columns.extend(row.columns),
                None if *stage == 2 => return None,
                // Stage 0 writes only the rows that have a column.
                None if *stage == 0 && of_stage.iter().all(|column| !column.required) => {}
                None => missing = missing.or_else(|| Some(set_aside(*stage, of_stage))),
            }
        }
        let (taken, rows) = &mut self.packed;
        if !taken.is_empty() {
            match rows.remove(&utterance.utt) {
                Some(Ok(row)) => {
                    missing = missing.or_else(|| unusable(taken, &row));
                    columns.extend(row.columns);
                }
                Some(Err(problem)) => missing = missing.or_else(|| Some(format!("bad row in its shard: {problem}"))),
                None => missing = missing.or_else(|| Some("bad row in its shard: it is not there".to_owned())),
            }
        }
        if has_speakers(wanted) && !columns.contains_key(speech::SPK_EMBEDDING) {
            match speakers.get(&utterance.spk) {
                Some(values) => drop(columns.insert(speech::SPK_EMBEDDING.to_owned(), Array::vector(values.clone()))),
                None => {
                    missing = missing.or_else(|| Some("no embedding of its speaker: stage 1 rejected it".to_owned()))
                }
            }
        }
        let media = self.media.remove(&utterance.utt).unwrap_or_default();
        Some(Joined { utterance, columns, media, missing })
    }
}

/// Returns the reason for a row of a shard that lacks a column, or whose values no training accepts.
fn unusable(columns: &[ColumnSpec], row: &Row) -> Option<String> {
    let problem = |column: &ColumnSpec| {
        let name = &column.name;
        let Some(array) = row.columns.get(name) else { return Some(format!("its shard has no `{name}`")) };
        let not_finite = || array.values::<f32>().is_ok_and(|values| values.iter().any(|value| !value.is_finite()));
        let negative = || array.values::<i64>().is_ok_and(|values| values.iter().any(|value| *value < 0));
        let what = if not_finite() { "a value that is not finite" } else { "a negative token" };
        (not_finite() || negative()).then(|| format!("`{name}` has {what}"))
    };
    columns
        .iter()
        .filter(|column| column.required)
        .find_map(problem)
        .map(|problem| format!("bad row in its shard: {problem}"))
}

/// Returns the reason for a row that a table does not have.
fn set_aside(stage: u8, columns: &[ColumnSpec]) -> String {
    let what = match columns.first().map(|column| column.name.as_str()) {
        Some(speech::UTT_EMBEDDING | speech::SPK_EMBEDDING) | None => "embedding".to_owned(),
        Some(name) => format!("`{name}`"),
    };
    format!("no {what}: stage {stage} rejected it")
}
