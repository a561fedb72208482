//! Times packing: recordings and their columns into one shard without a mel, the task that `scripts/bench_data` does
//! with pandas.
//!
//! `cargo run --release -p flowmill-corpus --example pack -- SECONDS_OF_AUDIO FILE...` prints the seconds of audio per second.

use std::time::Instant;

use flowmill_corpus::shard::{MelStore, ShardOptions, ShardWriter, speech};
use flowmill_corpus::{Array, Row};

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
    let options = ShardOptions { columns: speech::columns(MelStore::None), ..ShardOptions::default() };
    let mut writer = ShardWriter::create(&folder.join("shard.parquet"), &options)?;
    for file in files {
        let columns = [
            (speech::WAV, Array::text(file)),
            (speech::AUDIO_DATA, Array::scalar(std::fs::read(file)?)),
            (speech::TEXT, Array::text("")),
            (speech::UTT_EMBEDDING, Array::vector(vec![0.1f32; 192])),
            (speech::SPK_EMBEDDING, Array::vector(vec![0.1f32; 192])),
            (speech::SPEECH_TOKEN, Array::vector((0..(seconds * TOKEN_RATE) as i64).collect())),
            (speech::DURATION, Array::scalar(seconds)),
            (speech::SAMPLE_RATE, Array::scalar(16_000i32)),
        ];
        let columns = columns.into_iter().map(|(name, array)| (name.to_owned(), array)).collect();
        writer.push(Row { id: file.clone(), group: "speaker".to_owned(), columns, ..Row::default() })?;
    }
    writer.finish()?;
    Ok(())
}
