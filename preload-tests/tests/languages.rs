//! Programs in other languages than C: exact there too.

use harness::program;

#[test]
fn rust() {
    let outcome = program("zoo.rs").run_as_bare();
    let report = outcome.ok().report();
    assert_eq!(report.total_through("zoo::forget_a_vector"), (1, 1337), "{report:?}");
    let (blocks, _) = report.total_through("zoo::tie_a_cycle");
    assert_eq!((blocks, report.total().0), (2, 3), "{report:?}");
    assert_eq!((report.summary.direct.blocks, report.summary.indirect.blocks), (2, 1), "{report:?}");
}

#[test]
fn python() {
    for allocator in ["malloc", "pymalloc"] {
        let app = |lost: &str| program("zoo.py").arg(lost).env("PYTHONMALLOC", allocator);
        let outcome = app("0").run_as_bare();
        let report = outcome.ok().report();
        assert_eq!(report.total_through("ffi_call"), (0, 0), "{report:?}");
        let report = app("7").run_as_bare().report();
        let lost: Vec<_> = report.leaks.iter().filter(|leak| leak.bytes / leak.blocks == 13337).collect();
        let blocks: u64 = lost.iter().map(|leak| leak.blocks).sum();
        // The last one's address may stand in the interpreter's memory yet.
        assert!((6..=7).contains(&blocks), "{report:?}");
    }
}
