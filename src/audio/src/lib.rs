//! Audio processing: decoding, resampling, features, silence trimming, pitch, vocoding and pictures.
//!
//! This is the lowest layer of Flowmill. It handles samples, rates and spectra, does not depend on corpora,
//! recipes, stages or networks, and draws no random numbers: the same input gives the same bytes.
//!
//! ```no_run
//! use flowmill_audio::{decode_file, resample, features::{MelConfig, MelSpectrogram}};
//! let audio = decode_file("speech.flac")?;
//! let samples = resample(&audio.mono(), audio.sample_rate, 24_000)?;
//! let mel = MelSpectrogram::new(MelConfig::cosyvoice2())?.compute(&samples)?;
//! println!("{} frames x {} bins", mel.frames, mel.bins);
//! # Ok::<(), flowmill_audio::AudioError>(())
//! ```

mod audio;
mod decoder;
mod error;
mod simd;
mod trim;
mod wav_writer;

pub mod decode;
pub mod features;
pub mod ffmpeg;
pub mod loudness;
pub mod measure;
pub mod media;
pub mod pitch;
pub mod program;
pub mod resample;
pub mod spectrogram_image;
pub mod stft;
pub mod vocode;

pub use audio::{Audio, AudioInfo, DecodeWarning, segment_frames};
pub use decode::{begins_recording, decode_bytes, decode_file, extension, holds_recording, probe, probe_bytes};
pub use decoder::Decoder;
pub use error::{AudioError, Fault, is_of_machine};
pub use resample::{at_speed, resample};
pub use trim::{TrimConfig, trim_silence};
pub use wav_writer::{GrowingWav, WavSummary, pcm16, write_wav};
