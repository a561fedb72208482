//! Fixed sinusoidal encodings of positions, distances and times, and the angles of rotary positions.

use crate::{NnError, Result, Value};
use candle_core::Device;

/// Encodings of the distances `time - 1 ..= 1 - time` (query minus key), `[2 time - 1, channel]`: sines at even channels, cosines at odd
/// ones, wavelengths in geometric progression up to 10000 x 2 pi ("Attention is all you need"; the two-sided form of ESPnet).
///
/// # Errors
/// When the number of channels is odd or there is no frame.
pub fn relative_encodings(time: usize, channels: usize) -> Result<Value> {
    if !channels.is_multiple_of(2) || time == 0 {
        return Err(NnError::invalid("relative encodings", format!("{time} frames, {channels} channels")));
    }
    let rate = -(10_000f32.ln()) / channels as f32;
    let rates: Vec<f32> = (0..channels / 2).map(|pair| ((2 * pair) as f32 * rate).exp()).collect();
    let mut encodings = Vec::with_capacity((2 * time - 1) * channels);
    for row in 0..2 * time - 1 {
        let distance = time as f32 - 1.0 - row as f32;
        encodings.extend(rates.iter().flat_map(|rate| [(distance * rate).sin(), (distance * rate).cos()]));
    }
    Value::from_vec(encodings, &[2 * time - 1, channels])
}

/// Encodings of flow or diffusion times in [0, 1], `[item, channel]`: sines of 1000 t at geometrically spaced rates from 1 to
/// 1/10000, then their cosines (Ho et al., arXiv 2006.11239).
///
/// # Errors
/// When the number of channels is odd or less than 4.
pub fn sinusoidal_time(times: &[f32], channels: usize) -> Result<Value> {
    if !channels.is_multiple_of(2) || channels < 4 {
        return Err(NnError::invalid(
            "time encoding",
            format!("{channels} channels: the number must be even and at least 4"),
        ));
    }
    let rates = sinusoidal_time_rates(channels);
    let encode = |time: &f32| {
        let angles: Vec<f32> = rates.iter().map(|rate| 1000.0 * time * rate).collect();
        let sines: Vec<f32> = angles.iter().map(|angle| angle.sin()).collect();
        sines.into_iter().chain(angles.into_iter().map(f32::cos)).collect::<Vec<_>>()
    };
    Value::from_vec(times.iter().flat_map(encode).collect(), &[times.len(), channels])
}

/// The rates of [`sinusoidal_time`], one for each sine.
pub fn sinusoidal_time_rates(channels: usize) -> Vec<f32> {
    let half = channels / 2;
    let rate = -(10_000f32.ln()) / half.saturating_sub(1).max(1) as f32;
    (0..half).map(|channel| (channel as f32 * rate).exp()).collect()
}

/// The rates of [`timestep_encodings`], one for each cosine.
pub fn timestep_rates(channels: usize) -> Vec<f32> {
    let half = channels / 2;
    let logarithm = -(10_000f32.ln());
    (0..half).map(|channel| (logarithm * channel as f32 / half as f32).exp()).collect()
}

/// Encodings of flow or diffusion times in [0, 1], `[item, channel]`: cosines of 1000 t at geometrically spaced rates from 1 down to
/// one step short of 1/10000, then their sines (the form of DiT, arXiv 2212.09748).
///
/// # Errors
/// When the number of channels is odd or 0.
pub fn timestep_encodings(times: &[f32], channels: usize) -> Result<Value> {
    scaled_timestep_encodings(times, 1000.0, channels)
}

/// Encodings of times like [`timestep_encodings`], but of `scale` t in place of 1000 t. Steps of a diffusion, such as 0 to 999, have the scale 1 (Stable Diffusion).
///
/// # Errors
/// When the number of channels is odd or 0.
pub fn scaled_timestep_encodings(times: &[f32], scale: f32, channels: usize) -> Result<Value> {
    if !channels.is_multiple_of(2) || channels == 0 {
        return Err(NnError::invalid(
            "time encoding",
            format!("{channels} channels: the number must be even and at least 2"),
        ));
    }
    let rates = timestep_rates(channels);
    let encode = |time: &f32| {
        let angles: Vec<f32> = rates.iter().map(|rate| scale * time * rate).collect();
        let cosines: Vec<f32> = angles.iter().map(|angle| angle.cos()).collect();
        cosines.into_iter().chain(angles.into_iter().map(f32::sin)).collect::<Vec<_>>()
    };
    Value::from_vec(times.iter().flat_map(encode).collect(), &[times.len(), channels])
}

/// Encodings of the positions `0..time`, `[time, channel]`: sines at even channels, cosines at odd ones, wavelengths in geometric
/// progression up to 10000 x 2 pi ("Attention is all you need").
///
/// # Errors
/// When the number of channels is odd.
pub fn position_encodings(time: usize, channels: usize) -> Result<Value> {
    if !channels.is_multiple_of(2) {
        return Err(NnError::invalid("position encodings", format!("{channels} channels: the number must be even")));
    }
    let rate = -(10_000f64.ln()) / channels as f64;
    let rates: Vec<f64> = (0..channels / 2).map(|pair| ((2 * pair) as f64 * rate).exp()).collect();
    let pairs = |position: usize| rates.iter().map(move |rate| (position as f64 * rate).sin_cos());
    let encodings = (0..time).flat_map(pairs).flat_map(|(sine, cosine)| [sine as f32, cosine as f32]);
    Value::from_vec(encodings.collect(), &[time, channels])
}

/// Angles of rotary positions (Su et al., arXiv 2104.09864), for [`Value::rotate`] and [`Value::rotate_leading`].
#[derive(Debug, Clone)]
pub struct RotaryAngles {
    /// Cosines `[row, pair]`.
    pub cosines: Value,
    /// Sines `[row, pair]`.
    pub sines: Value,
}

impl RotaryAngles {
    /// The angles of rows at these positions, for heads of `2 pairs` channels: pair `p` turns by `base^(-p / pairs)` per position.
    ///
    /// # Errors
    /// When there is no pair.
    pub fn new(positions: &[u32], pairs: usize, base: f32) -> Result<Self> {
        Self::with_rates(positions, &Self::rates(pairs, base))
    }

    /// Returns the angle per position of each pair: `base^(-p / pairs)`, rounded to single precision, like those that published models
    /// were trained with.
    pub fn rates(pairs: usize, base: f32) -> Vec<f32> {
        (0..pairs).map(|pair| (1.0 / f64::from(base).powf(pair as f64 / pairs as f64)) as f32).collect()
    }

    /// The angles of rows at these positions, for pairs that turn by `rates` per position.
    ///
    /// # Errors
    /// When there is no pair.
    pub fn with_rates(positions: &[u32], rates: &[f32]) -> Result<Self> {
        if rates.is_empty() {
            return Err(NnError::invalid("rotary positions", "a head needs at least two channels"));
        }
        // Angles are rounded to single precision too.
        let angles = positions.iter().flat_map(|position| rates.iter().map(move |rate| *position as f32 * rate));
        let (cosines, sines): (Vec<f32>, Vec<f32>) = angles.map(|angle| (angle.cos(), angle.sin())).unzip();
        let shape = [positions.len(), rates.len()];
        Ok(Self { cosines: Value::from_vec(cosines, &shape)?, sines: Value::from_vec(sines, &shape)? })
    }

    /// Moves the angles to a device, for rotations that share them.
    ///
    /// # Errors
    /// When they cannot be copied there.
    pub fn on(&self, device: &Device) -> Result<Self> {
        Ok(Self { cosines: self.cosines.on(device)?, sines: self.sines.on(device)? })
    }

    /// Rotates queries or keys `[row, head x channel]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn rotate(&self, value: &Value) -> Result<Value> {
        value.rotate(&self.cosines, &self.sines)
    }
}
