//! A file's segments, one after the other: tables are kept, scans decoded as they come.

use super::frame::{Coding, Frame};
use super::huffman::{Table, next_marker};
use super::idct::BLOCK;
use super::scan::{ORDER, Scan, Tables};
use super::{ColorSpace, corrupt};
use crate::{Error, Result};

/// Bound on progressive scans: each one walks the whole image again.
const MAX_SCANS: usize = 100;

/// A decoded file.
#[derive(Debug)]
pub(super) struct Segments<'a> {
    pub(super) frame: Frame,
    /// The first EXIF block, without its mark.
    pub(super) exif: Option<&'a [u8]>,
    is_jfif: bool,
    /// The transform that an Adobe segment names.
    adobe_transform: Option<u8>,
}

impl<'a> Segments<'a> {
    /// Reads and decodes a file up to its end marker; without one it was cut short.
    pub(super) fn read(bytes: &'a [u8], max_pixels: u64) -> Result<Self> {
        let mut frame = None;
        let (mut exif, mut is_jfif, mut adobe_transform) = (None, false, None);
        let mut quantisation: [Option<[u16; BLOCK]>; 4] = [None; 4];
        let mut tables = Tables::default();
        let (mut interval, mut num_scans) = (0, 0);
        let mut at = 2; // behind the start marker
        loop {
            let (marker, behind) = next_marker(bytes, at)
                .ok_or_else(|| Error::Image("JPEG is cut short: no end marker".to_owned()))?;
            at = behind;
            match marker {
                // Bytes of data, restarts and the like: nothing follows that belongs to them.
                0 | 0x01 | 0xD0..=0xD8 => continue,
                0xD9 => break,
                _ => {}
            }
            let segment = segment(bytes, at)?;
            at += 2 + segment.len();
            match marker {
                0xC0..=0xC2 if frame.is_some() => return Err(corrupt("it has two frames")),
                0xC0 | 0xC1 => frame = Some(Frame::read(segment, Coding::Sequential, max_pixels)?),
                0xC2 => frame = Some(Frame::read(segment, Coding::Progressive, max_pixels)?),
                0xC4 => read_huffman(segment, &mut tables)?,
                0xC3 | 0xC5..=0xCF => {
                    return Err(Error::Image(
                        "JPEG that is lossless, hierarchical or arithmetically coded is not supported"
                            .to_owned(),
                    ));
                }
                0xDB => read_quantisation(segment, &mut quantisation)?,
                0xDD => match *segment {
                    [high, low] => interval = usize::from(u16::from_be_bytes([high, low])),
                    _ => return Err(corrupt("its restart interval is cut short")),
                },
                0xDA => {
                    let frame = frame
                        .as_mut()
                        .ok_or_else(|| corrupt("a scan stands before the frame"))?;
                    num_scans += 1;
                    if num_scans > MAX_SCANS {
                        return Err(Error::Image(format!(
                            "JPEG of more than {MAX_SCANS} scans is not supported"
                        )));
                    }
                    let scan = Scan::read(segment, frame)?;
                    for index in scan.components() {
                        let component = &mut frame.components[index];
                        let table = quantisation.get(component.table_index).copied().flatten();
                        component.table = component.table.or(table);
                        if component.table.is_none() {
                            return Err(corrupt("a quantisation table is missing"));
                        }
                    }
                    at = scan.decode(frame, &tables, interval, bytes, at)?;
                }
                0xE0 => is_jfif |= segment.starts_with(b"JFIF\0"),
                0xE1 => exif = exif.or_else(|| segment.strip_prefix(b"Exif\0\0")),
                0xEE if segment.len() >= 12 && segment.starts_with(b"Adobe") => {
                    adobe_transform = Some(segment[11]);
                }
                _ => {}
            }
        }
        let mut frame = frame.ok_or_else(|| corrupt("it has no frame"))?;
        if num_scans == 0 {
            return Err(corrupt("it has no scan"));
        }
        frame.finish();
        Ok(Self {
            frame,
            exif,
            is_jfif,
            adobe_transform,
        })
    }

    /// The colours, as libjpeg guesses them.
    pub(super) fn color_space(&self) -> Result<ColorSpace> {
        let ids: Vec<u8> = self
            .frame
            .components
            .iter()
            .map(|component| component.id)
            .collect();
        Ok(match (ids.len(), self.adobe_transform) {
            (1, _) => ColorSpace::Grey,
            (3, _) if self.is_jfif => ColorSpace::YCbCr,
            (3, Some(0)) => ColorSpace::Rgb,
            (3, None) if ids == *b"RGB" => ColorSpace::Rgb,
            (3, _) => ColorSpace::YCbCr,
            (4, None | Some(0)) => ColorSpace::Cmyk,
            (4, _) => ColorSpace::Ycck,
            (count, _) => {
                return Err(Error::Image(format!(
                    "JPEG of {count} components is not supported"
                )));
            }
        })
    }
}

/// What stands behind a segment's length.
fn segment(bytes: &[u8], at: usize) -> Result<&[u8]> {
    let short = || Error::Image("JPEG is cut short: a segment has no end".to_owned());
    let rest = bytes.get(at..).unwrap_or_default();
    let (length, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let length = length
        .checked_sub(2)
        .ok_or_else(|| corrupt("a segment has a length below 2"))?;
    rest.get(..length).ok_or_else(short)
}

/// Huffman tables, any number of them.
fn read_huffman(mut segment: &[u8], tables: &mut Tables) -> Result<()> {
    while let Some((&[kind], rest)) = segment.split_first_chunk::<1>() {
        let short = || corrupt("a Huffman table is cut short");
        let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
        let count: usize = counts.iter().map(|&count| usize::from(count)).sum();
        let (symbols, rest) = rest.split_at_checked(count).ok_or_else(short)?;
        let table = Table::new(counts, symbols)?;
        let group = match kind >> 4 {
            0 => &mut tables.first,
            1 => &mut tables.others,
            _ => return Err(corrupt("a Huffman table of an unknown kind")),
        };
        let place = group.get_mut(usize::from(kind & 15));
        *place.ok_or_else(|| corrupt("more than 4 Huffman tables"))? = Some(table);
        segment = rest;
    }
    Ok(())
}

/// Quantisation tables, any number of them; kept in natural order.
fn read_quantisation(mut segment: &[u8], tables: &mut [Option<[u16; BLOCK]>; 4]) -> Result<()> {
    while let Some((&[kind], rest)) = segment.split_first_chunk::<1>() {
        let width = if kind >> 4 == 0 { 1 } else { 2 };
        let (values, rest) = rest
            .split_at_checked(BLOCK * width)
            .ok_or_else(|| corrupt("a quantisation table is cut short"))?;
        let mut table = [0; BLOCK];
        for (natural, value) in ORDER.into_iter().zip(values.chunks_exact(width)) {
            table[natural] = value
                .iter()
                .fold(0, |sum, &byte| sum << 8 | u16::from(byte));
        }
        let place = tables.get_mut(usize::from(kind & 15));
        *place.ok_or_else(|| corrupt("more than 4 quantisation tables"))? = Some(table);
        segment = rest;
    }
    Ok(())
}
