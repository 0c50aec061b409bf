//! The built `leakscan` as a user runs it, with a stand-in for the library.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stub.c");
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(folder.path().join("libleakscan.so")).arg(source);
        assert!(gcc.status().unwrap().success());
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn leakscan(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leakscan"));
        command.args(args);
        command.env("LEAKSCAN_LIB", self.path("libleakscan.so"));
        command.env("LEAKSCAN_OPTIONS", format!("log_path={}/r.%p", self.folder.path().display()));
        command.env_remove("LD_PRELOAD").env_remove("STUB");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.leakscan(args).output().unwrap()
    }

    /// A program under the stand-in that says a line when it is up, and lives until its input ends.
    fn idle(&self, stub: &str) -> Child {
        let mut command = Command::new("sh");
        // `read` is the shell's own: there is one process.
        command.args(["-c", "echo up; read line"]);
        command.env("LD_PRELOAD", self.path("libleakscan.so")).env("STUB", stub);
        command.env("LEAKSCAN_OPTIONS", format!("log_path={}/r.%p", self.folder.path().display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        up(&mut child);
        child
    }
}

fn up(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn run_keeps_output_and_status_and_reports_on_stderr() {
    let place = Place::new();
    let output = place.run(&["run", "--", "sh", "-c", "echo hello; exit 7"]);
    assert_eq!((code(&output), text(&output.stdout).as_str()), (7, "hello\n"));
    let told = text(&output.stderr);
    assert!(
        told.contains("leakscan report: stub") && told.contains("no leaks") && told.contains("last by exit"),
        "{told}"
    );
    let quiet = place.run(&["run", "--quiet", "--", "true"]);
    assert_eq!((code(&quiet), quiet.stderr.len()), (0, 0));
}

#[test]
fn fail_on_leak_changes_the_status_only_where_something_leaks() {
    let place = Place::new();
    let status = |leak: bool, args: &[&str]| {
        let mut command = place.leakscan(args);
        if leak {
            command.env("STUB_LEAK", "1");
        }
        code(&command.output().unwrap())
    };
    assert_eq!(status(true, &["run", "--quiet", "--fail-on-leak", "--", "true"]), 23);
    assert_eq!(status(true, &["run", "--quiet", "--fail-on-leak", "--exitcode", "9", "--", "true"]), 9);
    assert_eq!(status(true, &["run", "--quiet", "--", "true"]), 0);
    assert_eq!(status(false, &["run", "--quiet", "--fail-on-leak", "--", "false"]), 1);
}

#[test]
fn fail_on_leak_does_not_pass_where_nothing_was_scanned() {
    let place = Place::new();
    let run = |args: &[&str]| place.leakscan(args).env("STUB", "silent").output().unwrap();
    let output = run(&["run", "--quiet", "--fail-on-leak", "--", "true"]);
    assert_eq!(code(&output), 125);
    assert!(
        text(&output.stderr).contains("nothing is known of true: no whole scan stands in "),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(code(&run(&["run", "--quiet", "--", "true"])), 0);
    assert_eq!(code(&run(&["run", "--quiet", "--fail-on-leak", "--", "false"])), 1, "the program's own failure");
    let cut = "leakscan report 1\nprocess pid=1 ppid=1 start=1 version=x run=-\ncommand exe=/x args=x\noptions set=\nscan 1 trig";
    let file = std::env::temp_dir().join(format!("leakscan-cut-{}", std::process::id()));
    std::fs::write(&file, cut).unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(code(&place.run(&["report", path])), 0);
    let output = place.run(&["report", "--fail-on-leak", path]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("--fail-on-leak: no whole scan stands in it"), "{}", text(&output.stderr));
}

#[test]
fn long_help_is_shown() {
    let place = Place::new();
    for (command, says) in [("run", "LEAKSCAN_LIB"), ("scan", "EINTR"), ("report", "docs/report.schema.json")] {
        let help = place.run(&[command, "--help"]);
        assert!(text(&help.stdout).contains(says), "{command}: {}", text(&help.stdout));
    }
}

#[test]
fn every_process_of_a_run_is_named_and_reported() {
    let place = Place::new();
    let report = place.path("out");
    let args = ["run", "--report-to", report.to_str().unwrap(), "--", "sh", "-c", "env true; env true; exit 0"];
    // A report of another run in the same folder is not ours.
    place.run(&["run", "--quiet", "--", "true"]);
    let output = place.run(&args);
    assert_eq!((code(&output), text(&output.stderr)), (0, String::new()));
    let told = std::fs::read_to_string(report).unwrap();
    assert!(told.starts_with("leakscan: 3 processes reported:\n"), "{told}");
    assert_eq!(told.matches("leakscan report: ").count(), 3, "{told}");
}

#[test]
fn a_death_by_signal_is_told_and_turned_into_a_status() {
    let place = Place::new();
    let output = place.run(&["run", "--", "sh", "-c", "kill -SEGV $$"]);
    let told = text(&output.stderr);
    assert_eq!(code(&output), 128 + 11, "{told}");
    assert!(told.contains("was killed by SIGSEGV (signal 11"), "{told}");
    assert!(told.contains("left no report") && told.contains("killed before its first scan"), "{told}");
}

#[test]
fn a_signal_is_passed_on_after_a_last_scan() {
    let place = Place::new();
    let script = "trap 'echo got; exit 5' TERM; echo up; while :; do read line; done";
    let mut child = place.leakscan(&["run", "--", "sh", "-c", script]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(up(&mut child), "up\n");
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let mut rest = String::new();
    child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = text(&output.stderr);
    assert_eq!((code(&output), rest.as_str()), (5, "got\n"), "{told}");
    assert!(told.contains("2 scans, last by exit"), "{told}");
}

#[test]
fn what_cannot_run_has_its_own_status_and_reason() {
    let place = Place::new();
    let output = place.run(&["run", "--", "no-such-program-1337"]);
    assert_eq!(code(&output), 127);
    assert!(text(&output.stderr).contains("there is no such program in PATH"));
    let file = place.path("plain");
    std::fs::write(&file, "x").unwrap();
    assert_eq!(code(&place.run(&["run", "--", file.to_str().unwrap()])), 126);
    let mut lost = place.leakscan(&["run", "--", "true"]);
    let output = lost.env("LEAKSCAN_LIB", "/nowhere/lib.so").output().unwrap();
    assert_eq!(code(&output), 125);
    assert!(text(&output.stderr).contains("LEAKSCAN_LIB=/nowhere/lib.so: no such file"));
}

#[test]
fn scan_asks_an_idle_program_and_prints_that_scan() {
    let place = Place::new();
    let mut child = place.idle("");
    let pid = child.id().to_string();
    for scans in ["1 scan,", "2 scans,"] {
        let output = place.run(&["scan", &pid]);
        let told = text(&output.stdout);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        assert!(told.contains(scans) && told.contains("last by signal"), "{told}");
    }
    drop(child.stdin.take());
    child.wait().unwrap();
    let output = place.run(&["scan", &pid]);
    assert_eq!((code(&output), text(&output.stderr)), (2, format!("leakscan: there is no process {pid}\n")));
}

#[test]
fn scan_refuses_what_cannot_answer() {
    let place = Place::new();
    let own = std::process::id().to_string();
    let output = place.run(&["scan", &own]);
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("has no leakscan in it"));

    let mut child = place.idle("mute");
    let pid = child.id().to_string();
    let output = place.run(&["scan", "--timeout", "0", &pid]);
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("gave no report within 0 s at "), "{}", text(&output.stderr));
    let output = place.run(&["scan", "--signal", "57", &pid]);
    assert!(text(&output.stderr).contains("does not listen to signal 57"), "{}", text(&output.stderr));
    assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    while !std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ") {}
    let output = place.run(&["scan", "--timeout", "0", &pid]);
    assert!(text(&output.stderr).contains("it is stopped (by SIGSTOP"), "{}", text(&output.stderr));
    assert!(Command::new("kill").args(["-CONT", &pid]).status().unwrap().success());
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn doctor_tells_a_process_with_the_library_from_one_without() {
    let place = Place::new();
    let output = place.run(&["doctor", &std::process::id().to_string()]);
    assert_eq!(code(&output), 2);
    assert!(text(&output.stdout).contains("FAIL  library  no libleakscan.so is in it"), "{}", text(&output.stdout));
    let mut child = place.idle("");
    let output = place.run(&["doctor", &child.id().to_string()]);
    assert_eq!(code(&output), 0, "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("it listens to signal 58"));
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn report_wants_files_and_names_what_is_wrong_with_them() {
    let place = Place::new();
    let output = place.run(&["report"]);
    assert_eq!(code(&output), 2);
    assert!(text(&output.stderr).contains("no FILE given"));
    place.run(&["run", "--quiet", "--log-path", &format!("{}/good", place.folder.path().display()), "--", "true"]);
    let good = place.path("good");
    let output = place.run(&["report", good.to_str().unwrap(), "/nowhere/x"]);
    assert_eq!(
        (code(&output), text(&output.stderr).as_str()),
        (2, "leakscan: /nowhere/x: no such file or directory\n")
    );
    assert!(text(&output.stdout).contains("no leaks"));
    let output = place.run(&["report", "--scan", "9", good.to_str().unwrap()]);
    assert!(text(&output.stderr).contains("there is no whole scan 9; there are: 1"));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let place = Place::new();
    let good = place.path("good");
    place.run(&["run", "--quiet", "--log-path", good.to_str().unwrap(), "--", "true"]);
    let mut child = place.leakscan(&["report", "--format", "json", good.to_str().unwrap()]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The pipe may still be written to before it is closed; either way must end well.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), text(&output.stderr)), (0, String::new()));
}

#[test]
fn colour_is_given_when_asked_for_and_not_into_pipes() {
    let place = Place::new();
    let good = place.path("good");
    place.run(&["run", "--quiet", "--log-path", good.to_str().unwrap(), "--", "true"]);
    let plain = place.run(&["report", good.to_str().unwrap()]);
    assert!(!text(&plain.stdout).contains('\x1b'));
    let coloured = place.run(&["report", "--color", "always", good.to_str().unwrap()]);
    assert!(text(&coloured.stdout).contains("\x1b["));
}
