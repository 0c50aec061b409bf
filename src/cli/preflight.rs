//! What can be known of a program before it is started: whether the library can be loaded into it, and if not, why.

use object::elf::{FileHeader32, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind, Object, ObjectSymbol};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a program is not started: the text, and the exit status that says it.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub status: u8,
}

pub const NOT_RUNNABLE: u8 = 126;
pub const NOT_FOUND: u8 = 127;

/// What is to be run.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    /// What the user should know before it starts.
    pub warnings: Vec<String>,
}

/// Looks at the program as execvp(3) would find it.
///
/// # Errors
/// Where it cannot be run, or not with the library in it.
pub fn examine(name: &OsStr, library: &Path) -> Result<Program, Refusal> {
    let path = resolve(name)?;
    let mut warnings = Vec::new();
    look(&path, library, 0, &mut warnings)?;
    Ok(Program { path, warnings })
}

fn refuse<T>(path: &Path, reason: impl std::fmt::Display) -> Result<T, Refusal> {
    Err(Refusal { reason: format!("{}: {reason}", path.display()), status: NOT_RUNNABLE })
}

fn resolve(name: &OsStr) -> Result<PathBuf, Refusal> {
    let path = Path::new(name);
    if name.as_bytes().contains(&b'/') {
        return match fs::metadata(path) {
            Ok(_) => Ok(path.into()),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                refuse(path, crate::sys::plain(&error))
            }
            Err(error) => {
                Err(Refusal { reason: format!("{}: {}", path.display(), crate::sys::plain(&error)), status: NOT_FOUND })
            }
        };
    }
    let search = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut unusable = None;
    for folder in std::env::split_paths(&search) {
        let candidate = if folder.as_os_str().is_empty() { Path::new(".").join(path) } else { folder.join(path) };
        if candidate.is_file() {
            if is_executable(&candidate) {
                return Ok(candidate);
            }
            unusable.get_or_insert(candidate);
        }
    }
    match unusable {
        Some(path) => refuse(&path, "it is not executable"),
        None => {
            Err(Refusal { reason: format!("{}: there is no such program in PATH", path.display()), status: NOT_FOUND })
        }
    }
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

fn look(path: &Path, library: &Path, depth: usize, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    if path.is_dir() {
        return refuse(path, "it is a directory");
    }
    if !is_executable(path) {
        return refuse(path, "it is not executable");
    }
    // What may be run but not read cannot be looked at, and the kernel keeps us from tracing it.
    let bytes = match crate::sys::map_file(path) {
        Ok(bytes) => bytes,
        Err(error) => return refuse(path, format_args!("it cannot be read: {}", crate::sys::plain(&error))),
    };
    if bytes.starts_with(b"#!") {
        return script(path, bytes, library, depth, warnings);
    }
    privileges(path)?;
    let needed = match FileKind::parse(bytes) {
        Ok(FileKind::Elf64) => elf::<FileHeader64<Endianness>>(path, bytes, library),
        Ok(FileKind::Elf32) => elf::<FileHeader32<Endianness>>(path, bytes, library),
        _ if bytes.is_empty() => refuse(path, "the file is empty"),
        _ => refuse(path, "it is neither an ELF program nor a script (no `#!` in its first line)"),
    };
    needed?;
    if let Some(place) = own_malloc(bytes) {
        warnings.push(format!(
            "{}: the program has a malloc of its own ({place}); blocks from it are not seen",
            path.display()
        ));
    }
    Ok(())
}

/// The kernel tells the loader to ignore LD_PRELOAD for a program that gains rights. It gains none where it has them
/// already, where the mount is nosuid, or under no_new_privs.
fn privileges(path: &Path) -> Result<(), Refusal> {
    let (Ok(meta), Ok(place)) = (fs::metadata(path), rustix::fs::statvfs(path)) else { return Ok(()) };
    let here = crate::process::Process { pid: std::process::id() }.status().unwrap_or_default();
    if place.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID) || here.no_new_privs {
        return Ok(());
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let why = "the loader ignores LD_PRELOAD for programs that gain rights when they start";
    if meta.mode() & 0o4000 != 0 && meta.uid() != uid {
        return refuse(path, format_args!("it is set-uid: {why}. Run it as its owner (uid {})", meta.uid()));
    }
    // Set-gid without group execution is an old mark for mandatory locking.
    if meta.mode() & 0o2010 == 0o2010 && meta.gid() != gid {
        return refuse(path, format_args!("it is set-gid: {why}. Run it under its group (gid {})", meta.gid()));
    }
    let mut none = [0u8; 64];
    let capable = rustix::fs::getxattr(path, "security.capability", &mut none).is_ok_and(|length| length > 0);
    if capable && uid != 0 {
        return refuse(
            path,
            format_args!("it has file capabilities: {why}. Run a copy of it (capabilities stay behind)"),
        );
    }
    Ok(())
}

fn elf<H: FileHeader<Endian = Endianness>>(path: &Path, bytes: &'static [u8], library: &Path) -> Result<(), Refusal> {
    let broken = |error: object::Error| Refusal {
        reason: format!("{}: it is a broken ELF file: {error}", path.display()),
        status: NOT_RUNNABLE,
    };
    let header = H::parse(bytes).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    let ours = crate::sys::map_file(library).ok().map(machine);
    let its = machine(bytes);
    if let Some(ours) = ours
        && ours != its
    {
        return refuse(path, format_args!("it is a {its} program, but {} is for {ours}", library.display()));
    }
    let mut loader = None;
    for segment in header.program_headers(endian, bytes).map_err(broken)? {
        if segment.p_type(endian) == PT_INTERP {
            loader = segment.data(endian, bytes).ok();
        }
    }
    let Some(loader) = loader else {
        return refuse(path, "it is statically linked: nothing can be loaded into it. Link it dynamically");
    };
    let loader = Path::new(OsStr::from_bytes(loader.split(|&byte| byte == 0).next().unwrap_or(loader)));
    let name = loader.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.contains("musl") {
        return refuse(path, format_args!("it runs on musl ({}), leakscan needs glibc", loader.display()));
    }
    if name.starts_with("linker") {
        return refuse(path, format_args!("it is an Android program ({}), leakscan needs glibc", loader.display()));
    }
    if !loader.exists() {
        return refuse(path, format_args!("its loader {} does not exist here", loader.display()));
    }
    Ok(())
}

/// Class and CPU of an ELF file in words.
fn machine(bytes: &[u8]) -> String {
    let bits = if bytes.get(4) == Some(&1) { "32-bit" } else { "64-bit" };
    let number = bytes.get(18..20).map_or(0, |field| match bytes.get(5) {
        Some(2) => u16::from_be_bytes([field[0], field[1]]),
        _ => u16::from_le_bytes([field[0], field[1]]),
    });
    let cpu = match number {
        3 | 62 => "x86".into(),
        40 | 183 => "ARM".into(),
        243 => "RISC-V".into(),
        21 => "POWER".into(),
        22 => "s390".into(),
        other => format!("machine {other}"),
    };
    format!("{bits} {cpu}")
}

/// Where the program itself defines malloc: then it is never asked of us.
pub fn own_malloc(bytes: &'static [u8]) -> Option<&'static str> {
    let elf = object::File::parse(bytes).ok()?;
    let defined = |symbol: object::Symbol<'_, '_>| symbol.is_definition() && symbol.name() == Ok("malloc");
    if elf.dynamic_symbols().any(defined) {
        Some("in its dynamic symbols, before every library's")
    } else if elf.symbols().any(defined) {
        Some("linked in statically")
    } else {
        None
    }
}

fn script(path: &Path, bytes: &[u8], library: &Path, depth: usize, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    // The kernel follows that many.
    if depth >= 4 {
        return refuse(path, "its interpreter is a script, whose interpreter is a script, and so on");
    }
    let line = bytes[2..].split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let Some(interpreter) = words.next() else { return refuse(path, "its `#!` line names no interpreter") };
    let interpreter = Path::new(interpreter);
    let through = |refusal: Refusal| Refusal {
        reason: format!("{}: a script whose interpreter will not do: {}", path.display(), refusal.reason),
        ..refusal
    };
    let missing = |what: &Path| Refusal {
        reason: format!("{}: its interpreter {} does not exist", path.display(), what.display()),
        status: NOT_RUNNABLE,
    };
    if !interpreter.exists() {
        return Err(missing(interpreter));
    }
    look(interpreter, library, depth + 1, warnings).map_err(through)?;
    if interpreter.file_name() == Some(OsStr::new("env")) {
        let program = words.find(|word| !word.starts_with('-') && !word.contains('='));
        if let Some(program) = program {
            let found = resolve(&OsString::from(program)).map_err(|_| missing(Path::new(program)))?;
            look(&found, library, depth + 1, warnings).map_err(through)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "preflight_tests.rs"]
mod tests;
