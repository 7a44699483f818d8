//! A parquet file's footer: read within limits, its schema checked to be a shallow tree.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::error::{Error, Result};
use super::limits::DatasetLimits;
use super::thrift::{Value, parse_struct};

/// The footer's bytes; the file ends in them, their length and PAR1.
pub(super) fn read_footer(
    path: &Path,
    file: &File,
    file_bytes: u64,
    limits: &DatasetLimits,
) -> Result<Vec<u8>> {
    let malformed = |reason: &str| Error::malformed(path, reason);
    let Some(tail_start) = file_bytes.checked_sub(8) else {
        return Err(malformed("too short for a parquet file"));
    };
    let mut tail = [0; 8];
    file.read_exact_at(&mut tail, tail_start)
        .map_err(Error::read(path))?;
    let [a, b, c, d, magic @ ..] = tail;
    match &magic {
        b"PAR1" => {}
        b"PARE" => return Err(malformed("encrypted parquet is not supported")),
        _ => {
            return Err(malformed(
                "no parquet file: it does not end in PAR1 (an unfinished download?)",
            ));
        }
    }
    let length = u32::from_le_bytes([a, b, c, d]);
    let bytes =
        usize::try_from(length).map_err(|_| malformed("its footer is longer than the file"))?;
    if bytes > limits.max_footer_bytes {
        return Err(Error::limit(
            path,
            "bytes of its footer",
            bytes,
            limits.max_footer_bytes,
        ));
    }
    let Some(start) = tail_start.checked_sub(u64::from(length)) else {
        return Err(malformed("its footer is longer than the file"));
    };
    let mut footer = vec![0; bytes];
    file.read_exact_at(&mut footer, start)
        .map_err(Error::read(path))?;
    Ok(footer)
}

/// Field 2 is the schema, a tree in pre-order; the parquet crate builds it by recursion.
pub(super) fn check_footer(footer: &[u8]) -> Result<(), &'static str> {
    const MAX_VALUES: usize = 4_000_000;
    const MAX_COLUMNS: usize = 10_000;
    const MAX_DEPTH: usize = 32;
    let (metadata, _) = parse_struct(footer, MAX_VALUES)?;
    let schema = metadata.list(2).ok_or("its footer has no schema")?;
    if schema.len() > MAX_COLUMNS {
        return Err("its schema has too many columns");
    }
    let mut open: Vec<i64> = Vec::new();
    for (index, element) in schema.iter().enumerate() {
        if index > 0 {
            let Some(left) = open.last_mut() else {
                return Err("its schema is no tree");
            };
            *left -= 1;
        }
        match element.int(5) {
            Some(children) if children < 0 => return Err("its schema is no tree"),
            Some(children) if children > 0 => open.push(children),
            _ => {}
        }
        if open.len() > MAX_DEPTH {
            return Err("its schema is nested too deeply");
        }
        while open.last() == Some(&0) {
            open.pop();
        }
    }
    let groups = metadata.list(4).unwrap_or_default();
    let is_complete = |group: &Value| group.list(1).is_some();
    if open.is_empty() && groups.iter().all(is_complete) {
        Ok(())
    } else {
        Err("its schema is no tree")
    }
}
