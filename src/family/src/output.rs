//! Outputs of models, and their files.

use std::io::Cursor;

use flowmill_audio::features::{Features, MelConfig};
use flowmill_audio::spectrogram_image::{Panel, write_png};
use flowmill_image::{ImageError, Raster, to_png};
use flowmill_train::{BoxError, Media, Sample};
use flowmill_video::Frame;
use flowmill_video::write::{self, WriteOptions};

/// A model's output for one request.
#[derive(Debug, Clone)]
pub enum Output {
    /// A log-mel spectrogram with its waveform.
    Mel(MelOutput),
    /// Sound.
    Audio(Audio),
    /// A video: frames of one size, optionally with sound.
    Video {
        /// The frames.
        frames: Vec<Image>,
        /// Frames per second.
        rate: u16,
        /// The sound.
        audio: Option<Audio>,
    },
    /// Pictures.
    Images(Vec<Image>),
}

/// A log-mel spectrogram with the waveform of a vocoder.
#[derive(Debug, Clone)]
pub struct MelOutput {
    /// The log-mel.
    pub mel: Features,
    /// The definition.
    pub config: MelConfig,
    /// The waveform, at the sample rate of the definition.
    pub waveform: Vec<f32>,
}

/// A mono recording.
#[derive(Debug, Clone)]
pub struct Audio {
    /// The samples.
    pub samples: Vec<f32>,
    /// Samples per second.
    pub sample_rate: u32,
}

/// A picture of 8-bit RGB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The number of pixels in a row.
    pub width: u32,
    /// The number of rows.
    pub height: u32,
    /// The pixels row by row, three bytes each.
    pub rgb: Vec<u8>,
}

/// An output with its name, and optionally the real log-mel for a picture of both.
#[derive(Debug, Clone)]
pub struct Made {
    /// Name of its source, such as the id of a row.
    pub name: String,
    /// The title of a picture.
    pub title: String,
    /// The output.
    pub output: Output,
    /// The real log-mel, which is shown above the generated one.
    pub real: Option<Features>,
}

impl Made {
    /// Returns its files: a WAV and a picture for a mel, a WAV for sound, an MP4 with its sound for a video, a PNG for
    /// each image. `name` is the file name without an extension.
    ///
    /// # Errors
    /// Returns an error if sizes are inconsistent or a picture cannot be encoded.
    pub fn files(&self, name: &str) -> Result<Vec<Sample>, BoxError> {
        let file = |name: &str, media, bytes| Sample { name: name.to_owned(), media, bytes };
        match &self.output {
            Output::Mel(MelOutput { mel, config, waveform }) => {
                let mut panels = Vec::new();
                if let Some(real) = &self.real {
                    panels.push(Panel { title: "real", log_mel: real });
                }
                panels.push(Panel { title: "generated", log_mel: mel });
                let mut picture = Vec::new();
                write_png(&mut picture, &self.title, &panels, config)?;
                Ok(vec![file(name, Media::Wav, wav(waveform, config.sample_rate)?), file(name, Media::Png, picture)])
            }
            Output::Audio(Audio { samples, sample_rate }) => {
                Ok(vec![file(name, Media::Wav, wav(samples, *sample_rate)?)])
            }
            Output::Video { frames, rate, audio } => {
                Ok(vec![file(name, Media::Mp4, mp4(frames, *rate, audio.as_ref())?)])
            }
            Output::Images(images) => {
                let numbered = |at: usize| if images.len() == 1 { name.to_owned() } else { format!("{name}-{at}") };
                let image = |(at, image): (usize, &Image)| Ok(file(&numbered(at + 1), Media::Png, image.to_png()?));
                images.iter().enumerate().map(image).collect()
            }
        }
    }
}

fn wav(samples: &[f32], sample_rate: u32) -> Result<Vec<u8>, BoxError> {
    let mut bytes = Cursor::new(Vec::new());
    flowmill_audio::write_wav(&mut bytes, samples, sample_rate)?;
    Ok(bytes.into_inner())
}

/// Encodes a video. Its codec needs an even number of rows and columns: the last ones are repeated.
fn mp4(frames: &[Image], rate: u16, audio: Option<&Audio>) -> Result<Vec<u8>, BoxError> {
    let frames: Vec<Frame> = frames.iter().map(Image::even).collect();
    let audio = audio.map(|Audio { samples, sample_rate }| flowmill_audio::Audio {
        samples: vec![samples.clone()],
        sample_rate: *sample_rate,
        warnings: Vec::new(),
    });
    Ok(write::mp4(&frames, audio.as_ref(), &WriteOptions { fps: f64::from(rate) })?)
}

impl Image {
    /// Returns the picture for encoding.
    ///
    /// # Errors
    /// When the number of bytes does not fit its size.
    pub fn raster(&self) -> Result<Raster, ImageError> {
        Raster::new(self.width, self.height, self.rgb.clone())
    }

    /// Returns the picture as PNG.
    ///
    /// # Errors
    /// When the number of bytes does not fit its size.
    pub fn to_png(&self) -> Result<Vec<u8>, ImageError> {
        to_png(&self.raster()?)
    }

    /// Returns the picture as a frame of a video.
    pub fn frame(&self) -> Frame {
        Frame { width: self.width, height: self.height, rgb: self.rgb.clone() }
    }

    /// Returns the picture with its last row and column repeated where their number is odd.
    fn even(&self) -> Frame {
        let Self { width, height, rgb } = self;
        if width % 2 == 0 && height % 2 == 0 {
            return self.frame();
        }
        let mut even = Vec::new();
        for row in rgb.chunks_exact((3 * *width as usize).max(1)) {
            even.extend_from_slice(row);
            if width % 2 == 1 {
                even.extend_from_slice(&row[row.len() - 3..]);
            }
        }
        let (width, row) = (width + width % 2, 3 * (width + width % 2) as usize);
        if height % 2 == 1 && even.len() >= row {
            even.extend_from_within(even.len() - row..);
        }
        Frame { width, height: height + height % 2, rgb: even }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(value: u8) -> Image {
        Image { width: 3, height: 2, rgb: vec![value; 18] }
    }

    fn made(output: Output) -> Made {
        Made { name: "a".to_owned(), title: "a".to_owned(), output, real: None }
    }

    #[test]
    fn images_are_numbered_and_a_video_keeps_its_frames_and_its_sound() {
        let files = made(Output::Images(vec![image(1), image(2)])).files("a").unwrap();
        assert_eq!(files.iter().map(Sample::file_name).collect::<Vec<_>>(), ["a-1.png", "a-2.png"]);
        assert_eq!(flowmill_image::decode(&files[1].bytes, &Default::default()).unwrap().pixels(), [2; 18]);

        let audio = Some(Audio { samples: vec![0.0; 1920], sample_rate: 24_000 });
        let frame = |value| Image { width: 17, height: 19, rgb: vec![value; 3 * 17 * 19] };
        let files = made(Output::Video { frames: vec![frame(7), frame(90)], rate: 25, audio }).files("v").unwrap();
        assert_eq!(files.iter().map(Sample::file_name).collect::<Vec<_>>(), ["v.mp4"]);
        let clip = flowmill_video::clip::read_bytes(&files[0].bytes, "v", &Default::default()).unwrap();
        assert_eq!((clip.frames.len(), clip.frames[0].width, clip.frames[0].height), (2, 18, 20));
        assert!(clip.audio.is_some());
    }

    #[test]
    fn frames_of_different_sizes_are_an_error() {
        let wide = Image { width: 6, height: 1, rgb: vec![0; 18] };
        assert!(made(Output::Video { frames: vec![image(1), wide], rate: 25, audio: None }).files("v").is_err());
        assert!(made(Output::Video { frames: vec![], rate: 25, audio: None }).files("v").is_err());
    }
}
