//! A parser of the syntax of an AAC packet (raw_data_block, ISO/IEC 14496-3, 4.4.2) that decodes nothing: it finds out whether a
//! fill element contains SBR data. Elements have no length field, so everything before has to be parsed.

use super::aac::Bits;
use super::aac_tables::{BANDS, Bands, Codebook, SCALE_FACTORS, SPECTRUM};

const ZERO: u8 = 0;
const ESCAPES: u8 = 11;
const RESERVED: u8 = 12;
const NOISE: u8 = 13;
const EIGHT_SHORT: u32 = 2;

/// Returns whether the packet carries SBR data; `None` if it cannot be read to its end.
pub(super) fn carries_sbr(packet: &[u8], sample_rate: u32) -> Option<bool> {
    let bands = BANDS.iter().find(|bands| sample_rate >= bands.from)?;
    let mut walk = Walk { bits: Bits::new(packet), bands };
    let mut found = false;
    loop {
        match walk.bits.read(3)? {
            // One channel, or the low-frequency channel.
            0 | 3 => {
                walk.bits.skip(4)?;
                walk.channel(None)?;
            }
            1 => walk.pair()?,
            4 => walk.data_stream()?,
            6 => found |= walk.fill()?,
            7 => return Some(found),
            // Coupling channels and program configs.
            _ => return None,
        }
    }
}

/// The grouping of a channel's windows.
#[derive(Clone, Copy)]
struct Windows {
    short: bool,
    /// Number of transmitted scale factor bands.
    max_band: usize,
    /// Number of windows of each group.
    groups: [usize; 8],
    group_count: usize,
}

struct Walk<'a> {
    bits: Bits<'a>,
    bands: &'static Bands,
}

impl Walk<'_> {
    /// Skips a fill element; returns whether it contains SBR data.
    fn fill(&mut self) -> Option<bool> {
        let count = match self.bits.read(4)? as usize {
            15 => 14 + self.bits.read(8)? as usize,
            count => count,
        };
        if count == 0 {
            return Some(false);
        }
        let extension = self.bits.read(4)?;
        self.bits.skip(8 * count - 4)?;
        // With and without a checksum.
        Some(matches!(extension, 0xd | 0xe))
    }

    fn data_stream(&mut self) -> Option<()> {
        self.bits.skip(4)?;
        let align = self.bits.read(1)? == 1;
        let count = match self.bits.read(8)? as usize {
            255 => 255 + self.bits.read(8)? as usize,
            count => count,
        };
        if align {
            self.bits.align();
        }
        self.bits.skip(8 * count)
    }

    fn pair(&mut self) -> Option<()> {
        self.bits.skip(4)?;
        let common = if self.bits.read(1)? == 1 {
            let windows = self.windows()?;
            match self.bits.read(2)? {
                1 => self.bits.skip(windows.group_count * windows.max_band)?,
                3 => return None,
                _ => {}
            }
            Some(windows)
        } else {
            None
        };
        self.channel(common)?;
        self.channel(common)
    }

    /// Skips the stream of one channel.
    fn channel(&mut self, common: Option<Windows>) -> Option<()> {
        self.bits.skip(8)?;
        let windows = match common {
            Some(windows) => windows,
            None => self.windows()?,
        };
        let books = self.sections(&windows)?;
        self.scale_factors(&windows, &books)?;
        if self.bits.read(1)? == 1 {
            self.pulses()?;
        }
        if self.bits.read(1)? == 1 {
            self.noise_shaping(&windows)?;
        }
        // Gain control belongs to another object type.
        if self.bits.read(1)? == 1 {
            return None;
        }
        self.spectrum(&windows, &books)
    }

    fn windows(&mut self) -> Option<Windows> {
        if self.bits.read(1)? == 1 {
            return None;
        }
        let short = self.bits.read(2)? == EIGHT_SHORT;
        self.bits.skip(1)?;
        let mut windows = Windows { short, max_band: 0, groups: [1, 0, 0, 0, 0, 0, 0, 0], group_count: 1 };
        if short {
            windows.max_band = self.bits.read(4)? as usize;
            for _ in 1..8 {
                if self.bits.read(1)? == 0 {
                    windows.group_count += 1;
                }
                windows.groups[windows.group_count - 1] += 1;
            }
        } else {
            windows.max_band = self.bits.read(6)? as usize;
            // Prediction belongs to other object types.
            if self.bits.read(1)? == 1 {
                return None;
            }
        }
        (windows.max_band < self.offsets(&windows).len()).then_some(windows)
    }

    fn offsets(&self, windows: &Windows) -> &'static [u16] {
        if windows.short { self.bands.short } else { self.bands.long }
    }

    /// Reads the codebook of every band of every group.
    fn sections(&mut self, windows: &Windows) -> Option<Vec<u8>> {
        let width = if windows.short { 3 } else { 5 };
        let most = (1 << width) - 1;
        let mut books = Vec::with_capacity(windows.group_count * windows.max_band);
        for group in 1..=windows.group_count {
            let end = group * windows.max_band;
            while books.len() < end {
                let book = self.bits.read(4)? as u8;
                let mut length = 0;
                loop {
                    let more = self.bits.read(width)?;
                    length += more as usize;
                    if more < most {
                        break;
                    }
                }
                if book == RESERVED || books.len() + length > end {
                    return None;
                }
                books.resize(books.len() + length, book);
            }
        }
        Some(books)
    }

    fn scale_factors(&mut self, windows: &Windows, books: &[u8]) -> Option<()> {
        let mut first_noise = true;
        for book in &books[..windows.group_count * windows.max_band] {
            match *book {
                ZERO => {}
                NOISE if std::mem::take(&mut first_noise) => self.bits.skip(9)?,
                _ => {
                    self.symbol(&SCALE_FACTORS)?;
                }
            }
        }
        Some(())
    }

    fn pulses(&mut self) -> Option<()> {
        let count = self.bits.read(2)? as usize + 1;
        self.bits.skip(6 + count * 9)
    }

    fn noise_shaping(&mut self, windows: &Windows) -> Option<()> {
        let (count, [filters, length, order]) = if windows.short { (8, [1, 4, 3]) } else { (1, [2, 6, 5]) };
        for _ in 0..count {
            let filters = self.bits.read(filters)?;
            if filters == 0 {
                continue;
            }
            let resolution = 3 + self.bits.read(1)? as usize;
            for _ in 0..filters {
                self.bits.skip(length)?;
                let order = self.bits.read(order)? as usize;
                if order > 0 {
                    self.bits.skip(1)?;
                    let compressed = self.bits.read(1)? as usize;
                    self.bits.skip(order * (resolution - compressed))?;
                }
            }
        }
        Some(())
    }

    fn spectrum(&mut self, windows: &Windows, books: &[u8]) -> Option<()> {
        let offsets = self.offsets(windows);
        for group in 0..windows.group_count {
            for band in 0..windows.max_band {
                let book = books[group * windows.max_band + band];
                if (1..=ESCAPES).contains(&book) {
                    let width = usize::from(offsets[band + 1] - offsets[band]);
                    self.coefficients(book, width * windows.groups[group])?;
                }
            }
        }
        Some(())
    }

    /// Skips the codes of `count` coefficients, with their signs and escapes.
    fn coefficients(&mut self, book: u8, count: usize) -> Option<()> {
        let codebook = &SPECTRUM[usize::from(book) - 1];
        // Number of coefficients per code, and number of values per coefficient.
        let (dimension, base) = match book {
            1 | 2 => (4, 0),
            3 | 4 => (4, 3),
            5 | 6 => (2, 0),
            7 | 8 => (2, 8),
            9 | 10 => (2, 13),
            _ => (2, 17),
        };
        for _ in 0..count / dimension {
            let mut symbol = self.symbol(codebook)?;
            // Codebooks with signs in the codes have no bits after them.
            if base == 0 {
                continue;
            }
            let (mut signs, mut escapes) = (0, 0);
            for _ in 0..dimension {
                let value = symbol % base;
                symbol /= base;
                signs += usize::from(value != 0);
                escapes += usize::from(book == ESCAPES && value == 16);
            }
            self.bits.skip(signs)?;
            for _ in 0..escapes {
                self.escape()?;
            }
        }
        Some(())
    }

    fn escape(&mut self) -> Option<()> {
        let mut ones = 0;
        while self.bits.read(1)? == 1 {
            ones += 1;
        }
        if ones < 9 { self.bits.skip(ones + 4) } else { None }
    }

    fn symbol(&mut self, codebook: &Codebook) -> Option<u16> {
        let (mut code, mut first, mut index) = (0u32, 0u32, 0usize);
        for count in codebook.counts.iter().skip(1) {
            code = code << 1 | self.bits.read(1)?;
            first <<= 1;
            let here = u32::from(*count);
            if code < first + here {
                return codebook.symbols.get(index + (code - first) as usize).copied();
            }
            index += usize::from(*count);
            first += here;
        }
        None
    }
}
