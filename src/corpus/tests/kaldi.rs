//! Kaldi data directories: the real one, and invalid ones.

mod support;

use flowmill_corpus::kaldi::read_directory;
use flowmill_corpus::{CorpusError, ReadOptions, Reading};
use support::{data, directory, expect_rejected, ids};

fn read(files: &[(&str, &[u8])]) -> Reading {
    let dir = directory(files);
    let reading = read_directory(dir.path(), ".", &ReadOptions::default()).expect("a readable directory");
    assert_eq!(reading.lines, (reading.utterances.len() + reading.rejected.len()) as u64);
    reading
}

#[test]
fn the_real_directory_reads_whole() {
    let reading = read_directory(&data(), "libri6", &ReadOptions::default()).unwrap();
    assert_eq!((reading.utterances.len(), reading.lines), (60, 60));
    assert!(reading.rejected.is_empty() && reading.warnings.is_empty(), "{:?}", reading.warnings);
    let first = reading.utterances.row(0);
    assert_eq!((first.utt, first.spk, first.lang), ("1688-142285-0000", "1688", Some("en")));
    assert_eq!(first.wav, "libri6/audio/1688/1688-142285-0000.flac");
    assert!(data().join(first.wav).is_file());
    assert!(first.text.starts_with("THERE'S IRON THEY SAY"));
    assert_eq!(reading.files.len(), 5, "{:?}", reading.files);
}

#[test]
fn blanks_in_paths_marks_carriage_returns_and_blank_lines() {
    let reading = read(&[
        ("wav.scp", b"\xEF\xBB\xBFs-a  my files/first take.wav \r\n\r\ns-b\t/abs/b c.wav\r\n"),
        ("text", "s-a über  alles\r\n\n\ns-b two words".as_bytes()),
        ("utt2spk", b"s-a s\ns-b s\n\n"),
    ]);
    assert_eq!(ids(&reading), ["s-a", "s-b"]);
    assert_eq!(reading.utterances.row(0).wav, "my files/first take.wav");
    assert_eq!(reading.utterances.row(0).text, "über alles");
    assert_eq!(reading.utterances.row(1).wav, "/abs/b c.wav");
    assert!(reading.rejected.is_empty() && reading.warnings.is_empty(), "{reading:?}");
}

#[test]
fn every_bad_row_is_rejected_with_its_file_and_line_and_the_others_stay() {
    let reading = read(&[
        ("wav.scp", b"s-good good.wav\ns-nopath\ns-notext a.wav\ns-pipe sox a.wav -t wav - |\ns-empty b.wav\ns-twice c.wav\ns-twice c.wav\ns-contra d.wav\ns-contra e.wav\ns-bytes f.wav\ns-space g.wav\ns-spk h.wav\ns-sym i.wav\n"),
        ("text", b"s-good fine\ns-nopath x\ns-pipe x\ns-empty\ns-twice x\ns-contra x\ns-bytes caf\xE9\ns-space one\xE3\x80\x80two\ns-spk x\ns-sym a <s> b\ns-onlytext x\n"),
        ("utt2spk", b"s-good s\ns-nopath s\ns-notext s\ns-pipe s\ns-empty s\ns-twice s\ns-contra s\ns-bytes s\ns-space s\ns-spk s extra\ns-sym s\ns-onlytext s\n"),
    ]);
    assert_eq!(ids(&reading), ["s-good", "s-space", "s-twice"]);
    assert_eq!(reading.utterances.row(1).text, "one two");
    for (id, kind, values) in [
        ("s-nopath", "bad line in wav.scp", &["line 2 ", "path"][..]),
        ("s-notext", "not in text", &["wav.scp:3", "utt2spk:3"]),
        ("s-pipe", "wav.scp runs a command and prep.allow_pipes is off", &["line 4 ", "prep.allow_pipes: true"]),
        ("s-empty", "bad line in text", &["line 4 ", "text"]),
        ("s-twice", "repeated id", &["wav.scp:7", "line 6"]),
        ("s-contra", "contradiction", &["wav.scp:9", "line 8"]),
        ("s-bytes", "text is not UTF-8", &["line 7 ", "0xE9"]),
        ("s-spk", "bad line in utt2spk", &["line 10 ", "`s extra`"]),
        ("s-sym", "bad line in text", &["line 10 ", "<s>"]),
        ("s-onlytext", "not in wav.scp", &["text:11", "utt2spk:12"]),
    ] {
        expect_rejected(&reading, id, kind, values);
    }
    // Twelve ids, and the lines that repeat a good one.
    assert_eq!(reading.lines, 12 + 1);
}

#[test]
fn an_id_that_is_not_utf8_is_rejected_under_a_readable_name() {
    let reading = read(&[
        ("wav.scp", b"s-a a.wav\ns-\xFF b.wav\n"),
        ("text", b"s-a x\ns-\xFF x\n"),
        ("utt2spk", b"s-a s\ns-\xFF s\n"),
    ]);
    assert_eq!(ids(&reading), ["s-a"]);
    expect_rejected(&reading, "s-\u{FFFD}", "bad id", &["wav.scp:2", "UTF-8", "0xFF"]);
}

#[test]
fn unsorted_files_and_ids_without_their_speaker_are_mentioned_and_cost_nothing() {
    let reading = read(&[
        ("wav.scp", b"b b.wav\na a.wav\n"),
        ("text", b"a x\nb y\n"),
        ("utt2spk", b"a spk\nb spk\n"),
        ("utt2lang", b"a en\n"),
    ]);
    assert_eq!(ids(&reading), ["a", "b"]);
    assert_eq!(reading.utterances.row(1).wav, "b.wav");
    assert_eq!(reading.warnings.len(), 3, "{:?}", reading.warnings);
    for values in [&["wav.scp:2"][..], &["2 utterances", "first: a"], &["1 utterances", "utt2lang", "first: b"]] {
        let names = |warning: &String| values.iter().all(|value| warning.contains(value));
        assert!(reading.warnings.iter().any(names), "{values:?}: {:?}", reading.warnings);
    }
}

#[test]
fn spk2utt_is_checked_against_utt2spk() {
    let reading = read(&[
        ("wav.scp", b"s-a a.wav\ns-b b.wav\nt-c c.wav\n"),
        ("text", b"s-a x\ns-b x\nt-c x\n"),
        ("utt2spk", b"s-a s\ns-b s\nt-c t\n"),
        ("spk2utt", b"s s-a\nt s-b t-c\n"),
    ]);
    assert_eq!(ids(&reading), ["s-a", "t-c"]);
    expect_rejected(&reading, "s-b", "two speakers", &["spk2utt:2", "`t`", "utt2spk:2", "`s`"]);
}

#[test]
fn segments_cut_recordings() {
    let reading = read(&[
        ("wav.scp", b"rec1 long one.wav\nrec2 cat x |\nrec3 unused.wav\n"),
        ("segments", b"s-a rec1 0.5 2.25\ns-b rec1 3 2\ns-c rec9 0 1\ns-d rec2 0 1\ns-e rec1 1\n"),
        ("text", b"s-a x\ns-b x\ns-c x\ns-d x\ns-e x\n"),
        ("utt2spk", b"s-a s\ns-b s\ns-c s\ns-d s\ns-e s\n"),
    ]);
    assert_eq!(ids(&reading), ["s-a"]);
    let row = reading.utterances.row(0);
    assert_eq!((row.wav, row.start, row.end, row.duration), ("long one.wav", Some(0.5), Some(2.25), Some(1.75)));
    expect_rejected(&reading, "s-b", "bad line in segments", &["line 2 ", "2 s", "3 s"]);
    expect_rejected(&reading, "s-c", "no such recording", &["segments:3", "`rec9`"]);
    expect_rejected(&reading, "s-d", "wav.scp runs a command and prep.allow_pipes is off", &["line 2 "]);
    expect_rejected(&reading, "s-e", "bad line in segments", &["line 5 ", "3 fields"]);
    let unused =
        |warning: &String| ["1 recordings", "wav.scp", "first: rec3"].iter().all(|value| warning.contains(value));
    assert!(reading.warnings.iter().any(unused), "{:?}", reading.warnings);
}

#[test]
fn commands_run_in_the_directory_when_allowed() {
    let dir = directory(&[
        ("my data/wav.scp", b"s-a cat 'a b.raw' |\n"),
        ("my data/a b.raw", b"sound"),
        ("my data/text", b"s-a x\n"),
        ("my data/utt2spk", b"s-a s\n"),
    ]);
    let reading =
        read_directory(dir.path(), "my data", &ReadOptions { allow_pipes: true, ..ReadOptions::default() }).unwrap();
    let wav = reading.utterances.row(0).wav.to_owned();
    assert!(wav.ends_with('|'));
    let bytes = flowmill_corpus::source::Source::of(&wav).read(dir.path(), &Default::default()).unwrap();
    assert_eq!(bytes, b"sound");
}

#[test]
fn structural_problems_are_errors_that_say_what_to_do() {
    // The end of the path that is to blame, and what is said of it.
    let problem = |files: &[(&str, &[u8])], dir: &str, end: &str| -> String {
        let root = directory(files);
        match read_directory(root.path(), dir, &ReadOptions::default()).unwrap_err() {
            CorpusError::Structure { path, problem } if path.ends_with(end) => problem,
            other => panic!("{other}"),
        }
    };
    problem(&[], "nowhere", "nowhere");
    let missing = problem(&[("wav.scp", b"a a.wav\n"), ("text", b"a x\n")], ".", "");
    assert!(missing.contains("`utt2spk`"), "{missing}");
    problem(&[("wav.scp", b"a a.wav\n"), ("text", b"\n \n"), ("utt2spk", b"a a\n")], ".", "text");
}

#[test]
fn random_bytes_neither_panic_nor_lose_rows() {
    // A small linear congruential generator: the same bytes every time.
    let mut state = 12345u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b"ab \t\n\r|~\xFF\xC3\xA9\xEF\xBB\xBF0.1-"[(state >> 33) as usize % 18]
    };
    for _ in 0..200 {
        let mut content = || (0..400).map(|_| byte()).collect::<Vec<u8>>();
        let (wav, text, spk, segments) = (content(), content(), content(), content());
        let dir = directory(&[
            ("wav.scp", &wav),
            ("text", &text),
            ("utt2spk", &spk),
            ("segments", &segments),
            ("spk2utt", &spk),
        ]);
        let reading =
            read_directory(dir.path(), ".", &ReadOptions { allow_pipes: true, ..ReadOptions::default() }).unwrap();
        assert_eq!(reading.lines, (reading.utterances.len() + reading.rejected.len()) as u64);
    }
}
