//! Tables on disk.

mod support;

use flowmill_corpus::ReadOptions;
use flowmill_corpus::kaldi::read_directory;
use flowmill_corpus::{Utterance, table};
use support::data;

#[test]
fn utterances_come_back_as_they_went_in_and_the_bytes_are_always_the_same() {
    let reading = read_directory(&data(), "libri6", &ReadOptions::default()).unwrap();
    let mut utterances: Vec<Utterance> = reading.utterances.iter().map(|row| row.to_utterance()).collect();
    utterances[0].duration = Some(2.5);
    utterances[1].sample_rate = Some(16_000);
    utterances[2].lang = None;
    utterances[3].start = Some(0.0);
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a.parquet"), dir.path().join("b.parquet"));
    table::write_utterances(&first, &utterances).unwrap();
    table::write_rows(&second, utterances.iter().map(Utterance::as_row)).unwrap();
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    assert_eq!(table::read_utterances(&first).unwrap(), utterances);
    let wavs: Vec<String> = utterances.into_iter().map(|u| u.wav).collect();
    assert_eq!(table::read_wav_column(&first).unwrap(), wavs);
}

#[test]
fn an_empty_table_is_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.parquet");
    table::write_utterances(&path, &[]).unwrap();
    assert_eq!(table::read_utterances(&path).unwrap(), []);
    table::write_tokens(&path, "utt", "speech_token", &[]).unwrap();
    assert_eq!(table::read_tokens(&path, "utt", "speech_token").unwrap(), []);
}

#[test]
fn lists_come_back_as_they_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lists.parquet");
    let embeddings = vec![("a".to_owned(), vec![0.5f32, -1.25]), ("b".to_owned(), vec![]), ("c".to_owned(), vec![3.0])];
    table::write_embeddings(&path, "spk", "spk_embedding", &embeddings).unwrap();
    assert_eq!(table::read_embeddings(&path, "spk", "spk_embedding").unwrap(), embeddings);
    let tokens = vec![("a".to_owned(), vec![1i64, 1 << 40, -3]), ("b".to_owned(), vec![])];
    table::write_tokens(&path, "utt", "speech_token", &tokens).unwrap();
    assert_eq!(table::read_tokens(&path, "utt", "speech_token").unwrap(), tokens);
    let wrong = table::read_embeddings(&path, "utt", "speech_token").unwrap_err();
    assert!(wrong.to_string().contains("lists.parquet"), "{wrong}");
}

#[test]
fn what_is_no_table_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text.parquet");
    std::fs::write(&path, "PAR1 but not really PAR1").unwrap();
    assert!(table::read_utterances(&path).is_err());
    let missing = table::read_utterances(&dir.path().join("missing.parquet")).unwrap_err();
    assert!(missing.to_string().contains("missing.parquet"), "{missing}");
}
