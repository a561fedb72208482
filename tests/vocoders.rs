//! Neural vocoders and files of mels through the binary: `flowmill synth` with weights that a test draws.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use flowmill_nn::random::RngKey;

use crate::support::{Mini, flowmill};

/// Samples of a frame of the miniature model's mel.
const HOP: usize = 480;
/// Its mel bands.
const BANDS: usize = 80;

/// Writes random weights of a tiny HiFT for mels of 24 kHz, with the weight norms of the public files.
fn write_hift(path: &Path) {
    let mut shapes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut normed = |name: String, shape: [usize; 3], bias: usize| {
        shapes.insert(format!("{name}.parametrizations.weight.original0"), vec![shape[0], 1, 1]);
        shapes.insert(format!("{name}.parametrizations.weight.original1"), shape.to_vec());
        shapes.insert(format!("{name}.bias"), vec![bias]);
    };
    normed("conv_pre".to_owned(), [16, BANDS, 7], 16);
    normed("conv_post".to_owned(), [18, 2, 7], 18);
    for layer in 0..5 {
        let inputs = if layer == 0 { BANDS } else { 8 };
        normed(format!("f0_predictor.condnet.{}", 2 * layer), [8, inputs, 3], 8);
    }
    let mut snakes = Vec::new();
    for (level, taps, source_taps) in [(0, 16, 7), (1, 11, 7), (2, 7, 11)] {
        let (inputs, channels) = (16 >> level, 8 >> level);
        normed(format!("ups.{level}"), [inputs, channels, taps], channels);
        let own = [(3, 0), (7, 1), (11, 2)].map(|(taps, block)| (format!("resblocks.{}", 3 * level + block), taps));
        let source = (format!("source_resblocks.{level}"), source_taps);
        for (name, taps) in own.into_iter().chain([source]) {
            for (part, unit) in (1..=2).flat_map(|part| (0..3).map(move |unit| (part, unit))) {
                normed(format!("{name}.convs{part}.{unit}"), [channels, channels, taps], channels);
                snakes.push((format!("{name}.activations{part}.{unit}.alpha"), vec![channels]));
            }
        }
    }
    shapes.extend(snakes);
    for (level, channels, taps) in [(0, 8, 30), (1, 4, 6), (2, 2, 1)] {
        shapes.insert(format!("source_downs.{level}.weight"), vec![channels, 18, taps]);
        shapes.insert(format!("source_downs.{level}.bias"), vec![channels]);
    }
    for (name, inputs) in [("m_source.l_linear", 9), ("f0_predictor.classifier", 8)] {
        shapes.insert(format!("{name}.weight"), vec![1, inputs]);
        shapes.insert(format!("{name}.bias"), vec![1]);
    }
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values = RngKey::new(5).purpose(&name).normals(shape.iter().product());
        let values: Vec<f32> = values.into_iter().map(|value| 0.3 * value).collect();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    let tensors: Vec<(String, Tensor)> = shapes.into_iter().map(tensor).collect();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("pt") => flowmill_weights::write_torch(path, &tensors, &[]).unwrap(),
        _ => flowmill_weights::write(path, &tensors, &BTreeMap::new()).unwrap(),
    }
}

/// Writes the random weights of a golden file.
fn write_golden(name: &str, path: &Path) {
    let file = crate::support::mini::golden(&format!("{name}.safetensors"));
    let file = flowmill_weights::read(&file).unwrap();
    let weight = |(name, tensor): (String, Tensor)| Some((name.strip_prefix("param.")?.to_owned(), tensor));
    let tensors: Vec<(String, Tensor)> = file.tensors.into_iter().filter_map(weight).collect();
    flowmill_weights::write(path, &tensors, &BTreeMap::new()).unwrap();
}

fn samples(path: &Path) -> Vec<f32> {
    flowmill_audio::decode_file(path).unwrap().mono()
}

#[test]
fn a_recording_becomes_mels_and_the_sound_of_neural_vocoders() {
    let mini = Mini::finished();
    let model = mini.exp("6-export").display().to_string();
    let recording = mini.recording("1688-142285-0002").display().to_string();
    let synth = |more: &[&str]| {
        let arguments = [&["synth", "--model", &model, "--wav", &recording, "--steps", "2"], more].concat();
        flowmill(mini.folder(), &arguments)
    };
    let file = |name: &str| mini.path(name);

    let mut mels: Vec<(Vec<usize>, Vec<f32>)> = Vec::new();
    for name in ["mel.npy", "mel.pt", "mel.safetensors"] {
        synth(&["--out", "plain", "--mel", name]).expect_code(0).expect_words(&[name]);
        let mel = flowmill_weights::read(&file(name)).unwrap().tensors.remove("mel").unwrap();
        mels.push((mel.dims().to_vec(), mel.flatten_all().unwrap().to_vec1().unwrap()));
    }
    assert!(mels.iter().all(|mel| *mel == mels[0]));
    let frames = mels[0].0[1];
    assert_eq!(mels[0].0, [BANDS, frames]);
    let plain = samples(&file("plain/1688-142285-0002.wav"));
    assert_eq!(plain.len(), frames * HOP);

    let made = |folder: &str| file(&format!("{folder}/1688-142285-0002.wav"));
    for name in ["hift.pt", "hift.safetensors"] {
        write_hift(&file(name));
        synth(&["--out", &format!("by-{name}"), "--vocoder", "hift", "--vocoder-weights", name]).expect_code(0);
    }
    let hift = samples(&made("by-hift.pt"));
    assert_eq!(hift.len(), plain.len());
    assert!(hift.iter().any(|sample| sample.abs() > 1e-4) && hift != plain);
    assert_eq!(fs::read(made("by-hift.pt")).unwrap(), fs::read(made("by-hift.safetensors")).unwrap());

    // A stream has the same sound, apart from the rounding of the file and the start, where the volume may fall.
    let stream = ["--out", "stream", "--vocoder", "hift", "--vocoder-weights", "hift.pt", "--window", "30"];
    synth(&stream).expect_code(0);
    assert_eq!(samples(&made("stream")), hift);
    let stream = ["--out", "stream", "--vocoder", "hift", "--vocoder-weights", "hift.pt", "--chunk", "30"];
    synth(&stream).expect_code(0);
    let apart = samples(&made("stream")).iter().zip(&hift).skip(240).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-3, "{apart}");

    write_golden("hifigan", &file("hifigan.safetensors"));
    write_golden("vocos_mel", &file("vocos.safetensors"));
    fs::write(file("config.yaml"), "head:\n  class_path: vocos.heads.IMDCTCosHead\n").unwrap();
    fs::write(file("fast.json"), r#"{"sampling_rate": 24000, "hop_size": 256, "n_fft": 1920}"#).unwrap();
    let hifigan = ["--vocoder", "hifigan", "--vocoder-weights", "hifigan.safetensors"];
    for (arguments, code, words) in [
        (hifigan.to_vec(), 1, &["22050 Hz instead of 24000 Hz", "hop 256 samples instead of 480"][..]),
        ([&hifigan[..], &["--vocoder-config", "fast.json"]].concat(), 1, &["hop 256 samples instead of 480"]),
        ([&hifigan[..], &["--vocoder-config", "none.json"]].concat(), 1, &["none.json"]),
        (vec!["--vocoder", "vocos", "--vocoder-weights", "vocos.safetensors"], 1, &["head.class_path", "ISTFTHead"]),
        (vec!["--vocoder", "vocos", "--vocoder-weights", "hift.pt"], 1, &["hift.pt", "vocoder hift"]),
        (vec!["--vocoder", "hifigan", "--vocoder-weights", "hift.pt"], 1, &["hift.pt", "vocoder hift"]),
        (vec!["--vocoder", "hift", "--vocoder-weights", "recipe.yaml"], 1, &["recipe.yaml"]),
        (vec!["--vocoder", "hift"], 2, &["--vocoder-weights FILE"]),
        (vec!["--vocoder-weights", "hift.pt"], 2, &["--vocoder hift"]),
        (vec!["--mel", "mel.wav"], 2, &["mel.wav", ".npy"]),
        (vec!["--mel", "nowhere/mel.npy"], 1, &["nowhere/mel.npy"]),
        (vec!["--mel", "mel.npy", "--wav", "other.wav"], 2, &["one recording"]),
    ] {
        synth(&arguments).expect_code(code).expect_words(words);
    }
}
