//! The symbol tables of ELF files as one sorted list: what names an address where there is no debug info.

use object::{Object, ObjectSymbol, SymbolKind, SymbolSection};

#[derive(Debug)]
struct Row {
    start: u64,
    /// 0: unknown, as with much hand-written assembly; it then reaches to the next symbol.
    size: u64,
    /// Of several names for one place, the one that programs call: global before local, without leading underscores.
    rank: u8,
    name: &'static str,
}

/// Functions by address.
#[derive(Debug, Default)]
pub struct Symbols {
    rows: Vec<Row>,
    /// The largest end of the rows up to each: says when no earlier row can reach an address.
    reach: Vec<u64>,
}

impl Symbols {
    /// Takes the first of `files` whose symbol table has functions, and adds the dynamic ones of the first that has any:
    /// packed symbol tables (`.gnu_debugdata`) leave those out.
    pub fn read(files: &[&object::File<'static>]) -> Self {
        let full = files.iter().map(|file| rows(file.symbols())).find(|rows| !rows.is_empty());
        let dynamic = files.iter().map(|file| rows(file.dynamic_symbols())).find(|rows| !rows.is_empty());
        let mut rows: Vec<Row> = full.into_iter().chain(dynamic).flatten().collect();
        rows.sort_by(|a, b| (a.start, a.rank, a.name).cmp(&(b.start, b.rank, b.name)));
        rows.dedup_by(|later, first| (later.start, later.size) == (first.start, first.size));
        let mut reached = 0;
        let reach = rows.iter().map(|row| {
            reached = row.end().max(reached);
            reached
        });
        let reach = reach.collect();
        Self { rows, reach }
    }

    /// The innermost function that covers the address.
    pub fn find(&self, address: u64) -> Option<&'static str> {
        let after = self.rows.partition_point(|row| row.start <= address);
        let mut unsized_name = None;
        for at in (0..after).rev() {
            let row = &self.rows[at];
            if row.size == 0 && at + 1 == after {
                unsized_name = Some(row.name);
            }
            if address < row.end() {
                return Some(row.name);
            }
            if self.reach[at] <= address {
                break;
            }
        }
        unsized_name
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.rows.iter().map(|row| row.name)
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl Row {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

fn rows<'file>(symbols: impl Iterator<Item = object::Symbol<'static, 'file>>) -> Vec<Row> {
    symbols
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.section() != SymbolSection::Undefined)
        .filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty())?;
            let underscores = name.bytes().take_while(|&byte| byte == b'_').count().min(3) as u8;
            let rank = underscores + if symbol.is_global() { 0 } else { 4 };
            Some(Row { start: symbol.address(), size: symbol.size(), rank, name })
        })
        .filter(|row| row.start != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(rows: &[(u64, u64, &'static str)]) -> Symbols {
        let rows: Vec<_> = rows.iter().map(|&(start, size, name)| Row { start, size, rank: 0, name }).collect();
        let mut reached = 0;
        let reach = rows.iter().map(|row| {
            reached = row.end().max(reached);
            reached
        });
        let reach = reach.collect();
        Symbols { rows, reach }
    }

    #[test]
    fn the_innermost_covering_symbol_wins_and_gaps_have_no_name() {
        let symbols = symbols(&[(10, 30, "outer"), (12, 4, "inner"), (50, 0, "assembly"), (60, 5, "last")]);
        assert_eq!(symbols.find(9), None);
        assert_eq!(symbols.find(13), Some("inner"));
        assert_eq!(symbols.find(20), Some("outer"));
        assert_eq!(symbols.find(45), None);
        assert_eq!(symbols.find(55), Some("assembly"));
        assert_eq!(symbols.find(64), Some("last"));
        assert_eq!(symbols.find(65), None);
    }
}
