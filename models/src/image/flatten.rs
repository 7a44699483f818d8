//! Any sample layout to 8-bit RGB, as PIL converts it, with alpha composited on white.

/// 16-bit grey: PIL keeps it as integers and clamps them; it does not scale.
pub(super) fn grey16(samples: &[u16]) -> Vec<u8> {
    samples
        .iter()
        .flat_map(|&grey| [clamp16(grey); 3])
        .collect()
}

/// 16-bit grey whose alpha says which level is transparent: PIL compares that level with the clamped samples.
pub(super) fn grey16_alpha(samples: &[u16]) -> Vec<u8> {
    let pixels = samples.chunks_exact(2);
    let level = pixels
        .clone()
        .find(|pixel| pixel[1] == 0)
        .and_then(|pixel| u8::try_from(pixel[0]).ok());
    let shown = |grey: u8| if Some(grey) == level { u8::MAX } else { grey };
    pixels
        .flat_map(|pixel| [shown(clamp16(pixel[0])); 3])
        .collect()
}

fn clamp16(grey: u16) -> u8 {
    u8::try_from(grey).unwrap_or(u8::MAX)
}

/// 8-bit grey.
pub(super) fn grey(samples: &[u8]) -> Vec<u8> {
    samples.iter().flat_map(|&grey| [grey; 3]).collect()
}

/// 8-bit grey with alpha.
pub(super) fn grey_alpha(samples: &[u8]) -> Vec<u8> {
    samples
        .chunks_exact(2)
        .flat_map(|pixel| [on_white(pixel[0], pixel[1]); 3])
        .collect()
}

/// 8-bit RGB with alpha.
pub(super) fn rgb_alpha(samples: &[u8]) -> Vec<u8> {
    samples
        .chunks_exact(4)
        .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]].map(|sample| on_white(sample, pixel[3])))
        .collect()
}

/// 16-bit samples to 8 bits: the high byte, for every layout but plain grey.
pub(super) fn high_bytes(samples: &[u16]) -> Vec<u8> {
    samples
        .iter()
        .map(|sample| sample.to_be_bytes()[0])
        .collect()
}

/// PIL's `alpha_composite` over opaque white: 7 more bits than the sample, then a division by 255 by shifts.
fn on_white(sample: u8, alpha: u8) -> u8 {
    const EXTRA_BITS: u32 = 7;
    const WHITE: u32 = 255;
    if alpha == 0 {
        return u8::MAX;
    }
    let own = u32::from(alpha) * 255 * 255 * (1 << EXTRA_BITS) / (255 * 255);
    let white = (255 << EXTRA_BITS) - own;
    let sum = u32::from(sample) * own + WHITE * white + (0x80 << EXTRA_BITS);
    let divided = ((sum >> 8) + sum) >> 8;
    u8::try_from(divided >> EXTRA_BITS).unwrap_or(u8::MAX)
}

/// libjpeg's full-range YCbCr to RGB, 16-bit fixed point.
pub(super) fn ycc(samples: &[u8]) -> Vec<u8> {
    samples
        .chunks_exact(3)
        .flat_map(|pixel| ycc_pixel(pixel[0], pixel[1], pixel[2]))
        .collect()
}

/// CMYK as JPEG files hold it (inverted, Adobe's way; PIL assumes so for every four-component JPEG) to RGB.
pub(super) fn inverted_cmyk(samples: &[u8]) -> Vec<u8> {
    samples
        .chunks_exact(4)
        .flat_map(|pixel| [pixel[0], pixel[1], pixel[2]].map(|ink| under_black(ink, pixel[3])))
        .collect()
}

/// YCCK: libjpeg turns YCC into the complement of RGB, which is then CMYK as above.
pub(super) fn ycck(samples: &[u8]) -> Vec<u8> {
    samples
        .chunks_exact(4)
        .flat_map(|pixel| {
            ycc_pixel(pixel[0], pixel[1], pixel[2])
                .map(|sample| under_black(u8::MAX - sample, pixel[3]))
        })
        .collect()
}

fn ycc_pixel(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const BITS: u32 = 16;
    const HALF: i32 = 1 << (BITS - 1);
    // 1.402, 1.772, 0.71414, 0.34414 in 16-bit fixed point.
    const RED: i32 = 91_881;
    const BLUE: i32 = 116_130;
    const GREEN_CR: i32 = 46_802;
    const GREEN_CB: i32 = 22_554;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((RED * cr + HALF) >> BITS);
    let green = y + ((HALF - GREEN_CB * cb - GREEN_CR * cr) >> BITS);
    let blue = y + ((BLUE * cb + HALF) >> BITS);
    [red, green, blue].map(clamp8)
}

/// PIL's CMYK to RGB for inverted ink and black: `k - (255 - ink) * k / 255`, rounded PIL's way.
fn under_black(ink: u8, black: u8) -> u8 {
    let product = (255 - i32::from(ink)) * i32::from(black) + 128;
    clamp8(i32::from(black) - (((product >> 8) + product) >> 8))
}

fn clamp8(value: i32) -> u8 {
    u8::try_from(value.clamp(0, 255)).unwrap_or(u8::MAX)
}
