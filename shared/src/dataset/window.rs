//! A piece of a file in memory, read by the file's own offsets.

use std::io::Cursor;

use bytes::Bytes;
use parquet::file::reader::{ChunkReader, Length};

/// Bytes of the file from `start` on, for a reader that asks by the file's own offsets.
pub(super) struct Window {
    start: u64,
    bytes: Bytes,
}

impl Window {
    pub(super) fn new(start: u64, bytes: Bytes) -> Self {
        Self { start, bytes }
    }

    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let offset = start
            .checked_sub(self.start)
            .and_then(|offset| usize::try_from(offset).ok());
        match offset {
            Some(offset) if offset <= self.bytes.len() => Ok(self.bytes.slice(offset..)),
            _ => Err(parquet::errors::ParquetError::EOF(
                "a read outside of the column chunk".to_owned(),
            )),
        }
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Window {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        self.from(start).map(Cursor::new)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let mut bytes = self.from(start)?;
        bytes.truncate(length);
        if bytes.len() == length {
            Ok(bytes)
        } else {
            Err(parquet::errors::ParquetError::EOF(
                "a read outside of the column chunk".to_owned(),
            ))
        }
    }
}
