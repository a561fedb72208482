//! `flowmill synth` from tokens of every kind of file, in other voices, in windows, and as a stream.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::import::{Value as Pickled, save, table};
use crate::support::flowmill::command;
use crate::support::parquet::{cosyvoice_rows, write_cosyvoice};
use crate::support::{Mini, Outcome, flowmill};

/// Samples of a frame of the miniature model's mel.
const HOP: usize = 480;

/// The tokens and the embedding of an utterance of the split dev, as stages 1 and 2 extracted them.
struct Utterance {
    id: String,
    tokens: Vec<i64>,
    embeddings: PathBuf,
}

fn utterances(mini: &Mini) -> Vec<Utterance> {
    let of = |stage: &str| mini.exp(&format!("{stage}/dev/part-00000.parquet"));
    let rows = table(&of("2-tokens"), "utt", "speech_token").into_iter();
    let utterance = |(id, tokens): (String, Vec<f64>)| Utterance {
        id,
        tokens: tokens.into_iter().map(|token| token as i64).collect(),
        embeddings: of("1-embed"),
    };
    rows.map(utterance).collect()
}

fn synth(mini: &Mini, more: &[&str]) -> Outcome {
    let model = mini.exp("6-export").display().to_string();
    flowmill(mini.folder(), &[&["synth", "--model", &model, "--steps", "2"], more].concat())
}

fn write(mini: &Mini, name: &str, value: &Value) {
    fs::write(mini.path(name), value.to_string()).unwrap();
}

fn samples(path: &Path) -> Vec<f32> {
    flowmill_audio::decode_file(path).unwrap().mono()
}

#[test]
fn tokens_of_every_kind_of_file_sound_like_the_recording() {
    let mini = Mini::finished();
    let utterances = utterances(&mini);
    let Utterance { id, tokens, embeddings } = &utterances[0];
    let voice = format!("{}:{id}", embeddings.display());
    let recording = mini.recording(id).display().to_string();
    synth(&mini, &["--wav", &recording, "--out", "heard"]).expect_code(0);
    let heard = fs::read(mini.path(&format!("heard/{id}.wav"))).unwrap();

    let shard = mini.exp("3-pack/dev/shard-00000.parquet");
    write_cosyvoice(&mini.path("cosyvoice.tar"), &cosyvoice_rows(&shard));
    write(&mini, "one.json", &json!(tokens));
    write(&mini, "ids.json", &json!({ id: tokens, "other": [1, 2, 3] }));
    fs::write(mini.path("rows.jsonl"), format!("{}\n", json!({"utt": id, "tokens": tokens}))).unwrap();
    let floats = tokens.iter().map(|token| *token as f64).collect();
    save(&mini.path("utt2speech_token.pt"), &[(id.clone(), Pickled::Ints(floats))]);
    fs::write(mini.path("one.npy"), npy(tokens)).unwrap();
    let stage = mini.exp("2-tokens/dev/part-00000.parquet").display().to_string();
    for (file, chosen, has_voice) in [
        (shard.to_str().unwrap(), Some(id), true),
        ("cosyvoice.tar", Some(id), true),
        (stage.as_str(), Some(id), false),
        ("utt2speech_token.pt", None, false),
        ("ids.json", Some(id), false),
        ("rows.jsonl", Some(id), false),
        ("one.json", None, false),
        ("one.npy", None, false),
    ] {
        let mut arguments = vec!["--tokens", file, "--out", "said"];
        arguments.extend(chosen.iter().flat_map(|id| ["--utt", id.as_str()]));
        if !has_voice {
            synth(&mini, &arguments).expect_code(1).expect_words(&[file, "--speaker"]);
            arguments.extend(["--speaker", &voice]);
        }
        synth(&mini, &arguments).expect_code(0).expect_words(&[file]);
        let made = fs::read_dir(mini.path("said")).unwrap().map(|entry| entry.unwrap().path());
        let made: Vec<PathBuf> = made.filter(|path| path.extension().is_some_and(|end| end == "wav")).collect();
        assert_eq!(made.len(), 1, "{file}: {made:?}");
        assert!(fs::read(&made[0]).unwrap() == heard, "{file} sounds otherwise than its recording");
        fs::remove_dir_all(mini.path("said")).unwrap();
    }

    // All rows of a shard, with a mel for each.
    synth(&mini, &["--tokens", "cosyvoice.tar", "--out", "all", "--mel", "npy"]).expect_code(0);
    for Utterance { id, tokens, .. } in &utterances {
        let mel = flowmill_weights::read(&mini.path(&format!("all/{id}.npy"))).unwrap();
        assert_eq!(mel.tensors.values().next().unwrap().dims(), [80, 2 * tokens.len()]);
        assert_eq!(samples(&mini.path(&format!("all/{id}.wav"))).len(), 2 * HOP * tokens.len());
    }
    synth(&mini, &["--tokens", "cosyvoice.tar", "--mel", "mel.npy"]).expect_code(2).expect_words(&["--mel npy"]);
}

/// Returns integers as `numpy.save` writes them.
fn npy(values: &[i64]) -> Vec<u8> {
    let header = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({},), }}\n", values.len());
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

#[test]
fn a_recording_speaks_in_the_voice_of_another() {
    let mini = Mini::finished();
    let ids: Vec<String> = utterances(&mini).into_iter().map(|utterance| utterance.id).collect();
    let embeddings = utterances(&mini)[0].embeddings.display().to_string();
    let other = mini.recording(&ids[1]).display().to_string();
    let recording = mini.recording(&ids[0]).display().to_string();
    let made = |name: &str, speaker: Option<&str>| {
        let mut arguments = vec!["--wav", recording.as_str(), "--out", name];
        arguments.extend(speaker.iter().flat_map(|speaker| ["--speaker", speaker]));
        synth(&mini, &arguments).expect_code(0);
        samples(&mini.path(&format!("{name}/{}.wav", ids[0])))
    };
    let own = made("own", None);
    let converted = made("converted", Some(&other));
    assert_eq!(own.len(), converted.len());
    assert_ne!(own, converted);
    assert_eq!(converted, made("by-id", Some(&format!("{embeddings}:{}", ids[1]))));
    assert_eq!(own, made("itself", Some(&format!("{embeddings}:{}", ids[0]))));
    let speakers = mini.exp("1-embed/spk2embedding.parquet").display().to_string();
    let speaker = table(Path::new(&speakers), "spk", "spk_embedding")[0].clone();
    let by_speaker = made("speaker", Some(&format!("{speakers}:{}", speaker.0)));
    write(&mini, "speaker.json", &json!(speaker.1));
    save(&mini.path("spk2embedding.pt"), &[("anna".to_owned(), Pickled::Floats(speaker.1))]);
    assert_eq!(by_speaker, made("json", Some("speaker.json")));
    assert_eq!(by_speaker, made("pickle", Some("spk2embedding.pt:anna")));
    assert_eq!(by_speaker, made("only", Some("spk2embedding.pt")));

    write(&mini, "short.json", &json!({"a": [1.0, 2.0, 3.0], "b": [1.0, "x"]}));
    for (speaker, words) in [
        ("short.json:a", &["short.json: `a`", "3 values", "32"][..]),
        ("short.json:b", &["short.json", "`b`", "list of numbers"]),
        ("short.json:c", &["short.json", "`c`", "`a`, `b`"]),
        ("short.json", &["short.json:ID"]),
        (format!("{speakers}:nobody").as_str(), &["spk2embedding.parquet", "`nobody`"]),
        (format!("{other}:a").as_str(), &["recording", "`a`"]),
        ("absent.pt:a", &["absent.pt"]),
        ("absent.wav", &["absent.wav"]),
    ] {
        synth(&mini, &["--wav", &recording, "--speaker", speaker]).expect_code(1).expect_words(words);
    }
}

#[test]
fn bad_tokens_are_named_and_good_ones_are_made() {
    let mini = Mini::finished();
    let Utterance { id, tokens, embeddings } = &utterances(&mini)[0];
    let voice = format!("{}:{id}", embeddings.display());
    write(&mini, "mixed.json", &json!({"good": tokens, "high": [1, 2, 77], "low": [-3], "text": ["a"], "none": []}));
    fs::write(mini.path("lines.jsonl"), format!("{}\n{{\"broken\": [1, \n", json!({"line": tokens}))).unwrap();
    let whole = fs::read(mini.exp("3-pack/dev/shard-00000.parquet")).unwrap();
    fs::write(mini.path("cut.parquet"), &whole[..whole.len() / 2]).unwrap();
    fs::write(mini.path("sound.json"), "RIFF").unwrap();
    let files = ["cut.parquet", "mixed.json", "absent.npy", "lines.jsonl", "sound.json"];
    let arguments = [&["--speaker", &voice, "--out", "made", "--tokens"][..], &files].concat();
    let outcome = synth(&mini, &arguments).expect_code(1).expect_words(&[
        "cut.parquet",
        "absent.npy",
        "sound.json",
        "mixed.json: `high`",
        "token 77 is not in the vocabulary of 16",
        "mixed.json: `low`",
        "token -3",
        "mixed.json: `text`",
        "mixed.json: `none`: has no tokens",
        "line 2",
    ]);
    assert_eq!(outcome.stdout.lines().count(), 2, "{}", outcome.stdout);
    let [good, line] = ["good", "line"].map(|name| fs::read(mini.path(&format!("made/{name}.wav"))).unwrap());
    assert!(good == line && good.len() == 44 + 2 * 2 * HOP * tokens.len());

    let unknown = ["--speaker", &voice, "--tokens", "mixed.json", "--utt", "good", "nobody", "--out", "chosen"];
    let outcome = synth(&mini, &unknown).expect_code(1).expect_words(&["`nobody`", "mixed.json"]);
    assert_eq!(outcome.stdout.lines().count(), 1, "the id that is there is made");
    synth(&mini, &["--tokens", "mixed.json", "--utt"]).expect_code(2);
    synth(&mini, &["--utt", "good"]).expect_code(2);
    synth(&mini, &[]).expect_code(2).expect_words(&["--wav"]);
}

/// Writes 36 seconds of tokens.
fn long(mini: &Mini) -> (String, usize) {
    let Utterance { id, tokens, embeddings } = &utterances(mini)[0];
    let tokens: Vec<i64> = tokens.iter().copied().cycle().take(900).collect();
    write(mini, "long.json", &json!(tokens));
    (format!("{}:{id}", embeddings.display()), 2 * tokens.len())
}

#[test]
fn long_inputs_are_made_in_windows_and_streams() {
    let mini = Mini::finished();
    let (voice, frames) = long(&mini);
    let tokens = ["--tokens", "long.json", "--speaker", &voice];
    let made = |more: &[&str]| {
        let outcome = synth(&mini, &[&tokens[..], more].concat()).expect_code(0);
        let wav = more.iter().position(|word| *word == "--out").map(|at| more[at + 1]).unwrap();
        (outcome, fs::read(mini.path(&format!("{wav}/long.wav"))).unwrap())
    };
    // Of windows of 30 seconds there are two, of one window one.
    let (outcome, windows) = made(&["--out", "windows"]);
    outcome.expect_words(&["36.00 s", "900 units", " 4 evaluations"]);
    assert_eq!(windows.len(), 44 + 2 * frames * HOP);
    assert!(windows == made(&["--out", "again"]).1, "the same input gives the same bytes");
    let (outcome, whole) = made(&["--out", "whole", "--window", "40"]);
    outcome.expect_words(&[" 2 evaluations"]);
    assert!(whole != windows);
    assert!(whole == made(&["--out", "longer", "--window", "60"]).1, "one window is one window");

    // A stream to a file and to the standard output.
    let chunk = ["--chunk", "4.5", "--mel", "npy"];
    let (outcome, chunks) = made(&[&["--out", "chunks"][..], &chunk].concat());
    outcome.expect_words(&["36.00 s", " 16 evaluations", "chunks/long.wav", "chunks/long.png", "chunks/long.npy"]);
    assert_eq!(chunks.len(), 44 + 2 * frames * HOP);
    assert!(!mini.path("chunks/long.part.wav").exists());
    assert_eq!(samples(&mini.path("chunks/long.wav")).len(), frames * HOP);
    let model = mini.exp("6-export").display().to_string();
    let raw = [&["synth", "--model", &model, "--steps", "2", "--chunk", "4.5", "--out", "-"][..], &tokens].concat();
    let output = command(mini.folder(), &raw).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == chunks[44..], "the standard output has the samples of the file");
    assert!(String::from_utf8(output.stderr).unwrap().contains("long.json"), "and messages are elsewhere");

    // A sound that breaks off does not replace a whole one.
    fs::create_dir(mini.path("chunks/long.part.wav")).unwrap();
    synth(&mini, &[&tokens[..], &["--chunk", "4.5", "--out", "chunks"]].concat())
        .expect_code(1)
        .expect_words(&["long.part.wav"]);
    assert!(fs::read(mini.path("chunks/long.wav")).unwrap() == chunks);
    for (arguments, words) in [
        (&["--chunk", "0"][..], "--chunk"),
        (&["--window", "0.5"], "--window"),
        (&["--chunk", "1", "--window", "10"], "--window"),
        (&["--out", "-", "--mel", "npy"], "--mel"),
    ] {
        synth(&mini, &[&tokens[..], arguments].concat()).expect_code(2).expect_words(&[words]);
    }
}
