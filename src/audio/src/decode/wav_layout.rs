//! The layout of a frame of PCM samples when the fields of a WAV header contradict each other.
//!
//! Channels, bits per sample, block_align and the byte rate are redundant. If they disagree, the samples decide: with a wrong width they
//! are noise, and with a wrong number of channels they are too rough for their rate, or repeat a pattern. The header's channels and bits
//! win unless the samples contradict them.

use std::fmt;

use super::pcm::{self, Encoding};
use super::{MAX_CHANNELS, riff, wav};
use crate::audio::DecodeWarning;

/// The layout of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) channels: u16,
    /// Bytes of one sample.
    pub(super) bytes: u16,
}

impl Layout {
    /// Bytes of a frame.
    pub(super) fn frame(self) -> u32 {
        u32::from(self.channels) * u32::from(self.bytes)
    }
}

/// The fields of the header that determine the layout.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claims {
    pub(super) tag: u16,
    pub(super) channels: u16,
    pub(super) bits: u16,
    pub(super) block_align: u16,
    pub(super) byte_rate: u32,
    pub(super) sample_rate: u32,
    pub(super) big_endian: bool,
}

/// Roughness above which samples are not sound: 2 for white noise, far less for speech and music.
const NOISE: f64 = 1.2;

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, bits, block_align, byte_rate, .. } = self;
        write!(f, "channels {channels}, bits per sample {bits}, block_align {block_align}, byte rate {byte_rate}")
    }
}

impl Claims {
    /// Returns the layout given by channels and bits.
    pub(super) fn stated(&self) -> Layout {
        let bytes = match (self.tag, self.bits) {
            // G.711 has one byte per sample; some programs write the number of decoded bits.
            (riff::TAG_ALAW | riff::TAG_MULAW, _) => 1,
            (_, 0) => self.block_align / self.channels.max(1),
            (_, bits) => bits.div_ceil(8),
        };
        Layout { channels: self.channels, bytes }
    }

    /// Returns whether the samples have to be examined. 24 bits in 4 bytes are legal, and so are 12 bits in 2; only the samples
    /// distinguish them from a wrong block_align.
    pub(super) fn contradict(&self) -> bool {
        let stated = self.stated().frame();
        let byte_rate = u64::from(self.sample_rate) * u64::from(stated);
        u32::from(self.block_align) != stated || (self.byte_rate != 0 && u64::from(self.byte_rate) != byte_rate)
    }

    /// Returns the bytes per frame according to the byte rate.
    fn frame_by_rate(&self) -> u32 {
        if self.byte_rate.is_multiple_of(self.sample_rate.max(1)) {
            self.byte_rate / self.sample_rate.max(1)
        } else {
            0
        }
    }

    fn frames_agree(&self) -> bool {
        u32::from(self.block_align) == self.frame_by_rate()
    }

    /// A warning about the correction, if `settled` differs from the header.
    pub(super) fn mended(&self, settled: Layout) -> Option<DecodeWarning> {
        let stated = self.stated();
        // 24 bits in 4 bytes are not a mistake.
        let same_bytes = settled.bytes == stated.bytes || (self.bits, settled.bytes) == (24, 4);
        let right = same_bytes && settled.channels == stated.channels && settled.frame() == u32::from(self.block_align);
        (!right).then(|| DecodeWarning::MendedHeader {
            said: self.to_string(),
            used: format!("channels {}, bits per sample {}", settled.channels, 8 * settled.bytes),
        })
    }

    /// Returns every layout that two fields agree on; the stated one first.
    fn candidates(&self) -> Vec<Layout> {
        let stated = self.stated();
        let mut layouts = vec![stated];
        let channels = u32::from(self.channels);
        for frame in [u32::from(self.block_align), self.frame_by_rate()] {
            for (channels, bytes) in
                [(channels, frame / channels.max(1)), (frame / u32::from(stated.bytes.max(1)), stated.bytes.into())]
            {
                let layout = Layout { channels: channels as u16, bytes: bytes as u16 };
                let possible = (1..=MAX_CHANNELS).contains(&channels) && layout.frame() == frame;
                if possible && self.encoding(layout.bytes).is_some() && !layouts.contains(&layout) {
                    layouts.push(layout);
                }
            }
        }
        layouts.retain(|layout| self.encoding(layout.bytes).is_some());
        layouts
    }

    fn encoding(&self, bytes: u16) -> Option<Encoding> {
        wav::encoding(self.tag, bytes)
    }

    /// Returns a number of bytes that every layout divides into whole frames; samples can be examined at its multiples.
    pub(super) fn common_frame(&self) -> u64 {
        self.candidates().iter().fold(1, |common, layout| lcm(common, u64::from(layout.frame().max(1))))
    }

    /// Returns the layout that fits the `excerpts` of the samples; `None` if the fields contradict each other and the samples
    /// are noise in every layout.
    pub(super) fn settle(&self, excerpts: &[Vec<u8>]) -> Option<Layout> {
        let candidates = self.candidates();
        let stated = self.stated();
        let roughness: Vec<f64> = candidates.iter().map(|layout| self.roughness(*layout, excerpts)).collect();
        if roughness.iter().all(|rough| *rough == 0.0) {
            // Silence decides nothing, so the frame sizes decide if they agree.
            let by_frame =
                candidates.iter().find(|layout| self.frames_agree() && layout.frame() == u32::from(self.block_align));
            return Some(*by_frame.unwrap_or(&stated));
        }
        let (width, best) = self.width(&candidates, &roughness)?;
        if best > NOISE && candidates.len() > 1 {
            return None;
        }
        let same_width = candidates.iter().copied().filter(|layout| layout.bytes == width);
        let first =
            same_width.clone().find(|layout| layout.channels == stated.channels).or(same_width.clone().next())?;
        Some(same_width.fold(first, |chosen, other| if self.prefers(chosen, other, excerpts) { other } else { chosen }))
    }

    /// Returns the width of samples, and their roughness with it. The stated width is taken, unless another one is clearly smoother and
    /// the stated one is noise or the frame sizes agree with the other.
    fn width(&self, candidates: &[Layout], roughness: &[f64]) -> Option<(u16, f64)> {
        let of = |width: u16| {
            let own = candidates.iter().zip(roughness).filter(|(layout, _)| layout.bytes == width);
            own.map(|(_, rough)| *rough).reduce(f64::min)
        };
        let stated = self.stated().bytes;
        let frames_agree = self.frames_agree();
        let mut chosen = of(stated).map(|rough| (stated, rough));
        for layout in candidates.iter().filter(|layout| layout.bytes != stated) {
            let rough = of(layout.bytes)?;
            // A wider reading of narrow samples is smooth too, because it skips every other one.
            let narrower = layout.bytes < stated;
            let better = chosen.is_none_or(|(_, best)| {
                (best > NOISE && rough < 0.5 * best) || (frames_agree && narrower && rough < best.min(NOISE))
            });
            if better {
                chosen = Some((layout.bytes, rough));
            }
        }
        chosen
    }

    /// Returns whether the samples clearly fit the channels of `other` better than those of `chosen`.
    fn prefers(&self, chosen: Layout, other: Layout, excerpts: &[Vec<u8>]) -> bool {
        let (few, many) = if other.channels < chosen.channels { (other, chosen) } else { (chosen, other) };
        if few.channels == many.channels || !many.channels.is_multiple_of(few.channels) {
            return self.roughness(other, excerpts) < 0.5 * self.roughness(chosen, excerpts);
        }
        let pattern = self.pattern(few, many, excerpts);
        // If the frame sizes agree with each other against the header's channels, less evidence suffices.
        let (more, fewer) = if self.frames_agree() { (1.0, 0.95) } else { (2.0, 0.7) };
        if other == many {
            pattern.near > more * pattern.far || pattern.unevenness > 1.5
        } else {
            pattern.near < fewer * pattern.far && pattern.unevenness < 1.2
        }
    }

    /// Returns the energy of the differences between neighbors, relative to that of the samples, in the roughest channel; 0 for
    /// silence. If samples are wider than in a layout, their low halves are a channel of noise.
    fn roughness(&self, layout: Layout, excerpts: &[Vec<u8>]) -> f64 {
        let mut sums = vec![(0.0, 0.0); layout.channels.into()];
        for excerpt in excerpts {
            for ((differences, energy), channel) in sums.iter_mut().zip(self.planar(layout, excerpt)) {
                let mean = channel.iter().map(|value| f64::from(*value)).sum::<f64>() / channel.len().max(1) as f64;
                *energy += channel.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>();
                *differences += squared_steps(&channel, 1).sum::<f64>();
            }
        }
        let ratios =
            sums.into_iter().filter(|(_, energy)| *energy > 0.0).map(|(differences, energy)| differences / energy);
        ratios.fold(0.0, f64::max)
    }

    fn planar(&self, layout: Layout, excerpt: &[u8]) -> Vec<Vec<f32>> {
        let Some(encoding) = self.encoding(layout.bytes) else { return Vec::new() };
        let mut planar = pcm::to_planar(excerpt, encoding, self.big_endian, layout.channels.into());
        // Bytes that are not floats may read as values that dominate everything.
        planar.iter_mut().flatten().for_each(|value| *value = if value.abs() < 1e3 { *value } else { 1e3 });
        planar
    }

    /// Compares a reading as `few` channels with one as `many`.
    fn pattern(&self, few: Layout, many: Layout, excerpts: &[Vec<u8>]) -> Pattern {
        let factor = usize::from(many.channels / few.channels);
        let (mut near, mut far, mut phases) = (0.0, 0.0, vec![0.0; factor]);
        for channel in excerpts.iter().flat_map(|excerpt| self.planar(few, excerpt)) {
            for (at, step) in squared_steps(&channel, 1).enumerate() {
                near += step;
                phases[at % factor] += step;
            }
            far += squared_steps(&channel, factor).sum::<f64>();
        }
        let (low, high) =
            phases.iter().fold((f64::MAX, 0.0f64), |(low, high), value| (low.min(*value), high.max(*value)));
        Pattern { near, far, unevenness: if high > 0.0 { high / low.max(1e-12 * high) } else { 1.0 } }
    }
}

/// Statistics of samples that are read as few channels and may have more.
struct Pattern {
    /// Energy of the steps from each sample to the next.
    near: f64,
    /// Energy of the steps to the next sample of the same channel, if there are many channels.
    far: f64,
    /// Dependence of the steps on the position within a frame of many channels; 1 means none.
    unevenness: f64,
}

fn squared_steps(values: &[f32], distance: usize) -> impl Iterator<Item = f64> {
    values.iter().zip(values.iter().skip(distance)).map(|(one, next)| (f64::from(*next) - f64::from(*one)).powi(2))
}

fn lcm(one: u64, other: u64) -> u64 {
    let (mut a, mut b) = (one, other);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    one / a.max(1) * other
}

/// Returns whether a format tag stores samples independently.
pub(super) fn applies(tag: u16) -> bool {
    matches!(tag, riff::TAG_PCM | riff::TAG_FLOAT | riff::TAG_ALAW | riff::TAG_MULAW)
}
