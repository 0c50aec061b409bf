//! Callers before main, after main, and at the very end of threads.

use harness::{App, artifacts, must, program, source};

#[test]
fn every_stage_of_a_program_is_seen() {
    for options in ["", "sample=1", "stop=signal"] {
        let outcome = program("stages.cc").options(options).run_as_bare();
        let report = outcome.report();
        let found = |function: &str| report.total_through(function);
        let early: u64 = outcome.stdout.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(found("lose_early"), (early, 101 * early), "{report:?}");
        assert_eq!(found("lose_in_constructor"), (1, 203), "{report:?}");
        assert_eq!(found("lose_in_destructor"), (1, 307), "{report:?}");
        assert_eq!(found("lose_in_static_object"), (1, 401), "{report:?}");
        assert_eq!(found("lose_in_end_of_static_object"), (1, 503), "{report:?}");
        assert_eq!(found("lose_at_exit"), (1, 601), "{report:?}");
        // One by main's own, one by the other thread's.
        assert_eq!(found("lose_in_end_of_thread"), (2, 1402), "{report:?}");
        // In the last rounds of a thread's destructors there is no place any more to unwind in: no stack, but known blocks.
        assert!(found("lose_in_key").0 >= 2, "{report:?}");
        assert_eq!(
            (outcome.stat("direct_blocks"), outcome.stat("direct_bytes")),
            (11 + early, 6653 + 101 * early),
            "{report:?}"
        );
    }
}

#[test]
fn libraries_before_and_behind_us_allocate_when_they_like() {
    let library = source("stages_library.c");
    let app = program("entries.c").args(["malloc", "lose"]);
    let after = app.clone().preload_after(&library).run();
    after.expect_leaks(1, 1337);
    assert_eq!(after.stdout, "kept from the constructor to the destructor\n");
    let before = app.preload_before(&library).run();
    before.expect_leaks(1, 1337);
    assert_eq!(before.stdout, "kept from the constructor to the destructor\n");
}

#[test]
fn a_library_that_comes_and_goes() {
    let outcome = program("loader.c").arg("200").arg(source("stages_library.c")).run();
    outcome.expect_clean();
    assert_eq!(outcome.stdout.lines().count(), 200);
}

#[test]
fn the_dynamic_loader_itself() {
    let bare = App::new("ldd").arg("/bin/ls").bare().run();
    let watched = App::new("ldd").arg("/bin/ls").run();
    assert_eq!(watched.status, bare.status);
    let ours = artifacts().library.display().to_string();
    let lines = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| !line.contains(&ours))
            .map(|line| line.split("(0x").next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(lines(&watched.stdout), lines(&bare.stdout));
    for words in [["LD_BIND_NOW", "1"], ["LD_DEBUG", "files"], ["LD_TRACE_LOADED_OBJECTS", "1"]] {
        App::new("/bin/true").env(words[0], words[1]).run().ok();
    }
    App::new("/bin/ls").env("LD_BIND_NOW", "1").run_as_bare().expect_clean();
}

#[test]
fn the_library_alone_needs_nothing_but_libc() {
    let needed = must(std::process::Command::new("readelf").arg("-dW").arg(&artifacts().library));
    let needed: Vec<_> = needed.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert!(needed.iter().all(|line| line.contains("libc.so.6") || line.contains("ld-linux")), "{needed:?}");
}
