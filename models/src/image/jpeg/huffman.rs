//! Huffman codes over a scan's bytes.

use super::corrupt;
use crate::Result;

/// Longest code, in bits.
const MAX_LENGTH: usize = 16;
/// Codes up to this length are looked up at once.
const FAST_LENGTH: usize = 9;

/// A code's symbols by their bits.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// Length and symbol of the code that begins with these bits; length 0: a longer one.
    fast: Vec<(u8, u8)>,
    /// By length: one more than the largest code, and what to add to a code for its place in `symbols`.
    bounds: [(u32, i32); MAX_LENGTH + 1],
    symbols: Vec<u8>,
}

impl Table {
    /// From the number of codes of each length and the symbols in the order of their codes.
    pub(super) fn new(counts: &[u8; MAX_LENGTH], symbols: &[u8]) -> Result<Self> {
        let mut fast = vec![(0, 0); 1 << FAST_LENGTH];
        let mut bounds = [(0, 0); MAX_LENGTH + 1];
        let (mut code, mut place) = (0u32, 0usize);
        for (length, &count) in (1..).zip(counts) {
            bounds[length].1 = i32::try_from(place).unwrap_or(0) - i32::try_from(code).unwrap_or(0);
            for _ in 0..count {
                let symbol = *symbols
                    .get(place)
                    .ok_or_else(|| corrupt("a Huffman table is cut short"))?;
                if code >> length != 0 {
                    return Err(corrupt("a Huffman table has too many codes"));
                }
                if length <= FAST_LENGTH {
                    let spare = FAST_LENGTH - length;
                    let first = (code as usize) << spare;
                    let length = u8::try_from(length).unwrap_or(0);
                    fast[first..first + (1 << spare)].fill((length, symbol));
                }
                code += 1;
                place += 1;
            }
            bounds[length].0 = code;
            code <<= 1;
        }
        Ok(Self {
            fast,
            bounds,
            symbols: symbols[..place].to_vec(),
        })
    }
}

/// The bits of a scan, most significant first, up to the next marker. Behind it stand zeros, as libjpeg has it.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte.
    at: usize,
    /// The next bits, from the top.
    buffer: u64,
    count: usize,
    /// Whether more bits were taken than there were.
    pub(super) ran_out: bool,
}

impl<'a> Bits<'a> {
    /// The bits from byte `at` on.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at,
            buffer: 0,
            count: 0,
            ran_out: false,
        }
    }

    /// Where the marker behind the scan can be looked for.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The symbol of the next code.
    pub(super) fn symbol(&mut self, table: &Table) -> Result<u8> {
        self.fill();
        let (length, symbol) = table.fast[self.peek(FAST_LENGTH) as usize];
        if length > 0 {
            self.skip(length.into());
            return Ok(symbol);
        }
        for length in FAST_LENGTH + 1..=MAX_LENGTH {
            let code = self.peek(length);
            let (end, shift) = table.bounds[length];
            if code < end {
                self.skip(length);
                let place = i64::from(code) + i64::from(shift);
                let symbol = usize::try_from(place).ok();
                let symbol = symbol.and_then(|place| table.symbols.get(place));
                return symbol
                    .copied()
                    .ok_or_else(|| corrupt("a code without a symbol"));
            }
        }
        Err(corrupt("a code without a symbol"))
    }

    /// The next `length` bits, at most 16, as a number.
    pub(super) fn take(&mut self, length: u8) -> u32 {
        if length == 0 {
            return 0;
        }
        self.fill();
        let value = self.peek(length.into());
        self.skip(length.into());
        value
    }

    /// The next `length` bits as JPEG writes a signed number: those with a leading zero are negative.
    pub(super) fn take_signed(&mut self, length: u8) -> i32 {
        let value = self.take(length) as i32;
        if length == 0 || value >> (length - 1) != 0 {
            value
        } else {
            value - (1 << length) + 1
        }
    }

    /// Drops what is left of this byte and goes behind the next restart marker. Where another marker stands instead,
    /// nothing is left to read.
    pub(super) fn restart(&mut self) {
        (self.buffer, self.count) = (0, 0);
        self.ran_out = true;
        let mut at = self.at;
        while let Some((code, behind)) = next_marker(self.bytes, at) {
            at = behind;
            if (0xD0..=0xD7).contains(&code) {
                self.at = behind;
                self.ran_out = false;
            }
            if code != 0 {
                return;
            }
        }
    }

    /// The next bits without taking them, 1 to 16 of them.
    #[allow(clippy::cast_possible_truncation, reason = "at most 16 bits are left")]
    fn peek(&self, length: usize) -> u32 {
        (self.buffer >> (64 - length)) as u32
    }

    fn skip(&mut self, length: usize) {
        self.buffer <<= length;
        self.ran_out |= length > self.count;
        self.count = self.count.saturating_sub(length);
    }

    /// Reads bytes until the buffer holds any code or number, or the scan is at its end.
    fn fill(&mut self) {
        while self.count <= 56 {
            let Some(&byte) = self.bytes.get(self.at) else {
                return;
            };
            if byte == 0xFF {
                match next_marker(self.bytes, self.at) {
                    // A zero after it: no marker but a byte of data.
                    Some((0, behind)) => self.at = behind,
                    _ => return,
                }
            } else {
                self.at += 1;
            }
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }
}

/// The byte that follows the next 0xFF from `at` on (any number of them is one), and the place behind it.
pub(super) fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let rest = bytes.get(at..)?;
    let first = at + rest.iter().position(|&byte| byte == 0xFF)?;
    let length = bytes[first..].iter().position(|&byte| byte != 0xFF)?;
    let place = first + length;
    Some((bytes[place], place + 1))
}
