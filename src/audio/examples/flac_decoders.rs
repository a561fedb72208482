//! Compares two decoders of FLAC, the one of this crate and Symphonia's: time, samples, and what each makes of damaged files.
//!
//! `cargo run --release -p flowmill-audio --example flac_decoders -- [--rounds N] FILE...`
//!
//! Files are read into memory first. In every round each decoder decodes all files on one thread, and they take turns in being the first
//! one; medians count. Both check the frames' checksums, neither the MD5 sum of the whole.

use std::hint::black_box;
use std::io::Cursor;
use std::process::ExitCode;
use std::time::Instant;

use flowmill_audio::decode_bytes;
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

/// Decoded channels, and what the decoder noticed on the way.
struct Sound {
    channels: Vec<Vec<f32>>,
    noticed: Vec<String>,
}

impl Sound {
    fn frames(&self) -> usize {
        self.channels.first().map_or(0, Vec::len)
    }

    /// Frames that are those of `other` at the same place.
    fn right(&self, other: &Self) -> usize {
        let same = |frame: usize| self.channels.iter().zip(&other.channels).all(|(a, b)| a[frame] == b[frame]);
        (0..self.frames().min(other.frames())).filter(|frame| same(*frame)).count()
    }
}

type Decode = fn(&[u8]) -> Result<Sound, String>;

const DECODERS: [(&str, Decode); 2] = [("own", own), ("symphonia", symphonia)];

fn own(bytes: &[u8]) -> Result<Sound, String> {
    let audio = decode_bytes(bytes, "file.flac").map_err(|error| error.to_string())?;
    Ok(Sound { channels: audio.samples, noticed: audio.warnings.iter().map(ToString::to_string).collect() })
}

fn symphonia(bytes: &[u8]) -> Result<Sound, String> {
    let text = |error: Error| error.to_string();
    let source = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
    let (formats, metadata) = (FormatOptions::default(), MetadataOptions::default());
    let mut reader = symphonia::default::get_probe().probe(&Hint::new(), source, formats, metadata).map_err(text)?;
    let track = reader.first_track(TrackType::Audio).ok_or("no track")?;
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else { return Err("no codec".to_owned()) };
    let options = AudioDecoderOptions::default().verify(false);
    let mut decoder = symphonia::default::get_codecs().make_audio_decoder(parameters, &options).map_err(text)?;
    let expected = track.num_frames.unwrap_or(0).min(16 * bytes.len() as u64) as usize;
    let mut sound = Sound { channels: Vec::new(), noticed: Vec::new() };
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(sound),
            Err(error) => {
                sound.noticed.push(error.to_string());
                return Ok(sound);
            }
        };
        match decoder.decode(&packet) {
            Ok(decoded) => {
                let frames = decoded.frames();
                if sound.channels.is_empty() {
                    sound.channels = vec![Vec::with_capacity(expected); decoded.spec().channels().count()];
                }
                let mut tails = Vec::with_capacity(sound.channels.len());
                for channel in &mut sound.channels {
                    let start = channel.len();
                    channel.resize(start + frames, 0.0);
                    tails.push(&mut channel[start..]);
                }
                decoded.copy_to_slice_planar(&mut tails);
            }
            Err(error) => sound.noticed.push(error.to_string()),
        }
    }
}

fn main() -> ExitCode {
    let mut rounds = 9;
    let mut paths = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(rounds).max(1),
            _ => paths.push(argument),
        }
    }
    if paths.is_empty() {
        eprintln!("usage: flac_decoders [--rounds N] FILE...");
        return ExitCode::from(2);
    }
    match compare(&paths, rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(paths: &[String], rounds: usize) -> Result<(), Box<dyn std::error::Error>> {
    let files = paths.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
    let mut whole = Vec::new();
    let mut damages = Table::default();
    for (path, bytes) in paths.iter().zip(&files) {
        match (own(bytes), symphonia(bytes)) {
            (Ok(ours), Ok(theirs)) if ours.noticed.is_empty() && theirs.noticed.is_empty() => {
                if ours.channels != theirs.channels {
                    return Err(format!("{path}: the samples differ").into());
                }
                for (name, damaged) in damaged(bytes) {
                    damages.add(name, &damaged, &ours);
                }
                whole.push(bytes.as_slice());
            }
            (ours, theirs) => {
                println!("{path}");
                println!("    own        {}", in_words(&ours));
                println!("    symphonia  {}", in_words(&theirs));
            }
        }
    }
    println!("{} of {} files are whole, and both decoders give the same samples", whole.len(), files.len());
    damages.print();
    time(&whole, rounds)
}

fn in_words(sound: &Result<Sound, String>) -> String {
    match sound {
        Ok(sound) => format!("{} frames; {}", sound.frames(), sound.noticed.join("; ")),
        Err(error) => format!("error: {error}"),
    }
}

/// The file with damage of several kinds in the middle.
fn damaged(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let middle = bytes.len() / 2;
    let changed = |change: fn(&mut Vec<u8>, usize)| {
        let mut bytes = bytes.to_vec();
        change(&mut bytes, middle);
        bytes
    };
    vec![
        ("a bit is flipped", changed(|bytes, middle| bytes[middle] ^= 0x10)),
        ("200 bytes are zeros", changed(|bytes, middle| bytes[middle..middle + 200].fill(0))),
        ("200 bytes are missing", changed(|bytes, middle| drop(bytes.drain(middle..middle + 200)))),
        ("the second half is missing", changed(|bytes, middle| bytes.truncate(middle))),
        ("512 bytes of text follow", changed(|bytes, _| bytes.extend([b'x'; 512]))),
    ]
}

/// The results of the decoders on damaged files, summed over files.
#[derive(Default)]
struct Table(Vec<Line>);

struct Line {
    damage: &'static str,
    files: usize,
    frames: usize,
    decoders: [Outcome; DECODERS.len()],
}

#[derive(Default)]
struct Outcome {
    refused: usize,
    silent: usize,
    right: usize,
}

impl Table {
    fn add(&mut self, damage: &'static str, bytes: &[u8], whole: &Sound) {
        let at = self.0.iter().position(|line| line.damage == damage).unwrap_or_else(|| {
            self.0.push(Line { damage, files: 0, frames: 0, decoders: Default::default() });
            self.0.len() - 1
        });
        let line = &mut self.0[at];
        line.files += 1;
        line.frames += whole.frames();
        for (outcome, (_, decode)) in line.decoders.iter_mut().zip(DECODERS) {
            match decode(bytes) {
                Ok(sound) => {
                    outcome.silent += usize::from(sound.noticed.is_empty());
                    outcome.right += sound.right(whole);
                }
                Err(_) => outcome.refused += 1,
            }
        }
    }

    fn print(&self) {
        println!(
            "{:<28} {:<10} {:>6} {:>8} {:>12} {:>13}",
            "damage", "decoder", "files", "refused", "not noticed", "right frames"
        );
        for line in &self.0 {
            for (outcome, (name, _)) in line.decoders.iter().zip(DECODERS) {
                let share = 100.0 * outcome.right as f64 / line.frames as f64;
                println!(
                    "{:<28} {name:<10} {:>6} {:>8} {:>12} {share:>11.1} %",
                    line.damage, line.files, outcome.refused, outcome.silent
                );
            }
        }
    }
}

fn time(files: &[&[u8]], rounds: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut seconds: [Vec<f64>; DECODERS.len()] = Default::default();
    let mut audio = 0.0;
    for bytes in files {
        audio += decode_bytes(bytes, "file.flac")?.seconds();
    }
    for round in 0..rounds {
        for turn in 0..DECODERS.len() {
            let which = (round + turn) % DECODERS.len();
            let start = Instant::now();
            for bytes in files {
                black_box(DECODERS[which].1(bytes)?.frames());
            }
            seconds[which].push(start.elapsed().as_secs_f64());
        }
    }
    let medians = seconds.map(median);
    println!("{audio:.1} s of audio, one thread, medians of {rounds} rounds");
    for ((name, _), median) in DECODERS.iter().zip(medians) {
        println!("{name:<10} {:>8.0} x real time {:>8.2} ms", audio / median, 1e3 * median);
    }
    println!("ratio {:.2}", medians[1] / medians[0]);
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}
