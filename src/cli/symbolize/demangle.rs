//! Rust and C++ names as people write them.

/// The readable form, or the name itself where it is not mangled. A symbol version (`memcpy@@GLIBC_2.14`) is cut off.
pub fn demangle(name: &str) -> String {
    let name = match name.find('@') {
        Some(at) if at > 0 => &name[..at],
        _ => name,
    };
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    // The demangler's own limit on recursion is 96; without one, a made-up name could overflow the stack.
    let options = cpp_demangle::ParseOptions::default().recursion_limit(96);
    name.starts_with("_Z")
        .then(|| cpp_demangle::BorrowedSymbol::new_with_options(name.as_bytes(), &options).ok())
        .flatten()
        .and_then(|symbol| symbol.demangle().ok())
        .unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn names_become_readable() {
        assert_eq!(demangle("malloc"), "malloc");
        assert_eq!(demangle("memcpy@@GLIBC_2.14"), "memcpy");
        assert_eq!(demangle("_ZN3foo3barEiPKc"), "foo::bar(int, char const*)");
        assert_eq!(demangle("_ZN5alloc5alloc8allocate17h0123456789abcdefE"), "alloc::alloc::allocate");
        assert_eq!(demangle("_RNvC6_123foo3bar"), "123foo::bar");
        assert_eq!(demangle("_Znot_a_name"), "_Znot_a_name");
    }
}
