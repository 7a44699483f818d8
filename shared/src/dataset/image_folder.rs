//! Images in files beside the data file.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use super::limits::DatasetLimits;

/// The folder that a data file's image paths start from; none of them leaves it.
pub struct ImageFolder {
    folder: PathBuf,
    /// Where links may lead: the folder itself, or the whole repository in the hub's cache, whose files are links into it.
    border: PathBuf,
}

impl ImageFolder {
    /// The images of `data_file`, in `chosen` when that was said.
    #[must_use]
    pub fn new(data_file: &Path, chosen: Option<&Path>) -> Self {
        let folder = match (chosen, data_file.parent()) {
            (Some(chosen), _) => chosen,
            (None, Some(parent)) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let border = if chosen.is_none() {
            hub_repository(folder).unwrap_or(folder)
        } else {
            folder
        };
        Self {
            folder: folder.to_owned(),
            border: border.to_owned(),
        }
    }

    /// The bytes of an image. A path that leads out of the folder is refused, by way of a link as well.
    ///
    /// # Errors
    /// Why there are none, in a few words.
    pub fn read(&self, relative: &str, limits: &DatasetLimits) -> Result<Vec<u8>, String> {
        const OUTSIDE: &str = "its path leads out of the data set's folder";
        let is_inside = Path::new(relative)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !is_inside {
            return Err(OUTSIDE.to_owned());
        }
        let border = self
            .border
            .canonicalize()
            .map_err(|error| format!("its folder {}: {error}", self.border.display()))?;
        let path = match self.folder.join(relative).canonicalize() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(format!(
                    "not in {}; unpack the data set's images there, or name their folder with --image-dir",
                    self.folder.display()
                ));
            }
            path => path.map_err(|error| error.to_string())?,
        };
        if !path.starts_with(&border) {
            return Err(OUTSIDE.to_owned());
        }
        if !path.is_file() {
            return Err("not a file".to_owned());
        }
        let file = File::open(&path).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        file.take(limits.max_image_bytes as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| error.to_string())?;
        if bytes.len() > limits.max_image_bytes {
            return Err(format!("more than {} bytes", limits.max_image_bytes));
        }
        Ok(bytes)
    }
}

/// `datasets--OWNER--NAME` of `datasets--OWNER--NAME/snapshots/REVISION/...`.
fn hub_repository(folder: &Path) -> Option<&Path> {
    let snapshots = folder
        .ancestors()
        .find(|path| path.file_name().is_some_and(|name| name == "snapshots"))?;
    let repository = snapshots.parent()?;
    let name = repository.file_name()?.to_str()?;
    (name.starts_with("datasets--") && repository.join("blobs").is_dir()).then_some(repository)
}
