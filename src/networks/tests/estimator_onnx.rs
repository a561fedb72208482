//! Estimators as ONNX graphs: the files are sound, hold the weights, and compute what the estimators here compute.
//!
//! No runtime for graphs is linked into the tests. Instead, onnxruntime has run the graphs of these tests on their inputs once, and
//! `estimator_onnx/outputs.safetensors` holds its outputs, with a digest of each graph that it ran. The digest covers everything but
//! the numbers of weights and constants, whose last digits depend on the system's mathematical functions.
//! `scripts/check_export --graphs` computes the file anew.

use candle_core::{Device, Tensor};
use flowmill_networks::flow::{
    ConditionsConfig, CosyVoice3Config, DitConfig, EncoderConfig, EstimatorInputs, Flow, FlowConfig, RotaryDitConfig,
    StepAudioConfig, UNetConfig, write_estimator,
};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters};
use flowmill_weights::{Archive, ElementType, OnnxFile, WeightError};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

const BINS: usize = 8;
const SPEAKER: usize = 6;
const PREFIX: &str = "decoder.estimator.";
/// Frames of a batch of two items, and how many of them are valid.
const CASES: [(usize, [usize; 2]); 3] = [(21, [21, 13]), (8, [8, 8]), (4, [3, 4])];
/// The folder to which the graphs and their inputs are written for onnxruntime.
const FOLDER: &str = "FLOWMILL_ONNX_GRAPHS";

/// A kind of estimator with its settings, small.
fn kinds() -> [(&'static str, FlowConfig); 4] {
    let encoder = EncoderConfig {
        attention_heads: 2,
        linear_units: 16,
        num_blocks: 1,
        num_up_blocks: 1,
        ..EncoderConfig::default()
    };
    let sizes = FlowConfig {
        vocab_size: 11,
        input_size: 16,
        output_size: BINS,
        spk_embed_dim: SPEAKER,
        encoder: encoder.clone(),
        ..FlowConfig::default()
    };
    let unet =
        UNetConfig { attention_head_dim: 8, n_blocks: 1, num_mid_blocks: 1, num_heads: 2, ..UNetConfig::default() };
    let levels = UNetConfig { channels: vec![16, 24, 16], n_blocks: 2, ..unet.clone() };
    let narrow = UNetConfig { channels: vec![16], ..unet };
    let speaker = FlowConfig { estimator: narrow.into(), conditions: ConditionsConfig::Speaker, ..sizes.clone() };
    let step_audio = StepAudioConfig {
        vq02_size: 4,
        vq06_size: 8,
        vocab_size: 13,
        input_size: 16,
        output_size: BINS,
        spk_embed_dim: SPEAKER,
        encoder,
        estimator: DitConfig {
            hidden_size: 16,
            depth: 2,
            num_heads: 2,
            head_dim: 8,
            mlp_ratio: 2.0,
            ..DitConfig::default()
        },
        ..StepAudioConfig::default()
    };
    let cosyvoice3 = CosyVoice3Config {
        vocab_size: 11,
        input_size: BINS,
        output_size: BINS,
        spk_embed_dim: SPEAKER,
        pre_lookahead_channels: 12,
        estimator: RotaryDitConfig {
            dim: 32,
            depth: 2,
            heads: 2,
            dim_head: 8,
            ff_mult: 2,
            ..RotaryDitConfig::default()
        },
        ..CosyVoice3Config::default()
    };
    [
        ("unet", FlowConfig { estimator: levels.into(), ..sizes }),
        ("unet_with_speaker", speaker),
        ("dit", FlowConfig::from(&step_audio)),
        ("rotary_dit", FlowConfig::from(&cosyvoice3)),
    ]
}

/// Draws numbers around 0 that are the same on every system.
fn numbers(purpose: &str, sample: u64, count: usize, width: f32) -> Vec<f32> {
    let rng_key = RngKey::new(5).purpose(purpose).sample(sample);
    rng_key.uniforms(count).into_iter().map(|x| (2.0 * x - 1.0) * width).collect()
}

/// A flow whose parameters are all random: none starts at 0 or 1.
fn model(config: &FlowConfig) -> (Flow, Parameters) {
    let (flow, mut parameters) = Flow::new(config, 0).unwrap();
    for (sample, id) in (0..).zip(parameters.ids()) {
        // The rates of rotary positions are constants of the network.
        if !parameters.name(id).ends_with("inv_freq") {
            let shape = parameters.tensor(id).dims().to_vec();
            let elements = numbers("weights", sample, shape.iter().product(), 0.4);
            parameters.set(id, Tensor::from_vec(elements, shape, &Device::Cpu).unwrap()).unwrap();
        }
    }
    (flow, parameters)
}

/// Writes the weights of a flow, and its estimator as a graph.
fn export(name: &str, config: &FlowConfig, parameters: &Parameters, folder: &Path) -> PathBuf {
    let weights: Vec<(String, Tensor)> =
        parameters.ids().map(|id| (parameters.name(id).to_owned(), parameters.tensor(id).clone())).collect();
    let stored = folder.join(format!("{name}.safetensors"));
    flowmill_weights::write(&stored, &weights, &BTreeMap::new()).unwrap();
    let graph = folder.join(format!("{name}.onnx"));
    write_estimator(config, &mut Archive::open(&stored).unwrap(), &graph).unwrap();
    graph
}

/// The inputs of a case by the names of the graph's inputs, `[item, channel, frame]`.
fn inputs(config: &FlowConfig, (frames, lengths): (usize, [usize; 2])) -> Vec<(&'static str, Tensor)> {
    let tensor = |elements: Vec<f32>, shape: &[usize]| Tensor::from_vec(elements, shape, &Device::Cpu).unwrap();
    let mel =
        |name: &'static str| (name, tensor(numbers(name, frames as u64, 2 * BINS * frames, 1.5), &[2, BINS, frames]));
    let mask = lengths.iter().flat_map(|length| (0..frames).map(move |frame| f32::from(u8::from(frame < *length))));
    let has_prompt = config.conditions == ConditionsConfig::ProjectedSpeakerAndPrompt;
    let speaker = if has_prompt { BINS } else { SPEAKER };
    let mut inputs = vec![
        mel("x"),
        ("mask", tensor(mask.collect(), &[2, 1, frames])),
        mel("mu"),
        ("t", tensor(vec![0.25, 0.8125], &[2])),
        ("spks", tensor(numbers("spks", 0, 2 * speaker, 1.0), &[2, speaker])),
    ];
    inputs.extend(has_prompt.then(|| mel("cond")));
    inputs
}

/// Returns what the estimator here computes, `[item, channel, frame]`.
fn estimate(flow: &Flow, parameters: &Parameters, inputs: &[(&str, Tensor)], lengths: [usize; 2]) -> Tensor {
    let find = |name: &str| inputs.iter().find(|(own, _)| *own == name).map(|(_, tensor)| tensor.clone());
    let frames_first = |name: &str| find(name).map(|mel| mel.transpose(1, 2).unwrap().contiguous().unwrap());
    let (state, mu, prompt) = (frames_first("x").unwrap(), frames_first("mu").unwrap(), frames_first("cond"));
    let (times, speaker) = (find("t").unwrap().to_vec1::<f32>().unwrap(), find("spks").unwrap());
    let inputs = EstimatorInputs {
        state: &state,
        mu: &mu,
        times: &times,
        speaker: &speaker,
        prompt: prompt.as_ref(),
        lengths: &lengths,
    };
    let output = flow.estimate(&Context::inference(parameters), &inputs).unwrap();
    output.transpose(1, 2).unwrap().contiguous().unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The digest of a graph without the numbers of its weights and constants.
fn digest(file: &mut OnnxFile) -> String {
    let graph = file.graph.clone();
    let mut content = format!("{:?} {:?} {:?} {:?}", file.operator_sets, graph.nodes, graph.inputs, graph.outputs);
    for (name, view) in &graph.initializers {
        content.push_str(&format!("{name} {} {:?}", view.element(), view.shape()));
        if view.element() != ElementType::F32 {
            content.push_str(&format!("{:?}", file.load(view).unwrap().data()));
        }
    }
    blake3::hash(content.as_bytes()).to_hex().to_string()
}

#[test]
fn graphs_compute_in_onnxruntime_what_the_estimators_compute() {
    let folder = tempfile::tempdir().unwrap();
    let kept = std::env::var_os(FOLDER).map(PathBuf::from);
    let folder = kept.as_deref().unwrap_or(folder.path());
    let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/estimator_onnx/outputs.safetensors");
    let expected = kept.is_none().then(|| flowmill_weights::read(&expected).unwrap());
    let (mut given, mut digests) = (Vec::new(), BTreeMap::new());
    for (name, config) in kinds() {
        let (flow, parameters) = model(&config);
        let graph = export(name, &config, &parameters, folder);
        digests.insert(name.to_owned(), digest(&mut OnnxFile::open(&graph).unwrap()));
        for case in CASES {
            let inputs = inputs(&config, case);
            let key = format!("{name}.{}", case.0);
            if let Some(expected) = &expected {
                let found = flat(&estimate(&flow, &parameters, &inputs, case.1));
                let expected = flat(&expected.tensors[&key]);
                let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
                assert!(largest > 0.1 && found.len() == expected.len(), "{key}: {largest}");
                let error = found.iter().zip(&expected).fold(0f32, |error, (a, b)| error.max((a - b).abs()));
                assert!(error < 1e-4 * largest, "{key}: {error} of {largest}");
            }
            given.extend(inputs.into_iter().map(|(input, tensor)| (format!("{key}.{input}"), tensor)));
        }
    }
    match expected {
        Some(expected) => {
            let advice = "onnxruntime has not run these graphs: see scripts/check_export --graphs";
            assert_eq!(digests, expected.metadata, "{advice}");
        }
        None => flowmill_weights::write(&folder.join("inputs.safetensors"), &given, &digests).unwrap(),
    }
}

#[test]
fn graphs_have_the_published_inputs_and_all_weights() {
    let folder = tempfile::tempdir().unwrap();
    for (name, config) in kinds() {
        let (_, parameters) = model(&config);
        let path = export(name, &config, &parameters, folder.path());
        let mut file = OnnxFile::open(&path).unwrap();
        assert_eq!((file.operator_sets[""], file.producer.as_str()), (18, "flowmill"));
        let graph = file.graph.clone();
        let mel = vec![Some(2), Some(BINS as i64), None];
        let shapes: Vec<(&str, &[Option<i64>])> =
            graph.inputs.iter().map(|input| (input.name.as_str(), input.shape.as_slice())).collect();
        let (mask, times) = (vec![Some(2), Some(1), None], vec![Some(2)]);
        let has_prompt = config.conditions == ConditionsConfig::ProjectedSpeakerAndPrompt;
        let speaker = vec![Some(2), Some(if has_prompt { BINS } else { SPEAKER } as i64)];
        let mut published: Vec<(&str, &[Option<i64>])> =
            vec![("x", &mel), ("mask", &mask), ("mu", &mel), ("t", &times), ("spks", &speaker)];
        published.extend(has_prompt.then_some(("cond", mel.as_slice())));
        assert_eq!(shapes, published, "{name}");
        assert_eq!((graph.outputs.len(), graph.outputs[0].name.as_str()), (1, "estimator_out"));
        assert_eq!(graph.outputs[0].shape, mel);

        // Every value is defined once, and before it is used.
        let mut known: HashSet<&str> = HashSet::new();
        let given = graph.initializers.iter().map(|(name, _)| name.as_str());
        for value in given.chain(graph.inputs.iter().map(|input| input.name.as_str())) {
            assert!(known.insert(value), "{name}: {value} twice");
        }
        let mut used = HashSet::new();
        for node in &graph.nodes {
            for input in &node.inputs {
                assert!(known.contains(input.as_str()), "{name}: {input} of {}", node.name);
                used.insert(input.as_str());
            }
            for output in &node.outputs {
                assert!(known.insert(output), "{name}: {output} twice");
            }
        }
        assert!(known.contains("estimator_out"));
        let unused = known.iter().filter(|value| !used.contains(*value) && **value != "estimator_out");
        assert_eq!(unused.collect::<Vec<_>>(), Vec::<&&str>::new(), "{name}");

        let weights: HashSet<&str> =
            parameters.ids().filter_map(|id| parameters.name(id).strip_prefix(PREFIX)).collect();
        for weight in &weights {
            let tensor = parameters.tensor(parameters.find(&format!("{PREFIX}{weight}")).unwrap());
            let stored = file.initializer(weight).unwrap();
            assert_eq!(stored.shape(), tensor.dims(), "{weight}");
            assert_eq!(flat(&stored.to_floats().unwrap().unwrap()), flat(tensor), "{weight}");
        }
        let others = graph.initializers.iter().filter(|(name, _)| !weights.contains(name.as_str()));
        assert!(others.clone().all(|(name, _)| name.starts_with("constant_")), "{name}");
        let again = folder.path().join("again.onnx");
        let stored = path.with_extension("safetensors");
        write_estimator(&config, &mut Archive::open(&stored).unwrap(), &again).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap(), "{name}");
    }
}

#[test]
fn weights_of_another_network_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (name, config) = &kinds()[3];
    let (_, parameters) = model(config);
    let weights = export(name, config, &parameters, folder.path()).with_extension("safetensors");
    let refused = |estimator: RotaryDitConfig, words: [&str; 2]| {
        let config = FlowConfig { estimator: estimator.into(), ..config.clone() };
        let refused = write_estimator(&config, &mut Archive::open(&weights).unwrap(), &folder.path().join("x.onnx"));
        let Err(WeightError::File { path, message, .. }) = refused else { panic!("{refused:?}") };
        assert!(
            path.ends_with("rotary_dit.safetensors") && words.iter().all(|word| message.contains(word)),
            "{message}"
        );
        assert!(!folder.path().join("x.onnx").exists());
    };
    let own = RotaryDitConfig { dim: 32, depth: 2, heads: 2, dim_head: 8, ff_mult: 2, ..RotaryDitConfig::default() };
    refused(RotaryDitConfig { depth: 3, ..own.clone() }, ["no tensor", "decoder.estimator.transformer_blocks.2."]);
    refused(RotaryDitConfig { depth: 1, ..own }, ["has no place", "decoder.estimator.transformer_blocks.1."]);
}
