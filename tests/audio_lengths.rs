//! Stage 0 and the mels of stage 3 agree on how long recordings are, whatever headers and tags say.

use std::collections::BTreeMap;
use std::fs;

use crate::support::mini::repository;
use crate::support::{flowmill, parquet};

fn good(name: &str) -> Vec<u8> {
    fs::read(repository().join("tests/data/formats/good").join(name)).unwrap()
}

#[test]
fn recordings_are_as_long_as_what_they_hold() {
    let tag = [b"ID3\x04\0\0\0\0\x7f\x7f".as_slice(), &[0xd8; 16_383]].concat();
    let wav = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good("mono_16k_s16.wav");
        edit(&mut bytes);
        bytes
    };
    let cut = |name: &str| good(name)[..good(name).len() / 2].to_vec();
    // Name, bytes, seconds; a cut file has no length to expect.
    let recordings: Vec<(&str, Vec<u8>, Option<f64>)> = vec![
        ("picture.mp3", [&tag[..], &good("mono_22k05_32k.mp3")].concat(), Some(1.95)),
        ("picture.wav", [&tag[..], &good("mono_16k_s16.wav")].concat(), Some(1.95)),
        ("chained.opus", [good("mono_48k.opus"), good("mono_48k.opus")].concat(), Some(3.9)),
        ("joined.mp3", [good("stereo_44k1_vbr.mp3"), good("stereo_44k1_vbr.mp3")].concat(), Some(3.97)),
        ("block_align.wav", wav(&|bytes| bytes[32] = 6), Some(1.95)),
        ("channels.wav", wav(&|bytes| bytes[22] = 2), Some(1.95)),
        (
            "pipe.wav",
            wav(&|bytes| {
                let data = bytes.windows(4).position(|four| four == b"data").unwrap();
                bytes[data + 4..data + 8].copy_from_slice(&0x7fff_f000u32.to_le_bytes());
            }),
            Some(1.95),
        ),
        ("cut.mp3", cut("stereo_44k1_vbr.mp3"), None),
        ("cut.flac", cut("mono_16k_s16.flac"), None),
        ("cut.wav", cut("mono_16k_s16.wav"), None),
    ];
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let (mut scp, mut text, mut speakers) = (String::new(), String::new(), String::new());
    for (name, bytes, _) in &recordings {
        fs::write(data.join(name), bytes).unwrap();
        scp += &format!("{name} {name}\n");
        text += &format!("{name} Die Burg lag auf einem Berggrat.\n");
        speakers += &format!("{name} kerstin\n");
    }
    fs::write(data.join("wav.scp"), scp).unwrap();
    fs::write(data.join("text"), text).unwrap();
    fs::write(data.join("utt2spk"), speakers).unwrap();
    let recipe = "name: lengths\nprep: {data: data, split: {by: fraction, fractions: {}}}\n\
        embed: {extractor: {kind: statistics, n_mels: 8}}\n\
        tokens: {extractor: {kind: kmeans, k: 8, iterations: 3}}\n";
    fs::write(folder.path().join("recipe.yaml"), recipe).unwrap();
    let outcome = flowmill(folder.path(), &["run", ".", "--stop-stage", "pack"]).expect_code(0);
    outcome.expect_rows(10, 10, 0).expect_words(&["truncated recordings 3"]);
    let table = folder.path().join("exp/lengths/0-prep/train/part-00000.parquet");
    let seconds: BTreeMap<String, f64> =
        parquet::texts(&table, "utt").into_iter().zip(parquet::numbers(&table, "duration")).collect();
    for (name, _, expected) in recordings {
        match expected {
            // Files that are joined keep what the encoder added in the middle.
            Some(expected) => assert!((seconds[name] - expected).abs() < 0.06, "{name}: {} s", seconds[name]),
            None => assert!((0.5..1.5).contains(&seconds[name]), "{name}: {} s", seconds[name]),
        }
    }
}
