//! Public corpora in miniature, and lists of tools: the format that their files show, and their rows.

mod support;

use flowmill_corpus::corpora::{self, Corpus};
use flowmill_corpus::list::{self, Order, Tool};
use flowmill_corpus::{ReadOptions, Reading, detect, manifest};
use support::{directory, expect_rejected, ids};

/// Returns the format that the files of a source show.
fn shown(dir: &tempfile::TempDir, name: &str) -> &'static str {
    detect::detect(&dir.path().join(name)).map_or("nothing", |detected| detected.format)
}

/// Returns id, speaker, text, split and recording of every row.
fn rows(reading: &Reading) -> Vec<[&str; 5]> {
    reading.utterances.iter().map(|row| [row.utt, row.spk, row.text, row.split.unwrap_or("none"), row.wav]).collect()
}

#[test]
fn libritts_keeps_its_speakers_and_splits() {
    let dir = directory(&[
        ("d/LibriTTS/train-clean-100/84/121/84_121_000007_000000.wav", b""),
        ("d/LibriTTS/train-clean-100/84/121/84_121_000007_000000.normalized.txt", b"Ten words."),
        ("d/LibriTTS/train-clean-100/84/121/84_121_000007_000000.original.txt", b"10 words."),
        ("d/LibriTTS/train-clean-100/84/121/84_121.trans.tsv", b"x"),
        ("d/LibriTTS/dev-clean/26/495/26_495_000001_000001.wav", b""),
        ("d/LibriTTS/dev-clean/26/495/26_495_000001_000001.original.txt", b"Only original."),
        ("d/LibriTTS/dev-clean/26/495/26_495_000002_000000.wav", b""),
        ("d/LibriTTS/dev-clean/26/495/26_495_000003_000000.normalized.txt", b"No recording."),
        ("d/LibriTTS/dev-clean/26/495/odd.wav", b""),
    ]);
    assert_eq!(shown(&dir, "d"), "libritts");
    let reading = corpora::read(dir.path(), "d", Corpus::LibriTts, &ReadOptions::default()).unwrap();
    let train = "d/LibriTTS/train-clean-100/84/121/84_121_000007_000000.wav";
    let dev = "d/LibriTTS/dev-clean/26/495/26_495_000001_000001.wav";
    let expected = [
        ["26_495_000001_000001", "26", "Only original.", "dev-clean", dev],
        ["84_121_000007_000000", "84", "Ten words.", "train-clean-100", train],
    ];
    assert_eq!(rows(&reading), expected);
    assert_eq!(reading.utterances.row(0).lang, Some("en"));
    expect_rejected(&reading, "26_495_000002_000000", "no transcript", &["26_495_000002_000000.wav"]);
    expect_rejected(&reading, "26_495_000003_000000", "no recording", &["26_495_000003_000000.normalized.txt"]);
    expect_rejected(&reading, "LibriTTS-dev-clean-26-495-odd", "bad name", &["odd.wav"]);
    assert_eq!(reading.lines, 5);
    // The folder of a split, as the source.
    let reading = corpora::read(dir.path(), "d/LibriTTS/dev-clean", Corpus::LibriTts, &ReadOptions::default()).unwrap();
    assert_eq!(reading.utterances.row(0).split, Some("dev-clean"));
}

#[test]
fn librispeech_and_mls_have_lists_of_transcripts() {
    let dir = directory(&[
        ("ls/train-clean-100/84/121/84-121-0000.flac", b""),
        ("ls/train-clean-100/84/121/84-121-0001.flac", b""),
        ("ls/train-clean-100/84/121/84-121.trans.txt", b"84-121-0000 ONE TWO\n84-121-0001 \n84-121-0002 THREE\n"),
        ("mls_german_opus/dev/audio/1/2/1_2_000003.opus", b""),
        ("mls_german_opus/dev/audio/1/2/1_2_000004.opus", b""),
        ("mls_german_opus/dev/transcripts.txt", "1_2_000003\tsch\u{f6}n\n1_2_000004\tcaf\u{7}\n".as_bytes()),
    ]);
    assert_eq!((shown(&dir, "ls"), shown(&dir, "mls_german_opus")), ("librispeech", "mls"));
    let options = ReadOptions::default();
    let reading = corpora::read(dir.path(), "ls", Corpus::LibriSpeech, &options).unwrap();
    let first = "ls/train-clean-100/84/121/84-121-0000.flac";
    assert_eq!(rows(&reading), [["84-121-0000", "84", "ONE TWO", "train-clean-100", first]]);
    expect_rejected(&reading, "84-121-0001", "no transcript", &["84-121.trans.txt:2"]);
    expect_rejected(&reading, "84-121-0002", "no recording", &["84-121.trans.txt:3"]);
    let reading = corpora::read(dir.path(), "mls_german_opus", Corpus::Mls, &options).unwrap();
    assert_eq!((ids(&reading), reading.utterances.row(0).lang), (vec!["1_2_000003"], Some("de")));
    assert_eq!(reading.utterances.row(0).split, Some("dev"));
    expect_rejected(&reading, "1_2_000004", "bad transcript", &["transcripts.txt:2", "U+0007"]);
}

#[test]
fn vctk_is_read_from_one_microphone() {
    let dir = directory(&[
        ("v/wav48_silence_trimmed/p225/p225_001_mic1.flac", b""),
        ("v/wav48_silence_trimmed/p225/p225_001_mic2.flac", b""),
        ("v/wav48_silence_trimmed/p280/p280_001_mic1.flac", b""),
        ("v/txt/p225/p225_001.txt", b"Please call Stella.\n"),
        ("v/txt/p280/p280_001.txt", b"Ask her.\n"),
        ("v/speaker-info.txt", b"ID AGE\n"),
    ]);
    assert_eq!(shown(&dir, "v"), "vctk");
    let read = |microphone| {
        let options = ReadOptions { microphone, ..ReadOptions::default() };
        corpora::read(dir.path(), "v", Corpus::Vctk, &options).unwrap()
    };
    let one = read(None);
    assert_eq!(ids(&one), ["p225_001", "p280_001"]);
    assert!(one.utterances.row(0).wav.ends_with("_mic1.flac"));
    assert_eq!((one.utterances.row(0).text, one.rejected.len()), ("Please call Stella.", 0));
    let two = read(Some(2));
    assert_eq!(ids(&two), ["p225_001"]);
    assert!(two.utterances.row(0).wav.ends_with("_mic2.flac"));
    expect_rejected(&two, "p280_001", "no recording", &["p280_001_mic1.flac", "microphone"]);
}

#[test]
fn aishell3_has_characters_with_their_pronunciation() {
    let content = "SSB00050001.wav\t广 guang3 州 zhou1\nSSB00050002.wav\t广 州\n";
    let dir = directory(&[
        ("a/train/wav/SSB0005/SSB00050001.wav", b""),
        ("a/train/wav/SSB0005/SSB00050002.wav", b""),
        ("a/train/content.txt", content.as_bytes()),
        ("a/spk-info.txt", b"# c\n"),
    ]);
    assert_eq!(shown(&dir, "a"), "aishell3");
    let reading = corpora::read(dir.path(), "a", Corpus::Aishell3, &ReadOptions::default()).unwrap();
    let wav = "a/train/wav/SSB0005/SSB00050001.wav";
    assert_eq!(rows(&reading), [["SSB00050001", "SSB0005", "广州", "train", wav]]);
    expect_rejected(&reading, "SSB00050002", "bad transcript", &["content.txt:2"]);
}

#[test]
fn common_voice_has_a_table_for_each_split() {
    let header = "client_id\tpath\tsentence\tage\tlocale\n";
    let table = |lines: &str| format!("{header}{lines}");
    let (train, validated) = (
        table("anna\tcv_1.mp3\tHe said \"no\".\t\tde\nben\tcv_2.mp3\t\t\tde\n"),
        table("anna\tcv_1.mp3\tHe said \"no\".\t\tde\nben\tcv_2.mp3\t\t\tde\ncleo\tcv_3.mp3\tMore\tx\tde\n"),
    );
    let dir = directory(&[
        ("cv/de/clips/cv_1.mp3", b""),
        ("cv/de/train.tsv", train.as_bytes()),
        ("cv/de/validated.tsv", validated.as_bytes()),
        ("cv/de/other.tsv", table("dora\tcv_4.mp3\tUnchecked\t\tde\n").as_bytes()),
    ]);
    assert_eq!((shown(&dir, "cv"), shown(&dir, "cv/de/other.tsv")), ("commonvoice", "commonvoice"));
    let reading = corpora::read(dir.path(), "cv", Corpus::CommonVoice, &ReadOptions::default()).unwrap();
    let expected = [
        ["cv_1", "anna", "He said \"no\".", "train", "cv/de/clips/cv_1.mp3"],
        ["cv_3", "cleo", "More", "validated", "cv/de/clips/cv_3.mp3"],
    ];
    assert_eq!(rows(&reading), expected);
    expect_rejected(&reading, "cv_2", "no transcript", &["de/train.tsv:3"]);
    assert_eq!((reading.lines, reading.utterances.row(0).lang), (3, Some("de")));
    let other = corpora::read(dir.path(), "cv/de/other.tsv", Corpus::CommonVoice, &ReadOptions::default()).unwrap();
    assert_eq!(rows(&other), [["cv_4", "dora", "Unchecked", "other", "cv/de/clips/cv_4.mp3"]]);
}

#[test]
fn gigaspeech_lists_segments_of_recordings() {
    let index = r#"{"dataset": "GigaSpeech", "language": "EN", "audios": [
        {"aid": "POD1", "path": "audio/podcast/P1/POD1.opus", "speaker": "N/A", "source": "podcast", "segments": [
            {"sid": "POD1_S0", "speaker": "N/A", "begin_time": 0, "end_time": 1.5, "text_tn": "YES <COMMA> WELL <PERIOD>", "subsets": ["{XS}"]},
            {"sid": "POD1_S1", "begin_time": 2.25, "end_time": 3.0, "text_tn": "<MUSIC>", "subsets": ["{XS}"]},
            {"sid": "POD1_S2", "begin_time": 3.0, "text_tn": "NO END", "subsets": ["{XS}"]},
            {"sid": "POD1_S3", "begin_time": 4.0, "end_time": 5.0, "text_tn": "HELD OUT", "subsets": ["{DEV}"]}]},
        {"aid": "POD2", "path": "x.opus"}]}"#;
    let dir = directory(&[("g/GigaSpeech.json", index.as_bytes()), ("g/audio/podcast/P1/POD1.opus", b"")]);
    assert_eq!((shown(&dir, "g"), shown(&dir, "g/GigaSpeech.json")), ("gigaspeech", "gigaspeech"));
    let reading = corpora::read(dir.path(), "g", Corpus::GigaSpeech, &ReadOptions::default()).unwrap();
    let wav = "g/audio/podcast/P1/POD1.opus";
    let expected = [["POD1_S0", "POD1", "YES, WELL.", "train", wav], ["POD1_S3", "POD1", "HELD OUT", "dev", wav]];
    assert_eq!(rows(&reading), expected);
    let first = reading.utterances.row(0);
    assert_eq!((first.start, first.end, first.lang), (Some(0.0), Some(1.5), Some("en")));
    expect_rejected(&reading, "POD1_S1", "no transcript", &["segments[1]"]);
    expect_rejected(&reading, "POD1_S2", "bad segment", &["segments[2]", "`duration`"]);
    expect_rejected(&reading, "GigaSpeech.json audios[1]", "bad recording", &["segments"]);
    std::fs::write(dir.path().join("g/GigaSpeech.json"), &index[..400]).unwrap();
    assert!(corpora::read(dir.path(), "g", Corpus::GigaSpeech, &ReadOptions::default()).is_err());
}

#[test]
fn lists_in_the_orders_of_tools() {
    let dir = directory(&[
        ("l/sovits.list", b"wavs/a.wav|anna|en|Hello there.\nwavs/b.wav|anna|en\nwavs/c.wav|anna|en|x|y\n"),
        ("l/matcha.txt", b"/abs/a.wav|7|Hello\n"),
        ("l/f5.csv", b"audio_file|text\nwavs/a.wav|Hello\n"),
        ("piper/metadata.csv", b"a|anna|Hello\nb|ben|Gone\n"),
        ("piper/wavs/a.flac", b""),
        ("l/own.tsv", b"7\tHello\tignored\ta.wav\n"),
    ]);
    let read = |path: &str, order: Option<Order>| {
        let options = ReadOptions { order: order.as_ref(), ..ReadOptions::default() };
        list::read_file(dir.path(), path, &options)
    };
    assert_eq!(shown(&dir, "l/sovits.list"), "list");
    let sovits = read("l/sovits.list", None).unwrap();
    assert_eq!(rows(&sovits), [["wavs-a", "anna", "Hello there.", "none", "l/wavs/a.wav"]]);
    expect_rejected(&sovits, "sovits.list:2", "bad line in the list", &["sovits.list:2", "3 fields"]);
    expect_rejected(&sovits, "sovits.list:3", "bad line in the list", &["sovits.list:3", "5 fields"]);
    assert_eq!(rows(&read("l/matcha.txt", Some(Order::Tool(Tool::Matcha))).unwrap())[0][1..3], ["7", "Hello"]);
    assert!(read("l/matcha.txt", Some(Order::Tool(Tool::GptSovits))).is_err(), "another number of fields");
    assert_eq!(rows(&read("l/f5.csv", None).unwrap())[0][2..5], ["Hello", "none", "l/wavs/a.wav"]);
    let piper = read("piper", Some(Order::Tool(Tool::Piper))).unwrap();
    assert_eq!(rows(&piper)[0], ["a", "anna", "Hello", "none", "piper/wavs/a.flac"]);
    assert_eq!(rows(&piper)[1][4], "piper/wavs/b.wav");
    let columns = ["speaker", "text", "_", "path"].map(str::to_owned).to_vec();
    let own = read("l/own.tsv", Some(Order::Columns(columns))).unwrap();
    assert_eq!(rows(&own), [["a", "7", "Hello", "none", "l/a.wav"]]);
    let elsewhere = ReadOptions { recordings: Some("audio"), ..ReadOptions::default() };
    let elsewhere = list::read_file(dir.path(), "l/sovits.list", &elsewhere).unwrap();
    assert_eq!(rows(&elsewhere)[0][4], "audio/wavs/a.wav");
}

#[test]
fn a_folder_of_manifests_is_one_source() {
    let dir = directory(&[
        (
            "e/EN/EN_B0.jsonl",
            b"{\"id\": \"EN_B0_W0\", \"wav\": \"EN_B0/mp3/EN_B0_W0.mp3\", \"text\": \" Hi\", \"speaker\": \"s\"}\n",
        ),
        (
            "h/train/metadata.csv",
            b"file_name,transcription,speaker_id\na.wav,\"One, \"\"two\"\"\",7\nb.wav,Three,7,8\n",
        ),
        ("h/validation/metadata.csv", b"file_name,transcription,speaker_id\nc.wav,Four,8\n"),
        ("h/train/a.wav", b""),
    ]);
    assert_eq!((shown(&dir, "e"), shown(&dir, "h")), ("manifest", "manifest"));
    let emilia = manifest::read(dir.path(), "e", &ReadOptions::default()).unwrap();
    assert_eq!(rows(&emilia), [["EN_B0_W0", "s", "Hi", "none", "e/EN/EN_B0/mp3/EN_B0_W0.mp3"]]);
    let folder = manifest::read(dir.path(), "h", &ReadOptions::default()).unwrap();
    let expected =
        [["a", "7", "One, \"two\"", "train", "h/train/a.wav"], ["c", "8", "Four", "validation", "h/validation/c.wav"]];
    assert_eq!(rows(&folder), expected);
    expect_rejected(&folder, "train/metadata.csv:3", "bad line in the manifest", &["train/metadata.csv:3", "4 fields"]);
}

#[test]
fn fields_are_read_by_other_names() {
    let line = b"{\"audio\": \"a.wav\", \"text\": \"raw\", \"clean\": \"Clean.\", \"talker\": 5}\n";
    let dir = directory(&[("m.jsonl", line)]);
    let renames = [("text", "clean"), ("speaker", "talker")].map(|(to, from)| (to.to_owned(), from.to_owned()));
    let options = ReadOptions { renames: &renames, ..ReadOptions::default() };
    let reading = manifest::read(dir.path(), "m.jsonl", &options).unwrap();
    assert_eq!(rows(&reading), [["a", "5", "Clean.", "none", "a.wav"]]);
}
