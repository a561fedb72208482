//! The result of the flow for an item depends neither on padding nor on the rest of the batch.

mod support;

use candle_core::Tensor;
use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{
    EncoderConfig, Extent, Flow, FlowConfig, GenerationOptions, GenerationRequest, Prompt, UNetConfig,
};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, host};
use support::BINS;

fn config() -> FlowConfig {
    FlowConfig {
        encoder: EncoderConfig { num_blocks: 2, num_up_blocks: 2, static_chunk_size: 4, ..support::encoder() },
        estimator: UNetConfig { static_chunk_size: 8, ..support::unet() }.into(),
        ..support::flow()
    }
}

fn elements(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_near(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(worst < 1e-4, "{what}: {worst}");
}

#[test]
fn encoded_frames_do_not_depend_on_padding() {
    let (flow, parameters) = Flow::new(&config(), 3).unwrap();
    let context = Context::inference(&parameters);
    let (lengths, longest) = ([13, 6, 1], 14);
    let tokens: Vec<u32> = (0..3 * longest as u64).map(|index| RngKey::new(5).below_at(index, 20)).collect();
    for streaming in [false, true] {
        let encode = |extent| flow.encode(&context, &tokens, &lengths, streaming, extent).unwrap();
        let (padded, packed) = (encode(Extent::Padded), encode(Extent::Valid));
        let width = packed.0.width();
        let (padded, frames) = (elements(padded.0.tensor()), elements(packed.0.tensor()));
        for (item, rows) in packed.1.ranges().iter().enumerate() {
            assert_eq!(rows.len(), 2 * lengths[item]);
            let expected = &padded[item * 2 * longest * width..][..rows.len() * width];
            assert_near(&format!("item {item}"), &frames[rows.start * width..rows.end * width], expected);
        }
    }
}

#[test]
fn generated_mels_do_not_depend_on_the_batch() {
    let (flow, parameters) = Flow::new(&config(), 3).unwrap();
    let context = Context::inference(&parameters);
    let request = |sample: u64, tokens: usize, prompt: usize| {
        let rng_key = RngKey::new(8).sample(sample);
        let mut ids: Vec<u32> = (0..tokens as u64).map(|index| rng_key.below_at(index, 20)).collect();
        let rest = ids.split_off(prompt);
        let mel = host::tensor(rng_key.purpose("mel").normals(2 * prompt * BINS), &[2 * prompt, BINS]).unwrap();
        let prompt = (prompt > 0).then_some(Prompt { tokens: ids, mel });
        GenerationRequest { tokens: rest, speaker_embedding: rng_key.purpose("speaker").normals(4), prompt }
    };
    let requests = [request(0, 12, 4), request(1, 5, 0), request(2, 9, 8)];
    for streaming in [false, true] {
        let options = GenerationOptions { guidance: 0.7, streaming, ..flow.default_options() };
        let together = flow.generate(&context, &requests, &options, &RngKey::new(6), &[0, 1, 2]).unwrap().mels;
        for (item, request) in requests.iter().enumerate() {
            let request = std::slice::from_ref(request);
            let alone = flow.generate(&context, request, &options, &RngKey::new(6), &[item as u64]).unwrap().mels;
            // Not bit for bit: the position of an item in its batch determines how its rows are divided into tiles.
            assert_near(&format!("item {item}"), &elements(&together[item]), &elements(&alone[0]));
        }
    }
}
