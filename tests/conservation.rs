//! Rows are conserved: whatever a source of any format holds is a row or one rejection, named and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;

use tar::EntryType;

use crate::support::corpus::{Corpus, wav};
use crate::support::random::Random;
use crate::support::{Mini, Tar, flowmill, parquet};

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
    corpus.prepare("a.tar", "max_rejected: 0.5").expect_code(0).expect_rows(7, 6, 1);
    assert_eq!(corpus.rows("text")["talk.03.5-03.9"], "words 3");
    assert!(corpus.rows("spk").values().all(|speaker| speaker == "anna"));
    corpus.expect_rejected("talk.99.5-99.9", "no recording", &[]);
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
        tar.member(format!("../up.{ending}"), EntryType::Regular, b"x");
    }
    tar.file("two.wav", wav()).file("two.txt", "first").file("two.wav", wav()).file("two.txt", "second");
    tar.file("._good.wav", b"\0\x05\x16\x07\0\x02\0\0Mac OS X").file("notes.md", "neither");
    corpus.write("a.tar", tar.done());
    corpus.prepare("a.tar", "max_rejected: 0.9").expect_code(0).expect_rows(7, 3, 4).expect_words(&["1 .md"]);
    assert_eq!(corpus.ids(), ["good", "odd", "two"]);
    let ids: Vec<String> = corpus.rejected().into_iter().map(|row| row.0).collect();
    assert_eq!(ids, ["../up.wav", "array", "phone", "two"]);
    corpus.expect_rejected("array", "no sampling rate", &["array.npy"]);
    // Beside the tar files of a folder.
    fs::create_dir(corpus.path("tars")).unwrap();
    fs::rename(corpus.path("a.tar"), corpus.path("tars/a.tar")).unwrap();
    corpus.write("tars/loose.wav", wav());
    corpus.write("tars/index.json", "{}");
    let source = "{dir: tars, format: webdataset}";
    corpus.prepare(source, "max_rejected: 0.9").expect_code(0).expect_rows(8, 3, 5);
    corpus.expect_rejected("loose.wav", "not in a tar file", &[]);
    corpus.write("tars/late.wav", wav());
    corpus.prepare(source, "max_rejected: 0.9").expect_code(0).expect_rows(9, 3, 6);
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
        .expect_rows(8, 5, 3)
        .expect_words(&["1 .csv"]);
    assert_eq!(corpus.ids(), ["a", "b", "c", "d", "e"]);
    let ids: Vec<String> = corpus.rejected().into_iter().map(|row| row.0).collect();
    assert_eq!(ids, ["f", "g", "orphan"]);
    // Fewer may be rejected.
    corpus
        .prepare("{dir: data, format: folder}", "max_rejected: 0.3")
        .expect_error("rejected", 1)
        .expect_words(&["3 of 8"]);
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
        outcome.expect_words(&["1 recordings", "x.mp3 (taken: "]);
        assert!(corpus.rows("wav")["x"].starts_with(wav), "{:?}", corpus.rows("wav"));
    }
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
    corpus.prepare("{dir: m.jsonl, format: manifest}", "").expect_code(0).expect_rows(6, 6, 0);
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
    corpus.prepare("{dir: d, format: folder}", "").expect_code(0).expect_rows(2, 2, 0);
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
        let outcome = corpus.prepare("data", "max_rejected: 1.0").expect_error("rejected", 1);
        let outcome = outcome.expect_words(&["all 2 rows", "2 × ", "u1", words, "rejected.parquet"]);
        assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
        assert_eq!(corpus.rejected().len(), 2);
        let table = corpus.path("exp/c/0-prep/rejected.parquet");
        let shown = flowmill(corpus.folder.path(), &["inspect", table.to_str().unwrap()]).expect_code(0);
        shown.expect_words(&[&corpus.reason("u2")]);
    }
    for (name, content, words) in [
        ("m.jsonl.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), "is truncated"),
        ("m.parquet", b"PAR1\0\0\0\0PAR1", "Parquet"),
        ("m.list", b"a.wav|anna|EN|words\nb.wav|anna|EN|more\n", "JSON"),
    ] {
        let corpus = Corpus::new();
        corpus.write(name, content);
        let outcome = corpus.prepare(&format!("{{dir: {name}, format: manifest}}"), "").expect_error("rejected", 1);
        outcome.expect_words(&[words]);
        assert!(!corpus.rejected().is_empty(), "{name}");
    }
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
    outcome.expect_rows(4, 2, 2);
    assert_eq!(parquet::texts(&corpus.path("exp/c/0-prep/train/columns-00000.parquet"), "instruct").len(), 1);
    corpus.expect_rejected("u", "contradiction", &[]);
    corpus.expect_rejected("v", "repeated id", &[]);
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
        outcome.expect_rows(3, 3, 0);
        assert!(corpus.rows("text").values().all(String::is_empty), "{source}");
    }
    // Where others have one, a row without is rejected, unless rows without are wanted.
    corpus.write("k/text", "u0 words\nu1\n");
    corpus.prepare("k", "max_rejected: 0.9").expect_code(0).expect_rows(3, 1, 2);
    assert!(corpus.reason("u1").contains("prep.min_text: 0"));
    let recipe = fs::read_to_string(corpus.path("recipe.yaml")).unwrap();
    corpus.write("recipe.yaml", recipe.replace("prep:\n", "prep:\n  min_text: 0\n"));
    let outcome = flowmill(corpus.folder.path(), &["run", ".", "--stop-stage", "0"]).expect_code(0);
    outcome.expect_rows(3, 3, 0);
}

#[test]
fn a_flow_is_trained_and_exported_without_a_transcript() {
    let mini = Mini::new();
    fs::remove_file(mini.path("data/text")).unwrap();
    mini.run(&[]).expect_code(0);
    assert!(mini.exp("6-export/model.safetensors").exists());
}

#[test]
fn transcripts_with_a_language_in_their_name_are_read() {
    let good = [("g.wav", ""), ("g.txt", "good")];
    let with = |files: &[(&'static str, &'static str)]| [&good, files].concat();
    let files = with(&[("a.wav", ""), ("a.en.txt", "one"), ("b.wav", ""), ("b.zh-CN.lab", "two")]);
    both_ways(&files, &[("a", "one"), ("b", "two"), ("g", "good")], &[]);
    // The transcript without a language is the one that is spoken.
    let files = with(&[("a.wav", ""), ("a.en.txt", "translated"), ("a.txt", "spoken")]);
    both_ways(&files, &[("a", "spoken"), ("g", "good")], &[]);
    let files = with(&[("a.wav", ""), ("a.en.txt", "one"), ("a.de.txt", "eins")]);
    both_ways(&files, &[("g", "good")], &["a"]);
    let corpus = Corpus::new();
    for (name, content) in [("a.wav", wav()), ("a.pt_br.txt", b"um".to_vec())] {
        corpus.write(&format!("data/{name}"), content);
    }
    corpus.prepare("{dir: data, format: folder}", "").expect_code(0);
    assert_eq!(corpus.rows("lang")["a"], "pt_br");
}

/// The expected result of a random corpus.
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
            outcome.expect_rows(good + bad, good, bad);
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

/// The placeholder of Git LFS for a file that was not fetched.
const LFS_POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";

/// Something that is no recording, or stands in for one.
fn noise(random: &mut Random) -> Vec<u8> {
    ["", NOISE, LFS_POINTER, "<!DOCTYPE html><html>"][pick(random, 4)].into()
}

#[test]
fn random_corpora_of_every_format_keep_or_name_every_utterance() {
    let mut random = Random::announced("random corpora");
    for round in 0..3 {
        kaldi(&mut random, round);
        folder(&mut random, round);
        ljspeech(&mut random, round);
        manifest(&mut random, round);
        webdataset(&mut random, round);
        several_sources(&mut random, round);
        unreadable(&mut random, round);
    }
}

/// Folders whose utterances have the same names: every one is a row, unless it is the same recording.
fn several_sources(random: &mut Random, round: usize) {
    let corpus = Corpus::new();
    let (mut ids, mut count) = (BTreeSet::new(), 0);
    for source in ["a", "b", "c"] {
        for number in 0..8 {
            if pick(random, 3) > 0 {
                corpus.write(&format!("{source}/{number}.wav"), wav());
                corpus.write(&format!("{source}/{number}.txt"), "words");
                count += 1;
                if !ids.insert(number.to_string()) {
                    ids.insert(format!("{source}-{number}"));
                }
            }
        }
        corpus.write(&format!("{source}/own-{source}.wav"), wav());
        corpus.write(&format!("{source}/own-{source}.txt"), "words");
        count += 1;
        ids.insert(format!("own-{source}"));
    }
    assert_eq!(ids.len(), count);
    let sources = ["a", "b", "c"].map(|dir| format!("{{dir: {dir}, format: folder}}")).join(", ");
    let expected = Expected { good: ids.into_iter().collect(), bad: Vec::new() };
    expected.check(&corpus, &sources, &format!("several sources, round {round}"));
}

/// Sources of every format that cannot be read as a whole, for a reason each: every row that can be named is rejected, or the source.
fn unreadable(random: &mut Random, round: usize) {
    let ids: Vec<String> = (0..1 + pick(random, 6)).map(|number| name(random, number)).collect();
    for format in ["kaldi", "folder", "ljspeech", "manifest", "webdataset"] {
        let corpus = Corpus::new();
        let mut bad = ids.clone();
        for id in &ids {
            corpus.write(&format!("d/wavs/{id}.wav"), wav());
        }
        let lines = |line: &dyn Fn(&String) -> String| ids.iter().map(line).collect::<String>();
        let broken = ["", "\n \n", LFS_POINTER, "PK\u{3}\u{4}", "<html>", "Rar!\u{1a}\u{7}"][pick(random, 6)];
        match format {
            "kaldi" => {
                corpus.write("d/wav.scp", lines(&|id| format!("{id} wavs/{id}.wav\n")));
                corpus.write("d/text", lines(&|id| format!("{id} words\n")));
                corpus.write("d/utt2spk", lines(&|id| format!("{id} s\n")));
                corpus.write(["d/wav.scp", "d/text", "d/utt2spk"][pick(random, 3)], broken);
            }
            "ljspeech" => corpus.write("d/metadata.csv", broken),
            "webdataset" => bad = ids.iter().map(|id| format!("wavs/{id}.wav")).collect(),
            "folder" => {
                fs::remove_dir_all(corpus.path("d")).unwrap();
                corpus.write("d/notes.md", broken);
                bad = vec!["d".into()];
            }
            _ => {
                fs::remove_dir_all(corpus.path("d")).unwrap();
                corpus.write("d", broken);
                bad = vec!["d".into()];
            }
        }
        let expected = Expected { good: Vec::new(), bad };
        expected.check(
            &corpus,
            &format!("{{dir: d, format: {format}}}"),
            &format!("unreadable {format}, round {round}"),
        );
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
        let defect = pick(random, 16);
        match defect {
            0 => path = "cat a.wav |".into(),
            1 => {
                let other = [r"E:\a.wav", "s3://bucket/a.wav", "file:///data/a.wav", "~/a.wav", "${DATA}/a.wav"];
                path = other[pick(random, other.len())].into();
            }
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
            corpus.write(&format!("k/audio/{number}.wav"), if defect == 7 { noise(random) } else { wav() });
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
        let defect = pick(random, 21);
        let extension = ["wav", "WAV", "wave", "flac", "oga", "xyz"][pick(random, 6)];
        let mut id = stem.replace('/', "-");
        if !matches!(defect, 0 | 1 | 17..=20) {
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
                corpus.write(&file("mp3"), noise(random));
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
            14 => corpus.write(&file("en.txt"), "words"),
            15 => {
                corpus.write(&file("txt"), "words");
                corpus.write(&file("de.txt"), "Worte");
            }
            16 => ["en.txt", "zh-CN.txt"].iter().for_each(|ending| corpus.write(&file(ending), "words")),
            // Hidden by its own name or that of a folder: one utterance, called by its path.
            17 | 18 => {
                id = if defect == 17 { format!(".old/{number}.wav") } else { format!("sub/.{number}.wav") };
                corpus.write(&format!("data/{id}"), wav());
                corpus.write(&format!("data/{}", id.replace(".wav", ".txt")), "words");
            }
            // In a folder that only a link leads to.
            19 | 20 => {
                corpus.write(&format!("elsewhere/{number}/deep/a.wav"), wav());
                corpus.write(&format!("elsewhere/{number}/deep/a.txt"), "words");
                symlink(corpus.path(&format!("elsewhere/{number}")), corpus.path(&format!("data/link{number}")))
                    .unwrap();
                id = format!("link{number}-deep-a");
            }
            _ => corpus.write(&file("txt"), "words"),
        }
        // A file that is no recording costs nothing.
        corpus.write(&format!("data/{below}notes-{number}.md"), "notes");
        let bad = defect <= 7 || matches!(defect, 16..=18);
        if bad { &mut expected.bad } else { &mut expected.good }.push(id);
    }
    // What a tool keeps, and a way back, hold no utterance.
    corpus.write("data/.git/annex/objects/copy.wav", wav());
    symlink(corpus.path("data"), corpus.path("data/up")).unwrap();
    expected.check(&corpus, "{dir: data, format: folder}", &format!("folder, round {round}"));
}

fn ljspeech(random: &mut Random, round: usize) {
    let (corpus, mut expected) = (Corpus::new(), Expected::default());
    let mut metadata = "first|words|\n".to_owned().into_bytes();
    corpus.write("lj/wavs/first.wav", wav());
    expected.good.push("first".into());
    for number in 0..20 {
        let id = name(random, number);
        let defect = pick(random, 17);
        let mut line = format!("{id}|some words|more words\n").into_bytes();
        let mut content = wav();
        match defect {
            0 => line = format!("{id}\n").into_bytes(),
            1 => line = format!("{id}|a|b|c\n").into_bytes(),
            2 => line = format!("{id}||\n").into_bytes(),
            3 => line = [format!("{id}|caf").as_bytes(), b"\xe9\n"].concat(),
            4 => content = noise(random),
            5 => corpus.write(&format!("lj/wavs/{id}.WAV"), wav()),
            6 => line.clear(),
            // Good all the same.
            8 => line = format!("{id}.wav|words\r\n").into_bytes(),
            9 => line = format!("wavs/{id}.wav|two\u{a0}words\n").into_bytes(),
            10 => corpus.write(&format!("lj/wavs/{id}.mp3"), NOISE),
            11 => {
                line = format!("{id}.wav|words\n").into_bytes();
                corpus.write(&format!("lj/wavs/{id}.flac"), wav());
            }
            // Outside of `wavs`: named by a line, or by none.
            12 | 13 => {
                corpus.write(&format!("lj/more/{number}.wav"), wav());
                let listed = format!("more/{number}|words\n").into_bytes();
                line = if defect == 12 { listed } else { Vec::new() };
                metadata.extend(line);
                let place = if defect == 12 { &mut expected.good } else { &mut expected.bad };
                place.push(format!("more-{number}"));
                continue;
            }
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
        let defect = pick(random, 19);
        corpus.write(&format!("audio/{number}.wav"), if defect == 0 { noise(random) } else { wav() });
        let line = |fields: &str| format!(r#"{{"id": "{id}", "wav": "audio/{number}.wav", {fields}}}"#);
        let place = format!("m.jsonl:{}", number + 2);
        let (line, id) = match defect {
            0 | 10 => (line(r#""text": "t", "spk": 7"#), id),
            14 => {
                let other = ["s3://b/a.wav", "https://h/a.wav", "file:///a.wav", "~/a.wav", "{root}/a.wav"];
                let path = other[pick(random, other.len())];
                (format!(r#"{{"id": "{id}", "uri": "{path}", "text": "t"}}"#), id)
            }
            15 => (format!(r#"{{"id": "{id}", "recording": {{}}, "supervisions": [{{}}]}}"#), id),
            16 | 17 => {
                let field = ["filepath", "uri", "file", "wav_filename", "file_path"][pick(random, 5)];
                let audio = format!(r#""audio": {{"path": null}}, "{field}": "audio/{number}.wav""#);
                (format!(r#"{{"id": "{id}", {audio}, "text": "t"}}"#), id)
            }
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
        let bad = defect <= 7 || matches!(defect, 14 | 15);
        if bad { &mut expected.bad } else { &mut expected.good }.push(id);
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
        let defect = if number < 4 { 12 } else { pick(random, 17) };
        let tar = &mut tars[number % 2];
        let file = |extension: &str| format!("{key}.{extension}");
        let mut id = key.clone();
        if !matches!(defect, 0 | 1 | 6) {
            let extension = ["wav", "WAV", "oga", "dat"][pick(random, 4)];
            tar.file(&file(extension), if defect == 2 { noise(random) } else { wav() });
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
                    tar.member(file(extension), EntryType::Symlink, b"");
                }
                id = file("wav");
            }
            7 => drop(tar.file(&file("json"), r#"{"text": 7}"#)),
            // Good all the same.
            8 => drop(tar.file(&file("TXT"), "two\nwords")),
            9 => drop(tar.file(&file("json"), r#"{"caption": "t", "duration": NaN, "spk": 3}"#)),
            10 => drop(tar.file(&file("speaker.txt"), "anna").file(&file("text.txt"), "words")),
            14 => drop(tar.file(&file("en.txt"), "words")),
            15 => drop(tar.file(&file("en.txt"), "words").file(&file("de.txt"), "Worte")),
            16 => drop(tar.file(&file("txt"), LFS_POINTER)),
            _ => drop(tar.file(&file("json"), "{\"speaker\": 1}").file(&file("txt"), "words")),
        }
        tar.file(&file("npy"), b"\x93NUMPY");
        let bad = defect <= 7 || matches!(defect, 15 | 16);
        if bad { &mut expected.bad } else { &mut expected.good }.push(id);
    }
    // A hidden tar file is one row.
    if pick(random, 2) == 0 {
        let hidden = [".h.tar", ".old/x.tar"][pick(random, 2)];
        corpus.write(&format!("tars/{hidden}"), Tar::new().file("hidden.wav", wav()).done());
        expected.bad.push(hidden.to_owned());
    }
    for (number, mut tar) in tars.into_iter().enumerate() {
        corpus.write(&format!("tars/{number}.tar"), tar.done());
    }
    expected.check(&corpus, "{dir: tars, format: webdataset}", &format!("webdataset, round {round}"));
}

/// Reads the same files as a folder and as a tar file, and expects these rows (id to text) and rejected ids of both.
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
    corpus.prepare("a.tar", "max_rejected: 0.5").expect_code(0).expect_rows(17, 15, 2);
    let texts = corpus.rows("text");
    assert_eq!((texts["21.03"].as_str(), texts["33.04"].as_str(), texts["b2"].as_str()), ("meta 3", "text 4", "b"));
    assert_eq!(corpus.rows("spk")["33.01"], "anna");
    ["1.a", "1.b"].iter().for_each(|id| corpus.expect_rejected(id, "two recordings", &[]));
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
    corpus.write("data/.hidden/deep/2.wav", wav());
    corpus.write("data/.hidden/deep/2.txt", "words");
    corpus.write("data/.git/annex/3.wav", wav());
    corpus
        .prepare("{dir: data, format: folder}", "max_rejected: 0.2")
        .expect_code(0)
        .expect_rows(6, 5, 1)
        .expect_words(&["1 .log", "2 .txt", "1 hidden folders"]);
    corpus.expect_rejected(".hidden/deep/2.wav", "hidden recording", &[]);
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
    corpus.write("tars/.d.tar", &tar);
    corpus.write("tars/._e.tar", b"\0\x05\x16\x07\0\x02\0\0Mac OS X");
    let mut other = Tar::new();
    other.file("c.wav", wav()).file("c.txt", "words");
    corpus.write("elsewhere/c.tar", other.done());
    symlink(corpus.path("elsewhere"), corpus.path("tars/linked")).unwrap();
    symlink("..", corpus.path("tars/up")).unwrap();
    let outcome = corpus.prepare("{dir: tars, format: webdataset}", "max_rejected: 0.7").expect_code(0);
    outcome.expect_rows(5, 2, 3).expect_words(&["1 links to folders"]);
    assert_eq!(corpus.ids(), ["a", "c"]);
    corpus.expect_rejected("tars/empty.tar", "damaged tar", &[]);
    corpus.expect_rejected(".more/b.tar", "hidden tar file", &[]);
    corpus.expect_rejected(".d.tar", "hidden tar file", &[]);
}
