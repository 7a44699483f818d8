//! The inverse cosine transform of libjpeg's `jidctint`: 13-bit constants, columns first with two bits to spare.
//! (Loeffler, Ligtenberg and Moschytz 1989, with 12 multiplications.)

/// Samples along a block.
pub(super) const SIDE: usize = 8;
/// Samples, or coefficients, of a block.
pub(super) const BLOCK: usize = SIDE * SIDE;
/// A sample of a block whose coefficients are all zero.
pub(super) const MIDDLE: u8 = 128;

const CONSTANT_BITS: u32 = 13;
const COLUMN_BITS: u32 = 2;

/// Coefficients in natural order, times the quantisation table, to samples. i64: damaged coefficients cannot overflow it.
pub(super) fn inverse(block: &[i16; BLOCK], table: &[u16; BLOCK]) -> [u8; BLOCK] {
    if block[1..].iter().all(|&coefficient| coefficient == 0) {
        // The same as below: most blocks of a plain surface.
        let level = i64::from(block[0]) * i64::from(table[0]) * (1 << COLUMN_BITS);
        return [sample(round(level, COLUMN_BITS + 3)); BLOCK];
    }
    let mut work = [0i64; BLOCK];
    for x in 0..SIDE {
        let column = std::array::from_fn(|y| {
            let at = y * SIDE + x;
            i64::from(block[at]) * i64::from(table[at])
        });
        let column = transform(column);
        for (y, value) in column.into_iter().enumerate() {
            work[y * SIDE + x] = round(value, CONSTANT_BITS - COLUMN_BITS);
        }
    }
    let mut samples = [0; BLOCK];
    for (row, line) in work
        .as_chunks()
        .0
        .iter()
        .zip(samples.chunks_exact_mut(SIDE))
    {
        for (value, out) in transform(*row).into_iter().zip(line) {
            *out = sample(round(value, CONSTANT_BITS + COLUMN_BITS + 3));
        }
    }
    samples
}

/// One row or column, scaled by `2^13 * sqrt(8)`.
fn transform(x: [i64; SIDE]) -> [i64; SIDE] {
    // Even part.
    let turned = (x[2] + x[6]) * 4433; // 0.541196100
    let low = turned - x[6] * 15137; // 1.847759065
    let high = turned + x[2] * 6270; // 0.765366865
    let sum = (x[0] + x[4]) << CONSTANT_BITS;
    let difference = (x[0] - x[4]) << CONSTANT_BITS;
    let even = [sum + high, difference + low, difference - low, sum - high];

    // Odd part.
    let both = (x[7] + x[3] + x[5] + x[1]) * 9633; // 1.175875602
    let a = (x[7] + x[1]) * -7373; // 0.899976223
    let b = (x[5] + x[3]) * -20995; // 2.562915447
    let c = (x[7] + x[3]) * -16069 + both; // 1.961570560
    let d = (x[5] + x[1]) * -3196 + both; // 0.390180644
    let odd = [
        x[1] * 12299 + a + d, // 1.501321110
        x[3] * 25172 + b + c, // 3.072711026
        x[5] * 16819 + b + d, // 2.053119869
        x[7] * 2446 + a + c,  // 0.298631336
    ];
    std::array::from_fn(|i| {
        if i < 4 {
            even[i] + odd[i]
        } else {
            even[7 - i] - odd[7 - i]
        }
    })
}

/// Divides by a power of two, halves upwards.
fn round(value: i64, bits: u32) -> i64 {
    (value + (1 << (bits - 1))) >> bits
}

fn sample(value: i64) -> u8 {
    u8::try_from((value + i64::from(MIDDLE)).clamp(0, 255)).unwrap_or(u8::MAX)
}
