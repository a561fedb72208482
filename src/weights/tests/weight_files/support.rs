//! Shared parts of these tests: the golden files, and pickles and archives made by hand.

use flowmill_weights::{FaultKind, WeightError};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// A fault of the file `x.pt`: its kind, and what is said of it.
#[derive(Debug)]
pub struct Refusal(pub FaultKind, pub String);

impl Refusal {
    /// Checks the kind, and what the message names.
    #[track_caller]
    pub fn expect(&self, kind: FaultKind, values: &[&str]) {
        let Self(found, message) = self;
        assert_eq!(*found, kind, "{message}");
        assert!(values.iter().all(|value| message.contains(value)), "{values:?}: {message}");
    }
}

#[track_caller]
fn refusal_of(error: WeightError) -> Refusal {
    match error {
        WeightError::File { path, kind, message } if path == "x.pt" => Refusal(kind, message),
        other => panic!("{other}"),
    }
}

/// The values of a file in memory, or what keeps it from being read.
pub fn values(bytes: &[u8]) -> Result<flowmill_weights::PickleValue, Refusal> {
    let file = flowmill_weights::PickleFile::from_bytes(bytes, Path::new("x.pt"));
    file.map(|file| file.value).map_err(refusal_of)
}

/// Returns the error of reading a file in memory as weights.
#[track_caller]
pub fn refusal(bytes: &[u8]) -> Refusal {
    refusal_of(flowmill_weights::from_bytes(bytes, Path::new("x.pt")).unwrap_err())
}

/// A pickle of protocol 2 with these instructions.
pub fn pickle(instructions: &[u8]) -> Vec<u8> {
    [&[0x80, 2], instructions, b"."].concat()
}

/// An archive with these entries, stored.
pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    archive_with(entries, CompressionMethod::Stored)
}

pub fn archive_with(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        archive.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// Instructions for a text.
pub fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// Instructions for a tensor: storage `key` of `count` elements, from `offset` on, with shape and strides.
pub fn tensor(class: &str, key: &str, count: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let number = |value: i32| [&b"J"[..], &value.to_le_bytes()].concat();
    let tuple =
        |values: &[i32]| [&b"("[..], &values.iter().flat_map(|v| number(*v)).collect::<Vec<_>>(), b"t"].concat();
    [
        &b"ctorch._utils\n_rebuild_tensor_v2\n(("[..],
        &text("storage"),
        format!("ctorch\n{class}\n").as_bytes(),
        &text(key),
        &text("cpu"),
        &number(count),
        b"tQ",
        &number(offset),
        &tuple(shape),
        &tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

/// A dict with one entry `w`.
pub fn dict_of(value: &[u8]) -> Vec<u8> {
    [&b"}"[..], &text("w"), value, b"s"].concat()
}

/// A file in the format before PyTorch 1.6: `{"w": tensor([1., 2., 3.]), "v": the last two of them}`.
pub fn legacy() -> Vec<u8> {
    let magic = pickle(b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19");
    let version = pickle(b"M\xe9\x03");
    let machine = pickle(&[b"}(", &text("little_endian")[..], b"\x88u"].concat());
    let storage = |offset: i32, shape: i32| {
        let mut weight = tensor("FloatStorage", "94", 3, offset, &[shape], &[1]);
        // The old persistent id has a sixth part: the view, here none.
        let at = weight.windows(2).position(|pair| pair == b"tQ").unwrap();
        weight.insert(at, b'N');
        weight
    };
    let values = pickle(&[b"}(", &text("w")[..], &storage(0, 3), &text("v"), &storage(1, 2), b"u"].concat());
    let keys = pickle(&[b"](", &text("94")[..], b"e"].concat());
    let data = [1f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    [magic, version, machine, values, keys, 3u64.to_le_bytes().to_vec(), data].concat()
}

/// An `.npy` file, version 1.
pub fn npy(descr: &str, fortran: bool, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let shape: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({shape}), }}\n");
    [&b"\x93NUMPY\x01\0"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A field of a protocol buffer that has bytes.
pub fn field(number: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 128 * 128);
    let length = [content.len() as u8 | 0x80, (content.len() >> 7) as u8];
    [&[number << 3 | 2][..], &length, content].concat()
}

/// An integer field of a protocol buffer.
pub fn number(number: u8, value: u8) -> Vec<u8> {
    assert!(value < 128);
    vec![number << 3, value]
}

/// An ONNX model around one initializer.
pub fn onnx(tensor: &[u8]) -> Vec<u8> {
    let node = [field(1, b"x"), field(1, b"w"), field(2, b"y"), field(4, b"Add")].concat();
    let shape = field(1, &field(2, &[field(1, &number(1, 2)), field(1, &field(2, b"frames"))].concat()));
    let graph = [field(1, &node), field(5, tensor), field(11, &[field(1, b"x"), field(2, &shape)].concat())].concat();
    [number(1, 8), field(2, b"test"), field(7, &graph), field(8, &number(2, 17))].concat()
}

/// A model whose weight is `[1, 2]` in `raw_data`.
pub fn small_onnx() -> Vec<u8> {
    let data = [1f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    onnx(&[number(1, 2), number(2, 1), field(8, b"w"), field(9, &data)].concat())
}
