//! Recordings: their format, length and level.

use std::io::Write;
use std::path::Path;

use anyhow::Result;

use crate::human;
use crate::style;
use crate::table::print_pairs;

/// Prints the properties of a recording. The whole recording is decoded.
pub fn show(path: &Path, out: &mut dyn Write) -> Result<()> {
    let info = flowmill_audio::probe(path)?;
    let audio = flowmill_audio::decode_file(path)?;
    let frames = audio.samples.first().map_or(0, Vec::len);
    let seconds = frames as f64 / f64::from(audio.sample_rate.max(1));
    let mut pairs = vec![
        ("container".to_string(), info.container.to_string()),
        ("codec".into(), info.codec.to_string()),
        ("sample rate".into(), format!("{} Hz", human::count(audio.sample_rate.into()))),
        ("channels".into(), audio.samples.len().to_string()),
        ("frames".into(), human::count(frames as u64)),
        ("length".into(), format!("{seconds:.3} s")),
    ];
    for (index, channel) in audio.samples.iter().enumerate() {
        let name = if audio.samples.len() == 1 { "level".into() } else { format!("level of channel {index}") };
        pairs.push((name, level(channel)));
    }
    print_pairs(&pairs, 2, out)?;
    for warning in &audio.warnings {
        writeln!(out, "  {} {warning}", style::paint(style::WARN, "warning:"))?;
    }
    Ok(())
}

/// Formats peak and root mean square in dB relative to full scale.
fn level(samples: &[f32]) -> String {
    let peak = samples.iter().fold(0.0_f64, |peak, sample| peak.max(f64::from(sample.abs())));
    let power = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len().max(1) as f64;
    if peak == 0.0 {
        return "silence".into();
    }
    format!("peak {:.1} dB, mean {:.1} dB", 20.0 * peak.log10(), 10.0 * power.log10())
}
