//! Clips: the frames of a video at a constant rate, with the sound in step.
//!
//! Frame `n` is shown at `start + n / fps`. It is the last frame of the file at or before that time by the presentation timestamps, after
//! the edit list. If the file's picture starts later, its first frame is shown until then. The number of frames is the length of the
//! video times `fps`, rounded up. Sound that starts late gets silence before it. The sound of a clip is exactly as long as its frames.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flowmill_audio::{Audio, Decoder};
use rust_h264::decoder::Frame as Planes;

use crate::container::{self, Movie};
use crate::decode::{H264, Program, to_rgb};
use crate::error::{Fault, VideoError, within};
use crate::note::ClipNote;
use crate::sound;

/// Largest file that is read into memory, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 32;
/// Most bytes of pixels that a clip in memory may have.
pub const MAX_CLIP_BYTES: u64 = 1 << 32;
/// Distance in seconds by which a segment may exceed the end of its video.
const SEGMENT_SLACK_SECONDS: f64 = 0.05;

/// A picture of 8-bit RGB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The number of pixels in a row.
    pub width: u32,
    /// The number of rows.
    pub height: u32,
    /// The pixels row by row, three bytes each.
    pub rgb: Vec<u8>,
}

/// The handling of a video's sound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SoundPolicy {
    /// Frames after the end of the sound are left out; a difference of up to 0.1 s is filled with silence.
    #[default]
    CutPicture,
    /// All frames are kept; silence is added after the end of the sound.
    AddSilence,
    /// The sound is not decoded.
    Ignore,
}

/// Settings for reading a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipOptions {
    /// Frames per second.
    pub fps: f64,
    /// Start of the clip in the video, in seconds; `None` is its beginning.
    pub start_seconds: Option<f64>,
    /// End of the clip in the video, in seconds; `None` is its end.
    pub end_seconds: Option<f64>,
    /// Most frames that a clip may have. A longer one is rejected.
    pub max_frames: usize,
    /// Most pixels that a frame may have.
    pub max_pixels: u64,
    /// The handling of the sound.
    pub sound: SoundPolicy,
    /// The decoder of the sound. If it has the `ffmpeg` program as a fallback, so have the frames.
    pub decoder: Decoder,
}

impl Default for ClipOptions {
    /// 25 frames per second, up to ten minutes of frames of up to 4096 x 2304 pixels, no fallback.
    fn default() -> Self {
        Self {
            fps: 25.0,
            start_seconds: None,
            end_seconds: None,
            max_frames: 15_000,
            max_pixels: 4096 * 2304,
            sound: SoundPolicy::default(),
            decoder: Decoder::builtin(),
        }
    }
}

impl ClipOptions {
    fn check(&self) -> Result<(), VideoError> {
        if self.fps.is_finite() && self.fps > 0.0 && self.fps <= 1000.0 {
            return Ok(());
        }
        Err(VideoError::Config { field: "fps", value: self.fps.to_string(), expected: "more than 0 and at most 1000" })
    }
}

/// The frames of a video, or of a part of it, and its sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// The frames; at least one, all of one size.
    pub frames: Vec<Frame>,
    /// Frames per second.
    pub fps: f64,
    /// The sound, as long as the frames; `None` if the video has none or it was not asked for.
    pub audio: Option<Audio>,
    /// What was corrected or filled in.
    pub notes: Vec<ClipNote>,
}

/// Reads a clip from a file by its content, whatever its name.
///
/// # Errors
/// [`VideoError::File`] with the path and what is wrong; [`VideoError::Config`] for a rate outside its range.
pub fn read(path: impl AsRef<Path>, options: &ClipOptions) -> Result<Clip, VideoError> {
    let path = path.as_ref();
    let bytes = read_file(path).map_err(|fault| fault.of_path(path))?;
    read_bytes(&bytes, &path.display().to_string(), options)
}

/// Reads a clip from the bytes of a file; `name` is used in messages.
///
/// # Errors
/// Those of [`read`].
pub fn read_bytes(bytes: &[u8], name: &str, options: &ClipOptions) -> Result<Clip, VideoError> {
    read_mapped(bytes, name, options, Ok)
}

/// Reads a clip and changes each frame, such as by cropping, before the next one is decoded, so that only the results take memory.
///
/// # Errors
/// Those of [`read`], and those of `map`.
pub fn read_mapped(
    bytes: &[u8],
    name: &str,
    options: &ClipOptions,
    mut map: impl FnMut(Frame) -> Result<Frame, Fault>,
) -> Result<Clip, VideoError> {
    let mut source = frames(bytes, name, options)?;
    let mut collected: Vec<Frame> = Vec::new();
    let mut taken = 0u64;
    for frame in source.by_ref() {
        let frame = map(frame?).map_err(|fault| fault.of(name))?;
        if let Some(first) =
            collected.first().filter(|first| (first.width, first.height) != (frame.width, frame.height))
        {
            let size = |frame: &Frame| format!("{}x{}", frame.width, frame.height);
            return Err(Fault::SizeChanges { before: size(first), after: size(&frame) }.of(name));
        }
        taken += frame.rgb.len() as u64;
        within("the size of the clip's frames in bytes", taken, MAX_CLIP_BYTES).map_err(|fault| fault.of(name))?;
        collected.push(frame);
    }
    if collected.is_empty() {
        return Err(Fault::NoFrames.of(name));
    }
    let mut notes = std::mem::take(&mut source.notes);
    let (fps, from, sound_start) = (options.fps, source.from, source.sound_start);
    drop(source);
    let mut audio = None;
    if options.sound != SoundPolicy::Ignore
        && let Some(start) = sound_start
    {
        let decoded = sound::decode(bytes, name, options.decoder).map_err(|fault| fault.of(name))?;
        if let Some(decoded) = decoded {
            let seconds = collected.len() as f64 / fps;
            let sound = sound::Placed { audio: decoded, start: start - from };
            if options.sound == SoundPolicy::CutPicture && options.end_seconds.is_none() {
                let kept = sound.frames_with_sound(collected.len(), fps);
                if kept == 0 {
                    return Err(Fault::NoFrames.of(name));
                }
                if kept < collected.len() {
                    notes.push(ClipNote::ShortSound { seconds: seconds - sound.end(), cut: true });
                    collected.truncate(kept);
                }
            }
            audio = Some(sound.in_step(collected.len() as f64 / fps, options.end_seconds.is_none(), &mut notes));
        }
    }
    Ok(Clip { frames: collected, fps, audio, notes })
}

/// Reads the sound of a video in step with the frames that [`read_bytes`] gives for the same options with all frames kept, without decoding
/// frames; `None` if the video has no sound.
///
/// # Errors
/// Those of [`read`] as far as they concern the container and the sound.
pub fn read_sound(
    bytes: &[u8],
    name: &str,
    options: &ClipOptions,
) -> Result<Option<(Audio, Vec<ClipNote>)>, VideoError> {
    options.check()?;
    let faulty = |fault: Fault| fault.of(name);
    let content = container::content(bytes).map_err(faulty)?;
    let (start, span) = match container::open(bytes, content) {
        Ok(movie) => match movie.sound_start {
            None => return Ok(None),
            Some(start) => (start, Some(Span::of(&movie, options).map_err(faulty)?)),
        },
        Err(Fault::UnsupportedCodec { .. }) if options.decoder.has_fallback() => (0.0, None),
        Err(fault) => return Err(faulty(fault)),
    };
    let Some(audio) = sound::decode(bytes, name, options.decoder).map_err(faulty)? else { return Ok(None) };
    let from = options.start_seconds.unwrap_or(0.0);
    let placed = sound::Placed { audio, start: start - from };
    let whole = options.end_seconds.is_none();
    let mut notes = Vec::new();
    let seconds = match (span, options.end_seconds) {
        (Some(span), _) => {
            let kept = match options.sound == SoundPolicy::CutPicture && whole {
                true => placed.frames_with_sound(span.frames, options.fps).max(1),
                false => span.frames,
            };
            if kept < span.frames {
                let seconds = span.frames as f64 / options.fps - placed.end();
                notes.push(ClipNote::ShortSound { seconds, cut: true });
            }
            kept as f64 / options.fps
        }
        (None, Some(end)) => end - from,
        (None, None) => placed.end(),
    };
    let audio = placed.in_step(seconds, whole, &mut notes);
    Ok(Some((audio, notes)))
}

/// Opens the frames of a clip one by one, without its sound; memory does not grow with its length.
///
/// # Errors
/// Those of [`read`] that are known from the first frame. Later ones end the iterator.
pub fn frames<'a>(bytes: &'a [u8], name: &str, options: &ClipOptions) -> Result<Frames<'a>, VideoError> {
    options.check()?;
    Frames::open(bytes, name, options).map_err(|fault| fault.of(name))
}

/// Reads a file of limited size into memory.
///
/// # Errors
/// [`Fault::Io`] and [`Fault::Limit`].
pub fn read_file(path: &Path) -> Result<Vec<u8>, Fault> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    within("the file's size in bytes", length, MAX_FILE_BYTES)?;
    let mut bytes = Vec::with_capacity(length as usize);
    // A pipe or a growing file may hold more than its metadata says.
    file.by_ref().take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The part of a video that a clip covers.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// Start in seconds.
    from: f64,
    /// The number of frames.
    frames: usize,
}

impl Span {
    fn of(movie: &Movie<'_>, options: &ClipOptions) -> Result<Self, Fault> {
        let from = options.start_seconds.unwrap_or(0.0);
        let end = options.end_seconds.unwrap_or(movie.end);
        let in_order = from >= 0.0 && end > from && from < movie.end;
        if !in_order || end > movie.end + SEGMENT_SLACK_SECONDS {
            return Err(Fault::Segment { start: from, end, seconds: movie.end });
        }
        let frames = ((end.min(movie.end) - from - movie.tolerance) * options.fps).ceil().max(1.0) as u64;
        within("the number of frames of the clip", frames, options.max_frames as u64)?;
        Ok(Self { from, frames: frames as usize })
    }
}

/// The frames of a clip, decoded as they are needed.
pub struct Frames<'a> {
    source: Source<'a>,
    name: String,
    fps: f64,
    from: f64,
    /// The next frame's number.
    next: usize,
    /// The number of frames, if known before decoding.
    count: Option<usize>,
    max_frames: usize,
    rotation: u32,
    sound_start: Option<f64>,
    notes: Vec<ClipNote>,
    failed: bool,
}

enum Source<'a> {
    H264(Box<Paced<'a>>),
    Program(Box<Program>),
}

/// A decoder with the frame that is shown and the one after it.
struct Paced<'a> {
    decoder: H264<'a>,
    tolerance: f64,
    shown: Option<Planes>,
    upcoming: Option<(f64, Planes)>,
}

impl Paced<'_> {
    /// Returns the frame that is shown at a time, in seconds.
    fn at(&mut self, time: f64) -> Result<Option<Frame>, Fault> {
        while let Some((start, _)) = &self.upcoming {
            if *start > time + self.tolerance && self.shown.is_some() {
                break;
            }
            let upcoming = self.decoder.next_frame()?;
            let before = std::mem::replace(&mut self.upcoming, upcoming);
            self.shown = before.map(|(_, planes)| planes);
        }
        let frame = |planes: &Planes| Frame {
            width: planes.width,
            height: planes.height,
            rgb: to_rgb(planes, self.decoder.matrix()),
        };
        Ok(self.shown.as_ref().map(frame))
    }
}

impl<'a> Frames<'a> {
    fn open(bytes: &'a [u8], name: &str, options: &ClipOptions) -> Result<Self, Fault> {
        let content = container::content(bytes)?;
        let mut sound_start = Some(0.0);
        let opened = container::open(bytes, content).and_then(|movie| {
            sound_start = movie.sound_start;
            Self::in_process(movie, name, options)
        });
        match opened {
            Err(refusal @ Fault::UnsupportedCodec { .. }) if options.decoder.has_fallback() => {
                Self::by_program(bytes, name, options, refusal, sound_start)
            }
            opened => opened,
        }
    }

    fn in_process(movie: Movie<'a>, name: &str, options: &ClipOptions) -> Result<Self, Fault> {
        let (width, height) = movie.size;
        within("the number of pixels of a frame", u64::from(width) * u64::from(height), options.max_pixels)?;
        let span = Span::of(&movie, options)?;
        let (rotation, tolerance, sound_start) = (movie.rotation, movie.tolerance, movie.sound_start);
        let mut notes = Vec::new();
        if rotation != 0 {
            notes.push(ClipNote::Rotated { degrees: rotation });
        }
        let mut decoder = H264::new(movie, span.from, options.max_pixels)?;
        // An unsupported feature shows at the first frame.
        let upcoming = decoder.next_frame()?.ok_or(Fault::NoFrames)?;
        if upcoming.0 - span.from > 1.0 / options.fps {
            notes.push(ClipNote::LatePicture { seconds: upcoming.0 - span.from });
        }
        let paced = Paced { decoder, tolerance, shown: None, upcoming: Some(upcoming) };
        Ok(Self {
            source: Source::H264(Box::new(paced)),
            name: name.to_owned(),
            fps: options.fps,
            from: span.from,
            next: 0,
            count: Some(span.frames),
            max_frames: options.max_frames,
            rotation,
            sound_start,
            notes,
            failed: false,
        })
    }

    fn by_program(
        bytes: &[u8],
        name: &str,
        options: &ClipOptions,
        refusal: Fault,
        sound_start: Option<f64>,
    ) -> Result<Self, Fault> {
        let from = options.start_seconds.unwrap_or(0.0);
        let program = Program::start(bytes, refusal, options)?;
        let (container, codec) = program.format();
        let notes = vec![ClipNote::ByFallback { container, codec: codec.to_owned() }];
        Ok(Self {
            source: Source::Program(Box::new(program)),
            name: name.to_owned(),
            fps: options.fps,
            from,
            next: 0,
            count: options.end_seconds.map(|end| ((end - from) * options.fps - 1e-6).ceil().max(1.0) as usize),
            max_frames: options.max_frames,
            rotation: 0,
            sound_start,
            notes,
            failed: false,
        })
    }

    /// Frames per second.
    pub fn fps(&self) -> f64 {
        self.fps
    }

    /// The number of frames, if it is known before they are decoded.
    pub fn count_known(&self) -> Option<usize> {
        self.count
    }

    /// What was corrected or filled in so far.
    pub fn notes(&self) -> &[ClipNote] {
        &self.notes
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, Fault> {
        if self.count.is_some_and(|count| self.next >= count) {
            return Ok(None);
        }
        let time = self.from + self.next as f64 / self.fps;
        let frame = match &mut self.source {
            Source::H264(paced) => paced.at(time)?,
            Source::Program(program) => program.next_frame()?,
        };
        let Some(frame) = frame else { return Ok(None) };
        self.next += 1;
        within("the number of frames of the clip", self.next as u64, self.max_frames as u64)?;
        Ok(Some(frame.rotated(self.rotation)))
    }
}

impl Iterator for Frames<'_> {
    type Item = Result<Frame, VideoError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let frame = self.next_frame().map_err(|fault| fault.of(&self.name)).transpose();
        self.failed = matches!(frame, Some(Err(_)));
        frame
    }
}

impl Frame {
    /// A picture of one color.
    pub fn filled(width: u32, height: u32, color: [u8; 3]) -> Self {
        Self { width, height, rgb: color.repeat(width as usize * height as usize) }
    }

    /// Returns the color of a pixel; coordinates past the border give the nearest pixel.
    pub fn pixel(&self, x: i64, y: i64) -> [u8; 3] {
        let inside = |at: i64, size: u32| at.clamp(0, i64::from(size).max(1) - 1) as usize;
        let at = (inside(y, self.height) * self.width as usize + inside(x, self.width)) * 3;
        self.rgb.get(at..).and_then(|rest| rest.first_chunk().copied()).unwrap_or_default()
    }

    /// Returns the mean of each color.
    pub fn mean(&self) -> [f64; 3] {
        let mut sums = [0u64; 3];
        for pixel in self.rgb.as_chunks::<3>().0 {
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u64::from(*value));
        }
        let pixels = (self.rgb.len() / 3).max(1) as f64;
        sums.map(|sum| sum as f64 / pixels)
    }

    /// Turns the picture clockwise by 0, 90, 180 or 270 degrees.
    #[must_use]
    pub fn rotated(self, degrees: u32) -> Self {
        let (width, height) = (self.width, self.height);
        let (out_width, out_height) = if degrees % 180 == 90 { (height, width) } else { (width, height) };
        if degrees.is_multiple_of(360) {
            return self;
        }
        let mut rgb = Vec::with_capacity(self.rgb.len());
        for y in 0..i64::from(out_height) {
            for x in 0..i64::from(out_width) {
                let (from_x, from_y) = match degrees % 360 {
                    90 => (y, i64::from(height) - 1 - x),
                    180 => (i64::from(width) - 1 - x, i64::from(height) - 1 - y),
                    _ => (i64::from(width) - 1 - y, x),
                };
                rgb.extend_from_slice(&self.pixel(from_x, from_y));
            }
        }
        Self { width: out_width, height: out_height, rgb }
    }
}
