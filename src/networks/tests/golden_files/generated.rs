//! Golden files made by the models here, with other dimensions than the shipped files.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use flowmill_extract::dual_codebook::DualCodebook;
use flowmill_networks::flow::{
    DitConfig, EncoderConfig, EstimatorConfig, Extent, Flow, FlowBatch, FlowConfig, FlowDraws, GenerationOptions,
    GenerationRequest, Prompt, UNetConfig,
};
use flowmill_nn::random::RngKey;
use flowmill_nn::solvers::Solver;
use flowmill_nn::{Context, Parameters, Tape};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

/// Returns a random one of the sizes.
fn pick(rng_key: &RngKey, what: &str, sizes: &[usize]) -> usize {
    sizes[rng_key.purpose(what).below_at(0, sizes.len() as u32) as usize]
}

/// Returns a Step-Audio flow of two codebooks with a DiT, or a CosyVoice 2 flow.
fn config(rng_key: &RngKey, step_audio: bool) -> FlowConfig {
    let flow = cosyvoice2(rng_key);
    if !step_audio {
        return flow;
    }
    let codebook = DualCodebook {
        linguistic: pick(rng_key, "linguistic", &[3, 16]),
        semantic: pick(rng_key, "semantic", &[5, 40, 100]),
    };
    let estimator = DitConfig {
        hidden_size: pick(rng_key, "hidden", &[6, 24]),
        depth: pick(rng_key, "depth", &[1, 3]),
        num_heads: pick(rng_key, "estimator heads", &[1, 3]),
        head_dim: pick(rng_key, "head", &[4, 10]),
        mlp_ratio: [1.5, 4.0][pick(rng_key, "ratio", &[0, 1])],
        static_chunk_size: pick(rng_key, "frames", &[3, 10]),
    };
    FlowConfig {
        vocab_size: codebook.frame_vocabulary(),
        dual_codebook: Some(codebook),
        estimator: estimator.into(),
        ..flow
    }
}

fn cosyvoice2(rng_key: &RngKey) -> FlowConfig {
    let heads = pick(rng_key, "heads", &[1, 2, 3]);
    FlowConfig {
        vocab_size: pick(rng_key, "vocabulary", &[7, 64, 301]),
        input_size: 4 * heads * pick(rng_key, "width", &[1, 2, 5]),
        output_size: pick(rng_key, "bins", &[3, 8, 20]),
        spk_embed_dim: pick(rng_key, "speaker", &[1, 5, 33]),
        pre_lookahead_len: pick(rng_key, "lookahead", &[1, 3, 4]),
        encoder: EncoderConfig {
            attention_heads: heads,
            linear_units: pick(rng_key, "units", &[9, 24]),
            num_blocks: pick(rng_key, "blocks", &[1, 3]),
            num_up_blocks: pick(rng_key, "up blocks", &[1, 2]),
            static_chunk_size: pick(rng_key, "chunk", &[2, 5]),
            dropout_rate: 0.0,
            positional_dropout_rate: 0.0,
            attention_dropout_rate: 0.0,
        },
        estimator: EstimatorConfig::UNet(UNetConfig {
            channels: vec![8 * pick(rng_key, "channels", &[1, 2, 3])],
            attention_head_dim: pick(rng_key, "head", &[2, 4, 7]),
            n_blocks: pick(rng_key, "transformers", &[1, 2]),
            num_mid_blocks: pick(rng_key, "middle", &[1, 3]),
            num_heads: pick(rng_key, "estimator heads", &[1, 2, 5]),
            static_chunk_size: pick(rng_key, "frames", &[3, 10]),
            dropout: 0.0,
        }),
        ..FlowConfig::default()
    }
}

/// Returns a batch with ragged lengths, and padding that may be longer than any item.
fn batch(rng_key: &RngKey, config: &FlowConfig) -> FlowBatch {
    let items = pick(rng_key, "items", &[1, 2, 4]);
    let lengths: Vec<usize> = (0..items as u64).map(|item| 2 + rng_key.sample(item).below_at(9, 17) as usize).collect();
    let longest = lengths.iter().max().unwrap() + pick(rng_key, "padding", &[0, 2]);
    let count = items * longest * config.ids_per_token();
    let tokens: Vec<u32> = (0..count).map(|index| rng_key.below_at(index as u64, config.vocab_size as u32)).collect();
    let floats = |what, shape: &[usize]| {
        Tensor::from_vec(rng_key.purpose(what).normals(shape.iter().product()), shape, &Device::Cpu).unwrap()
    };
    FlowBatch {
        tokens,
        mel: floats("mel", &[items * 2 * longest, config.output_size]),
        mel_rows: vec![2 * longest; items],
        mel_lengths: lengths.iter().map(|length| 2 * length).collect(),
        speaker_embedding: floats("speaker embedding", &[items, config.spk_embed_dim]),
        samples: (0..items as u64).collect(),
        token_lengths: lengths,
    }
}

/// Returns the rows of a batch as `[item, frame, bin]`.
fn padded(tensor: &Tensor, batch: &FlowBatch) -> Tensor {
    tensor.reshape((batch.len(), batch.mel_rows[0], tensor.dims()[1])).unwrap()
}

/// Returns the tokens of a batch in the form of a golden file.
fn tokens(batch: &FlowBatch, config: &FlowConfig) -> Tensor {
    let (items, ids) = (batch.len(), config.ids_per_token());
    let longest = batch.tokens.len() / items / ids;
    let shape = if ids == 1 { vec![items, longest] } else { vec![items, longest, ids] };
    Tensor::from_vec(batch.tokens.iter().map(|id| i64::from(*id)).collect(), shape, &Device::Cpu).unwrap()
}

fn bins_first(tensor: &Tensor) -> Tensor {
    tensor.transpose(1, 2).unwrap().contiguous().unwrap()
}

fn lengths(lengths: &[usize]) -> Tensor {
    let lengths: Vec<i64> = lengths.iter().map(|length| *length as i64).collect();
    Tensor::new(lengths, &Device::Cpu).unwrap()
}

/// Writes a golden file of a random flow. Even numbers have full attention, odd ones chunk-causal masks; of every
/// four, the last two are of Step-Audio.
pub fn write(path: &Path, number: u64) {
    let rng_key = RngKey::new(40 + number);
    let config = config(&rng_key, number % 4 >= 2);
    let (flow, mut parameters) = Flow::new(&config, number).unwrap();
    if config.dual_codebook.is_some() {
        shake(&mut parameters, &rng_key);
    }
    let batch = batch(&rng_key, &config);
    let draws = FlowDraws { streaming: number % 2 == 1, ..FlowDraws::from_rng_key(&rng_key, &batch, &config).unwrap() };
    let mut tensors: Vec<(String, Tensor)> = vec![
        ("in.speech_token".into(), tokens(&batch, &config)),
        ("in.speech_token_len".into(), lengths(&batch.token_lengths)),
        ("in.speech_feat".into(), padded(&batch.mel, &batch)),
        ("in.speech_feat_len".into(), lengths(&batch.mel_lengths)),
        ("in.embedding".into(), batch.speaker_embedding.clone()),
        ("in.t".into(), Tensor::new(draws.t.clone(), &Device::Cpu).unwrap()),
        ("in.z".into(), bins_first(&padded(&draws.noise, &batch))),
        ("in.cfg_keep".into(), Tensor::new(draws.condition_keep.clone(), &Device::Cpu).unwrap()),
        ("in.cond_len".into(), lengths(&draws.prompt_lengths)),
    ];
    tensors.extend(parameters.named_tensors().into_iter().map(|(name, tensor)| (format!("param.{name}"), tensor)));
    let tape = Tape::new();
    let loss = flow.loss(&Context::training(&parameters, &tape, RngKey::new(0)), &batch, &draws).unwrap();
    tensors.push(("out.loss".into(), loss.total.tensor().reshape(1).unwrap()));
    let gradients = tape.backward(&loss.total).unwrap();
    let named = gradients.iter().map(|(id, gradient)| (format!("grad.{}", parameters.name(id)), gradient.clone()));
    tensors.extend(named);
    tensors.push(("out.encoder".into(), encoded(&flow, &parameters, &batch, draws.streaming)));
    let velocity = flow.predict(&Context::inference(&parameters), &batch, &draws).unwrap();
    tensors.push(("out.pred".into(), bins_first(&velocity)));
    let (prompt, steps) = (1, 3);
    tensors.extend(generated(&flow, &parameters, &batch, &draws, (prompt, steps)));
    let model = if config.dual_codebook.is_some() { "step_audio_flow" } else { "cosyvoice2_flow" };
    let mut facts = json!({
        "model": model, "streaming": draws.streaming, "n_timesteps": steps, "prompt_token_len": prompt,
        "inference_cfg_rate": config.matching.inference_cfg_rate, "vocab_size": config.vocab_size,
        "input_size": config.input_size, "output_size": config.output_size, "spk_embed_dim": config.spk_embed_dim,
        "pre_lookahead_len": config.pre_lookahead_len, "encoder": config.encoder, "estimator": config.estimator,
    });
    if let Some(codebook) = config.dual_codebook {
        (facts["vq02_size"], facts["vq06_size"]) = (codebook.linguistic.into(), codebook.semantic.into());
    }
    save(path, &tensors, &facts);
}

/// Adds noise to weights that start at zero; otherwise a DiT would be the velocity zero.
fn shake(parameters: &mut Parameters, rng_key: &RngKey) {
    for id in parameters.ids() {
        let noise = rng_key.purpose(parameters.name(id)).normals(parameters.tensor(id).elem_count());
        let noise = Tensor::from_vec(noise, parameters.tensor(id).dims(), &Device::Cpu).unwrap();
        let shaken = (parameters.tensor(id) + noise * 0.1).unwrap();
        parameters.set(id, shaken).unwrap();
    }
}

fn encoded(flow: &Flow, parameters: &Parameters, batch: &FlowBatch, streaming: bool) -> Tensor {
    let context = Context::inference(parameters);
    let (frames, _) = flow.encode(&context, &batch.tokens, &batch.token_lengths, streaming, Extent::Padded).unwrap();
    let width = flow.config().input_size;
    frames.tensor().reshape((batch.len(), batch.mel_rows[0], width)).unwrap()
}

fn generated(
    flow: &Flow,
    parameters: &Parameters,
    batch: &FlowBatch,
    draws: &FlowDraws,
    (prompt, steps): (usize, usize),
) -> [(String, Tensor); 2] {
    let length = batch.token_lengths[0];
    let ids = flow.config().ids_per_token();
    let tokens = &batch.tokens[..length * ids];
    let mel = batch.mel.narrow(0, 0, 2 * prompt).unwrap();
    let request = GenerationRequest {
        tokens: tokens[prompt * ids..].to_vec(),
        speaker_embedding: batch.speaker_embedding.get(0).unwrap().to_vec1().unwrap(),
        prompt: Some(Prompt { tokens: tokens[..prompt * ids].to_vec(), mel }),
    };
    let guidance = flow.config().matching.inference_cfg_rate;
    let options = GenerationOptions {
        solver: Solver { steps, ..Solver::default() },
        strength: None,
        guidance,
        temperature: 1.0,
        streaming: draws.streaming,
        unfinished: false,
        hold_prompts: false,
    };
    let noise = padded(&draws.noise, batch).narrow(0, 0, 1).unwrap();
    let used = noise.get(0).unwrap().narrow(0, 0, 2 * length).unwrap();
    let context = Context::inference(parameters);
    let mels = flow.generate_from(&context, &[request], &options, &[used]).unwrap().mels;
    let mel = bins_first(&mels[0].unsqueeze(0).unwrap());
    // Longer than needed, because the public implementation draws more than it uses.
    [("in.infer_noise".into(), bins_first(&noise)), ("out.infer_mel".into(), mel)]
}

fn save(path: &Path, tensors: &[(String, Tensor)], config: &serde_json::Value) {
    let bytes = |tensor: &Tensor| -> (Dtype, Vec<u8>) {
        let flat = tensor.flatten_all().unwrap();
        match tensor.dtype() {
            DType::I64 => (Dtype::I64, flat.to_vec1::<i64>().unwrap().into_iter().flat_map(i64::to_le_bytes).collect()),
            _ => (Dtype::F32, flat.to_vec1::<f32>().unwrap().into_iter().flat_map(f32::to_le_bytes).collect()),
        }
    };
    let data: Vec<(Dtype, Vec<u8>)> = tensors.iter().map(|(_, tensor)| bytes(tensor)).collect();
    let views = tensors.iter().zip(&data).map(|((name, tensor), (dtype, data))| {
        (name.as_str(), TensorView::new(*dtype, tensor.dims().to_vec(), data).unwrap())
    });
    let metadata = [("config".to_owned(), config.to_string())].into();
    std::fs::write(path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}
