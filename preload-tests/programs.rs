//! The programs: compiled once, kept under the target directory by a hash of all that goes into them.
//!
//! A source may begin with `// flags: ...`, which are added to the compiler's. With `-shared` among them it is a library.

use crate::app::App;
use crate::artifacts::{artifacts, workspace};
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// A program of `programs/`, ready to run under the library.
///
/// # Panics
/// If it does not compile, or its compiler or interpreter is missing.
#[must_use]
pub fn program(name: &str) -> App {
    if name.ends_with(".py") {
        // The real interpreter: what PATH finds may be a script around it.
        let python = crate::must(Command::new("python3").args(["-c", "import sys; print(sys.executable)"]));
        return App::new(python.trim()).arg(source_path(name));
    }
    App::new(source(name))
}

/// Where a source is.
#[must_use]
pub fn source_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(name)
}

/// Compiles a source of `programs/` and gives the program's or library's path.
///
/// # Panics
/// If it does not compile, or the compiler is missing.
#[must_use]
pub fn source(name: &str) -> PathBuf {
    let path = source_path(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let flags = text.lines().next().and_then(|line| line.strip_prefix("// flags: ")).unwrap_or("");
    let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let mut command = compiler(kind);
    command.args(flags.split_whitespace());
    let mut hasher = DefaultHasher::new();
    (format!("{command:?}"), &text, headers()).hash(&mut hasher);
    let folder = artifacts().cache.join(format!("{stem}-{:016x}", hasher.finish()));
    let file = if flags.split(' ').any(|flag| flag == "-shared") { format!("lib{stem}.so") } else { stem.into() };
    let built = folder.join(&file);

    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if !built.exists() {
        fs::create_dir_all(&folder).unwrap();
        // Another test process may be at it too: the name appears with the whole file behind it.
        let half = folder.join(format!("{file}.{}", std::process::id()));
        let _ = crate::must(command.arg("-o").arg(&half).arg(&path));
        fs::rename(&half, &built).unwrap();
    }
    built
}

fn compiler(kind: &str) -> Command {
    // They do what compilers warn of, on purpose, and compilers differ in what they warn of.
    // What some distributions' compilers add by themselves would keep stale words, or end a program that writes all that is usable.
    let c = ["-O1", "-g", "-fno-builtin", "-w", "-pthread", "-fno-stack-protector", "-U_FORTIFY_SOURCE"];
    let mut command;
    match kind {
        "c" => {
            command = Command::new("gcc");
            command.args(c).arg("-I").arg(include()).args([
                "-std=gnu17",
                "-D_GNU_SOURCE",
                "-Werror=implicit-function-declaration",
            ]);
        }
        "cc" => {
            command = Command::new("g++");
            command.args(c).arg("-I").arg(include()).arg("-std=c++17");
        }
        "rs" => {
            command = Command::new("rustc");
            command.args(["--edition=2024", "-Copt-level=2", "-g"]);
        }
        _ => panic!("no compiler for .{kind}"),
    }
    command
}

/// Where leakscan.h is.
fn include() -> PathBuf {
    workspace().join("include")
}

/// What the sources may include.
fn headers() -> Vec<String> {
    let entries = [source_path(""), include()].map(|folder| fs::read_dir(folder).unwrap());
    let all = entries.into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = all.filter(|path| path.extension().is_some_and(|end| end == "h")).collect();
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}
