//! Builds the kernel program with clang.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

fn main() {
    let top = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let source = top.join("../bpf");
    let include = env::var("DEP_SALLYPORT_ABI_INCLUDE").unwrap_or_default();
    let object = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("sallyport.bpf.o");
    for file in ["sallyport.bpf.c", "decide.h", "maps.h", "parse.h", "rewrite.h"] {
        println!("cargo:rerun-if-changed={}", source.join(file).display());
    }
    println!("cargo:rerun-if-changed={include}/sallyport.h");
    println!("cargo:rerun-if-env-changed=CLANG");
    if let Err(text) = build(&source, &include, &object) {
        eprintln!("{text}");
        exit(1);
    }
}

fn build(source: &Path, include: &str, object: &Path) -> Result<(), String> {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let status = Command::new(&clang)
        .current_dir(source)
        .args(["-target", "bpfel", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror"])
        // The same octets wherever the tree lies.
        .args(["-ffile-prefix-map=.=bpf", "-fdebug-compilation-dir=."])
        .arg(format!("-I{include}"))
        .arg(format!("-I/usr/include/{arch}-linux-gnu"))
        .args(["-c", "sallyport.bpf.c", "-o"])
        .arg(object)
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{clang} did not build the kernel program ({status})")),
        Err(error) => Err(format!(
            "the kernel program needs clang and the libbpf headers ({clang}: {error}): apt-get install clang libbpf-dev"
        )),
    }
}
