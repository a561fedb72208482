//! Videos: their container, picture and sound, from the container's tables.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flowmill_audio::Decoder;
use flowmill_video::info::{VideoInfo, probe};

use crate::human;
use crate::table::print_pairs;

/// Prints the properties of a video. No frame is decoded.
pub fn show(path: &Path, out: &mut dyn Write) -> Result<()> {
    let info = probe(path, Decoder::builtin())?;
    let mut pairs = vec![
        ("container".to_owned(), info.container.to_owned()),
        ("codec".into(), codec(&info)),
        ("size".into(), format!("{} × {} pixels", info.size.0, info.size.1)),
        ("frame rate".into(), rate(&info)),
        ("frames".into(), human::count(info.frames as u64)),
        ("length".into(), format!("{:.3} s", info.seconds.unwrap_or_default())),
    ];
    if info.rotation != 0 {
        pairs.push(("turned by".into(), format!("{} degrees", info.rotation)));
    }
    pairs.push(("sound".into(), sound(&info)));
    print_pairs(&pairs, 2, out)?;
    Ok(())
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
