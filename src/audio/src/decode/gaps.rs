//! Holes in time: places where the timestamps of a container run ahead of the sound that its packets hold.

use symphonia::core::units::{TimeBase, Timestamp};

use crate::audio::DecodeWarning;

/// Shortest hole that is one, in parts of a second. Timestamps of live recordings jitter, and Matroska rounds them to milliseconds.
const PARTS_OF_A_SECOND: i64 = 20;

/// Comparison of timestamps with the frames that were decoded.
pub(super) struct Clock {
    time_base: Option<TimeBase>,
    /// By how many frames the last packet's timestamp is ahead of the frames that came before it.
    ahead: Option<i64>,
    places: u64,
    frames: u64,
}

impl Clock {
    /// A clock for packets of a track with the given time base; without one it notices nothing.
    pub(super) fn new(time_base: Option<TimeBase>) -> Self {
        Self { time_base, ahead: None, places: 0, frames: 0 }
    }

    /// Compares a packet's timestamp with the number of frames before it.
    pub(super) fn packet(&mut self, timestamp: Timestamp, frames: u64, sample_rate: u32) {
        let Some(base) = self.time_base.filter(|_| frames > 0) else { return };
        let ticks = i128::from(timestamp.get()) * i128::from(base.numer.get()) * i128::from(sample_rate);
        let Ok(time) = i64::try_from(ticks / i128::from(base.denom.get())) else { return };
        let ahead = time.saturating_sub(i64::try_from(frames).unwrap_or(i64::MAX));
        let jump = self.ahead.map_or(0, |before| ahead.saturating_sub(before));
        if jump > i64::from(sample_rate) / PARTS_OF_A_SECOND {
            self.places += 1;
            self.frames = self.frames.saturating_add(jump as u64);
        }
        self.ahead = Some(ahead);
    }

    /// Takes the next packet's timestamp as it is: a packet before it could not be decoded, which is noted elsewhere.
    pub(super) fn restart(&mut self) {
        self.ahead = None;
    }

    /// Frames that are missing.
    pub(super) fn missing(&self) -> u64 {
        self.frames
    }

    /// A warning if there are holes.
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
    fn a_start_behind_zero_and_a_step_back_are_no_holes() {
        let mut clock = Clock::new(TimeBase::try_new(1, 1000));
        for (index, milliseconds) in [5000, 5020, 5040, 0, 20].into_iter().enumerate() {
            clock.packet(Timestamp::new(milliseconds), 960 * index as u64, 48_000);
        }
        assert_eq!(clock.warning(), None);
    }
}
