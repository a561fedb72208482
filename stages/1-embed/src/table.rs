//! The table of utterance embeddings: `utt`, `spk` and the extractor's column; `spk_embedding` where a speaker's depends on the split.

use std::path::Path;

use flowmill_corpus::ColumnSpec;
use flowmill_corpus::shard::ShardReader;
use flowmill_corpus::table::{self, EmbeddingColumn};
use flowmill_runner::StageError;

/// An utterance's id, its speaker's, and the embedding.
pub(crate) type UtteranceEmbedding = (String, String, Vec<f32>);

/// Writes a table; `speakers` are the embeddings of the rows' speakers where they depend on the split.
pub(crate) fn write(
    path: &Path,
    column: &str,
    rows: &[UtteranceEmbedding],
    speakers: Option<&[&[f32]]>,
) -> Result<(), StageError> {
    let utterances: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row.1.as_str()).collect();
    let embeddings: Vec<&[f32]> = rows.iter().map(|row| row.2.as_slice()).collect();
    let mut columns = vec![
        ("utt", EmbeddingColumn::Ids(&utterances)),
        ("spk", EmbeddingColumn::Ids(&names)),
        (column, EmbeddingColumn::Embeddings(&embeddings)),
    ];
    columns.extend(speakers.map(|speakers| ("spk_embedding", EmbeddingColumn::Embeddings(speakers))));
    table::write_embedding_columns(path, &columns).map_err(StageError::other)
}

/// Writes embeddings of speakers by split (empty: of all splits) and speaker.
pub(crate) fn write_speakers_of_splits(path: &Path, rows: &[(String, String, &[f32])]) -> Result<(), StageError> {
    let splits: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
    let speakers: Vec<&str> = rows.iter().map(|row| row.1.as_str()).collect();
    let embeddings: Vec<&[f32]> = rows.iter().map(|row| row.2).collect();
    let columns = [
        ("split", EmbeddingColumn::Ids(&splits)),
        ("spk", EmbeddingColumn::Ids(&speakers)),
        ("spk_embedding", EmbeddingColumn::Embeddings(&embeddings)),
    ];
    table::write_embedding_columns(path, &columns).map_err(StageError::other)
}

/// Reads the speakers and embeddings of the rows of a table.
pub(crate) fn read(
    path: &Path,
    column: &ColumnSpec,
) -> Result<impl Iterator<Item = Result<(String, Vec<f32>), StageError>> + use<>, StageError> {
    let (name, table) = (column.name.clone(), ShardReader::open_table(path).map_err(StageError::other)?);
    let rows = table.iter(std::slice::from_ref(column)).map_err(StageError::other)?;
    Ok(rows.map(move |row| {
        let row = row.map_err(StageError::other)?;
        let embedding = row.values::<f32>(&name).map_err(StageError::other)?.to_vec();
        Ok((row.group, embedding))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_extract::Column;

    #[test]
    fn a_table_gives_back_its_rows_even_when_it_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part-00000.parquet");
        let rows = vec![("u1".into(), "s".into(), vec![0.5, -1.0]), ("u2".into(), "t".into(), vec![2.0, 3.0])];
        for rows in [rows, Vec::new()] {
            write(&path, "utt_embedding", &rows, None).unwrap();
            let read = read(&path, &Column::embedding("utt_embedding", 2).spec).unwrap();
            let expected: Vec<_> = rows.into_iter().map(|(_, speaker, embedding)| (speaker, embedding)).collect();
            assert_eq!(read.collect::<Result<Vec<_>, _>>().unwrap(), expected);
        }
    }
}
