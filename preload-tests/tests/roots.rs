//! Each kind of place that keeps a block: with its switch on there is no leak, with its switch off the block is one.

use harness::{HugePages, Outcome, not_tested, program, source};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn run(place: &str, options: &str) -> Outcome {
    program("roots.c").arg(place).arg(source("roots_library.c")).options(options).run()
}

/// The block is kept by that class of roots and by no other, whichever way threads are stopped.
fn kept_by(class: &str, place: &str) {
    for stop in ["ptrace", "signal"] {
        run(place, &format!("stop={stop}:{class}=1")).expect_clean();
        lost(place, &format!("stop={stop}:{class}=0"));
    }
}

/// The block is a leak. (Without a class of roots blocks of the system's libraries may be, too.)
fn lost(place: &str, options: &str) {
    let outcome = run(place, options);
    let report = outcome.ok().report();
    assert_eq!(report.total_through("make"), (1, 1337), "{place} with {options}: {outcome:?} {report:?}");
}

/// The block is a leak, and the only one.
fn never_kept(place: &str) {
    for stop in ["ptrace", "signal"] {
        run(place, &format!("stop={stop}")).expect_leaks(1, 1337);
    }
}

#[test]
fn initialised_data() {
    kept_by("use_globals", "data");
}

#[test]
fn zeroed_data() {
    kept_by("use_globals", "bss");
}

#[test]
fn data_that_is_read_only_after_relocation() {
    kept_by("use_globals", "relro");
}

#[test]
fn data_of_a_loaded_library() {
    kept_by("use_globals", "library_data");
    kept_by("use_globals", "library_bss");
}

#[test]
fn data_of_a_library_that_makes_all_of_it_read_only() {
    kept_by("use_globals", "sealed_library_data");
    kept_by("use_globals", "sealed_library_bss");
    never_kept("forgotten_by_sealed_library");
}

#[test]
fn stack_of_main() {
    kept_by("use_stacks", "stack");
}

#[test]
fn stack_of_another_thread() {
    kept_by("use_stacks", "thread_stack");
}

#[test]
fn stack_of_a_thread_that_blocks_all_signals() {
    kept_by("use_stacks", "stack_of_blocking_thread");
}

#[test]
fn red_zone_below_the_stack_pointer() {
    kept_by("use_stacks", "red_zone");
}

#[test]
fn stack_below_an_alternate_signal_stack() {
    kept_by("use_stacks", "below_alternate_stack");
}

#[test]
fn stack_of_a_coroutine() {
    run("coroutine_on_block", "").expect_clean();
    never_kept("forgotten_by_coroutine_on_block");
    kept_by("use_mappings", "coroutine_on_mapping");
}

#[test]
fn stack_of_a_coroutine_that_asks_for_the_scan_keeps_nothing_of_ours() {
    never_kept("lost_on_running_block");
    never_kept("lost_on_running_mapping");
    // One there, and the one whose pointer is in a block that was freed behind the stack.
    for stop in ["ptrace", "signal"] {
        run("lost_behind_running_block", &format!("stop={stop}")).expect_leaks(2, 2 * 1337);
    }
}

#[test]
fn argument_that_a_thread_has_dropped() {
    never_kept("dropped_argument");
}

/// A handler there has gone on in a coroutine and comes back; and in the child of a fork such a stack of another thread is nobody's.
#[test]
fn alternate_signal_stack_that_nobody_stands_on() {
    let run = |what: &str| program("handlers.c").arg(what).options("interval=0:scan_at_exit=0").run();
    run("coroutine").expect_clean();
    run("over").expect_leaks(1, 1337);
    for (what, lost) in [("forked", (0, 0)), ("lost", (1, 1337))] {
        let outcome = run(what);
        assert_eq!(outcome.stdout, "done\n", "{outcome:?}");
        let reports = outcome.reports();
        assert_eq!((reports.len(), reports[0].total()), (1, lost), "{what}: {reports:?}");
    }
}

/// A handler there has switched to another stack by itself, and comes back.
#[test]
#[cfg(target_arch = "x86_64")]
fn alternate_signal_stack_whose_thread_stands_nobody_knows_where() {
    let run = |what: &str| program("handlers.c").arg(what).options("interval=0:scan_at_exit=0").run();
    run("by_hand").expect_clean();
    run("by_hand_over").expect_leaks(1, 1337);
}

/// The kernel goes on to name it.
#[test]
fn memory_that_was_an_alternate_signal_stack() {
    for what in ["mapping", "block"] {
        let app = program("handlers.c").args(["given_back", what]).options("interval=0:scan_at_exit=0");
        app.run().expect_clean();
        app.arg("lost").run().expect_leaks(1, 1337);
    }
}

#[test]
fn alternate_signal_stack_is_in_use_without_what_is_left_on_it() {
    for stop in ["ptrace", "signal"] {
        run("alternate_stack", &format!("stop={stop}")).expect_clean();
        run("former_alternate_stack", &format!("stop={stop}")).expect_leaks(1, 64 << 10);
    }
    never_kept("left_on_alternate_block");
    never_kept("left_on_alternate_mapping");
}

#[test]
fn popped_frames_keep_nothing() {
    never_kept("popped_frame");
    never_kept("popped_frame_of_thread");
}

#[test]
fn callee_saved_register() {
    kept_by("use_registers", "register");
    if cfg!(target_arch = "x86_64") {
        kept_by("use_registers", "segment_base");
        kept_by("use_registers", "segment_base_of_thread");
    }
}

#[test]
fn upper_half_of_a_vector_register() {
    kept_by("use_registers", "vector_register");
}

#[test]
fn argument_of_a_waiting_system_call() {
    kept_by("use_registers", "argument");
}

#[test]
fn thread_local_storage() {
    kept_by("use_tls", "tls");
    kept_by("use_tls", "tls_of_thread");
}

#[test]
fn thread_local_storage_of_a_loaded_library() {
    run("library_tls", "").expect_clean();
    never_kept("forgotten_by_library_tls");
    kept_by("use_tls", "library_tls_of_thread");
}

#[test]
fn pthread_specific_values() {
    kept_by("use_tls", "specific");
    kept_by("use_tls", "specific_of_thread");
    kept_by("use_tls", "late_specific");
}

#[test]
fn ended_threads_keep_nothing() {
    never_kept("tls_of_ended_thread");
    never_kept("library_tls_of_ended_thread");
    never_kept("stack_of_ended_thread");
}

#[test]
fn private_mappings() {
    for place in ["anonymous", "read_only", "closed_page", "private_file", "private_file_made_read_only"] {
        kept_by("use_mappings", place);
    }
}

#[test]
fn guards_in_a_mapping_that_can_be_read() {
    for place in ["guarded", "guarded_large"] {
        kept_by("use_mappings", place);
        // Nothing can be there, so that nothing is missing.
        let report = run(place, "").report();
        assert!(report.last().unseen.is_empty(), "{place}: {report:?}");
    }
}

#[test]
fn shared_mappings() {
    for place in ["shared_file", "memfd", "shared_anonymous", "shm"] {
        kept_by("use_mappings", place);
    }
}

/// A file at that path keeps a block as long as a pointer to it is there; also where a copy is scanned, beside another thread.
fn kept_by_shared_file_at(path: &Path) {
    for beside in [&[][..], &["2", "beside"]] {
        for stop in ["ptrace", "signal"] {
            let run = |place: &str, options: &str| {
                let options = format!("interval=0:stop={stop}{options}");
                program("roots.c").arg(place).arg(path).args(beside).options(&options).run()
            };
            run("shared_file_there", "").expect_clean();
            run("unlinked_shared_file_there", "").expect_clean();
            run("forgotten_by_shared_file_there", "").expect_leaks(1, 1337);
            let lost = run("shared_file_there", ":use_mappings=0");
            assert_eq!(lost.ok().report().total_through("make"), (1, 1337), "{lost:?}");
            fs::remove_file(path).unwrap();
        }
    }
}

/// Which are the files of devices, most of them; but any file can be there.
#[test]
fn shared_mapping_of_a_plain_file_among_devices() {
    let folder = PathBuf::from(format!("/dev/leakscan-test-{}", std::process::id()));
    fs::create_dir(&folder).expect("only root can make files in /dev");
    let result = std::panic::catch_unwind(|| kept_by_shared_file_at(&folder.join("file")));
    fs::remove_dir_all(&folder).unwrap();
    result.unwrap();
}

#[test]
fn shared_mappings_of_large_pages() {
    let Some(large) = LargePages::get(4) else {
        return not_tested("shared mappings of large pages: only root can have some, and a file system of them");
    };
    kept_by_shared_file_at(&large.folder.join("file"));
    for beside in [&[][..], &["2", "beside"]] {
        let run = |options: &str| {
            let app = program("roots.c").args(["shared_large_pages", ""]).args(beside);
            app.options(&format!("interval=0{options}")).run()
        };
        run("").expect_clean();
        let lost = run(":use_mappings=0");
        assert_eq!(lost.ok().report().total_through("make"), (1, 1337), "{lost:?}");
    }
}

/// Large pages, and a file system of them among devices, where such ones are mounted. All are given back when it is dropped.
struct LargePages {
    folder: PathBuf,
    _pages: HugePages,
}

impl LargePages {
    fn get(number: usize) -> Option<Self> {
        let folder = PathBuf::from(format!("/dev/leakscan-test-{}-large", std::process::id()));
        let pages = Self { folder, _pages: HugePages::get(number)? };
        fs::create_dir(&pages.folder).ok()?;
        let is_mounted = Command::new("mount").args(["-t", "hugetlbfs", "none"]).arg(&pages.folder).status();
        is_mounted.is_ok_and(|status| status.success()).then_some(pages)
    }
}

impl Drop for LargePages {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.folder).status();
        let _ = fs::remove_dir(&self.folder);
    }
}

#[test]
fn pages_that_are_not_to_be_read() {
    for place in ["page_to_be_written", "page_to_be_run", "closed_shared_page", "shared_page_to_be_written"] {
        kept_by("use_mappings", place);
    }
}

#[test]
fn private_mappings_of_memory_that_is_a_file() {
    kept_by("use_mappings", "memfd_to_be_changed");
    kept_by("use_mappings", "memfd_to_be_run");
}

#[test]
fn code_that_the_program_has_changed() {
    kept_by("use_mappings", "patched_code");
}

/// By a pointer into the block.
#[test]
fn data_of_libc() {
    kept_by("use_globals", "libc");
    never_kept("forgotten_by_libc");
}

#[test]
fn pages_that_a_fork_does_not_copy() {
    kept_by("use_mappings", "page_not_forked");
    kept_by("use_mappings", "page_wiped_on_fork");
}

#[test]
fn pages_behind_a_protection_key() {
    if !fs::read_to_string("/proc/cpuinfo").unwrap().contains(" ospke") {
        not_tested("pages behind a protection key, as this machine has no such keys: the page is an ordinary one");
    }
    kept_by("use_mappings", "page_behind_key");
    let outcome = program("roots.c").arg("page_behind_key").arg(source("roots_library.c")).arg("2").run();
    assert!((1..=3).all(|scan| outcome.report_of_scan(scan).total() == (0, 0)), "{outcome:?}");
}

/// At the end of a program with one thread nothing is copied; while it runs, these pages are read apart.
#[test]
fn pages_that_a_fork_does_not_copy_while_the_program_runs() {
    for place in ["page_not_forked", "page_wiped_on_fork", "page_wiped_by_number"] {
        let scans = |options: &str| {
            program("roots.c").arg(place).arg(source("roots_library.c")).arg("12").options(options).run()
        };
        let (kept, lost) = (scans(""), scans("use_mappings=0"));
        for scan in 1..=12 {
            let report = kept.report_of_scan(scan);
            assert_eq!(report.total(), (0, 0), "{place}: {report:?}");
            assert_eq!(lost.report_of_scan(scan).total_through("make"), (1, 1337), "{place}");
        }
    }
}

/// They are taken into the copy while everything stands still, and out of the program's forks again; where that cannot be, since a
/// child of vfork runs with the same memory, they are read apart.
#[test]
fn pages_that_a_fork_does_not_copy_beside_other_threads() {
    for mode in ["alone", "threads", "vfork"] {
        for stop in ["ptrace", "signal"] {
            let scans = |options: &str| {
                let options = format!("interval=0:scan_at_exit=0:stop={stop}{options}");
                program("kept_from_forks.c").arg(mode).options(&options).run()
            };
            let (kept, lost) = (scans(""), scans(":use_mappings=0"));
            let confirmed = if mode == "vfork" { "suspected" } else { "confirmed" };
            for scan in 1..=3 {
                let (kept, lost) = (kept.ok().report_of_scan(scan), lost.ok().report_of_scan(scan));
                assert_eq!(kept.total(), (0, 0), "{mode} {stop}: {kept:?}");
                assert_eq!(lost.total_through("fill"), (64, 64 * 1337), "{mode} {stop}: {lost:?}");
                assert!(scan == 1 || lost.leaks.iter().all(|leak| leak.status == confirmed), "{mode} {stop}: {lost:?}");
                let is_unseen = |what: &str| kept.last().unseen.iter().any(|unseen| unseen.what == what);
                assert_eq!(
                    (is_unseen("thread"), is_unseen("not-forked")),
                    (mode == "vfork", false),
                    "{stop}: {kept:?}"
                );
            }
        }
    }
}

/// Whatever memory it is; also where a thread in vfork, or a filter that would end who asks for it, keeps it out of the copy.
#[test]
fn all_kinds_of_pages_that_a_fork_does_not_copy() {
    for kind in ["file", "shared", "private"] {
        for mode in ["threads", "vfork", "kills", "kept"] {
            for stop in ["ptrace", "signal"] {
                let options = format!("interval=0:scan_at_exit=0:stop={stop}");
                let outcome = program("kept_from_forks.c").arg(mode).arg(kind).options(&options).run();
                for scan in 1..=3 {
                    let report = outcome.ok().report_of_scan(scan);
                    assert_eq!(report.total(), (0, 0), "{kind} {mode} {stop}: {report:?}");
                }
                outcome.expect_none_freed();
            }
        }
    }
}

/// Where the kernel was asked past libc the first scan finds out, and says that it read those pages late; the next ones have them.
#[test]
#[cfg(target_arch = "x86_64")]
fn pages_that_a_fork_does_not_copy_as_nobody_was_told() {
    let scans = |options: &str| {
        let app = program("kept_from_forks.c").arg("untold");
        app.options(&format!("interval=0:scan_at_exit=0{options}")).run()
    };
    let (kept, lost) = (scans(""), scans(":use_mappings=0"));
    for scan in 1..=3 {
        let (kept, lost) = (kept.ok().report_of_scan(scan), lost.ok().report_of_scan(scan));
        assert_eq!(kept.total(), (0, 0), "{kept:?}");
        let is_late = kept.scans[scan as usize - 1].unseen.iter().any(|unseen| unseen.what == "not-forked");
        assert_eq!(is_late, scan == 1, "{kept:?}");
        assert_eq!(lost.total_through("fill"), (64, 64 * 1337), "{lost:?}");
    }
}

/// Heaps of glibc's arenas are no roots, and of a size that a tunable sets; what lies between them is.
#[test]
fn memory_beside_the_heaps_of_arenas() {
    for tunables in ["", "glibc.malloc.hugetlb=1", "glibc.malloc.hugetlb=2"] {
        let app = program("heaps.c").arg("beside").env("GLIBC_TUNABLES", tunables).options("interval=0:scan_at_exit=0");
        let report = app.run().ok().report();
        assert_eq!(
            (report.total(), report.total_through("lost")),
            ((8, 8 * 97), (8, 8 * 97)),
            "{tunables}: {report:?}"
        );
    }
}

#[test]
fn memory_that_begins_like_the_heap_of_an_arena() {
    let app = program("heaps.c").arg("pool").options("interval=0:scan_at_exit=0");
    let (kept, lost) = (app.run(), app.arg("given up").run());
    assert_eq!(kept.ok().report().total(), (0, 0), "{kept:?}");
    assert_eq!(lost.ok().report().total_through("held"), (100, 100 * 1337), "{lost:?}");
}

/// Blocks that have pages of their own hold themselves, and one more, whatever their alignment; glibc's first arena has to go on elsewhere.
#[test]
fn memory_of_blocks_outside_the_heap() {
    for alignment in [16, 32, 64, 1024, 2048, 4096, 65536] {
        let app = program("heaps.c").arg("aligned").arg(alignment.to_string()).options("interval=0:scan_at_exit=0");
        app.run().expect_leaks(2, (1 << 20) + 1337);
        app.arg("held").run().expect_clean();
    }
    let app = program("heaps.c").args(["obstructed", "0"]).options("interval=0:scan_at_exit=0");
    app.run().expect_leaks(2, 2 * 1337);
    app.arg("held").run().expect_clean();
}

#[test]
fn unaligned_word_in_generated_code() {
    kept_by("use_mappings", "code");
}

#[test]
fn memory_from_sbrk() {
    kept_by("use_mappings", "sbrk");
    kept_by("use_mappings", "brk");
    never_kept("forgotten_in_brk");
    for place in ["brk_asked_in_vain", "sbrk_by_steps", "sbrk_given_back"] {
        kept_by("use_mappings", place);
    }
    let outcome = run("sbrk_of_many", "");
    let report = outcome.ok().report();
    let told: Vec<_> = report.last().unseen.iter().map(|unseen| (unseen.what.as_str(), unseen.count)).collect();
    assert_eq!(told, [("sbrk", 45)], "{report:?}");
    assert_eq!(outcome.stats("confirmed_blocks").last(), Some(&0), "{report:?}");
}

#[test]
fn memory_that_the_kernel_calls_the_heap() {
    kept_by("use_mappings", "brk_of_kernel");
    kept_by("use_mappings", "mapping_behind_heap");
    never_kept("forgotten_behind_heap");
}

#[test]
fn data_of_epoll() {
    kept_by("use_kernel", "epoll");
}

#[test]
fn value_of_a_timer() {
    kept_by("use_kernel", "timer");
}

#[test]
fn value_of_a_signal_that_waits() {
    for place in ["waiting_signal", "waiting_signal_of_thread"] {
        run(place, "").expect_clean();
        lost(place, "use_kernel=0");
        // The kernel tells of it behind a line of any length.
        program("roots.c").arg(place).in_groups(1000).run().expect_clean();
    }
    never_kept("taken_signal");
}

/// Where nobody may ask for it, the report says so, and the scan is made all the same.
#[test]
fn value_of_a_signal_that_is_not_to_be_had() {
    for (place, options) in
        [("waiting_signal", "stop=signal"), ("waiting_signal_of_sleeper", ""), ("waiting_signal_under_filter", "")]
    {
        let outcome = run(place, options);
        let report = outcome.report();
        // It may be what keeps the block.
        assert_eq!((report.total(), report.summary.confirmed.blocks), ((1, 1337), 0), "{place}: {report:?}");
        let unseen = outcome.report().last().unseen.clone();
        assert_eq!(
            unseen.iter().filter(|unseen| unseen.what == "pending-signal" && unseen.count == 1).count(),
            1,
            "{unseen:?}"
        );
    }
}

#[test]
fn bytes_on_their_way_through_a_pipe_or_a_socket() {
    for place in ["pipe", "pipe_behind_odd_bytes", "named_pipe", "socket", "datagram", "packet"] {
        kept_by("use_kernel", place);
    }
    never_kept("read_from_pipe");
}

#[test]
fn blocks_keep_blocks_and_freed_ones_do_not() {
    run("block", "").expect_clean();
    never_kept("forgotten_by_block");
    never_kept("freed_block");
}

#[test]
fn bytes_that_nobody_has_asked_for_keep_nothing() {
    never_kept("in_slack");
    run("in_slack_that_is_asked_for", "").expect_clean();
}

#[test]
fn pointers_that_are_not_to_the_start() {
    for place in ["to_the_middle", "to_the_end", "with_tag"] {
        kept_by("use_globals", place);
    }
}

#[test]
fn pointers_in_disguise_keep_a_block_and_are_named() {
    let in_words = ["timer_with_tag", "epoll_with_tag"].map(|place| ("use_kernel", place));
    let in_words = in_words.into_iter().chain([("use_registers", "register_with_tag")]);
    let in_globals = [
        "mangled",
        "with_high_tag",
        "with_tags_at_both_ends",
        "in_packed",
        "shifted_by_1",
        "shifted_by_2",
        "shifted_by_3",
        "counted_from_one",
        "ints_from_one",
    ]
    .map(|place| ("use_globals", place));
    for (class, place) in in_globals.into_iter().chain(in_words) {
        kept_by(class, place);
        let report = run(place, "").report();
        let [unseen] = &report.last().unseen[..] else { panic!("{place}: {report:?}") };
        assert_eq!((unseen.what.as_str(), unseen.count), ("disguised", 1), "{place}: {report:?}");
    }
    // A plain pointer is none in disguise.
    assert_eq!(run("bss", "").report().last().unseen.len(), 0);
}

#[test]
fn a_pointer_to_the_end_of_a_block_is_none_to_before_the_next() {
    let outcome = run("end_of_another", "");
    outcome.expect_leaks(1, 1337);
    // The other one is possible.
    assert_eq!(run("end_of_another", "use_globals=0").report().total(), (2, 1337 + 5000));
}

#[test]
fn parts_of_a_table_known_by_where_their_item_zero_would_be() {
    const ALL: u64 = (8 << 12) - 8;
    for allocator in ["own", "bundled"] {
        let run = |lost: &str, options: &str| {
            program("tables.c").arg(lost).options(&format!("allocator={allocator}:{options}")).run()
        };
        let kept = run("nothing", "");
        kept.expect_clean();
        assert!(kept.report().last().unseen.iter().any(|unseen| unseen.what == "disguised"), "{kept:?}");
        run("part", "").expect_leaks(1, 2048);
        assert_eq!(run("nothing", "use_globals=0").report().total_through("make"), (12, ALL));
        assert_eq!(run("rest", "").report().total_through("make"), (12, ALL));
        for part in 0..12 {
            run(&part.to_string(), "").expect_clean();
        }
    }
}

#[test]
fn pointers_beside_each_other_are_no_table() {
    for allocator in ["own", "bundled"] {
        program("pairs_of_pointers.c").options(&format!("allocator={allocator}")).run().expect_leaks(50, 50 * 32);
    }
}

/// As fontconfig's patterns hold them. Of another program's blocks such a number is one.
#[test]
fn offsets_from_the_block_that_holds_them() {
    let library = source("offsets_library.c");
    let run = |fate: &str, options: &str| program("offsets.c").arg(&library).arg(fate).options(options).run();
    let kept = run("kept", "");
    kept.expect_clean();
    let report = kept.report();
    let [unseen] = &report.last().unseen[..] else { panic!("{report:?}") };
    assert_eq!((unseen.what.as_str(), unseen.count), ("disguised", 2), "{report:?}");
    run("lost", "").expect_leaks(2, 1444);
    run("here", "").expect_leaks(2, 1444);
    assert_eq!(run("kept", "use_globals=0").report().total_through("FcPatternCreate"), (3, 1460));
}

/// Where no stack says whose a block is, its looks do.
#[test]
fn offsets_in_samples() {
    let library = source("offsets_library.c");
    for options in ["sample=1g", "sample=1g:zero=1", "sample=1g:allocator=bundled"] {
        let run = |fate: &str| program("offsets.c").arg(&library).arg(fate).options(options).run();
        run("kept").expect_clean();
        run("lost").expect_leaks(2, 1444);
        run("here").expect_leaks(2, 1444);
    }
}
