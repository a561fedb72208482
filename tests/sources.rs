//! Sources as a whole: those that cannot be read, and several whose utterances have the same names.

use crate::support::corpus::{Corpus, wav};

/// A source that cannot be read in a corpus that also has a good folder, `good`.
fn unreadable(corpus: &Corpus, source: &str, rows: usize, ids: &[&str], words: &[&str]) {
    corpus.write("good/a.wav", wav());
    corpus.write("good/a.txt", "words");
    let rejected = format!("all {rows} rows were rejected");
    // Alone, and next to a good source whatever share may be rejected.
    let alone = corpus.prepare(source, "max_rejected: 1.0").expect_code(1);
    alone
        .expect_words(&[&rejected, &format!("{rows} × source cannot be read"), "rejected.parquet"])
        .expect_words(words);
    let found: Vec<String> = corpus.rejected().into_iter().map(|row| row.0).collect();
    assert_eq!(found, ids, "{source}");
    assert!(
        corpus.rejected().iter().all(|row| words.iter().all(|word| row.1.contains(word))),
        "{:#?}",
        corpus.rejected()
    );
    let both = corpus.prepare(&format!("{source}, {{dir: good, format: folder}}"), "max_rejected: 1.0").expect_code(1);
    both.expect_words(&[&format!("{rows} of {} rows rejected", rows + 1), "a whole source cannot be read"]);
}

#[test]
fn sources_that_cannot_be_read_as_a_whole_are_rejected_by_name() {
    let corpus = Corpus::new();
    for id in ["u1", "u2"] {
        corpus.write(&format!("k/{id}.wav"), wav());
        corpus.write(&format!("lj/wavs/{id}.wav"), wav());
        corpus.write(&format!("loose/{id}.wav"), wav());
    }
    // Kaldi: every id that any file names.
    corpus.write("k/text", "u1 one\nu2 two\n");
    unreadable(&corpus, "k", 2, &["u1", "u2"], &["wav.scp"]);
    corpus.write("k/wav.scp", "u1 u1.wav\nu2 u2.wav\nu3 u3.wav\n");
    unreadable(&corpus, "k", 3, &["u1", "u2", "u3"], &["utt2spk", "speaker: NAME"]);
    corpus.write("k/utt2spk", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
    unreadable(&corpus, "k", 3, &["u1", "u2", "u3"], &["utt2spk", "git lfs pull"]);
    corpus.write("k/utt2spk", "u1 s\nu2 s\nu3 s\n");
    corpus.prepare("k", "max_rejected: 0.5").expect_code(0).expect_words(&["3 rows in, 2 out, 1 rejected"]);
    // LJSpeech: every recording.
    let lj = "{dir: lj, format: ljspeech}";
    corpus.write("lj/metadata.csv.gz", b"\x1f\x8b\x08");
    unreadable(&corpus, lj, 2, &["u1", "u2"], &["metadata.csv", "gunzip"]);
    corpus.write("lj/metadata.csv", " \n");
    unreadable(&corpus, lj, 2, &["u1", "u2"], &["is empty"]);
    corpus.write("lj/metadata.csv", "file_name,transcription\nwavs/u1.wav,words\n");
    unreadable(&corpus, lj, 2, &["u1", "u2"], &["commas", "format: manifest"]);
    corpus.write("lj/metadata.csv", "{\"file_name\": \"wavs/u1.wav\", \"text\": \"words\"}\n");
    unreadable(&corpus, lj, 2, &["u1", "u2"], &["contains JSON", "format: manifest"]);
    // Tar files: every recording among them, or else the source.
    unreadable(&corpus, "{dir: loose, format: webdataset}", 2, &["u1.wav", "u2.wav"], &["`.tar`"]);
    for (content, words) in [
        (b"\x1f\x8b\x08\0\0\0\0\0".as_slice(), "gunzip"),
        (b"PK\x03\x04\x14\0", "unzip"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "7z x"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><title>403</title>", "download it again"),
    ] {
        corpus.write("s.tar", content);
        unreadable(&corpus, "s.tar", 1, &["s.tar"], &[words]);
    }
    // Manifests: the source.
    for (content, words) in [
        (b"\n\n".as_slice(), "is empty"),
        (b"\x1f\x8b\x08\0", "gunzip"),
        (b"SQLite format 3\0", "SQLite"),
        (br#"{"dataset": "G", "audios": [{"path": "a.wav", "segments": []}]}"#, "audios"),
        (br#"{"utts": {"u1": {"input": [], "output": []}}}"#, "utts"),
        (b"<html></html>", "download it again"),
    ] {
        corpus.write("m.json", content);
        unreadable(&corpus, "{dir: m.json, format: manifest}", 1, &["m.json"], &[words]);
    }
    // Another format than the data have.
    unreadable(&corpus, "{dir: loose, format: manifest}", 1, &["loose"], &["is a folder", "format: folder"]);
    unreadable(&corpus, "{dir: m.json, format: folder}", 1, &["m.json"], &["not a directory", "format: manifest"]);
    unreadable(&corpus, "{dir: m.json, format: ljspeech}", 1, &["m.json"], &["not a directory"]);
    unreadable(&corpus, "m.json", 1, &["m.json"], &["not a directory"]);
    // Transcripts alone are utterances; what holds neither is none.
    corpus.write("texts/a.txt", "words");
    corpus.write("texts/b/c.lab", "words");
    let texts = corpus.prepare("{dir: texts, format: folder}", "max_rejected: 1.0").expect_code(1);
    texts.expect_words(&["all 2 rows were rejected", "2 × no recording", "rejected.parquet"]);
    corpus.write("notes/a.md", "words");
    unreadable(&corpus, "{dir: notes, format: folder}", 1, &["notes"], &["contains no recording"]);
}

#[test]
fn a_source_that_cannot_be_read_keeps_the_last_good_result() {
    let corpus = Corpus::new();
    corpus.write("lj/wavs/a.wav", wav());
    corpus.write("lj/metadata.csv", "a|words\n");
    let lj = "{dir: lj, format: ljspeech}";
    corpus.prepare(lj, "").expect_code(0);
    corpus.write("lj/metadata.csv", "");
    corpus.prepare(lj, "").expect_code(1).expect_words(&["is empty"]);
    assert_eq!(corpus.ids(), ["a"]);
    assert!(!corpus.path("exp/c/0-prep/rejected.parquet").exists());
    corpus.write("lj/metadata.csv", "a|other words\n");
    corpus.prepare(lj, "").expect_code(0);
    assert_eq!(corpus.rows("text")["a"], "other words");
}

#[test]
fn ids_of_two_sources_are_unique() {
    let corpus = Corpus::new();
    let mut long = wav();
    long.extend([0; 8]);
    for (name, sound) in
        [("anna/1", wav()), ("anna/2", wav()), ("ben/1", long.clone()), ("ben/3", wav()), ("lj/wavs/2", long)]
    {
        corpus.write(&format!("{name}.wav"), sound);
        corpus.write(&format!("{name}.txt"), name);
    }
    corpus.write("lj/metadata.csv", "2|lj two\n");
    let sources = "{dir: anna, format: folder}, {dir: ben/, format: folder}, {dir: lj, format: ljspeech}";
    let outcome = corpus.prepare(sources, "max_rejected: 0").expect_code(0);
    outcome.expect_words(&["5 rows in, 5 out, 0 rejected", "ben-1", "lj-2", "prefix"]);
    assert_eq!(corpus.ids(), ["1", "2", "3", "ben-1", "lj-2"]);
    assert_eq!(corpus.rows("wav")["ben-1"], "ben/1.wav");
    assert_eq!(corpus.rows("text")["1"], "anna/1");
    // Ids that the data give keep theirs, and are rejected where two sources give the same.
    corpus.write("k/wav.scp", "1 ../ben/1.wav\n3 ../ben/3.wav\n");
    corpus.write("k/text", "1 one\n3 three\n");
    corpus.write("k/utt2spk", "1 s\n3 s\n");
    corpus.write("more/wav.scp", "1 ../anna/1.wav\n");
    corpus.write("more/text", "1 uno\n");
    corpus.write("more/utt2spk", "1 s\n");
    corpus
        .prepare("{dir: anna, format: folder}, k, more", "max_rejected: 0.5")
        .expect_code(0)
        .expect_words(&["5 rows in, 4 out, 1 rejected"]);
    assert_eq!(corpus.ids(), ["1", "2", "3", "anna-1"]);
    assert_eq!(corpus.rows("text")["1"], "one");
    assert!(corpus.reason("1").starts_with("id in two sources") && corpus.reason("1").contains("prefix: NAME-"));
    let prefixed = "{dir: anna, format: folder}, k, {dir: more, prefix: more-}";
    corpus.prepare(prefixed, "max_rejected: 0").expect_code(0).expect_words(&["5 rows in, 5 out, 0 rejected"]);
    assert_eq!(corpus.rows("text")["more-1"], "uno");
    corpus.prepare("{dir: more, prefix: a b}", "").expect_code(2).expect_words(&["prefix"]);
    // One recording that two sources name is one utterance.
    corpus.write("m.jsonl", "{\"audio\": \"anna/1.wav\", \"text\": \"again\", \"id\": null}\n");
    let twice = "{dir: anna, format: folder}, {dir: anna, format: folder}";
    corpus.prepare(twice, "max_rejected: 0.5").expect_code(0).expect_words(&["4 rows in, 2 out, 2 rejected"]);
}
