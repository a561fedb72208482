//! Parquet files and tar shards.

use std::path::{Path, PathBuf};

use super::tokens::ExtractedRow;
use super::{listed, unknown_id};
use crate::shard::speech::{SPEECH_TOKEN, SPK_EMBEDDING, UTT_EMBEDDING, speech_token, spk_embedding, utt_embedding};
use crate::shard::{AnyShard, GROUP, ID, ShardReader};
use crate::{ColumnSpec, CorpusError, Row, packed, table};

/// The number of rows that are read together.
const ROWS: usize = 64;

/// An open file of rows.
pub(super) struct Table {
    path: PathBuf,
    shard: AnyShard,
    names: Vec<String>,
}

/// Opens a file if it is Parquet, whatever its name is, or a tar shard.
///
/// # Errors
/// [`CorpusError`] if it is one and cannot be read.
pub(super) fn open(path: &Path) -> Result<Option<Table>, CorpusError> {
    let is_tar = path.extension().is_some_and(|extension| extension == "tar");
    let is_parquet = packed::is_parquet(path);
    if !is_tar && !is_parquet {
        return Ok(None);
    }
    let shard = if is_parquet { AnyShard::Parquet(ShardReader::open_table(path)?) } else { AnyShard::open(path)? };
    let names = match &shard {
        AnyShard::Parquet(reader) => reader.schema().into_iter().map(|(name, _)| name).collect(),
        AnyShard::Tar(reader) => {
            let columns = reader.columns()?.into_iter().map(|column| column.name);
            columns.chain([ID, GROUP].map(str::to_owned)).collect()
        }
    };
    Ok(Some(Table { path: path.to_owned(), shard, names }))
}

impl Table {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    /// Returns the rows with their tokens and embeddings. Rows that cannot be read end the list, with the reason.
    pub fn tokens(&self) -> Result<Vec<ExtractedRow>, CorpusError> {
        if !self.has(SPEECH_TOKEN) {
            let names = listed(self.names.iter().map(String::as_str));
            let problem = format!("has no column `{SPEECH_TOKEN}`; {}", names.replace("ids", "columns"));
            return Err(CorpusError::structure(&self.path, problem));
        }
        let mut columns = vec![speech_token().optional()];
        columns.extend([utt_embedding(), spk_embedding()].into_iter().filter(|column| self.has(&column.name)));
        let columns: Vec<ColumnSpec> = columns.into_iter().map(ColumnSpec::optional).collect();
        let mut rows = Vec::new();
        let read = self.each(&columns, &mut |row| {
            let id = row.id.clone();
            let has_tokens = row.columns.get(SPEECH_TOKEN).is_some_and(|tokens| !tokens.is_empty());
            rows.push(ExtractedRow::new(id, if has_tokens { Ok(row) } else { Err("has no tokens".to_owned()) }));
            false
        });
        match read {
            Err(error) if rows.is_empty() => return Err(error),
            Err(error) => {
                rows.push(ExtractedRow::new(format!("row {} and after", rows.len() + 1), Err(error.to_string())));
            }
            Ok(()) => {}
        }
        Ok(rows)
    }

    /// Returns the embedding of an utterance or a speaker; without an id, that of the only row.
    pub fn embedding(&self, id: Option<&str>) -> Result<Vec<f32>, CorpusError> {
        if !self.has(ID) && self.has(GROUP) {
            let rows = table::read_embeddings(&self.path, GROUP, SPK_EMBEDDING)?;
            let only = id.is_none() && rows.len() == 1;
            let found = rows.iter().find(|(speaker, _)| only || id == Some(speaker.as_str()));
            return match (found, id) {
                (Some((_, embedding)), _) => Ok(embedding.clone()),
                (None, Some(id)) => Err(unknown_id(&self.path, id, rows.iter().map(|(id, _)| id.as_str()))),
                (None, None) => Err(super::embedding::several(&self.path, rows.iter().map(|(id, _)| id.as_str()))),
            };
        }
        let columns = [utt_embedding(), spk_embedding()].into_iter().filter(|column| self.has(&column.name));
        let columns: Vec<ColumnSpec> = columns.map(ColumnSpec::optional).collect();
        if columns.is_empty() {
            return Err(CorpusError::structure(
                &self.path,
                format!("has no column `{UTT_EMBEDDING}` or `{SPK_EMBEDDING}`"),
            ));
        }
        let only = id.is_none() && self.shard.rows() == 1;
        let (mut found, mut ids) = (None, Vec::new());
        let of = |row: &Row, name: &str| row.values::<f32>(name).ok().map(<[f32]>::to_vec);
        self.each(&columns, &mut |row| {
            if only || id == Some(row.id.as_str()) {
                found = of(&row, UTT_EMBEDDING).or_else(|| of(&row, SPK_EMBEDDING));
            } else if id == Some(row.group.as_str()) {
                found = of(&row, SPK_EMBEDDING);
            }
            ids.push(row.id);
            found.is_some()
        })?;
        let ids = || ids.iter().map(String::as_str);
        match (found, id) {
            (Some(embedding), _) => Ok(embedding),
            (None, Some(id)) => Err(unknown_id(&self.path, id, ids())),
            (None, None) => Err(super::embedding::several(&self.path, ids())),
        }
    }

    /// Passes the rows to `take`, until it returns true.
    fn each(&self, columns: &[ColumnSpec], take: &mut dyn FnMut(Row) -> bool) -> Result<(), CorpusError> {
        let all: Vec<usize> = (0..self.shard.rows()).collect();
        if let AnyShard::Parquet(reader) = &self.shard {
            for row in reader.iter(columns)? {
                if take(row?) {
                    break;
                }
            }
            return Ok(());
        }
        for some in all.chunks(ROWS) {
            for row in self.shard.fetch(some, columns)? {
                if take(row) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
