//! A report as text for people: verdict first, then the largest leaks with their stacks, then what was not seen.

use crate::args::View;
use crate::hints;
use crate::misuse;
use crate::model::{Frame, Leak, Report, Scan, Stack};
use crate::names::shorten;
use crate::paint::{BOLD, CYAN, DIM, GREEN, Paint, RED, YELLOW, printable};
use crate::select::select;
use crate::symbolize::{Symbol, Symbolizer, short_name};
use crate::units::{bytes, count, counted, date, micros, signed};
use leakscan_report::{Kind, Status, Trigger, Wrong};
use std::collections::HashSet;
use std::io::{self, Write};

/// Function names are padded to the longest of their stack, up to this; longer ones stand out.
const NAME_COLUMN: usize = 44;

/// Writes one scan of the report: `number`, or the last whole one.
///
/// # Errors
/// Those of `out`.
pub fn write(
    out: &mut dyn Write,
    report: &Report,
    number: Option<u32>,
    view: &View,
    symbolizer: &mut Symbolizer,
    paint: Paint,
) -> io::Result<()> {
    let process = &report.process;
    let what = if process.args.is_empty() { &process.exe } else { &process.args };
    let title = format!("leakscan report: {}", printable(what.trim_end()));
    writeln!(out, "{}  (pid {})", paint.with(BOLD, title), process.pid)?;
    let Some(scan) = report.scan(number) else {
        writeln!(out, "  no whole scan stands in this report yet")?;
        return faults(out, report, paint);
    };
    header(out, report, scan)?;
    verdict(out, scan, paint)?;
    let selection = select(scan, view);
    for (at, leak) in selection.shown.iter().enumerate() {
        leak_rows(out, report, leak, at + 1, symbolizer, paint)?;
    }
    if selection.left_out > 0 || !selection.other_kinds.is_empty() {
        writeln!(out)?;
    }
    if selection.left_out > 0 {
        let more = counted(selection.left_out as u64, "more leak");
        writeln!(out, "{}", paint.with(DIM, format!("{more} not shown (-n N or --all shows them)")))?;
    }
    for (kind, stacks, blocks, size) in selection.other_kinds {
        let line = format!(
            "{} {} leaks not shown: {}, {} (--kind {} or --all shows them)",
            count(stacks as u64),
            kind.word(),
            counted(blocks, "block"),
            bytes(size),
            kind.word()
        );
        writeln!(out, "{}", paint.with(DIM, if stacks == 1 { line.replacen("leaks", "leak", 1) } else { line }))?;
    }
    check(out, scan, paint)?;
    misuses(out, report, scan, symbolizer, paint)?;
    unseen(out, scan, paint)?;
    faults(out, report, paint)?;
    hints::write(out, report, symbolizer, paint)
}

fn header(out: &mut dyn Write, report: &Report, scan: &Scan) -> io::Result<()> {
    let stats = &scan.stats;
    let which = match report.scans.last() {
        Some(last) if std::ptr::eq(last, scan) => format!("last by {}", scan.trigger.word()),
        _ => format!("this is scan {}, by {}", scan.number, scan.trigger.word()),
    };
    writeln!(
        out,
        "  {}, {which}, {}; pause {}, scan {} ms",
        counted(report.scans.len() as u64, "scan"),
        date(scan.time),
        micros(stats.pause_us),
        count(stats.scan_ms)
    )?;
    writeln!(
        out,
        "  scanned {}, {}, {} of roots, {}",
        counted(stats.live_blocks, "live block"),
        bytes(stats.live_bytes),
        bytes(stats.root_bytes),
        counted(stats.threads, "thread")
    )
}

fn verdict(out: &mut dyn Write, scan: &Scan, paint: Paint) -> io::Result<()> {
    let of = |status| scan.leaks.iter().filter(move |leak| leak.status == status && leak.kind != Kind::Possible);
    let line = |status| {
        let (blocks, size) = scan.leaked(status);
        let stacks = counted(of(status).map(|leak| leak.stack).collect::<HashSet<_>>().len() as u64, "stack");
        (blocks > 0).then(|| format!("{}, {} in {stacks}", counted(blocks, "block"), bytes(size)))
    };
    let (confirmed, suspected) = (line(Status::Confirmed), line(Status::Suspected));
    if let Some(text) = &confirmed {
        writeln!(out, "  {}", paint.with(RED, format!("leaked: {text} (confirmed)")))?;
    }
    if let Some(text) = &suspected {
        let never = scan.unseen.iter().any(|unseen| unseen.why.contains("nothing is confirmed"));
        let when = if never || scan.trigger == Trigger::Seccomp {
            "not to be confirmed: below is why"
        } else {
            "the next scan will tell"
        };
        writeln!(out, "  {}", paint.with(YELLOW, format!("suspected: {text} ({when})")))?;
    }
    if confirmed.is_none() && suspected.is_none() {
        let holes = if scan.unseen.is_empty() { "" } else { ", in what was seen (below is what was not)" };
        writeln!(out, "  {}", paint.with(GREEN, format!("no leaks{holes}")))?;
    }
    if !scan.trigger.is_last() && confirmed.is_none() && suspected.is_some() {
        writeln!(out, "  nothing is confirmed yet: a block must be unreachable in two scans, or at exit")?;
    }
    Ok(())
}

fn leak_rows(
    out: &mut dyn Write,
    report: &Report,
    leak: &Leak,
    rank: usize,
    symbolizer: &mut Symbolizer,
    paint: Paint,
) -> io::Result<()> {
    let status = paint.with(if leak.status == Status::Confirmed { RED } else { YELLOW }, leak.status.word());
    let size = paint.with(BOLD, size(leak));
    write!(out, "\n{}  {}  {status}   {size}", paint.with(BOLD, format!("#{rank}")), leak.kind.word())?;
    if let Some(history) = history(report, leak) {
        write!(out, "   {history}")?;
    }
    if leak.indirect_blocks > 0 {
        write!(out, "   keeps {} more, {}", counted(leak.indirect_blocks, "block"), bytes(leak.indirect_bytes))?;
    }
    writeln!(out)?;
    stack(out, report, leak.stack, symbolizer, paint)
}

/// Blocks and bytes; of an estimate, with the interval that the truth is in in 19 of 20 cases.
fn size(leak: &Leak) -> String {
    let (blocks, total) = (counted(leak.blocks, "block"), bytes(leak.bytes));
    let off = |error: u64| (error as f64 * 1.96).ceil() as u64;
    match (leak.exact, leak.error_blocks) {
        (true, _) => format!("{blocks}   {total}"),
        (false, 0) => format!("about {blocks}   {total}"),
        (false, error) => {
            format!("about {blocks} ± {}   {total} ± {}", count(off(error)), bytes(off(leak.error_bytes)))
        }
    }
}

fn stack(
    out: &mut dyn Write,
    report: &Report,
    stack: Stack,
    symbolizer: &mut Symbolizer,
    paint: Paint,
) -> io::Result<()> {
    match stack {
        Stack::None => writeln!(out, "      (no stack was recorded for these)"),
        Stack::Lost(id) => writeln!(out, "      (stack {id} is lost: it stood in a damaged scan)"),
        Stack::Known(_) => frames(out, report, report.frames(stack), symbolizer, paint),
    }
}

fn history(report: &Report, leak: &Leak) -> Option<String> {
    let first = report.scans.first()?.number;
    if report.scans.len() < 2 {
        None
    } else if leak.first_scan > first {
        Some(format!("new since scan {}", leak.first_scan))
    } else {
        Some(format!("{} since scan {first}", signed(leak.growth.blocks)))
    }
}

fn frames(
    out: &mut dyn Write,
    report: &Report,
    frames: &[Frame],
    symbolizer: &mut Symbolizer,
    paint: Paint,
) -> io::Result<()> {
    let mut rows = Vec::new();
    for &frame in frames {
        for symbol in symbolizer.frame(report, frame).iter() {
            rows.push((name(report, frame, symbol), place(report, frame, symbol)));
        }
    }
    if rows.is_empty() {
        writeln!(out, "      (the stack is empty)")?;
    }
    let width = rows.iter().map(|(name, _)| name.chars().count()).filter(|&width| width <= NAME_COLUMN).max();
    let width = width.unwrap_or(NAME_COLUMN);
    for (name, place) in rows {
        let pad = width.saturating_sub(name.chars().count());
        match place {
            Some(place) => writeln!(out, "      {}{:pad$}  {}", paint.with(CYAN, name), "", paint.with(DIM, place))?,
            None => writeln!(out, "      {name}")?,
        }
    }
    Ok(())
}

fn name(report: &Report, frame: Frame, symbol: &Symbol) -> String {
    let inlined = if symbol.inlined { " (inlined)" } else { "" };
    match &symbol.function {
        Some(function) => format!("{}{inlined}", printable(&shorten(function))),
        None if symbol.inlined => format!("?{inlined}"),
        None => bare(report, frame),
    }
}

/// The file and line or, where there are none but a name, the module that the name is from.
fn place(report: &Report, frame: Frame, symbol: &Symbol) -> Option<String> {
    match (&symbol.file, symbol.line) {
        (Some(file), Some(line)) => Some(printable(&format!("{file}:{line}"))),
        (Some(file), None) => Some(printable(file)),
        (None, _) => symbol.function.as_ref().map(|_| bare(report, frame)),
    }
}

fn bare(report: &Report, frame: Frame) -> String {
    match frame.module.and_then(|index| report.modules.get(index)) {
        Some(module) => printable(&format!("{}+0x{:x}", short_name(&module.path), frame.offset)),
        None => format!("0x{:x} (in no file)", frame.offset),
    }
}

/// The permanent self-check: it says how far the verdicts of this program's scans can be trusted.
fn check(out: &mut dyn Write, scan: &Scan, paint: Paint) -> io::Result<()> {
    let (confirmed, suspected) = (scan.check.confirmed_freed, scan.check.suspected_freed);
    if confirmed == 0 && suspected == 0 {
        return Ok(());
    }
    writeln!(out, "\n{}", paint.with(BOLD, "self-check:"))?;
    if confirmed > 0 {
        let text =
            format!("{} confirmed in earlier scans, but freed later: no leaks after all", counted(confirmed, "block"));
        writeln!(out, "  {}", paint.with(YELLOW, text))?;
    }
    if suspected > 0 {
        writeln!(out, "  {} suspected in earlier scans, but freed later", counted(suspected, "block"))?;
    }
    Ok(())
}

/// Blocks freed the wrong way: no leaks, but errors all the same.
fn misuses(
    out: &mut dyn Write,
    report: &Report,
    scan: &Scan,
    symbolizer: &mut Symbolizer,
    paint: Paint,
) -> io::Result<()> {
    for told in misuse::all(report, scan, symbolizer) {
        let misuse = told.misuse;
        let blocks = counted(misuse.blocks, "block");
        let (made_by, freed_by) = (printable(told.made_by), printable(told.freed_by));
        let text = match misuse.what {
            Wrong::Mismatch => format!("{blocks} made by {made_by}, but freed by {freed_by}"),
            Wrong::DoubleFree => format!("{blocks} freed twice, the second time by {freed_by}"),
            Wrong::WildFree => format!("{} of an address that is no block's", counted(misuse.blocks, "free")),
        };
        writeln!(out, "\n{}  {}", paint.with(BOLD, "misuse:"), paint.with(RED, text))?;
        writeln!(out, "    freed:")?;
        stack(out, report, misuse.freed, symbolizer, paint)?;
        if misuse.what != Wrong::WildFree {
            writeln!(out, "    made:")?;
            stack(out, report, misuse.made, symbolizer, paint)?;
        }
    }
    Ok(())
}

fn unseen(out: &mut dyn Write, scan: &Scan, paint: Paint) -> io::Result<()> {
    if scan.unseen.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", paint.with(BOLD, "not seen:"))?;
    let counts: Vec<_> = scan.unseen.iter().map(|row| count(row.count)).collect();
    let width = counts.iter().map(String::len).max().unwrap_or(0);
    let words = scan.unseen.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
    for (row, count) in scan.unseen.iter().zip(counts) {
        writeln!(out, "  {count:>width$}  {:words$}  {}", printable(&row.what), printable(&row.why))?;
    }
    Ok(())
}

fn faults(out: &mut dyn Write, report: &Report, paint: Paint) -> io::Result<()> {
    if !report.faults.is_empty() {
        writeln!(out, "\n{}", paint.with(BOLD, "ignored:"))?;
    }
    for fault in &report.faults {
        writeln!(out, "  {}: {}", report.path.display(), paint.with(YELLOW, fault))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
