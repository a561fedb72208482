//! The decoder of a recording: this crate, or for unsupported formats, if allowed, the `ffmpeg` program.

use std::path::Path;

use crate::audio::{Audio, AudioInfo};
use crate::decode::{Decoded, decode_named, probe_bytes_named, probe_file, read};
use crate::error::{AudioError, Fault};
use crate::ffmpeg;

/// Decodes recordings, with or without a fallback.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decoder {
    fallback: bool,
}

impl Decoder {
    /// Returns a decoder that rejects formats that this crate does not decode.
    pub const fn builtin() -> Self {
        Self { fallback: false }
    }

    /// Returns a decoder that passes formats that this crate does not decode to the `ffmpeg` program.
    pub const fn with_ffmpeg() -> Self {
        Self { fallback: true }
    }

    /// Returns whether formats that this crate does not decode are passed to the `ffmpeg` program.
    pub const fn has_fallback(self) -> bool {
        self.fallback
    }

    /// Decodes the bytes of a file; `hint_name` is its name, used in messages.
    ///
    /// # Errors
    /// [`AudioError::File`] with `hint_name` and what is wrong; all samples of a success are finite.
    pub fn decode(self, bytes: &[u8], hint_name: &str) -> Result<Audio, AudioError> {
        let decoded = decode_named(bytes, hint_name).or_else(|fault| self.or_fallback(fault, || Ok(bytes)));
        decoded.map(|decoded| decoded.audio).map_err(|fault| fault.of(hint_name))
    }

    /// Decodes a file by its content, whatever its name.
    ///
    /// # Errors
    /// [`AudioError::File`] with the path and what is wrong; all samples of a success are finite.
    pub fn decode_file(self, path: impl AsRef<Path>) -> Result<Audio, AudioError> {
        let name = path.as_ref().display().to_string();
        let bytes = read(path.as_ref()).map_err(|fault| fault.of(&name))?;
        self.decode(&bytes, &name)
    }

    /// Returns facts about a file.
    ///
    /// # Errors
    /// [`AudioError::File`] with the path and what is wrong.
    pub fn probe(self, path: impl AsRef<Path>) -> Result<AudioInfo, AudioError> {
        let path = path.as_ref();
        probe_file(path).or_else(|fault| self.info(fault, || read(path))).map_err(|fault| fault.of_path(path))
    }

    /// Like [`Decoder::probe`], for the bytes of a file; `hint_name` is its name, used in messages.
    ///
    /// # Errors
    /// [`AudioError::File`] with `hint_name` and what is wrong.
    pub fn probe_bytes(self, bytes: &[u8], hint_name: &str) -> Result<AudioInfo, AudioError> {
        let info = probe_bytes_named(bytes, hint_name).or_else(|fault| self.info(fault, || Ok(bytes)));
        info.map_err(|fault| fault.of(hint_name))
    }

    fn info<B: AsRef<[u8]>>(self, fault: Fault, bytes: impl FnOnce() -> Result<B, Fault>) -> Result<AudioInfo, Fault> {
        let decoded = self.or_fallback(fault, bytes)?;
        Ok(AudioInfo { by_fallback: true, ..decoded.into_info() })
    }

    /// Decodes by the fallback if this crate rejected the file with a `fault` that the fallback is for.
    fn or_fallback<B: AsRef<[u8]>>(
        self,
        fault: Fault,
        bytes: impl FnOnce() -> Result<B, Fault>,
    ) -> Result<Decoded, Fault> {
        if !(self.fallback && fault.is_for_fallback()) {
            return Err(fault);
        }
        ffmpeg::decode(bytes()?.as_ref(), &fault)
    }
}
