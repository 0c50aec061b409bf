//! libleakscan.so: where it is, and whether it is what it should be.

use object::{Object, ObjectSymbol};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What every build of it exports.
const EXPORTS: [&str; 7] = ["malloc", "calloc", "realloc", "free", "posix_memalign", "aligned_alloc", "_Znwm"];

/// `LEAKSCAN_LIB`, or the one beside leakscan, or in `../lib`.
///
/// # Errors
/// Where none is there, or its path cannot stand in `LD_PRELOAD`.
pub fn find() -> Result<PathBuf, String> {
    let path = match std::env::var_os("LEAKSCAN_LIB").filter(|value| !value.is_empty()) {
        Some(given) => {
            let path = PathBuf::from(given);
            path.canonicalize()
                .map_err(|error| format!("LEAKSCAN_LIB={}: {}", path.display(), crate::sys::plain(&error)))?
        }
        None => beside()?,
    };
    if path.as_os_str().as_bytes().iter().any(|byte| b": \t\n".contains(byte)) {
        return Err(format!("{}: LD_PRELOAD cannot name a path with a colon or a space; move it", path.display()));
    }
    Ok(path)
}

fn beside() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("/proc/self/exe: {}", crate::sys::plain(&error)))?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    ["libleakscan.so", "../lib/libleakscan.so", "../lib/leakscan/libleakscan.so"]
        .iter()
        .find_map(|name| folder.join(name).canonicalize().ok())
        .ok_or_else(|| {
            format!("libleakscan.so is not beside leakscan ({}); put it there or set LEAKSCAN_LIB", folder.display())
        })
}

/// Whether the file is a library that takes over the allocator.
///
/// # Errors
/// What is wrong with it.
pub fn examine(path: &Path) -> Result<(), String> {
    let elf = crate::symbolize::open_elf(path)?;
    let defines = |name: &&str| elf.dynamic_symbols().any(|symbol| symbol.is_definition() && symbol.name() == Ok(name));
    let missing: Vec<_> = EXPORTS.into_iter().filter(|name| !defines(name)).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("it does not define {}", missing.join(", "))) }
}
