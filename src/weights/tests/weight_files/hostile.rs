//! Malicious files: each ends in one clear error, and takes no more memory than its size allows.

use crate::allocations;
use crate::support::{archive, archive_with, dict_of, golden, pickle, refusal, tensor, text, values};
use flowmill_weights::FaultKind::{Cyclic, Damaged, NotWeights, TooLarge, Unreadable, Unsupported};
use flowmill_weights::{Archive, FaultKind, PickleValue, Target, WeightError};
use std::path::Path;
use zip::CompressionMethod;

#[track_caller]
fn refused(instructions: &[u8], kind: FaultKind, value: &str) {
    values(&pickle(instructions)).unwrap_err().expect(kind, &[value]);
}

#[test]
fn what_a_pickle_asks_for_is_named_and_never_executed() {
    for (instructions, name) in [
        (&b"cos\nsystem\nX\x02\0\0\0id\x85R"[..], "os.system"),
        (b"cbuiltins\neval\n)R", "builtins.eval"),
        (b"\x8c\x05posix\x8c\x06system\x93)R", "posix.system"),
        (b"cos\nsystem\n", "os.system"),
        (b"ctorch.storage\nUntypedStorage\n", "torch.storage.UntypedStorage"),
        (b"cevil\x1b[31m\nname\n)R", "evil?[31m.name"),
        (b"(i__main__\nX\n", "__main__.X"),
    ] {
        assert_eq!(values(&pickle(instructions)).unwrap(), PickleValue::Object(name.into()));
        refusal(&pickle(instructions)).expect(NotWeights, &[&format!("`{name}`")]);
    }
}

#[test]
fn lengths_that_lie_allocate_nothing() {
    refused(b"X\xff\xff\xff\xff", Damaged, "4294967295 bytes");
    refused(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", Damaged, "18446744073709551615 bytes");
    refused(b"B\xff\xff\xff\x7f", Damaged, "2147483647 bytes");
    refused(b"\x8b\xff\xff\xff\x7f", Damaged, "2147483647 bytes");
    refused(&[b"c", &[b'x'; 5000][..]].concat(), Damaged, "line");
}

/// Returns the memory that a file of this length may take.
fn allowance(length: usize) -> usize {
    (64 << 20) + 16 * length
}

#[test]
fn values_take_memory_in_proportion_to_the_bytes_they_are_read_from() {
    const LENGTH: usize = 16 << 20;
    let many = |before: &[u8], instructions: &[u8], after: &[u8]| {
        pickle(&[before, &instructions.repeat(LENGTH / instructions.len()), after].concat())
    };
    for (instructions, value) in [
        (many(b"(", b"]", b"l"), " MiB"),
        (many(b"(", b"N", b"t"), " MiB"),
        (many(b"N", b"\x94", b""), " MiB"),
        (many(b"N", b"2", b""), " MiB"),
        (many(b"(", b"\x8c\0", b"t"), " MiB"),
        (many(b"]", b"(NNNNNNNNNNNNNNNNe", b""), " MiB"),
        (many(b"}", b"NNs", b""), " MiB"),
        (many(b"N", b"r\xff\xff\xff\xff", b""), " MiB"),
        (many(b"", b"(", b""), "64 deep"),
        (many(b")", b"\x85", b""), "64 deep"),
    ] {
        let (peak, read) = allocations::peak(|| values(&instructions));
        let error = read.unwrap_err();
        error.expect(TooLarge, &[value]);
        assert!(peak < allowance(instructions.len()), "{peak} bytes: {error:?}");
    }
}

#[test]
fn large_honest_lists_are_read() {
    // The units of many utterances in the form of `torch.save`: a dict of names to lists, all memoized.
    let utterance = |number: usize| {
        let keep = |index: usize| [&b"r"[..], &(index as u32).to_le_bytes()].concat();
        let units: Vec<u8> = (0..500u16).flat_map(|unit| [b'M', unit as u8, 16 + (unit % 7) as u8]).collect();
        let name = text(&format!("1089-134686-{number:08}"));
        [&name[..], &keep(2 * number + 1), b"]", &keep(2 * number + 2), b"(", &units, b"e"].concat()
    };
    let entries: Vec<u8> = (0..20_000).flat_map(utterance).collect();
    let file = pickle(&[b"}r\0\0\0\0(", &entries[..], b"u"].concat());
    let (peak, read) = allocations::peak(|| values(&file));
    let read = read.unwrap();
    assert_eq!(read.get("1089-134686-00019999").unwrap().to_ints().unwrap().len(), 500);
    assert!(peak < 4 * file.len(), "{peak} bytes for {}", file.len());
}

#[test]
fn graphs_take_memory_in_proportion_to_the_bytes_they_are_read_from() {
    const LENGTH: usize = 16 << 20;
    // Nodes, initializers, inputs; attributes and names of a node.
    for (field, inside) in [(0x0a, false), (0x2a, false), (0x5a, false), (0x2a, true), (0x0a, true)] {
        let fields = match (field, inside) {
            // An initializer without elements: its type and one dimension of 0.
            (0x2a, false) => [0x2a, 4, 0x08, 0, 0x10, 1].repeat(LENGTH / 6),
            _ => [field, 0].repeat(LENGTH / 2),
        };
        let message = |tag: u8, content: &[u8]| [&[tag][..], &varint(content.len()), content].concat();
        let graph = if inside { message(0x0a, &fields) } else { fields };
        let file = [&[0x08, 8, 0x12, 1, b'x'][..], &message(0x3a, &graph)].concat();
        let (peak, error) = allocations::peak(|| refusal(&file));
        error.expect(TooLarge, &[" MiB"]);
        assert!(peak < allowance(file.len()), "{peak} bytes: {error:?}");
    }
}

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

#[test]
fn broken_programs_are_refused() {
    refused(b"", Damaged, "stack");
    refused(b"a", Damaged, "stack");
    refused(b"e", Damaged, "mark");
    refused(b"K\x01K\x02a", Damaged, "list");
    refused(b"}(K\x01u", Damaged, "key");
    refused(b"h\x07", Damaged, "memoized");
    refused(b"K\x01)R", Damaged, "call");
    values(b"\x80\x09N.").unwrap_err().expect(Unsupported, &["protocol 9"]);
    values(b"\x80\x02N.more").unwrap_err().expect(Damaged, &["4 bytes"]);
    values(b"\x80\x02]").unwrap_err().expect(Damaged, &["1 bytes", "byte 3"]);
}

#[test]
fn cycles_depth_and_repetition_are_refused() {
    refused(b"]q\0h\0a", Cyclic, "");
    refused(b"}q\0K\x01h\0s", Cyclic, "");
    // A list in a list in the first: neither is held twice but by the cycle.
    refused(b"]q\0]q\x01h\0aa", Cyclic, "");
    refused(&[[b']'; 1000], [b'a'; 1000]].concat()[..1999], TooLarge, "64 deep");
    // Each list holds the one before ten times: 10^20 values in 300 bytes.
    let mut laughs = b"]q\0K\x01a0".to_vec();
    for level in 0..20u8 {
        laughs.extend([b']', b'q', level + 1, b'(']);
        (0..10).for_each(|_| laughs.extend([b'h', level]));
        laughs.extend(*b"e0");
    }
    refused(&[&laughs[..], b"h\x14"].concat(), TooLarge, " MiB");
    // What holds itself through a tuple is found when it is read, not when it is made.
    refused(&[&b"]q\0"[..], &b"h\0\x85".repeat(3), b"\x870h\0h\0\x85a"].concat(), Cyclic, "");
    // One long list is made into a set again and again.
    let list = [&b"]("[..], &[b'N'; 100_000], b"eq\x000cbuiltins\nset\nq\x010]"].concat();
    let sets = b"h\x01h\0\x85Ra".repeat(20_000);
    refused(&[list, sets].concat(), TooLarge, "byte");
}

#[test]
fn views_outside_of_their_storage_are_refused() {
    let file = |weight: &[u8]| archive(&[("a/data.pkl", &pickle(&dict_of(weight))), ("a/data/0", &[0; 48])]);
    let refuse = |weight: &[u8], value: &str| refusal(&file(weight)).expect(Damaged, &[value]);
    assert!(
        flowmill_weights::from_bytes(&file(&tensor("FloatStorage", "0", 12, 0, &[4, 3], &[1, 4])), Path::new("x"))
            .is_ok()
    );
    refuse(&tensor("FloatStorage", "0", 12, 0, &[13], &[1]), "48 bytes");
    refuse(&tensor("FloatStorage", "0", 12, 1, &[4, 3], &[1, 4]), "44 bytes");
    refuse(&tensor("FloatStorage", "0", 12, 0, &[2, 2], &[i32::MAX, i32::MAX]), "48 bytes");
    refuse(&tensor("FloatStorage", "0", 12, 13, &[1], &[1]), "13 elements");
    refuse(&tensor("FloatStorage", "0", 12, 0, &[-1], &[1]), "argument");
    refuse(&tensor("FloatStorage", "0", 12, 0, &[2], &[-1]), "argument");
    refuse(&tensor("FloatStorage", "0", 12, 0, &[1; 65], &[1; 65]), "argument");
    refuse(&tensor("FloatStorage", "0", 13, 0, &[12], &[1]), "13 elements");
    refuse(&tensor("DoubleStorage", "0", 12, 0, &[12], &[1]), "12 elements");
    refuse(&tensor("FloatStorage", "1", 12, 0, &[12], &[1]), "`a/data/1`");
    refusal(&file(&tensor("FloatStorage", "0", 12, 0, &[i32::MAX, i32::MAX], &[0, 0])))
        .expect(TooLarge, &["`{name: tensor.clone()}`"]);
    refuse(&tensor("FloatStorage", "0", 12, 0, &[i32::MAX; 4], &[0; 4]), "[2147483647, ");
}

#[test]
fn views_that_overlap_may_not_unfold_without_end() {
    let window = |start: i32| tensor("ByteStorage", "0", (1 << 20) + 200, start, &[1 << 20], &[1]);
    let entries: Vec<u8> = (0..200).flat_map(|i| [text(&format!("w{i}")), window(i)].concat()).collect();
    let program = pickle(&[b"}(", &entries[..], b"u"].concat());
    let error = refusal(&archive(&[("a/data.pkl", &program), ("a/data/0", &vec![0; (1 << 20) + 200])]));
    error.expect(TooLarge, &["209715200 bytes", "tensor.clone()"]);
}

/// A file with this number of names for one storage of 1 MiB.
fn shared(names: usize) -> Vec<u8> {
    let weight = tensor("ByteStorage", "0", 1 << 20, 0, &[1 << 20], &[1]);
    let entries: Vec<u8> = (0..names).flat_map(|i| [text(&format!("w{i}")), weight.clone()].concat()).collect();
    let program = pickle(&[b"}(", &entries[..], b"u"].concat());
    archive(&[("a/data.pkl", &program), ("a/data/0", &vec![1; 1 << 20])])
}

#[test]
fn names_of_one_storage_cost_nothing_until_they_are_written() {
    let file = shared(200);
    // One tensor is 8 MiB as integers; 200 would be 1.6 GB.
    let (peak, read) = allocations::peak(|| flowmill_weights::from_bytes(&file, Path::new("x.pt")).unwrap());
    assert_eq!(read.integers.len(), 200);
    assert!(peak < 16 << 20, "{peak} bytes");

    let folder = crate::writing::folder("shared");
    let write = |file: &[u8], name: &str, target: Target| {
        let mut archive = Archive::from_bytes(file, Path::new("x.pt")).unwrap();
        let path = folder.join(name);
        flowmill_weights::write_archive(&path, &mut archive, target).map(|()| std::fs::metadata(&path).unwrap().len())
    };
    assert!(write(&file, "shared.pt", Target::Torch).unwrap() < 2 << 20);
    let again = std::fs::read(folder.join("shared.pt")).unwrap();
    assert_eq!(flowmill_weights::from_bytes(&again, Path::new("y.pt")).unwrap().integers.len(), 200);
    let error = write(&file, "copies.safetensors", Target::Safetensors).unwrap_err();
    assert!(matches!(&error, WeightError::File { kind: TooLarge, message, .. } if message.contains(".pt")), "{error}");
    assert!(!folder.join("copies.safetensors").exists());
    assert!(write(&shared(30), "few.safetensors", Target::Safetensors).unwrap() > 30 << 20);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn element_types_that_are_not_read_are_named_with_their_tensor() {
    let number = |value: i32| [&b"J"[..], &value.to_le_bytes()].concat();
    let weight = [
        &b"ctorch._utils\n_rebuild_tensor_v3\n(("[..],
        &text("storage"),
        b"ctorch.storage\nUntypedStorage\n",
        &text("0"),
        &text("cpu"),
        &number(4),
        b"tQ",
        &number(0),
        &number(4),
        b"\x85",
        &number(1),
        b"\x85\x89ccollections\nOrderedDict\n)Rctorch\nfloat8_e4m3fn\ntR",
    ];
    refusal(&pickle(&dict_of(&weight.concat()))).expect(Unsupported, &["`w`", "torch.float8_e4m3fn"]);
}

#[test]
fn archives_that_unpack_or_overlap_are_refused() {
    let program = pickle(&dict_of(&tensor("FloatStorage", "0", 1, 0, &[1], &[1])));
    let entries: [(&str, &[u8]); 2] = [("a/data.pkl", &program), ("a/data/0", &[0; 4])];
    let mut compressed = archive_with(&entries, CompressionMethod::Stored);
    // Deflate, in the local header and in the directory.
    for magic in [&b"PK\x03\x04"[..], b"PK\x01\x02"] {
        let at = compressed.windows(4).position(|window| window == magic).unwrap();
        compressed[at + if magic[2] == 3 { 8 } else { 10 }] = 8;
    }
    refusal(&compressed).expect(Unsupported, &["`a/data.pkl`", "zip -0"]);
    // Two storages on one place.
    let other = tensor("FloatStorage", "1", 1, 0, &[1], &[1]);
    let both = [&dict_of(&tensor("FloatStorage", "0", 1, 0, &[1], &[1]))[..], &text("v"), &other, b"s"].concat();
    let mut overlapping = archive(&[("a/data.pkl", &pickle(&both)), ("a/data/0", &[0; 4]), ("a/data/1", &[0; 4])]);
    let headers: Vec<usize> =
        (0..overlapping.len() - 4).filter(|at| overlapping[*at..].starts_with(b"PK\x01\x02")).collect();
    overlapping.copy_within(headers[1] + 42..headers[1] + 46, headers[2] + 42);
    refusal(&overlapping).expect(Damaged, &["overlap"]);
    refusal(&archive(&[("a/x.npy", b"")])).expect(NotWeights, &[".npz"]);
    refusal(&archive(&[("a/x", b"")])).expect(NotWeights, &["data.pkl"]);
    let big = archive(&[("a/data.pkl", &program), ("a/byteorder", b"big"), ("a/data/0", &[0; 4])]);
    refusal(&big).expect(Unsupported, &["little-endian"]);
}

#[test]
fn a_name_may_be_there_once() {
    let weight = tensor("ByteStorage", "0", 1, 0, &[1], &[1]);
    let program = pickle(&[b"}(", &text("w")[..], &weight, &text("w"), &weight, b"u"].concat());
    refusal(&archive(&[("a/data.pkl", &program), ("a/data/0", &[0])])).expect(Damaged, &["`w`", "twice"]);
}

#[test]
fn a_cut_checkpoint_is_refused_wherever_it_is_cut() {
    let whole = std::fs::read(golden("pt/dtypes_views.pt")).unwrap();
    for cut in (0..whole.len()).step_by(whole.len() / 300) {
        refusal(&whole[..cut]);
    }
}

#[test]
fn what_is_no_weight_file_is_told_what_it_is() {
    refusal(b"").expect(NotWeights, &["empty"]);
    refusal(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n").expect(NotWeights, &["git lfs pull"]);
    refusal(b"<!DOCTYPE html><html>").expect(NotWeights, &["web page"]);
    refusal(b"RIFF....WAVE").expect(NotWeights, &["safetensors", "PyTorch", ".npy", "ONNX"]);
    refusal(b"\xff\0\0\0\0\0\0\0{}").expect(Damaged, &["safetensors"]);
    let fault = |path: &str| match flowmill_weights::read(Path::new(path)).unwrap_err() {
        WeightError::File { path: named, kind, .. } if named == path => kind,
        other => panic!("{other}"),
    };
    assert_eq!(fault(env!("CARGO_MANIFEST_DIR")), NotWeights);
    assert_eq!(fault("/nowhere/x.pt"), Unreadable);
}
