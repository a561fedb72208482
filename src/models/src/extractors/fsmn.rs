//! The memory of feed-forward sequential memory networks (FSMN; Gao et al., arXiv 2006.01713): a convolution of each channel over
//! time beside the attention, added to its own input.

use flowmill_nn::{NnError, Sequences, Value, host, kernels::depthwise};

/// `residual + values + (values convolved over time)`, the rows of each item on their own; the taps are `[channel, 1, tap]`, an odd
/// number of them, centred. Rows that belong to no item are those of `residual`.
pub(crate) fn add_memory(residual: &Value, values: &Value, taps: &Value, items: &Sequences) -> Result<Value, NnError> {
    let width = values.width();
    let &[channels, 1, count] = taps.dims() else {
        return Err(NnError::shape("memory taps", "[channel, 1, tap]", taps.dims()));
    };
    if channels != width || residual.dims() != values.dims() || items.total() != values.rows() || count == 0 {
        return Err(NnError::shape("memory", format!("[{}, {channels}]", items.total()), values.dims()));
    }
    let centre = (count - 1) / 2;
    let weights = host::slice("memory taps", taps.tensor())?;
    let mut outermost = depthwise::taps_outermost(&weights, count);
    // The input itself is one more tap of weight 1 at the centre.
    outermost[centre * width..(centre + 1) * width].iter_mut().for_each(|weight| *weight += 1.0);
    let mut out = host::slice("memory", residual.tensor())?.to_vec();
    depthwise::accumulate(&mut out, &host::slice("memory", values.tensor())?, &outermost, centre, items, width);
    Value::from_vec(out, values.dims())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_nn::random::Draw;

    #[test]
    fn each_channel_of_each_item_is_convolved_on_its_own() {
        let (rows, width, count) = (150, 5, 7);
        let items = Sequences::packed(&[1, 140, 0, 9]);
        let draw = Draw::new(3);
        let [residual, values] = ["residual", "values"].map(|name| draw.purpose(name).normals(rows * width));
        let taps = draw.purpose("taps").normals(width * count);
        let value = |data: &[f32]| Value::from_vec(data.to_vec(), &[rows, width]).unwrap();
        let taps_value = Value::from_vec(taps.clone(), &[width, 1, count]).unwrap();
        let found = add_memory(&value(&residual), &value(&values), &taps_value, &items).unwrap();
        let found = found.tensor().to_vec2::<f32>().unwrap();
        for item in items.ranges() {
            for row in item.clone() {
                for channel in 0..width {
                    let term = |tap: usize| {
                        let source = (row + tap).checked_sub(count / 2).filter(|source| item.contains(source));
                        source.map_or(0.0, |source| taps[channel * count + tap] * values[source * width + channel])
                    };
                    let at = row * width + channel;
                    let expected = residual[at] + values[at] + (0..count).map(term).sum::<f32>();
                    assert!((found[row][channel] - expected).abs() < 1e-5, "row {row}, channel {channel}");
                }
            }
        }
    }
}
