//! Generates the Rust side of the contract from its header, and tells the loader where the header lies.

use std::env;
use std::path::PathBuf;
use std::process::exit;

fn main() {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("include");
    let header = folder.join("sallyport.h");
    println!("cargo:rerun-if-changed={}", header.display());
    println!("cargo:include={}", folder.display());
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let bindings = bindgen::Builder::default()
        .header(header.display().to_string())
        .clang_arg(format!("-I/usr/include/{arch}-linux-gnu"))
        .allowlist_type("sallyport_.*")
        .allowlist_var("SALLYPORT_.*")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .use_core()
        .derive_default(true)
        .layout_tests(true)
        .generate();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("sallyport.rs");
    let written = bindings.map_err(|error| error.to_string());
    let written = written.and_then(|bindings| bindings.write_to_file(out).map_err(|error| error.to_string()));
    if let Err(error) = written {
        eprintln!("the contract's header cannot be read ({error}); install clang (libclang): apt-get install clang");
        exit(1);
    }
}
