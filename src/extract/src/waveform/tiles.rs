//! Computation of layers over a signal, piece by piece.

use flowmill_nn::{NnError, Result, Value, device, host};
use rayon::prelude::*;

/// The number of frames of a piece. Values between the layers of a piece stay in the processor's cache.
const TILE: usize = 1024;

/// Computes layers that keep the shape of a signal and see `reach` frames to either side of each frame. `work` gets some frames with
/// `reach` more before and after them, zeros beyond the ends of the signal, and returns the result for these frames. On the CPU a piece
/// is computed at a time, so that values between the layers need memory for pieces only. On devices the whole signal is computed at once.
///
/// # Errors
/// When the signal has not two axes or the result another shape; those of `work`.
pub fn in_tiles(signal: &Value, reach: usize, work: impl Fn(&Value) -> Result<Value> + Sync) -> Result<Value> {
    let &[frames, channels] = signal.dims() else {
        return Err(NnError::shape("tiles", "[frame, channel]", signal.dims()));
    };
    if !device::is_fused(signal.tensor()) {
        return work(&Value::plain(signal.tensor().pad_with_zeros(0, reach, reach)?)?);
    }
    let x = host::slice("tiles", signal.tensor())?;
    let x: &[f32] = &x;
    let mut result = vec![0.0; x.len()];
    let tiles = result.par_chunks_mut((TILE * channels).max(1)).enumerate();
    tiles.try_for_each(|(tile, result)| {
        let (start, count) = (tile * TILE, result.len() / channels.max(1));
        let (first, end) = (start.saturating_sub(reach), frames.min(start + count + reach));
        let mut piece = vec![0.0; (count + 2 * reach) * channels];
        let place = (first + reach - start) * channels;
        piece[place..][..(end - first) * channels].copy_from_slice(&x[first * channels..end * channels]);
        let found = work(&Value::from_vec(piece, &[count + 2 * reach, channels])?)?;
        if found.dims() != [count, channels] {
            return Err(NnError::shape("tiles", format!("[{count}, {channels}]"), found.dims()));
        }
        result.copy_from_slice(&host::slice("tiles", found.tensor())?);
        Ok(())
    })?;
    Value::from_vec(result, &[frames, channels])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_sees_its_neighbors_in_whatever_piece_they_are() {
        for frames in [1, 5, TILE, 2 * TILE + 3] {
            let ramp: Vec<f32> = (0..2 * frames).map(|x| x as f32).collect();
            let signal = Value::from_vec(ramp, &[frames, 2]).unwrap();
            // The sum of the frames three before and three after.
            let ends = |padded: &Value| {
                let count = padded.rows() - 6;
                let side = |start: usize| padded.tensor().narrow(0, start, count);
                Value::plain((side(0)? + side(6)?)?)
            };
            let (fused, composed) = (in_tiles(&signal, 3, ends), device::by_composition(|| in_tiles(&signal, 3, ends)));
            let (fused, composed) = (host::read(fused.unwrap().tensor()), host::read(composed.unwrap().tensor()));
            assert_eq!(fused.unwrap(), composed.unwrap());
        }
        let signal = Value::from_vec(vec![0.0; 8], &[4, 2]).unwrap();
        assert!(in_tiles(&signal, 1, |padded| Ok(padded.clone())).is_err());
    }
}
