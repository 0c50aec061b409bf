//! What is refused, and why, with real files.

use super::*;
use crate::testing::compile;
use std::os::unix::fs::PermissionsExt;

const MAIN: &str = "int main(void) { return 0; }";

fn verdict(path: &Path, library: &Path) -> Result<Program, (String, u8)> {
    let shorten = |reason: String| reason.replace(&*path.to_string_lossy(), "PROG");
    examine(path.as_os_str(), library).map_err(|refusal| (shorten(refusal.reason), refusal.status))
}

fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn programs_that_cannot_be_preloaded_are_refused_with_the_reason() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let dynamic = compile(at, "dynamic", MAIN, &[]);
    let library = compile(at, "libleakscan.so", "int leakscan;", &["-shared", "-fPIC"]);
    assert_eq!(verdict(&dynamic, &library), Ok(Program { path: dynamic.clone(), warnings: vec![] }));
    for flags in [&["-static"][..], &["-static-pie"]] {
        let refused = verdict(&compile(at, "static", MAIN, flags), &library).unwrap_err();
        assert!(refused.0.starts_with("PROG: it is statically linked") && refused.1 == 126, "{flags:?}: {refused:?}");
    }
    let musl = compile(at, "musl", MAIN, &["-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"]);
    assert!(verdict(&musl, &library).unwrap_err().0.contains("leakscan needs glibc"));
    let lost = compile(at, "lost", MAIN, &["-Wl,--dynamic-linker=/nowhere/ld-linux.so.2"]);
    assert!(verdict(&lost, &library).unwrap_err().0.contains("its loader /nowhere/ld-linux.so.2 does not exist"));

    let mut bytes = fs::read(&dynamic).unwrap();
    bytes[18] ^= 0xb7;
    let other = script(at, "other", "");
    fs::write(&other, bytes).unwrap();
    assert!(verdict(&other, &library).unwrap_err().0.contains("program, but"));

    assert_eq!(verdict(at, &library).unwrap_err(), ("PROG: it is a directory".into(), 126));
    assert_eq!(verdict(&at.join("gone"), &library).unwrap_err(), ("PROG: no such file or directory".into(), 127));
    assert_eq!(examine(OsStr::new("no-such-program-1337"), &library).unwrap_err().status, 127);
    fs::set_permissions(&dynamic, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(verdict(&dynamic, &library).unwrap_err(), ("PROG: it is not executable".into(), 126));
}

#[test]
fn scripts_are_followed_to_their_interpreter() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let library = compile(at, "libleakscan.so", "int leakscan;", &["-shared", "-fPIC"]);
    let fixed = compile(at, "fixed", MAIN, &["-static"]);
    assert!(verdict(&script(at, "good", "#!/bin/sh\n"), &library).is_ok());
    assert!(verdict(&script(at, "env", "#!/usr/bin/env -S sh -e\n"), &library).is_ok());
    let bad = script(at, "bad", &format!("#! {}\n", fixed.display()));
    let reason = verdict(&bad, &library).unwrap_err().0;
    assert!(reason.contains("a script whose interpreter will not do") && reason.contains("statically"), "{reason}");
    let through_env = script(at, "through", &format!("#!/usr/bin/env {}\n", fixed.display()));
    assert!(verdict(&through_env, &library).unwrap_err().0.contains("statically"));
    let gone = verdict(&script(at, "gone", "#!/no/such\n"), &library).unwrap_err();
    assert_eq!(gone, ("PROG: its interpreter /no/such does not exist".into(), 126));
    let own = at.join("loop");
    let circle = verdict(&script(at, "loop", &format!("#!{}\n", own.display())), &library).unwrap_err();
    assert!(circle.0.contains("and so on"), "{circle:?}");
    assert!(verdict(&script(at, "text", "hello\n"), &library).unwrap_err().0.contains("neither an ELF program nor"));
}

#[test]
fn rights_gained_at_the_start_are_a_reason() {
    let place = tempfile::tempdir().unwrap();
    let library = compile(place.path(), "libleakscan.so", "int leakscan;", &["-shared", "-fPIC"]);
    let program = compile(place.path(), "program", MAIN, &[]);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    assert!(verdict(&program, &library).is_ok(), "set-uid to ourselves gains nothing");
    // Only root can give a file away.
    if std::os::unix::fs::chown(&program, Some(65534), None).is_ok() {
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
        let refused = verdict(&program, &library).unwrap_err();
        assert!(refused.0.starts_with("PROG: it is set-uid: ") && refused.0.ends_with("(uid 65534)"), "{refused:?}");
    }
}

#[test]
fn a_malloc_of_its_own_is_told() {
    let place = tempfile::tempdir().unwrap();
    let source =
        "static char pool[64]; void *malloc(unsigned long n) { return n ? pool : 0; } int main(void) { return 0; }";
    let warned = |flags: &[&str]| {
        let program = compile(place.path(), "own", source, &[&["-fno-builtin"], flags].concat());
        verdict(&program, &program).unwrap().warnings.join("")
    };
    assert!(warned(&[]).contains("has a malloc of its own"));
    assert!(warned(&["-rdynamic"]).contains("in its dynamic symbols"));
}
