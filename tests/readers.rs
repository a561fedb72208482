//! Readers of single files and fields: names, channels, encodings, and layouts of other tools.

use std::collections::BTreeMap;
use std::fs;

use crate::support::corpus::{Corpus, wav, wav_of};
use crate::support::{Mini, Tar, parquet};

/// A second at 8 kHz whose channels have tones of their own.
fn stereo() -> Vec<u8> {
    let mut bytes = wav_of(2);
    let tones = [0.2, 1.1];
    for frame in 0..4000usize {
        for (channel, tone) in tones.iter().enumerate() {
            let sample = (8000.0 * (frame as f64 * tone).sin()) as i16;
            let at = 44 + 4 * frame + 2 * channel;
            bytes[at..at + 2].copy_from_slice(&sample.to_le_bytes());
        }
    }
    bytes
}

#[test]
fn segments_are_of_the_channel_that_they_name() {
    let mini = Mini::new();
    fs::write(mini.path("data/stereo.wav"), stereo()).unwrap();
    let (mut scp, mut segments, mut text, mut spk) = (String::new(), String::new(), String::new(), String::new());
    for (id, channel) in [("a", "1"), ("b", "2"), ("c", "A"), ("d", "B"), ("e", "")] {
        segments += &format!("s-{id} call 0.1 0.4 {channel}\n");
        text += &format!("s-{id} words\n");
        spk += &format!("s-{id} s\n");
    }
    scp += "call stereo.wav\n";
    for (name, content) in [("wav.scp", scp), ("segments", segments), ("text", text), ("utt2spk", spk)] {
        fs::write(mini.path(&format!("data/{name}")), content).unwrap();
    }
    let _ = fs::remove_file(mini.path("data/utt2lang"));
    let _ = fs::remove_file(mini.path("data/spk2utt"));
    let split = ["--set", "prep.split={by: fraction, fractions: {}}", "--set", "train.validation_split=null"];
    mini.run(&[&["--stop-stage", "3"], &split[..]].concat()).expect_code(0);
    let shards = ["00000", "00001"].map(|number| mini.exp(&format!("3-pack/train/shard-{number}.parquet")));
    let rows = shards
        .iter()
        .flat_map(|shard| parquet::texts(shard, "utt").into_iter().zip(parquet::binaries(shard, "audio_data")));
    let sounds: BTreeMap<String, Vec<u8>> = rows.collect();
    assert_eq!(sounds.len(), 5);
    let samples = |id: &str| -> Vec<i16> {
        let bytes = &sounds[id];
        let data = bytes.windows(4).position(|window| window == b"data").unwrap() + 8;
        bytes[data..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    };
    for (id, tone) in [("s-a", 0.2), ("s-b", 1.1), ("s-c", 0.2), ("s-d", 1.1)] {
        let samples = samples(id);
        assert_eq!(samples.len(), 2400);
        for (at, sample) in samples.iter().enumerate() {
            let expected = 8000.0 * ((at + 800) as f64 * tone).sin();
            assert!((f64::from(*sample) - expected).abs() < 3.0, "{id} at {at}: {sample}, not {expected}");
        }
    }
    // Without a channel, the mean of both.
    let mean = 4000.0 * ((800.0 * 0.2f64).sin() + (800.0 * 1.1f64).sin());
    assert!((f64::from(samples("s-e")[0]) - mean).abs() < 3.0);
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
    assert_eq!(corpus.ids(), ["s-a", "s-b", "s-c", "s-e"]);
    let durations = parquet::numbers(&corpus.table(), "duration");
    for (duration, expected) in durations.iter().zip([0.4, 0.2, 0.5, 0.4]) {
        assert!((duration - expected).abs() < 1e-9, "{durations:?}");
    }
    assert!(corpus.reason("s-d").contains("channel 1"), "{}", corpus.reason("s-d"));
}

#[test]
fn recordings_of_ljspeech_outside_of_wavs_count() {
    let corpus = Corpus::new();
    for name in ["wavs/a.wav", "wavs/a.mp3", "wavs/b.flac", "wavs/b.ogg", "top.wav", "samples/s.wav", ".old/a.wav"] {
        corpus.write(&format!("lj/{name}"), wav());
    }
    corpus.write("lj/metadata.csv", "a.wav|words\nb|words\n");
    let outcome = corpus.prepare("{dir: lj, format: ljspeech}", "max_rejected: 0.9").expect_code(0);
    outcome.expect_rows(5, 2, 3).expect_words(&["2 recordings", "wavs/a.mp3 (taken: wavs/a.wav)"]);
    for id in ["top", "samples-s"] {
        corpus.expect_rejected(id, "not in metadata.csv", &[]);
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
    corpus.expect_rejected("two", "two recordings", &[]);
    corpus.expect_rejected("unlisted", "not in metadata.csv", &[]);
    assert_eq!(corpus.rejected().len(), 3);
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
        corpus.prepare(source, "").expect_code(0).expect_rows(2, 2, 0);
        assert_eq!(corpus.rows("text")["2"], text, "{metadata}");
        assert_eq!(corpus.rows("spk")["2"], speaker, "{metadata}");
    }
    for unknown in ["file|words|who\n1|one|anna\n2|two|bert\n", "speaker|text\nanna|one\n"] {
        corpus.write("lj/metadata.csv", unknown);
        corpus.prepare(source, "").expect_code(1).expect_words(&["metadata.csv", "normalized_text"]);
    }
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
    corpus.prepare("{dir: lj, format: ljspeech}", "max_rejected: 0.9").expect_code(0).expect_rows(6, 1, 5);
    corpus.expect_rejected("lost", "not in metadata.csv", &[]);
}

#[test]
fn what_stands_in_for_a_recording_is_named() {
    let corpus = Corpus::new();
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 132300\n";
    let files: [(&str, &[u8], &str); 5] = [
        ("lfs", lfs, "Git LFS pointer"),
        ("page", b"\n<!doctype html><html lang=en>", "web page (HTML)"),
        ("empty", b"", "empty file"),
        ("s3", b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>", "error message of a server (XML)"),
        ("annex", b"/annex/objects/MD5E-s4--0.wav\n", "git-annex pointer"),
    ];
    let mut tar = Tar::new();
    for (name, content, _) in files {
        corpus.write(&format!("data/{name}.wav"), content);
        corpus.write(&format!("data/{name}.txt"), "words");
        tar.file(&format!("{name}.wav"), content).file(&format!("{name}.txt"), "words");
    }
    corpus.write("data/text.wav", wav());
    corpus.write("data/text.txt", lfs);
    tar.file("text.wav", wav()).file("text.txt", lfs);
    tar.file("good.wav", wav()).file("good.txt", "words");
    corpus.write("data/good.wav", wav());
    corpus.write("data/good.txt", "words");
    corpus.write("a.tar", tar.done());
    for source in ["{dir: data, format: folder}", "a.tar"] {
        corpus.prepare(source, "max_rejected: 0.9").expect_code(0).expect_rows(7, 1, 6);
        for (name, _, kind) in files {
            corpus.expect_rejected(name, &format!("{kind} instead of a recording"), &[]);
        }
        assert!(corpus.reason("text").contains("git lfs pull"));
    }
}

#[test]
fn manifests_of_other_tools_are_read_or_say_the_way_on() {
    let corpus = Corpus::new();
    corpus.write("a.wav", wav());
    let source = "{dir: m.json, format: manifest}";
    for (field, value) in [
        ("audio_filepath", r#""a.wav""#),
        ("wav_filename", r#""a.wav""#),
        ("file_path", r#""a.wav""#),
        ("uri", r#""a.wav""#),
        ("filepath", r#""a.wav""#),
        ("audio", r#"{"path": null}, "path": "a.wav""#),
        ("audio", r#"{"array": [1], "file_name": "a.wav"}"#),
        ("wav", r#""", "audio_path": null, "file": "a.wav""#),
    ] {
        corpus.write("m.json", format!("{{\"{field}\": {value}, \"text\": \"t\", \"id\": \"u\"}}\n"));
        corpus.prepare(source, "").expect_code(0);
        assert_eq!(corpus.rows("wav")["u"], "a.wav", "{field}: {value}");
    }
    // By their ids, and one row over several lines.
    corpus.write(
        "m.json",
        "{\n \"u1\": {\"wav\": \"a.wav\", \"wrd\": \"one\"},\n \"u2\": {\"wav\": \"a.wav\", \"wrd\": 2}\n}\n",
    );
    corpus.prepare(source, "max_rejected: 0.5").expect_code(0).expect_rows(2, 1, 1);
    assert_eq!(corpus.rows("text")["u1"], "one");
    assert!(corpus.reason("u2").contains("`wrd`"));
    corpus.write("m.json", "{\n \"wav\": \"a.wav\",\n \"text\": \"one\"\n}\n");
    corpus.prepare(source, "").expect_code(0).expect_rows(1, 1, 0);
    let utf32: Vec<u8> =
        "\u{feff}{\"wav\": \"a.wav\", \"text\": \"ü\"}\n".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    corpus.write("m.json", utf32);
    corpus.prepare(source, "").expect_code(0);
    assert_eq!(corpus.rows("text")["a"], "ü");
    corpus.write("m.json", "{\"wav\": \"a.wav\", \"text\": \"t\", \"start\": 1.5, \"end\": 2}\n");
    corpus.prepare(source, "").expect_code(0).expect_words(&["`offset` and `duration`"]);
    // The way on.
    for (line, words) in [
        (r#"{"wav": "file:///data/a.wav", "text": "t"}"#, "/data/a.wav"),
        (r#"{"wav": "s3://bucket/a.wav", "text": "t"}"#, "aws s3"),
        (r#"{"wav": "gs://bucket/a.wav", "text": "t"}"#, "gsutil"),
        (r#"{"url": "https://host/a.wav", "text": "t"}"#, "download"),
        (r#"{"wav": "~/a.wav", "text": "t"}"#, "`~`"),
        (r#"{"wav": "{data_root}/a.wav", "text": "t"}"#, "placeholder"),
        (
            r#"{"id": "c", "start": 0, "recording": {"sources": []}, "supervisions": [{"text": "t"}]}"#,
            "`format: lhotse`",
        ),
        (r#"{"sound": "a.wav", "text": "t"}"#, "audio_filepath"),
        ("path\tsentence\na.wav\twords", r"delimiter='\t'"),
        ("file_name,transcription\na.wav,words", "> m.jsonl"),
        ("a.wav|words", "format: ljspeech"),
    ] {
        corpus.write("m.json", line);
        corpus.prepare(source, "").expect_error("rejected", 1).expect_words(&["rejected.parquet"]);
        assert!(corpus.rejected().iter().all(|row| row.1.contains(words)), "{line}: {:?}", corpus.rejected());
    }
    for (path, words) in [("file:///d/a.wav", "/d/a.wav"), ("s3://b/a.wav", "aws s3"), ("~/a.wav", "`~`")] {
        corpus.write("k/wav.scp", format!("u {path}\n"));
        corpus.write("k/text", "u words\n");
        corpus.write("k/utt2spk", "u s\n");
        corpus.write("lj/metadata.csv", format!("{path}|words\n"));
        corpus.write("lj/wavs/b.wav", wav());
        for source in ["k", "{dir: lj, format: ljspeech}"] {
            corpus.prepare(source, "").expect_code(1);
            assert!(
                corpus.rejected().iter().any(|row| row.1.contains(words)),
                "{source} {path}: {:?}",
                corpus.rejected()
            );
        }
    }
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
    corpus.prepare("{dir: m.jsonl, format: manifest}", "max_rejected: 0.5").expect_code(0).expect_rows(8, 7, 1);
    assert!(parquet::numbers(&corpus.table(), "duration").iter().all(|duration| (duration - 0.5).abs() < 1e-9));
    assert!(corpus.reason("piece").contains("`duration`"));
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
fn odd_blanks_around_values_and_in_names_cost_no_row() {
    let corpus = Corpus::new();
    corpus.write("a.wav", wav());
    corpus.write("data/wav.scp", "rec ../a.wav\u{a0}\n");
    corpus.write("data/segments", "u1 rec 0.0\u{3000}0.3\u{a0}\nu2 rec 0.1 0.5\n");
    corpus.write("data/text", "u1 one\nu2 two\n");
    corpus.write("data/utt2spk", "u1 u\u{a0}\nu2 u\u{3000}\n");
    corpus.write("data/utt2lang", "u1 de\u{a0}\nu2 de\n");
    corpus.prepare("data", "").expect_code(0).expect_rows(2, 2, 0);
    assert_eq!((corpus.rows("spk")["u1"].as_str(), corpus.rows("lang")["u1"].as_str()), ("u", "de"));
    corpus.write("folder/x\u{3000}y.wav", wav());
    corpus.write("folder/x\u{3000}y.txt", "words");
    corpus.prepare("{dir: folder, format: folder}", "").expect_code(0);
    assert_eq!(corpus.ids(), ["x-y"]);
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
        corpus.prepare(source, "").expect_code(0).expect_rows(2, 2, 0);
        let rows = corpus.rows("text");
        assert_eq!((rows["a"].as_str(), rows["b"].as_str()), ("A", "B"), "{source}");
    }
}

#[test]
fn a_source_of_another_layout_is_told_what_it_seems_to_be() {
    let corpus = Corpus::new();
    corpus.write("ls/dev/84/121/84-121-0000.wav", wav());
    corpus.write("ls/dev/84/121/84-121.trans.txt", "84-121-0000 WORDS\n");
    corpus
        .prepare("ls", "")
        .expect_code(0)
        .expect_rows(1, 1, 0)
        .expect_words(&["LibriSpeech", "`format: librispeech`"]);
    corpus.prepare("{dir: ls, format: kaldi}", "").expect_code(1).expect_words(&["wav.scp", "LibriSpeech"]);
    corpus.prepare("{dir: ls, format: folder}", "").expect_code(1).expect_words(&["all 2 rows", "LibriSpeech"]);
    corpus.write("cv/clips/a.wav", wav());
    corpus.write("cv/train.tsv", "path\tsentence\na.wav\twords\n");
    corpus.prepare("{dir: cv, format: folder}", "").expect_code(0).expect_words(&["Common Voice"]);
    corpus.write("m.jsonl", "{}\n");
    corpus.prepare("m.jsonl", "").expect_code(1).expect_words(&["format: manifest", "rejected.parquet"]);
    // One folder too high, but not if another could be meant.
    corpus.write("lj/LJSpeech-1.1/wavs/a.wav", wav());
    corpus.write("lj/LJSpeech-1.1/metadata.csv", "a|words\n");
    corpus.prepare("{dir: lj, format: ljspeech}", "").expect_code(0).expect_rows(1, 1, 0);
    corpus.write("lj/other/b.wav", wav());
    corpus
        .prepare("{dir: lj, format: ljspeech}", "")
        .expect_code(1)
        .expect_words(&["LJSpeech-1.1", "`format: ljspeech`"]);
}

#[test]
fn names_in_another_unicode_form_are_the_same() {
    let corpus = Corpus::new();
    let (composed, parts) = ("caf\u{e9}", "cafe\u{301}");
    corpus.write(&format!("data/{parts}.wav"), wav());
    corpus.write(&format!("data/{composed}.txt"), "words");
    corpus.prepare("{dir: data, format: folder}", "").expect_code(0).expect_rows(1, 1, 0);
    assert_eq!(corpus.rows("text")[parts], "words");
    corpus.write(&format!("lj/wavs/{parts}.wav"), wav());
    corpus.write("lj/metadata.csv", format!("{composed}|words\n"));
    corpus.prepare("{dir: lj, format: ljspeech}", "").expect_code(0).expect_rows(1, 1, 0);
    corpus.write("m.jsonl", format!("{{\"audio\": \"data/{composed}.wav\", \"text\": \"t\"}}\n"));
    corpus.prepare("{dir: m.jsonl, format: manifest}", "").expect_code(1).expect_words(&["Unicode"]);
}

#[test]
fn a_dotted_key_of_its_own_has_its_transcript() {
    let corpus = Corpus::new();
    let mut tar = Tar::new();
    tar.file("x.y.z.wav", wav()).file("x.y.z.txt", "words").file("ok.wav", wav()).file("ok.txt", "words");
    corpus.write("a.tar", tar.done());
    corpus.prepare("a.tar", "").expect_code(0).expect_rows(2, 2, 0);
}

#[test]
fn lines_of_metadata_that_are_parted_otherwise_count_once() {
    let corpus = Corpus::new();
    for name in ["a", "b", "c", "d"] {
        corpus.write(&format!("lj/wavs/{name}.wav"), wav());
    }
    corpus.write("lj/metadata.csv", "a|words\nb\twords\nc;words\nd.WAV|words\n");
    corpus.prepare("{dir: lj, format: ljspeech}", "max_rejected: 0.9").expect_code(0).expect_rows(4, 1, 3);
    let utf16: Vec<u8> = "a|words\nb|words\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    corpus.write("lj/metadata.csv", utf16);
    corpus
        .prepare("{dir: lj, format: ljspeech}", "max_rejected: 0.9")
        .expect_error("rejected", 1)
        .expect_words(&["all 4 rows", "iconv -f UTF-16LE"]);
}

#[test]
fn conversations_of_audio_models_are_rows() {
    let corpus = Corpus::new();
    for name in ["a b", "c", "d"] {
        corpus.write(&format!("swift/wavs/{name}.wav"), wav());
    }
    let line = |audios: &str, said: &str| {
        format!(
            "{{\"messages\": [{{\"role\": \"system\", \"content\": \"You are.\"}}, {{\"role\": \"user\", \"content\": \"<audio>What is said?\"}}, \
             {{\"role\": \"assistant\", \"content\": \"{said}\"}}], \"audios\": {audios}}}\r\n"
        )
    };
    let lines = [
        "\u{feff}".to_owned() + &line("[\"wavs/a b.wav\"]", "One."),
        line("\"wavs/c.wav\"", "Two."),
        line("[\"wavs/a b.wav\", \"wavs/c.wav\"]", "Three."),
        line("[]", "Four."),
        line("[\"wavs/gone.wav\"]", "Five."),
    ];
    corpus.write("swift/train.jsonl", lines.concat());
    corpus.prepare("swift/train.jsonl", "max_rejected: 0.9").expect_code(0).expect_rows(5, 2, 3);
    let texts: Vec<String> = corpus.rows("text").into_values().collect();
    assert_eq!(texts, ["One.", "Two."]);
    let reasons: Vec<String> = corpus.rejected().into_iter().map(|(_, reason)| reason).collect();
    for words in ["2 recordings in `audios`", "names no recording", "gone.wav"] {
        assert_eq!(reasons.iter().filter(|reason| reason.contains(words)).count(), 1, "{words}: {reasons:?}");
    }
}
