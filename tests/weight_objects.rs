//! Weight files with Python objects next to the weights: the weights are read, the objects are named, nothing is executed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;

use crate::support::{Outcome, flowmill, mini};

/// The path of a fixture; `tests/data/weights/README.md` says what is in it.
fn fixture(name: &str) -> String {
    mini::repository().join("tests/data/weights").join(name).to_str().unwrap().to_owned()
}

fn convert(folder: &Path, name: &str) -> Outcome {
    flowmill(folder, &["convert", &fixture(name), "out.safetensors"])
}

/// The `f32` tensors of the file that was written, by name.
fn floats(folder: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = fs::read(folder.join("out.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = tensors.tensors().into_iter().filter(|(_, tensor)| tensor.dtype() == safetensors::Dtype::F32);
    let values = |data: &[u8]| data.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect();
    floats.map(|(name, tensor)| (name, (tensor.shape().to_vec(), values(tensor.data())))).collect()
}

/// The weights that most fixtures hold.
fn expected() -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    BTreeMap::from([
        ("linear.weight".to_owned(), (vec![2, 3], vec![0.5, -1.5, 2.5, 3.5, -4.5, 5.5])),
        ("linear.bias".to_owned(), (vec![2], vec![0.25, -0.75])),
    ])
}

/// The objects next to the weights and the names under which they are skipped.
const OBJECTS: [(&str, &str); 15] = [
    ("exp_dir", "pathlib.PosixPath"),
    ("args", "argparse.Namespace"),
    ("optimizer_class", "torch.optim.adam.Adam"),
    ("make_optimizer", "functools.partial"),
    ("loss_scaler", "deepspeed.runtime.fp16.loss_scaler.LossScaler"),
    ("options", "trainer.options.Slotted"),
    ("named", "trainer.options.Named"),
    ("stateful", "trainer.options.Stateful"),
    ("config", "trainer.options.Config"),
    ("history", "trainer.options.History"),
    ("phase", "trainer.options.Phase"),
    ("started", "datetime.datetime"),
    ("elapsed", "datetime.timedelta"),
    ("hydra", "omegaconf.dictconfig.DictConfig"),
    ("counter", "collections.Counter"),
];

#[test]
fn objects_beside_the_weights_are_left_out_and_named() {
    let here = tempfile::tempdir().unwrap();
    for name in [
        "objects_protocol2.pt",
        "objects_protocol3.pt",
        "objects_protocol4.pt",
        "objects_protocol5.pt",
        "objects_legacy.pt",
    ] {
        let outcome = convert(here.path(), name).expect_code(0);
        assert_eq!(floats(here.path()), expected(), "{name}");
        for (entry, class) in OBJECTS {
            let told = format!("left out: {entry} ({class})");
            assert!(outcome.text().contains(&told), "{name}: {told}: {}", outcome.text());
        }
        // A tensor that cannot be read, where it is no weight, and an integer of more than 128 bits.
        outcome.expect_words(&[
            "left out: mask (tensor of a form (`torch._utils._rebuild_qtensor`)",
            "left out: spectrum (tensor of elements of `torch.ComplexFloatStorage`",
            "left out: random_state",
        ]);
        let shown = flowmill(here.path(), &["inspect", &fixture(name)]).expect_code(0);
        shown.expect_words(&["linear.weight", "2 × 3", "exp_dir", "pathlib.PosixPath"]);
    }
}

#[test]
fn numpy_scalars_are_values() {
    let here = tempfile::tempdir().unwrap();
    let outcome = convert(here.path(), "numpy_scalars.pt").expect_code(0);
    assert_eq!(floats(here.path()), expected());
    outcome.expect_words(&["best_loss 0.125", "best_step 1200", "amp true", "tag wide Ω", "half -2.5"]);
}

#[test]
fn numpy_arrays_are_read_in_every_order_and_width() {
    let here = tempfile::tempdir().unwrap();
    for name in ["arrays_protocol2.pkl", "arrays_protocol5.pkl"] {
        let outcome = convert(here.path(), name).expect_code(0);
        let mut floats = floats(here.path());
        assert_eq!(floats.remove("linear.weight"), Some(expected()["linear.weight"].clone()), "{name}");
        assert_eq!(floats.remove("columns"), Some((vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0])), "{name}");
        assert_eq!(floats.remove("swapped"), Some((vec![3], vec![0.0, 1.0, 2.0])), "{name}");
        assert_eq!(floats.remove("scalar"), Some((vec![], vec![2.5])), "{name}");
        assert!(floats.is_empty(), "{floats:?}");
        let bytes = fs::read(here.path().join("out.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let data = |name: &str| tensors.tensor(name).unwrap().data().to_vec();
        assert_eq!(data("linear.bias"), [0.25f64.to_le_bytes(), (-0.75f64).to_le_bytes()].concat());
        assert_eq!(data("ids"), [1i32.to_le_bytes(), 65_535i32.to_le_bytes()].concat());
        assert_eq!(data("counts"), [7i64.to_le_bytes(), (u32::MAX as i64).to_le_bytes()].concat());
        assert_eq!(data("flags"), [1, 0]);
        outcome.expect_words(&[
            "left out: names (numpy array of text, [2])",
            "left out: objects (numpy array of Python objects, [2])",
            "left out: records (numpy array of an element type that is not read, [2])",
            "left out: times (",
        ]);
    }
}

#[test]
fn weights_are_read_as_parameters_and_with_attributes() {
    let here = tempfile::tempdir().unwrap();
    convert(here.path(), "parameters.pt").expect_code(0);
    assert_eq!(floats(here.path()), expected());
}

#[test]
fn what_is_no_state_dict_or_has_an_unreadable_weight_is_refused_by_name() {
    let here = tempfile::tempdir().unwrap();
    let refused = convert(here.path(), "whole_model.pt").expect_code(1);
    refused.expect_words(&["`trainer.options.Stateful`", "state_dict()"]);
    flowmill(here.path(), &["inspect", &fixture("whole_model.pt")])
        .expect_code(1)
        .expect_words(&["`trainer.options.Stateful`"]);
    convert(here.path(), "complex_weight.pt")
        .expect_code(1)
        .expect_words(&["tensor `linear.scale`", "`torch.ComplexFloatStorage`"]);
    assert!(!here.path().join("out.safetensors").exists());
}

#[test]
fn a_call_beside_the_weights_is_named_and_not_made() {
    let here = tempfile::tempdir().unwrap();
    let file = [
        &b"\x80\x02}(X\x05\x00\x00\x00epochK\x03X\x04\x00\x00\x00hookcos\nsystem\nX\x09\x00\x00\x00touch ran\x85R"[..],
        b"X\x01\x00\x00\x00wcnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR(K\x01K\x01\x85",
        b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        b"\x89C\x04\x00\x00\x80\x3ftbu.",
    ];
    fs::write(here.path().join("hook.pkl"), file.concat()).unwrap();
    let outcome = flowmill(here.path(), &["convert", "hook.pkl", "out.safetensors"]).expect_code(0);
    outcome.expect_words(&["left out: hook (os.system)", "epoch 3"]);
    assert_eq!(floats(here.path()), BTreeMap::from([("w".to_owned(), (vec![1], vec![1.0]))]));
    assert!(!here.path().join("ran").exists());
}
