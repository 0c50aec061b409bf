//! The options of `LEAKSCAN_OPTIONS` and `leakscan run`. A leaf: no_std, no allocation, no dependencies.
//!
//! One table, [`TABLE`], gives the library its parser and the command line its flags, its `--help` and the README section.
#![cfg_attr(not(test), no_std)]

/// What an option's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `0` or `1`.
    Switch,
    /// A count within bounds.
    Number { min: u64, max: u64 },
    /// Bytes; takes the suffixes k, m and g.
    Bytes,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Free text.
    Text,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    pub kind: Type,
    pub default: &'static str,
    pub help: &'static str,
}

macro_rules! options {
    ($($field:ident: $rust:ty = $kind:expr, $default:literal, $help:literal;)+) => {
        /// Every option, in the order of `--help`.
        pub const TABLE: &[Row] =
            &[$(Row { name: stringify!($field), kind: $kind, default: $default, help: $help }),+];

        /// The values of all options. Text values point into what was parsed.
        #[derive(Clone, Copy, Debug)]
        pub struct Options<'a> { $(pub $field: <$rust as Value<'a>>::Out),+ }

        impl<'a> Options<'a> {
            fn set(&mut self, name: &str, value: &'a str) -> Result<(), Fault> {
                match name {
                    $(stringify!($field) => {
                        self.$field = <$rust as Value<'a>>::parse($kind, value).ok_or(Fault::Value)?;
                        Ok(())
                    })+
                    _ => Err(Fault::Name),
                }
            }
        }

        impl Default for Options<'_> {
            fn default() -> Self {
                Options { $($field: <$rust as Value<'_>>::parse($kind, $default).expect("a default parses (tested)")),+ }
            }
        }
    };
}

options! {
    interval: u64 = Type::Number { min: 0, max: 31_536_000 }, "60",
        "seconds between scans of the running program; 0: none";
    sample: u64 = Type::Bytes, "0",
        "record the stack of one allocation per so many bytes on average; 0: of every allocation";
    directed: bool = Type::Switch, "1",
        "with sample: once a scan finds lost blocks without a stack, record the stack of every block of their sizes";
    depth: u64 = Type::Number { min: 1, max: 64 }, "64", "frames recorded per stack";
    scan_at_exit: bool = Type::Switch, "1", "scan when the program ends";
    fatal: bool = Type::Switch, "1",
        "scan when a signal ends the program, too (SIGSEGV, SIGTERM and their like), by handlers of ours where it has none";
    signal: u64 = Type::Number { min: 1, max: 64 }, "58",
        "the signal by which `leakscan scan` asks for a scan, and by which threads are stopped where ptrace is refused";
    stop: str = Type::Choice(&["auto", "ptrace", "signal"]), "auto",
        "how threads are stopped: `ptrace`, `signal`, or `auto` (ptrace, and the signal where it is refused)";
    deadline: u64 = Type::Number { min: 1, max: 86_400 }, "120", "seconds after which a scan is given up";
    log_path: str = Type::Text, "/tmp/leakscan.%p", "the report file; %p is the pid, %e the program's name, %% a percent sign";
    quiet: bool = Type::Switch, "0", "never write to stderr, not even when the report cannot be written";
    follow: bool = Type::Switch, "1", "1: programs that this one starts are watched too; 0: take us out of their environment";
    deepbind: bool = Type::Switch, "1",
        "1: RTLD_DEEPBIND stays as the program gives it to dlopen; 0: taken out, so that such a library's blocks are seen";
    allocator: str = Type::Choice(&["own", "bundled"]), "own",
        "`own`: the program's allocator; `bundled`: a heap of ours for small blocks, which is faster";
    zero: str = Type::Choice(&["0", "used", "1"]), "used",
        "clear new blocks, so that no stale pointer in them keeps a lost one: `used`: those of 129 bytes to 8 KiB where there were blocks before, and the last word of smaller ones; `1`: all; `0`: none";
    use_globals: bool = Type::Switch, "1", "roots: data of the program and its libraries";
    use_stacks: bool = Type::Switch, "1", "roots: thread stacks";
    use_registers: bool = Type::Switch, "1", "roots: registers, vector registers included";
    use_tls: bool = Type::Switch, "1", "roots: thread-local storage";
    use_mappings: bool = Type::Switch, "1", "roots: anonymous, shared and file mappings that are not the allocator's";
    use_kernel: bool = Type::Switch, "1", "roots: pointers that the kernel keeps for the program (epoll, timers, values of waiting signals, bytes in pipes and local sockets)";
    possible: bool = Type::Switch, "0", "list blocks that are reached only through pointers into their middle";
    unwind_check: u64 = Type::Number { min: 0, max: u64::MAX }, "0",
        "for testing: compare every Nth stack with that of libgcc's unwinder and count the differences; 0: never";
    forget: u64 = Type::Number { min: 0, max: u64::MAX }, "0",
        "for testing: leave every Nth free out and count how many of these leaks are found; 0: none";
}

/// The Rust side of a [`Type`].
pub trait Value<'a> {
    type Out;
    fn parse(kind: Type, text: &'a str) -> Option<Self::Out>;
}

impl<'a> Value<'a> for bool {
    type Out = bool;
    fn parse(_: Type, text: &'a str) -> Option<bool> {
        match text {
            "0" | "false" | "no" => Some(false),
            "1" | "true" | "yes" => Some(true),
            _ => None,
        }
    }
}

impl<'a> Value<'a> for u64 {
    type Out = u64;
    fn parse(kind: Type, text: &'a str) -> Option<u64> {
        match kind {
            Type::Bytes => bytes(text),
            Type::Number { min, max } => text.parse().ok().filter(|value| (min..=max).contains(value)),
            Type::Switch | Type::Choice(_) | Type::Text => None,
        }
    }
}

impl<'a> Value<'a> for str {
    type Out = &'a str;
    fn parse(kind: Type, text: &'a str) -> Option<&'a str> {
        let taken = match kind {
            Type::Choice(words) => words.contains(&text),
            _ => !text.is_empty(),
        };
        taken.then_some(text)
    }
}

fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (&text[..text.len() - 1], 10),
        b'm' => (&text[..text.len() - 1], 20),
        b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Name,
    Value,
}

/// A part of the option text that could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error<'a> {
    /// `name=value` as it was written.
    pub part: &'a str,
    /// No option has this name; otherwise the value is not one that the option takes.
    pub unknown_name: bool,
}

impl core::fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = self.part.split('=').next().unwrap_or("");
        match TABLE.iter().find(|row| row.name == name) {
            Some(row) => write!(f, "`{}`: `{}` takes {}", self.part, row.name, row.kind),
            None => write!(f, "`{}`: there is no option `{name}`", self.part),
        }
    }
}

impl core::fmt::Display for Type {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Type::Switch => write!(f, "0 or 1"),
            Type::Number { min, max } if *max == u64::MAX => write!(f, "a number from {min}"),
            Type::Number { min, max } => write!(f, "a number from {min} to {max}"),
            Type::Bytes => write!(f, "a number of bytes, as in 4096 or 512k"),
            Type::Choice(words) => words
                .iter()
                .enumerate()
                .try_for_each(|(at, word)| write!(f, "{}{word}", if at == 0 { "" } else { " or " })),
            Type::Text => write!(f, "text"),
        }
    }
}

/// Parses `name=value:name=value` (the sanitizers' syntax; a comma or a space separates too, so no value holds one).
/// What cannot be taken goes to `fault` and leaves that option as it was.
pub fn parse<'a>(text: &'a str, mut fault: impl FnMut(Error<'a>)) -> Options<'a> {
    let mut options = Options::default();
    for part in text.split([':', ' ', ',']).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if let Err(error) = options.set(name, value) {
            fault(Error { part, unknown_name: error == Fault::Name });
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_parse_and_are_the_documented_ones() {
        let options = Options::default();
        assert_eq!((options.interval, options.sample, options.depth), (60, 0, 64));
        assert_eq!(options.log_path, "/tmp/leakscan.%p");
        assert!(options.scan_at_exit && options.follow && options.use_globals && !options.quiet);
    }

    #[test]
    fn values_are_taken_and_faults_named() {
        let mut faults = Vec::new();
        let options = parse("interval=5:sample=512k:bad=1:depth=99:quiet=1:stop=never:signal", |fault| {
            faults.push(fault.to_string())
        });
        assert_eq!((options.interval, options.sample, options.depth), (5, 512 << 10, 64));
        assert!(options.quiet);
        assert_eq!(
            faults,
            [
                "`bad=1`: there is no option `bad`",
                "`depth=99`: `depth` takes a number from 1 to 64",
                "`stop=never`: `stop` takes auto or ptrace or signal",
                "`signal`: `signal` takes a number from 1 to 64"
            ]
        );
    }
}
