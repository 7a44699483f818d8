//! Any checkpoint to the one f32 file: a reader sees the whole file or none.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{Checkpoint, F32Layout, widen};
use crate::config::ModelConfig;
use crate::{Error, Result, names};

/// Elements converted at a time.
const PIECE: usize = 1 << 18;

/// Writes `checkpoint` to `path` in the layout of [`F32Layout`], readable by its owner alone: into a temporary file
/// beside it, allocated in full, synced, then renamed. After an error nothing is left behind.
pub fn write_f32(path: &Path, checkpoint: &Checkpoint, config: &ModelConfig) -> Result<()> {
    write_f32_watched(path, checkpoint, config, &mut |_| Ok(()))
}

/// [`write_f32`] for a file that takes its time: `watch` hears of the bytes written, every MiB or less. Its error ends the
/// writing.
pub fn write_f32_watched(
    path: &Path,
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    watch: &mut dyn FnMut(u64) -> std::io::Result<()>,
) -> Result<()> {
    checkpoint.check(config)?;
    let layout = F32Layout::new(&names::tensors(config));
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let io = |error| Error::io(path)(error);
    // Mode 0600 is what tempfile gives.
    let mut temporary = tempfile::Builder::new()
        .prefix(".weights-")
        .tempfile_in(folder)
        .map_err(io)?;
    match rustix::fs::fallocate(
        temporary.as_file(),
        FallocateFlags::empty(),
        0,
        layout.total_bytes as u64,
    ) {
        // A file system without it gets the same from the writing itself, only later.
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(error) => return Err(io(error.into())),
    }
    fill(temporary.as_file_mut(), checkpoint, &layout, watch, io)?;
    temporary.as_file().sync_all().map_err(io)?;
    temporary.persist(path).map_err(|error| io(error.error))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io)
}

fn fill(
    file: &mut File,
    checkpoint: &Checkpoint,
    layout: &F32Layout,
    watch: &mut dyn FnMut(u64) -> std::io::Result<()>,
    io: impl Fn(std::io::Error) -> Error,
) -> Result<()> {
    let mut writer = BufWriter::new(file);
    writer.write_all(&layout.header).map_err(&io)?;
    let mut written = layout.header.len() as u64;
    let mut piece = vec![0f32; PIECE];
    for (spec, _) in &layout.tensors {
        let (bytes, dtype) = checkpoint.raw(&spec.name)?;
        for bytes in bytes.chunks(PIECE * dtype.size()) {
            let values = &mut piece[..bytes.len() / dtype.size()];
            widen::widen(bytes, dtype, values);
            writer
                .write_all(bytemuck::cast_slice(values))
                .map_err(&io)?;
            written += size_of_val(values) as u64;
            watch(written).map_err(&io)?;
        }
    }
    writer.flush().map_err(&io)
}
