//! The table of utterance embeddings: `utt`, `spk` and the extractor's column; `spk_embedding` where a speaker's depends on the split.

use std::path::Path;

use flowmill_corpus::table;
use flowmill_runner::StageError;
use polars::prelude::*;

/// An utterance's id, its speaker's, and the embedding.
pub(crate) type UtteranceEmbedding = (String, String, Vec<f32>);

/// Writes a table; `speakers` are the embeddings of the rows' speakers where they depend on the split.
pub(crate) fn write(
    path: &Path,
    column: &str,
    rows: &[UtteranceEmbedding],
    speakers: Option<&[&[f32]]>,
) -> Result<(), StageError> {
    let frame = frame(column, rows, speakers).map_err(StageError::other)?;
    table::write_frame(path, frame).map_err(StageError::other)
}

/// Writes embeddings of speakers by split (empty: of all splits) and speaker.
pub(crate) fn write_speakers_of_splits(path: &Path, rows: &[(String, String, &[f32])]) -> Result<(), StageError> {
    let embeddings: Vec<&[f32]> = rows.iter().map(|row| row.2).collect();
    let columns = vec![
        texts("split", rows.iter().map(|row| row.0.as_str())),
        texts("spk", rows.iter().map(|row| row.1.as_str())),
        lists("spk_embedding", &embeddings),
    ];
    let frame = DataFrame::new(rows.len(), columns).map_err(StageError::other)?;
    table::write_frame(path, frame).map_err(StageError::other)
}

fn frame(column: &str, rows: &[UtteranceEmbedding], speakers: Option<&[&[f32]]>) -> PolarsResult<DataFrame> {
    let embeddings: Vec<&[f32]> = rows.iter().map(|row| row.2.as_slice()).collect();
    let mut columns = vec![
        texts("utt", rows.iter().map(|row| row.0.as_str())),
        texts("spk", rows.iter().map(|row| row.1.as_str())),
        lists(column, &embeddings),
    ];
    columns.extend(speakers.map(|speakers| lists("spk_embedding", speakers)));
    DataFrame::new(rows.len(), columns)
}

fn texts<'t>(name: &str, values: impl ExactSizeIterator<Item = &'t str>) -> Column {
    let mut builder = StringChunkedBuilder::new(name.into(), values.len());
    values.for_each(|value| builder.append_value(value));
    builder.finish().into_column()
}

fn lists(name: &str, rows: &[&[f32]]) -> Column {
    let values = rows.iter().map(|row| row.len()).sum();
    let mut builder =
        ListPrimitiveChunkedBuilder::<Float32Type>::new(name.into(), rows.len(), values, DataType::Float32);
    rows.iter().for_each(|row| builder.append_slice(row));
    builder.finish().into_column()
}

pub(crate) fn read(path: &Path, column: &str) -> Result<Vec<UtteranceEmbedding>, StageError> {
    let embeddings = table::read_embeddings(path, "utt", column).map_err(StageError::other)?;
    let frame = table::read_frame(path, Some(vec!["spk".to_owned()])).map_err(StageError::other)?;
    let speakers = frame.column("spk").and_then(|column| column.str().cloned()).map_err(StageError::other)?;
    let row = |((utt, embedding), spk): ((String, Vec<f32>), Option<&str>)| {
        (utt, spk.unwrap_or_default().to_owned(), embedding)
    };
    Ok(embeddings.into_iter().zip(speakers.iter()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gives_back_its_rows_even_when_it_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part-00000.parquet");
        let rows = vec![("u1".into(), "s".into(), vec![0.5, -1.0]), ("u2".into(), "t".into(), vec![2.0, 3.0])];
        for rows in [rows, Vec::new()] {
            write(&path, "utt_embedding", &rows, None).unwrap();
            assert_eq!(read(&path, "utt_embedding").unwrap(), rows);
        }
    }
}
