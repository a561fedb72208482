//! Times the processing chains of stages 0 to 3 on one thread: seconds of audio per second of work.
//!
//! `cargo run --release -p flowmill-audio --example chain -- [--repeat N] FILE...`
//!
//! Files are read into memory first, so that disks do not count. Each chain runs `N` times over each file (default
//! 5) and the best time of each counts, which reduces the influence of other work on the machine. The floor is decoding plus the bare
//! Fourier transforms of the chain.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use flowmill_audio::features::{KaldiConfig, KaldiFbank, MelConfig, MelSpectrogram};
use flowmill_audio::{Audio, AudioError, decode_bytes, resample};
use realfft::RealFftPlanner;

type Chain<'a> = (&'static str, Box<dyn Fn(&[u8]) -> Result<(), AudioError> + 'a>);

fn main() -> ExitCode {
    let mut repeat = 5;
    let mut paths = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--repeat" {
            repeat = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(5).max(1);
        } else {
            paths.push(argument);
        }
    }
    if paths.is_empty() {
        eprintln!("usage: chain [--repeat N] FILE...");
        return ExitCode::from(2);
    }
    match measure(&paths, repeat) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(paths: &[String], repeat: usize) -> Result<(), Box<dyn std::error::Error>> {
    let files = paths.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
    let mut seconds = 0.0;
    for (bytes, path) in files.iter().zip(paths) {
        seconds += decode_bytes(bytes, path)?.seconds();
    }
    println!("{} files, {seconds:.1} s of audio, one thread, best of {repeat}", files.len());
    for (name, chain) in chains()? {
        let mut best = 0.0;
        for bytes in &files {
            let mut least = f64::INFINITY;
            for _ in 0..repeat {
                let start = Instant::now();
                chain(bytes)?;
                least = least.min(start.elapsed().as_secs_f64());
            }
            best += least;
        }
        println!(
            "{name:<42} {:>9.0} x real time  {:>8.1} us per second of audio",
            seconds / best,
            best / seconds * 1e6
        );
    }
    Ok(())
}

fn chains<'a>() -> Result<Vec<Chain<'a>>, AudioError> {
    let config = MelConfig::cosyvoice2();
    let mel_floor = transforms(config.n_fft, config.hop_length, config.sample_rate);
    let kaldi_floor = transforms(512, 160, 16_000);
    let mel = MelSpectrogram::new(config)?;
    let fbank = KaldiFbank::new(KaldiConfig::default())?;
    Ok(vec![
        ("decode", Box::new(|bytes| decode(bytes).map(|audio| drop(black_box(audio))))),
        (
            "decode + resample to 24 kHz",
            Box::new(|bytes| resampled(decode(bytes)?, 24_000).map(|samples| drop(black_box(samples)))),
        ),
        (
            "decode + resample to 24 kHz + mel",
            Box::new(move |bytes| mel.compute(&resampled(decode(bytes)?, 24_000)?).map(|mel| drop(black_box(mel)))),
        ),
        (
            "decode + Kaldi fbank at 16 kHz",
            Box::new(move |bytes| {
                fbank.compute(&resampled(decode(bytes)?, 16_000)?).map(|fbank| drop(black_box(fbank)))
            }),
        ),
        ("floor: decode + transforms of the mel", Box::new(move |bytes| decode(bytes).map(|audio| mel_floor(&audio)))),
        (
            "floor: decode + transforms of the fbank",
            Box::new(move |bytes| decode(bytes).map(|audio| kaldi_floor(&audio))),
        ),
    ])
}

fn decode(bytes: &[u8]) -> Result<Audio, AudioError> {
    decode_bytes(bytes, "benchmark")
}

fn resampled(audio: Audio, rate: u32) -> Result<Vec<f32>, AudioError> {
    let from = audio.sample_rate;
    resample(&audio.into_mono(), from, rate)
}

/// Runs the bare transforms that a chain needs for a recording.
fn transforms(n_fft: usize, hop: usize, rate: u32) -> impl Fn(&Audio) {
    let plan = RealFftPlanner::<f32>::new().plan_fft_forward(n_fft);
    move |audio| {
        let frames = (audio.seconds() * f64::from(rate)) as usize / hop;
        let (mut input, mut output) = (plan.make_input_vec(), plan.make_output_vec());
        let mut scratch = plan.make_scratch_vec();
        for frame in 0..frames {
            let samples = &audio.samples[0][(frame * 7) % (audio.frames() / 2 + 1)..];
            let count = samples.len().min(n_fft);
            input[..count].copy_from_slice(&samples[..count]);
            plan.process_with_scratch(&mut input, &mut output, &mut scratch).expect("the plan made the buffers");
            black_box(&mut output);
        }
    }
}
