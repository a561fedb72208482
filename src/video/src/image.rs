//! PNG pictures.

use std::io::Cursor;

use png::{ColorType, Transformations};

use crate::clip::Frame;
use crate::error::{Fault, VideoError, within};

/// Most pixels that a picture may have.
pub const MAX_PIXELS: u64 = 1 << 26;

/// Reads a PNG; transparency is laid on black, gray becomes RGB. `name` is used in messages.
///
/// # Errors
/// [`VideoError::File`] for what is not a PNG, is damaged, or has more than [`MAX_PIXELS`].
pub fn read_png(bytes: &[u8], name: &str) -> Result<Frame, VideoError> {
    decode_png(bytes).map_err(|fault| fault.of(name))
}

fn decode_png(bytes: &[u8]) -> Result<Frame, Fault> {
    let malformed = |error: png::DecodingError| Fault::Malformed { container: "PNG", problem: error.to_string() };
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(malformed)?;
    let info = reader.info();
    let (width, height) = (info.width, info.height);
    within("the number of pixels of the picture", u64::from(width) * u64::from(height), MAX_PIXELS)?;
    let size = reader.output_buffer_size().ok_or(Fault::NoFrames)?;
    let mut pixels = vec![0; size];
    let output = reader.next_frame(&mut pixels).map_err(malformed)?;
    pixels.truncate(output.buffer_size());
    let over_black = |value: u8, alpha: u8| ((u32::from(value) * u32::from(alpha) + 127) / 255) as u8;
    let rgb = match output.color_type {
        ColorType::Rgb => pixels,
        ColorType::Rgba => {
            pixels.as_chunks::<4>().0.iter().flat_map(|[r, g, b, a]| [*r, *g, *b].map(|v| over_black(v, *a))).collect()
        }
        ColorType::Grayscale => pixels.iter().flat_map(|gray| [*gray; 3]).collect(),
        ColorType::GrayscaleAlpha => {
            pixels.as_chunks::<2>().0.iter().flat_map(|[g, a]| [over_black(*g, *a); 3]).collect()
        }
        // Palettes were expanded.
        ColorType::Indexed => return Err(Fault::NoFrames),
    };
    Ok(Frame { width, height, rgb })
}

/// Encodes a picture as PNG.
///
/// # Errors
/// [`VideoError::Write`] for a picture without pixels or with another number of bytes than its size needs.
pub fn write_png(frame: &Frame) -> Result<Vec<u8>, VideoError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, frame.width, frame.height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let write = |error: png::EncodingError| VideoError::Write { what: "the picture", problem: error.to_string() };
    let mut writer = encoder.write_header().map_err(write)?;
    writer.write_image_data(&frame.rgb).map_err(write)?;
    writer.finish().map_err(write)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_survives_png() {
        let frame = Frame { width: 2, height: 1, rgb: vec![1, 2, 3, 250, 0, 9] };
        assert_eq!(read_png(&write_png(&frame).unwrap(), "a.png").unwrap(), frame);
        assert!(matches!(read_png(b"text", "a.png"), Err(VideoError::File { fault: Fault::Malformed { .. }, .. })));
    }
}
