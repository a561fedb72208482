//! The experiment that decided for a tape of our own: one training step (forward and backward) of a stack of transformer blocks, on this
//! crate and on candle's own differentiation, with the same weights on the same machine. Prints time, peak memory, and gradient
//! differences.
//!
//! `cargo run --release -p flowmill-nn --example tape_against_candle [blocks] [rounds]`

use candle_core::{D, Device, Tensor, Var};
use flowmill_nn::init::Builder;
use flowmill_nn::layers::{FeedForward, LayerNorm, Linear};
use flowmill_nn::ops::Attention;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Activation, AttentionMask, Context, Parameters, Ragged, Tape, Value};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const WIDTH: usize = 256;
const HEADS: usize = 4;
const ITEMS: usize = 4;
const FRAMES: usize = 200;

/// Counts allocated memory.
struct Counting(System);

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes every call to a sound allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promises are those of the inner allocator.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { self.0.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting(System);

struct Block {
    norms: [LayerNorm; 2],
    attention: [Linear; 4],
    feed_forward: FeedForward,
}

impl Block {
    fn new(mut builder: Builder) -> flowmill_nn::Result<Self> {
        let norms = [
            LayerNorm::new(builder.scope("norm1"), WIDTH, 1e-5)?,
            LayerNorm::new(builder.scope("norm2"), WIDTH, 1e-5)?,
        ];
        let mut linear = |name, inputs, outputs| Linear::new(builder.scope(name), inputs, outputs);
        let attention = [
            linear("q", WIDTH, WIDTH)?,
            linear("k", WIDTH, WIDTH)?,
            linear("v", WIDTH, WIDTH)?,
            linear("o", WIDTH, WIDTH)?,
        ];
        let (first, second) = (linear("w1", WIDTH, 4 * WIDTH)?, linear("w2", 4 * WIDTH, WIDTH)?);
        Ok(Self { norms, attention, feed_forward: FeedForward::new(first, second, Activation::Gelu, 0.0) })
    }

    fn forward(&self, context: &Context, x: &Value, rows: &Ragged) -> flowmill_nn::Result<Value> {
        let normal = self.norms[0].forward(context, x)?;
        let [q, k, v, o] = &self.attention;
        let (q, k, v) = (q.forward(context, &normal)?, k.forward(context, &normal)?, v.forward(context, &normal)?);
        let attention =
            Attention { heads: HEADS, attention_mask: AttentionMask::Full, queries: rows, keys: rows, dropout: None };
        let x = o.forward_onto(context, &q.attend(&k, &v, &attention, None)?, x)?;
        let normal = self.norms[1].forward(context, &x)?;
        self.feed_forward.forward_onto(context, &normal, &x, 0.0)
    }
}

/// The same blocks in candle's differentiable operations (its fused norm and softmax have no backward pass).
struct Candle<'a> {
    parameters: &'a Parameters,
    variables: &'a [Var],
}

impl Candle<'_> {
    fn get(&self, name: &str) -> &Tensor {
        let id = self.parameters.find(name).expect("the names are those of the blocks above");
        self.variables[id.index()].as_tensor()
    }

    fn linear(&self, name: &str, x: &Tensor) -> candle_core::Result<Tensor> {
        let (items, frames, width) = x.dims3()?;
        let flat = x.reshape((items * frames, width))?;
        let product = flat.matmul(&self.get(&format!("{name}.weight")).t()?)?;
        let sum = product.broadcast_add(self.get(&format!("{name}.bias")))?;
        sum.reshape((items, frames, ()))
    }

    fn norm(&self, name: &str, x: &Tensor) -> candle_core::Result<Tensor> {
        let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
        let normal = centered.broadcast_div(&(variance + 1e-5)?.sqrt()?)?;
        normal.broadcast_mul(self.get(&format!("{name}.weight")))?.broadcast_add(self.get(&format!("{name}.bias")))
    }

    fn block(&self, name: &str, x: &Tensor) -> candle_core::Result<Tensor> {
        let normal = self.norm(&format!("{name}.norm1"), x)?;
        let heads = |x: Tensor| x.reshape((ITEMS, FRAMES, HEADS, WIDTH / HEADS))?.transpose(1, 2)?.contiguous();
        let [q, k, v] = ["q", "k", "v"].map(|part| self.linear(&format!("{name}.{part}"), &normal).and_then(heads));
        let scores = (q?.matmul(&k?.t()?)? * (1.0 / ((WIDTH / HEADS) as f64).sqrt()))?;
        let exponentials = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
        let weights = exponentials.broadcast_div(&exponentials.sum_keepdim(D::Minus1)?)?;
        let attended = weights.matmul(&v?)?.transpose(1, 2)?.contiguous()?.reshape((ITEMS, FRAMES, WIDTH))?;
        let x = (x + self.linear(&format!("{name}.o"), &attended)?)?;
        let inner = self.linear(&format!("{name}.w1"), &self.norm(&format!("{name}.norm2"), &x)?)?.gelu_erf()?;
        x + self.linear(&format!("{name}.w2"), &inner)?
    }
}

struct Measured {
    milliseconds: f64,
    megabytes: f64,
}

fn measure<T>(work: impl FnOnce() -> T) -> (T, Measured) {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let start = Instant::now();
    let result = work();
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    let megabytes = (PEAK.load(Ordering::Relaxed) - before) as f64 / 1e6;
    (result, Measured { milliseconds, megabytes })
}

fn median(mut all: Vec<Measured>) -> Measured {
    all.sort_by(|a, b| a.milliseconds.total_cmp(&b.milliseconds));
    all.swap_remove(all.len() / 2)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let count = arguments.next().unwrap_or(Ok(6))?;
    let rounds = arguments.next().unwrap_or(Ok(9))?;
    let mut parameters = Parameters::new();
    let mut builder = Builder::new(&mut parameters, RngKey::new(1));
    let blocks = (0..count).map(|index| Block::new(builder.scope(index))).collect::<Result<Vec<_>, _>>()?;
    let shape = [ITEMS, FRAMES, WIDTH];
    let input = RngKey::new(2).normal_tensor(&shape, &Device::Cpu)?;
    let rows = Ragged::padded(&[FRAMES; ITEMS], FRAMES)?;
    let variables =
        parameters.ids().map(|id| Var::from_tensor(parameters.tensor(id))).collect::<Result<Vec<_>, _>>()?;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut worst = 0f32;
    for _ in 0..rounds {
        let (gradients, measured) = measure(|| -> flowmill_nn::Result<_> {
            let tape = Tape::new();
            let context = Context::training(&parameters, &tape, RngKey::new(3));
            let mut x = Value::plain(input.clone())?;
            for block in &blocks {
                x = block.forward(&context, &x, &rows)?;
            }
            let loss = x.multiply(&x)?.mean()?;
            drop(x);
            tape.backward(&loss)
        });
        ours.push(measured);
        let (store, measured) = measure(|| -> candle_core::Result<_> {
            let candle = Candle { parameters: &parameters, variables: &variables };
            let mut x = input.clone();
            for index in 0..count {
                x = candle.block(&index.to_string(), &x)?;
            }
            x.sqr()?.mean_all()?.backward()
        });
        theirs.push(measured);
        let (gradients, store) = (gradients?, store?);
        for (id, variable) in parameters.ids().zip(&variables) {
            let (a, b) = (gradients.get(id).ok_or("no gradient")?, store.get(variable).ok_or("no gradient")?);
            let largest = b.abs()?.max_all()?.to_scalar::<f32>()?;
            let difference = (a - b)?.abs()?.max_all()?.to_scalar::<f32>()?;
            // The gradients of key biases are zero except for rounding.
            worst = worst.max(difference / (largest + 1e-6));
        }
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "{count} blocks of width {WIDTH}, {ITEMS} x {FRAMES} frames, {} parameters",
        parameters.element_count(false)
    );
    println!("  this tape    {:8.1} ms {:8.1} MB", ours.milliseconds, ours.megabytes);
    println!("  candle's     {:8.1} ms {:8.1} MB", theirs.milliseconds, theirs.megabytes);
    let (time, memory) = (theirs.milliseconds / ours.milliseconds, theirs.megabytes / ours.megabytes);
    println!("  candle takes {time:8.1} x  {memory:8.1} x; gradients differ by at most {worst:.1e}");
    Ok(())
}
