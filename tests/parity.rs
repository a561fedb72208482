//! Tests of `flowmill parity` on the golden files, and on copies that were tampered with.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::flowmill;
use crate::support::mini::golden;

const FLOW: &str = "cosyvoice2_flow_full.safetensors";

/// A safetensors file taken apart.
struct Parts {
    header: Value,
    data: Vec<u8>,
}

impl Parts {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        Self { header, data: bytes[8 + length..].to_vec() }
    }

    /// The bytes of a tensor.
    fn tensor(&mut self, name: &str) -> &mut [u8] {
        let offsets = &self.header[name]["data_offsets"];
        let at = |index: usize| offsets[index].as_u64().unwrap() as usize;
        &mut self.data[at(0)..at(1)]
    }

    fn set(&mut self, name: &str, element: usize, value: f32) {
        self.tensor(name)[4 * element..][..4].copy_from_slice(&value.to_le_bytes());
    }

    fn config(&self) -> Value {
        serde_json::from_str(self.header["__metadata__"]["config"].as_str().unwrap()).unwrap()
    }

    fn set_config(&mut self, config: &Value) {
        self.header["__metadata__"]["config"] = Value::String(config.to_string());
    }

    fn rename(&mut self, from: &str, to: &str) {
        let entry = self.header.as_object_mut().unwrap().remove(from).unwrap();
        self.header[to] = entry;
    }

    fn bytes(&self) -> Vec<u8> {
        let header = self.header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(&self.data);
        bytes
    }
}

/// Runs `parity` on a copy of a golden file after `change`.
fn tampered(file: &str, change: impl FnOnce(&mut Parts)) -> crate::support::Outcome {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = Parts::read(&golden(file));
    change(&mut parts);
    fs::write(folder.path().join("copy.safetensors"), parts.bytes()).unwrap();
    flowmill(folder.path(), &["parity", "copy.safetensors"]).expect_no_panic()
}

#[test]
fn every_golden_file_passes() {
    let mut files: Vec<_> = fs::read_dir(golden("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "safetensors"));
    files.sort();
    let arguments: Vec<&str> = ["parity"].into_iter().chain(files.iter().map(|file| file.to_str().unwrap())).collect();
    let shown = flowmill(&golden(""), &arguments).expect_code(0);
    let verdicts = shown.stdout.lines().filter(|line| !line.starts_with(' '));
    assert_eq!(verdicts.filter(|line| line.ends_with("PASS")).count(), files.len(), "{}", shown.stdout);
    assert!(!shown.stdout.contains("FAIL"), "{}", shown.stdout);
    shown.expect_words(&["cosyvoice2_flow", "features", "gradient", "2.0e-5", "2.0e-4"]);
}

/// The compositions that devices compute by: on the CPU here, and where the environment names a device on that.
#[test]
fn every_golden_file_passes_by_composition_and_on_a_device() {
    let mut files: Vec<_> = fs::read_dir(golden("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "safetensors"));
    files.sort();
    let files: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let device = std::env::var(flowmill_nn::testing::DEVICE).ok();
    for device in ["composition"].into_iter().chain(device.as_deref()) {
        let arguments = [&["parity", "--device", device], files.as_slice()].concat();
        let shown = flowmill(&golden(""), &arguments).expect_code(0);
        let verdicts = shown.stdout.lines().filter(|line| !line.starts_with(' '));
        assert_eq!(verdicts.filter(|line| line.ends_with("PASS")).count(), files.len(), "{}", shown.stdout);
    }
    // Not the CPU kernels: their results agree with the public implementations, but not to the last bit with each other.
    let errors = |device| flowmill(&golden(""), &["parity", "--all", "--device", device, FLOW]).expect_code(0).stdout;
    assert_ne!(errors("composition"), errors("cpu"));
    flowmill(&golden(""), &["parity", "--device", "gpu", FLOW]).expect_code(2);
}

#[test]
fn a_changed_weight_input_or_expectation_fails() {
    let weight = tampered(FLOW, |parts| parts.set("param.encoder_proj.bias", 3, 0.5));
    assert_eq!(weight.code, Some(1), "{}", weight.text());
    weight.expect_words(&["cosyvoice2_flow FAIL", "output", "out."]);
    let input = tampered(FLOW, |parts| parts.set("in.t", 0, 0.123));
    assert_eq!(input.code, Some(1), "{}", input.text());
    let gradient = tampered(FLOW, |parts| parts.set("grad.encoder_proj.bias", 0, 1.0));
    assert_eq!(gradient.code, Some(1), "{}", gradient.text());
    gradient.expect_words(&["FAIL  grad.encoder_proj.bias", "PASS  out."]);
    let trim = tampered("features.safetensors", |parts| parts.tensor("out.librosa_trim_index_top20")[0] ^= 1);
    assert_eq!(trim.code, Some(1), "{}", trim.text());
    trim.expect_words(&["exact", "out.librosa_trim_index_top20"]);
}

/// The public default of an encoder without chunks.
#[test]
fn a_chunk_size_of_zero_means_no_chunks() {
    let unchunked = |parts: &mut Parts| {
        let mut config = parts.config();
        config["encoder"]["static_chunk_size"] = json!(0);
        config["estimator"]["static_chunk_size"] = json!(0);
        config["streaming"] = json!(true);
        parts.set_config(&config);
    };
    // What was computed without masks is what streaming without chunks gives; what was computed with them is not.
    for file in [FLOW, "cosyvoice3_flow_full.safetensors", "step_audio_flow.safetensors"] {
        tampered(file, unchunked).expect_code(0).expect_words(&["PASS"]);
    }
    for file in ["cosyvoice2_flow_stream.safetensors", "cosyvoice3_flow_stream.safetensors"] {
        tampered(file, unchunked).expect_code(1).expect_words(&["FAIL"]);
    }
}

#[test]
fn files_that_cannot_be_checked_say_why() {
    let transpose = |parts: &mut Parts, name: &str| parts.header[name]["shape"].as_array_mut().unwrap().reverse();
    let resize = |parts: &mut Parts, key: &str, size: Value| {
        let mut config = parts.config();
        *config.pointer_mut(key).unwrap() = size;
        parts.set_config(&config);
    };
    type Change<'a> = Box<dyn FnOnce(&mut Parts) + 'a>;
    let cases: Vec<(Change, &[&str])> = vec![
        (Box::new(|parts| parts.data.truncate(1000)), &["not a whole safetensors file"]),
        (Box::new(|parts| parts.set("param.encoder_proj.bias", 5, f32::NAN)), &["param.encoder_proj.bias", "NaN"]),
        (Box::new(|parts| parts.set("out.encoder", 0, f32::INFINITY)), &["out.encoder", "inf"]),
        (
            Box::new(|parts| transpose(parts, "param.encoder.encoders.0.feed_forward.w_2.weight")),
            &["feed_forward.w_2.weight", "[32, 64]", "[64, 32]"],
        ),
        (Box::new(|parts| transpose(parts, "in.speech_feat")), &["in.speech_feat", "[16, 26, 3]"]),
        (Box::new(|parts| transpose(parts, "out.infer_mel")), &["out.infer_mel", "[18, 16, 1]", "[1, 16, 18]"]),
        (Box::new(|parts| transpose(parts, "grad.encoder_proj.weight")), &["grad.encoder_proj.weight"]),
        (Box::new(|parts| parts.rename("out.encoder", "out.other")), &["out.other", "cosyvoice2_flow"]),
        (Box::new(|parts| parts.rename("grad.encoder_proj.bias", "grad.x")), &["grad.x"]),
        (Box::new(|parts| parts.rename("param.encoder_proj.bias", "param.x")), &["encoder_proj.bias", "`x`"]),
        (Box::new(|parts| parts.rename("in.t", "in.time")), &["`in.t` is missing"]),
        (Box::new(|parts| parts.tensor("in.speech_token_len")[7] = 0xff), &["in.speech_token_len", "-"]),
        (Box::new(|parts| parts.tensor("in.speech_token_len")[3] = 1), &["tokens"]),
        (Box::new(|parts| parts.tensor("in.speech_token")[1] = 1), &["outside of a table of 50"]),
        (Box::new(|parts| resize(parts, "/vocab_size", json!(1u64 << 40))), &["param.input_embedding.weight"]),
        (Box::new(|parts| resize(parts, "/encoder/num_blocks", json!(1u64 << 40))), &["param.encoder.encoders."]),
        (Box::new(|parts| resize(parts, "/estimator/num_heads", json!(u64::MAX))), &["to_q.weight"]),
        (
            Box::new(|parts| resize(parts, "/estimator/channels", json!([32, 48]))),
            &["param.decoder.estimator.down_blocks.1."],
        ),
        (Box::new(|parts| resize(parts, "/n_timesteps", json!(1u64 << 60))), &["config.n_timesteps"]),
        (Box::new(|parts| resize(parts, "/prompt_token_len", json!(500))), &["config.prompt_token_len"]),
        (Box::new(|parts| resize(parts, "/input_size", json!("many"))), &["config.input_size", "many"]),
        (Box::new(|parts| resize(parts, "/streaming", json!("maybe"))), &["config.streaming", "maybe"]),
        (Box::new(|parts| resize(parts, "/model", json!("vall_f"))), &["vall_f", "cosyvoice2_flow", "features"]),
        (Box::new(|parts| parts.set_config(&json!({"steps": 50}))), &["not a golden file", "model"]),
        (Box::new(|parts| drop(parts.header["__metadata__"].take())), &["not a golden file"]),
    ];
    for (number, (change, words)) in cases.into_iter().enumerate() {
        let outcome = tampered(FLOW, change);
        assert_eq!(outcome.code, Some(2), "case {number} {words:?}: {}", outcome.text());
        assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
        assert_eq!(outcome.stderr.lines().count(), 1, "one clear error: {}", outcome.stderr);
        outcome.expect_words(words).expect_words(&["error: copy.safetensors: "]);
    }
}

/// Optimizers and schedules are the trainer's, and checked by the same command.
#[test]
fn optimizers_are_checked_too() {
    const FILE: &str = "optimisers_schedules.safetensors";
    let good = tampered(FILE, |_| {}).expect_code(0);
    good.expect_words(&["optimizers PASS", "optimizer", "clipping", "schedule", "2.0e-5"]);
    let set = |key: &'static str, value: Value| {
        move |parts: &mut Parts| {
            let mut config = parts.config();
            *config.pointer_mut(key).unwrap() = value;
            parts.set_config(&config);
        }
    };
    let decay = tampered(FILE, set("/optimisers/adamw/weight_decay", json!(0.2))).expect_code(1);
    decay.expect_words(&["optimizers FAIL", "out.adamw."]);
    let gradient = tampered(FILE, |parts| parts.set("in.grad_vector", 0, 3.0)).expect_code(1);
    gradient.expect_words(&["optimizers FAIL"]);
    let unknown = tampered(FILE, set("/optimisers/muon/library", json!("torch.optim.Lion"))).expect_code(2);
    unknown.expect_words(&["config.optimisers.muon.library", "Lion"]);
    let more = tampered(FILE, set("/steps", json!(1u64 << 60))).expect_code(2);
    more.expect_words(&["in.grad_matrix", "51"]);
    let unchecked = tampered(FILE, |parts| parts.rename("out.muon.matrix", "out.moon.matrix")).expect_code(2);
    unchecked.expect_words(&["out.moon.matrix"]);
    let missing = tampered(FILE, |parts| parts.rename("out.schedule.constant", "in.constant")).expect_code(2);
    missing.expect_words(&["`out.schedule.constant`"]);
}

#[test]
fn a_file_that_cannot_be_checked_does_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("words.txt"), "no tensors here").unwrap();
    let file = golden(FLOW);
    let arguments = ["parity", "words.txt", "nowhere.safetensors", "--all", file.to_str().unwrap()];
    let shown = flowmill(folder.path(), &arguments).expect_code(2);
    shown.expect_words(&["words.txt: ", "nowhere.safetensors: ", "cosyvoice2_flow PASS", "grad.encoder_proj.bias"]);
    flowmill(folder.path(), &["parity"]).expect_code(2).expect_words(&["FILE"]);
}
