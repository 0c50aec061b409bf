//! Ten programs as the distribution has them, at their daily work: they do under leakscan what they do without it, and nothing is
//! reported that is no leak. What is reported was looked at one by one in the versions of Debian 12; `docs/real-programs.md` has each
//! judgement. Of other versions all is compared but what they lose, and that is said.
//!
//! Programs that read lines work until two scans by the clock have seen them at it, and then as long again by themselves.

use harness::{App, Leak, Outcome, Report, Running, command, is_root, is_version, must, source_path};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the two have done must be the same.
fn expect_same(watched: &Outcome, bare: &Outcome) {
    assert_eq!(watched.stdout, bare.stdout, "stdout under leakscan and by itself: {watched:?}");
    assert_eq!(watched.stderr, bare.stderr, "stderr under leakscan and by itself: {watched:?}");
    assert_eq!(watched.status, bare.status, "status under leakscan and by itself: {watched:?}");
}

/// Gives the program its line to work on again and again until a second scan by the clock is whole, and as often without us.
fn at_work(app: &App, line: &str) -> Outcome {
    let app = app.clone().options("interval=1");
    let turn = |running: &mut Running| {
        running.say(line);
        let _ = running.line();
    };
    let (mut running, mut turns) = (app.start(), 0);
    while running.scans() < 2 {
        turn(&mut running);
        turns += 1;
    }
    let watched = running.finish();
    let mut bare = app.bare().start();
    (0..turns).for_each(|_| turn(&mut bare));
    expect_same(&watched, &bare.finish());
    watched.ok().expect_none_freed();
    watched
}

/// No scan of the running program has seen a leak. (The scan at its end is the last one.)
fn expect_no_live_leak(outcome: &Outcome) -> Report {
    let report = outcome.report();
    assert!(report.scans.len() > 2, "{report:?}");
    let path = outcome.app.path(&format!("leakscan.{}", outcome.pid));
    for scan in &report.scans[..report.scans.len() - 1] {
        let number = scan.scan.to_string();
        let text = must(command(["report", "--format", "json", "--all", "--scan", &number]).arg(&path));
        let live: Report = serde_json::from_str(&text).unwrap();
        assert!(live.leaks.is_empty(), "scan {number}: {live:?}");
    }
    report
}

/// Blocks and bytes of some leaks.
fn sum<'a>(leaks: impl IntoIterator<Item = &'a Leak>) -> (u64, u64) {
    leaks.into_iter().fold((0, 0), |sum, leak| (sum.0 + leak.blocks, sum.1 + leak.bytes))
}

/// Scans a process by `leakscan scan`.
fn scan(pid: u32) -> Report {
    let text = must(&mut command(["scan", &pid.to_string(), "--format", "json", "--all", "--timeout", "20"]));
    serde_json::from_str(&text).unwrap()
}

/// A server's end of a unix socket, as soon as it is there.
fn connect(path: &Path) -> UnixStream {
    let begun = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{path:?}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn python3() {
    let app = App::new("/usr/bin/python3").arg(source_path("real_python.py"));
    for allocator in ["pymalloc", "malloc"] {
        let outcome = at_work(&app.clone().env("PYTHONMALLOC", allocator), "go");
        let report = expect_no_live_leak(&outcome);
        // Since 3.12 its end leaves the strings that it keeps for good (valgrind says the same).
        if is_version(&["/usr/bin/python3", "--version"], "3.11.") {
            assert_eq!(sum(&report.leaks), (0, 0), "{allocator}: {report:?}");
        }
    }
}

/// The child takes new locks for those that another thread of its parent might have held, and gives up the old ones.
#[test]
fn python3_forked() {
    let script = "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0); print(pid)";
    let outcome = App::new("/usr/bin/python3").args(["-c", script]).run();
    outcome.expect_clean();
    if !is_version(&["/usr/bin/python3", "--version"], "3.11.") {
        return;
    }
    let report = outcome.report_of(outcome.stdout.trim().parse().unwrap());
    assert_eq!((report.total(), report.total_through("PyThread_allocate_lock")), ((5, 160), (5, 160)), "{report:?}");
}

#[test]
fn sqlite3() {
    let app = App::new("sqlite3").arg("-batch").arg("readings.db");
    let outcome = at_work(&app, &format!(".read {}", source_path("real_sqlite3.sql").display()));
    assert!(outcome.stdout.starts_with("100000|"), "{outcome:?}");
    let report = expect_no_live_leak(&outcome);
    assert_eq!(sum(&report.leaks), (0, 0), "{report:?}");
}

#[test]
fn bash() {
    let outcome = at_work(&App::new("bash").arg(source_path("real_bash.sh")), "go");
    let report = expect_no_live_leak(&outcome);
    assert_eq!(sum(&report.leaks), (0, 0), "{report:?}");
    if !is_version(&["bash", "--version"], "5.2.15") {
        return;
    }
    // Its subshells lose nothing, and of the programs that it starts each `sort` the list of its one file.
    for other in outcome.reports().iter().filter(|report| report.pid != outcome.pid) {
        assert!(other.exe.ends_with("/sort") && other.total() == (1, 8), "{} {other:?}", other.cmdline);
    }
}

#[test]
fn node() {
    let script = fs::read_to_string(source_path("real_node.js")).unwrap();
    let outcome = at_work(&App::new("node").arg("-e").arg(script), "go");
    if !is_version(&["node", "--version"], "v18.") {
        return;
    }
    let report = expect_no_live_leak(&outcome);
    // Its four pool threads end when OpenSSL has been cleaned up: the error state of each that has hashed stays behind.
    let (states, others): (Vec<_>, Vec<_>) = report.leaks.iter().partition(|leak| {
        leak.functions().contains(&"ossl_err_get_state_int") || leak.functions().contains(&"ERR_set_mark")
    });
    assert_eq!(sum(others), (0, 0), "{report:?}");
    let (blocks, bytes) = sum(states);
    assert!(blocks <= 4 && bytes == blocks * 904, "{report:?}");
}

/// Its end gives up what the interpreter held; before that there is nothing.
#[test]
fn perl_at_work() {
    let outcome = at_work(&App::new("perl").arg(source_path("real_perl.pl")), "go");
    let _ = expect_no_live_leak(&outcome);
}

#[test]
fn perl_gives_up_its_interpreter_before_what_that_holds() {
    let script = r#"my %h; $h{$_} = [$_, "x$_"] for 1..20000; print scalar keys %h, "\n""#;
    let app = App::new("perl").args(["-e", script]);
    // Where it is told to clean up, there is nothing.
    app.clone().env("PERL_DESTRUCT_LEVEL", "2").run_as_bare().expect_clean();
    let outcome = app.run_as_bare();
    assert_eq!(outcome.ok().stdout, "20000\n");
    if !is_version(&["perl", "-v"], "v5.36.0") {
        return;
    }
    let report = outcome.report();
    let of = |kind: &str| sum(report.leaks.iter().filter(|leak| leak.kind == kind));
    // Valgrind's figures, to the byte.
    assert_eq!((of("direct"), of("indirect")), ((30, 8325), (18, 56276)), "{report:?}");
    assert_eq!(report.total_through("Perl_reentrant_init"), (13, 30148), "{report:?}");
    assert_eq!(report.total_through("Perl_init_i18nl10n").0, 17, "{report:?}");
}

/// Blocks and bytes of each program of a compilation, by the name of its file.
fn parts(outcome: &Outcome) -> Vec<(String, (u64, u64))> {
    let name = |report: &Report| report.exe.rsplit('/').next().unwrap_or_default().to_owned();
    let mut parts: Vec<_> = outcome.reports().iter().map(|report| (name(report), report.total())).collect();
    parts.sort();
    parts
}

#[test]
fn gpp_and_what_it_starts() {
    let app = App::new("g++").options("interval=1").args(["-O2", "-o", "templates"]);
    let outcome = app.arg(source_path("real_templates.cc")).run_as_bare();
    outcome.ok().expect_none_freed();
    if !is_version(&["g++", "-dumpfullversion"], "12.2.0") || !is_version(&["as", "--version"], "2.40") {
        return;
    }
    for report in outcome.reports() {
        assert!(report.leaks.iter().all(|leak| leak.status == "confirmed" && leak.exact), "{report:?}");
        if report.exe.ends_with("/cc1plus") {
            assert_eq!(report.total_through("xstrdup"), (1, 7), "{report:?}");
            let at_work = report.scans.iter().filter(|scan| scan.trigger == "interval").count();
            assert!(at_work >= 1, "it compiles for seconds: {report:?}");
        }
    }
    let found = parts(&outcome);
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    let wanted = ["cc1plus", "collect2", "x86_64-linux-gnu-as", "x86_64-linux-gnu-g++-12", "x86_64-linux-gnu-ld.bfd"];
    assert_eq!(names, wanted);
    let blocks: Vec<_> = found.iter().map(|(_, total)| total.0).collect();
    // 2,197 relocations (two blocks each), 475 lists of them, and the text of 5,390 instructions.
    assert_eq!((found[0].1, found[2].1), ((1, 7), (10_259, 200_222)), "{found:?}");
    // 7, 47 and 384 in valgrind, which does not know what a stale word on a stack keeps.
    assert!(
        (5..=7).contains(&blocks[1]) && (45..=47).contains(&blocks[3]) && (375..=384).contains(&blocks[4]),
        "{found:?}"
    );
}

#[test]
fn java_version() {
    // What it chooses by itself depends on the machine.
    let outcome = App::new("java").args(["-XX:+UseG1GC", "-version"]).run_as_bare();
    let report = outcome.ok().report();
    if !is_version(&["java", "--version"], "openjdk 17.") {
        return;
    }
    let through = |function: &str| {
        let named = |leak: &&Leak| leak.functions().iter().any(|name| name.starts_with(function));
        let leaks: Vec<_> = report.leaks.iter().filter(|leak| leak.kind == "direct").filter(named).collect();
        (leaks.iter().map(|leak| leak.blocks).sum(), leaks.iter().map(|leak| leak.indirect_blocks).sum::<u64>())
    };
    let watcher = through("WatcherThread::start()");
    let compiler = through("Compiler::initialize()");
    let sampler = through("StatSampler::create_sampled_perfdata()");
    let launcher = through("JLI_MemAlloc");
    // Two lists of the launcher's, with its copy of each argument behind them.
    assert_eq!((compiler, sampler, launcher), ((1, 0), (1, 0), (2, 4)), "{report:?}");
    // The thread's own arenas, locks and event; a block of handles more where no other thread had left one.
    assert!(watcher.0 == 1 && (12..=13).contains(&watcher.1), "{report:?}");
    assert_eq!(report.total().0, 21 + watcher.1 - 12, "{report:?}");
}

/// What git 2.39 loses, by the command: blocks and bytes in all, as valgrind has them. Later versions lose none of it. The
/// bytes of a path are as many as the folder's name has, and not compared.
const GIT: [(&str, (u64, u64)); 15] = [
    ("git add .", (3, 179)),
    ("git add side", (3, 182)),
    ("git blame -s shared", (3, 12_037)),
    ("git bundle create -q ../bundle --all", (25, 4954)),
    ("git cherry-pick side~1", (5, 5371)),
    ("git clone -q work clone", (1, 0)),
    ("git commit", (2, 8228)),
    ("git diff v2 v6 -- folder3", (3, 2054)),
    ("git log --oneline --graph --stat", (5, 1552)),
    ("git mv folder1/file1 folder1/moved", (4, 162)),
    ("git rebase -q HEAD~2", (2, 195)),
    ("git stash -q", (3, 200)),
    ("git prune --expire now --no-progress", (1, 7832)),
    ("git bisect--helper start HEAD v1", (1, 16)),
    ("tail", (1, 96)),
];

#[test]
fn git() {
    let path = format!("/usr/bin:{}", std::env::var("PATH").unwrap());
    let app = App::new("bash").arg(source_path("real_git.sh")).options("interval=1").env("PATH", path);
    let outcome = app.run_as_bare();
    outcome.ok().expect_none_freed();
    if !is_version(&["/usr/bin/git", "--version"], "git version 2.39.") {
        return;
    }
    let mut seen = Vec::new();
    for report in outcome.reports().iter().filter(|report| report.total().0 > 0) {
        let known = GIT.iter().find(|(command, _)| report.cmdline.contains(command));
        // Words of the stack, which vary, keep some of what its many lists lose.
        let bisects = report.cmdline.ends_with("bisect--helper run true") && report.total().0 <= 6;
        assert!(
            known.is_some_and(|(_, lost)| {
                let found = report.total();
                found.0 == lost.0 && (found.1 == lost.1 || lost.1 == 0)
            }) || bisects,
            "{} {report:?}",
            report.cmdline
        );
        seen.extend(known.map(|known| known.0));
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), GIT.len(), "{seen:?}");
}

/// Answers of a server, a line each.
fn redis_cli(socket: &Path, args: &[&str]) -> String {
    must(Command::new("redis-cli").arg("-s").arg(socket).args(args))
}

/// How often each command was called, by redis-server's own count.
fn calls(socket: &Path) -> Vec<String> {
    let text = redis_cli(socket, &["info", "commandstats"]);
    let line = |line: &str| Some(format!("{} times {}", line.split_once(':')?.0, line.split(['=', ',']).nth(1)?));
    let mut calls: Vec<_> = text.lines().filter(|line| line.starts_with("cmdstat_")).filter_map(line).collect();
    calls.sort();
    calls
}

/// The log without times and process ids.
fn undated(log: &str) -> Vec<&str> {
    log.lines()
        .map(|line| line.split_once(" # ").map_or(line, |(_, what)| what.split(", pid=").next().unwrap()))
        .collect()
}

#[test]
fn redis_server() {
    let socket_of = |app: &App| app.path("socket");
    let new = || {
        let app = App::new("redis-server").options("interval=1");
        let socket = socket_of(&app);
        app.args(["--port", "0", "--save", "", "--loglevel", "warning", "--unixsocket"]).arg(socket)
    };
    let round = |socket: &Path| {
        let mut benchmark = Command::new("redis-benchmark");
        benchmark.arg("-s").arg(socket).args(["-t", "set,get,lpush,hset", "-n", "2000", "-r", "5000", "-q"]);
        let _ = must(&mut benchmark);
    };
    let finish = |running: Running, socket: &Path| {
        let answers = (redis_cli(socket, &["llen", "mylist"]), calls(socket));
        // It never answers this one: its end is the answer.
        let mut end = Command::new("redis-cli");
        let _ = end.arg("-s").arg(socket).args(["shutdown", "nosave"]).output().unwrap();
        (answers, running.finish())
    };

    let app = new();
    let socket = socket_of(&app);
    let running = app.start();
    drop(connect(&socket));
    let mut rounds = 0;
    while running.scans() < 2 {
        round(&socket);
        rounds += 1;
    }
    let asked = running.scan();
    assert!(asked.leaks.is_empty(), "{asked:?}");
    let (answers, watched) = finish(running, &socket);

    let app = new().bare();
    let socket = socket_of(&app);
    let running = app.start();
    drop(connect(&socket));
    (0..rounds).for_each(|_| round(&socket));
    let (bare_answers, bare) = finish(running, &socket);

    assert_eq!(answers, bare_answers);
    assert_eq!(undated(&watched.stdout), undated(&bare.stdout));
    assert_eq!((&watched.stderr, watched.status), (&bare.stderr, bare.status));
    watched.ok().expect_none_freed();
    let report = expect_no_live_leak(&watched);
    assert_eq!(report.total(), (0, 0), "{report:?}");
}

/// nginx with two workers, which serves its own folder.
fn nginx() -> App {
    let app = App::new("nginx").options("interval=1");
    let folder = app.folder().display().to_string();
    let numbers: String = (1..20_000).map(|number| format!("{number}\n")).collect();
    fs::write(app.path("page.txt"), numbers).unwrap();
    // Workers become another user unless told not to, and may not read the folder then.
    let user = if is_root() { "user root;" } else { "" };
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {name};"));
    let config = format!(
        "daemon off; {user} worker_processes 2; pid nginx.pid; error_log stderr;
        events {{ worker_connections 128; }}
        http {{
            access_log access.log; log_not_found off; gzip on; gzip_types *; gzip_min_length 100; {}
            server {{
                listen unix:{folder}/socket; root {folder};
                location = /pid {{ return 200 $pid; }}
                location = /behind {{ proxy_pass http://unix:{folder}/socket:/page.txt; }}
                location ~ ^/user/(?<name>[a-z]+)/ {{ add_header X-Name $name; return 302 /page.txt; }}
            }}
        }}",
        temporary.concat()
    );
    fs::write(app.path("config"), config).unwrap();
    // Before 1.19.5 the log of its start cannot be named.
    let names_log = must(Command::new("sh").args(["-c", "nginx -h 2>&1"])).contains("-e filename");
    let app = if names_log { app.args(["-e", "stderr"]) } else { app };
    app.args(["-p", &folder, "-c", "config"])
}

/// The body of an answer that may come in chunks, whose sizes depend on when its parts were there.
fn whole(body: &[u8], in_chunks: bool) -> Vec<u8> {
    let (mut rest, mut whole) = (body, Vec::new());
    while in_chunks && !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        whole.extend_from_slice(&rest[end + 2..][..size]);
        rest = &rest[end + 2 + size + 2..];
    }
    if in_chunks { whole } else { body.to_vec() }
}

/// The answer to one request on a connection of its own, without what names a time.
fn get(socket: &Path, path: &str) -> String {
    let mut stream = connect(socket);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let body = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&bytes[..body]);
    let timeless = |line: &&str| !["Date:", "Last-Modified:", "ETag:"].iter().any(|name| line.starts_with(name));
    let head = head.split("\r\n").filter(timeless).collect::<Vec<_>>().join("\n");
    let body = whole(&bytes[body..], head.contains("Transfer-Encoding: chunked"));
    head + &String::from_utf8_lossy(&body)
}

#[test]
fn nginx_and_its_workers() {
    let serve = |app: &App| {
        let socket = app.path("socket");
        let running = app.start();
        let paths = ["/page.txt", "/none", "/behind", "/user/anna/", "/../x"];
        let answers: Vec<_> = (0..1000).map(|number| get(&socket, paths[number % paths.len()])).collect();
        (running, answers)
    };
    let app = nginx();
    let (running, answers) = serve(&app);
    assert!(answers[0].starts_with("HTTP/1.1 200 OK") && answers[0].contains("Content-Encoding: gzip"), "{answers:?}");
    let worker = get(&app.path("socket"), "/pid").rsplit('\n').next().unwrap().parse().unwrap();
    // One block is lost when the configuration has been read, in each process: real, and in the same place for valgrind. (nginx -v says
    // its version on stderr.)
    let is_known = is_version(&["sh", "-c", "nginx -v 2>&1"], "nginx/1.22.");
    let known = |report: &Report| {
        !is_known || report.total() == (1, 72) && report.total_through("ngx_http_regex_compile") == (1, 72)
    };
    for pid in [worker, running.pid(), worker] {
        let report = scan(pid);
        assert!(known(&report), "{} {report:?}", report.cmdline);
    }
    running.kill(rustix::process::Signal::QUIT);
    let watched = running.finish();

    let (running, bare_answers) = serve(&nginx().bare());
    running.kill(rustix::process::Signal::QUIT);
    let bare = running.finish();
    assert_eq!(answers, bare_answers);
    expect_same(&watched, &bare);
    watched.ok().expect_none_freed();
    assert!(!is_known || watched.reports().len() == 3, "{watched:?}");
    for report in watched.reports() {
        assert!(known(&report), "{} {report:?}", report.cmdline);
    }
}
