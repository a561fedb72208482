//! Conversion of uncompressed and G.711 samples to 32-bit float.

/// The encoding of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Unsigned8,
    Signed8,
    Signed16,
    Signed24,
    Signed32,
    Signed64,
    Float32,
    Float64,
    ALaw,
    MuLaw,
}

impl Encoding {
    /// Bytes of one sample.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Unsigned8 | Self::Signed8 | Self::ALaw | Self::MuLaw => 1,
            Self::Signed16 => 2,
            Self::Signed24 => 3,
            Self::Signed32 | Self::Float32 => 4,
            Self::Signed64 | Self::Float64 => 8,
        }
    }

    /// Short name, like in FFmpeg.
    pub(super) fn name(self, big_endian: bool) -> String {
        let stem = match self {
            Self::Unsigned8 => return "pcm_u8".into(),
            Self::Signed8 => return "pcm_s8".into(),
            Self::ALaw => return "pcm_alaw".into(),
            Self::MuLaw => return "pcm_mulaw".into(),
            Self::Signed16 => "pcm_s16",
            Self::Signed24 => "pcm_s24",
            Self::Signed32 => "pcm_s32",
            Self::Signed64 => "pcm_s64",
            Self::Float32 => "pcm_f32",
            Self::Float64 => "pcm_f64",
        };
        format!("{stem}{}", if big_endian { "be" } else { "le" })
    }

    /// Returns whether samples may lie outside [-1, 1].
    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::Float32 | Self::Float64)
    }
}

/// Converts interleaved samples to `[channel][frame]`; full scale becomes 1. Bytes after the last whole frame are ignored.
pub(super) fn to_planar(bytes: &[u8], encoding: Encoding, big_endian: bool, channels: usize) -> Vec<Vec<f32>> {
    match encoding {
        Encoding::Unsigned8 => planar(bytes, channels, big_endian, |[byte]| (f32::from(byte) - 128.0) / 128.0),
        Encoding::Signed8 => planar(bytes, channels, big_endian, |[byte]| f32::from(byte.cast_signed()) / 128.0),
        Encoding::ALaw => planar(bytes, channels, big_endian, |[byte]| a_law(byte)),
        Encoding::MuLaw => planar(bytes, channels, big_endian, |[byte]| mu_law(byte)),
        Encoding::Signed16 => planar(bytes, channels, big_endian, |b| f32::from(i16::from_le_bytes(b)) / 32_768.0),
        Encoding::Signed24 => {
            planar(bytes, channels, big_endian, |[a, b, c]| integer(i32::from_le_bytes([0, a, b, c])))
        }
        Encoding::Signed32 => planar(bytes, channels, big_endian, |b| integer(i32::from_le_bytes(b))),
        Encoding::Signed64 => planar(bytes, channels, big_endian, |b| i64::from_le_bytes(b) as f32 * (0.5f32).powi(63)),
        Encoding::Float32 => planar(bytes, channels, big_endian, f32::from_le_bytes),
        Encoding::Float64 => planar(bytes, channels, big_endian, |b| f64::from_le_bytes(b) as f32),
    }
}

fn integer(value: i32) -> f32 {
    value as f32 * (1.0 / 2_147_483_648.0)
}

fn planar<const N: usize>(
    bytes: &[u8],
    channels: usize,
    big_endian: bool,
    convert: impl Fn([u8; N]) -> f32,
) -> Vec<Vec<f32>> {
    let (samples, _) = bytes.as_chunks::<N>();
    let frames = samples.len() / channels;
    let in_order = |mut sample: [u8; N]| {
        if big_endian {
            sample.reverse();
        }
        convert(sample)
    };
    if channels == 1 {
        return vec![samples.iter().map(|sample| in_order(*sample)).collect()];
    }
    let channel = |index| samples[..frames * channels].iter().skip(index).step_by(channels);
    (0..channels).map(|index| channel(index).map(|sample| in_order(*sample)).collect()).collect()
}

/// G.711 A-law: even bits inverted; sign, three bits of exponent, four of mantissa.
fn a_law(byte: u8) -> f32 {
    let bits = byte ^ 0x55;
    let mantissa = i32::from(bits & 0x0f) << 4;
    let magnitude = match (bits >> 4) & 7 {
        0 => mantissa + 8,
        exponent => (mantissa + 0x108) << (exponent - 1),
    };
    signed(magnitude, bits & 0x80 != 0)
}

/// G.711 mu-law: all bits inverted; sign, three bits of exponent, four of mantissa, bias 0x84.
fn mu_law(byte: u8) -> f32 {
    let bits = !byte;
    let magnitude = (((i32::from(bits & 0x0f) << 3) + 0x84) << ((bits >> 4) & 7)) - 0x84;
    signed(magnitude, bits & 0x80 == 0)
}

fn signed(magnitude: i32, positive: bool) -> f32 {
    let value = if positive { magnitude } else { -magnitude };
    value as f32 / 32_768.0
}
