//! Stacks that are hard to unwind: the same frames as libgcc's unwinder finds, and no crash where there is nothing to find.

use harness::{App, Outcome, program, source};

fn app(what: &str) -> App {
    program("stacks.c").arg(what)
}

/// Compares every stack with libgcc's. Ours go on where libgcc stops, in code without tables: `different` is for such.
fn as_libgcc(app: &App) -> Outcome {
    let outcome = app.clone().options("unwind_check=1").run();
    let line = outcome.ok().stderr.lines().find(|line| line.contains("unwind_check: compared"));
    let line = line.unwrap_or_else(|| panic!("nothing compared: {outcome:?}"));
    let number = |name: &str| -> u64 {
        let at = line.split(name).nth(1).and_then(|rest| rest.split([' ', ',']).nth(1));
        at.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name} in {line}"))
    };
    assert!(number("compared") >= 1000, "{line}");
    assert_eq!((number("different"), number("unsupported")), (0, 0), "{line} {outcome:?}");
    outcome
}

/// The block lost from there is found with a stack through these functions.
fn lost_through(outcome: &Outcome, functions: &[&str]) {
    let report = outcome.report();
    assert_eq!(report.total(), (1, 1337), "{report:?}");
    let mut seen = report.leaks[0].functions().into_iter();
    for function in functions {
        assert!(seen.any(|name| name == *function), "{function} is missing, or not in this order: {report:?}");
    }
}

#[test]
fn through_signal_frames() {
    for what in ["signal", "timer"] {
        lost_through(&as_libgcc(&app(what)), &["allocate", "handler", "main"]);
    }
    lost_through(&as_libgcc(&app("fault")), &["allocate", "fault_handler", "fault", "main"]);
}

#[test]
fn from_an_alternate_signal_stack() {
    let outcome = as_libgcc(&app("fault_on_other_stack"));
    lost_through(&outcome, &["allocate", "fault_handler", "fault", "main"]);
}

#[test]
fn from_coroutines() {
    for what in ["coroutines", "coroutines_of_thread"] {
        lost_through(&as_libgcc(&app(what).arg("65536")), &["allocate", "coroutine"]);
    }
}

#[test]
fn from_small_stacks() {
    lost_through(&app("coroutines").arg("8192").run(), &["allocate", "coroutine"]);
    lost_through(&app("coroutines_of_thread").arg("8192").run(), &["allocate", "coroutine"]);
    lost_through(&app("small_thread").run(), &["allocate", "small_thread"]);
}

#[test]
fn through_code_without_tables() {
    let outcome = app("code").run();
    lost_through(&outcome, &["allocate", "main"]);
    // rbp leads nowhere: the stack may end there.
    lost_through(&app("code_with_garbage").run(), &["allocate"]);
}

/// The frame pointer is read no further than there is memory, wherever it points.
#[test]
fn from_code_without_tables_whose_frame_pointer_is_as_high_as_can_be() {
    lost_through(&app("high_frame_pointer").run(), &["allocate", "main"]);
}

/// Beyond code without a table it is the thread's own stack that is followed, from wherever the walk has come, and by the memo, too.
#[test]
fn through_another_stack_and_code_without_tables() {
    let outcome = app("another_stack_between").options("unwind_check=1").run();
    let compared = "leakscan: unwind_check: compared 8001, different 0, unsupported 0";
    assert!(outcome.ok().stderr.contains(compared), "{outcome:?}");
    lost_through(&outcome, &["allocate", "on_stack", "then_on_other_stack", "without_table", "main"]);
}

#[test]
fn through_frames_of_varying_size() {
    lost_through(&as_libgcc(&app("alloca")), &["allocate", "with_alloca", "main"]);
    lost_through(&as_libgcc(&app("longjmp")), &["allocate", "jump", "main"]);
}

/// Of a stack that is deeper than `depth` the innermost frames are recorded, as many as that, and of another one all.
#[test]
fn deeper_than_is_recorded() {
    let functions = |outcome: &Outcome| -> Vec<String> {
        let report = outcome.report();
        assert_eq!(report.total(), (1, 1337), "{report:?}");
        report.leaks[0].functions().into_iter().map(str::to_owned).collect()
    };
    let run = |recursion: usize, options: &str| {
        functions(&app("recursion").arg(recursion.to_string()).options(options).run())
    };
    let innermost = |depth: usize| [vec!["allocate"], vec!["recurse"; depth - 1]].concat();
    assert_eq!(functions(&as_libgcc(&app("recursion").arg("150"))), innermost(64));
    for depth in [1, 2, 63, 64] {
        assert_eq!(run(150, &format!("depth={depth}")), innermost(depth), "depth={depth}");
    }
    // main and what of libc has called it. (The innermost recurse has jumped to allocate, and left no frame.)
    let outermost = run(0, "")[1..].to_vec();
    assert_eq!(outermost[0], "main");
    let fits = 64 - 1 - outermost.len();
    assert_eq!(run(fits, ""), [innermost(1 + fits), outermost.iter().map(String::as_str).collect()].concat());
    assert_eq!(run(fits + 1, "").last(), outermost.iter().rev().nth(1), "the last of them has no room");
}

#[test]
fn of_libraries_that_took_each_others_place() {
    let app = app("libraries").arg(source("turn_a.c")).arg(source("turn_b.c"));
    for outcome in [as_libgcc(&app), app.run()] {
        outcome.expect_leaks(100, 133_700);
        let report = outcome.report();
        for (function, library) in [("lose_in_a", "libturn_a.so"), ("lose_in_b", "libturn_b.so")] {
            assert_eq!(report.total_through(function), (50, 66_850), "{report:?}");
            let module = |leak: &harness::Leak| leak.frames[0].module.clone().unwrap_or_default();
            assert!(report.through(function).all(|leak| module(leak).ends_with(library)), "{report:?}");
        }
    }
}

#[test]
fn where_the_loader_holds_its_lock() {
    app("iteration").run().expect_clean();
    app("iteration").options("stop=signal:interval=1").run().expect_clean();
}

/// node, for one, has some of its code in a second place.
#[test]
fn code_of_a_file_that_is_mapped_elsewhere() {
    lost_through(&program("elsewhere.c").run(), &["through", "lose", "main"]);
}

/// As older linkers lay out a file, and others today.
#[test]
fn code_in_the_page_that_data_begins_in() {
    lost_through(&program("unseparated.c").run(), &["lose", "deeply", "below", "main"]);
}
