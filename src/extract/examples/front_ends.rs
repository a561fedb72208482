//! Times a front-end's network on recordings; `scripts/bench_frontends` compares it with onnxruntime.
//!
//! `front_ends features KIND FOLDER FILES…` writes the input features of each recording as raw `f32` (`00000.f32` …).
//! `front_ends run KIND WEIGHTS THREADS FOLDER` runs the network on these and prints the seconds of one pass after a
//! warm-up. The results go to `FOLDER/ours.f32`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use flowmill_audio::features::{KaldiConfig, KaldiFbank};
use flowmill_extract::extractors::campplus::Campplus;
use rayon::prelude::*;

#[global_allocator]
static ALLOCATOR: flowmill_nn::HugePages = flowmill_nn::HugePages;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A network as a function from features to numbers.
type Network = Box<dyn Fn(&[f32]) -> Vec<f32> + Send + Sync>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &arguments[..] {
        ["features", kind, folder, files @ ..] => features(kind, Path::new(folder), files),
        ["run", kind, weights, threads, folder] => run(kind, Path::new(weights), threads.parse()?, Path::new(folder)),
        _ => Err("usage: front_ends features KIND FOLDER FILES… | run KIND WEIGHTS THREADS FOLDER".into()),
    }
}

fn features(kind: &str, folder: &Path, files: &[&str]) -> Outcome<()> {
    std::fs::create_dir_all(folder)?;
    for (index, file) in files.iter().enumerate() {
        let audio = flowmill_audio::decode_bytes(&std::fs::read(file)?, file)?;
        let rate = audio.sample_rate;
        let samples = flowmill_audio::resample(&audio.into_mono(), rate, 16_000)?;
        let features = match kind {
            "campplus" => KaldiFbank::new(KaldiConfig::campplus())?.compute(&samples)?.data,
            other => return Err(format!("no front-end {other:?}").into()),
        };
        std::fs::write(folder.join(format!("{index:05}.f32")), bytes(&features))?;
    }
    Ok(())
}

fn network(kind: &str, weights: &Path) -> Outcome<Network> {
    match kind {
        "campplus" => {
            let encoder = Campplus::open(weights, &candle_core::Device::Cpu)?;
            Ok(Box::new(move |features| encoder.embed(features).ok().flatten().unwrap_or_default()))
        }
        other => Err(format!("no front-end {other:?}").into()),
    }
}

fn run(kind: &str, weights: &Path, threads: usize, folder: &Path) -> Outcome<()> {
    let network = network(kind, weights)?;
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Outcome<_>>()?;
    files.retain(|file| {
        file.file_stem().is_some_and(|stem| stem.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
    });
    files.sort();
    let mut items = files.iter().map(|file| floats(file)).enumerate().collect::<Vec<_>>();
    items.sort_by_key(|(_, features)| std::cmp::Reverse(features.len()));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let (seconds, mut results) = pool.install(|| {
        items.par_iter().take(2 * threads).for_each(|(_, features)| drop(network(features)));
        let start = Instant::now();
        let results: Vec<_> =
            items.par_iter().with_max_len(1).map(|(index, features)| (*index, network(features))).collect();
        (start.elapsed().as_secs_f64(), results)
    });
    results.sort_by_key(|(index, _)| *index);
    std::fs::write(
        folder.join("ours.f32"),
        bytes(&results.into_iter().flat_map(|(_, values)| values).collect::<Vec<_>>()),
    )?;
    println!("{seconds:.4}");
    Ok(())
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(file: &Path) -> Vec<f32> {
    let bytes = std::fs::read(file).unwrap_or_default();
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}
