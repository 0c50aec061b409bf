//! Collapsed stacks, `root;...;leaf BYTES`, one line a stack: the input of flame graph tools.

use crate::args::View;
use crate::model::{Leak, Report, Stack};
use crate::select::select;
use crate::symbolize::{Symbolizer, short_name};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Writes the leaks of one scan. Stacks that read the same are one line.
///
/// # Errors
/// Those of `out`.
pub fn write(
    out: &mut dyn Write,
    report: &Report,
    number: Option<u32>,
    view: &View,
    symbolizer: &mut Symbolizer,
) -> io::Result<()> {
    let Some(scan) = report.scan(number) else { return Ok(()) };
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for leak in select(scan, view).shown {
        let bytes = lines.entry(line(report, leak, symbolizer)).or_default();
        *bytes = bytes.saturating_add(leak.bytes);
    }
    for (stack, bytes) in lines {
        writeln!(out, "{stack} {bytes}")?;
    }
    Ok(())
}

fn line(report: &Report, leak: &Leak, symbolizer: &mut Symbolizer) -> String {
    match leak.stack {
        Stack::None => return "[no stack was recorded]".into(),
        Stack::Lost(_) => return "[stack lost in a damaged scan]".into(),
        Stack::Known(_) => {}
    }
    let mut names = Vec::new();
    for &frame in report.frames(leak.stack).iter().rev() {
        for symbol in symbolizer.frame(report, frame).iter().rev() {
            names.push(match (&symbol.function, frame.module) {
                (Some(function), _) => plain(function),
                (None, Some(module)) => {
                    plain(&format!("{}+0x{:x}", short_name(&report.modules[module].path), frame.offset))
                }
                (None, None) => format!("0x{:x}", frame.offset),
            });
        }
    }
    names.join(";")
}

/// A name without what the format uses itself.
fn plain(name: &str) -> String {
    name.chars().map(|letter| if letter == ';' || letter.is_control() { '_' } else { letter }).collect()
}
