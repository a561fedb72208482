//! The latent diffusion model: training of all parameters, recomputed blocks, and bad input.

use flowmill_networks::stable_diffusion::sampling::{Method, Sampler, Schedule, ScheduleConfig, Spacing};
use flowmill_networks::stable_diffusion::{
    Autoencoder, AutoencoderConfig, BlockType, DiffusionError, PerLevel, UNet, UNetConfig,
};
use flowmill_nn::init::Builder;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Gradients, Parameters, Tape, Value};

fn value(name: &str, shape: &[usize]) -> Value {
    Value::from_vec(RngKey::new(8).purpose(name).normals(shape.iter().product()), shape).unwrap()
}

fn unet_config() -> UNetConfig {
    UNetConfig {
        sample_size: 4,
        block_out_channels: vec![8, 16],
        down_block_types: vec![BlockType::CrossAttnDownBlock2D, BlockType::DownBlock2D],
        up_block_types: vec![BlockType::UpBlock2D, BlockType::CrossAttnUpBlock2D],
        layers_per_block: 1,
        cross_attention_dim: 6,
        attention_head_dim: PerLevel::Each(vec![2, 4]),
        norm_num_groups: 4,
        use_linear_projection: true,
        ..UNetConfig::default()
    }
}

/// Checks that every parameter has a gradient, the same with and without recomputed blocks.
fn check_gradients(parameters: &Parameters, loss: impl Fn(&Context) -> Value) {
    let gradients = |checkpoints: bool| -> Gradients {
        let tape = Tape::new();
        let context = Context::training(parameters, &tape, RngKey::new(1)).with_checkpoints(checkpoints);
        tape.backward(&loss(&context)).unwrap()
    };
    let (plain, recomputed) = (gradients(false), gradients(true));
    for id in parameters.ids() {
        let name = parameters.name(id);
        let [a, b] = [&plain, &recomputed].map(|all| {
            let gradient = all.get(id).unwrap_or_else(|| panic!("{name} has no gradient"));
            gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        });
        assert!(a.iter().all(|x| x.is_finite()), "{name}");
        assert_eq!(a, b, "{name}");
    }
}

#[test]
fn every_parameter_of_the_unet_is_trained() {
    let mut parameters = Parameters::new();
    let model = UNet::new(Builder::new(&mut parameters, RngKey::new(0)), &unet_config()).unwrap();
    let (latents, conditions) = (value("latents", &[2, 4, 6, 4]), value("conditions", &[2, 3, 6]));
    check_gradients(&parameters, |context| {
        let output = model.forward(context, &latents, &[0.0, 731.5], &conditions).unwrap();
        assert_eq!(output.dims(), [2, 4, 6, 4]);
        output.multiply(&output).unwrap().mean().unwrap()
    });
}

#[test]
fn every_parameter_of_the_autoencoder_is_trained() {
    let config = AutoencoderConfig {
        block_out_channels: vec![8, 12, 12],
        layers_per_block: 1,
        norm_num_groups: 4,
        ..AutoencoderConfig::default()
    };
    let mut parameters = Parameters::new();
    let model = Autoencoder::new(Builder::new(&mut parameters, RngKey::new(0)), &config).unwrap();
    let (images, noise) = (value("images", &[2, 8, 12, 3]), value("noise", &[2, 2, 3, 4]));
    check_gradients(&parameters, |context| {
        let posterior = model.encode(context, &images).unwrap();
        let decoded = model.decode(context, &posterior.sample(&noise).unwrap()).unwrap();
        assert_eq!(decoded.dims(), images.dims());
        let rows = flowmill_nn::Ragged::packed(&[decoded.rows()]);
        let error = decoded.mean_square_error(&images, &rows).unwrap();
        error.add(&posterior.divergence().unwrap().affine(0.01, 0.0).unwrap()).unwrap()
    });
}

#[test]
fn the_divergence_of_the_standard_normal_distribution_is_zero() {
    use flowmill_networks::stable_diffusion::Posterior;
    let zeros = Value::from_vec(vec![0.0; 12], &[1, 2, 2, 3]).unwrap();
    let posterior = |mean: &Value, log: &Value| Posterior { mean: mean.clone(), log_variance: log.clone() };
    assert_eq!(posterior(&zeros, &zeros).divergence().unwrap().scalar().unwrap(), 0.0);
    let ones = Value::from_vec(vec![1.0; 12], &[1, 2, 2, 3]).unwrap();
    assert!((posterior(&ones, &zeros).divergence().unwrap().scalar().unwrap() - 6.0).abs() < 1e-5);
}

#[test]
fn inputs_that_do_not_fit_are_errors() {
    let mut parameters = Parameters::new();
    let model = UNet::new(Builder::new(&mut parameters, RngKey::new(0)), &unet_config()).unwrap();
    let context = Context::inference(&parameters);
    let conditions = value("conditions", &[1, 3, 6]);
    for (latents, steps, conditions) in [
        (&[1, 3, 4, 4][..], vec![1.0], conditions.clone()),
        (&[1, 4, 4, 5], vec![1.0], conditions.clone()),
        (&[1, 4, 4, 4], vec![1.0, 2.0], conditions.clone()),
        (&[1, 4, 4, 4], vec![1.0], value("other", &[1, 3, 5])),
        (&[1, 4, 4, 4], vec![1.0], value("other", &[2, 3, 6])),
        (&[4, 4, 4], vec![1.0], conditions.clone()),
    ] {
        assert!(model.forward(&context, &value("latents", latents), &steps, &conditions).is_err(), "{latents:?}");
    }
}

#[test]
fn sampling_refuses_what_it_cannot_do() {
    let schedule = Schedule::new(&ScheduleConfig::default()).unwrap();
    for count in [0, 1001] {
        let refused = Sampler::new(&schedule, Method::Ddim, count, Spacing::Leading);
        assert!(matches!(refused, Err(DiffusionError::Schedule { field: "num_inference_steps", .. })));
    }
    let mut sampler = Sampler::new(&schedule, Method::Ddpm, 2, Spacing::Leading).unwrap();
    let mut sample = [1.0, 2.0];
    assert!(sampler.advance(&mut sample, &[0.0], None).is_err());
    assert!(sampler.advance(&mut sample, &[0.0, 0.0], None).is_err(), "the step needs noise");
    sampler.advance(&mut sample, &[0.0, 0.0], Some(&[0.0, 0.0])).unwrap();
    sampler.advance(&mut sample, &[0.0, 0.0], Some(&[0.0, 0.0])).unwrap();
    assert!(sampler.next_step().is_none() && sampler.advance(&mut sample, &[0.0, 0.0], None).is_err());
    for wrong in [
        ScheduleConfig { num_train_timesteps: 1, ..ScheduleConfig::default() },
        ScheduleConfig { beta_end: 1.5, ..ScheduleConfig::default() },
        ScheduleConfig { steps_offset: 1000, ..ScheduleConfig::default() },
    ] {
        assert!(matches!(Schedule::new(&wrong), Err(DiffusionError::Schedule { .. })));
    }
}

#[test]
fn every_method_takes_one_step_or_many() {
    let schedule = Schedule::new(&ScheduleConfig::default()).unwrap();
    for method in [Method::Ddim, Method::Ddpm, Method::Pndm, Method::Euler] {
        for spacing in [Spacing::Leading, Spacing::Linspace, Spacing::Trailing] {
            for count in [1, 2, 3, 50] {
                let mut sampler = Sampler::new(&schedule, method, count, spacing).unwrap();
                let mut sample = vec![sampler.first_deviation(); 3];
                while sampler.next_step().is_some() {
                    let noise = sampler.needs_noise().then_some([0.1; 3]);
                    sampler.advance(&mut sample, &[0.3; 3], noise.as_ref().map(|noise| &noise[..])).unwrap();
                }
                assert!(sample.iter().all(|x| x.is_finite()), "{method:?} {spacing:?} {count}: {sample:?}");
            }
        }
    }
}
