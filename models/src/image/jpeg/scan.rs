//! The coefficients of one scan: whole blocks of a sequential file, or one more turn over the blocks of a progressive one.

use super::corrupt;
use super::frame::{Coding, Component, Frame};
use super::huffman::{Bits, Table};
use super::idct::BLOCK;
use crate::{Error, Result};

/// Natural place of each coefficient in the order of the file, by rising frequency.
pub(super) const ORDER: [usize; BLOCK] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];
/// Most bits of a coefficient.
const MAX_BITS: u8 = 15;
/// Most bits that a scan may leave to later ones.
const MAX_SHIFT: u8 = 13;

/// A block's coefficients in natural order.
type Block = [i16; BLOCK];

/// Huffman tables of the first coefficients and of the others, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) first: [Option<Table>; 4],
    pub(super) others: [Option<Table>; 4],
}

/// What a scan header says.
#[derive(Debug)]
pub(super) struct Scan {
    members: Vec<Member>,
    /// The coefficients it holds, first and last, in the order of the file.
    from: usize,
    to: usize,
    /// Whether earlier scans have told the higher bits.
    refines: bool,
    /// Bits that are left to later scans.
    shift: u8,
}

/// A component of the scan with its tables.
#[derive(Debug)]
struct Member {
    component: usize,
    first: usize,
    others: usize,
}

impl Scan {
    /// Reads a scan header (without its length) for a frame.
    pub(super) fn read(header: &[u8], frame: &Frame) -> Result<Self> {
        let short = || corrupt("a scan header is cut short");
        let (&count, rest) = header.split_first().ok_or_else(short)?;
        let count = usize::from(count);
        let (specs, &[from, to, bits]) = rest.split_last_chunk::<3>().ok_or_else(short)?;
        if specs.len() != 2 * count || !(1..=frame.components.len()).contains(&count) {
            return Err(short());
        }
        let mut members: Vec<Member> = Vec::with_capacity(count);
        for spec in specs.chunks_exact(2) {
            let of_name = |component: &Component| component.id == spec[0];
            let component = frame.components.iter().position(of_name);
            let component = component.ok_or_else(|| corrupt("a scan names no component"))?;
            if members.iter().any(|member| member.component == component) {
                return Err(corrupt("a scan names a component twice"));
            }
            members.push(Member {
                component,
                first: usize::from(spec[1] >> 4 & 3),
                others: usize::from(spec[1] & 3),
            });
        }
        let scan = Self {
            members,
            from: usize::from(from),
            to: usize::from(to),
            refines: bits >> 4 != 0,
            shift: bits & 15,
        };
        match frame.coding {
            // Whatever the header says of a part.
            Coding::Sequential => Ok(Self {
                from: 0,
                to: BLOCK - 1,
                refines: false,
                shift: 0,
                ..scan
            }),
            Coding::Progressive => {
                let is_first = scan.from == 0 && scan.to == 0;
                let is_band = scan.from > 0
                    && scan.from <= scan.to
                    && scan.to < BLOCK
                    && scan.members.len() == 1;
                if (is_first || is_band) && scan.shift <= MAX_SHIFT {
                    Ok(scan)
                } else {
                    Err(corrupt("a scan header is out of bounds"))
                }
            }
        }
    }

    /// The components of the scan.
    pub(super) fn components(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|member| member.component)
    }

    /// Decodes the scan whose bytes begin at `at`; gives the place behind them. After every `interval` units (0: never)
    /// the codes start anew. Where bytes are missing the blocks stay as they are.
    pub(super) fn decode(
        &self,
        frame: &mut Frame,
        tables: &Tables,
        interval: usize,
        bytes: &[u8],
        at: usize,
    ) -> Result<usize> {
        let mut state = State {
            bits: Bits::new(bytes, at),
            last: [0; 4],
            band_ends: 0,
        };
        // Alone, a component has units of one block, and none of padding.
        let alone = self.members.len() == 1;
        let (across, down) = if alone {
            frame.components[self.members[0].component].own_blocks()
        } else {
            frame.units
        };
        for unit in 0..across * down {
            if interval > 0 && unit > 0 && unit.is_multiple_of(interval) {
                state.restart();
            }
            if state.bits.ran_out {
                if interval == 0 {
                    break;
                }
                continue;
            }
            let (column, row) = (unit % across, unit / across);
            for (index, member) in self.members.iter().enumerate() {
                let component = &mut frame.components[member.component];
                let (wide, tall) = if alone { (1, 1) } else { component.factors };
                for y in 0..tall {
                    for x in 0..wide {
                        let place = (column * wide + x, row * tall + y);
                        self.block(&mut state, tables, member, index, component, place)?;
                    }
                }
            }
        }
        Ok(state.bits.position())
    }

    fn block(
        &self,
        state: &mut State<'_>,
        tables: &Tables,
        member: &Member,
        index: usize,
        component: &mut Component,
        (column, row): (usize, usize),
    ) -> Result<()> {
        let missing = || Error::Image("corrupt JPEG: a Huffman table is missing".to_owned());
        let first = || tables.first[member.first].as_ref().ok_or_else(missing);
        let others = || tables.others[member.others].as_ref().ok_or_else(missing);
        if component.coefficients.is_empty() {
            let mut block = [0; BLOCK];
            block[0] = state.first(first()?, index, 0)?;
            state.others(others()?, &mut block)?;
            component.put(column, row, &block);
            return Ok(());
        }
        let block = component.coefficients_at(column, row);
        match (self.from, self.refines) {
            (0, false) => block[0] = state.first(first()?, index, self.shift)?,
            (0, true) => {
                if state.bits.take(1) == 1 {
                    block[0] |= 1 << self.shift;
                }
            }
            (_, false) => state.band(others()?, self, block)?,
            (_, true) => state.refine(others()?, self, block)?,
        }
        Ok(())
    }
}

/// Where a scan stands.
struct State<'a> {
    bits: Bits<'a>,
    /// First coefficient of the block before, by member of the scan.
    last: [i32; 4],
    /// Blocks to come whose band has nothing new.
    band_ends: u32,
}

impl State<'_> {
    fn restart(&mut self) {
        self.bits.restart();
        self.last = [0; 4];
        self.band_ends = 0;
    }

    /// The first coefficient, told as the difference to the block before.
    fn first(&mut self, table: &Table, member: usize, shift: u8) -> Result<i16> {
        let length = self.bits.symbol(table)?;
        if length > MAX_BITS {
            return Err(corrupt("a coefficient is out of bounds"));
        }
        let difference = self.bits.take_signed(length);
        self.last[member] = self.last[member].wrapping_add(difference);
        Ok(narrow(self.last[member] << shift))
    }

    /// All coefficients but the first.
    fn others(&mut self, table: &Table, block: &mut Block) -> Result<()> {
        let mut place = 1;
        while place < BLOCK {
            let (zeros, length) = split(self.bits.symbol(table)?);
            if length == 0 {
                if zeros < 15 {
                    break;
                }
                place += 16;
                continue;
            }
            place += zeros;
            *at(block, place)? = narrow(self.bits.take_signed(length));
            place += 1;
        }
        Ok(())
    }

    /// The higher bits of a band.
    fn band(&mut self, table: &Table, scan: &Scan, block: &mut Block) -> Result<()> {
        if self.band_ends > 0 {
            self.band_ends -= 1;
            return Ok(());
        }
        let mut place = scan.from;
        while place <= scan.to {
            let (zeros, length) = split(self.bits.symbol(table)?);
            if length == 0 {
                if zeros < 15 {
                    self.band_ends = self.run(zeros) - 1;
                    break;
                }
                place += 16;
                continue;
            }
            place += zeros;
            *at(block, place)? = narrow(self.bits.take_signed(length) << scan.shift);
            place += 1;
        }
        Ok(())
    }

    /// One more bit of a band: of the coefficients that are not zero as they are passed, and of new ones between them.
    fn refine(&mut self, table: &Table, scan: &Scan, block: &mut Block) -> Result<()> {
        let bit = 1 << scan.shift;
        let mut place = scan.from;
        if self.band_ends == 0 {
            while place <= scan.to {
                let (mut zeros, length) = split(self.bits.symbol(table)?);
                let mut new = 0;
                if length > 0 {
                    new = if self.bits.take(1) == 1 { bit } else { -bit };
                } else if zeros < 15 {
                    self.band_ends = self.run(zeros);
                    break;
                }
                while place <= scan.to {
                    let coefficient = &mut block[ORDER[place]];
                    if *coefficient != 0 {
                        self.refine_one(coefficient, bit);
                    } else if zeros == 0 {
                        break;
                    } else {
                        zeros -= 1;
                    }
                    place += 1;
                }
                if new != 0 {
                    *at(block, place)? = new;
                }
                place += 1;
            }
        }
        if self.band_ends > 0 {
            for &natural in ORDER.get(place..=scan.to).unwrap_or_default() {
                if block[natural] != 0 {
                    self.refine_one(&mut block[natural], bit);
                }
            }
            self.band_ends -= 1;
        }
        Ok(())
    }

    fn refine_one(&mut self, coefficient: &mut i16, bit: i16) {
        if self.bits.take(1) == 1 && *coefficient & bit == 0 {
            let step = if *coefficient >= 0 { bit } else { -bit };
            *coefficient = coefficient.wrapping_add(step);
        }
    }

    /// How many blocks from this one on have an ended band.
    fn run(&mut self, length: usize) -> u32 {
        let length = u8::try_from(length).unwrap_or(0);
        (1 << length) + self.bits.take(length)
    }
}

/// A symbol's zeros to pass, and bits to take.
fn split(symbol: u8) -> (usize, u8) {
    (usize::from(symbol >> 4), symbol & 15)
}

fn at(block: &mut Block, place: usize) -> Result<&mut i16> {
    let natural = ORDER.get(place);
    let natural = natural.ok_or_else(|| corrupt("a coefficient is out of bounds"))?;
    Ok(&mut block[*natural])
}

/// Whole files stay within 16 bits; what a damaged one becomes does not matter.
#[allow(clippy::cast_possible_truncation, reason = "meant")]
fn narrow(value: i32) -> i16 {
    value as i16
}
