//! A color scale whose lightness rises evenly, from near black through violet and orange to pale yellow.

use embedded_graphics::pixelcolor::Rgb888;

/// The color at a position from 0 to 1: a path through Oklab (Ottosson 2020) on which lightness is linear, so that
/// equal differences look equal, also in gray.
pub(super) fn map(position: f32) -> Rgb888 {
    let lightness = 0.12 + 0.85 * position;
    // The hue turns from violet (290 degrees) over red to yellow (100 + 360 degrees); colors fade at both ends,
    // where the screen cannot show them.
    let hue = (290.0 + 170.0 * position).to_radians();
    let chroma = 0.185 * (std::f32::consts::PI * (0.12 + 0.72 * position)).sin().powf(1.2);
    oklab(lightness, chroma * hue.cos(), chroma * hue.sin())
}

fn oklab(lightness: f32, a: f32, b: f32) -> Rgb888 {
    let l = (lightness + 0.396_337_78 * a + 0.215_803_76 * b).powi(3);
    let m = (lightness - 0.105_561_346 * a - 0.063_854_17 * b).powi(3);
    let s = (lightness - 0.089_484_18 * a - 1.291_485_5 * b).powi(3);
    Rgb888::new(
        encode(4.076_741_7 * l - 3.307_711_6 * m + 0.230_969_94 * s),
        encode(-1.268_438 * l + 2.609_757_4 * m - 0.341_319_38 * s),
        encode(-0.004_196_086 * l - 0.703_418_6 * m + 1.707_614_7 * s),
    )
}

/// Converts linear light to sRGB.
fn encode(light: f32) -> u8 {
    let light = light.clamp(0.0, 1.0);
    let value = if light <= 0.003_130_8 { 12.92 * light } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 };
    (value * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use embedded_graphics::pixelcolor::RgbColor;

    use super::map;

    #[test]
    fn brighter_means_more() {
        let brightness = |step: u8| {
            let color = map(f32::from(step) / 255.0);
            2 * u32::from(color.r()) + 5 * u32::from(color.g()) + u32::from(color.b())
        };
        for step in 8..=255 {
            assert!(brightness(step) > brightness(step - 8), "step {step}");
        }
    }
}
