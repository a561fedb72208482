//! Memory of the backward pass, counted byte by byte: activations are freed as it proceeds, frozen weights save nothing,
//! checkpointed blocks save their inputs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use flowmill_nn::ops::Normalization;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Activation, Context, NnError, ParameterId, Parameters, Tape, Value};

/// Counts allocated bytes.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

const ROWS: usize = 8192;
const WIDTH: usize = 16;
/// Bytes of one activation; weights are negligible compared with it.
const ACTIVATION: usize = 4 * ROWS * WIDTH;
const LAYERS: usize = 12;

fn weights() -> (Parameters, Vec<ParameterId>) {
    let mut parameters = Parameters::new();
    let mut add = |layer: usize| {
        let elements =
            RngKey::new(1).sample(layer as u64).normals(WIDTH * WIDTH).into_iter().map(|x| 0.2 * x).collect();
        let tensor = Tensor::from_vec::<_, f32>(elements, (WIDTH, WIDTH), &Device::Cpu).unwrap();
        parameters.add(format!("layer {layer}"), tensor).unwrap()
    };
    let ids = (0..LAYERS).map(&mut add).collect();
    (parameters, ids)
}

fn layer(input: &Value, weight: &Value) -> Result<Value, NnError> {
    input.linear(weight, None)?.activate(Activation::Tanh)?.affine(0.5, 0.1)
}

/// Bytes in units of activations, rounded.
fn activations(bytes: usize) -> usize {
    (bytes + ACTIVATION / 2) / ACTIVATION
}

/// The number of live activations whenever a block is computed: in the forward pass, then again in the backward pass.
fn backward_frees_as_it_proceeds() {
    let (parameters, ids) = weights();
    let input = Value::from_vec(RngKey::new(2).normals(ROWS * WIDTH), &[ROWS, WIDTH]).unwrap();
    let before = live();
    let seen = Rc::new(RefCell::new(Vec::with_capacity(4 * LAYERS)));
    let tape = Tape::new();
    let context = Context::training(&parameters, &tape, RngKey::new(3)).with_checkpoints(true);
    let mut state = input.linear(&context.parameter(ids[0]), None).unwrap();
    for id in &ids {
        state = layer(&state, &context.parameter(*id)).unwrap();
        let seen = seen.clone();
        // A block that only observes, once in the forward pass and once in the backward pass.
        let look = move |_: &Context, inputs: &[Value]| {
            seen.borrow_mut().push(live() - before);
            inputs[0].reshape(&[ROWS, WIDTH])
        };
        state = context.checkpoint(&[&state], look).unwrap();
    }
    let loss = state.mean().unwrap();
    drop((state, context));
    let whole = activations(live() - before);
    tape.backward(&loss).unwrap();
    let seen: Vec<usize> = seen.borrow().iter().map(|bytes| activations(*bytes)).collect();
    let (forwards, backwards) = seen.split_at(LAYERS);
    assert!(whole >= 2 * LAYERS, "two operations of each layer keep something: {whole}");
    for (step, found) in backwards.iter().enumerate() {
        let layer = LAYERS - 1 - step;
        // Activations saved by the layers before, and the gradient in transit.
        assert!(*found <= forwards[layer] + 2, "at layer {layer}: {found} of {forwards:?}");
    }
    assert!(backwards[LAYERS - 1] <= 5, "{backwards:?}");
}

fn frozen_layers_keep_nothing() {
    let (mut parameters, ids) = weights();
    let input = Value::from_vec(RngKey::new(2).normals(ROWS * WIDTH), &[ROWS, WIDTH]).unwrap();
    let run = |parameters: &Parameters| {
        let tape = Tape::new();
        let before = live();
        let context = Context::training(parameters, &tape, RngKey::new(3));
        let mut state = input.clone();
        for id in &ids {
            state = layer(&state, &context.parameter(*id)).unwrap();
        }
        let loss = state.mean().unwrap();
        drop((state, context));
        let (kept, entries) = (activations(live() - before), tape.len());
        (kept, entries, tape.backward(&loss).unwrap())
    };
    let (kept, entries, gradients) = run(&parameters);
    assert_eq!(
        (entries, gradients.len()),
        (4 * LAYERS + 2, LAYERS),
        "a weight and three operations a layer, two of the mean"
    );
    assert!(kept >= 2 * LAYERS - 1, "all but the first layer keep their input and what the activation saw: {kept}");
    ids[..LAYERS - 1].iter().for_each(|id| parameters.set_trainable(*id, false));
    let (kept, entries, gradients) = run(&parameters);
    assert_eq!((entries, gradients.len()), (4 + 2, 1), "only the last layer is recorded");
    assert!(gradients.get(ids[0]).is_none() && gradients.get(ids[LAYERS - 1]).is_some());
    assert!(kept <= 3, "{kept}");
}

fn checkpointing_lowers_the_peak() {
    let (parameters, ids) = weights();
    let input = Value::from_vec(RngKey::new(2).normals(ROWS * WIDTH), &[ROWS, WIDTH]).unwrap();
    let peak = |checkpoints: bool| {
        let before = live();
        PEAK.store(before, Ordering::Relaxed);
        let tape = Tape::new();
        let context = Context::training(&parameters, &tape, RngKey::new(3)).with_checkpoints(checkpoints);
        let mut state = input.clone();
        for three in ids.chunks(3) {
            let three = three.to_vec();
            let block = move |context: &Context, inputs: &[Value]| {
                let mut state = inputs[0].clone();
                for id in &three {
                    state = layer(&layer(&state, &context.parameter(*id))?, &context.parameter(*id))?;
                }
                Ok::<_, NnError>(state)
            };
            state = context.checkpoint(&[&state], block).unwrap();
        }
        let loss = state.mean().unwrap();
        drop((state, context));
        tape.backward(&loss).unwrap();
        activations(PEAK.load(Ordering::Relaxed) - before)
    };
    let (plain, checkpointed) = (peak(false), peak(true));
    assert!(checkpointed * 5 < plain * 2, "{checkpointed} activations at the peak rather than {plain}");
}

/// The output of a norm that a product reads is not saved but recomputed, with the same gradients.
fn norms_are_made_again() {
    let (parameters, ids) = weights();
    let input = Value::from_vec(RngKey::new(2).normals(ROWS * WIDTH), &[ROWS, WIDTH]).unwrap();
    let run = |kept: bool| {
        let tape = Tape::new();
        let before = live();
        let context = Context::training(&parameters, &tape, RngKey::new(3));
        let mut state = input.clone();
        for id in &ids {
            let normal = state.layer_norm(None, None, Normalization::default()).unwrap();
            // The same numbers, from an operation that has no recipe to recompute them.
            let normal = if kept { normal.affine(1.0, 0.0).unwrap() } else { normal };
            state = normal.linear(&context.parameter(*id), None).unwrap();
        }
        let loss = state.mean().unwrap();
        drop((state, context));
        let kept = activations(live() - before);
        let gradients = tape.backward(&loss).unwrap();
        let values = |id: &ParameterId| gradients.get(*id).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (kept, ids.iter().map(values).collect::<Vec<_>>())
    };
    let ((again, gradients), (kept, expected)) = (run(false), run(true));
    assert!(again <= LAYERS + 3, "{again} activations");
    assert!(kept >= 2 * LAYERS - 1, "{kept} activations");
    assert_eq!(gradients, expected);
}

/// A single test, because the count covers the whole process.
#[test]
fn the_backward_pass_keeps_what_it_must() {
    // Memory that threads and products allocate once and keep is not an activation.
    warm_up();
    backward_frees_as_it_proceeds();
    frozen_layers_keep_nothing();
    norms_are_made_again();
    checkpointing_lowers_the_peak();
}

fn warm_up() {
    let (parameters, ids) = weights();
    let tape = Tape::new();
    let context = Context::training(&parameters, &tape, RngKey::new(3));
    let input = Value::from_vec(vec![1.0; ROWS * WIDTH], &[ROWS, WIDTH]).unwrap();
    let hidden = layer(&input, &context.parameter(ids[0])).unwrap();
    let loss = layer(&hidden, &context.parameter(ids[1])).unwrap().mean().unwrap();
    tape.backward(&loss).unwrap();
}
