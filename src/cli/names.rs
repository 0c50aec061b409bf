//! Function names short enough for a line of text. JSON and folded output have them whole.

/// Longer names lose their template arguments, and then their parameters.
const ENOUGH: usize = 90;

/// Template arguments that stand there by default say nothing about the program.
const DEFAULTS: [&str; 6] = [
    ", std::allocator<",
    ", std::char_traits<",
    ", std::less<",
    ", std::hash<",
    ", std::equal_to<",
    ", std::default_delete<",
];

pub fn shorten(name: &str) -> String {
    let mut name = name
        .replace("std::__cxx11::", "std::")
        .replace("std::basic_string<char, std::char_traits<char>, std::allocator<char> >", "std::string");
    // From within: the arguments of a default may have defaults themselves.
    for default in DEFAULTS {
        while let Some(at) = name.rfind(default) {
            let open = at + default.len() - 1;
            let Some(close) = closing(&name, open) else { break };
            name.replace_range(at..=close, "");
        }
    }
    while name.contains(" >") && !name.contains("operator >") {
        name = name.replace(" >", ">");
    }
    for (open, instead) in [('<', "<..>"), ('(', "(..)")] {
        if name.chars().count() > ENOUGH {
            name = collapse(&name, open, instead);
        }
    }
    name
}

/// Replaces every bracketed part that follows a name. What begins with a bracket, as `<T as Trait>` does, is the name.
fn collapse(name: &str, open: char, instead: &str) -> String {
    let mut text = String::new();
    let mut rest = name;
    while let Some(at) = rest.find(open) {
        let named = rest[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_' || letter == '>');
        let operator = rest[..at].trim_end_matches('<').ends_with("operator");
        match closing(rest, at) {
            Some(close) if named && !operator && close > at + 1 => {
                text.push_str(&rest[..at]);
                text.push_str(instead);
                rest = &rest[close + 1..];
            }
            _ => {
                text.push_str(&rest[..=at]);
                rest = &rest[at + 1..];
            }
        }
    }
    text + rest
}

/// Where the bracket that opens at `open` is closed.
fn closing(name: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut before = ' ';
    for (at, letter) in name[open..].char_indices() {
        match letter {
            '<' | '(' => depth += 1,
            // The arrow of a Rust function type closes nothing.
            '>' if before == '-' => {}
            '>' | ')' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(open + at);
                }
            }
            _ => {}
        }
        before = letter;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::shorten;
    use proptest::prelude::*;

    #[test]
    fn strings_and_default_arguments_are_written_as_people_write_them() {
        let name = "app::Cache::add(std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> > const&, \
            std::vector<int, std::allocator<int> >)";
        assert_eq!(shorten(name), "app::Cache::add(std::string const&, std::vector<int>)");
        let map = "std::map<int, std::vector<int, std::allocator<int> >, std::less<int>, std::allocator<std::pair<int const, \
            std::vector<int, std::allocator<int> > > > >::at(int const&)";
        assert_eq!(shorten(map), "std::map<int, std::vector<int>>::at(int const&)");
    }

    #[test]
    fn long_names_lose_arguments_first_and_parameters_then() {
        let long = "a".repeat(60);
        assert_eq!(shorten(&format!("f<{long}, int>::g<{long}>(int)")), "f<..>::g<..>(int)");
        assert_eq!(shorten(&format!("f<{long}>::g({long}, {long})")), "f<..>::g(..)");
        let rust = format!("<{long} as core::iter::traits::iterator::Iterator>::next");
        assert_eq!(shorten(&rust), rust);
        let short = "std::operator<< (std::ostream&, char const*)";
        assert_eq!(shorten(short), short);
        let operator = format!("bool operator< <{long}>({long})");
        assert!(shorten(&operator).starts_with("bool operator< <"), "{}", shorten(&operator));
    }

    proptest! {
        #[test]
        fn any_text_is_taken(name in "[a-z<>(), :&é]{0,200}|.{0,200}") {
            shorten(&name);
            shorten(&format!("{name}, std::allocator<{name}{name}"));
        }
    }
}
