//! Folders of recordings, the LJSpeech layout and manifests.

mod support;

use flowmill_corpus::{ReadOptions, folder, ljspeech, manifest};
use support::{directory, expect_rejected, ids};

#[test]
fn a_folder_with_transcripts_beside() {
    let dir = directory(&[
        ("corpus/anna/one.wav", b""),
        ("corpus/anna/one.txt", b"\xEF\xBB\xBFfirst\r\nline \n"),
        ("corpus/anna/two.FLAC", b""),
        ("corpus/anna/two.lab", b"second"),
        ("corpus/ben/one.mp3", b""),
        ("corpus/ben/one.txt", b" \n"),
        ("corpus/ben/three.ogg", b""),
        ("corpus/ben/four.wav", b""),
        ("corpus/ben/four.txt", b"ok\ncaf\xE9"),
        ("corpus/top.wav", b""),
        ("corpus/top.txt", b"at the top"),
        ("corpus/lonely.txt", b"nobody"),
        ("corpus/.hidden.wav", b""),
        ("corpus/notes.md", b"not audio"),
    ]);
    let reading = folder::read_directory(dir.path(), "corpus", &ReadOptions::default()).unwrap();
    assert_eq!(ids(&reading), ["anna-one", "anna-two", "top"]);
    let one = reading.utterances.row(0);
    assert_eq!((one.spk, one.text, one.wav), ("anna", "first line", "corpus/anna/one.wav"));
    assert_eq!(reading.utterances.row(2).spk, "corpus");
    expect_rejected(&reading, "ben-one", "no transcript", &["ben/one.txt"]);
    expect_rejected(&reading, "ben-three", "no transcript", &["ben/three.ogg"]);
    expect_rejected(&reading, "ben-four", "transcript not UTF-8", &["ben/four.txt:2"]);
    expect_rejected(&reading, "lonely", "no recording", &["lonely.txt"]);
    assert_eq!(reading.lines, 7);
    assert!(reading.warnings[0].contains("1 .md"), "{:?}", reading.warnings);
    assert!(folder::read_directory(dir.path(), "corpus/nowhere", &ReadOptions::default()).is_err());
}

#[test]
fn ljspeech_metadata_has_bars_and_plain_quotes() {
    let metadata = "LJ-2|He said \"no\"|He said \"no\" twice\nLJ-1|Mr. X|\nLJ-3\nLJ-4|a|b|c\nLJ-1|again|\n";
    let dir =
        directory(&[("lj/metadata.csv", metadata.as_bytes()), ("lj/wavs/LJ-1.flac", b""), ("lj/wavs/LJ-2.wav", b"")]);
    let reading =
        ljspeech::read_directory(dir.path(), "lj", &ReadOptions { speaker: Some("linda"), ..ReadOptions::default() })
            .unwrap();
    assert_eq!(ids(&reading), ["LJ-1", "LJ-2"]);
    let (first, second) = (reading.utterances.row(0), reading.utterances.row(1));
    assert_eq!((first.text, first.wav, first.spk), ("Mr. X", "lj/wavs/LJ-1.flac", "linda"));
    assert_eq!((second.text, second.wav), ("He said \"no\" twice", "lj/wavs/LJ-2.wav"));
    expect_rejected(&reading, "LJ-3", "no transcript", &["line 3 ", "`|`"]);
    expect_rejected(&reading, "LJ-4", "bad line in metadata.csv", &["line 4 ", "4 fields"]);
    expect_rejected(&reading, "LJ-1", "repeated id", &["metadata.csv:5", "metadata.csv:2"]);
    assert_eq!(reading.lines, 5);
}

#[test]
fn manifests_of_json_lines() {
    let lines = concat!(
        "{\"audio_filepath\": \"clips/a 1.wav\", \"text\": \"hello\", \"duration\": 2.5}\n",
        "\n",
        "{\"audio_filepath\": \"/abs/long.flac\", \"text\": \"piece\", \"duration\": 1.5, \"offset\": 10.25, \"speaker\": 7}\n",
        "{\"audio_filepath\": \"b.wav\", \"text\": \"\", \"duration\": 1}\n",
        "{\"audio_filepath\": \"c.wav\", \"text\": \"x\", \"duration\": -1, \"offset\": 0.5}\n",
        "not json\n",
        "{\"audio_filepath\": \"clips/a 1.wav\", \"text\": \"hello again\", \"duration\": 2.5}\n",
        "{\"audio_filepath\": \"d.wav\", \"text\": \"y\", \"duration\": 1.0, \"id\": \"named\", \"lang\": \"de\", \"other\": [1]}\n",
    );
    let dir = directory(&[("set/train.json", lines.as_bytes())]);
    let reading = manifest::read(dir.path(), "set/train.json", &ReadOptions::default()).unwrap();
    assert_eq!(ids(&reading), ["abs-long-0010250", "clips-a-1", "named"]);
    let piece = reading.utterances.row(0);
    assert_eq!((piece.wav, piece.start, piece.end, piece.spk), ("/abs/long.flac", Some(10.25), Some(11.75), "7"));
    let whole = reading.utterances.row(1);
    assert_eq!((whole.wav, whole.start, whole.end, whole.duration), ("set/clips/a 1.wav", None, None, Some(2.5)));
    assert_eq!(reading.utterances.row(2).lang, Some("de"));
    expect_rejected(&reading, "b", "no transcript", &["train.json:4"]);
    expect_rejected(&reading, "c", "bad line in the manifest", &["train.json:5", "`duration`"]);
    expect_rejected(&reading, "train.json:6", "bad line in the manifest", &["train.json:6", "JSON"]);
    expect_rejected(&reading, "clips-a-1", "repeated id", &["train.json:7", "train.json:1"]);
    assert_eq!(reading.lines, 7);
}
