//! Generates the Rust side of the contract from its header, and tells the loader where the header lies.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::exit;

fn main() {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("include");
    let header = folder.join("sallyport.h");
    println!("cargo:rerun-if-changed={}", header.display());
    println!("cargo:include={}", folder.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let done = layouts(&header, &out.join("layouts.rs")).and_then(|()| lists(&header, &out.join("lists.rs")));
    if let Err(error) = done {
        eprintln!("the contract's header cannot be read: {error}");
        exit(1);
    }
}

/// Structs and constants, by libclang, with assertions of size and offset.
fn layouts(header: &Path, out: &Path) -> Result<(), String> {
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
        .derive_eq(true)
        .derive_ord(true)
        .derive_hash(true)
        .layout_tests(true)
        .generate()
        .map_err(|error| format!("{error}; it needs libclang: apt-get install clang"))?;
    bindings.write_to_file(out).map_err(|error| error.to_string())
}

/// One `X(UPPER, lower, "text")` of a list.
struct Entry<'a> {
    upper: &'a str,
    lower: &'a str,
    text: &'a str,
}

/// The entries of a list macro: the lines behind its `#define`, up to the first that is not one.
fn entries<'a>(header: &'a str, list: &str) -> Result<Vec<Entry<'a>>, String> {
    let start = format!("#define {list}(X)");
    let lines = header.lines().skip_while(|line| !line.starts_with(&start)).skip(1);
    let entries: Option<Vec<Entry>> = lines
        .map_while(|line| line.trim_start().strip_prefix("X("))
        .map(|line| {
            let (upper, rest) = line.split_once(", ")?;
            let (lower, rest) = rest.split_once(", \"")?;
            Some(Entry { upper, lower, text: rest.split_once("\")")?.0 })
        })
        .collect();
    entries
        .filter(|entries| !entries.is_empty())
        .ok_or(format!("{list} is not a list of X(UPPER, lower, \"text\")"))
}

/// Counters and map names, from the lists that the program is built of.
fn lists(header: &Path, out: &Path) -> Result<(), String> {
    let header = fs::read_to_string(header).map_err(|error| error.to_string())?;
    let mut code = counters(&entries(&header, "SALLYPORT_COUNTERS")?);
    code.push_str(&maps(&entries(&header, "SALLYPORT_MAPS")?));
    fs::write(out, code).map_err(|error| error.to_string())
}

fn counters(list: &[Entry]) -> String {
    let mut code = String::from(
        "/// A way out of the kernel program; every packet adds one to exactly one.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]\n#[repr(u32)]\npub enum Counter {\n",
    );
    let (mut all, mut names, mut texts) = (String::new(), String::new(), String::new());
    for Entry { upper, lower, text } in list {
        let camel = camel(lower);
        let _ = writeln!(code, "    /// {text}\n    {camel} = generated::SALLYPORT_{upper},");
        let _ = write!(all, "Self::{camel}, ");
        let _ = writeln!(names, "            Self::{camel} => {lower:?},");
        let _ = writeln!(texts, "            Self::{camel} => {text:?},");
    }
    let count = list.len();
    let _ = write!(
        code,
        "}}\n\nimpl Counter {{\n    /// All of them, by index.\n    pub const ALL: [Self; {count}] = [{all}];\n\n    \
         /// Snake case, stable.\n    pub const fn name(self) -> &'static str {{\n        match self {{\n{names}        }}\n    }}\n\n    \
         /// One sentence for people.\n    pub const fn text(self) -> &'static str {{\n        match self {{\n{texts}        }}\n    }}\n}}\n\n\
         const _: () = assert!({count} == generated::SALLYPORT_COUNTER_MAX);\n\n"
    );
    code
}

fn maps(list: &[Entry]) -> String {
    let mut code =
        String::from("/// Names of the maps, which are also the names of their pins.\npub mod map {\n");
    let mut all = String::new();
    for Entry { upper, lower, text } in list {
        let _ = writeln!(code, "    /// {text}\n    pub const {upper}: &str = {lower:?};");
        let _ = write!(all, "map::{upper}, ");
    }
    let _ = write!(code, "}}\n\n/// All maps.\npub const MAPS: [&str; {}] = [{all}];\n", list.len());
    code
}

/// `drop_no_socket` to `DropNoSocket`.
fn camel(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}
