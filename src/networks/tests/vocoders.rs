//! Vocoders with the small random weights of the golden files: long mels, wrong weights and wrong settings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use flowmill_audio::features::{Features, MelConfig};
use flowmill_networks::vocoders::hifigan::{Hifigan, HifiganSettings};
use flowmill_networks::vocoders::hift::{Hift, HiftSettings, SourceDraws};
use flowmill_networks::vocoders::vocos::{Vocos, VocosSettings};
use flowmill_networks::vocoders::{self, Vocoder, VocoderError, VocoderKind};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Value, host};
use serde_json::json;

fn golden(name: &str) -> BTreeMap<String, Tensor> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden");
    let file = flowmill_weights::read(&PathBuf::from(folder).join(format!("{name}.safetensors"))).unwrap();
    let weight = |(name, tensor): (String, Tensor)| Some((name.strip_prefix("param.")?.to_owned(), tensor));
    file.tensors.into_iter().filter_map(weight).collect()
}

/// A mel that is longer than a piece.
fn mel(vocoder: &dyn Vocoder) -> Features {
    let form = vocoder.mel_form();
    let frames = 20 * form.sample_rate as usize / form.hop_length + 61;
    let values = RngKey::new(3).purpose("mel").normals(frames * form.n_mels);
    Features::new(values, frames, form.n_mels).unwrap()
}

fn value(mel: &Features) -> Value {
    Value::from_vec(mel.data.clone(), &[mel.frames, mel.bins]).unwrap()
}

#[track_caller]
fn agree(pieces: &[f32], whole: &[f32]) {
    assert_eq!(pieces.len(), whole.len());
    let peak = whole.iter().fold(0f32, |peak, sample| peak.max(sample.abs()));
    let worst = pieces.iter().zip(whole).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    println!("{} samples, peak {peak}, worst {worst:e}", whole.len());
    assert!(peak > 1e-3 && worst <= 1e-5 * peak, "peak {peak}, worst {worst:e}");
}

fn hift_settings(sampling_rate: u32) -> HiftSettings {
    HiftSettings { sampling_rate: Some(sampling_rate), ..HiftSettings::default() }
}

#[test]
fn the_pieces_of_a_long_mel_make_the_whole() {
    let rng_key = RngKey::new(8);
    for name in ["hifigan", "hifigan_v3"] {
        let vocoder = Hifigan::new(golden(name), &HifiganSettings::default(), &Device::Cpu).unwrap();
        let mel = mel(&vocoder);
        agree(&vocoder.vocode(&mel, &rng_key).unwrap(), &vocoder.decode(&value(&mel)).unwrap());
    }
    for (name, rate) in [("hift", 24_000), ("hift_22k", 22_050)] {
        let vocoder = Hift::new(golden(name), &hift_settings(rate), &Device::Cpu).unwrap();
        let mel = mel(&vocoder);
        let pitch = vocoder.pitch(&value(&mel)).unwrap();
        let source = vocoder.source().signal(&pitch, &SourceDraws::Seeded(rng_key)).unwrap();
        let sound = vocoder.vocode(&mel, &rng_key).unwrap();
        agree(&sound, &vocoder.decode(&value(&mel), &source).unwrap());
        assert_eq!(sound.len(), mel.frames * vocoder.mel_form().hop_length);
        assert_ne!(sound, vocoder.vocode(&mel, &RngKey::new(9)).unwrap(), "another seed gives another noise");
    }
    let vocoder = Vocos::new(golden("vocos_mel"), &VocosSettings::default(), &Device::Cpu).unwrap();
    let mel = mel(&vocoder);
    agree(&vocoder.vocode(&mel, &rng_key).unwrap(), &vocoder.decode(&value(&mel), 0).unwrap());
}

#[test]
fn a_mel_in_parts_sounds_like_the_whole() {
    let rng_key = RngKey::new(8);
    let vocoders: [Box<dyn Vocoder>; 4] = [
        Box::new(Hifigan::new(golden("hifigan"), &HifiganSettings::default(), &Device::Cpu).unwrap()),
        Box::new(Hift::new(golden("hift"), &hift_settings(24_000), &Device::Cpu).unwrap()),
        Box::new(Hift::new(golden("hift_22k"), &hift_settings(22_050), &Device::Cpu).unwrap()),
        Box::new(Vocos::new(golden("vocos_mel"), &VocosSettings::default(), &Device::Cpu).unwrap()),
    ];
    for vocoder in vocoders {
        let (bands, frames) = (vocoder.mel_form().n_mels, 150);
        let data: Vec<f32> = RngKey::new(3).normals(frames * bands).iter().map(|x| x - 4.0).collect();
        let whole = Features::new(data.clone(), frames, bands).unwrap();
        let whole = vocoder.vocode(&whole, &rng_key).unwrap();
        for parts in [vec![150], vec![70, 80], vec![1, 2, 30, 60, 7, 50, 0], vec![40, 40, 40, 30]] {
            let (mut stream, mut from, mut samples) = (vocoder.stream(&rng_key), 0, Vec::new());
            for (number, part) in parts.iter().enumerate() {
                let mel = Features::new(data[from * bands..(from + part) * bands].to_vec(), *part, bands).unwrap();
                samples.extend(stream.push(&mel, number + 1 == parts.len()).unwrap());
                from += part;
            }
            agree(&samples, &whole);
        }
        let other = Features::new(vec![0.0; bands + 1], 1, bands + 1).unwrap();
        assert!(matches!(vocoder.stream(&rng_key).push(&other, true), Err(VocoderError::Mel(_))));
    }
}

#[test]
fn short_mels_are_decoded_and_other_ones_refused() {
    let rng_key = RngKey::new(8);
    let vocoders: [Box<dyn Vocoder>; 3] = [
        Box::new(Hifigan::new(golden("hifigan"), &HifiganSettings::default(), &Device::Cpu).unwrap()),
        Box::new(Hift::new(golden("hift"), &hift_settings(24_000), &Device::Cpu).unwrap()),
        Box::new(Vocos::new(golden("vocos_mel"), &VocosSettings::default(), &Device::Cpu).unwrap()),
    ];
    for vocoder in vocoders {
        let bands = vocoder.mel_form().n_mels;
        for frames in 0..4 {
            let mel = Features::new(vec![-4.0; frames * bands], frames, bands).unwrap();
            let samples = vocoder.vocode(&mel, &rng_key).unwrap().len();
            assert!(samples <= frames * vocoder.mel_form().hop_length);
        }
        for (frames, bins, value) in [(2, bands + 1, 0.0), (2, bands, f32::INFINITY)] {
            let mel = Features::new(vec![value; frames * bins], frames, bins).unwrap();
            assert!(matches!(vocoder.vocode(&mel, &rng_key), Err(VocoderError::Mel(_))));
        }
        assert!(vocoder.mel_form().check(&MelConfig::step_audio()).is_err());
    }
    let vocoder = Vocos::new(golden("vocos_encodec"), &VocosSettings { codes: 32, ..Default::default() }, &Device::Cpu);
    let vocoder = vocoder.unwrap();
    let mel = Features::new(vec![0.0; 48], 2, 24).unwrap();
    let error = vocoder.vocode(&mel, &rng_key).unwrap_err().to_string();
    assert!(error.contains("codes of EnCodec"), "{error}");
    for codes in [vec![], vec![vec![32]], vec![vec![0], vec![0, 1]], vec![vec![0]; 5]] {
        assert!(vocoder.features_of_codes(&codes).is_err(), "{codes:?}");
    }
    let features = vocoder.features_of_codes(&[vec![1, 2, 3]]).unwrap();
    assert!(vocoder.decode(&features, 3).is_ok() && vocoder.decode(&features, 4).is_err());
}

#[test]
fn damaged_weights_are_refused() {
    type Load = fn(BTreeMap<String, Tensor>) -> Result<(), VocoderError>;
    let kinds: [(&str, Load); 4] = [
        ("hifigan_v3", |tensors| Hifigan::new(tensors, &HifiganSettings::default(), &Device::Cpu).map(|_| ())),
        ("hift_22k", |tensors| Hift::new(tensors, &hift_settings(22_050), &Device::Cpu).map(|_| ())),
        ("vocos_mel", |tensors| Vocos::new(tensors, &VocosSettings::default(), &Device::Cpu).map(|_| ())),
        ("vocos_encodec", |tensors| {
            Vocos::new(tensors, &VocosSettings { codes: 32, ..Default::default() }, &Device::Cpu).map(|_| ())
        }),
    ];
    for (name, load) in kinds {
        let whole = golden(name);
        load(whole.clone()).unwrap();
        for (lost, tensor) in &whole {
            let optional = ["window", "mel_scale", "codebook", "gamma"].iter().any(|part| lost.contains(part));
            let mut tensors = whole.clone();
            tensors.remove(lost);
            assert!(optional || load(tensors.clone()).is_err(), "{name} without {lost}");
            // One element more than the tensor has, and none.
            for count in [tensor.elem_count() + 1, 0] {
                tensors.insert(lost.clone(), host::tensor(vec![0.5; count], &[count]).unwrap());
                assert!(load(tensors.clone()).is_err(), "{name} with {lost} of {count}");
            }
        }
        let mut tensors = whole.clone();
        tensors.insert("zz.weight".to_owned(), host::tensor(vec![1.0], &[1]).unwrap());
        assert!(load(tensors).unwrap_err().to_string().contains("`zz.weight`"));
        assert!(load(BTreeMap::new()).is_err());
    }
}

#[test]
fn checkpoints_with_discriminators_have_a_generator() {
    let plain = Hifigan::new(golden("hifigan"), &HifiganSettings::default(), &Device::Cpu).unwrap();
    let mut tensors: BTreeMap<String, Tensor> =
        golden("hifigan").into_iter().map(|(name, tensor)| (format!("generator.{name}"), tensor)).collect();
    tensors.insert("discriminator.bias".to_owned(), host::tensor(vec![1.0], &[1]).unwrap());
    let prefixed = Hifigan::new(tensors, &HifiganSettings::default(), &Device::Cpu).unwrap();
    let mel = Features::new(vec![-2.0; 800], 10, 80).unwrap();
    let [one, other] = [plain, prefixed].map(|vocoder| vocoder.decode(&value(&mel)).unwrap());
    assert_eq!(one, other);
}

#[test]
fn a_file_of_another_vocoder_or_other_settings_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let path = folder.path().join(name);
        let tensors: Vec<(String, Tensor)> = golden(name).into_iter().collect();
        flowmill_weights::write(&path, &tensors, &BTreeMap::new()).unwrap();
        path
    };
    let (hift, hifigan, vocos) = (write("hift"), write("hifigan"), write("vocos_mel"));
    let refusal = |kind, path: &PathBuf, config: serde_json::Value| {
        vocoders::open(kind, path, &config, &Device::Cpu).err().map(|error| error.to_string()).unwrap_or_default()
    };
    for (kind, path, config, words) in [
        (VocoderKind::Hifigan, &hift, json!(null), "vocoder hift, not of hifigan"),
        (VocoderKind::Hift, &vocos, json!(null), "vocoder vocos, not of hift"),
        (VocoderKind::Vocos, &hifigan, json!(null), "vocoder hifigan, not of vocos"),
        (VocoderKind::Hifigan, &folder.path().join("nothing"), json!(null), "nothing"),
        (VocoderKind::Hifigan, &hifigan, json!({"hop_size": 300}), "hop_size is 300"),
        (VocoderKind::Hifigan, &hifigan, json!({"upsample_rates": [8, 8]}), "upsample_rates has 2"),
        (VocoderKind::Hifigan, &hifigan, json!({"upsample_rates": [8, 8, 2, 9]}), "upsampling by 9"),
        (VocoderKind::Hifigan, &hifigan, json!({"upsample_rates": [0, 8, 2, 2]}), "upsampling by 0"),
        (VocoderKind::Hifigan, &hifigan, json!({"resblock_dilation_sizes": [[1]]}), "has 1 lists"),
        (VocoderKind::Hifigan, &hifigan, json!({"sampling_rate": "fast"}), "configuration"),
        (
            VocoderKind::Hifigan,
            &hifigan,
            json!({"resblock_dilation_sizes": [[1, 3, 1_000_000], [1, 3, 5], [1, 3, 5]]}),
            "1000000",
        ),
        (VocoderKind::Hift, &hift, json!({"audio_limit": -1}), "audio_limit"),
        (VocoderKind::Hift, &hift, json!({"sampling_rate": 0}), "sampling_rate"),
        (VocoderKind::Hift, &hift, json!({"istft_params": {"hop_len": 16}}), "hop_length"),
        (VocoderKind::Vocos, &vocos, json!({"head": {"hop_length": 128}}), "hop_length"),
    ] {
        let error = refusal(kind, path, config.clone());
        assert!(error.contains(words), "{kind:?} {config}: {error:?}");
    }
    assert_eq!(refusal(VocoderKind::Hift, &hift, json!({"sampling_rate": 24_000})), "");
}
