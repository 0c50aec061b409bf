//! Blocks freed the wrong way, as they are told: not where the library could only see half of it.
//!
//! A file that calls operators of its own (linked with a static C++ runtime, or by `-Bsymbolic`) goes by malloc and free there, where
//! nobody sees which operator it was; the other half of such a pair may come to ours. The stacks say it, for who has the names.

use crate::model::{Misuse, Report, Scan, Stack};
use crate::symbolize::Symbolizer;
use leakscan_report::Wrong;

/// A misuse, and by what its blocks were made and freed.
pub struct Told<'a> {
    pub misuse: &'a Misuse,
    pub made_by: &'a str,
    pub freed_by: &'a str,
}

pub fn all<'a>(report: &Report, scan: &'a Scan, symbolizer: &mut Symbolizer) -> Vec<Told<'a>> {
    scan.misuses.iter().filter_map(|misuse| told(report, misuse, symbolizer)).collect()
}

fn told<'a>(report: &Report, misuse: &'a Misuse, symbolizer: &mut Symbolizer) -> Option<Told<'a>> {
    let mut told = Told { misuse, made_by: &misuse.made_by, freed_by: &misuse.freed_by };
    if misuse.what != Wrong::Mismatch {
        return Some(told);
    }
    for (by, plain, operator, stack) in [
        (&mut told.made_by, "malloc", "operator new", misuse.made),
        (&mut told.freed_by, "free", "operator delete", misuse.freed),
    ] {
        if *by == plain {
            *by = caller(report, stack, operator, symbolizer)?.unwrap_or(plain);
        }
    }
    let family = |word: &str| word.replace("delete", "new");
    (family(told.made_by) != family(told.freed_by)).then_some(told)
}

/// Which operator called malloc or free, if one did; `None` if that is not to be told: one that calls them as its last act has no
/// frame of its own.
fn caller(report: &Report, stack: Stack, operator: &str, symbolizer: &mut Symbolizer) -> Option<Option<&'static str>> {
    let Some(&frame) = report.frames(stack).first() else { return Some(None) };
    let symbols = symbolizer.frame(report, frame);
    let rest = symbols.iter().find_map(|symbol| symbol.function.as_deref()?.strip_prefix(operator));
    match rest {
        Some(rest) => Some(Some(word(operator, rest))),
        None if symbolizer.has_operators(report, frame) => None,
        None => Some(None),
    }
}

/// As the report calls a block's family, by what follows on the name of its operator.
fn word(operator: &str, rest: &str) -> &'static str {
    match (operator, rest.contains("align_val_t"), rest.starts_with("[]")) {
        ("operator new", true, _) => "aligned new",
        ("operator new", _, true) => "new[]",
        ("operator new", ..) => "new",
        (_, true, _) => "aligned delete",
        (_, _, true) => "delete[]",
        _ => "delete",
    }
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn operators_are_told_by_their_names() {
        for (name, expected) in [
            ("operator new(unsigned long)", "new"),
            ("operator new[](unsigned long, std::nothrow_t const&)", "new[]"),
            ("operator new(unsigned long, std::align_val_t)", "aligned new"),
            ("operator delete(void*)", "delete"),
            ("operator delete[](void*, unsigned long)", "delete[]"),
            ("operator delete[](void*, std::align_val_t)", "aligned delete"),
        ] {
            let operator = if name.contains("new") { "operator new" } else { "operator delete" };
            assert_eq!(word(operator, name.strip_prefix(operator).unwrap()), expected);
        }
    }
}
