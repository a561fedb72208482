//! Weight files of other programs through `inspect` and `convert`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::flowmill::command;
use crate::support::mini::repository;
use crate::support::{Mini, flowmill};

/// The path of a golden file as an argument.
fn golden(name: &str) -> String {
    crate::support::mini::golden(name).to_str().unwrap().to_string()
}

#[test]
fn checkpoints_arrays_and_networks_can_be_inspected() {
    let here = tempfile::tempdir().unwrap();
    let inspect = |file: &str| flowmill(here.path(), &["inspect", file]);
    let shown = inspect(&golden("pt/cosyvoice2_flow_full.pt")).expect_code(0);
    shown.expect_words(&["PyTorch", "epoch", "1200", "input_embedding.weight", "F32"]);
    let shown = inspect(&golden("pt/dtypes_views.pt")).expect_code(0);
    shown.expect_words(&["BF16", "F16", "I64", "4 × 3", "tied"]);
    let shown = inspect(&golden("pt/utt2embedding.pt")).expect_code(0);
    shown.expect_words(&["PyTorch", "1688-142285-0000", "list of 192 floats"]);
    let shown = inspect(&golden("pt/utt2speech_token_dual.pt")).expect_code(0);
    shown.expect_words(&["vq0206 (list of 5 integers)", "vq02 (list of 2 integers)"]);
    let shown = inspect(&golden("campplus_small.onnx")).expect_code(0);
    shown.expect_words(&["ONNX", "takes", "Conv", "tensors"]);
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";
    let array = [b"\x93NUMPY\x01\0", &[header.len() as u8, 0][..], header.as_bytes(), &[0; 24]].concat();
    fs::write(here.path().join("centres.npy"), array).unwrap();
    inspect("centres.npy").expect_code(0).expect_words(&["NumPy array", "centres", "F32", "2 × 3"]);
}

#[test]
fn a_pickle_that_wants_to_run_something_is_refused_by_name() {
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("evil.pt"), b"\x80\x02cos\nsystem\nX\x0a\0\0\0touch ranit\x85R.").unwrap();
    for arguments in [&["inspect", "evil.pt"][..], &["convert", "evil.pt", "out.safetensors"]] {
        flowmill(here.path(), arguments).expect_code(1).expect_words(&["evil.pt", "`os.system`"]);
    }
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 1, "a file appeared");
}

#[test]
fn converting_there_and_back_changes_nothing() {
    let here = tempfile::tempdir().unwrap();
    let convert = |from: &str, to: &str| flowmill(here.path(), &["convert", from, to]);
    for source in ["pt/cosyvoice2_flow_full.pt", "pt/dtypes_views.pt", "campplus_small.onnx"].map(golden) {
        convert(&source, "a.safetensors").expect_code(0);
        convert("a.safetensors", "a.pt").expect_code(0);
        convert("a.pt", "b.safetensors").expect_code(0);
        let read = |name: &str| fs::read(here.path().join(name)).unwrap();
        assert_eq!(read("a.safetensors"), read("b.safetensors"), "{source}");
        // Onto itself, through the same bytes.
        let before = read("a.pt");
        convert("a.pt", "a.pt").expect_code(0);
        assert_eq!(read("a.pt"), before, "{source}");
    }
    expect_golden_weights(&here.path().join("a.pt"), &convert);
}

/// Converts the golden checkpoint and compares every element with the golden file, byte by byte.
fn expect_golden_weights(path: &Path, convert: &dyn Fn(&str, &str) -> crate::support::Outcome) {
    let safetensors = path.with_file_name("flow.safetensors");
    let told = convert(&golden("pt/cosyvoice2_flow_full.pt"), safetensors.to_str().unwrap()).expect_code(0);
    told.expect_words(&["tensors", "epoch 3", "step 1200"]);
    let (found, expected) =
        (fs::read(&safetensors).unwrap(), fs::read(golden("cosyvoice2_flow_full.safetensors")).unwrap());
    let found = safetensors::SafeTensors::deserialize(&found).unwrap();
    let expected = safetensors::SafeTensors::deserialize(&expected).unwrap();
    let mut compared = 0;
    for name in expected.names() {
        if let Some(own) = name.strip_prefix("param.") {
            let (found, expected) = (found.tensor(own).unwrap(), expected.tensor(name).unwrap());
            assert_eq!((found.dtype(), found.shape()), (expected.dtype(), expected.shape()), "{name}");
            assert_eq!(found.data(), expected.data(), "{name}");
            compared += 1;
        }
    }
    assert_eq!(compared, found.len());
}

#[test]
fn stage_6_writes_a_state_dict_with_the_weights_of_the_model() {
    let mini = Mini::finished();
    let flow = mini.exp("6-export/flow.pt");
    flowmill(mini.folder(), &["convert", flow.to_str().unwrap(), "again.safetensors"]).expect_code(0);
    let read = |path: PathBuf| fs::read(path).unwrap();
    assert_eq!(read(mini.path("again.safetensors")), read(mini.exp("6-export/model.safetensors")));
    // Next to it lies the configuration with which public code makes the model.
    let public = fs::read_to_string(mini.exp("6-export/cosyvoice2.yaml")).unwrap();
    let lines = [
        "sample_rate: 24000",
        "token_frame_rate: 25",
        "flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec",
        "    vocab_size: 16",
        "        num_blocks: 1",
        "            channels: [16]",
        "            in_channels: 320",
    ];
    assert!(public.contains("does not implement settings of this model: `train.normalise_mel`"), "{public}");
    for line in lines {
        assert!(public.lines().any(|own| own == line), "no `{line}` in:\n{public}");
    }
    let before = mini.tree();
    mini.run(&["--set", "export.write_pt=false"]).expect_code(0).expect_words(&["export.write_pt"]);
    assert!(!flow.exists(), "flow.pt is still there");
    assert!(!mini.exp("6-export/cosyvoice2.yaml").exists());
    let written = mini.tree().written_since(&before);
    assert!(!written.iter().any(|path| path.to_string_lossy().contains("samples/")), "{written:?}");
}

#[test]
fn stage_6_writes_the_estimator_as_a_graph_on_demand() {
    let mini = Mini::finished();
    let graph = mini.exp("6-export/flow.decoder.estimator.fp32.onnx");
    assert!(!graph.exists());
    let before = mini.tree();
    let asked = ["--set", "export.write_onnx=true"];
    mini.run(&asked).expect_code(0).expect_words(&["export.write_onnx"]);
    let written = mini.tree().written_since(&before);
    assert!(!written.iter().any(|path| path.to_string_lossy().contains("samples/")), "{written:?}");
    // Its weights are those of the exported model.
    let shown = flowmill(mini.folder(), &["inspect", graph.to_str().unwrap()]).expect_code(0);
    shown.expect_words(&["time_mlp.linear_1.weight", "final_proj.bias"]);
    let weights = flowmill_weights::read(&mini.exp("6-export/model.safetensors")).unwrap().tensors;
    let drawn = flowmill_weights::read(&graph).unwrap().tensors;
    let elements = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut compared = 0;
    for (name, tensor) in &weights {
        if let Some(own) = name.strip_prefix("decoder.estimator.") {
            assert_eq!(elements(&drawn[own]), elements(tensor), "{name}");
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared}");
    let first = fs::read(&graph).unwrap();
    mini.run(&asked).expect_up_to_date();
    fs::remove_file(&graph).unwrap();
    mini.run(&asked).expect_code(0);
    assert_eq!(fs::read(&graph).unwrap(), first);
    mini.run(&[]).expect_code(0);
    assert!(!graph.exists(), "it is not asked for any more");
}

#[test]
fn a_graph_is_refused_for_a_family_that_has_none() {
    let here = tempfile::tempdir().unwrap();
    let recipe = repository().join("recipes/float/smoke.yaml").display().to_string();
    let refused = flowmill(here.path(), &["recipe", "check", &recipe, "--set", "export.write_onnx=true"]);
    refused.expect_code(2).expect_words(&["export.write_onnx", "family float"]);
}

#[test]
fn the_card_says_whether_public_inference_code_can_use_the_weights() {
    let mini = Mini::finished();
    let card = || fs::read_to_string(mini.exp("6-export/README.md")).unwrap();
    for words in
        ["Not for public inference code as is", "`train.normalise_mel`", "`mel_normalisation` in `config.json`"]
    {
        assert!(card().contains(words), "{}", card());
    }
    mini.forget_training();
    mini.run(&["--set", "train.normalise_mel=false"]).expect_code(0);
    // The miniature model is smaller than the public classes can be.
    assert!(card().contains("`input_size` 16 (512 there)") && !card().contains("normalise_mel`"), "{}", card());
}

#[test]
fn what_cannot_be_converted_is_one_clear_error() {
    let here = tempfile::tempdir().unwrap();
    let convert = |arguments: &[&str]| flowmill(here.path(), &[&["convert"], arguments].concat());
    let checkpoint = golden("pt/cosyvoice2_flow_full.pt");
    convert(&[&checkpoint, "flow.onnx"]).expect_code(2).expect_words(&["flow.onnx", ".safetensors, .pt"]);
    convert(&[&golden("pt/utt2embedding.pt"), "x.pt"]).expect_code(1).expect_words(&["utt2embedding.pt"]);
    convert(&[&checkpoint, "x.pt", "--strip-prefix", "module."]).expect_code(1).expect_words(&["`module.`"]);
    convert(&[&checkpoint, "absent/x.pt"]).expect_code(1).expect_words(&["absent/x.pt"]);
    let whole = fs::read(&checkpoint).unwrap();
    fs::write(here.path().join("cut.pt"), &whole[..whole.len() / 2]).unwrap();
    convert(&["cut.pt", "x.pt"]).expect_code(1).expect_words(&["cut.pt", "truncated or modified"]);
    fs::write(here.path().join("empty.pt"), b"\x80\x02}.").unwrap();
    convert(&["empty.pt", "x.pt"]).expect_code(1).expect_words(&["empty.pt"]);
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 2, "something was written");
}

#[test]
fn several_conversions_to_one_target_leave_one_whole_file() {
    let here = tempfile::tempdir().unwrap();
    let sources = [golden("pt/cosyvoice2_flow_full.pt"), golden("campplus_small.onnx")];
    let whole = ["a.safetensors", "b.safetensors"].into_iter().zip(&sources).map(|(name, source)| {
        flowmill(here.path(), &["convert", source, name]).expect_code(0);
        fs::read(here.path().join(name)).unwrap()
    });
    let whole: Vec<Vec<u8>> = whole.collect();
    for _ in 0..5 {
        let running: Vec<_> = (0..6)
            .map(|index| {
                command(here.path(), &["convert", &sources[index % 2], "target.safetensors"])
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for process in running {
            assert!(process.wait_with_output().unwrap().status.success());
        }
        assert!(whole.contains(&fs::read(here.path().join("target.safetensors")).unwrap()), "a mixed file");
    }
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 3, "something is left");
}
