//! Times packing: recordings and their columns into one shard, no mel, as `scripts/bench_data` lets pandas do it.
//!
//! `cargo run --release -p flowmill-corpus --example pack -- SECONDS_OF_AUDIO FILE...` prints the seconds of audio per second.

use std::time::Instant;

use flowmill_corpus::shard::{MelStore, ShardOptions, ShardRow, ShardWriter};

/// Speech tokens per second.
const TOKEN_RATE: f64 = 25.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().ok_or("usage: pack SECONDS_OF_AUDIO FILE...")?.parse()?;
    let files: Vec<String> = arguments.collect();
    let folder = tempfile::tempdir()?;
    let each = seconds / files.len().max(1) as f64;
    pack(&files[..files.len().min(2)], each, folder.path())?;
    let start = Instant::now();
    pack(&files, each, folder.path())?;
    let taken = start.elapsed().as_secs_f64();
    println!("{:<42} {:>9.0} x real time", "pack", seconds / taken);
    Ok(())
}

fn pack(files: &[String], seconds: f64, folder: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let options = ShardOptions { mel: MelStore::None, ..ShardOptions::default() };
    let mut writer = ShardWriter::create(&folder.join("shard.parquet"), &options)?;
    for file in files {
        writer.push(ShardRow {
            utt: file.clone(),
            wav: file.clone(),
            audio_data: std::fs::read(file)?,
            spk: "speaker".to_owned(),
            utt_embedding: vec![0.1; 192],
            spk_embedding: vec![0.1; 192],
            speech_token: (0..(seconds * TOKEN_RATE) as i64).collect(),
            duration: seconds,
            sample_rate: 16_000,
            ..ShardRow::default()
        })?;
    }
    writer.finish()?;
    Ok(())
}
