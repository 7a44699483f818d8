//! The pages of a parquet column chunk, walked before the parquet crate sees them.
//!
//! A page header of 20 bytes may declare 2 GiB, a gzip page may unpack to a thousand times its size whatever it declares, a
//! dictionary may declare more entries than it has bytes, and the delta encodings may repeat a prefix without end.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use parquet::basic::Compression;

use super::limits::DatasetLimits;
use super::thrift::{Value, parse_struct};

/// What a chunk unpacks to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ChunkSize {
    pub(super) bytes: usize,
    pub(super) values: usize,
}

/// A page header has some 20 values.
const MAX_HEADER_VALUES: usize = 200;

/// Encodings of values whose unpacked size is known from the page: PLAIN (which needs no dictionary), PLAIN_DICTIONARY,
/// RLE_DICTIONARY.
const ENCODINGS: [i64; 3] = [0, 2, 8];

/// Walks all pages in `chunk`.
pub(super) fn check_chunk(
    chunk: &[u8],
    codec: Compression,
    limits: &DatasetLimits,
) -> Result<ChunkSize, String> {
    match codec {
        Compression::UNCOMPRESSED
        | Compression::SNAPPY
        | Compression::GZIP(_)
        | Compression::ZSTD(_) => {}
        other => {
            return Err(format!(
                "compression {other} is not supported; snappy, gzip, zstd or none are"
            ));
        }
    }
    let mut size = ChunkSize::default();
    let mut has_dictionary = false;
    let mut rest = chunk;
    while !rest.is_empty() {
        let (header, length) = parse_struct(rest, MAX_HEADER_VALUES)?;
        rest = rest.get(length..).unwrap_or_default();
        let page = Page::new(&header, limits)?;
        let stored = rest
            .get(..page.stored_bytes)
            .ok_or("a page is longer than its column chunk")?;
        rest = rest.get(page.stored_bytes..).unwrap_or_default();
        if matches!(codec, Compression::GZIP(_)) && page.is_compressed {
            check_gzip(stored, &page)?;
        }
        if page.needs_dictionary && !has_dictionary {
            return Err("a page refers to a dictionary that is not there".to_owned());
        }
        has_dictionary |= page.is_dictionary;
        size.bytes = size
            .bytes
            .saturating_add(page.unpacked_bytes.max(page.stored_bytes));
        size.values = size.values.saturating_add(page.values);
        if size.bytes > limits.max_row_group_bytes {
            return Err(format!(
                "a column chunk unpacks to more than {} bytes",
                limits.max_row_group_bytes
            ));
        }
        if size.values > limits.max_row_group_values {
            return Err(format!(
                "a column chunk has more than {} values",
                limits.max_row_group_values
            ));
        }
    }
    Ok(size)
}

struct Page {
    stored_bytes: usize,
    unpacked_bytes: usize,
    /// Bytes of levels in front that are never compressed.
    plain_bytes: usize,
    is_compressed: bool,
    is_dictionary: bool,
    needs_dictionary: bool,
    /// Values of a data page, nulls included; 0 for a dictionary.
    values: usize,
}

impl Page {
    /// Field numbers of parquet.thrift's `PageHeader`.
    fn new(header: &Value, limits: &DatasetLimits) -> Result<Self, String> {
        let unpacked_bytes = count(header, 2, "unpacked size")?;
        let stored_bytes = count(header, 3, "stored size")?;
        if unpacked_bytes.max(stored_bytes) > limits.max_page_bytes {
            return Err(format!(
                "a page declares {} bytes, at most {} allowed",
                unpacked_bytes.max(stored_bytes),
                limits.max_page_bytes
            ));
        }
        let part = |number| {
            header
                .field(number)
                .ok_or_else(|| "a page lacks its header's second half".to_owned())
        };
        let mut page = Self {
            stored_bytes,
            unpacked_bytes,
            plain_bytes: 0,
            is_compressed: true,
            is_dictionary: false,
            needs_dictionary: false,
            values: 0,
        };
        match header.int(1) {
            Some(0) => {
                let data = part(5)?;
                page.values = count(data, 1, "number of values")?;
                page.needs_dictionary = encoding(data, 2)? != 0;
            }
            Some(2) => {
                let dictionary = part(7)?;
                page.is_dictionary = true;
                encoding(dictionary, 2)?;
                // An entry is a length of 4 bytes, or a number of at least 4.
                if count(dictionary, 1, "number of entries")? > unpacked_bytes / 4 {
                    return Err(
                        "a dictionary declares more entries than it has room for".to_owned()
                    );
                }
            }
            Some(3) => {
                let data = part(8)?;
                page.values = count(data, 1, "number of values")?;
                page.needs_dictionary = encoding(data, 4)? != 0;
                page.plain_bytes =
                    count(data, 5, "levels")?.saturating_add(count(data, 6, "levels")?);
                page.is_compressed = data.field(7) != Some(&Value::Bool(false));
                if page.plain_bytes > unpacked_bytes.min(stored_bytes) {
                    return Err("a page's levels are longer than the page".to_owned());
                }
            }
            _ => return Err("a page is of unknown type".to_owned()),
        }
        Ok(page)
    }
}

fn count(header: &Value, field: i16, what: &str) -> Result<usize, String> {
    let value = header
        .int(field)
        .ok_or_else(|| format!("a page header lacks its {what}"))?;
    let value = i32::try_from(value)
        .ok()
        .and_then(|value| usize::try_from(value).ok());
    value.ok_or_else(|| format!("a page header's {what} is out of range"))
}

fn encoding(header: &Value, field: i16) -> Result<i64, String> {
    match header.int(field) {
        Some(encoding) if ENCODINGS.contains(&encoding) => Ok(encoding),
        _ => {
            Err("a page has an encoding that is not supported; plain and dictionary are".to_owned())
        }
    }
}

/// The parquet crate unpacks gzip to its end; only a page that ends where it says may get there.
fn check_gzip(stored: &[u8], page: &Page) -> Result<(), String> {
    let packed = stored.get(page.plain_bytes..).unwrap_or_default();
    let declared = (page.unpacked_bytes - page.plain_bytes) as u64;
    if declared == 0 {
        return Ok(());
    }
    let mut unpacked = MultiGzDecoder::new(packed).take(declared + 1);
    match std::io::copy(&mut unpacked, &mut std::io::sink()) {
        Ok(length) if length == declared => Ok(()),
        Ok(_) => Err(format!(
            "a gzip page does not unpack to the {declared} bytes it declares"
        )),
        Err(error) => Err(format!("a gzip page is corrupt: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A v1 data page header with these sizes.
    fn page(unpacked: &[u8], stored: &[u8], encoding: u8) -> Vec<u8> {
        let data = [0x15, 8, 0x15, encoding, 0x15, 6, 0x15, 6, 0];
        [
            &[0x15, 0, 0x15],
            unpacked,
            &[0x15],
            stored,
            &[0x2c],
            &data,
            &[0],
        ]
        .concat()
    }

    fn check(chunk: &[u8], codec: Compression) -> Result<ChunkSize, String> {
        check_chunk(chunk, codec, &DatasetLimits::default())
    }

    #[test]
    fn a_page_is_counted() {
        let chunk = [page(&[16], &[16], 0), vec![0; 8]].concat();
        assert_eq!(
            check(&chunk, Compression::UNCOMPRESSED),
            Ok(ChunkSize {
                bytes: 8,
                values: 4
            })
        );
        assert_eq!(check(&[], Compression::SNAPPY), Ok(ChunkSize::default()));
    }

    #[test]
    fn bombs_are_refused() {
        // 2 GiB - 1 unpacked, in zigzag.
        let huge = [0xfe, 0xff, 0xff, 0xff, 0x0f];
        let message = check(
            &[page(&huge, &[16], 0), vec![0; 8]].concat(),
            Compression::SNAPPY,
        )
        .unwrap_err();
        assert_eq!(
            message,
            "a page declares 2147483647 bytes, at most 268435456 allowed"
        );
        assert!(
            check(&page(&[16], &[16], 0), Compression::SNAPPY)
                .unwrap_err()
                .contains("longer than its column chunk")
        );
        assert!(
            check(
                &[page(&[15], &[16], 0), vec![0; 8]].concat(),
                Compression::SNAPPY
            )
            .is_err(),
            "negative"
        );
        // DELTA_BYTE_ARRAY is 7.
        assert!(
            check(
                &[page(&[16], &[16], 14), vec![0; 8]].concat(),
                Compression::SNAPPY
            )
            .unwrap_err()
            .contains("encoding")
        );
        assert!(
            check(&[], Compression::LZ4)
                .unwrap_err()
                .contains("not supported")
        );

        // Two entries of a dictionary in 4 bytes.
        let dictionary = [
            0x15, 4, 0x15, 8, 0x15, 8, 0x4c, 0x15, 4, 0x15, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert!(
            check(&dictionary, Compression::UNCOMPRESSED)
                .unwrap_err()
                .contains("more entries")
        );
    }

    #[test]
    fn gzip_ends_where_it_says() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&[0; 60]).unwrap();
        let packed = encoder.finish().unwrap();
        let stored = u8::try_from(packed.len() * 2).unwrap();
        let chunk = |unpacked: u8| [page(&[unpacked * 2], &[stored], 0), packed.clone()].concat();
        let gzip = Compression::GZIP(parquet::basic::GzipLevel::default());
        assert_eq!(
            check(&chunk(60), gzip),
            Ok(ChunkSize {
                bytes: 60,
                values: 4
            })
        );
        assert!(
            check(&chunk(59), gzip)
                .unwrap_err()
                .contains("59 bytes it declares")
        );
        assert!(check(&chunk(61), gzip).is_err());
    }
}
