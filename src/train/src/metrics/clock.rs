//! The times in event files and Weights & Biases runs.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::DateTime;

/// A source of the times that logs carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// One second since 1970 for each step: two runs of one recipe write the same bytes.
    Steps,
    /// The time of day.
    Wall,
}

impl Clock {
    /// The clock of a run, by the setting `wall_clock`.
    pub(crate) fn of(wall_clock: bool) -> Self {
        if wall_clock { Self::Wall } else { Self::Steps }
    }

    /// The time now, at a step, in seconds since 1970.
    pub(crate) fn seconds(self, step: u64) -> f64 {
        match self {
            Self::Steps => step as f64,
            // A clock before 1970 is no clock.
            Self::Wall => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
        }
    }
}

/// A time in seconds since 1970 as the names of Weights & Biases runs have it: `20240229_235959`, in UTC.
pub(crate) fn compact(seconds: f64) -> String {
    // Beyond the calendar the date is that of 1970.
    DateTime::from_timestamp(seconds as i64, 0).unwrap_or_default().format("%Y%m%d_%H%M%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_the_calendar() {
        assert_eq!(compact(0.0), "19700101_000000");
        assert_eq!(compact(951_827_696.9), "20000229_123456");
        assert_eq!(compact(f64::MAX), "19700101_000000");
    }

    #[test]
    fn steps_are_seconds_unless_the_time_of_day_is_wanted() {
        assert_eq!(Clock::of(false).seconds(17), 17.0);
        assert!(Clock::of(true).seconds(17) > 1.7e9);
    }
}
