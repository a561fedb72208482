//! Rows are conserved: whatever a source of any format holds is a row or one rejection, named and counted.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use tar::{Builder, EntryType, Header};

use crate::support::random::Random;
use crate::support::{Mini, Outcome, flowmill, parquet};

/// A recipe's folder with one source below it.
struct Corpus {
    folder: tempfile::TempDir,
}

impl Corpus {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the source.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Runs stage 0 on the source.
    fn prepare(&self, source: &str, more: &str) -> Outcome {
        let recipe =
            format!("name: c\n{more}\nprep:\n  data: [{source}]\n  split: {{by: fraction, fractions: {{}}}}\n");
        self.write("recipe.yaml", recipe);
        flowmill(self.folder.path(), &["run", ".", "--stop-stage", "0"])
    }

    fn table(&self) -> PathBuf {
        self.path("exp/c/0-prep/train/part-00000.parquet")
    }

    /// The rows: id to one of their columns.
    fn rows(&self, column: &str) -> BTreeMap<String, String> {
        parquet::texts(&self.table(), "utt").into_iter().zip(parquet::texts(&self.table(), column)).collect()
    }

    fn ids(&self) -> Vec<String> {
        if self.table().exists() { parquet::texts(&self.table(), "utt") } else { Vec::new() }
    }

    /// The rejected rows in order of their ids, each with its reason.
    fn rejected(&self) -> Vec<(String, String)> {
        let table = self.path("exp/c/0-prep/rejected.parquet");
        if !table.exists() {
            return Vec::new();
        }
        let mut rows: Vec<_> = parquet::texts(&table, "id").into_iter().zip(parquet::texts(&table, "reason")).collect();
        rows.sort();
        rows
    }

    #[track_caller]
    fn reason(&self, id: &str) -> String {
        let rejected = self.rejected();
        let found: Vec<&str> = rejected.iter().filter(|row| row.0 == id).map(|row| row.1.as_str()).collect();
        assert_eq!(found.len(), 1, "{id} is rejected {} times: {rejected:#?}", found.len());
        found[0].to_owned()
    }
}

/// Half a second of a tone as 16-bit WAV at 8 kHz, of one or more channels.
fn wav_of(channels: u16) -> Vec<u8> {
    let frames = 4000u32;
    let size = frames * u32::from(channels) * 2;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + size).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    bytes.extend(channels.to_le_bytes());
    bytes.extend(8000u32.to_le_bytes());
    bytes.extend((8000 * u32::from(channels) * 2).to_le_bytes());
    bytes.extend((channels * 2).to_le_bytes());
    bytes.extend(b"\x10\0data");
    bytes.extend(size.to_le_bytes());
    for frame in 0..frames {
        let sample = (8000.0 * (f64::from(frame) * 0.3).sin()) as i16;
        (0..channels).for_each(|_| bytes.extend(sample.to_le_bytes()));
    }
    bytes
}

fn wav() -> Vec<u8> {
    wav_of(1)
}

/// A tar file being made.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn file(&mut self, name: &str, content: impl AsRef<[u8]>) -> &mut Self {
        self.member(name, EntryType::Regular, content.as_ref())
    }

    fn member(&mut self, name: &str, kind: EntryType, content: &[u8]) -> &mut Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

#[test]
fn keys_of_tar_files_may_hold_dots() {
    let corpus = Corpus::new();
    let mut tar = Tar::new();
    for n in 0..6 {
        let key = format!("talk.{n:02}.5-{n:02}.9");
        tar.file(&format!("{key}.wav"), wav()).file(&format!("{key}.txt"), format!("words {n}"));
        tar.file(&format!("{key}.speaker.txt"), "anna");
    }
    tar.file("talk.99.5-99.9.txt", "without a recording");
    corpus.write("a.tar", tar.done());
    corpus
        .prepare("a.tar", "max_rejected: 0.5")
        .expect_code(0)
        .expect_words(&["7 rows in, 6 out, 1 rejected", "last dot"]);
    assert_eq!(corpus.rows("text")["talk.03.5-03.9"], "words 3");
    assert!(corpus.rows("spk").values().all(|speaker| speaker == "anna"));
    assert!(corpus.reason("talk.99.5-99.9").starts_with("no recording"));
    // Also where only the tar files together show it.
    for (n, key) in ["anna.001", "anna.002"].iter().enumerate() {
        let mut tar = Tar::new();
        tar.file(&format!("{key}.wav"), wav()).file(&format!("{key}.txt"), "words");
        corpus.write(&format!("split/{n}.tar"), tar.done());
    }
    corpus.prepare("\"split/{0..1}.tar\"", "").expect_code(0);
    assert_eq!(corpus.ids(), ["anna.001", "anna.002"]);
    // Up to the first dot, as the format has it, where that explains the members.
    let mut tar = Tar::new();
    for n in 0..3 {
        tar.file(&format!("k{n}.audio.wav"), wav());
        tar.file(&format!("k{n}.meta.json"), r#"{"caption": "c", "normalized_text": "n", "spk": 3}"#);
    }
    corpus.write("b.tar", tar.done());
    corpus.prepare("b.tar", "").expect_code(0);
    assert_eq!(corpus.ids(), ["k0", "k1", "k2"]);
    assert_eq!((corpus.rows("text")["k1"].as_str(), corpus.rows("spk")["k1"].as_str()), ("n", "3"));
}

#[test]
fn nothing_of_a_tar_file_that_looks_like_an_utterance_is_passed_over() {
    let corpus = Corpus::new();
    let mut tar = Tar::new();
    tar.file("good.wav", wav()).file("good.txt", "good");
    tar.file("phone.amr", b"#!AMR\n\x3c").file("phone.txt", "a telephone");
    tar.file("odd.dat", wav()).file("odd.txt", "known by its content");
    tar.file("array.npy", b"\x93NUMPY").file("array.txt", "samples as an array");
    // One utterance, wrong in three members.
    for ending in ["wav", "txt", "json"] {
        tar.member(&format!("../up.{ending}"), EntryType::Regular, b"x");
    }
    tar.file("two.wav", wav()).file("two.txt", "first").file("two.wav", wav()).file("two.txt", "second");
    tar.file("._good.wav", b"\0\x05\x16\x07\0\x02\0\0Mac OS X").file("notes.md", "neither");
    corpus.write("a.tar", tar.done());
    corpus
        .prepare("a.tar", "max_rejected: 0.9")
        .expect_code(0)
        .expect_words(&["7 rows in, 3 out, 4 rejected", "1 .md"]);
    assert_eq!(corpus.ids(), ["good", "odd", "two"]);
    let ids: Vec<String> = corpus.rejected().into_iter().map(|row| row.0).collect();
    assert_eq!(ids, ["../up.wav", "array", "phone", "two"]);
    assert!(corpus.reason("array").contains("array.npy is an array"));
    // Beside the tar files of a folder.
    fs::create_dir(corpus.path("tars")).unwrap();
    fs::rename(corpus.path("a.tar"), corpus.path("tars/a.tar")).unwrap();
    corpus.write("tars/loose.wav", wav());
    corpus.write("tars/index.json", "{}");
    let source = "{dir: tars, format: webdataset}";
    corpus.prepare(source, "max_rejected: 0.9").expect_code(0).expect_words(&["8 rows in, 3 out, 5 rejected"]);
    assert!(corpus.reason("loose.wav").starts_with("not in a tar file"));
    corpus.write("tars/late.wav", wav());
    corpus.prepare(source, "max_rejected: 0.9").expect_code(0).expect_words(&["9 rows in, 3 out, 6 rejected"]);
}

#[test]
fn files_of_a_folder_are_recordings_by_extension_or_content() {
    let corpus = Corpus::new();
    for (name, content) in [
        ("a.WAV", wav()),
        ("b.wave", wav()),
        ("c.oga", wav()),
        ("d", wav()),
        ("e.dat", wav()),
        ("f.m4b", b"no container at all, but by its name a recording".to_vec()),
        ("g.awb", b"#!AMR-WB\n".to_vec()),
    ] {
        corpus.write(&format!("data/{name}"), content);
    }
    for (name, text) in [("a.TXT", "a"), ("b.Lab", "b"), ("c.oga.txt", "c"), ("d.txt", "d"), ("e.text", "e")] {
        corpus.write(&format!("data/{name}"), text);
    }
    for name in ["f.txt", "g.txt", "orphan.txt", "orphan.lab"] {
        corpus.write(&format!("data/{name}"), "words");
    }
    for name in ["README.txt", "LICENSE", "notes.csv", ".DS_Store"] {
        corpus.write(&format!("data/{name}"), "about the data");
    }
    corpus
        .prepare("{dir: data, format: folder}", "max_rejected: 0.5")
        .expect_code(0)
        .expect_words(&["8 rows in, 5 out, 3 rejected", "1 .csv"]);
    assert_eq!(corpus.ids(), ["a", "b", "c", "d", "e"]);
    let ids: Vec<String> = corpus.rejected().into_iter().map(|row| row.0).collect();
    assert_eq!(ids, ["f", "g", "orphan"]);
    // Fewer may be rejected.
    corpus.prepare("{dir: data, format: folder}", "max_rejected: 0.3").expect_code(1).expect_words(&["3 of 8 rows"]);
}

#[test]
fn of_two_formats_of_a_recording_the_plain_one_is_taken_and_told() {
    let corpus = Corpus::new();
    let mut tar = Tar::new();
    for name in ["x.mp3", "x.wav"] {
        corpus.write(&format!("data/{name}"), wav());
        corpus.write(&format!("lj/wavs/{name}"), wav());
        tar.file(name, wav());
    }
    corpus.write("data/x.txt", "words");
    corpus.write("lj/metadata.csv", "x|words\n");
    tar.file("x.txt", "words");
    corpus.write("a.tar", tar.done());
    for (source, wav) in [
        ("{dir: data, format: folder}", "data/x.wav"),
        ("{dir: lj, format: ljspeech}", "lj/wavs/x.wav"),
        ("a.tar", "a.tar#x.wav@"),
    ] {
        let outcome = corpus.prepare(source, "").expect_code(0);
        outcome.expect_words(&["1 recordings are left out", "x.mp3 (taken: ", "before lossy"]);
        assert!(corpus.rows("wav")["x"].starts_with(wav), "{:?}", corpus.rows("wav"));
    }
}

#[test]
fn recordings_of_ljspeech_are_found_by_their_whole_name() {
    let corpus = Corpus::new();
    for name in ["7.wav", "7.1.wav", "7.10.flac", "10.wav", "deep/in.wav", "two.wav", "two.WAV", "unlisted.wav"] {
        corpus.write(&format!("lj/wavs/{name}"), wav());
    }
    let lines = ["7|a", "7.1.wav|b", "7.10|c", "wavs/10.wav|d", "deep/in|e", "two|f", "1|g"];
    corpus.write("lj/metadata.csv", lines.join("\n"));
    corpus.prepare("{dir: lj, format: ljspeech}", "max_rejected: 0.5").expect_code(0);
    let expected = [
        ("10", "lj/wavs/10.wav"),
        ("7", "lj/wavs/7.wav"),
        ("7.1", "lj/wavs/7.1.wav"),
        ("7.10", "lj/wavs/7.10.flac"),
        ("deep-in", "lj/wavs/deep/in.wav"),
    ];
    let rows: Vec<(String, String)> = corpus.rows("wav").into_iter().collect();
    assert_eq!(rows, expected.map(|(id, wav)| (id.to_owned(), wav.to_owned())));
    assert!(corpus.reason("1").contains("lj/wavs/1.wav"), "{}", corpus.reason("1"));
    assert!(corpus.reason("two").starts_with("two recordings"));
    assert!(corpus.reason("unlisted").starts_with("not in metadata.csv"));
    assert_eq!(corpus.rejected().len(), 3);
}

#[test]
fn made_up_ids_are_unique() {
    let corpus = Corpus::new();
    let piece = |duration: f64| format!(r#"{{"wav": "long.wav", "text": "t", "offset": 0.1, "duration": {duration}}}"#);
    let line = |path: &str| format!(r#"{{"audio": "{path}", "sentence": "t"}}"#);
    let lines = [piece(0.2), piece(0.3), line("a/b.wav"), line("a-b.wav"), line("x.wav"), line("x.flac")];
    for name in ["long.wav", "a/b.wav", "a-b.wav", "x.wav", "x.flac"] {
        corpus.write(name, wav());
    }
    corpus.write("m.jsonl", lines.join("\n"));
    corpus
        .prepare("{dir: m.jsonl, format: manifest}", "")
        .expect_code(0)
        .expect_words(&["6 rows in, 6 out, 0 rejected"]);
    let mut durations = parquet::numbers(&corpus.table(), "duration");
    durations.retain(|duration| *duration < 0.4);
    durations.sort_by(f64::total_cmp);
    assert!((durations[0] - 0.2).abs() < 1e-9 && (durations[1] - 0.3).abs() < 1e-9, "{durations:?}");
    let before = corpus.ids();
    let backwards: Vec<&str> = lines.iter().rev().map(String::as_str).collect();
    corpus.write("m.jsonl", backwards.join("\n"));
    corpus.prepare("{dir: m.jsonl, format: manifest}", "").expect_code(0);
    assert_eq!(corpus.ids(), before, "ids do not depend on the order of the lines");
    for name in ["d/s/t.wav", "d/s-t.wav"] {
        corpus.write(name, wav());
        corpus.write(&name.replace("wav", "txt"), "words");
    }
    corpus.prepare("{dir: d, format: folder}", "").expect_code(0).expect_words(&["2 rows in, 2 out, 0 rejected"]);
    // The recording that is called so keeps the name.
    assert_eq!(corpus.rows("wav")["s-t"], "d/s-t.wav");
}

#[test]
fn where_nothing_is_left_the_reasons_are_counted_and_kept() {
    let gbk = b"u1 \xc4\xe3\xba\xc3\xca\xc0\xbd\xe7\nu2 \xca\xc0\xbd\xe7\xc4\xe3\xba\xc3\n";
    let scp = "u1 a.wav\nu2 b.wav\n";
    for (wav_scp, text, words) in [
        ("u1 sox a.mp3 -t wav - |\nu2 cat a.wav |\n", b"u1 one\nu2 two\n".as_slice(), "prep.allow_pipes: true"),
        (scp, gbk.as_slice(), "iconv -f GBK"),
        ("u1 D:\\corpus\\a.wav\nu2 \\\\server\\b.wav\n", b"u1 one\nu2 two\n", "/mnt/d/corpus/a.wav"),
        ("u1 raw.ark:17\nu2 raw.ark:99\n", b"u1 one\nu2 two\n", "wav-copy"),
    ] {
        let corpus = Corpus::new();
        corpus.write("data/wav.scp", wav_scp);
        corpus.write("data/text", text);
        corpus.write("data/utt2spk", "u1 s\nu2 s\n");
        // Also where any share may be rejected.
        let outcome = corpus.prepare("data", "max_rejected: 1.0").expect_code(1);
        let outcome = outcome.expect_words(&["all 2 rows were rejected", "2 × ", "u1", words, "rejected.parquet"]);
        assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
        assert_eq!(corpus.rejected().len(), 2);
        let table = corpus.path("exp/c/0-prep/rejected.parquet");
        let shown = flowmill(corpus.folder.path(), &["inspect", table.to_str().unwrap()]).expect_code(0);
        shown.expect_words(&[&corpus.reason("u2")]);
    }
    for (name, content, words) in [
        ("m.jsonl.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), "gunzip"),
        ("m.parquet", b"PAR1\0\0\0\0PAR1", "Parquet"),
        ("m.list", b"a.wav|anna|EN|words\nb.wav|anna|EN|more\n", "no JSON object"),
    ] {
        let corpus = Corpus::new();
        corpus.write(name, content);
        let outcome = corpus.prepare(&format!("{{dir: {name}, format: manifest}}"), "").expect_code(1);
        outcome.expect_words(&["rows were rejected", words]);
        assert!(!corpus.rejected().is_empty(), "{name}");
    }
}

#[test]
fn encodings_with_a_mark_and_json_arrays_are_read() {
    let corpus = Corpus::new();
    corpus.write("data/wav.scp", "u1 ../a.wav\n");
    let utf16: Vec<u8> = "\u{feff}u1 grüße\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    corpus.write("data/text", utf16);
    corpus.write("data/utt2spk", "u1 s\n");
    corpus.write("a.wav", wav());
    corpus.prepare("data", "").expect_code(0);
    assert_eq!(corpus.rows("text")["u1"], "grüße");
    corpus.write("m.json", "[\n  {\"audio_filepath\": \"a.wav\",\n   \"text\": \"t\", \"id\": 7, \"snr\": NaN}\n]\n");
    corpus.prepare("{dir: m.json, format: manifest}", "").expect_code(0).expect_words(&["JSON array"]);
    assert_eq!(corpus.ids(), ["7"]);
}

#[test]
fn readers_agree_on_types_names_blanks_and_newlines() {
    let corpus = Corpus::new();
    corpus.write("a.wav", wav());
    let texts = [r"one\u00a0two", r"one\u202ftwo", r"one\u3000two", r"one\ntwo", r" one  two\t"];
    for (n, text) in texts.iter().enumerate() {
        let json = format!(
            r#"{{"speaker_id": 4.0, "spk": "", "transcription": "{text}", "caption": "not this", "duration": "0.5", "snr": NaN, "lang": null, "language": "en"}}"#
        );
        let mut tar = Tar::new();
        tar.file("a.wav", wav()).file("a.json", &json);
        corpus.write("a.tar", tar.done());
        corpus.write("data/a.wav", wav());
        corpus.write("data/a.json", &json);
        corpus.write("m.jsonl", json.replacen('{', r#"{"audio_filepath": "a.wav", "#, 1));
        let spoken = text.replace(r"\u00a0", "\u{a0}").replace(r"\u202f", "\u{202f}").replace(r"\u3000", "\u{3000}");
        corpus.write("k/wav.scp", "a ../a.wav\n");
        corpus.write("k/text", format!("a\u{3000}{}\n", spoken.replace(r"\n", "\u{2028}").replace(r"\t", "\t")));
        corpus.write("k/utt2spk", "a 4\n");
        corpus.write("k/utt2lang", "a en\n");
        for source in ["a.tar", "{dir: m.jsonl, format: manifest}", "{dir: data, format: folder}", "k"] {
            corpus.prepare(source, "").expect_code(0);
            let row = ["text", "spk", "lang"].map(|column| corpus.rows(column)["a"].clone());
            assert_eq!(row, ["one two", "4", "en"], "{n} {source}");
        }
    }
}

#[test]
fn segments_that_last_to_the_end_and_name_their_channel() {
    let corpus = Corpus::new();
    corpus.write("one.wav", wav());
    corpus.write("two.wav", wav_of(2));
    corpus.write("k/wav.scp", "one ../one.wav\ntwo ../two.wav\n");
    corpus
        .write("k/segments", "s-a one 0.1 -1\ns-b one 0.2 0.4 0\ns-c two 0 -1 1\ns-d one 0 0.4 B\ns-e two 0.1 -1.0\n");
    corpus.write("k/text", "s-a a\ns-b b\ns-c c\ns-d d\ns-e e\n");
    corpus.write("k/utt2spk", "s-a s\ns-b s\ns-c s\ns-d s\ns-e s\n");
    corpus.prepare("k", "max_rejected: 0.5").expect_code(0);
    assert_eq!(corpus.ids(), ["s-a", "s-b", "s-e"]);
    let durations = parquet::numbers(&corpus.table(), "duration");
    for (duration, expected) in durations.iter().zip([0.4, 0.2, 0.4]) {
        assert!((duration - expected).abs() < 1e-9, "{durations:?}");
    }
    assert!(corpus.reason("s-c").contains("channel 1"), "{}", corpus.reason("s-c"));
    assert!(corpus.reason("s-d").contains("channel 1"), "{}", corpus.reason("s-d"));
}

#[test]
fn one_utterance_that_is_wrong_in_three_files_is_one_rejection() {
    let corpus = Corpus::new();
    corpus.write("a.wav", wav());
    corpus.write("k/wav.scp", "good ../a.wav\nu ../a.wav\nu ../b.wav\nv ../a.wav\nv ../a.wav\n");
    corpus.write("k/text", "good g\nu one\nu two\nv v\nv v\n");
    corpus.write("k/utt2spk", "good s\nu s\nu t\nv s\nv s\n");
    corpus.write("k/instruct", "good You are a helpful assistant.<|endofprompt|>\n");
    let outcome = corpus.prepare("k", "max_rejected: 0.6").expect_code(0);
    outcome.expect_words(&["4 rows in, 2 out, 2 rejected", "not read: instruct"]);
    assert!(corpus.reason("u").starts_with("contradiction"));
    assert!(corpus.reason("v").starts_with("repeated id"));
}

#[test]
fn corpora_without_transcripts_are_read_in_every_format() {
    let corpus = Corpus::new();
    let (mut lines, mut metadata, mut scp, mut spk) = (String::new(), String::new(), String::new(), String::new());
    let mut tar = Tar::new();
    for n in 0..3 {
        corpus.write(&format!("data/u{n}.wav"), wav());
        corpus.write(&format!("lj/wavs/u{n}.wav"), wav());
        tar.file(&format!("u{n}.wav"), wav()).file(&format!("u{n}.json"), r#"{"speaker": "s"}"#);
        lines += &format!("{{\"audio_filepath\": \"data/u{n}.wav\"}}\n");
        metadata += &format!("u{n}\n");
        scp += &format!("u{n} ../data/u{n}.wav\n");
        spk += &format!("u{n} s\n");
    }
    corpus.write("a.tar", tar.done());
    corpus.write("m.jsonl", lines);
    corpus.write("lj/metadata.csv", metadata);
    corpus.write("k/wav.scp", scp);
    corpus.write("k/utt2spk", spk);
    for source in
        ["k", "a.tar", "{dir: data, format: folder}", "{dir: lj, format: ljspeech}", "{dir: m.jsonl, format: manifest}"]
    {
        let outcome = corpus.prepare(source, "max_rejected: 0").expect_code(0);
        outcome.expect_words(&["3 rows in, 3 out, 0 rejected", "no row has a transcript"]);
        assert!(corpus.rows("text").values().all(String::is_empty), "{source}");
    }
    // Where others have one, a row without is rejected, unless rows without are wanted.
    corpus.write("k/text", "u0 words\nu1\n");
    corpus.prepare("k", "max_rejected: 0.9").expect_code(0).expect_words(&["3 rows in, 1 out, 2 rejected"]);
    assert!(corpus.reason("u1").contains("prep.min_text: 0"));
    let recipe = fs::read_to_string(corpus.path("recipe.yaml")).unwrap();
    corpus.write("recipe.yaml", recipe.replace("prep:\n", "prep:\n  min_text: 0\n"));
    let outcome = flowmill(corpus.folder.path(), &["run", ".", "--stop-stage", "0"]).expect_code(0);
    outcome.expect_words(&["3 rows in, 3 out, 0 rejected"]);
}

#[test]
fn a_flow_is_trained_and_exported_without_a_transcript() {
    let mini = Mini::new();
    fs::remove_file(mini.path("data/text")).unwrap();
    mini.run(&[]).expect_code(0).expect_words(&["no row has a transcript"]);
    assert!(mini.exp("6-export/model.safetensors").exists());
}

#[test]
fn a_source_of_another_layout_is_told_what_it_seems_to_be() {
    let corpus = Corpus::new();
    corpus.write("ls/dev/84/121/84-121-0000.wav", wav());
    corpus.write("ls/dev/84/121/84-121.trans.txt", "84-121-0000 WORDS\n");
    corpus.prepare("ls", "").expect_code(1).expect_words(&["wav.scp", "looks like LibriSpeech"]);
    corpus
        .prepare("{dir: ls, format: folder}", "")
        .expect_code(1)
        .expect_words(&["all 2 rows", "looks like LibriSpeech"]);
    corpus.write("cv/clips/a.wav", wav());
    corpus.write("cv/train.tsv", "path\tsentence\na.wav\twords\n");
    corpus.prepare("{dir: cv, format: folder}", "").expect_code(0).expect_words(&["looks like Common Voice"]);
    corpus.write("m.jsonl", "{}\n");
    corpus.prepare("m.jsonl", "").expect_code(2).expect_words(&["format: manifest"]);
    corpus.write("lj/LJSpeech-1.1/wavs/a.wav", wav());
    corpus.write("lj/LJSpeech-1.1/metadata.csv", "a|words\n");
    corpus.prepare("{dir: lj, format: ljspeech}", "").expect_code(1).expect_words(&["in its folder ljspeech-1.1"]);
}

/// What a random corpus should give.
#[derive(Default)]
struct Expected {
    good: Vec<String>,
    bad: Vec<String>,
}

impl Expected {
    #[track_caller]
    fn check(mut self, corpus: &Corpus, source: &str, about: &str) {
        let outcome = corpus.prepare(source, "max_rejected: 1.0");
        let code = if self.good.is_empty() { 1 } else { 0 };
        let outcome = outcome.expect_code(code);
        self.good.sort();
        self.bad.sort();
        let rejected: Vec<String> = corpus.rejected().into_iter().map(|row| row.0).collect();
        assert_eq!((corpus.ids(), rejected), (self.good.clone(), self.bad.clone()), "{about}\n{}", outcome.text());
        let (good, bad) = (self.good.len(), self.bad.len());
        if good > 0 {
            outcome.expect_words(&[&format!("{} rows in, {good} out, {bad} rejected", good + bad)]);
        }
    }
}

/// A name for an utterance: plain, with dashes, dots, letters beyond ASCII.
fn name(random: &mut Random, number: usize) -> String {
    let endings = ["", "-a", "_b.1", ".v2.0", "-ü", "-第一"];
    format!("u{number:03}{}", endings[pick(random, endings.len())])
}

fn pick(random: &mut Random, below: usize) -> usize {
    (random.unit() * below as f64) as usize
}

/// Something that is no recording.
const NOISE: &str = "this is no recording at all, whatever it is called";

#[test]
fn random_corpora_of_every_format_keep_or_name_every_utterance() {
    let mut random = Random::announced("random corpora");
    for round in 0..3 {
        kaldi(&mut random, round);
        folder(&mut random, round);
        ljspeech(&mut random, round);
        manifest(&mut random, round);
        webdataset(&mut random, round);
    }
}

fn kaldi(random: &mut Random, round: usize) {
    let (corpus, mut expected) = (Corpus::new(), Expected::default());
    let (mut scp, mut text, mut spk) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..20 {
        let id = name(random, number);
        let mut path = format!("audio/{number}.wav");
        let mut words = format!("{id} some words\n").into_bytes();
        let mut speaker = format!("{id} s\n");
        let defect = pick(random, 14);
        match defect {
            0 => path = "cat a.wav |".into(),
            1 => path = format!(r"E:\{number}.wav"),
            2 => words.clear(),
            3 => words = format!("{id} caf").into_bytes().into_iter().chain(*b"\xe9\n").collect(),
            4 => speaker.clear(),
            5 => words = format!("{id}\n").into_bytes(),
            6 => words.extend(format!("{id} other words\n").into_bytes()),
            // Good all the same.
            10 => words = format!("{id}\u{3000}some\u{a0}words\r\n").into_bytes(),
            _ => {}
        }
        let three = defect == 8;
        if three {
            scp.extend(format!("{id} other.wav\n").into_bytes());
            text.extend(format!("{id} other\n").into_bytes());
            spk.extend(format!("{id} t\n").into_bytes());
        }
        if defect != 9 {
            corpus.write(&format!("k/audio/{number}.wav"), if defect == 7 { NOISE.into() } else { wav() });
        }
        scp.extend(format!("{id} {path}\n").into_bytes());
        text.extend(words);
        spk.extend(speaker.into_bytes());
        if defect <= 9 { &mut expected.bad } else { &mut expected.good }.push(id);
    }
    corpus.write("k/wav.scp", scp);
    corpus.write("k/text", text);
    corpus.write("k/utt2spk", spk);
    expected.check(&corpus, "k", &format!("kaldi, round {round}"));
}

fn folder(random: &mut Random, round: usize) {
    let (corpus, mut expected) = (Corpus::new(), Expected::default());
    // One that is good, so that the source has transcripts.
    corpus.write("data/first.wav", wav());
    corpus.write("data/first.txt", "words");
    expected.good.push("first".into());
    for number in 0..20 {
        let below = ["", "anna/", "b/c/"][pick(random, 3)];
        let stem = format!("{below}{}", name(random, number));
        let file = |extension: &str| format!("data/{stem}.{extension}");
        let defect = pick(random, 14);
        let extension = ["wav", "WAV", "wave", "flac", "oga", "xyz"][pick(random, 6)];
        if !matches!(defect, 0 | 1) {
            corpus.write(&file(extension), wav());
        }
        match defect {
            // Transcripts alone: one utterance, in one or two files.
            0 => corpus.write(&file("txt"), "words"),
            1 => ["txt", "lab"].iter().for_each(|extension| corpus.write(&file(extension), "words")),
            2 => {}
            3 => corpus.write(&file("txt"), " \n"),
            4 => corpus.write(&file("txt"), b"caf\xe9"),
            5 => corpus.write(&file("json"), "{\"text\": "),
            6 => {
                corpus.write(&file("mp3"), NOISE);
                fs::remove_file(corpus.path(&file(extension))).unwrap();
                corpus.write(&file("TXT"), "words");
            }
            7 => {
                corpus.write(&file("gsm"), NOISE);
                fs::remove_file(corpus.path(&file(extension))).unwrap();
            }
            // Good all the same.
            8 => corpus.write(&file("Txt"), "words"),
            9 => corpus.write(&file("json"), r#"{"sentence": "words", "duration": NaN}"#),
            10 => {
                corpus.write(&file("mp3"), wav());
                corpus.write(&file("lab"), "two\u{202f}words");
            }
            _ => corpus.write(&file("txt"), "words"),
        }
        // A file that is no recording costs nothing.
        corpus.write(&format!("data/{below}notes-{number}.md"), "notes");
        if defect <= 7 { &mut expected.bad } else { &mut expected.good }.push(stem.replace('/', "-"));
    }
    expected.check(&corpus, "{dir: data, format: folder}", &format!("folder, round {round}"));
}

fn ljspeech(random: &mut Random, round: usize) {
    let (corpus, mut expected) = (Corpus::new(), Expected::default());
    let mut metadata = "first|words|\n".to_owned().into_bytes();
    corpus.write("lj/wavs/first.wav", wav());
    expected.good.push("first".into());
    for number in 0..20 {
        let id = name(random, number);
        let defect = pick(random, 13);
        let mut line = format!("{id}|some words|more words\n").into_bytes();
        let mut content = wav();
        match defect {
            0 => line = format!("{id}\n").into_bytes(),
            1 => line = format!("{id}|a|b|c\n").into_bytes(),
            2 => line = format!("{id}||\n").into_bytes(),
            3 => line = [format!("{id}|caf").as_bytes(), b"\xe9\n"].concat(),
            4 => content = NOISE.into(),
            5 => corpus.write(&format!("lj/wavs/{id}.WAV"), wav()),
            6 => line.clear(),
            // Good all the same.
            8 => line = format!("{id}.wav|words\r\n").into_bytes(),
            9 => line = format!("wavs/{id}.wav|two\u{a0}words\n").into_bytes(),
            10 => corpus.write(&format!("lj/wavs/{id}.mp3"), NOISE),
            _ => {}
        }
        if defect != 7 {
            corpus.write(&format!("lj/wavs/{id}.wav"), content);
        }
        metadata.extend(line);
        if defect <= 7 { &mut expected.bad } else { &mut expected.good }.push(id);
    }
    corpus.write("lj/metadata.csv", metadata);
    expected.check(&corpus, "{dir: lj, format: ljspeech}", &format!("ljspeech, round {round}"));
}

fn manifest(random: &mut Random, round: usize) {
    let (corpus, mut expected) = (Corpus::new(), Expected::default());
    let mut lines = br#"{"audio_filepath": "first.wav", "text": "words", "id": "first"}"#.to_vec();
    corpus.write("first.wav", wav());
    expected.good.push("first".into());
    for number in 0..20 {
        let id = name(random, number);
        let defect = pick(random, 14);
        corpus.write(&format!("audio/{number}.wav"), if defect == 0 { NOISE.into() } else { wav() });
        let line = |fields: &str| format!(r#"{{"id": "{id}", "wav": "audio/{number}.wav", {fields}}}"#);
        let place = format!("m.jsonl:{}", number + 2);
        let (line, id) = match defect {
            0 | 10 => (line(r#""text": "t", "spk": 7"#), id),
            1 => (line(r#""text": "t""#).replace(".wav", ".gone.wav"), id),
            2 => (line(r#""text": """#), id),
            3 => (line(r#""text": ["t"]"#), id),
            4 => (line(r#""text": "t", "duration": -2, "offset": 0.1"#), id),
            5 => (line(r#""text": "t""#).replace(r#""wav""#, r#""sound""#), id),
            6 => (format!("{id} is no JSON"), place),
            7 => (line(r#""text": "t""#).replace("audio/", r"C:\\audio\\"), id),
            // Good all the same.
            8 => (line(r#""transcript": "t", "text": null, "duration": "0.5", "snr": Infinity"#), id),
            9 => (
                format!(r#"{{"utt": {number}, "id": "{id}", "path": "audio/{number}.wav", "sentence": "t"}}"#),
                number.to_string(),
            ),
            _ => (line(r#""text": "a\nb", "speaker": "x", "speaker_id": 3, "duration": NaN"#), id),
        };
        lines.push(b'\n');
        lines.extend(line.into_bytes());
        if defect <= 7 { &mut expected.bad } else { &mut expected.good }.push(id);
    }
    corpus.write("m.jsonl", lines);
    expected.check(&corpus, "{dir: m.jsonl, format: manifest}", &format!("manifest, round {round}"));
}

fn webdataset(random: &mut Random, round: usize) {
    let (corpus, mut expected) = (Corpus::new(), Expected::default());
    let dotted = round.is_multiple_of(2);
    let mut tars = [Tar::new(), Tar::new()];
    for number in 0..22 {
        let key = if dotted { format!("21.{number:02}-26.44") } else { format!("u{number:03}-ü") };
        // Every tar file has good ones, so that the others are read as they are.
        let defect = if number < 4 { 12 } else { pick(random, 14) };
        let tar = &mut tars[number % 2];
        let file = |extension: &str| format!("{key}.{extension}");
        let mut id = key.clone();
        if !matches!(defect, 0 | 1 | 6) {
            let extension = ["wav", "WAV", "oga", "dat"][pick(random, 4)];
            tar.file(&file(extension), if defect == 2 { NOISE.into() } else { wav() });
            // What is no recording by name or content is none.
            if defect == 2 && extension == "dat" {
                tar.file(&file("wav"), NOISE);
            }
        }
        match defect {
            0 => drop(tar.file(&file("txt"), "words")),
            1 => drop(tar.file(&file("txt"), "words").file(&file("json"), "{}")),
            3 => {}
            4 => drop(tar.file(&file("txt"), b"caf\xe9")),
            5 => drop(tar.file(&file("json"), "{\"text\": ")),
            6 => {
                // One utterance, three members of the wrong kind.
                for extension in ["wav", "txt", "json"] {
                    tar.member(&file(extension), EntryType::Symlink, b"");
                }
                id = file("wav");
            }
            7 => drop(tar.file(&file("json"), r#"{"text": 7}"#)),
            // Good all the same.
            8 => drop(tar.file(&file("TXT"), "two\nwords")),
            9 => drop(tar.file(&file("json"), r#"{"caption": "t", "duration": NaN, "spk": 3}"#)),
            10 => drop(tar.file(&file("speaker.txt"), "anna").file(&file("text.txt"), "words")),
            _ => drop(tar.file(&file("json"), "{\"speaker\": 1}").file(&file("txt"), "words")),
        }
        tar.file(&file("npy"), b"\x93NUMPY");
        if defect <= 7 { &mut expected.bad } else { &mut expected.good }.push(id);
    }
    for (number, tar) in tars.into_iter().enumerate() {
        corpus.write(&format!("tars/{number}.tar"), tar.done());
    }
    expected.check(&corpus, "{dir: tars, format: webdataset}", &format!("webdataset, round {round}"));
}

/// The same files as a folder and as a tar file, with the rows (id to text) and the rejected ids of both.
#[track_caller]
fn both_ways(files: &[(&str, &str)], rows: &[(&str, &str)], rejected: &[&str]) {
    let corpus = Corpus::new();
    let mut tar = Tar::new();
    for (name, text) in files {
        let content = if name.ends_with(".wav") { wav() } else { text.as_bytes().to_vec() };
        corpus.write(&format!("data/{name}"), &content);
        tar.file(name, content);
    }
    corpus.write("a.tar", tar.done());
    for source in ["{dir: data, format: folder}", "a.tar"] {
        corpus.prepare(source, "max_rejected: 0.99").expect_code(0);
        let expected: BTreeMap<String, String> =
            rows.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect();
        assert_eq!(corpus.rows("text"), expected, "{source}");
        let ids: Vec<String> = corpus.rejected().into_iter().map(|row| row.0).collect();
        assert_eq!(ids, rejected, "{source}");
    }
}

#[test]
fn transcripts_of_other_utterances_are_neither_taken_nor_swallowed() {
    let good = [("g.wav", ""), ("g.txt", "good")];
    let with = |files: &[(&'static str, &'static str)]| [&good, files].concat();
    let files = with(&[("b.wav", ""), ("b.1.json", r#"{"text": "of another"}"#)]);
    both_ways(&files, &[("g", "good")], &["b", "b.1"]);
    let files = with(&[("1.wav", ""), ("1.txt", "one"), ("1.1.txt", "x"), ("1.take2.txt", "y")]);
    both_ways(&files, &[("1", "one"), ("g", "good")], &["1.1", "1.take2"]);
    let files = with(&[("a.1.wav", ""), ("a.1.txt", "one"), ("a.2.txt", "two")]);
    both_ways(&files, &[("a.1", "one"), ("g", "good")], &["a.2"]);
    let files = with(&[("c.wav", ""), ("c.meta.json", r#"{"text": "c", "spk": "s"}"#)]);
    both_ways(&files, &[("c", "c"), ("g", "good")], &[]);
    // JSON with a transcript is an utterance without its recording.
    both_ways(&with(&[("x.json", r#"{"text": "words"}"#)]), &[("g", "good")], &["x"]);
}

#[test]
fn every_recording_of_a_dotted_key_counts() {
    let corpus = Corpus::new();
    let mut tar = Tar::new();
    for n in 0..5 {
        tar.file(&format!("21.{n:02}.wav"), wav());
        tar.file(&format!("21.{n:02}.meta.json"), format!(r#"{{"text": "meta {n}"}}"#));
        tar.file(&format!("33.{n:02}.wav"), wav());
        tar.file(&format!("33.{n:02}.text.txt"), format!("text {n}"));
        tar.file(&format!("33.{n:02}.speaker.txt"), "anna");
        tar.file(&format!("b{n}.wav"), wav()).file(&format!("b{n}.json"), r#"{"text": "b"}"#);
    }
    tar.file("1.a.wav", wav()).file("1.b.wav", wav()).file("1.json", r#"{"text": "of which?"}"#);
    corpus.write("a.tar", tar.done());
    corpus.prepare("a.tar", "max_rejected: 0.5").expect_code(0).expect_words(&["17 rows in, 15 out, 2 rejected"]);
    let texts = corpus.rows("text");
    assert_eq!((texts["21.03"].as_str(), texts["33.04"].as_str(), texts["b2"].as_str()), ("meta 3", "text 4", "b"));
    assert_eq!(corpus.rows("spk")["33.01"], "anna");
    assert!(corpus.reason("1.a").starts_with("two recordings") && corpus.reason("1.b").starts_with("two recordings"));
}

#[test]
fn headers_of_ljspeech_name_the_fields() {
    let corpus = Corpus::new();
    for id in ["1", "2"] {
        corpus.write(&format!("lj/wavs/{id}.wav"), wav());
    }
    let source = "{dir: lj, format: ljspeech}";
    for (metadata, text, speaker) in [
        ("audio_file|text|speaker_name\nwavs/1.wav|one|anna\nwavs/2.wav|two|bert\n", "two", "bert"),
        ("id|text|normalized_text|speaker\n1|one|first|anna\n2|2|second|bert\n", "second", "bert"),
        ("speaker|file|transcript\nanna|1.wav|one\nbert|2.wav|two\n", "two", "bert"),
        ("ID|Transcription|Normalized Transcription\n1|one|\n2|2|two\n", "two", "ljspeech"),
        ("id|text|gender\n1|one|f\n2|two|m\n", "two", "ljspeech"),
    ] {
        corpus.write("lj/metadata.csv", metadata);
        corpus.prepare(source, "").expect_code(0).expect_words(&["2 rows in, 2 out, 0 rejected"]);
        assert_eq!(corpus.rows("text")["2"], text, "{metadata}");
        assert_eq!(corpus.rows("spk")["2"], speaker, "{metadata}");
    }
    for unknown in ["file|words|who\n1|one|anna\n2|two|bert\n", "speaker|text\nanna|one\n"] {
        corpus.write("lj/metadata.csv", unknown);
        corpus.prepare(source, "").expect_code(1).expect_words(&["metadata.csv", "normalized_text"]);
    }
}

#[test]
fn carriage_returns_alone_end_lines() {
    let corpus = Corpus::new();
    for id in ["a", "b"] {
        corpus.write(&format!("lj/wavs/{id}.wav"), wav());
    }
    corpus.write("lj/metadata.csv", "a|A\rb|B\r");
    corpus.write("data/wav.scp", "a ../lj/wavs/a.wav\rb ../lj/wavs/b.wav\r");
    corpus.write("data/text", "a A\rb B");
    corpus.write("data/utt2spk", "a a\rb b\r");
    let line = |id: &str, text: &str| format!(r#"{{"wav": "lj/wavs/{id}.wav", "id": "{id}", "text": "{text}"}}"#);
    corpus.write("m.jsonl", format!("{}\r{}\r", line("a", "A"), line("b", "B")));
    for source in ["{dir: lj, format: ljspeech}", "data", "{dir: m.jsonl, format: manifest}"] {
        corpus.prepare(source, "").expect_code(0).expect_words(&["2 rows in, 2 out, 0 rejected"]);
        let rows = corpus.rows("text");
        assert_eq!((rows["a"].as_str(), rows["b"].as_str()), ("A", "B"), "{source}");
    }
}

#[test]
fn recordings_of_a_folder_hide_behind_no_name() {
    let corpus = Corpus::new();
    for name in ["notice.wav", "x.log", "y.md", "z.arrow", "sub/Version.wav"] {
        corpus.write(&format!("data/{name}"), wav());
    }
    for name in ["notice", "x", "y", "z", "sub/Version"] {
        corpus.write(&format!("data/{name}.txt"), format!("words of {name}"));
    }
    corpus.write("data/README.txt", "about the data");
    corpus.write("data/version.txt", "1.0");
    corpus.write("data/train.log", "a log");
    corpus.write("data/.hidden/2.wav", wav());
    corpus.prepare("{dir: data, format: folder}", "").expect_code(0).expect_words(&[
        "5 rows in, 5 out, 0 rejected",
        "1 .log",
        "2 .txt",
        "1 hidden folders",
    ]);
    assert_eq!(corpus.rows("text")["notice"], "words of notice");
    assert_eq!(corpus.rows("text")["sub-Version"], "words of sub/Version");
}

#[test]
fn tar_files_that_are_empty_or_not_searched_for_are_told() {
    let corpus = Corpus::new();
    let mut tar = Tar::new();
    tar.file("a.wav", wav()).file("a.txt", "words");
    let tar = tar.done();
    corpus.write("tars/a.tar", &tar);
    corpus.write("tars/empty.tar", b"");
    corpus.write("tars/.more/b.tar", &tar);
    corpus.write("elsewhere/c.tar", &tar);
    std::os::unix::fs::symlink(corpus.path("elsewhere"), corpus.path("tars/linked")).unwrap();
    corpus.prepare("{dir: tars, format: webdataset}", "max_rejected: 0.5").expect_code(0).expect_words(&[
        "2 rows in, 1 out, 1 rejected",
        "1 links to folders",
        "1 hidden folders",
    ]);
    assert!(corpus.reason("tars/empty.tar").starts_with("damaged tar"));
}

#[test]
fn names_of_ljspeech_that_fail_count_once() {
    let corpus = Corpus::new();
    for name in ["good", "abs", "win", "quoted", "case", "lost"] {
        corpus.write(&format!("lj/wavs/{name}.wav"), wav());
    }
    let lines =
        ["good|words", "/gone/wavs/abs.wav|words", r"C:\lj\wavs\win.wav|words", "\"quoted\"|words", "CASE|words"];
    corpus.write("lj/metadata.csv", lines.join("\n"));
    corpus
        .prepare("{dir: lj, format: ljspeech}", "max_rejected: 0.9")
        .expect_code(0)
        .expect_words(&["6 rows in, 1 out, 5 rejected"]);
    assert!(corpus.reason("lost").starts_with("not in metadata.csv"));
}

#[test]
fn durations_that_are_none_are_measured() {
    let corpus = Corpus::new();
    corpus.write("a.wav", wav());
    let durations = [r#""inf""#, "-1", r#""3.5s""#, r#""unknown""#, "[1]", r#""""#, "{}"];
    let line = |(at, duration): (usize, &&str)| {
        format!(r#"{{"wav": "a.wav", "id": "{at}", "text": "t", "duration": {duration}}}"#)
    };
    let mut lines: Vec<String> = durations.iter().enumerate().map(line).collect();
    lines.push(r#"{"wav": "a.wav", "id": "piece", "text": "t", "duration": "unknown", "offset": 0.1}"#.into());
    corpus.write("m.jsonl", lines.join("\n"));
    corpus
        .prepare("{dir: m.jsonl, format: manifest}", "max_rejected: 0.5")
        .expect_code(0)
        .expect_words(&["8 rows in, 7 out, 1 rejected"]);
    assert!(parquet::numbers(&corpus.table(), "duration").iter().all(|duration| (duration - 0.5).abs() < 1e-9));
    assert!(corpus.reason("piece").contains("`duration`"));
}

#[test]
fn odd_blanks_around_values_and_in_names_cost_no_row() {
    let corpus = Corpus::new();
    corpus.write("a.wav", wav());
    corpus.write("data/wav.scp", "rec ../a.wav\u{a0}\n");
    corpus.write("data/segments", "u1 rec 0.0\u{3000}0.3\u{a0}\nu2 rec 0.1 0.5\n");
    corpus.write("data/text", "u1 one\nu2 two\n");
    corpus.write("data/utt2spk", "u1 u\u{a0}\nu2 u\u{3000}\n");
    corpus.write("data/utt2lang", "u1 de\u{a0}\nu2 de\n");
    corpus.prepare("data", "").expect_code(0).expect_words(&["2 rows in, 2 out, 0 rejected"]);
    assert_eq!((corpus.rows("spk")["u1"].as_str(), corpus.rows("lang")["u1"].as_str()), ("u", "de"));
    corpus.write("folder/x\u{3000}y.wav", wav());
    corpus.write("folder/x\u{3000}y.txt", "words");
    corpus.prepare("{dir: folder, format: folder}", "").expect_code(0);
    assert_eq!(corpus.ids(), ["x-y"]);
}
