//! Finds the file that holds a module's debug info: by build id, by `.gnu_debuglink`, `.gnu_debugaltlink` and
//! `.gnu_debugdata`. A file is taken only if its build id or checksum proves that it belongs to the module.

use super::Places;
use crate::sys;
use object::{Object, ObjectSection};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub type Elf = object::File<'static>;

/// Opens an ELF file; the error is fit to be read.
pub fn open(path: &Path) -> Result<Elf, String> {
    let bytes = sys::map_file(path).map_err(|error| sys::plain(&error))?;
    object::File::parse(bytes).map_err(|error| format!("not a usable ELF file: {error}"))
}

pub fn build_id(elf: &Elf) -> Option<String> {
    elf.build_id().ok().flatten().map(hex)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the file itself has line information.
pub fn has_lines(elf: &Elf) -> bool {
    let section = |name| elf.section_by_name(name).is_some_and(|section: object::Section<'_, '_>| section.size() > 0);
    section(".debug_info") && section(".debug_line")
}

/// The separate debug file of a module, by its build id.
pub fn by_build_id(id: &str, places: &Places) -> Option<(PathBuf, Elf)> {
    let (first, rest) = (id.get(..2)?, id.get(2..)?);
    places.debug_roots().find_map(|root| {
        let path = root.join(".build-id").join(first).join(format!("{rest}.debug"));
        let elf = open(&path).ok()?;
        (build_id(&elf).as_deref() == Some(id)).then_some((path, elf))
    })
}

/// The separate debug file that the module's own file names. `path` is where the report says the module lies.
pub fn by_link(elf: &Elf, path: &str, places: &Places) -> Option<(PathBuf, Elf)> {
    let (name, sum) = elf.gnu_debuglink().ok().flatten()?;
    let name = Path::new(std::ffi::OsStr::from_bytes(name)).file_name()?;
    let folder = Path::new(path).parent()?;
    // The link stands for the file, whose folder may be reached by a symbolic link (/lib on merged systems).
    let here = places.local(folder.to_str()?);
    let real = here.canonicalize().unwrap_or_else(|_| here.clone());
    let inside = |root: PathBuf, folder: &Path| root.join(folder.strip_prefix("/").unwrap_or(folder)).join(name);
    let beside = [here.join(name), here.join(".debug").join(name)];
    let roots = places
        .debug_roots()
        .flat_map(|root| [inside(root.clone(), folder), inside(root.clone(), &real), root.join(name)]);
    let wanted = build_id(elf);
    beside.into_iter().chain(roots).find_map(|candidate| {
        let bytes = sys::map_file(&candidate).ok()?;
        let debug: Elf = object::File::parse(bytes).ok()?;
        let same = match (&wanted, build_id(&debug)) {
            (Some(wanted), Some(found)) => *wanted == found,
            _ => crc32fast::hash(bytes) == sum,
        };
        same.then_some((candidate, debug))
    })
}

/// The supplementary file (dwz) that several debug files share. `path` is where the debug file lies here.
pub fn supplementary(elf: &Elf, path: &Path, places: &Places) -> Option<Elf> {
    let (name, id) = elf.gnu_debugaltlink().ok().flatten()?;
    let (name, id) = (Path::new(std::ffi::OsStr::from_bytes(name)), hex(id));
    let real = path.canonicalize().ok();
    let relative =
        [Some(path), real.as_deref()].into_iter().flatten().filter_map(|path| Some(path.parent()?.join(name)));
    let named = if name.is_absolute() { vec![places.local(name.to_str()?)] } else { relative.collect() };
    // Debian keeps them in .dwz/ of the debug directory, wherever a copied link may point.
    let dwz = places.debug_roots().flat_map(|root| {
        let file = name.file_name().unwrap_or_default().to_owned();
        let arch = name.parent().and_then(Path::file_name).unwrap_or_default().to_owned();
        [root.join(".dwz").join(&arch).join(&file), root.join(".dwz").join(&file)]
    });
    let proven = |elf: &Elf| build_id(elf).as_deref() == Some(&id);
    named
        .into_iter()
        .chain(dwz)
        .find_map(|path| open(&path).ok().filter(proven))
        .or_else(|| Some(by_build_id(&id, places)?.1))
}

/// The symbols that Fedora packs into stripped files: an xz-compressed ELF file in a section.
pub fn mini(elf: &Elf) -> Option<Elf> {
    let section = elf.section_by_name(".gnu_debugdata")?;
    let mut unpacked = Vec::new();
    lzma_rs::xz_decompress(&mut section.data().ok()?, &mut unpacked).ok()?;
    object::File::parse(&*unpacked.leak()).ok()
}
