//! Warping of feature maps by a flow.

use super::blur::Maps;

/// The four neighbors of a place in the maps, with their weights; those outside of the maps have the weight 0.
struct Neighbors {
    /// Line and column of each.
    places: [[usize; 2]; 4],
    weights: [f32; 4],
}

/// Returns the neighbors of a place with coordinates from -1 to 1, where -1 and 1 are the outer edges of the first and the last pixel.
fn neighbors(x: f32, y: f32, size: usize) -> Neighbors {
    let pixel = |coordinate: f32| ((coordinate + 1.0) * size as f32 - 1.0) * 0.5;
    let (x, y) = (pixel(x), pixel(y));
    let (left, top) = (x.floor(), y.floor());
    let (right_share, bottom_share) = (x - left, y - top);
    let axis = |first: f32, share: f32| {
        [(first, 1.0 - share), (first + 1.0, share)].map(|(place, weight)| {
            // Not a number is outside too.
            if place >= 0.0 && place < size as f32 { (place as usize, weight) } else { (0, 0.0) }
        })
    };
    let (columns, lines) = (axis(left, right_share), axis(top, bottom_share));
    let pairs = [(0, 0), (0, 1), (1, 0), (1, 1)];
    Neighbors {
        places: pairs.map(|(line, column)| [lines[line].0, columns[column].0]),
        weights: pairs.map(|(line, column)| lines[line].1 * columns[column].1),
    }
}

/// Samples maps bilinearly at the flow's places, `[line][column]` of (x, y) from -1 to 1; zeros surround the maps.
pub(super) fn warped(maps: &Maps, flow: &[[f32; 2]]) -> Maps {
    let (size, stride) = (maps.size, maps.rows.stride());
    let mut out = Maps::new(maps.channels, size);
    let (data, channel_stride, first) = (maps.rows.data(), size * stride, maps.rows.start(0));
    let mut places = vec![([0usize; 4], [0f32; 4]); size];
    for line in 0..size {
        for (place, [x, y]) in places.iter_mut().zip(&flow[line * size..(line + 1) * size]) {
            let found = neighbors(*x, *y, size);
            *place = (found.places.map(|[line, column]| line * stride + column), found.weights);
        }
        for channel in 0..maps.channels {
            let data = &data[first + channel * channel_stride..];
            for (out, ([a, b, c, d], weights)) in out.line_mut(channel, line).iter_mut().zip(&places) {
                *out = data[*a] * weights[0] + data[*b] * weights[1] + data[*c] * weights[2] + data[*d] * weights[3];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_between_pixels_are_mixed_and_zeros_surround_the_maps() {
        let maps = Maps::of(&[1.0, 2.0, 3.0, 4.0], 1, 2);
        let at = |x: f32, y: f32| warped(&maps, &[[x, y]; 4]).elements()[0];
        assert_eq!([at(-0.5, -0.5), at(0.5, -0.5), at(-0.5, 0.5), at(0.0, 0.0)], [1.0, 2.0, 3.0, 2.5]);
        assert_eq!([at(-1.0, -1.0), at(5.0, 0.0), at(f32::NAN, 0.0)], [0.25, 0.0, 0.0]);
    }
}
