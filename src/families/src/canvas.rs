//! A picture with text and other pictures.

use std::convert::Infallible;

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_9X15;
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{Line, PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Alignment, Baseline, Text, TextStyleBuilder};
use flowmill_video::Frame;
use flowmill_video::resize::{Region, resize};

const BACKGROUND: Rgb888 = Rgb888::WHITE;
/// The color of text.
pub(crate) const INK: Rgb888 = Rgb888::new(40, 40, 40);
/// The color of frames.
pub(crate) const FAINT: Rgb888 = Rgb888::new(205, 205, 205);

/// A picture that is drawn on, white at first.
pub(crate) struct Canvas {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) rgb: Vec<u8>,
}

impl Canvas {
    pub(crate) fn new(width: u32, height: u32) -> Self {
        Self { width, height, rgb: vec![BACKGROUND.r(); 3 * width as usize * height as usize] }
    }

    /// Draws a picture into a square cell, with a margin of a pixel.
    pub(crate) fn picture(&mut self, frame: &Frame, left: u32, top: u32, cell: u32) {
        let small = resize(frame, Region::whole(frame), cell - 2, cell - 2);
        let pixels = small.rgb.as_chunks::<3>().0.iter().enumerate().map(|(at, [r, g, b])| {
            let (x, y) = (at as u32 % small.width.max(1), at as u32 / small.width.max(1));
            Pixel(Point::new((left + 1 + x) as i32, (top + 1 + y) as i32), Rgb888::new(*r, *g, *b))
        });
        let Ok(()) = self.draw_iter(pixels.collect::<Vec<_>>());
    }

    pub(crate) fn text(&mut self, text: &str, x: u32, y: u32, alignment: Alignment, color: Rgb888) {
        let style = TextStyleBuilder::new().alignment(alignment).baseline(Baseline::Top).build();
        let place = Point::new(x as i32, y as i32);
        let Ok(_) = Text::with_text_style(text, place, MonoTextStyle::new(&FONT_9X15, color), style).draw(self);
    }

    pub(crate) fn line(&mut self, from: Point, to: Point, color: Rgb888, width: u32) {
        let Ok(()) = Line::new(from, to).into_styled(PrimitiveStyle::with_stroke(color, width)).draw(self);
    }

    pub(crate) fn frame(&mut self, left: u32, top: u32, width: u32, height: u32, color: Rgb888) {
        let area = Rectangle::new(Point::new(left as i32, top as i32), Size::new(width, height));
        let Ok(()) = area.into_styled(PrimitiveStyle::with_stroke(color, 1)).draw(self);
    }

    /// Fills a bar around the middle `x`.
    pub(crate) fn bar(&mut self, x: i32, top: i32, width: u32, height: u32, color: Rgb888) {
        let area = Rectangle::new(Point::new(x - width as i32 / 2, top), Size::new(width, height));
        let Ok(()) = area.into_styled(PrimitiveStyle::with_fill(color)).draw(self);
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, color) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
                && x < self.width
                && y < self.height
            {
                let at = 3 * (y as usize * self.width as usize + x as usize);
                self.rgb[at..at + 3].copy_from_slice(&[color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}
