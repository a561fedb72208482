//! Blocks that are recomputed in the backward pass have the same gradients as others, bit for bit.

mod support;

use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::{FeedForward, LayerNorm, Linear};
use flowmill_nn::ops::Attention;
use flowmill_nn::random::RngKey;
use flowmill_nn::{
    Activation, AttentionMask, Context, Gradients, NnError, ParameterId, Parameters, Precision, Ragged, Tape, Value,
};
use support::{elements, value};

const WIDTH: usize = 16;
const ROWS: usize = 40;
const PRECISIONS: [Precision; 3] = [Precision::Fp32, Precision::Bf16, Precision::Fp16];

/// A transformer block that also takes a vector that all blocks share, and a weight that all blocks share.
#[derive(Clone)]
struct Block {
    norm: LayerNorm,
    query: Linear,
    key: Linear,
    feed_forward: FeedForward,
    shared: ParameterId,
}

impl Block {
    fn new(mut builder: Builder, shared: ParameterId) -> Self {
        let norm = LayerNorm::new(builder.scope("norm"), WIDTH, 1e-5).unwrap();
        let query = Linear::new(builder.scope("query"), WIDTH, WIDTH).unwrap();
        let key = Linear::new(builder.scope("key"), WIDTH, WIDTH).unwrap();
        let first = Linear::new(builder.scope("first"), WIDTH, 3 * WIDTH).unwrap();
        let second = Linear::new(builder.scope("second"), 3 * WIDTH, WIDTH).unwrap();
        let feed_forward = FeedForward::new(first, second, Activation::Silu, 0.2);
        Self { norm, query, key, feed_forward, shared }
    }

    fn forward(&self, context: &Context, input: &Value, vector: &Value, items: &Ragged) -> Result<Value, NnError> {
        let normal = self.norm.forward(context, input)?;
        let [query, key] = [&self.query, &self.key].map(|layer| layer.forward(context, &normal));
        let value = normal.linear(&context.parameter(self.shared), None)?;
        let dropout = context.attention_dropout(0.1);
        let attention =
            Attention { heads: 2, attention_mask: AttentionMask::Full, queries: items, keys: items, dropout };
        let attended = query?.attend(&key?, &value, &attention, None)?.add_items(vector, items)?;
        let state = context.dropout(&attended, 0.3)?.add(input)?;
        self.feed_forward.forward_onto(context, &state, &state, 0.1)
    }
}

struct Network {
    blocks: Vec<Block>,
    vector: Linear,
    shared: ParameterId,
}

fn network(count: usize) -> (Network, Parameters) {
    let mut parameters = Parameters::new();
    let mut builder = Builder::new(&mut parameters, RngKey::new(4));
    let shared = builder.add("shared", &[WIDTH, WIDTH], Init::default_for(WIDTH)).unwrap();
    let blocks = (0..count).map(|index| Block::new(builder.scope(index), shared)).collect();
    let vector = Linear::new(builder.scope("vector"), WIDTH, WIDTH).unwrap();
    (Network { blocks, vector, shared }, parameters)
}

impl Network {
    /// The shared weight is used before, inside of and after the blocks; the vector after them too.
    fn loss(&self, context: &Context) -> Value {
        let items = Ragged::packed(&[13, 20, 7]);
        let vector = self.vector.forward(context, &value("vectors", &[3, WIDTH])).unwrap();
        let mut state = value("input", &[ROWS, WIDTH]).linear(&context.parameter(self.shared), None).unwrap();
        let first = state.clone();
        for block in &self.blocks {
            let (block, items) = (block.clone(), items.clone());
            let run = move |context: &Context, inputs: &[Value]| block.forward(context, &inputs[0], &inputs[1], &items);
            state = context.checkpoint(&[&state, &vector], run).unwrap();
        }
        let state = state.add(&first).unwrap().add_items(&vector, &items).unwrap();
        let output = state.linear(&context.parameter(self.shared), None).unwrap();
        output.mean_square_error(&value("target", &[ROWS, WIDTH]), &items).unwrap()
    }
}

/// Loss, gradients, and the number of entries on the tape.
fn passes(
    network: &Network,
    parameters: &Parameters,
    precision: Precision,
    checkpoints: bool,
) -> (f32, Gradients, usize) {
    let tape = Tape::with_precision(precision);
    let context = Context::training(parameters, &tape, RngKey::new(6)).with_checkpoints(checkpoints);
    let loss = network.loss(&context);
    let entries = tape.len();
    (loss.scalar().unwrap(), tape.backward(&loss).unwrap(), entries)
}

fn bits(gradients: &Gradients) -> Vec<(ParameterId, Vec<u32>)> {
    let bits = |tensor: &candle_core::Tensor| {
        let elements: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        elements.into_iter().map(f32::to_bits).collect()
    };
    gradients.iter().map(|(id, tensor)| (id, bits(tensor))).collect()
}

#[test]
fn gradients_are_the_same_bit_for_bit_with_dropout_and_what_blocks_share() {
    let (network, parameters) = network(4);
    for precision in PRECISIONS {
        let (loss, gradients, entries) = passes(&network, &parameters, precision, false);
        let (again, checkpointed, fewer) = passes(&network, &parameters, precision, true);
        assert_eq!(loss.to_bits(), again.to_bits(), "{precision:?}");
        assert_eq!(gradients.len(), parameters.len());
        assert!(bits(&gradients) == bits(&checkpointed), "{precision:?}");
        assert_eq!(entries - fewer, 4 * 12, "{precision:?}: each block's {} operations are one entry", 13);
    }
}

#[test]
fn frozen_parameters_inside_of_a_block_get_no_gradient_and_change_no_other() {
    let (network, mut parameters) = network(2);
    let (_, all, _) = passes(&network, &parameters, Precision::Fp32, true);
    let frozen: Vec<ParameterId> = parameters.ids().filter(|id| parameters.name(*id).contains("0.")).collect();
    frozen.iter().for_each(|id| parameters.set_trainable(*id, false));
    assert!(!frozen.is_empty());
    let (_, plain, _) = passes(&network, &parameters, Precision::Fp32, false);
    let (_, checkpointed, _) = passes(&network, &parameters, Precision::Fp32, true);
    assert!(bits(&plain) == bits(&checkpointed));
    let trainable = bits(&all).into_iter().filter(|(id, _)| !frozen.contains(id)).collect::<Vec<_>>();
    assert!(bits(&checkpointed) == trainable);
}

#[test]
fn a_block_of_nothing_trainable_is_not_recorded() {
    let (network, mut parameters) = network(1);
    for id in parameters.ids() {
        parameters.set_trainable(id, false);
    }
    let tape = Tape::new();
    let context = Context::training(&parameters, &tape, RngKey::new(6)).with_checkpoints(true);
    assert!(!network.loss(&context).is_recorded());
    assert!(tape.is_empty());
}

#[test]
fn a_recorded_value_that_is_no_input_is_refused() {
    let (network, parameters) = network(1);
    let tape = Tape::new();
    let context = Context::training(&parameters, &tape, RngKey::new(6)).with_checkpoints(true);
    let hidden = context.parameter(network.shared);
    let refused = context.checkpoint(&[], move |_, _| hidden.affine(2.0, 0.0)).unwrap_err();
    assert!(matches!(refused, NnError::Invalid { what: "checkpoint", .. }), "{refused}");
}

#[test]
fn errors_of_a_block_are_its_own() {
    let (_, parameters) = network(1);
    let tape = Tape::new();
    let context = Context::training(&parameters, &tape, RngKey::new(6)).with_checkpoints(true);
    let input = value("input", &[2, 3]);
    let error = context.checkpoint(&[&input], |_, inputs| inputs[0].channels(0..9)).unwrap_err();
    assert!(matches!(error, NnError::Shape { .. }), "{error}");
}

/// A block that passes an input through, and one that contains another block.
#[test]
fn blocks_may_do_nothing_or_hold_others() {
    let (network, parameters) = network(2);
    let gradients = |checkpoints: bool| {
        let tape = Tape::new();
        let context = Context::training(&parameters, &tape, RngKey::new(6)).with_checkpoints(checkpoints);
        let blocks = network.blocks.clone();
        let weight = context.parameter(network.shared);
        let state = value("input", &[ROWS, WIDTH]).linear(&weight, None).unwrap();
        let state = context.checkpoint::<NnError>(&[&state], |_, inputs| Ok(inputs[0].clone())).unwrap();
        let outer = move |context: &Context, inputs: &[Value]| {
            let mut state = inputs[0].clone();
            for block in &blocks {
                let block = block.clone();
                let items = Ragged::packed(&[ROWS]);
                let vector = value("vectors", &[1, WIDTH]);
                let inner =
                    move |context: &Context, inputs: &[Value]| block.forward(context, &inputs[0], &vector, &items);
                state = context.checkpoint(&[&state], inner)?;
            }
            Ok::<_, NnError>(state)
        };
        let loss = context.checkpoint(&[&state], outer).unwrap().add(&state).unwrap().mean().unwrap();
        (elements(&loss), bits(&tape.backward(&loss).unwrap()))
    };
    assert!(gradients(true) == gradients(false));
}
