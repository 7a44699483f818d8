//! Tiles of an integer product: a few rows of u8 times a panel of i8, summed exactly in i32.
//!
//! One lane of the instruction takes four input channels of one output channel; see `models::checkpoint::PackedMatrix` for
//! how a panel lies.
#![cfg_attr(
    target_arch = "x86_64",
    allow(
        unsafe_code,
        reason = "the dot product instructions have no safe wrapper: features are detected before, memory is given as arrays"
    )
)]

use models::checkpoint::{GROUP, PANEL};

use super::panels::TILE_ROWS;
use super::prefetch;

/// The numbers of a tile, `[row][column]`.
pub(in crate::engine) type Sums = [[i32; PANEL]; TILE_ROWS];

/// A group of input channels of a tile's rows.
pub(in crate::engine) type Channels = [[u8; GROUP]; TILE_ROWS];

/// Up to [`TILE_ROWS`] rows and a panel.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Operands<'a> {
    /// `[groups]`; rows that are not there hold anything.
    pub(in crate::engine) tile: &'a [Channels],
    /// How many rows are there: 1 to [`TILE_ROWS`].
    pub(in crate::engine) num_rows: usize,
    /// `[groups, PANEL, GROUP]`.
    pub(in crate::engine) panel: &'a [i8],
    /// What the sums begin with.
    pub(in crate::engine) start: &'a [i32; PANEL],
    /// What will be read next: fetched meanwhile, a cache line a step.
    pub(in crate::engine) next: &'a [i8],
}

/// The instructions that sum; only what this machine has can be made.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Dot(Instructions);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// Plain arithmetic.
    Portable,
}

impl Dot {
    /// The best that this machine has.
    pub(in crate::engine) fn detect() -> Self {
        Self::all().next().unwrap_or(Self(Instructions::Portable))
    }

    /// All that this machine has, the best first.
    fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let fast = [
            (
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
                Instructions::Avx512Vnni,
            ),
            (
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni"),
                Instructions::AvxVnni,
            ),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let fast: [(bool, Instructions); 0] = [];
        fast.into_iter()
            .chain([(true, Instructions::Portable)])
            .filter(|(is_there, _)| *is_there)
            .map(|(_, instructions)| Self(instructions))
    }

    /// Whether there are instructions for it: without them f32 is faster.
    pub(in crate::engine) fn is_fast(self) -> bool {
        self.0 != Instructions::Portable
    }

    /// `sums[row][column] = start[column] + tile[row] . panel[column]`, for the rows that are there.
    pub(in crate::engine) fn tile(self, operands: Operands<'_>, sums: &mut Sums) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `all` found the features.
            Instructions::Avx512Vnni => unsafe { x86::avx512_tile(operands, sums) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `all` found the features.
            Instructions::AvxVnni => unsafe { x86::avx_tile(operands, sums) },
            Instructions::Portable => portable_tile(operands, sums),
        }
    }
}

fn portable_tile(operands: Operands<'_>, sums: &mut Sums) {
    let (steps, _) = operands.panel.as_chunks::<{ PANEL * GROUP }>();
    for (row, sums) in sums.iter_mut().enumerate().take(operands.num_rows) {
        *sums = *operands.start;
        for (channels, weights) in operands.tile.iter().zip(steps) {
            for (sum, weights) in sums.iter_mut().zip(weights.chunks_exact(GROUP)) {
                for (&x, &weight) in channels[row].iter().zip(weights) {
                    *sum += i32::from(x) * i32::from(weight);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_dpbusd_avx_epi32, _mm256_loadu_si256, _mm256_set1_epi32,
        _mm256_storeu_si256, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_storeu_si512,
    };

    use super::{GROUP, Operands, PANEL, Sums, TILE_ROWS, prefetch};

    /// # Safety
    /// The CPU has AVX-512 VNNI.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn avx512_tile(operands: Operands<'_>, sums: &mut Sums) {
        match operands.num_rows {
            1 => avx512::<1>(operands, sums),
            2 => avx512::<2>(operands, sums),
            3 => avx512::<3>(operands, sums),
            4 => avx512::<4>(operands, sums),
            5 => avx512::<5>(operands, sums),
            _ => avx512::<TILE_ROWS>(operands, sums),
        }
    }

    /// i32 lanes of a register, and registers of a panel.
    const WIDE: usize = 16;
    const WIDE_REGISTERS: usize = PANEL / WIDE;

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn avx512<const ROWS: usize>(operands: Operands<'_>, sums: &mut Sums) {
        let (steps, _) = operands.panel.as_chunks::<{ PANEL * GROUP }>();
        let start: [__m512i; WIDE_REGISTERS] =
            std::array::from_fn(|part| wide_i32(&operands.start[WIDE * part..]));
        let mut total = [start; ROWS];
        for (index, (channels, weights)) in operands.tile.iter().zip(steps).enumerate() {
            prefetch::line(operands.next, index);
            let weights: [__m512i; WIDE_REGISTERS] =
                std::array::from_fn(|part| wide_i8(&weights[GROUP * WIDE * part..]));
            for (total, &channels) in total.iter_mut().zip(channels) {
                let x = _mm512_set1_epi32(i32::from_le_bytes(channels));
                for (total, weights) in total.iter_mut().zip(weights) {
                    *total = _mm512_dpbusd_epi32(*total, x, weights);
                }
            }
        }
        for (sums, total) in sums.iter_mut().zip(total) {
            for (sums, total) in sums.as_chunks_mut::<WIDE>().0.iter_mut().zip(total) {
                // SAFETY: an array of the register's size.
                unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), total) };
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn wide_i8(bytes: &[i8]) -> __m512i {
        let bytes = &bytes[..4 * WIDE];
        // SAFETY: as many bytes as the register holds.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn wide_i32(numbers: &[i32]) -> __m512i {
        let numbers = &numbers[..WIDE];
        // SAFETY: as many numbers as the register holds.
        unsafe { _mm512_loadu_si512(numbers.as_ptr().cast()) }
    }

    /// # Safety
    /// The CPU has AVX-VNNI.
    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn avx_tile(operands: Operands<'_>, sums: &mut Sums) {
        match operands.num_rows {
            1 => avx::<1>(operands, sums),
            2 => avx::<2>(operands, sums),
            3 => avx::<3>(operands, sums),
            4 => avx::<4>(operands, sums),
            5 => avx::<5>(operands, sums),
            _ => avx::<TILE_ROWS>(operands, sums),
        }
    }

    const NARROW: usize = 8;
    /// Half as many registers as AVX-512 has, of half the size: a quarter of the panel's columns at a time.
    const STRIP: usize = 2 * NARROW;

    #[target_feature(enable = "avx2,avxvnni")]
    fn avx<const ROWS: usize>(operands: Operands<'_>, sums: &mut Sums) {
        let (steps, _) = operands.panel.as_chunks::<{ PANEL * GROUP }>();
        for first in (0..PANEL).step_by(STRIP) {
            let start: [__m256i; 2] =
                std::array::from_fn(|part| narrow_i32(&operands.start[first + NARROW * part..]));
            let mut total = [start; ROWS];
            for (index, (channels, weights)) in operands.tile.iter().zip(steps).enumerate() {
                if first == 0 {
                    prefetch::line(operands.next, index);
                }
                let weights: [__m256i; 2] = std::array::from_fn(|part| {
                    narrow_i8(&weights[GROUP * (first + NARROW * part)..])
                });
                for (total, &channels) in total.iter_mut().zip(channels) {
                    let x = _mm256_set1_epi32(i32::from_le_bytes(channels));
                    for (total, weights) in total.iter_mut().zip(weights) {
                        *total = _mm256_dpbusd_avx_epi32(*total, x, weights);
                    }
                }
            }
            for (sums, total) in sums.iter_mut().zip(total) {
                let sums = &mut sums[first..first + STRIP];
                for (sums, total) in sums.as_chunks_mut::<NARROW>().0.iter_mut().zip(total) {
                    // SAFETY: an array of the register's size.
                    unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), total) };
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn narrow_i8(bytes: &[i8]) -> __m256i {
        let bytes = &bytes[..4 * NARROW];
        // SAFETY: as many bytes as the register holds.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn narrow_i32(numbers: &[i32]) -> __m256i {
        let numbers = &numbers[..NARROW];
        // SAFETY: as many numbers as the register holds.
        unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_gives_the_same_exact_sums() {
        for (groups, num_rows) in [(1_usize, 1), (2, 2), (10, 3), (16, 4), (33, 5), (192, 6)] {
            let tile: Vec<Channels> = (0..groups)
                .map(|group| {
                    let byte = |at: usize| (group * 7919 + at * 97).to_le_bytes()[0];
                    std::array::from_fn(|row| {
                        std::array::from_fn(|channel| byte(row * GROUP + channel))
                    })
                })
                .collect();
            let panel: Vec<i8> = (0..groups * PANEL * GROUP)
                .map(|i| (i * 31 + i / 7).to_le_bytes()[0].cast_signed())
                .collect();
            let start: [i32; PANEL] =
                std::array::from_fn(|i| 1000 * i32::try_from(i).unwrap() - 30_000);
            let operands = Operands {
                tile: &tile,
                num_rows,
                panel: &panel,
                start: &start,
                next: &panel,
            };
            let mut expected = [[0; PANEL]; TILE_ROWS];
            for (row, expected) in expected.iter_mut().enumerate().take(num_rows) {
                for (column, expected) in expected.iter_mut().enumerate() {
                    *expected = start[column];
                    for (group, channels) in tile.iter().enumerate() {
                        for (channel, &x) in channels[row].iter().enumerate() {
                            let weight = panel[(group * PANEL + column) * GROUP + channel];
                            *expected += i32::from(x) * i32::from(weight);
                        }
                    }
                }
            }
            for dot in Dot::all() {
                let mut sums = [[0; PANEL]; TILE_ROWS];
                dot.tile(operands, &mut sums);
                assert!(
                    sums[..num_rows] == expected[..num_rows],
                    "{dot:?}, {num_rows} rows of {groups} groups"
                );
            }
        }
    }
}
