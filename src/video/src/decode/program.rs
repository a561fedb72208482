//! The `ffmpeg` program as the decoder of videos that this crate does not decode.
//!
//! The video is passed on the program's standard input, as an unnamed file in which it can seek, so that nothing of a corpus appears on
//! the command line. The program may open that file only. It writes frames at the wanted rate, the last one at or before each time,
//! as pictures that state their size. They are read one by one, so memory does not grow with the length of the video.

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use flowmill_audio::ffmpeg;

use crate::clip::{ClipOptions, Frame};
use crate::error::{Fault, within};

/// The longest one video may take, in seconds.
const MAX_SECONDS: u64 = 3600;
/// Largest number of bytes kept of the program's standard error.
const MAX_COMPLAINT_BYTES: u64 = 4096;

/// The program at work on a video.
pub(crate) struct Program {
    child: Child,
    frames: BufReader<ChildStdout>,
    complaint: File,
    container: &'static str,
    codec: String,
    max_pixels: u64,
    /// Dropping it ends the thread that limits the time.
    _deadline: Sender<()>,
}

impl Program {
    /// Starts the program on a video that was rejected with `refusal`.
    pub(crate) fn start(bytes: &[u8], refusal: Fault, options: &ClipOptions) -> Result<Self, Fault> {
        let (container, codec) = match refusal {
            Fault::UnsupportedCodec { container, codec } => (container, codec),
            _ => ("a file", "unknown".to_owned()),
        };
        let mut input = tempfile::tempfile()?;
        input.write_all(bytes)?;
        input.rewind()?;
        let complaint = tempfile::tempfile()?;
        let start = options.start_seconds.unwrap_or(0.0);
        let filter = format!("setpts=PTS-({start})/TB,fps=fps={}:round=up:start_time=0", options.fps);
        let most = (options.max_frames as u64).saturating_add(1).to_string();
        let output = ["-map", "0:v:0", "-an", "-sn", "-dn", "-vf", &filter, "-frames:v", &most];
        // The same colors on every processor, each chroma sample for all its pixels.
        let colors = ["-sws_flags", "accurate_rnd+full_chroma_int+bitexact+neighbor"];
        let pictures = ["-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "pipe:1"];
        let mut command = ffmpeg::command();
        command.args(ffmpeg::input_arguments()).args(output).args(colors).args(pictures).process_group(0);
        command.stdin(input).stdout(Stdio::piped()).stderr(complaint.try_clone()?);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Fault::FallbackMissing { container, codec: codec.clone() },
            _ => Fault::Io(error),
        })?;
        let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let (sender, receiver) = mpsc::channel::<()>();
        thread::spawn(move || {
            let waited = receiver.recv_timeout(Duration::from_secs(MAX_SECONDS));
            if let (Err(mpsc::RecvTimeoutError::Timeout), Some(group)) = (waited, group) {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
        });
        let Some(stdout) = child.stdout.take() else { return Err(Fault::NoFrames) };
        let frames = BufReader::with_capacity(1 << 16, stdout);
        let max_pixels = options.max_pixels;
        Ok(Self { child, frames, complaint, container, codec, max_pixels, _deadline: sender })
    }

    /// The container and the codec.
    pub(crate) fn format(&self) -> (&'static str, &str) {
        (self.container, &self.codec)
    }

    /// Returns the next frame; `None` at the end.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, Fault> {
        let Some((width, height)) = self.header()? else {
            let status = self.child.wait()?;
            return if status.success() { Ok(None) } else { Err(self.failed(&format!("failed ({status})"))) };
        };
        within("the number of pixels of a frame", u64::from(width) * u64::from(height), self.max_pixels)?;
        let mut rgb = vec![0; width as usize * height as usize * 3];
        self.frames.read_exact(&mut rgb).map_err(|_| self.failed("stopped in the middle of a frame"))?;
        Ok(Some(Frame { width, height, rgb }))
    }

    /// Reads the header of a picture, `P6 WIDTH HEIGHT 255`; `None` at the end of the stream.
    fn header(&mut self) -> Result<Option<(u32, u32)>, Fault> {
        let mut words: Vec<String> = vec![String::new()];
        loop {
            let mut byte = [0];
            if self.frames.read(&mut byte)? == 0 {
                return if words.concat().is_empty() { Ok(None) } else { Err(self.failed("stopped in a header")) };
            }
            if !byte[0].is_ascii_whitespace() {
                words.last_mut().into_iter().for_each(|word| word.push(char::from(byte[0])));
            } else if words.len() == 4 {
                break;
            } else {
                words.push(String::new());
            }
            if words.last().is_some_and(|word| word.len() > 10) {
                return Err(self.failed("wrote something that is not a picture"));
            }
        }
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok());
        match (words.first().map(String::as_str), number(1), number(2)) {
            (Some("P6"), Some(width), Some(height)) => Ok(Some((width, height))),
            _ => Err(self.failed("wrote something that is not a picture")),
        }
    }

    /// A failure with the program's own words.
    fn failed(&mut self, how: &str) -> Fault {
        let mut said = Vec::new();
        // A complaint that cannot be read leaves the status, which says enough.
        let _ = self.complaint.rewind();
        let _ = (&self.complaint).take(MAX_COMPLAINT_BYTES).read_to_end(&mut said);
        let lines = ffmpeg::plain(&String::from_utf8_lossy(&said));
        let problem = if lines.is_empty() { how.to_owned() } else { format!("{how}: {}", lines.join("; ")) };
        Fault::FallbackFailed { container: self.container, codec: self.codec.clone(), problem }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended, or be interrupted because no more frames are needed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
