//! Pictures of mel spectrograms, one above the other, with axes in seconds and hertz and a color bar in decibels.

mod axes;
mod color;

use std::io::Write;

use embedded_graphics::mono_font::ascii::FONT_10X20;
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Alignment, Baseline, Text, TextStyleBuilder};

use crate::error::AudioError;
use crate::features::{Features, MelConfig};

/// One spectrogram of a picture.
#[derive(Debug, Clone, Copy)]
pub struct Panel<'a> {
    /// Title of the picture, for example `real` or `generated`.
    pub title: &'a str,
    /// Natural-log mel spectrogram, `frames` x `n_mels`.
    pub log_mel: &'a Features,
}

/// The font of all text. A picture of [`WIDTH`] is shown at half its size on a phone, where these letters are still 10 pixels high.
const FONT: &MonoFont<'_> = &FONT_10X20;
/// Height of its letters, in pixels.
const LETTER: u32 = 20;
const LEFT: u32 = 76;
const RIGHT: u32 = 104;
const TOP: u32 = 42;
const BOTTOM: u32 = 58;
const PANEL_HEAD: u32 = 28;
const PANEL_GAP: u32 = 16;
/// Width of the spectrograms, in pixels. It is the same for every length, so that pictures in a row have letters of one size.
const WIDTH: u32 = 560;
/// Height of a spectrogram that is aimed at, in pixels.
const AIMED_HEIGHT: u32 = 240;
const BAR_WIDTH: u32 = 18;
/// Range of the colors below the loudest value, in decibels.
const RANGE_DB: f32 = 80.0;
const DB_PER_NEPER: f32 = 20.0 / std::f32::consts::LN_10;
/// Largest number of frames and of bands that are drawn.
const MOST: usize = 1 << 20;

/// Writes a PNG of `panels` (one or more, top to bottom), on one scale of time and color, under the heading `title`.
///
/// # Errors
/// [`AudioError::Shape`] if a panel is empty, has a different number of bands than `config` or values that are not finite;
/// [`AudioError::Config`] if there are no panels; [`AudioError::Write`] if the writer fails.
pub fn write_png(writer: impl Write, title: &str, panels: &[Panel<'_>], config: &MelConfig) -> Result<(), AudioError> {
    config.check()?;
    check(panels, config)?;
    let canvas = Picture::new(panels, config).draw(title);
    canvas.encode(writer).map_err(|error| AudioError::Write { what: "the spectrogram", source: error.into() })
}

fn check(panels: &[Panel<'_>], config: &MelConfig) -> Result<(), AudioError> {
    let most = 16;
    crate::features::require((1..=most).contains(&panels.len()), "panels", panels.len(), || format!("1 to {most}"))?;
    for Panel { log_mel, .. } in panels {
        let fault = |problem: String| AudioError::Shape { frames: log_mel.frames, bins: log_mel.bins, problem };
        if log_mel.frames == 0 || log_mel.bins != config.n_mels {
            return Err(fault(format!("a picture needs at least one frame of {} bands", config.n_mels)));
        }
        if log_mel.frames > MOST || log_mel.bins > MOST / 16 {
            return Err(fault("this is too large to be drawn".into()));
        }
        if log_mel.data.iter().any(|value| !value.is_finite()) {
            return Err(fault("all values must be finite".into()));
        }
    }
    Ok(())
}

/// Sizes and scales that all panels share.
struct Picture<'a> {
    panels: &'a [Panel<'a>],
    config: &'a MelConfig,
    /// Frames of the longest panel.
    frames: usize,
    /// Height of the drawn part of a panel, in pixels.
    height: u32,
    /// Levels of the ends of the color scale, in decibels.
    low: f32,
    high: f32,
}

impl<'a> Picture<'a> {
    fn new(panels: &'a [Panel<'a>], config: &'a MelConfig) -> Self {
        let frames = panels.iter().map(|panel| panel.log_mel.frames).max().unwrap_or(1);
        let values = || panels.iter().flat_map(|panel| &panel.log_mel.data).map(|value| value * DB_PER_NEPER);
        let high = values().fold(f32::MIN, f32::max);
        let low = values().fold(f32::MAX, f32::min).max(high - RANGE_DB).min(high - 1.0);
        Self { panels, config, frames, height: whole_multiple(config.n_mels, AIMED_HEIGHT), low, high }
    }

    fn panel_top(&self, index: usize) -> u32 {
        TOP + index as u32 * (PANEL_HEAD + self.height + PANEL_GAP) + PANEL_HEAD
    }

    fn draw(&self, title: &str) -> Canvas {
        let bottom = self.panel_top(self.panels.len() - 1) + self.height;
        let mut canvas = Canvas::new(LEFT + WIDTH + RIGHT, bottom + BOTTOM);
        canvas.text(title, (LEFT, 10), Alignment::Left);
        for (index, panel) in self.panels.iter().enumerate() {
            let top = self.panel_top(index);
            canvas.text(panel.title, (LEFT, top - LETTER - 3), Alignment::Left);
            self.draw_panel(&mut canvas, panel.log_mel, top);
            self.draw_frequency_axis(&mut canvas, top);
        }
        self.draw_time_axis(&mut canvas, bottom);
        self.draw_color_bar(&mut canvas, bottom);
        canvas
    }

    fn draw_panel(&self, canvas: &mut Canvas, mel: &Features, top: u32) {
        canvas.frame((LEFT, top), (WIDTH, self.height));
        for x in 0..WIDTH {
            let first = x as usize * self.frames / WIDTH as usize;
            let last = ((x as usize + 1) * self.frames / WIDTH as usize).max(first + 1);
            for y in 0..self.height {
                let bin = (self.height - 1 - y) as usize * mel.bins / self.height as usize;
                let color = match strongest(mel, first, last, bin) {
                    Some(value) => color::map(self.position(value * DB_PER_NEPER)),
                    None => NOTHING,
                };
                canvas.set((LEFT + x, top + y), color);
            }
        }
    }

    /// Returns the position of a level on the color scale, from 0 to 1.
    fn position(&self, decibels: f32) -> f32 {
        ((decibels - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn draw_frequency_axis(&self, canvas: &mut Canvas, top: u32) {
        let centres = self.config.centres();
        let mut free_below = u32::MAX;
        for hertz in axes::frequency_ticks(&centres).into_iter().rev() {
            let row = axes::position_of(&centres, hertz) / centres.len() as f64 * f64::from(self.height);
            let y = top + self.height - (row.round() as u32).min(self.height);
            canvas.line((LEFT - 5, y), (5, 1));
            let middle = y.saturating_sub(LETTER / 2);
            // From the top down, as far as labels do not touch.
            if free_below != u32::MAX && middle < free_below {
                continue;
            }
            free_below = middle + LETTER;
            canvas.text(&axes::hertz_label(hertz), (LEFT - 8, middle), Alignment::Right);
        }
        canvas.text("Hz", (LEFT - 8, top - LETTER - 8), Alignment::Right);
    }

    fn draw_time_axis(&self, canvas: &mut Canvas, bottom: u32) {
        let seconds = self.frames as f64 / self.config.frame_rate();
        let step = axes::round_step(seconds, f64::from(WIDTH) / 80.0);
        let mut tick = 0;
        while f64::from(tick) * step <= seconds * (1.0 + 1e-9) {
            let at = f64::from(tick) * step;
            let x = LEFT + (at / seconds * f64::from(WIDTH)).round() as u32;
            canvas.line((x, bottom + 1), (1, 5));
            canvas.text(&axes::number(at, step), (x, bottom + 8), Alignment::Center);
            tick += 1;
        }
        canvas.text("time (s)", (LEFT + WIDTH / 2, bottom + 30), Alignment::Center);
    }

    fn draw_color_bar(&self, canvas: &mut Canvas, bottom: u32) {
        let (left, top) = (LEFT + WIDTH + 22, TOP + PANEL_HEAD);
        let height = bottom - top;
        canvas.frame((left, top), (BAR_WIDTH, height));
        for y in 0..height {
            let color = color::map(1.0 - y as f32 / (height - 1).max(1) as f32);
            canvas.fill((left, top + y), (BAR_WIDTH, 1), color);
        }
        let span = f64::from(self.high - self.low);
        let step = axes::round_step(span, f64::from(height) / 50.0);
        let mut level = (f64::from(self.low) / step).ceil() * step;
        while level <= f64::from(self.high) {
            let y = bottom - 1 - ((level - f64::from(self.low)) / span * f64::from(height - 1)).round() as u32;
            canvas.line((left + BAR_WIDTH + 1, y), (4, 1));
            canvas.text(&axes::number(level, step), (left + BAR_WIDTH + 8, y - LETTER / 2), Alignment::Left);
            level += step;
        }
        canvas.text("dB", (left, top - LETTER - 3), Alignment::Left);
    }
}

/// Returns the strongest value of a band within some frames; `None` past the end.
fn strongest(mel: &Features, first: usize, last: usize, bin: usize) -> Option<f32> {
    (first..last.min(mel.frames)).map(|frame| mel.frame(frame)[bin]).reduce(f32::max)
}

/// The multiple of `count` nearest to `aimed`, which gives each of `count` things equally many pixels; `aimed` itself for larger counts.
fn whole_multiple(count: usize, aimed: u32) -> u32 {
    match u32::try_from(count) {
        Ok(count @ 1..) if count <= aimed => (aimed + count / 2) / count * count,
        _ => aimed,
    }
}

const PAPER: Rgb888 = Rgb888::new(255, 255, 255);
const INK: Rgb888 = Rgb888::new(40, 40, 48);
const NOTHING: Rgb888 = Rgb888::new(228, 228, 232);

/// An image in memory, three bytes per pixel.
struct Canvas {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(width: u32, height: u32) -> Self {
        Self { width, height, pixels: vec![PAPER.r(); width as usize * height as usize * 3] }
    }

    fn set(&mut self, (x, y): (u32, u32), color: Rgb888) {
        if x < self.width && y < self.height {
            let at = (y as usize * self.width as usize + x as usize) * 3;
            self.pixels[at..at + 3].copy_from_slice(&[color.r(), color.g(), color.b()]);
        }
    }

    fn fill(&mut self, (left, top): (u32, u32), (width, height): (u32, u32), color: Rgb888) {
        for y in top..top + height {
            for x in left..left + width {
                self.set((x, y), color);
            }
        }
    }

    fn line(&mut self, corner: (u32, u32), size: (u32, u32)) {
        self.fill(corner, size, INK);
    }

    /// Draws a line around an area.
    fn frame(&mut self, (left, top): (u32, u32), (width, height): (u32, u32)) {
        self.fill((left - 1, top - 1), (width + 2, height + 2), INK);
    }

    fn text(&mut self, text: &str, (x, y): (u32, u32), alignment: Alignment) {
        // The fonts know ASCII only.
        let text: String = text.chars().map(|letter| if letter.is_ascii_graphic() { letter } else { ' ' }).collect();
        let style = TextStyleBuilder::new().alignment(alignment).baseline(Baseline::Top).build();
        let letters = MonoTextStyle::new(FONT, INK);
        let position = Point::new(x as i32, y as i32);
        match Text::with_text_style(&text, position, letters, style).draw(self) {
            Ok(_) => {}
            Err(never) => match never {},
        }
    }

    fn encode(&self, writer: impl Write) -> Result<(), png::EncodingError> {
        let mut encoder = png::Encoder::new(writer, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        for Pixel(point, color) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y)) {
                self.set((x, y), color);
            }
        }
        Ok(())
    }
}
