//! The extractors of FLOAT with the small models of the golden files as their weights. `flowmill parity` compares their numbers with the
//! golden files.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use flowmill_corpus::Role;
use flowmill_extract::extractors::lia::{self, LiaRenderer};
use flowmill_extract::extractors::{registry, wav2vec2};
use flowmill_extract::{ExtractError, Extracted, Extractor, Fitted, Media, MediaError, Scope, StateError};
use flowmill_nn::random::RngKey;
use flowmill_video::{Frame, write};
use serde_json::{Value, json};

use crate::speech::chosen;

/// The weights in a golden file, behind a prefix.
fn weights(name: &str, prefix: &str) -> BTreeMap<String, Tensor> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name);
    let tensors = flowmill_weights::read(&path).unwrap().tensors;
    let weight = |(name, tensor): (String, Tensor)| Some((format!("{prefix}{}", name.strip_prefix("param.")?), tensor));
    tensors.into_iter().filter_map(weight).collect()
}

/// Writes a file that holds all modules, as FLOAT's does.
fn write_all(folder: &Path) {
    let mut all = weights("wav2vec2_base.safetensors", "audio_encoder.wav2vec2.");
    all.extend(weights("float_emotion.safetensors", "emotion_encoder.wav2vec2_for_emotion."));
    all.extend(weights("float_decoder.safetensors", "motion_autoencoder."));
    all.extend(weights("float_fmt.safetensors", "fmt."));
    let all: Vec<(String, Tensor)> = all.into_iter().collect();
    flowmill_weights::write(&folder.join("float.safetensors"), &all, &BTreeMap::new()).unwrap();
}

fn fit(config: &Value, root: &Path) -> Result<Fitted, StateError> {
    let config = chosen(config).unwrap();
    config.check().unwrap();
    let fit = config.fit(7, root).unwrap();
    fit.finish(&fit.accumulator(Scope::Whole).into_state())
}

fn speech_of(samples: Vec<f32>) -> Media {
    Media::audio(move || {
        Ok::<_, String>(flowmill_audio::Audio {
            samples: vec![samples.clone()],
            sample_rate: 16_000,
            warnings: Vec::new(),
        })
    })
}

fn checked(extractor: &dyn Extractor, media: &Media) -> Extracted {
    let extracted = extractor.extract(media).unwrap();
    extracted.check(extractor.kind(), &extractor.columns()).unwrap();
    extracted
}

#[test]
fn speech_and_emotion_come_from_modules_of_one_file() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path());
    let config = json!({
        "kind": "wav2vec2", "weights": "float.safetensors", "emotion_weights": "float.safetensors",
        "hidden_size": 32, "layers": 2, "heads": 4,
    });
    let fitted = fit(&config, folder.path()).unwrap();
    let extractor = registry().open(&fitted.state, &Device::Cpu).unwrap();
    assert_eq!(extractor.columns(), chosen(&config).unwrap().columns());
    let samples = RngKey::new(1).normals(16_000);
    let values = checked(&*extractor, &speech_of(samples.clone())).into_arrays();
    assert_eq!([values[0].shape(), values[1].shape()], [&[25, 64][..], &[7]]);
    let sum: f32 = values[1].values::<f32>().unwrap().iter().sum();
    assert!((sum - 1.0).abs() < 1e-5);

    // The same as the network alone; the level of the recording does not matter.
    let checkpoint = wav2vec2::Checkpoint::of_encoder(weights("wav2vec2_base.safetensors", "")).unwrap();
    let encoder = wav2vec2::Wav2Vec2::new(&checkpoint, Some(4), &Device::Cpu).unwrap();
    let scaled: Vec<f32> = samples.iter().map(|x| 0.25 * x).collect();
    let expected = encoder.features(&wav2vec2::normalized(&scaled), 25, false).unwrap();
    let found = values[0].values::<f32>().unwrap();
    assert!(found.iter().zip(expected.as_slice()).all(|(a, b)| (a - b).abs() < 1e-3));
    let last = encoder.features(&wav2vec2::normalized(&samples), 25, true).unwrap();
    assert!((0..25).all(|frame| {
        let row = &found[frame * 64 + 32..(frame + 1) * 64];
        row.iter().zip(last.row(frame)).all(|(a, b)| (a - b).abs() < 1e-4)
    }));
    let short = extractor.extract(&speech_of(vec![0.1; 399]));
    assert!(matches!(short, Err(ExtractError::TooShort { .. })));
    checked(&*extractor, &speech_of(vec![0.0; 400]));
}

#[test]
fn random_weights_try_a_run_and_wrong_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path());
    let small = json!({
        "kind": "wav2vec2", "weights": "random", "emotion_weights": "random", "hidden_size": 16, "layers": 1,
        "only_last_features": true, "fps": 50.0,
    });
    let state = fit(&small, folder.path()).unwrap().state;
    let extractor = registry().open(&state, &Device::Cpu).unwrap();
    let values = checked(&*extractor, &speech_of(RngKey::new(1).normals(8000))).into_arrays();
    assert_eq!(values[0].shape(), [25, 16]);
    let published = json!({"kind": "wav2vec2", "weights": "float.safetensors"});
    assert!(matches!(fit(&published, folder.path()), Err(StateError::Format { .. })));
    let published = json!({"kind": "lia-motion", "weights": "float.safetensors"});
    assert!(matches!(fit(&published, folder.path()), Err(StateError::Format { .. })));
    for (field, value) in [("fps", json!(0.0)), ("heads", json!(3)), ("layers", json!(0)), ("weights", Value::Null)] {
        let mut config = small.clone();
        config[field] = value;
        assert_eq!(chosen(&config).unwrap().check().unwrap_err().field, field);
    }
    let size = json!({"kind": "lia-motion", "weights": "random", "frames": {"size": 48}});
    assert_eq!(chosen(&size).unwrap().check().unwrap_err().field, "frames.size");
}

/// A square of 64 pixels whose ramp moves.
fn frame(at: u8) -> Frame {
    let rgb = (0..64 * 64).flat_map(|pixel| [(pixel % 64 * 3) as u8, (pixel / 64 * 2) as u8 + at, 100]);
    Frame { width: 64, height: 64, rgb: rgb.collect() }
}

#[test]
fn the_motion_of_a_video_is_that_of_its_frames_and_can_be_rendered() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path());
    let config = json!({
        "kind": "lia-motion", "weights": "float.safetensors", "channels": 24, "frames": {"size": 64, "crop": "given"},
    });
    let fitted = fit(&config, folder.path()).unwrap();
    let extractor = registry().open(&fitted.state, &Device::Cpu).unwrap();
    assert_eq!(extractor.columns(), chosen(&config).unwrap().columns());
    let frames: Vec<Frame> = (0..5).map(|at| frame(at * 20)).collect();
    let bytes = write::mp4(&frames, None, &write::WriteOptions::default()).unwrap();
    let media = Media::default().with_files(move |role| match role {
        Role::Video => Ok::<_, MediaError>(vec![bytes.clone()]),
        _ => Ok(Vec::new()),
    });
    let values = checked(&*extractor, &media).into_arrays();
    assert_eq!([values[0].shape(), values[1].shape()], [&[5, 24][..], &[24]]);
    let motion = values[0].values::<f32>().unwrap();
    assert_eq!(values[1].values::<f32>().unwrap(), &motion[..24]);
    assert_ne!(motion[..24], motion[24..48]);
    assert!(matches!(extractor.extract(&Media::default()), Err(ExtractError::NoMedia { wanted: Role::Video, .. })));

    let checkpoint = lia::Checkpoint::of_state_dict(weights("float_decoder.safetensors", "any.")).unwrap();
    let renderer = LiaRenderer::new(&checkpoint).unwrap();
    assert_eq!([renderer.picture_size(), renderer.motion_size()], [64, 24]);
    let pictures = renderer.render(&frames[0].rgb, motion).unwrap();
    assert_eq!(pictures.iter().map(Vec::len).collect::<Vec<_>>(), [64 * 64 * 3; 5]);
    assert_eq!(renderer.reference(&frames[0].rgb).unwrap().len(), 24);
    assert!(renderer.render(&frames[0].rgb, &motion[1..]).is_err());
    assert!(renderer.render(&frames[0].rgb[1..], motion).is_err());
    let encoder_only = lia::Checkpoint::of_state_dict(weights("float_motion_encoder.safetensors", "")).unwrap();
    assert!(LiaRenderer::new(&encoder_only).is_err());
}
