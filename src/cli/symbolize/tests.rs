//! Real compilers' output, with its debug info in every place where it may lie.

use super::*;
use crate::testing::{Maker, compile, frame, module, run};
use leakscan_report::Trigger;
use object::{Object, ObjectSymbol};
use std::process::Command;

/// `probe` is called from line 5, in `inner`, which is inlined into `outer`, called on line 8.
const SOURCE: &str = "\
extern void probe(void);
__attribute__((noinline)) void probe(void) { __asm__ volatile(\"\"); }
static inline __attribute__((always_inline)) void inner(void)
{
    probe();
    __asm__ volatile(\"after_inner: .globl after_inner\");
}
void outer(void) { inner(); __asm__ volatile(\"\"); }
int main(void) { outer(); return 0; }
";

struct Built {
    folder: tempfile::TempDir,
    path: PathBuf,
    /// The return address of the call of `probe`.
    offset: u64,
    build_id: Vec<u8>,
}

fn build(flags: &[&str]) -> Built {
    let folder = tempfile::tempdir().unwrap();
    let path = compile(folder.path(), "program", SOURCE, &[&["-g", "-O1", "-Wl,--build-id"], flags].concat());
    let elf = open_elf(&path).unwrap();
    let offset = elf.symbols().find(|symbol| symbol.name() == Ok("after_inner")).unwrap().address();
    let build_id = elf.build_id().unwrap().map(<[u8]>::to_vec).unwrap_or_default();
    Built { folder, path, offset, build_id }
}

impl Built {
    fn objcopy(&self, args: &[&str]) {
        run(Command::new("objcopy").current_dir(self.folder.path()).args(args));
    }

    fn look(&self, places: Places) -> (Vec<Symbol>, Vec<Trouble>) {
        self.look_as(&self.build_id, places)
    }

    fn look_as(&self, build_id: &[u8], places: Places) -> (Vec<Symbol>, Vec<Trouble>) {
        let maker = Maker::new("-").scan(1, Trigger::Exit, |write| {
            module(self.path.to_str().unwrap(), build_id, write);
            write.stack(1, [frame(self.offset)].into_iter());
        });
        let report = maker.report();
        let mut symbolizer = Symbolizer::new(&report, places);
        let found = symbolizer.frame(&report, report.stacks[0][0]).to_vec();
        (found, symbolizer.troubles().into_iter().map(|(_, trouble)| trouble).collect())
    }

    fn debug_dir(&self) -> Places {
        Places { sysroot: None, debug_dirs: vec![self.folder.path().join("debug")] }
    }
}

#[track_caller]
fn assert_whole(found: &[Symbol]) {
    let names: Vec<_> = found.iter().map(|symbol| (symbol.function.as_deref(), symbol.line, symbol.inlined)).collect();
    assert_eq!(names, [(Some("inner"), Some(5), true), (Some("outer"), Some(8), false)]);
    assert!(found.iter().all(|symbol| symbol.file.as_deref().is_some_and(|file| file.ends_with("program.c"))));
}

#[test]
fn debug_info_in_the_file_gives_function_file_line_and_inlined_frames() {
    for flags in [&["-gdwarf-4"][..], &["-gdwarf-5"], &["-gz=zlib"], &["-gsplit-dwarf"]] {
        let built = build(flags);
        let (found, troubles) = built.look(Places::default());
        assert_whole(&found);
        assert_eq!(troubles, [], "{flags:?}");
    }
}

#[test]
fn a_debug_file_is_found_by_build_id_and_by_link() {
    let built = build(&[]);
    built.objcopy(&["--only-keep-debug", "program", "program.debug"]);
    built.objcopy(&["--strip-all", "program"]);
    let (found, troubles) = built.look(Places::default());
    assert_eq!((found[0].line, troubles), (None, vec![Trouble::NoDebugInfo]));

    let id = debugfile::hex(&built.build_id);
    let place = built.folder.path().join("debug/.build-id").join(&id[..2]);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::copy(built.folder.path().join("program.debug"), place.join(format!("{}.debug", &id[2..]))).unwrap();
    assert_whole(&built.look(built.debug_dir()).0);

    // Even without the program itself.
    std::fs::rename(&built.path, built.folder.path().join("moved")).unwrap();
    let (found, troubles) = built.look(built.debug_dir());
    assert_whole(&found);
    assert_eq!(troubles, []);
    std::fs::rename(built.folder.path().join("moved"), &built.path).unwrap();

    built.objcopy(&["--add-gnu-debuglink=program.debug", "program"]);
    assert_whole(&built.look(Places::default()).0);
}

#[test]
fn a_link_to_the_wrong_file_is_not_followed() {
    let built = build(&["-Wl,--build-id=none"]);
    built.objcopy(&["--only-keep-debug", "program", "program.debug"]);
    built.objcopy(&["--strip-all", "--add-gnu-debuglink=program.debug", "program"]);
    assert_whole(&built.look(Places::default()).0);
    let mut debug = std::fs::read(built.folder.path().join("program.debug")).unwrap();
    debug.push(0);
    std::fs::write(built.folder.path().join("program.debug"), debug).unwrap();
    assert_eq!(built.look(Places::default()).1, [Trouble::NoDebugInfo]);
}

#[test]
fn a_file_of_another_build_is_not_guessed_at() {
    let built = build(&[]);
    let (found, troubles) = built.look_as(&[1, 2, 3], Places::default());
    assert_eq!(found, [Symbol::default()]);
    assert_eq!(troubles, [Trouble::Stale { found: Some(debugfile::hex(&built.build_id)) }]);
}

#[test]
fn symbols_serve_where_there_are_no_lines_also_packed_ones() {
    let built = build(&[]);
    built.objcopy(&["--strip-debug", "program"]);
    let (found, troubles) = built.look(Places::default());
    assert_eq!(found[0].function.as_deref(), Some("outer"));
    assert_eq!(troubles, [Trouble::NoDebugInfo]);

    built.objcopy(&["-S", "--keep-symbol=outer", "program", "mini"]);
    run(Command::new("xz").arg(built.folder.path().join("mini")));
    built.objcopy(&["--strip-all", "program"]);
    assert_eq!(built.look(Places::default()).0, [Symbol::default()]);
    built.objcopy(&["--add-section", ".gnu_debugdata=mini.xz", "program"]);
    assert_eq!(built.look(Places::default()).0[0].function.as_deref(), Some("outer"));
}

#[test]
fn a_sysroot_holds_the_files_of_another_machine() {
    let built = build(&[]);
    let root = built.folder.path().join("root");
    let inside = root.join(built.path.strip_prefix("/").unwrap());
    std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
    std::fs::rename(&built.path, &inside).unwrap();
    let places = Places { sysroot: Some(root), debug_dirs: Vec::new() };
    assert_whole(&built.look(places).0);
    assert!(matches!(built.look(Places::default()).1[..], [Trouble::Unreadable(_)]));
}

#[test]
fn a_fifo_under_a_modules_name_is_not_waited_for() {
    let built = build(&[]);
    std::fs::remove_file(&built.path).unwrap();
    run(Command::new("mkfifo").arg(&built.path));
    assert_eq!(built.look(Places::default()).1, [Trouble::Unreadable("not a regular file".into())]);
}

#[test]
fn broken_files_give_fewer_names_and_no_panic() {
    let built = build(&["-gz=none"]);
    let whole = std::fs::read(&built.path).unwrap();
    let mut seed = 12345u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    for round in 0..300 {
        let mut bytes = whole.clone();
        if round % 3 == 0 {
            bytes.truncate(random() % bytes.len());
        }
        for _ in 0..random() % 64 {
            if let Some(length) = bytes.len().checked_sub(1).filter(|&length| length > 0) {
                bytes[random() % length] = random() as u8;
            }
        }
        std::fs::remove_file(&built.path).unwrap();
        std::fs::write(&built.path, &bytes).unwrap();
        built.look_as(&[], Places::default());
    }
}

#[test]
fn ten_thousand_frames_are_looked_up_once_each() {
    let built = build(&[]);
    let maker = Maker::new("-").scan(1, Trigger::Exit, |write| {
        module(built.path.to_str().unwrap(), &built.build_id, write);
        for id in 1..=1000 {
            write.stack(id, (0..10).map(|_| frame(built.offset)));
        }
    });
    let report = maker.report();
    let mut symbolizer = Symbolizer::new(&report, Places::default());
    for stack in &report.stacks {
        for &frame in stack {
            assert_eq!(symbolizer.frame(&report, frame).len(), 2);
        }
    }
    assert_eq!((symbolizer.known.len(), symbolizer.modules.len()), (1, 1));
}
