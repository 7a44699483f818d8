//! Lets the built programs, tests and benches find libtorch by themselves: its folder goes into their run path.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Ok(libtorch) = std::env::var("LIBTORCH") else {
        println!(
            "cargo:warning=LIBTORCH is not set; run scripts/setup.sh, or set it to a libtorch 2.11 folder"
        );
        return;
    };
    let lib = Path::new(&libtorch).join("lib");
    // Links resolved: `.native` may be moved or remade, the cache folder behind it stays.
    let lib = lib.canonicalize().unwrap_or(lib);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
