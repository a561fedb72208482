//! Recordings: their format, length and level.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::facts::{Facts, View};
use crate::human;
use crate::style;
use crate::table::print_pairs;

/// The properties of a recording.
#[derive(Serialize)]
pub struct Recording {
    container: String,
    codec: String,
    /// In hertz.
    sample_rate: u32,
    channels: usize,
    frames: u64,
    seconds: f64,
    /// The level of every channel; null for silence.
    levels: Vec<Option<Level>>,
    /// Problems that did not prevent reading it.
    warnings: Vec<String>,
}

/// The level of a channel, in dB relative to full scale.
#[derive(Serialize)]
struct Level {
    peak_db: f64,
    /// The root mean square.
    mean_db: f64,
}

/// Decodes the whole recording at `path`.
pub fn read(path: &Path) -> Result<Recording> {
    let info = flowmill_audio::probe(path)?;
    let audio = flowmill_audio::decode_file(path)?;
    let frames = audio.samples.first().map_or(0, Vec::len);
    Ok(Recording {
        container: info.container.to_string(),
        codec: info.codec.to_string(),
        sample_rate: audio.sample_rate,
        channels: audio.samples.len(),
        frames: frames as u64,
        seconds: frames as f64 / f64::from(audio.sample_rate.max(1)),
        levels: audio.samples.iter().map(|channel| level(channel)).collect(),
        warnings: audio.warnings.iter().map(ToString::to_string).collect(),
    })
}

/// Measures peak and root mean square; `None` for silence.
fn level(samples: &[f32]) -> Option<Level> {
    let peak = samples.iter().fold(0.0_f64, |peak, sample| peak.max(f64::from(sample.abs())));
    let power = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len().max(1) as f64;
    (peak > 0.0).then(|| Level { peak_db: 20.0 * peak.log10(), mean_db: 10.0 * power.log10() })
}

impl Facts for Recording {
    fn print(&self, _view: View, out: &mut dyn Write) -> Result<()> {
        let mut pairs = vec![
            ("container".to_string(), self.container.clone()),
            ("codec".into(), self.codec.clone()),
            ("sample rate".into(), format!("{} Hz", human::count(self.sample_rate.into()))),
            ("channels".into(), self.channels.to_string()),
            ("frames".into(), human::count(self.frames)),
            ("length".into(), format!("{:.3} s", self.seconds)),
        ];
        for (index, level) in self.levels.iter().enumerate() {
            let name = if self.levels.len() == 1 { "level".into() } else { format!("level of channel {index}") };
            let level = level.as_ref().map_or("silence".to_owned(), |Level { peak_db, mean_db }| {
                format!("peak {peak_db:.1} dB, mean {mean_db:.1} dB")
            });
            pairs.push((name, level));
        }
        print_pairs(&pairs, 2, out)?;
        for warning in &self.warnings {
            writeln!(out, "  {} {warning}", style::paint(style::WARN, "warning:"))?;
        }
        Ok(())
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }
}
