//! Where the ONNX Runtime library is.

use std::path::{Path, PathBuf};

/// Where scripts/setup.sh puts the library, relative to the repository.
const IN_REPOSITORY: &str = ".native/onnxruntime/lib/libonnxruntime.so";

/// The library to load: `ORT_DYLIB_PATH` when set, else the repository's that holds this executable, else the one
/// known when this program was compiled, else whatever the system's loader finds under the plain name.
#[must_use]
pub fn path() -> PathBuf {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    let beside_executable = std::env::current_exe()
        .ok()
        .and_then(|executable| in_ancestors(&executable));
    let at_compile_time = || {
        option_env!("ORT_DYLIB_PATH")
            .map(PathBuf::from)
            .filter(|path| path.exists())
    };
    beside_executable
        .or_else(at_compile_time)
        .unwrap_or_else(|| PathBuf::from("libonnxruntime.so"))
}

fn in_ancestors(executable: &Path) -> Option<PathBuf> {
    executable
        .ancestors()
        .skip(1)
        .map(|folder| folder.join(IN_REPOSITORY))
        .find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_of_the_executable_is_searched_upwards() {
        let repository = tempfile::tempdir().unwrap();
        let library = repository.path().join(IN_REPOSITORY);
        std::fs::create_dir_all(library.parent().unwrap()).unwrap();
        std::fs::write(&library, b"").unwrap();
        assert_eq!(
            in_ancestors(&repository.path().join("target/release/rollout")),
            Some(library)
        );
        assert_eq!(in_ancestors(Path::new("/nowhere/rollout")), None);
    }
}
