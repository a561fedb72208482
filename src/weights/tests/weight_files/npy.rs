//! NumPy arrays.

use crate::support::{npy, refusal};
use flowmill_weights::FaultKind::{Damaged, Unsupported};
use std::path::Path;

fn floats(bytes: &[u8]) -> Vec<Vec<f32>> {
    flowmill_weights::from_bytes(bytes, Path::new("centres.npy")).unwrap().tensors["centres"].to_vec2().unwrap()
}

#[test]
fn either_order_of_axes_and_bytes_gives_the_same_array() {
    let rows = [[0f32, 1.0, 2.0], [3.0, 4.0, 5.0]];
    let values = [0f64, 1.0, 2.0, 3.0, 4.0, 5.0];
    let columns = [0f32, 3.0, 1.0, 4.0, 2.0, 5.0];
    let little: Vec<u8> = rows.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(floats(&npy("<f4", false, &[2, 3], &little)), rows);
    let big: Vec<u8> = values.iter().flat_map(|x| x.to_be_bytes()).collect();
    assert_eq!(floats(&npy(">f8", false, &[2, 3], &big)), rows);
    let fortran: Vec<u8> = columns.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(floats(&npy("<f4", true, &[2, 3], &fortran)), rows);
    let halves: Vec<u8> = rows.iter().flatten().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
    assert_eq!(floats(&npy("<f2", false, &[2, 3], &halves)), rows);
}

#[test]
fn integers_and_booleans_are_integers() {
    let integers = |descr: &str, data: &[u8], count: usize| {
        let file = flowmill_weights::from_bytes(&npy(descr, false, &[count], data), Path::new("a.npy")).unwrap();
        file.integers["a"].to_vec1::<i64>().unwrap()
    };
    assert_eq!(integers("<i4", &(-5i32).to_le_bytes(), 1), [-5]);
    assert_eq!(integers(">i8", &7i64.to_be_bytes(), 1), [7]);
    assert_eq!(integers("|u1", &[200], 1), [200]);
    assert_eq!(integers("|b1", &[1, 0], 2), [1, 0]);
}

#[test]
fn version_2_and_scalars_are_read() {
    let one = npy("<f4", false, &[], &2f32.to_le_bytes());
    let two = [&one[..6], &[2, 0], &one[8..10], &[0, 0], &one[10..]].concat();
    let file = flowmill_weights::from_bytes(&two, Path::new("a.npy")).unwrap();
    assert_eq!(file.tensors["a"].to_scalar::<f32>().unwrap(), 2.0);
}

#[test]
fn arrays_that_lie_are_refused() {
    refusal(&npy("|O", false, &[1], b"\x80\x02N.")).expect(Unsupported, &["Python objects"]);
    refusal(&npy("<c8", false, &[1], &[0; 8])).expect(Unsupported, &["`<c8`"]);
    refusal(&npy("<f4", false, &[3], &[0; 8])).expect(Damaged, &["[3]", "8 bytes"]);
    refusal(&npy("<f4", false, &[1], &[0; 8])).expect(Damaged, &["4 bytes", "8 "]);
    refusal(&npy("<f4", false, &[usize::MAX, 2], &[0; 8])).expect(Damaged, &["[18446744073709551615, 2]"]);
    refusal(&npy("<f4", true, &[1 << 40, 1 << 20], &[0; 8])).expect(Damaged, &["[1099511627776, 1048576]", "8 bytes"]);
    refusal(b"\x93NUMPY\x01\0\xff\xff{}").expect(Damaged, &["65535 bytes"]);
    refusal(b"\x93NUMPY\x09\0").expect(Unsupported, &["9.0"]);
    refusal(b"\x93NUMPY\x01\0\x02\0{}").expect(Damaged, &["header", "{}"]);
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mel.npy");
    for shape in [&[2, 3][..], &[6], &[1, 2, 3]] {
        let values = vec![0f32, 1.0, -2.0, 3.5, 4.0, 5.0];
        let tensor = candle_core::Tensor::from_vec(values.clone(), shape, &candle_core::Device::Cpu).unwrap();
        flowmill_weights::write_npy(&path, &tensor).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert_eq!((end % 64, bytes.len()), (0, end + 24));
        let read = flowmill_weights::read(&path).unwrap().tensors.remove("mel").unwrap();
        assert_eq!(read.dims(), shape);
        assert_eq!(read.flatten_all().unwrap().to_vec1::<f32>().unwrap(), values);
    }
    let infinite = candle_core::Tensor::new(&[f32::INFINITY], &candle_core::Device::Cpu).unwrap();
    assert!(flowmill_weights::write_npy(&path, &infinite).is_err());
}
