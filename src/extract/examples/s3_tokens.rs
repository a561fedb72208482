//! Prints the time that an S3 tokenizer takes on recordings, and writes their tokens; `scripts/bench_s3` compares
//! with onnxruntime.
//!
//!     s3_tokens VERSION WEIGHTS [--repeat N] [--dump FOLDER] FILE…
//!
//! Prints the seconds of each repetition (log-mels and network, without decoding and loading). `--dump` writes the
//! log-mel (`.mel`, 32-bit floats, `[frame][band]`) and the tokens (`.tokens`, text) of each file, to compare with
//! another program.

use std::path::{Path, PathBuf};
use std::time::Instant;

use flowmill_audio::features::WhisperLogMel;
use flowmill_extract::extractors::s3::{S3Config, S3Extractor};
use flowmill_extract::{Kind, Scope};

#[global_allocator]
static ALLOCATOR: flowmill_nn::HugePages = flowmill_nn::HugePages;

/// The result of a function whose errors are printed and end the program.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Arguments {
    version: String,
    weights: String,
    repeat: usize,
    dump: Option<PathBuf>,
    files: Vec<PathBuf>,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut next = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
        let (version, weights) = (next("VERSION")?, next("WEIGHTS")?);
        let mut arguments = Self { version, weights, repeat: 1, dump: None, files: Vec::new() };
        while let Ok(word) = next("FILE") {
            match word.as_str() {
                "--repeat" => arguments.repeat = next("N")?.parse()?,
                "--dump" => arguments.dump = Some(next("FOLDER")?.into()),
                _ => arguments.files.push(word.into()),
            }
        }
        Ok(arguments)
    }
}

fn main() -> Outcome<()> {
    let arguments = Arguments::read(std::env::args().skip(1))?;
    let started = Instant::now();
    let extractor = extractor(&arguments)?;
    println!("loaded in {:.2} s", started.elapsed().as_secs_f64());
    let recordings = arguments.files.iter().map(|file| samples(file)).collect::<Outcome<Vec<_>>>()?;
    for _ in 0..arguments.repeat {
        let started = Instant::now();
        let tokens = extractor.tokens(&recordings);
        println!("s3 {:.4}", started.elapsed().as_secs_f64());
        let tokens = tokens.into_iter().collect::<Result<Vec<_>, _>>()?;
        println!("tokens {}", tokens.iter().map(Vec::len).sum::<usize>());
        if let Some(folder) = &arguments.dump {
            dump(folder, &recordings, &tokens)?;
        }
    }
    Ok(())
}

fn extractor(arguments: &Arguments) -> Outcome<S3Extractor> {
    let config = serde_json::json!({ "version": arguments.version, "weights": arguments.weights });
    let config: S3Config = serde_json::from_value(config)?;
    let fit = config.fit(0, Path::new("."))?;
    let nothing = fit.accumulator(Scope::Whole).into_state();
    Ok(S3Extractor::from_state(&fit.finish(&nothing)?.state, &candle_core::Device::Cpu)?)
}

fn samples(file: &Path) -> Outcome<Vec<f32>> {
    let audio = flowmill_audio::decode_file(file)?;
    let rate = audio.sample_rate;
    Ok(flowmill_audio::resample(&audio.into_mono(), rate, WhisperLogMel::SAMPLE_RATE)?)
}

fn dump(folder: &Path, recordings: &[Vec<f32>], tokens: &[Vec<u32>]) -> Outcome<()> {
    std::fs::create_dir_all(folder)?;
    let mel = WhisperLogMel::new(128)?;
    for (index, (samples, tokens)) in recordings.iter().zip(tokens).enumerate() {
        let bytes: Vec<u8> = mel.compute(samples)?.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(folder.join(format!("{index:05}.mel")), bytes)?;
        let words: Vec<String> = tokens.iter().map(u32::to_string).collect();
        std::fs::write(folder.join(format!("{index:05}.tokens")), words.join(" "))?;
    }
    Ok(())
}
