//! Colors: from luma and chroma to 8-bit RGB.

use rust_h264::decoder::{ChromaFormat, Frame as Planes};

/// The weights by which luma and chroma become red, green and blue (ITU-T H.273, tables 4 and 5).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Matrix {
    /// Weight of red in luma.
    red: f64,
    /// Weight of blue in luma.
    blue: f64,
    /// True if samples use the whole range of 0 to 255.
    full_range: bool,
}

impl Matrix {
    /// Returns the weights of a stream's `matrix_coefficients`; those of BT.601 where the stream does not say, as players assume.
    pub(crate) fn of(coefficients: Option<u64>, full_range: bool) -> Self {
        let (red, blue) = match coefficients {
            Some(1) => (0.2126, 0.0722),
            Some(7) => (0.212, 0.087),
            Some(9 | 10) => (0.2627, 0.0593),
            _ => (0.299, 0.114),
        };
        Self { red, blue, full_range }
    }

    /// The factors in units of 1/65536: of luma, of V in red, of U and V in green, of U in blue; and the luma of black.
    fn fixed(self) -> ([i32; 5], i32) {
        let green = 1.0 - self.red - self.blue;
        let (luma, chroma, black) = match self.full_range {
            true => (1.0, 1.0, 0),
            false => (255.0 / 219.0, 255.0 / 224.0, 16),
        };
        let (from_v, from_u) = (2.0 * (1.0 - self.red) * chroma, 2.0 * (1.0 - self.blue) * chroma);
        let factors = [luma, from_v, -from_u * self.blue / green, -from_v * self.red / green, from_u];
        (factors.map(|factor| (factor * 65_536.0f64).round() as i32), black)
    }
}

/// Converts a decoded frame to RGB, row by row, three bytes per pixel. Each chroma sample counts for all its pixels.
pub(crate) fn to_rgb(planes: &Planes, matrix: Matrix) -> Vec<u8> {
    let (width, height) = (planes.width as usize, planes.height as usize);
    let (factors, black) = matrix.fixed();
    let chroma_width = planes.chroma_width() as usize;
    let halve = usize::from(planes.chroma_format == ChromaFormat::Yuv420);
    let mut rgb = vec![0; width * height * 3];
    let eight = planes.bit_depth == 8;
    let narrow = |plane: &[u8]| -> Vec<u8> {
        let deep = plane.as_chunks::<2>().0.iter();
        let shift = u32::from(planes.bit_depth.saturating_sub(8).min(8));
        // Halves are rounded to even: upwards would brighten the picture.
        let narrow = |sample: u32| match shift {
            0 => sample,
            _ => (sample + (1 << (shift - 1)) - 1 + (sample >> shift & 1)) >> shift,
        };
        deep.map(|sample| narrow(u32::from(u16::from_le_bytes(*sample))).min(255) as u8).collect()
    };
    let narrowed;
    let [y, u, v] = match eight {
        true => [planes.y.as_slice(), planes.u.as_slice(), planes.v.as_slice()],
        false => {
            narrowed = [narrow(&planes.y), narrow(&planes.u), narrow(&planes.v)];
            [narrowed[0].as_slice(), narrowed[1].as_slice(), narrowed[2].as_slice()]
        }
    };
    if width == 0 || chroma_width == 0 {
        return rgb;
    }
    let last_row = (u.len() / chroma_width).saturating_sub(1);
    for (row, (out, luma)) in rgb.chunks_exact_mut(width * 3).zip(y.chunks_exact(width)).enumerate() {
        let at = (row >> halve).min(last_row) * chroma_width;
        let (Some(u), Some(v)) = (u.get(at..at + chroma_width), v.get(at..at + chroma_width)) else { break };
        convert_row(out, luma, u, v, factors, black);
    }
    rgb
}

/// The number of pixels that are converted at once.
const BLOCK: usize = 64;

/// Converts a row in blocks of planes, which become vector instructions, and mixes the planes last. No sum leaves 32 bits; checks of that would
/// keep the loops scalar.
fn convert_row(out: &mut [u8], luma: &[u8], u: &[u8], v: &[u8], factors: [i32; 5], black: i32) {
    let [of_luma, red_v, green_u, green_v, blue_u] = factors;
    for (block, (pixels, lumas)) in out.chunks_mut(3 * BLOCK).zip(luma.chunks(BLOCK)).enumerate() {
        let mut y = [0u8; BLOCK];
        y[..lumas.len()].copy_from_slice(lumas);
        // The last sample counts for all pixels after it.
        let chroma = |row: &[u8]| -> [u8; BLOCK / 2] {
            let at = block * BLOCK / 2;
            let mut samples = [row.last().copied().unwrap_or(128); BLOCK / 2];
            samples.iter_mut().zip(row.iter().skip(at)).for_each(|(sample, value)| *sample = *value);
            samples
        };
        let (u, v) = (chroma(u), chroma(v));
        let mut colors = [[0i32; BLOCK / 2]; 3];
        for at in 0..BLOCK / 2 {
            let (u, v) = (i32::from(u[at]).wrapping_sub(128), i32::from(v[at]).wrapping_sub(128));
            colors[0][at] = red_v.wrapping_mul(v);
            colors[1][at] = green_u.wrapping_mul(u).wrapping_add(green_v.wrapping_mul(v));
            colors[2][at] = blue_u.wrapping_mul(u);
        }
        let mut lumas = [0i32; BLOCK];
        for (luma, y) in lumas.iter_mut().zip(y) {
            *luma = i32::from(y).wrapping_sub(black).wrapping_mul(of_luma).wrapping_add(32_768);
        }
        let mut rgb = [[0u8; BLOCK]; 3];
        for (plane, color) in rgb.iter_mut().zip(&colors) {
            for at in 0..BLOCK {
                plane[at] = (lumas[at].wrapping_add(color[at / 2]) >> 16).clamp(0, 255) as u8;
            }
        }
        for (at, pixel) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            *pixel = [rgb[0][at], rgb[1][at], rgb[2][at]];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gray(luma: u8, u: u8, v: u8) -> Planes {
        Planes {
            width: 2,
            height: 2,
            y: vec![luma; 4],
            u: vec![u],
            v: vec![v],
            pic_order_cnt: 0,
            chroma_format: ChromaFormat::Yuv420,
            bit_depth: 8,
        }
    }

    #[test]
    fn black_white_and_primaries_of_both_ranges() {
        let limited = Matrix::of(None, false);
        assert_eq!(to_rgb(&gray(16, 128, 128), limited)[..3], [0, 0, 0]);
        assert_eq!(to_rgb(&gray(235, 128, 128), limited)[..3], [255, 255, 255]);
        // Red and blue of BT.601 and red of BT.709, by their definitions.
        assert_eq!(to_rgb(&gray(81, 90, 240), limited)[..3], [254, 0, 0]);
        assert_eq!(to_rgb(&gray(41, 240, 110), limited)[..3], [0, 0, 255]);
        assert_eq!(to_rgb(&gray(63, 102, 240), Matrix::of(Some(1), false))[..3], [255, 1, 0]);
        let full = Matrix::of(None, true);
        assert_eq!(to_rgb(&gray(255, 128, 128), full)[..3], [255, 255, 255]);
        assert_eq!(to_rgb(&gray(7, 128, 128), full)[..3], [7, 7, 7]);
    }
}
