//! Positions as sines and cosines: all sines first, then all cosines, wavelengths in geometric progression from 2 pi to 10000 x 2 pi
//! ("Attention is all you need", in the arrangement of tensor2tensor, Whisper and FunASR).

/// Encodes positions in a fixed number of channels.
pub(crate) struct Sinusoids {
    rates: Vec<f32>,
}

impl Sinusoids {
    /// Creates the sinusoids for `channels` channels, an even number.
    pub(crate) fn new(channels: usize) -> Self {
        let half = channels / 2;
        let step = 10_000f32.ln() / half.saturating_sub(1).max(1) as f32;
        Self { rates: (0..half).map(|channel| (channel as f32 * -step).exp()).collect() }
    }

    /// The encodings of `count` positions from `first` on, `[position][channel]`.
    pub(crate) fn table(&self, first: usize, count: usize) -> Vec<f32> {
        (first..first.saturating_add(count)).flat_map(|position| self.encode(position as f32)).collect()
    }

    fn encode(&self, position: f32) -> impl Iterator<Item = f32> {
        let sines = self.rates.iter().map(move |rate| (position * rate).sin());
        sines.chain(self.rates.iter().map(move |rate| (position * rate).cos()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sines_come_first_and_slow_down() {
        let table = Sinusoids::new(6).table(2, 1);
        let expected = [2f32.sin(), 0.02f32.sin(), 2e-4f32.sin(), 2f32.cos(), 0.02f32.cos(), 2e-4f32.cos()];
        for (found, expected) in table.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{table:?}");
        }
    }
}
