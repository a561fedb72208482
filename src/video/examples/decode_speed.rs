//! Speed of decoding videos on one thread, in process: frames and RGB, or frames alone as `ffmpeg` counts them.
//!
//! `decode_speed ROUNDS FILE…` prints frames per second of the best round for each file. `scripts/bench_video` compares them with ffmpeg.

use std::time::Instant;

use flowmill_video::clip::{self, ClipOptions, SoundPolicy};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().ok_or("usage: decode_speed ROUNDS FILE…")?.parse()?;
    for path in arguments {
        let bytes = std::fs::read(&path)?;
        let info = flowmill_video::info::probe(&path, Default::default())?;
        // The video's own rate, so that every frame is converted once.
        let fps = info.fps.max(1.0);
        let options = ClipOptions { fps, sound: SoundPolicy::Ignore, max_frames: usize::MAX, ..ClipOptions::default() };
        let mut best = f64::INFINITY;
        let mut frames = 0;
        for _ in 0..rounds {
            let start = Instant::now();
            frames = clip::frames(&bytes, &path, &options)?.filter(Result::is_ok).count();
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!("{path}\t{}x{}\t{frames}\t{:.1}", info.size.0, info.size.1, frames as f64 / best);
    }
    Ok(())
}
