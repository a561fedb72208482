//! Gaps: places where a container's timestamps run ahead of the sound in its packets.

use symphonia::core::units::{TimeBase, Timestamp};

use crate::audio::DecodeWarning;

/// Shortest gap, in parts of a second. Timestamps of live recordings jitter, and Matroska rounds them to milliseconds.
const PARTS_OF_A_SECOND: i64 = 20;

/// Shortest gap after a packet that could not be decoded: no packet is longer than 120 ms, except of lossless codecs at low rates.
const PARTS_WITH_A_PACKET: i64 = 5;
/// Allowed drift of the clocks of live recordings: one part in this number of the time.
const DRIFT: i64 = 1000;

/// One comparison of a timestamp with the frames before it.
#[derive(Clone, Copy)]
struct Reading {
    /// Time of the packet, in frames.
    time: i64,
    /// Number of frames that the time is ahead of the frames before it.
    ahead: i64,
}

/// Comparison of timestamps with the frames that were decoded.
pub(super) struct Clock {
    time_base: Option<TimeBase>,
    last: Option<Reading>,
    /// The first reading, or the one at the last gap.
    base: Option<Reading>,
    /// True after a packet that could not be decoded.
    lost: bool,
    places: u64,
    frames: u64,
}

impl Clock {
    /// Creates a clock for packets of a track with the given time base; without one it detects nothing.
    pub(super) fn new(time_base: Option<TimeBase>) -> Self {
        Self { time_base, last: None, base: None, lost: false, places: 0, frames: 0 }
    }

    /// Compares a packet's timestamp with the number of frames before it.
    pub(super) fn packet(&mut self, timestamp: Timestamp, frames: u64, sample_rate: u32) {
        let Some(base) = self.time_base.filter(|_| frames > 0) else { return };
        let ticks = i128::from(timestamp.get()) * i128::from(base.numer.get()) * i128::from(sample_rate);
        let Ok(time) = i64::try_from(ticks / i128::from(base.denom.get())) else { return };
        let now = Reading { time, ahead: time.saturating_sub(i64::try_from(frames).unwrap_or(i64::MAX)) };
        let (last, base) = (*self.last.get_or_insert(now), *self.base.get_or_insert(now));
        let lost = std::mem::take(&mut self.lost);
        let least = i64::from(sample_rate) / if lost { PARTS_WITH_A_PACKET } else { PARTS_OF_A_SECOND };
        // Many short gaps are one long one.
        let jump = now.ahead.saturating_sub(last.ahead);
        let sum = if lost { jump } else { now.ahead.saturating_sub(base.ahead) };
        let drift = now.time.saturating_sub(base.time).max(0) / DRIFT;
        if jump > least || sum > least.saturating_add(drift) {
            self.places += 1;
            self.frames = self.frames.saturating_add(jump.max(sum).unsigned_abs());
            self.base = Some(now);
        } else if lost || sum < -least {
            self.base = Some(now);
        }
        self.last = Some(now);
    }

    /// Records that the last packet could not be decoded, so that the next one may be ahead by its length.
    pub(super) fn lost(&mut self) {
        self.lost = true;
    }

    /// Returns the number of missing frames.
    pub(super) fn missing(&self) -> u64 {
        self.frames
    }

    /// A warning if there are gaps.
    pub(super) fn warning(&self) -> Option<DecodeWarning> {
        (self.places > 0).then_some(DecodeWarning::Gaps { places: self.places, frames: self.frames })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_ahead_are_holes_and_jitter_is_none() {
        let mut clock = Clock::new(TimeBase::try_new(1, 1000));
        // Packets of 20 ms at 48 kHz: the third is late by 9 ms, and 200 ms are missing before the fifth.
        for (index, milliseconds) in [0, 20, 49, 60, 280, 300].into_iter().enumerate() {
            clock.packet(Timestamp::new(milliseconds), 960 * index as u64, 48_000);
        }
        assert_eq!(clock.warning(), Some(DecodeWarning::Gaps { places: 1, frames: 9600 }));
    }

    #[test]
    fn many_short_holes_are_a_long_one_and_drift_is_none() {
        // Packets of 20 ms, of which only 10 ms are there for a second.
        let mut clock = Clock::new(TimeBase::try_new(1, 1000));
        (0..50).for_each(|packet| clock.packet(Timestamp::new(20 * packet), 960 + 480 * packet as u64, 48_000));
        assert!((20_000..=24_000).contains(&clock.missing()), "{}", clock.missing());
        // An hour of a clock that is fast by one in 5000.
        let mut clock = Clock::new(TimeBase::try_new(1, 1_000_000));
        (0..180_000).for_each(|packet| clock.packet(Timestamp::new(20_004 * packet), 960 * packet as u64, 48_000));
        assert_eq!(clock.warning(), None);
    }

    #[test]
    fn a_start_behind_zero_and_a_step_back_are_no_holes() {
        let mut clock = Clock::new(TimeBase::try_new(1, 1000));
        for (index, milliseconds) in [5000, 5020, 5040, 0, 20].into_iter().enumerate() {
            clock.packet(Timestamp::new(milliseconds), 960 * index as u64, 48_000);
        }
        assert_eq!(clock.warning(), None);
    }
}
