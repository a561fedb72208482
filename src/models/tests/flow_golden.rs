//! The flow against the public PyTorch implementation: outputs, loss, every gradient, inference.

use candle_core::{DType, Tensor};
use flowmill_models::flow::{
    EncoderConfig, EstimatorConfig, Extent, Flow, FlowBatch, FlowConfig, FlowDraws, GenerationOptions,
    GenerationRequest, MatchingConfig, Prompt,
};
use flowmill_nn::random::Draw;
use flowmill_nn::weights::{self, WeightFile};
use flowmill_nn::{Context, Parameters, Tape};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const OUTPUT_TOLERANCE: f64 = 2e-5;
const GRADIENT_TOLERANCE: f64 = 2e-4;

struct Golden {
    file: WeightFile,
    config: serde_json::Value,
}

impl Golden {
    fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
        let path: PathBuf = folder.join(format!("{name}.safetensors"));
        let file = weights::read(&path).unwrap();
        let config = serde_json::from_str(&file.metadata["config"]).unwrap();
        Self { file, config }
    }

    fn tensor(&self, name: &str) -> &Tensor {
        self.file.tensors.get(name).or_else(|| self.file.integers.get(name)).unwrap_or_else(|| panic!("{name}"))
    }

    fn lengths(&self, name: &str) -> Vec<usize> {
        self.tensor(name).to_vec1::<i64>().unwrap().into_iter().map(|length| length as usize).collect()
    }

    fn size(&self, path: &[&str]) -> usize {
        path.iter().fold(&self.config, |value, key| &value[*key]).as_u64().unwrap() as usize
    }

    fn streaming(&self) -> bool {
        self.config["streaming"].as_bool().unwrap()
    }

    fn flow_config(&self) -> FlowConfig {
        FlowConfig {
            vocab_size: self.size(&["vocab_size"]),
            input_size: self.size(&["input_size"]),
            output_size: self.size(&["output_size"]),
            spk_embed_dim: self.size(&["spk_embed_dim"]),
            pre_lookahead_len: self.size(&["pre_lookahead_len"]),
            encoder: EncoderConfig {
                attention_heads: self.size(&["encoder", "attention_heads"]),
                linear_units: self.size(&["encoder", "linear_units"]),
                num_blocks: self.size(&["encoder", "num_blocks"]),
                num_up_blocks: self.size(&["encoder", "num_up_blocks"]),
                static_chunk_size: self.size(&["encoder", "static_chunk_size"]),
                // The reference was computed with dropout switched off.
                dropout_rate: 0.0,
                positional_dropout_rate: 0.0,
                attention_dropout_rate: 0.0,
            },
            estimator: EstimatorConfig {
                channels: vec![self.config["estimator"]["channels"][0].as_u64().unwrap() as usize],
                attention_head_dim: self.size(&["estimator", "attention_head_dim"]),
                n_blocks: self.size(&["estimator", "n_blocks"]),
                num_mid_blocks: self.size(&["estimator", "num_mid_blocks"]),
                num_heads: self.size(&["estimator", "num_heads"]),
                static_chunk_size: self.size(&["estimator", "static_chunk_size"]),
                dropout: 0.0,
            },
            matching: MatchingConfig {
                training_cfg_rate: self.config["cfg_rate"].as_f64().unwrap() as f32,
                inference_cfg_rate: self.config["inference_cfg_rate"].as_f64().unwrap() as f32,
                ..MatchingConfig::default()
            },
            ..FlowConfig::default()
        }
    }

    fn model(&self) -> (Flow, Parameters) {
        let (flow, mut parameters) = Flow::new(&self.flow_config(), 0).unwrap();
        let of_model = |name: &String| name.strip_prefix("param.").map(str::to_owned);
        let tensors = self.file.tensors.iter().filter_map(|(name, tensor)| Some((of_model(name)?, tensor.clone())));
        let report = parameters.load(&tensors.collect::<BTreeMap<_, _>>()).unwrap();
        assert!(report.is_exact(), "{report}");
        (flow, parameters)
    }

    fn batch(&self) -> (FlowBatch, FlowDraws) {
        let batch = FlowBatch {
            tokens: self.tensor("in.speech_token").clone(),
            token_lengths: self.lengths("in.speech_token_len"),
            mel: self.tensor("in.speech_feat").clone(),
            mel_lengths: self.lengths("in.speech_feat_len"),
            speaker_embedding: self.tensor("in.embedding").clone(),
            samples: (0..self.lengths("in.speech_token_len").len() as u64).collect(),
        };
        let draws = FlowDraws {
            t: self.tensor("in.t").to_vec1().unwrap(),
            noise: frames_first(self.tensor("in.z")),
            condition_keep: self.tensor("in.cfg_keep").to_vec1().unwrap(),
            prompt_lengths: self.lengths("in.cond_len"),
            streaming: self.streaming(),
        };
        (batch, draws)
    }
}

/// `[item, bin, frame]` to `[item, frame, bin]`.
fn frames_first(tensor: &Tensor) -> Tensor {
    tensor.transpose(1, 2).unwrap().contiguous().unwrap()
}

fn elements(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// max |a - b| / (max |b| + 1e-6).
fn error(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (elements(found), elements(expected));
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f64, |largest, x| largest.max(f64::from(x.abs())));
    let difference = found.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs()));
    difference.fold(0.0, f64::max) / (largest + 1e-6)
}

fn assert_output(name: &str, found: &Tensor, expected: &Tensor) {
    let error = error(found, expected);
    println!("{name}: {error:.1e}");
    assert!(error <= OUTPUT_TOLERANCE, "{name} is off by {error}");
}

fn check(name: &str) {
    let golden = Golden::read(name);
    let (flow, parameters) = golden.model();
    let (batch, draws) = golden.batch();
    let tape = Tape::new();
    let context = Context::training(&parameters, &tape, Draw::new(1));
    let loss = flow.loss(&context, &batch, &draws).unwrap();
    let expected = golden.tensor("out.loss");
    assert_output("loss", &loss.total.tensor().reshape(1).unwrap(), expected);
    assert_eq!(loss.weight, (batch.mel_lengths.iter().sum::<usize>() * flow.config().output_size) as f64);

    let gradients = tape.backward(&loss.total).unwrap();
    let mut worst = (0.0, String::new());
    for id in parameters.ids() {
        let name = parameters.name(id);
        let found = gradients.get(id).unwrap_or_else(|| panic!("{name} has no gradient"));
        let error = error(found, golden.tensor(&format!("grad.{name}")));
        worst = if error > worst.0 { (error, name.to_owned()) } else { worst };
    }
    println!("gradients: at most {:.1e} ({})", worst.0, worst.1);
    assert!(worst.0 <= GRADIENT_TOLERANCE, "the gradient of {} is off by {}", worst.1, worst.0);
    assert_eq!(gradients.len(), golden.file.tensors.keys().filter(|name| name.starts_with("grad.")).count());

    check_encoder(&golden, &flow, &parameters, &batch);
    check_inference(&golden, &flow, &parameters);
}

fn check_encoder(golden: &Golden, flow: &Flow, parameters: &Parameters, batch: &FlowBatch) {
    let context = Context::inference(parameters);
    let tokens = batch.tokens.flatten_all().unwrap().to_dtype(DType::U32).unwrap().to_vec1().unwrap();
    let encode = |extent| flow.encode(&context, &tokens, &batch.token_lengths, golden.streaming(), extent).unwrap();
    let expected = golden.tensor("out.encoder");
    let (padded, _) = encode(Extent::Padded);
    assert_output("encoder", padded.tensor(), expected);
    let (packed, rows) = encode(Extent::Valid);
    let packed = elements(packed.tensor());
    let (width, frames) = (expected.dim(2).unwrap(), expected.dim(1).unwrap());
    let expected = elements(expected);
    for (item, rows) in rows.ranges().iter().enumerate() {
        let wanted = &expected[item * frames * width..][..rows.len() * width];
        let found = &packed[rows.start * width..rows.end * width];
        let worst = found.iter().zip(wanted).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst < 1e-4, "the frames of item {item} depend on padding: {worst}");
    }
}

fn check_inference(golden: &Golden, flow: &Flow, parameters: &Parameters) {
    let prompt_tokens = golden.size(&["prompt_token_len"]);
    let length = golden.lengths("in.speech_token_len")[0];
    let tokens = golden.tensor("in.speech_token").get(0).unwrap().to_vec1::<i64>().unwrap();
    let tokens: Vec<u32> = tokens[..length].iter().map(|token| *token as u32).collect();
    let mel = golden.tensor("in.speech_feat").get(0).unwrap().narrow(0, 0, 2 * prompt_tokens).unwrap();
    let request = GenerationRequest {
        tokens: tokens[prompt_tokens..].to_vec(),
        speaker_embedding: golden.tensor("in.embedding").get(0).unwrap().to_vec1().unwrap(),
        prompt: Some(Prompt { tokens: tokens[..prompt_tokens].to_vec(), mel }),
    };
    let options = GenerationOptions {
        steps: golden.size(&["n_timesteps"]),
        guidance: flow.config().matching.inference_cfg_rate,
        temperature: 1.0,
        streaming: golden.streaming(),
    };
    let noise = frames_first(golden.tensor("in.infer_noise")).get(0).unwrap();
    let context = Context::inference(parameters);
    let requests = [request.clone(), request];
    let mels = flow.generate_from(&context, &requests, &options, &[noise.clone(), noise]).unwrap();
    let expected = frames_first(golden.tensor("out.infer_mel")).get(0).unwrap();
    assert_output("inference", &mels[0], &expected);
    // Not bit for bit: where an item lies in its batch decides how its rows fall into tiles.
    assert_output("inference in a batch", &mels[1], &expected);
}

#[test]
fn full_attention_equals_the_public_implementation() {
    check("cosyvoice2_flow_full");
}

#[test]
fn streaming_masks_equal_the_public_implementation() {
    check("cosyvoice2_flow_stream");
}
