//! Decoding and resizing against Pillow and torchvision.

use flowmill_image::{Filter, ImageError, Limits, Raster, decode, read, to_jpeg, to_png};
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data")).join(name)
}

fn load(name: &str) -> Raster {
    read(&path(name), &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The largest difference of a channel.
fn apart(a: &Raster, b: &Raster) -> u8 {
    assert_eq!((a.width(), a.height()), (b.width(), b.height()));
    a.pixels().iter().zip(b.pixels()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn images_of_all_kinds_are_decoded_like_pillow() {
    let orientations = (1..=8).map(|number| format!("orientation_{number}.jpg"));
    let lossless =
        ["gray8.png", "gray16.png", "one_pixel.png", "animated.gif", "png_named.jpg", "alpha.png", "palette.png"];
    let lossy = ["cmyk.jpg", "sticker.webp", "wide_128x37.jpg"];
    for name in lossless.into_iter().chain(lossy).map(str::to_owned).chain(orientations) {
        let expected = load(&format!("expected_{}.png", name.replace('.', "_")));
        let difference = apart(&load(&name), &expected);
        // Decoders of lossy formats round differently; blending rounds differently.
        let allowed = if name.ends_with(".jpg") || name.ends_with(".webp") { 4 } else { 1 };
        assert!(difference <= allowed, "{name}: {difference}");
    }
}

#[test]
fn broken_files_are_errors() {
    let kind = |name: &str| read(&path(name), &Limits::default()).unwrap_err();
    assert!(matches!(kind("empty.png"), ImageError::Empty));
    assert!(matches!(kind("text.png"), ImageError::UnknownFormat));
    assert!(matches!(kind("truncated.png"), ImageError::Damaged(_)));
    assert!(matches!(kind("truncated.jpg"), ImageError::Damaged(_)));
    assert!(matches!(kind("missing.png"), ImageError::Unreadable(_)));
}

#[test]
fn cut_and_altered_files_never_panic() {
    for name in ["gray16.png", "cmyk.jpg", "sticker.webp", "animated.gif", "palette.png", "orientation_6.jpg"] {
        let bytes = std::fs::read(path(name)).unwrap();
        for end in (0..bytes.len()).step_by(1 + bytes.len() / 60) {
            // A prefix may hold a whole image, but never more.
            drop(decode(&bytes[..end], &Limits::default()));
        }
        for place in (0..bytes.len()).step_by(1 + bytes.len() / 120) {
            let mut altered = bytes.clone();
            altered[place] ^= 0x55;
            drop(decode(&altered, &Limits::default()));
        }
    }
}

#[test]
fn sizes_are_limited_before_anything_is_allocated() {
    let small = Limits { pixels: 100, ..Limits::default() };
    assert!(matches!(read(&path("photo.png"), &small), Err(ImageError::TooLarge { unit: "pixels", .. })));
    let short = Limits { bytes: 1000, ..Limits::default() };
    assert!(matches!(read(&path("photo.png"), &short), Err(ImageError::TooLarge { unit: "bytes", found: 31714, .. })));
    // A header of 2^31 - 1 by 2^31 - 1 pixels.
    let mut bytes = std::fs::read(path("gray8.png")).unwrap();
    bytes[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    assert!(decode(&bytes, &Limits::default()).is_err());
}

#[test]
fn images_are_resized_like_pillow() {
    for (name, source, width, height, filter) in [
        ("bilinear_down", "photo.png", 37, 50, Filter::Bilinear),
        ("bilinear_up", "wide.png", 150, 90, Filter::Bilinear),
        ("bilinear_mixed", "wide.png", 30, 120, Filter::Bilinear),
        ("bicubic_down", "photo.png", 40, 33, Filter::Bicubic),
        ("bicubic_up", "wide.png", 160, 80, Filter::Bicubic),
    ] {
        let found = load(source).resize(width, height, filter).unwrap();
        let difference = apart(&found, &load(&format!("resized_{name}.png")));
        assert!(difference <= 1, "{name}: {difference}");
    }
}

#[test]
fn the_transforms_of_torchvision() {
    let wide = load("wide.png").resize_shorter(45, Filter::Bilinear).unwrap();
    assert_eq!((wide.width(), wide.height()), (93, 45));
    assert!(apart(&wide.center_crop(45, 45).unwrap(), &load("transformed_wide.png")) <= 1);
    let tall = rotated(&load("wide.png")).resize_shorter(31, Filter::Bilinear).unwrap();
    assert!(apart(&tall.center_crop(31, 20).unwrap(), &load("transformed_tall.png")) <= 1);
}

/// Turns an image by 90 degrees, against the clock.
fn rotated(image: &Raster) -> Raster {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let pixel = |row: usize, column: usize| &image.pixels()[(column * width + width - 1 - row) * 3..][..3];
    let pixels = (0..width).flat_map(|row| (0..height).flat_map(move |column| pixel(row, column))).copied();
    Raster::new(image.height(), image.width(), pixels.collect()).unwrap()
}

#[test]
fn crops_stay_inside() {
    let image = load("wide.png");
    let cut = image.crop(3, 5, 10, 7).unwrap();
    assert_eq!(cut.pixels()[..3], image.pixels()[(5 * 118 + 3) * 3..][..3]);
    for (draws, left, top) in [([0.0, 0.0], 0, 0), ([0.999_999, 0.999_999], 18, 17), ([0.5, 0.5], 9, 9)] {
        assert_eq!(image.random_crop(100, 40, draws).unwrap(), image.crop(left, top, 100, 40).unwrap());
    }
    for wrong in
        [image.crop(0, 0, 119, 1), image.crop(118, 0, 1, 1), image.crop(0, u32::MAX, 1, 2), image.crop(0, 0, 0, 1)]
    {
        assert!(matches!(wrong, Err(ImageError::Size { .. })));
    }
    assert!(image.center_crop(200, 200).is_err() && image.resize(0, 3, Filter::Bilinear).is_err());
}

#[test]
fn encoded_images_are_read_back() {
    let image = load("photo.png");
    assert_eq!(decode(&to_png(&image).unwrap(), &Limits::default()).unwrap(), image);
    let jpeg = decode(&to_jpeg(&image, 95).unwrap(), &Limits::default()).unwrap();
    let difference: u64 = image.pixels().iter().zip(jpeg.pixels()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    assert!(difference / (image.pixels().len() as u64) < 4);
    let signed = image.to_signed();
    assert_eq!(Raster::from_signed(image.width(), image.height(), &signed).unwrap(), image);
    assert_eq!(Raster::from_signed(1, 1, &[2.0, -5.0, f32::NAN]).unwrap().pixels(), [255, 0, 0]);
}
