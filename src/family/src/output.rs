//! Outputs of models, and their files.

use std::io::Cursor;

use flowmill_audio::features::{Features, MelConfig};
use flowmill_audio::spectrogram_image::{Panel, write_png};
use flowmill_train::{BoxError, Media, Sample};

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
    /// Returns its files: a WAV and a picture for a mel, a WAV for sound, an animated PNG and a WAV for a video, a
    /// PNG for each image. `name` is the file name without an extension.
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
                let mut files = vec![file(name, Media::Png, png(frames, Some(*rate))?)];
                if let Some(Audio { samples, sample_rate }) = audio {
                    files.push(file(name, Media::Wav, wav(samples, *sample_rate)?));
                }
                Ok(files)
            }
            Output::Images(images) => {
                let numbered = |at: usize| if images.len() == 1 { name.to_owned() } else { format!("{name}-{at}") };
                let image = |(at, image): (usize, &Image)| {
                    Ok(file(&numbered(at + 1), Media::Png, png(std::slice::from_ref(image), None)?))
                };
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

/// Encodes a PNG of one frame, or an animated one that repeats, at `rate` frames per second.
fn png(frames: &[Image], rate: Option<u16>) -> Result<Vec<u8>, BoxError> {
    let first = frames.first().ok_or("a picture without a frame")?;
    if frames.iter().any(|frame| (frame.width, frame.height) != (first.width, first.height)) {
        return Err("the frames of a video have different sizes".into());
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, first.width, first.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(rate) = rate {
        encoder.set_animated(u32::try_from(frames.len())?, 0)?;
        encoder.set_frame_delay(1, rate.max(1))?;
    }
    let mut writer = encoder.write_header()?;
    for frame in frames {
        writer.write_image_data(&frame.rgb)?;
    }
    writer.finish()?;
    Ok(bytes)
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

    fn decoded(bytes: &[u8]) -> (Option<u32>, Vec<Vec<u8>>) {
        let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
        let count = reader.info().animation_control().map(|control| control.num_frames);
        let mut frames = Vec::new();
        for _ in 0..count.unwrap_or(1) {
            let mut frame = vec![0; 18];
            reader.next_frame(&mut frame).unwrap();
            frames.push(frame);
        }
        (count, frames)
    }

    #[test]
    fn images_are_numbered_and_a_video_keeps_its_frames_and_its_sound() {
        let files = made(Output::Images(vec![image(1), image(2)])).files("a").unwrap();
        assert_eq!(files.iter().map(Sample::file_name).collect::<Vec<_>>(), ["a-1.png", "a-2.png"]);
        assert_eq!(decoded(&files[1].bytes), (None, vec![vec![2; 18]]));

        let audio = Some(Audio { samples: vec![0.0; 10], sample_rate: 8000 });
        let files = made(Output::Video { frames: vec![image(7), image(9)], rate: 25, audio }).files("v").unwrap();
        assert_eq!(files.iter().map(Sample::file_name).collect::<Vec<_>>(), ["v.png", "v.wav"]);
        assert_eq!(decoded(&files[0].bytes), (Some(2), vec![vec![7; 18], vec![9; 18]]));
        assert_eq!(files[1].bytes.len(), 44 + 20);
    }

    #[test]
    fn frames_of_different_sizes_are_an_error() {
        let wide = Image { width: 6, height: 1, rgb: vec![0; 18] };
        assert!(made(Output::Video { frames: vec![image(1), wide], rate: 25, audio: None }).files("v").is_err());
        assert!(made(Output::Video { frames: vec![], rate: 25, audio: None }).files("v").is_err());
    }
}
