//! PMG: gradients of the soft prompts through frozen networks, recomputed blocks, frozen weights in files, and bad input.

use std::collections::BTreeMap;
use std::path::Path;

use flowmill_networks::llama::LlamaConfig;
use flowmill_networks::pmg::{Frozen, Pmg, PmgBatch, PmgConfig, PmgError, PmgSettings};
use flowmill_networks::pretrained::{PretrainedError, Role, map_weights};
use flowmill_networks::stable_diffusion::sampling::{Prediction, ScheduleConfig};
use flowmill_networks::stable_diffusion::{BlockType, PerLevel, UNetConfig};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Activation, Context, Gradients, Parameters, Tape, Value};

const VOCABULARY: usize = 40;

fn settings() -> PmgSettings {
    let llama = LlamaConfig {
        dim: 16,
        heads: 4,
        key_value_heads: 2,
        layers: 2,
        ffn: 24,
        activation: Activation::Silu,
        epsilon: 1e-5,
        rotary_base: 10_000.0,
        attention_dropout: 0.0,
    };
    let unet = UNetConfig {
        sample_size: 4,
        block_out_channels: vec![8, 16],
        down_block_types: vec![BlockType::CrossAttnDownBlock2D, BlockType::DownBlock2D],
        up_block_types: vec![BlockType::UpBlock2D, BlockType::CrossAttnUpBlock2D],
        layers_per_block: 1,
        cross_attention_dim: 12,
        attention_head_dim: PerLevel::All(2),
        norm_num_groups: 4,
        ..UNetConfig::default()
    };
    let prompts = PmgConfig { max_sequence_length: 12, num_prefix_prompt: 3, ..PmgConfig::default() };
    PmgSettings { prompts, llama, vocabulary: VOCABULARY, unet, schedule: ScheduleConfig::default() }
}

fn value(name: &str, shape: &[usize]) -> Value {
    Value::from_vec(RngKey::new(5).purpose(name).normals(shape.iter().product()), shape).unwrap()
}

fn batch() -> PmgBatch {
    PmgBatch {
        texts: vec![vec![1, 7, 30, 2], vec![1, 39, 5, 6, 8, 11, 3]],
        latents: value("latents", &[2, 4, 4, 4]),
        noise: value("noise", &[2, 4, 4, 4]),
        steps: vec![3, 870],
    }
}

/// The loss of the batch and its gradients.
fn train(model: &Pmg, parameters: &Parameters, checkpoints: bool) -> (f32, Gradients) {
    let tape = Tape::new();
    let context = Context::training(parameters, &tape, RngKey::new(2)).with_checkpoints(checkpoints);
    let found = model.loss(&context, &batch()).unwrap();
    (found.loss.scalar().unwrap(), tape.backward(&found.loss).unwrap())
}

fn elements(gradients: &Gradients) -> Vec<Vec<f32>> {
    gradients.iter().map(|(_, gradient)| gradient.flatten_all().unwrap().to_vec1().unwrap()).collect()
}

#[test]
fn every_soft_prompt_and_nothing_else_gets_a_gradient() {
    for prefix_hidden_size in [None, Some(5)] {
        let mut settings = settings();
        settings.prompts.prefix_hidden_size = prefix_hidden_size;
        let (model, parameters) = Pmg::new(&settings, Frozen::Seeded, 1).unwrap();
        let (loss, gradients) = train(&model, &parameters, false);
        assert!(loss.is_finite());
        let trained: Vec<&str> = parameters.trainable_ids().map(|id| parameters.name(id)).collect();
        assert_eq!(trained.len(), if prefix_hidden_size.is_some() { 8 } else { 4 });
        assert_eq!(gradients.len(), trained.len());
        for (id, gradient) in gradients.iter() {
            let largest = gradient.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(largest > 0.0 && largest.is_finite(), "{}: {largest}", parameters.name(id));
        }
        // Recomputed blocks have the same gradients, bit for bit.
        let (again, recomputed) = train(&model, &parameters, true);
        assert_eq!((again, elements(&recomputed)), (loss, elements(&gradients)));
    }
}

#[test]
fn the_loss_follows_its_gradient() {
    let (model, mut parameters) = Pmg::new(&settings(), Frozen::Seeded, 1).unwrap();
    let (before, gradients) = train(&model, &parameters, false);
    let ids: Vec<_> = parameters.trainable_ids().collect();
    for id in ids {
        let step = (gradients.get(id).unwrap() * -0.05).unwrap();
        let moved = (parameters.tensor(id) + step).unwrap();
        parameters.set(id, moved).unwrap();
    }
    assert!(train(&model, &parameters, false).0 < before);
}

#[test]
fn velocities_are_another_target() {
    let mut settings = settings();
    let noise = Pmg::new(&settings, Frozen::Seeded, 1).unwrap();
    settings.schedule.prediction_type = Prediction::VPrediction;
    let velocity = Pmg::new(&settings, Frozen::Seeded, 1).unwrap();
    assert_ne!(train(&noise.0, &noise.1, false).0, train(&velocity.0, &velocity.1, false).0);
}

/// Writes the parameters of a frozen network under their published names.
fn write_folder(folder: &Path, role: Role, parameters: &Parameters) {
    let published = |(name, tensor): (String, candle_core::Tensor)| {
        let name = name.strip_prefix(role.prefix())?;
        let model = if role == Role::Llama { "model." } else { "" };
        Some((format!("{model}{name}"), tensor))
    };
    let weights: Vec<_> = parameters.named_tensors().into_iter().filter_map(published).collect();
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join("model.safetensors");
    std::fs::write(&path, flowmill_weights::to_bytes(&weights, &BTreeMap::new(), &path).unwrap()).unwrap();
}

#[test]
fn frozen_weights_may_stay_in_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let (model, parameters) = Pmg::new(&settings(), Frozen::Seeded, 1).unwrap();
    let (mapped_model, mut mapped) = Pmg::new(&settings(), Frozen::FromFiles, 1).unwrap();
    assert!(mapped.first_unfilled().is_some());
    for role in [Role::Llama, Role::UNet] {
        write_folder(&folder.path().join(role.prefix()), role, &parameters);
        map_weights(&folder.path().join(role.prefix()), role, &mut mapped).unwrap();
    }
    assert_eq!(mapped.first_unfilled(), None);
    let (expected, found) = (train(&model, &parameters, true), train(&mapped_model, &mapped, true));
    assert_eq!((found.0, elements(&found.1)), (expected.0, elements(&expected.1)));
}

#[test]
fn weights_of_another_network_are_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (_, parameters) = Pmg::new(&settings(), Frozen::Seeded, 1).unwrap();
    write_folder(folder.path(), Role::Llama, &parameters);
    let mut wider = settings();
    wider.llama.ffn = 28;
    wider.llama.layers = 3;
    let (_, mut mapped) = Pmg::new(&wider, Frozen::FromFiles, 1).unwrap();
    match map_weights(folder.path(), Role::Llama, &mut mapped) {
        Err(PretrainedError::Mismatch { report, .. }) => {
            assert_eq!((report.mismatched.len(), report.missing.len(), report.extra.len()), (6, 9, 0));
        }
        other => panic!("{other:?}"),
    }
    let missing = map_weights(&folder.path().join("none"), Role::UNet, &mut mapped);
    assert!(matches!(missing, Err(PretrainedError::Weights(_))));
}

#[test]
fn texts_that_do_not_fit_are_refused() {
    let (model, parameters) = Pmg::new(&settings(), Frozen::Seeded, 1).unwrap();
    let context = Context::inference(&parameters);
    // 11 tokens and 2 image prompts, where 12 fit.
    let long = model.conditions(&context, &[vec![1], vec![1; 11]]);
    assert!(matches!(long, Err(PmgError::TooLong { item: 1, tokens: 11, limit: 12, excess: 1, .. })));
    assert!(matches!(model.conditions(&context, &[vec![]]), Err(PmgError::Empty { item: 0 })));
    assert!(matches!(model.conditions(&context, &[vec![VOCABULARY as u32]]), Err(PmgError::Nn(_))));
    let steps = PmgBatch { steps: vec![3, 1000], ..batch() };
    assert!(model.loss(&context, &steps).is_err());
    let sizes = PmgBatch { latents: value("odd", &[2, 3, 4, 4]), noise: value("odd", &[2, 3, 4, 4]), ..batch() };
    assert!(model.loss(&context, &sizes).is_err());
}

#[test]
fn settings_that_do_not_fit_are_refused_by_their_names() {
    for (field, change) in [
        ("num_image_prompt", (|config: &mut PmgConfig| config.num_image_prompt = 0) as fn(&mut PmgConfig)),
        ("num_prefix_prompt", |config| config.num_prefix_prompt = 1 << 20),
        ("prefix_hidden_size", |config| config.prefix_hidden_size = Some(0)),
        ("max_sequence_length", |config| config.max_sequence_length = 2),
        ("initial_deviation", |config| config.initial_deviation = f32::NAN),
    ] {
        let mut settings = settings();
        change(&mut settings.prompts);
        match Pmg::new(&settings, Frozen::Seeded, 1) {
            Err(PmgError::Config { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{field}: {:?}", other.map(|_| ())),
        }
    }
}
