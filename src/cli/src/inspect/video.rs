//! Videos: their container, picture and sound, from the container's tables.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flowmill_audio::Decoder;
use flowmill_video::info::{VideoInfo, probe};
use serde_json::{Value, json};

use super::facts::{Facts, View};
use crate::human;
use crate::table::print_pairs;

/// Reads the properties of the video at `path`. No frame is decoded.
pub fn read(path: &Path) -> Result<VideoInfo> {
    Ok(probe(path, Decoder::builtin())?)
}

impl Facts for VideoInfo {
    fn print(&self, _view: View, out: &mut dyn Write) -> Result<()> {
        let mut pairs = vec![
            ("container".to_owned(), self.container.to_owned()),
            ("codec".into(), codec(self)),
            ("size".into(), format!("{} × {} pixels", self.size.0, self.size.1)),
            ("frame rate".into(), rate(self)),
            ("frames".into(), human::count(self.frames as u64)),
            ("length".into(), format!("{:.3} s", self.seconds.unwrap_or_default())),
        ];
        if self.rotation != 0 {
            pairs.push(("turned by".into(), format!("{} degrees", self.rotation)));
        }
        pairs.push(("sound".into(), sound(self)));
        Ok(print_pairs(&pairs, 2, out)?)
    }

    fn json(&self) -> Result<Value> {
        let sound = self.sound.as_ref().map(|sound| {
            json!({
                "codec": sound.codec,
                "sample_rate": sound.sample_rate,
                "channels": sound.channels,
                "seconds": sound.seconds(),
                "start": self.sound_start,
            })
        });
        Ok(json!({
            "container": self.container,
            "codec": self.codec,
            "width": self.size.0,
            "height": self.size.1,
            "frames": self.frames,
            "frames_per_second": self.fps,
            "is_variable": self.is_variable,
            "seconds": self.seconds,
            "rotation": self.rotation,
            "needs_fallback": self.needs_fallback,
            "sound": sound,
        }))
    }
}

fn codec(info: &VideoInfo) -> String {
    match info.needs_fallback {
        true => format!("{} (decoded by ffmpeg, with `prep.fallback: ffmpeg`)", info.codec),
        false => info.codec.clone(),
    }
}

fn rate(info: &VideoInfo) -> String {
    let kind = if info.is_variable { "on average, variable" } else { "constant" };
    format!("{:.3} per second, {kind}", info.fps)
}

fn sound(info: &VideoInfo) -> String {
    match (&info.sound, info.sound_start) {
        (Some(sound), start) => format!(
            "{}, {} Hz, {} channels, {:.3} s, starts at {:.3} s",
            sound.codec,
            human::count(sound.sample_rate.into()),
            sound.channels,
            sound.seconds(),
            start.unwrap_or_default()
        ),
        (None, Some(_)) => "cannot be read".into(),
        (None, None) => "none".into(),
    }
}
