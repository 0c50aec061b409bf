//! Pointers that libc, the kernel or a thread has in trust for the program, and pointers that are mixed with other numbers.

use harness::{Outcome, Unseen, program};

fn run(holder: &str, fate: &str, stop: &str, options: &str) -> Outcome {
    let options = format!("interval=0:scan_at_exit=0:stop={stop}:{options}");
    let outcome = program("holders.c").args([holder, fate]).options(&options).run();
    assert_eq!(outcome.ok().report().triggers(), ["api", "api"], "{outcome:?}");
    outcome
}

/// Kept in both scans, but not without these classes of roots; lost, it is the only leak.
fn held(without: &str, holders: &[&str]) {
    for holder in holders {
        let blocks = ["thread_timer", "in_flight"].contains(holder);
        for stop in ["ptrace", "signal"] {
            let outcome = run(holder, "keep", stop, "");
            for scan in 1..=2 {
                let report = outcome.report_of_scan(scan);
                assert_eq!(report.total(), (0, 0), "{holder} {stop}: {report:?}");
            }
            let lost = run(holder, "lose", stop, "");
            // libc's own thread for timers, and one that is about to start, block all signals.
            if stop == "signal" && blocks {
                lost.expect_suspected(1, 1337);
            } else {
                lost.expect_leaks(1, 1337);
            }
            let report = run(holder, "keep", stop, without).report();
            assert_eq!(report.total_through("make"), (1, 1337), "{holder} {stop} {without}: {report:?}");
        }
    }
}

#[test]
fn arguments_of_functions_at_exit() {
    held("use_globals=0", &["on_exit", "cxa_atexit"]);
}

/// The kernel has the address of libc's own block for it, and so has a list of libc's.
#[test]
fn argument_of_a_timer_that_calls_a_function() {
    held("use_kernel=0:use_globals=0", &["thread_timer"]);
}

#[test]
fn argument_of_a_thread_that_has_not_come_to_its_routine() {
    held("use_stacks=0", &["in_flight"]);
}

#[test]
fn stack_that_the_program_has_made_for_a_thread() {
    held("use_stacks=0", &["given_mapping"]);
    // What leads to the block leads to all that is in it.
    held("use_stacks=0:use_globals=0:use_registers=0:use_tls=0", &["given_block"]);
}

/// Its stack is a mapping like others as far as anybody knows, and the signal's frame is on it.
#[test]
fn thread_that_libc_does_not_know() {
    held("use_stacks=0", &["raw_stack"]);
    held("use_registers=0:use_mappings=0", &["raw_register"]);
}

/// A server's with thousands of connections.
#[test]
fn data_of_epoll_behind_thousands() {
    held("use_kernel=0", &["epoll_behind_many"]);
}

/// Those are closed in the copy that hold nothing, where no descriptor is left to look at the others by.
#[test]
fn data_of_epoll_where_every_descriptor_is_in_use() {
    held("use_kernel=0", &["epoll_among_outputs", "epoll_among_devices", "epoll_under_low_limit"]);
    // Something has to be closed: nothing is confirmed without it.
    for (fate, stop) in ["keep", "lose"].into_iter().flat_map(|fate| [(fate, "ptrace"), (fate, "signal")]) {
        let report = run("epoll_among_epolls", fate, stop, "").report();
        assert_eq!((report.total(), report.summary.confirmed.blocks), ((1, 1337), 0), "{fate} {stop}: {report:?}");
        let told = |unseen: &Unseen| unseen.what == "descriptor" && unseen.why.contains("nothing is confirmed");
        assert_eq!(report.last().unseen.iter().filter(|unseen| told(unseen)).count(), 1, "{report:?}");
    }
}

#[test]
fn bytes_in_the_tail_of_a_large_pipe() {
    held("use_kernel=0", &["pipe_behind_100k", "pipe_behind_900k", "pipe_across_pieces"]);
}

#[test]
fn bytes_in_a_later_packet_of_a_pipe() {
    held("use_kernel=0", &["second_packet"]);
}

/// At the end of a program with one thread its own descriptors are looked at, among them a pipe that it only writes to, and files.
#[test]
fn bytes_that_it_cannot_read_are_not_missed_at_its_end() {
    let lost = program("holders.c").args(["written_pipe", "lose"]).options("interval=0").run();
    let report = lost.ok().report();
    assert_eq!(report.triggers(), ["api", "api", "exit"], "{report:?}");
    assert!(report.scans.iter().all(|scan| scan.unseen.is_empty()), "{report:?}");
    lost.expect_leaks(1, 1337);
}

#[test]
fn bytes_in_the_tail_of_a_full_socket() {
    held("use_kernel=0", &["socket_behind_240k"]);
}

/// The kernel shows them to nobody who leaves the socket as it is.
#[test]
fn bytes_in_a_socket_that_cannot_be_looked_at_confirm_nothing() {
    for holder in ["socket_behind_rights", "second_message", "marked_socket"] {
        for (fate, stop) in ["keep", "lose"].into_iter().flat_map(|fate| [(fate, "ptrace"), (fate, "signal")]) {
            let report = run(holder, fate, stop, "").report();
            let found = (report.total(), report.summary.confirmed.blocks);
            assert_eq!(found, ((1, 1337), 0), "{holder} {fate} {stop}: {report:?}");
            let told = |unseen: &Unseen| unseen.what == "waiting-bytes" && unseen.why.contains("nothing is confirmed");
            assert_eq!(report.last().unseen.iter().filter(|unseen| told(unseen)).count(), 1, "{report:?}");
        }
    }
}

/// The kernel shows it to a debugger alone: where there may be none, nothing is confirmed.
#[test]
fn value_of_a_standard_signal_that_waits() {
    for holder in ["waiting_signal", "waiting_signal_of_thread"] {
        assert_eq!(run(holder, "keep", "ptrace", "").report().total(), (0, 0), "{holder}");
        run(holder, "lose", "ptrace", "").expect_leaks(1, 1337);
        run(holder, "keep", "ptrace", "use_kernel=0").expect_leaks(1, 1337);
        for fate in ["keep", "lose"] {
            let report = run(holder, fate, "signal", "").report();
            let found = (report.total(), report.summary.confirmed.blocks);
            assert_eq!(found, ((1, 1337), 0), "{holder} {fate}: {report:?}");
            let unseen: Vec<_> = report.last().unseen.iter().map(|unseen| unseen.what.as_str()).collect();
            assert_eq!(unseen, ["pending-signal"], "{holder} {fate}: {report:?}");
        }
    }
}

/// Those that the kernel itself sends wait in many a server, for ever.
#[test]
fn signal_that_the_kernel_has_sent_is_none_whose_value_is_missed() {
    for stop in ["ptrace", "signal"] {
        let outcome = run("broken_pipe", "lose", stop, "");
        outcome.expect_leaks(1, 1337);
        assert!(outcome.report().scans.iter().all(|scan| scan.unseen.is_empty()), "{outcome:?}");
    }
}

/// The secret is the thread's; the block counts as kept, and is named.
#[test]
fn pointer_that_is_mixed_with_the_secret_of_the_thread() {
    held("use_globals=0", &["mixed_with_secret"]);
    let report = run("mixed_with_secret", "keep", "auto", "").report();
    let [unseen] = &report.last().unseen[..] else { panic!("{report:?}") };
    assert_eq!((unseen.what.as_str(), unseen.count), ("disguised", 1), "{report:?}");
}

/// As the README says, what is mixed with a number that nobody else knows is a leak, though it is none.
#[test]
fn pointer_that_is_mixed_with_another_number() {
    for holder in ["mixed_with_number", "xor_list"] {
        for fate in ["keep", "lose"] {
            run(holder, fate, "auto", "").expect_leaks(1, 1337);
        }
    }
}
