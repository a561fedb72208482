//! ONNX networks whose weights are in a second file.

use std::fs;
use std::path::Path;

use crate::support::{Outcome, flowmill, mini::golden};

/// An integer as protocol buffers write it.
fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn field(number: usize, content: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | 2)[..], &varint(content.len()), content].concat()
}

/// The fields of a message: number, the bytes of the whole field, and its content where it has any.
fn fields(message: &[u8]) -> Vec<(usize, &[u8], &[u8])> {
    let read = |at: &mut usize| {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = message[*at];
            *at += 1;
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    };
    let (mut at, mut found) = (0, Vec::new());
    while at < message.len() {
        let start = at;
        let tag = read(&mut at);
        let content = match tag & 7 {
            0 => {
                read(&mut at);
                at..at
            }
            1 => at..at + 8,
            5 => at..at + 4,
            _ => {
                let length = read(&mut at);
                at..at + length
            }
        };
        at = content.end;
        found.push((tag >> 3, &message[start..at], &message[content]));
    }
    found
}

/// The notation of a tensor's place: location, offset, length.
type Place<'p> = &'p dyn Fn(usize, usize) -> [(&'static str, String); 3];

/// A model with the raw data of its initializers moved into `data`.
fn externalized(model: &[u8], data: &mut Vec<u8>, place: Place) -> Vec<u8> {
    let mut tensor = |message: &[u8]| {
        let raw = fields(message).into_iter().find(|(number, ..)| *number == 9);
        let Some((_, _, raw)) = raw else { return message.to_vec() };
        data.resize(data.len().next_multiple_of(64), 0);
        let entries = place(data.len(), raw.len());
        data.extend(raw);
        let kept =
            fields(message).into_iter().filter(|(number, ..)| *number != 9).flat_map(|(_, whole, _)| whole.to_vec());
        let entries = entries
            .into_iter()
            .flat_map(|(key, value)| field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat()));
        kept.chain(entries).chain([14 << 3, 1]).collect()
    };
    let mut graph = |message: &[u8]| {
        let moved = fields(message).into_iter().flat_map(|(number, whole, content)| match number {
            5 => field(5, &tensor(content)),
            _ => whole.to_vec(),
        });
        moved.collect::<Vec<u8>>()
    };
    let moved = fields(model).into_iter().flat_map(|(number, whole, content)| match number {
        7 => field(7, &graph(content)),
        _ => whole.to_vec(),
    });
    moved.collect()
}

/// Writes the network with its weights at such places of `data/weights.bin`.
fn save(folder: &Path, place: Place) {
    let mut data = Vec::new();
    let model = externalized(&fs::read(golden("campplus_small.onnx")).unwrap(), &mut data, place);
    fs::create_dir_all(folder.join("data")).unwrap();
    fs::write(folder.join("model.onnx"), model).unwrap();
    fs::write(folder.join("data/weights.bin"), data).unwrap();
}

fn at(location: &str) -> impl Fn(usize, usize) -> [(&'static str, String); 3] {
    move |offset, length| {
        [("location", location.to_owned()), ("offset", offset.to_string()), ("length", length.to_string())]
    }
}

fn convert(folder: &Path) -> Outcome {
    flowmill(folder, &["convert", "model.onnx", "out.safetensors"])
}

#[test]
fn weights_in_a_second_file_are_those_of_the_whole_network() {
    let here = tempfile::tempdir().unwrap();
    save(here.path(), &at("data/weights.bin"));
    let size = |name: &str| fs::metadata(here.path().join(name)).unwrap().len();
    assert!(size("data/weights.bin") > 900_000 && size("model.onnx") < 700_000, "{}", size("model.onnx"));
    convert(here.path()).expect_code(0);
    let whole = golden("campplus_small.onnx");
    flowmill(here.path(), &["convert", whole.to_str().unwrap(), "whole.safetensors"]).expect_code(0);
    let read = |name: &str| fs::read(here.path().join(name)).unwrap();
    assert!(read("out.safetensors") == read("whole.safetensors"));
    flowmill(here.path(), &["inspect", "model.onnx"]).expect_code(0).expect_words(&["ONNX network", "Conv", "tensors"]);
}

#[test]
fn places_outside_of_the_folder_or_the_file_are_refused() {
    let here = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("weights.bin"), vec![0; 2 << 20]).unwrap();
    let absolute = elsewhere.path().join("weights.bin").to_str().unwrap().to_owned();
    let refuse = |place: Place, words: &[&str]| {
        save(here.path(), place);
        convert(here.path()).expect_code(1).expect_words(words);
        flowmill(here.path(), &["inspect", "model.onnx"]).expect_code(1).expect_words(words);
        assert!(!here.path().join("out.safetensors").exists());
    };
    for location in ["../weights.bin", "data/../../weights.bin", &absolute, "..\\weights.bin", ""] {
        refuse(&at(location), &["model.onnx", "outside of its folder"]);
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(elsewhere.path(), here.path().join("link")).unwrap();
        refuse(&at("link/weights.bin"), &["outside of its folder"]);
    }
    refuse(&at("data/absent.bin"), &["no file `data/absent.bin`"]);
    refuse(&at("data"), &["not a regular file"]);
    let numbers = |offset: &'static str, length: &'static str| {
        move |_: usize, _: usize| {
            [("location", "data/weights.bin".to_owned()), ("offset", offset.to_owned()), ("length", length.to_owned())]
        }
    };
    refuse(&numbers("18446744073709551615", "4"), &["truncated or modified"]);
    refuse(&numbers("0", "18446744073709551615"), &["truncated or modified"]);
    refuse(&numbers("-1", "4"), &["`-1` as its offset"]);
    refuse(&numbers("0", "3"), &["tensor"]);
    save(here.path(), &at("data/weights.bin"));
    let data = fs::read(here.path().join("data/weights.bin")).unwrap();
    fs::write(here.path().join("data/weights.bin"), &data[..data.len() - 1]).unwrap();
    convert(here.path()).expect_code(1).expect_words(&["model.onnx", "truncated or modified"]);
}
