//! `log_path`, in which %p stands for the pid, %e for the program's name and %% for a percent sign: from a pattern to the
//! report files that fit it.

use leakscan_report::read;
use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Every regular file that fits, `pid` being what %p stands for where it is known.
pub fn files(pattern: &str, pid: Option<u32>) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from(if pattern.starts_with('/') { "/" } else { "" })];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let tokens = tokens(part, pid);
        found = match literal(&tokens) {
            Some(name) => found.iter().map(|folder| folder.join(&name)).collect(),
            None => found.iter().flat_map(|folder| fitting(folder, &tokens)).collect(),
        };
    }
    // A FIFO under a fitting name would block us, a symbolic link in /tmp may be anyone's.
    found.retain(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_file()));
    found.sort();
    found
}

/// The directories that must be writable for a report to appear.
pub fn folder(pattern: &str) -> &Path {
    let fixed = pattern.find('%').map_or(pattern, |at| &pattern[..at]);
    match fixed.rfind('/') {
        Some(0) => Path::new("/"),
        Some(at) => Path::new(&fixed[..at]),
        None => Path::new("."),
    }
}

/// Whose report a file is, from its header alone.
#[derive(Debug)]
pub struct Header {
    pub pid: u32,
    pub run: String,
}

/// `None` for anything that is no report.
pub fn header(path: &Path) -> Option<Header> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path).ok()?;
    let mut start = Vec::new();
    // A header is shorter: command lines end at 4096 bytes in /proc, and each may take four in the file.
    file.by_ref().take(256 << 10).read_to_end(&mut start).ok()?;
    let process = read::Report::parse(&start).ok()?.process;
    let run = read::unescape(process.run).collect::<Vec<_>>();
    Some(Header { pid: process.pid, run: String::from_utf8_lossy(&run).into_owned() })
}

#[derive(Debug, PartialEq)]
enum Token {
    Text(String),
    Digits,
    Name,
}

fn tokens(part: &str, pid: Option<u32>) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut text = String::new();
    let mut letters = part.chars();
    while let Some(letter) = letters.next() {
        let wild = match (letter, letter == '%') {
            (_, true) => match letters.next() {
                Some('p') if pid.is_none() => Token::Digits,
                Some('p') => {
                    text.push_str(&pid.unwrap_or(0).to_string());
                    continue;
                }
                Some('e') => Token::Name,
                Some('%') | None => {
                    text.push('%');
                    continue;
                }
                Some(other) => {
                    text.extend(['%', other]);
                    continue;
                }
            },
            _ => {
                text.push(letter);
                continue;
            }
        };
        if !text.is_empty() {
            tokens.push(Token::Text(std::mem::take(&mut text)));
        }
        tokens.push(wild);
    }
    if !text.is_empty() {
        tokens.push(Token::Text(text));
    }
    tokens
}

fn literal(tokens: &[Token]) -> Option<String> {
    match tokens {
        [Token::Text(text)] => Some(text.clone()),
        _ => None,
    }
}

fn fitting(folder: &Path, tokens: &[Token]) -> Vec<PathBuf> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| fits(&entry.file_name().to_string_lossy(), tokens)).map(|entry| entry.path()).collect()
}

fn fits(name: &str, tokens: &[Token]) -> bool {
    let Some((first, rest)) = tokens.split_first() else { return name.is_empty() };
    let taken = |good: fn(char) -> bool| {
        let most = name.find(|letter| !good(letter)).unwrap_or(name.len());
        (1..=most).filter(|&at| name.is_char_boundary(at)).any(|at| fits(&name[at..], rest))
    };
    match first {
        Token::Text(text) => name.strip_prefix(text.as_str()).is_some_and(|name| fits(name, rest)),
        Token::Digits => taken(|letter| letter.is_ascii_digit()),
        Token::Name => taken(|_| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns() {
        let any = |pattern: &str, name: &str| fits(name, &tokens(pattern, None));
        assert!(any("leakscan.%p", "leakscan.4242"));
        assert!(!any("leakscan.%p", "leakscan.4242.old") && !any("leakscan.%p", "leakscan."));
        assert!(any("%e-%p.log", "my-prog-17.log") && !any("%e-%p.log", "my-prog-.log"));
        assert!(any("100%%", "100%"));
        assert_eq!(tokens("a.%p", Some(7)), [Token::Text("a.7".into())]);
    }

    #[test]
    fn files_are_found_through_folders_that_are_patterns_too() {
        let place = tempfile::tempdir().unwrap();
        for folder in ["red", "blue"] {
            fs::create_dir(place.path().join(folder)).unwrap();
            fs::write(place.path().join(folder).join("r.12"), "").unwrap();
        }
        let pattern = format!("{}/%e/r.%p", place.path().display());
        assert_eq!(files(&pattern, None).len(), 2);
        assert_eq!(files(&pattern, Some(13)).len(), 0);
        assert_eq!(folder(&pattern), place.path());
        assert_eq!((folder("/leak.%p"), folder("leak")), (Path::new("/"), Path::new(".")));
    }
}
