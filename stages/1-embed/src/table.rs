//! The table of utterance embeddings: `utt`, `spk` and the extractor's column.

use std::path::Path;

use flowmill_corpus::table;
use flowmill_runner::StageError;
use polars::prelude::*;

/// An utterance's id, its speaker's, and the embedding.
pub(crate) type UtteranceEmbedding = (String, String, Vec<f32>);

pub(crate) fn write(path: &Path, column: &str, rows: &[UtteranceEmbedding]) -> Result<(), StageError> {
    let frame = frame(column, rows).map_err(StageError::other)?;
    table::write_frame(path, frame).map_err(StageError::other)
}

fn frame(column: &str, rows: &[UtteranceEmbedding]) -> PolarsResult<DataFrame> {
    let values = rows.iter().map(|row| row.2.len()).sum();
    let mut utt = StringChunkedBuilder::new("utt".into(), rows.len());
    let mut spk = StringChunkedBuilder::new("spk".into(), rows.len());
    let mut embedding =
        ListPrimitiveChunkedBuilder::<Float32Type>::new(column.into(), rows.len(), values, DataType::Float32);
    for row in rows {
        utt.append_value(&row.0);
        spk.append_value(&row.1);
        embedding.append_slice(&row.2);
    }
    let columns = vec![utt.finish().into_column(), spk.finish().into_column(), embedding.finish().into_column()];
    DataFrame::new(rows.len(), columns)
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
            write(&path, "utt_embedding", &rows).unwrap();
            assert_eq!(read(&path, "utt_embedding").unwrap(), rows);
        }
    }
}
