//! H.264 by the encoder of OpenH264.

use openh264::OpenH264API;
use openh264::encoder::{
    Encoder, EncoderConfig, FrameRate, IntraFramePeriod, RateControlMode, SpsPpsStrategy, VuiConfig,
};
use openh264::formats::YUVBuffer;

use super::{WriteOptions, failed};
use crate::clip::Frame;
use crate::error::VideoError;

/// A key frame is written at least every this many frames, so that players can jump.
const KEY_FRAME_DISTANCE: u32 = 50;

/// A picture track.
pub(super) struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    /// The sequence and the picture parameter set.
    pub(super) parameters: [Vec<u8>; 2],
    /// The frames, as units with their lengths before them.
    pub(super) frames: Vec<CodedFrame>,
}

/// A coded frame.
pub(super) struct CodedFrame {
    pub(super) bytes: Vec<u8>,
    pub(super) is_key: bool,
}

/// Encodes frames.
pub(super) fn encode<'f>(
    frames: impl IntoIterator<Item = &'f Frame>,
    options: &WriteOptions,
) -> Result<Picture, VideoError> {
    let mut frames = frames.into_iter().peekable();
    let (width, height) = frames.peek().map(|first| (first.width, first.height)).ok_or_else(|| failed("no frames"))?;
    if width % 2 != 0 || height % 2 != 0 || width < 16 || height < 16 {
        return Err(failed(format!(
            "{width}x{height}: H.264 needs even sizes of at least 16 pixels; resize the frames"
        )));
    }
    if !(options.fps.is_finite() && options.fps > 0.0 && options.fps <= 1000.0) {
        return Err(failed(format!("{} frames per second", options.fps)));
    }
    // One thread, so that the bytes do not depend on the machine. Without rate control every frame has the same quality (quantizer 26), which
    // shows no blocks in faces.
    let config = EncoderConfig::new()
        .max_frame_rate(FrameRate::from_hz(options.fps as f32))
        .rate_control_mode(RateControlMode::Off)
        .sps_pps_strategy(SpsPpsStrategy::ConstantId)
        .skip_frames(false)
        .intra_frame_period(IntraFramePeriod::from_num_frames(KEY_FRAME_DISTANCE))
        .num_threads(1)
        .vui(VuiConfig::bt601());
    let mut encoder = Encoder::with_api_config(OpenH264API::from_source(), config).map_err(failed)?;
    let mut picture = Picture { width, height, parameters: Default::default(), frames: Vec::new() };
    for frame in frames {
        if (frame.width, frame.height) != (width, height) || frame.rgb.len() != width as usize * height as usize * 3 {
            return Err(failed("the frames have different sizes"));
        }
        let planes = YUVBuffer::from_vec(planes(frame), width as usize, height as usize);
        let coded = encoder.encode(&planes).map_err(failed)?;
        let mut bytes = Vec::new();
        let mut is_key = false;
        let layers = (0..coded.num_layers()).filter_map(|at| coded.layer(at));
        for layer in layers {
            for unit in (0..layer.nal_count()).filter_map(|at| layer.nal_unit(at)) {
                let unit = without_start_code(unit);
                match unit.first().map_or(0, |header| header & 31) {
                    7 => picture.parameters[0] = unit.to_vec(),
                    8 => picture.parameters[1] = unit.to_vec(),
                    kind => {
                        is_key |= kind == 5;
                        bytes.extend_from_slice(&(unit.len() as u32).to_be_bytes());
                        bytes.extend_from_slice(unit);
                    }
                }
            }
        }
        if bytes.is_empty() {
            return Err(failed("the encoder left out a frame"));
        }
        picture.frames.push(CodedFrame { bytes, is_key });
    }
    Ok(picture)
}

fn without_start_code(unit: &[u8]) -> &[u8] {
    unit.strip_prefix(&[0, 0, 0, 1]).or_else(|| unit.strip_prefix(&[0, 0, 1])).unwrap_or(unit)
}

/// Converts RGB to planes of luma and of halved chroma by BT.601 in limited range, rounded to the nearest value.
fn planes(frame: &Frame) -> Vec<u8> {
    let (width, height) = (frame.width as usize, frame.height as usize);
    let pixels = frame.rgb.as_chunks::<3>().0;
    let mut planes = Vec::with_capacity(width * height * 3 / 2);
    planes.extend(pixels.iter().map(|[r, g, b]| luma([*r, *g, *b].map(i32::from))));
    for [on_blue, on_green, on_red] in [[112, -74, -38], [-18, -94, 112]] {
        for y in (0..height).step_by(2) {
            for x in (0..width).step_by(2) {
                let mut sum = [0i32; 3];
                for at in [y * width + x, y * width + x + 1, (y + 1) * width + x, (y + 1) * width + x + 1] {
                    // Sizes are even.
                    let pixel = pixels.get(at).copied().unwrap_or_default();
                    sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += i32::from(value));
                }
                let chroma = on_red * sum[0] + on_green * sum[1] + on_blue * sum[2];
                planes.push(((chroma + 512 + 128 * 1024) >> 10).clamp(0, 255) as u8);
            }
        }
    }
    planes
}

fn luma([r, g, b]: [i32; 3]) -> u8 {
    ((66 * r + 129 * g + 25 * b + 128 + 16 * 256) >> 8).clamp(0, 255) as u8
}
