//! Leaks planted in real servers are found while these go on: confirmed by the second scan that can see them, with the right
//! function and line, and not a block too few or too many.

use harness::{App, Leak, Report, Running, command, must, program, source, source_path};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The line of a source that has this text in it.
fn line(source: &Path, text: &str) -> u32 {
    let all = fs::read_to_string(source).unwrap();
    let at = all.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text} in {source:?}"));
    u32::try_from(at + 1).unwrap()
}

/// Whole scans in a report that is still being written.
fn scans(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().filter(|line| line.starts_with("end ")).count())
}

/// Works on by `work` until a second scan by the clock has seen all that is lost now, and gives what that scan says.
fn second_scan(app: &App, running: &mut Running, mut work: impl FnMut(&mut Running)) -> Report {
    let path = app.path(&format!("leakscan.{}", running.pid()));
    // The next scan may be at work already, without the last blocks: the first that counts is the one after it.
    let second = scans(&path) + 3;
    let begun = Instant::now();
    while scans(&path) < second {
        assert!(begun.elapsed() < Duration::from_secs(40), "scan {second} does not come: {} are there", scans(&path));
        work(running);
    }
    let number = second.to_string();
    let text = must(command(["report", "--format", "json", "--all", "--scan", &number]).arg(&path));
    // It is found while the program goes on.
    work(running);
    serde_json::from_str(&text).unwrap()
}

/// The leak of that kind through a function must have these blocks and bytes, all of them confirmed, and lie at that line.
fn expect(report: &Report, kind: &str, function: &str, at: (&Path, u32), blocks: u64, bytes: u64) {
    let named = |leak: &&Leak| leak.functions().iter().any(|name| name.starts_with(function));
    let leaks: Vec<_> = report.leaks.iter().filter(named).filter(|leak| leak.kind == kind).collect();
    let found = leaks.iter().fold((0, 0), |sum, leak| (sum.0 + leak.blocks, sum.1 + leak.bytes));
    assert_eq!(found, (blocks, bytes), "{kind} leaks through {function}: {report:?}");
    for leak in leaks {
        assert!(leak.status == "confirmed" && leak.exact, "{report:?}");
        let file = at.0.file_name().unwrap().to_str().unwrap();
        let here = leak.frames.iter().any(|frame| {
            frame.function.as_deref().is_some_and(|name| name.starts_with(function))
                && frame.file.as_deref().is_some_and(|name| name.ends_with(file))
                && frame.line == Some(at.1)
        });
        assert!(here, "{function} at {file}:{}: {:?}", at.1, leak.frames);
    }
}

/// A server's end of a unix socket, as soon as it is there.
fn connect(path: &Path) -> BufReader<UnixStream> {
    let begun = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return BufReader::new(stream),
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{path:?}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ask(server: &mut BufReader<UnixStream>, request: &str) -> String {
    server.get_mut().write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    server.read_line(&mut answer).unwrap();
    answer.trim_end().to_owned()
}

#[test]
fn redis_module() {
    let module = source_path("../../examples/redis-module/audit.c").canonicalize().unwrap();
    let app = App::new("redis-server").options("interval=1");
    let library = app.path("audit.so");
    let _ = must(Command::new("gcc").args(["-g", "-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&module));
    let socket = app.path("socket");
    let app = app.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket).arg("--loadmodule").arg(&library);
    let mut running = app.start();
    let mut server = connect(&socket);
    // The second note of each of the users loses the first one: a record of 56 bytes, and its text behind it.
    for round in ["login", "look"] {
        for user in 0..500 {
            let answer = ask(&mut server, &format!("audit.note user:{user} {round}\n"));
            assert!(answer.starts_with(':'), "{answer}");
        }
    }
    let lost = {
        let text = fs::read_to_string(&module).unwrap();
        assert!(text.contains("USERS = 1024"), "the slots are counted below");
        let slot = |user: u32| {
            let hash = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
            format!("user:{user}").bytes().fold(2_166_136_261, hash) % 1024
        };
        let slots: std::collections::HashSet<u32> = (0..500).map(slot).collect();
        1000 - slots.len() as u64
    };
    let report = second_scan(&app, &mut running, |_| {
        for number in 0..200 {
            let _ = ask(&mut server, &format!("set key:{number} {number}\n"));
        }
    });
    let at = line(&module, "malloc(sizeof");
    // jemalloc's own tables point to the first block of each of its slabs, and its thread cache to some that it has given out
    // lately. As long as they are taken for the program's memory, a few blocks in a hundred count as reached.
    let found: u64 = report.through("new_record").filter(|leak| leak.kind == "direct").map(|leak| leak.blocks).sum();
    assert!((lost - lost / 10..=lost).contains(&found), "{found} of {lost}: {report:?}");
    expect(&report, "direct", "new_record", (&module, at), found, found * 56);
}

#[test]
fn python_extension_by_ctypes() {
    let (file, library) = (source_path("planted_library.c"), source("planted_library.c"));
    let app = program("planted_service.py").arg(&library).options("interval=1");
    let mut running = app.start();
    running.say("remember 401");
    assert_eq!(running.line(), "done");
    let report = second_scan(&app, &mut running, |service| {
        service.say("score 3000");
        assert_eq!(service.line(), "done");
    });
    expect(&report, "direct", "remember", (&file, line(&file, "// lost")), 399, 399 * 4040);
}

#[test]
fn sqlite3_extension() {
    let (file, library) = (source_path("planted_extension.c"), source("planted_extension.c"));
    let app = App::new("sqlite3").arg(":memory:").options("interval=1");
    let mut shell = app.start();
    shell.say(&format!(".load {} sqlite3_extension_init", library.display()));
    shell.say("select count(distinct slug('Title No ' || value)) from generate_series(1, 300);");
    assert_eq!(shell.line(), "300");
    let report = second_scan(&app, &mut shell, |shell| {
        shell.say("select count(distinct hex(value)) from generate_series(1, 3000);");
        assert_eq!(shell.line(), "3000");
    });
    expect(&report, "direct", "slug", (&file, line(&file, "// lost")), 300, 300 * 301);
}

#[test]
fn multi_threaded_cpp_server() {
    let file = source_path("planted_server.cc");
    let app = program("planted_server.cc").options("interval=1");
    let socket: PathBuf = app.path("socket");
    let app = app.arg(&socket);
    let mut running = app.start();
    assert_eq!(running.line(), "ready");
    let mut peers = [connect(&socket), connect(&socket), connect(&socket)];
    for round in 0..100 {
        for peer in &mut peers {
            // Ten users, whichever of the three connections they come by.
            let _ = ask(peer, &format!("login user{}\n", round % 10));
        }
    }
    let report = second_scan(&app, &mut running, |_| {
        for (number, peer) in peers.iter_mut().enumerate() {
            let text = format!("{number}").repeat(100);
            assert_eq!(ask(peer, &format!("echo {text}\n")), text);
        }
    });
    let (session, rights) = (line(&file, "// lost"), line(&file, "// lost behind"));
    expect(&report, "direct", "Registry::login", (&file, session), 290, 290 * 56);
    expect(&report, "indirect", "Registry::login", (&file, rights), 290, 290 * 200);
}
