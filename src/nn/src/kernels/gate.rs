//! Sums of a state and an update, scaled channel by channel with one gate per item.

use super::item_tasks::ItemTasks;
use super::shared::Shared;
use super::vectorized::vectorized;

/// `state + gate * update`, with the gate of the row's item (`[item, width]`); the state alone on rows of no item.
pub fn forward(state: &[f32], update: &[f32], gates: &[f32], width: usize, tasks: &ItemTasks) -> Vec<f32> {
    let mut out = state.to_vec();
    let target = Shared::new(&mut out);
    tasks.for_each(|item, rows| {
        let elements = rows.start * width..rows.end * width;
        // SAFETY: the rows of tasks do not overlap.
        let out = unsafe { target.slice(elements.start, elements.len()) };
        let gate = &gates[item * width..(item + 1) * width];
        forward_rows(out, &state[elements.clone()], &update[elements], gate);
    });
    out
}

vectorized! {
    fn forward_rows(out: &mut [f32], state: &[f32], update: &[f32], gate: &[f32]) {
        let width = gate.len();
        let rows = out.chunks_exact_mut(width).zip(state.chunks_exact(width)).zip(update.chunks_exact(width));
        for ((out, state), update) in rows {
            for (((out, state), update), gate) in out.iter_mut().zip(state).zip(update).zip(gate) {
                *out = gate.mul_add(*update, *state);
            }
        }
    }
}

/// Gradients of the update (zero on rows of no item) and of the gates `[item, width]`.
pub fn backward(dy: &[f32], update: &[f32], gates: &[f32], width: usize, tasks: &ItemTasks) -> (Vec<f32>, Vec<f32>) {
    let mut out = vec![0.0; dy.len()];
    let target = Shared::new(&mut out);
    let sums = tasks.map(|item, rows| {
        let elements = rows.start * width..rows.end * width;
        // SAFETY: the rows of tasks do not overlap.
        let out = unsafe { target.slice(elements.start, elements.len()) };
        let gate = &gates[item * width..(item + 1) * width];
        let mut sum = vec![0.0; width];
        backward_rows(out, &mut sum, &dy[elements.clone()], &update[elements], gate);
        sum
    });
    (out, tasks.sum_per_item(sums, width))
}

vectorized! {
    fn backward_rows(out: &mut [f32], sum: &mut [f32], dy: &[f32], update: &[f32], gate: &[f32]) {
        let width = gate.len();
        let rows = out.chunks_exact_mut(width).zip(dy.chunks_exact(width)).zip(update.chunks_exact(width));
        for ((out, dy), update) in rows {
            for (((out, dy), gate), (sum, update)) in
                out.iter_mut().zip(dy).zip(gate).zip(sum.iter_mut().zip(update))
            {
                *out = dy * gate;
                *sum = dy.mul_add(*update, *sum);
            }
        }
    }
}
